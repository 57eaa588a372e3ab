"""Microphone and speaker of this machine, with sounddevice.

PortAudio calls from a thread of its own and waits for nobody, so what it brings is
handed to the loop, and what it fetches has to lie ready.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, Final, final

import trio

from actorflow.errors import MissingExtraError, SoundDeviceError

FRAME_MS: Final = 20
_SAMPLE: Final = 2
# So much of what was said is kept for who is slow to listen; the oldest goes first.
_KEPT_FRAMES: Final = 100


@final
class Speaker:
    """Plays 16-bit samples of one channel. Make it with `open_speaker`."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate: Final = sample_rate
        self._waiting = bytearray()
        # The thread of PortAudio takes from what the loop puts there.
        self._lock = threading.Lock()

    def play(self, samples: bytes) -> None:
        """Play this after what is still to be played; returns at once."""
        with self._lock:
            self._waiting += samples

    def clear(self) -> float:
        """Be silent now. Returns how many milliseconds are not played."""
        with self._lock:
            cleared = len(self._waiting)
            self._waiting.clear()
        return self._milliseconds(cleared)

    @property
    def waiting_ms(self) -> float:
        """How much is still to be played."""
        return self._milliseconds(len(self._waiting))

    def _milliseconds(self, byte_count: int) -> float:
        return byte_count / _SAMPLE / self.sample_rate * 1000

    def fill(self, wanted: Any, *_: object) -> None:
        """Hand over what is due, silence where there is nothing."""
        with self._lock:
            data = bytes(self._waiting[: len(wanted)])
            del self._waiting[: len(wanted)]
        wanted[:] = data.ljust(len(wanted), b"\0")


@asynccontextmanager
async def open_speaker(sample_rate: int = 16_000) -> AsyncIterator[Speaker]:
    """The speaker of this machine, for as long as the block lasts.

    Raises:
      MissingExtraError: if sounddevice is not installed.
      SoundDeviceError: if there is no speaker, or none that can be used.
    """
    sounddevice = _sounddevice("speaker")
    speaker = Speaker(sample_rate)
    stream = _opened(sounddevice, "speaker", sounddevice.RawOutputStream, sample_rate, speaker.fill)
    with stream:
        yield speaker


@asynccontextmanager
async def open_microphone(sample_rate: int = 16_000) -> AsyncIterator[AsyncIterator[bytes]]:
    """What the microphone of this machine hears, for as long as the block lasts.

    16-bit samples of one channel, in pieces of 20 ms. Of what is not taken the latest
    two seconds are kept.

    Raises:
      MissingExtraError: if sounddevice is not installed.
      SoundDeviceError: if there is no microphone, or none that can be used.
    """
    sounddevice = _sounddevice("microphone")
    token = trio.lowlevel.current_trio_token()
    put, take = trio.open_memory_channel[bytes](_KEPT_FRAMES)

    def keep(frame: bytes) -> None:
        if put.statistics().current_buffer_used == _KEPT_FRAMES:
            take.receive_nowait()
        put.send_nowait(frame)

    def hear(frame: Any, *_: object) -> None:
        # The buffer belongs to PortAudio, and is filled again.
        token.run_sync_soon(keep, bytes(frame))

    stream = _opened(sounddevice, "microphone", sounddevice.RawInputStream, sample_rate, hear)
    with stream:
        yield take


def _sounddevice(device: str) -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError(f"The {device}", "audio") from None
    except OSError as error:
        # It finds PortAudio when it is imported.
        raise SoundDeviceError(device, str(error)) from None
    module: ModuleType = sounddevice
    return module


def _opened(sounddevice: ModuleType, device: str, kind: Any, rate: int, callback: Any) -> Any:
    try:
        return kind(
            samplerate=rate,
            channels=1,
            dtype="int16",
            blocksize=rate * FRAME_MS // 1000,
            callback=callback,
        )
    except sounddevice.PortAudioError as error:
        raise SoundDeviceError(device, str(error)) from error
