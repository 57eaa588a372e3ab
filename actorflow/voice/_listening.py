"""When somebody speaks, what they said, and whether it breaks off the answer.

Frames of audio come in with how likely each is speech; what follows from that comes
out. Nothing here waits or looks at a clock: time is the audio heard so far.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Literal, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.model import calculate_audio_duration_ms

_BYTES_PER_SAMPLE = 2


def _milliseconds(least: float) -> Any:
    def check(_: object, field: attrs.Attribute[float], value: float) -> None:
        if not (least <= value < math.inf):
            expected = f"a number of milliseconds of at least {least:g}"
            raise InvalidArgumentError(field.name, value, expected)

    return check


def _probability(_: object, field: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise InvalidArgumentError(field.name, value, "a number between 0 and 1")


def _above_nothing(_: object, field: attrs.Attribute[float], value: float) -> None:
    if not value:
        raise InvalidArgumentError(field.name, value, "above 0, or nothing would be silence")


@final
@attrs.frozen(kw_only=True)
class Endpointing:
    """Where an utterance begins and ends."""

    start_probability: float = attrs.field(default=0.5, validator=_probability)
    """From here on a frame counts as speech."""
    end_probability: float = attrs.field(default=0.35, validator=[_probability, _above_nothing])
    """Below this it counts as silence. In between, what was goes on."""
    min_speech_ms: float = attrs.field(default=100.0, validator=_milliseconds(0))
    """Shorter noises begin no utterance."""
    silence_ms: float = attrs.field(default=600.0, validator=_milliseconds(1))
    """How long a speaker pauses who has finished."""
    max_utterance_ms: float = attrs.field(default=30_000.0, validator=_milliseconds(1))
    """Longer ones are taken as they are; what follows is the next."""
    pre_roll_ms: float = attrs.field(default=300.0, validator=_milliseconds(0))
    """How much of the audio before speech belongs to it: detectors notice late, and the
    first syllable is quiet."""

    def __attrs_post_init__(self) -> None:
        if self.end_probability > self.start_probability:
            at_most = f"at most start_probability ({self.start_probability:g})"
            raise InvalidArgumentError("end_probability", self.end_probability, at_most)
        least = self.pre_roll_ms + self.min_speech_ms
        if self.max_utterance_ms <= least:
            above = f"above pre_roll_ms and min_speech_ms together ({least:g})"
            raise InvalidArgumentError("max_utterance_ms", self.max_utterance_ms, above)


@final
@attrs.frozen(kw_only=True)
class BargeIn:
    """When speech into an answer breaks it off."""

    is_allowed: bool = True
    min_speech_ms: float = attrs.field(default=250.0, validator=_milliseconds(0))
    """Shorter speech into an answer ("mhm") is no interruption, and no utterance."""
    echo_tail_ms: float = attrs.field(default=250.0, validator=_milliseconds(0))
    """How much longer than the answer its echo can be heard by a client that has one."""


@final
@attrs.frozen
class Utterance:
    """What somebody said between two pauses."""

    audio: bytes = attrs.field(repr=lambda audio: f"<{len(audio)} bytes>")
    """16-bit samples of one channel, the pre-roll and the pause at the end included."""
    sample_rate: int = 16_000
    started_ms: float = 0.0
    """Where the audio begins in that of the session."""
    ended_by: Literal["silence", "limit", "client"] = "silence"

    @property
    def duration_ms(self) -> float:
        """How long the audio is."""
        return calculate_audio_duration_ms(len(self.audio), self.sample_rate)


@final
@attrs.frozen
class SpeechStarted:
    """Somebody has begun to speak."""

    at_ms: float


@final
@attrs.frozen
class SpeechInto:
    """Somebody speaks into the answer, and wants it to end."""


@final
@attrs.frozen
class SpeechIgnored:
    """Somebody has said something into the answer that does not count."""

    utterance: Utterance


Sign: TypeAlias = SpeechStarted | SpeechInto | SpeechIgnored | Utterance
"""What listening has found out."""


@final
class Listener:
    """Listens to one speaker, frame by frame."""

    def __init__(self, sample_rate: int, endpointing: Endpointing, barge_in: BargeIn) -> None:
        self._rate = sample_rate
        self._rules = endpointing
        self._barge_in = barge_in
        self._heard_bytes = 0
        # While nobody speaks, the latest frames only: the pre-roll of what may come.
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._is_speaking = False
        self._has_interrupted = False
        self._speech_ms = 0.0
        self._silence_ms = 0.0

    @property
    def is_speaking(self) -> bool:
        """Whether somebody has begun to speak and not ended."""
        return self._is_speaking

    def hear(self, frame: bytes, probability: float, *, is_answering: bool) -> tuple[Sign, ...]:
        """Listen to the next frame."""
        frame_ms = self._duration_ms(len(frame))
        self._heard_bytes += len(frame)
        self._frames.append(frame)
        self._bytes += len(frame)
        if not self._is_speaking:
            return self._wait_for_speech(frame_ms, probability, is_answering=is_answering)
        is_silence = probability < self._rules.end_probability
        self._silence_ms = self._silence_ms + frame_ms if is_silence else 0.0
        if not is_silence:
            self._speech_ms += frame_ms
        into = self._speech_into(is_answering=is_answering)
        if self._silence_ms >= self._rules.silence_ms:
            return (*into, *self._said("silence", is_answering=is_answering))
        if self._duration_ms(self._bytes) >= self._rules.max_utterance_ms:
            cut = self._said("limit", is_answering=is_answering)
            # Whoever was cut off goes on, however short that is.
            self._is_speaking = True
            return (*into, *cut)
        return into

    def end(self, *, is_answering: bool) -> tuple[Sign, ...]:
        """Take it from the speaker that this was all.

        What was too short to be noticed counts then, if it might have been speech.
        """
        return self._said("client", is_answering=is_answering)

    def forget(self) -> None:
        """Drop what was heard: it does not count, or what follows does not continue it."""
        self._frames.clear()
        self._bytes = 0
        self._is_speaking = False
        self._has_interrupted = False
        self._speech_ms = 0.0
        self._silence_ms = 0.0

    def _wait_for_speech(
        self, frame_ms: float, probability: float, *, is_answering: bool
    ) -> tuple[Sign, ...]:
        if probability >= self._rules.start_probability:
            self._speech_ms += frame_ms
        elif probability < self._rules.end_probability:
            self._speech_ms = 0.0
        if not self._speech_ms or self._speech_ms < self._rules.min_speech_ms:
            self._shorten_pre_roll()
            return ()
        self._is_speaking = True
        started = SpeechStarted(self._duration_ms(self._heard_bytes) - self._speech_ms)
        return (started, *self._speech_into(is_answering=is_answering))

    def _shorten_pre_roll(self) -> None:
        keep_ms = self._rules.pre_roll_ms + self._speech_ms
        while self._frames and self._duration_ms(self._bytes - len(self._frames[0])) >= keep_ms:
            self._bytes -= len(self._frames.popleft())

    def _speech_into(self, *, is_answering: bool) -> tuple[Sign, ...]:
        if not is_answering or self._has_interrupted or not self._barge_in.is_allowed:
            return ()
        if self._speech_ms < self._barge_in.min_speech_ms:
            return ()
        # Once: what is answered next was not asked by this speaker.
        self._has_interrupted = True
        return (SpeechInto(),)

    def _said(
        self, ended_by: Literal["silence", "limit", "client"], *, is_answering: bool
    ) -> tuple[Sign, ...]:
        has_spoken = self._speech_ms > 0
        counts = self._has_interrupted or not is_answering
        started_ms = self._duration_ms(self._heard_bytes - self._bytes)
        utterance = Utterance(b"".join(self._frames), self._rate, started_ms, ended_by)
        self.forget()
        if not has_spoken:
            return ()
        return (utterance if counts else SpeechIgnored(utterance),)

    def _duration_ms(self, byte_count: int) -> float:
        return byte_count * 1000 / (_BYTES_PER_SAMPLE * self._rate)


@final
class FrameCutter:
    """Cuts audio that comes in pieces of any length into frames of one length."""

    def __init__(self, frame_size: int) -> None:
        self._size = frame_size
        self._rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """The frames that are complete now."""
        data = self._rest + data
        whole = len(data) // self._size * self._size
        self._rest = data[whole:]
        return [data[begin : begin + self._size] for begin in range(0, whole, self._size)]

    def last(self) -> list[bytes]:
        """What is left, filled up with silence to one frame, if anything is."""
        rest, self._rest = self._rest, b""
        return [rest.ljust(self._size, b"\0")] if rest else []
