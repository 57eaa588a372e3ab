"""Speech for tests: audio in which the words can be found again, and those who listen to it.

A letter is two samples, one for each half of its code, and a sample far below zero
stands between two repetitions. The steps between the values are so large that the
words survive mu-law, so the same call can be made over a telephone.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, final

import attrs
import trio

from actorflow.errors import MockConfigError
from actorflow.model import calculate_audio_duration_ms
from actorflow.protocol import AudioShape

from ._providers import MockTranscription

_LOWEST: Final = 8_192
_STEP: Final = 1_536
_BETWEEN: Final = -20_000
_LOUD: Final = 4_096


def speech_audio(text: str, seconds: float = 1.0, shape: AudioShape | None = None) -> bytes:
    """Audio that says `text` again and again for so long; `words_in` finds it again."""
    shape = shape or AudioShape()
    letters = text.encode("utf-8")
    once = [_BETWEEN, *(_LOWEST + half * _STEP for it in letters for half in (it >> 4, it & 15))]
    count = round(seconds * shape.sample_rate)
    samples = array("h", (once * (count // len(once) + 1))[:count])
    if shape.channels > 1:
        samples = array("h", (it for it in samples for _ in range(shape.channels)))
    return _bytes_of(samples)


def words_in(audio: bytes, channels: int = 1) -> str:
    """The words that `speech_audio` hid in `audio`, each as often as it was said."""
    found: list[str] = []
    letters: list[int] | None = None
    is_fresh = True
    for sample in _samples_of(audio)[::channels]:
        if sample < -_LOUD:
            if letters is not None:
                text = _text_of(letters)
                # Said again without a pause it is the same word going on.
                if text is not None and (is_fresh or found[-1] != text):
                    found.append(text)
                    is_fresh = False
            letters = []
        elif sample < _LOUD:
            letters, is_fresh = None, True
        elif letters is not None:
            letters.append(round((sample - _LOWEST) / _STEP))
    return " ".join(found)


def _text_of(halves: list[int]) -> str | None:
    # What was cut in the middle has half a letter, or one that is none.
    if not halves or len(halves) % 2:
        return None
    pairs = zip(halves[::2], halves[1::2], strict=True)
    codes = [high << 4 | low for high, low in pairs]
    try:
        return bytes(codes).decode("utf-8")
    except ValueError:
        return None


def _samples_of(audio: bytes) -> array[int]:
    samples = array("h", audio[: len(audio) // 2 * 2])
    if sys.byteorder == "big":  # pragma: no cover - samples are little-endian everywhere
        samples.byteswap()
    return samples


def _bytes_of(samples: array[int]) -> bytes:
    if sys.byteorder == "big":  # pragma: no cover - as above
        samples.byteswap()
    return samples.tobytes()


@final
@attrs.frozen
class Speech:
    """Something the user says aloud."""

    at: float
    """When, in seconds from the beginning of the call."""
    text: str
    seconds: float = 1.0


@final
class ScriptedMic:
    """A microphone that hears speech at given times and silence between them.

    Its audio comes in pieces, as fast as it plays. On a virtual clock an hour of it
    takes no time.
    """

    def __init__(
        self, *speech: Speech, shape: AudioShape | None = None, piece_ms: float = 20.0
    ) -> None:
        """Say what is spoken and when.

        Raises:
          MockConfigError: if two speeches overlap, or pieces hold no sample.
        """
        self.shape: Final = shape or AudioShape()
        self.speech: Final = tuple(sorted(speech, key=lambda it: it.at))
        for earlier, later in zip(self.speech, self.speech[1:], strict=False):
            if later.at < earlier.at + earlier.seconds:
                raise MockConfigError("speech", later, f"speech that begins after {earlier}")
        self._samples = int(self.shape.sample_rate * piece_ms / 1000)
        if self._samples < 1:
            raise MockConfigError("piece_ms", piece_ms, "long enough for a sample")
        size = self._samples * self.shape.frame_size
        self._silence = bytes(size)
        self._spoken: dict[int, bytes] = {}
        for speech_ in self.speech:
            audio = speech_audio(speech_.text, speech_.seconds, self.shape)
            first = round(speech_.at / self.piece_seconds)
            for number, begin in enumerate(range(0, len(audio), size), first):
                self._spoken[number] = audio[begin : begin + size].ljust(size, b"\0")

    @property
    def piece_seconds(self) -> float:
        """How long a piece plays."""
        return self._samples / self.shape.sample_rate

    @property
    def speaks_until(self) -> float:
        """When the last word is over."""
        return self.speech[-1].at + self.speech[-1].seconds if self.speech else 0.0

    def piece(self, number: int) -> bytes:
        """What is heard in one piece, counted from 0."""
        return self._spoken.get(number, self._silence)

    async def play(self, send: Callable[[bytes], Awaitable[object]], seconds: float) -> None:
        """Send what is heard in so many seconds from now, each piece when it is over."""
        begun_at = trio.current_time()
        for number in range(round(seconds / self.piece_seconds)):
            await trio.sleep_until(begun_at + (number + 1) * self.piece_seconds)
            await send(self.piece(number))


@final
class ScriptedDetector:
    """A `SpeechDetector` for the audio of a `ScriptedMic`: what is loud is speech.

    With `script` it says these probabilities, one per frame and the last one for
    ever, whatever it hears.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        frame_ms: float = 32.0,
        script: Iterable[float] | None = None,
    ) -> None:
        self.sample_rate: Final = sample_rate
        self.frame_size: Final = int(sample_rate * frame_ms / 1000) * 2
        self.frames = 0
        """How many frames it has heard."""
        self.resets = 0
        """How often it was told to forget."""
        self._script = None if script is None else tuple(script)
        if self._script == ():
            raise MockConfigError("script", script, "at least one probability")

    def probability(self, frame: bytes) -> float:
        """How likely a frame is speech."""
        if len(frame) != self.frame_size:
            raise MockConfigError("frame", len(frame), f"{self.frame_size} bytes")
        self.frames += 1
        if self._script is not None:
            return self._script[min(self.frames, len(self._script)) - 1]
        return 0.95 if max(_samples_of(frame), default=0) >= _LOUD else 0.05

    def reset(self) -> None:
        """Note that what follows does not continue what was heard."""
        self.resets += 1


@final
class ScriptedRecognizer:
    """A `SpeechToText` that finds the words of a `ScriptedMic` in the audio."""

    def __init__(self, *, latency_ms: float = 0.0, sample_rate: int = 16_000) -> None:
        self.heard: Final[list[str]] = []
        """What it has understood so far."""
        self._latency = latency_ms / 1000
        self._sample_rate = sample_rate

    async def transcribe(
        self, audio: bytes, *, language: str = "en", **options: Any
    ) -> MockTranscription:
        """Write down what is said in `audio`; nothing, if that is silence."""
        await trio.sleep(self._latency)
        text = words_in(audio)
        self.heard.append(text)
        duration_ms = calculate_audio_duration_ms(len(audio), self._sample_rate)
        return MockTranscription(text, 0.95, duration_ms, language)
