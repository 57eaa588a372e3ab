"""Microphone and speaker, with PortAudio played by the test."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actorflow.errors import MissingExtraError, SoundDeviceError
from actorflow.integrations import open_microphone, open_speaker


class PortAudioError(Exception):
    pass


class Stream:
    """A stream of sounddevice: what it was opened with, and whether it runs."""

    is_open = False

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.call: Callable[..., None] = options["callback"]

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The streams that are opened."""
    opened: list[Stream] = []

    def open_stream(**options: Any) -> Stream:
        opened.append(Stream(**options))
        return opened[-1]

    module = ModuleType("sounddevice")
    vars(module).update(
        RawInputStream=open_stream, RawOutputStream=open_stream, PortAudioError=PortAudioError
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return opened


def from_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


async def test_microphone_gives_what_portaudio_hears(streams: list[Stream]) -> None:
    async with open_microphone(8000) as microphone:
        (stream,) = streams
        assert stream.is_open
        buffer = bytearray(b"\x01\x02" * 160)

        from_a_thread(lambda: stream.call(buffer, 160, None, None))
        # PortAudio fills it again.
        buffer[:] = bytes(320)

        assert await anext(microphone) == b"\x01\x02" * 160
    assert not stream.is_open
    options = {it: stream.options[it] for it in ("samplerate", "channels", "dtype", "blocksize")}
    assert options == {"samplerate": 8000, "channels": 1, "dtype": "int16", "blocksize": 160}


@pytest.mark.spec("A148")
async def test_microphone_keeps_the_latest_two_seconds(streams: list[Stream]) -> None:
    async with open_microphone() as microphone:
        for number in range(130):
            streams[0].call(bytes([number]))
        await wait_all_tasks_blocked()

        heard = [await anext(microphone) for _ in range(100)]

    assert heard == [bytes([number]) for number in range(30, 130)]


@pytest.mark.spec("A148")
async def test_speaker_plays_what_it_is_given_and_then_silence(streams: list[Stream]) -> None:
    async with open_speaker() as speaker:
        assert streams[0].is_open
        speaker.play(b"abcdef")
        speaker.play(b"gh")
        first, second = bytearray(b"old!old!"), bytearray(b"old!")

        from_a_thread(lambda: streams[0].call(memoryview(first)[:6], 3, None, None))
        from_a_thread(lambda: streams[0].call(second, 2, None, None))

    assert first[:6] == b"abcdef"
    assert second == b"gh\0\0"
    assert not streams[0].is_open


@pytest.mark.spec("A148")
async def test_cleared_speaker_is_silent(streams: list[Stream]) -> None:
    async with open_speaker(1000) as speaker:
        speaker.play(bytes(b"ab" * 500))
        assert speaker.waiting_ms == 500

        assert speaker.clear() == 500

        frame = bytearray(b"xx")
        streams[0].call(frame)
        assert frame == b"\0\0"
        assert speaker.waiting_ms == 0


@pytest.mark.parametrize("opening", [open_microphone, open_speaker])
async def test_machine_without_a_device_is_told(
    opening: Any, streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PortAudioError("Error querying device -1")

    module = sys.modules["sounddevice"]
    monkeypatch.setattr(module, "RawInputStream", refuse)
    monkeypatch.setattr(module, "RawOutputStream", refuse)

    with pytest.raises(SoundDeviceError, match=r"to be used: Error querying device -1"):
        async with opening():
            pass


async def test_machine_without_portaudio_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])

    with pytest.raises(SoundDeviceError, match="PortAudio library not found") as caught:
        async with open_speaker():
            pass
    assert "apt-get install libportaudio2" in caught.value.fix_hint


@pytest.mark.spec("A140")
@pytest.mark.parametrize("opening", [open_microphone, open_speaker])
async def test_without_the_extra_it_is_named(opening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    with pytest.raises(MissingExtraError) as caught:
        async with opening():
            pass
    assert "pip install 'actorflow[audio]'" in caught.value.fix_hint


async def test_microphone_may_be_left_while_it_hears(streams: list[Stream]) -> None:
    async with open_microphone():
        streams[0].call(b"ab")

    await trio.lowlevel.checkpoint()
    # One that comes late finds nobody.
    streams[0].call(b"cd")
    await wait_all_tasks_blocked()
