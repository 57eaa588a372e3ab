"""The session part: who hears the microphone, and what is made of it.

A pipeline of one run per life: microphone, filters, detector, endpointing. It is a
crash group: if one of its stages breaks, all of them begin anew. What is not theirs
alone survives: audio that nobody has read, and the utterance that was begun.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from actorflow.actors import Inbox
from actorflow.errors import AudioFormatMismatchError
from actorflow.model import AudioChunk, calculate_audio_duration_ms
from actorflow.pipeline import Pipeline, stage
from actorflow.providers import SpeechDetector
from actorflow.server import Session
from actorflow.stages import StageContext

from ._listening import (
    BargeIn,
    Endpointing,
    FrameCutter,
    Listener,
    Sign,
    SpeechIgnored,
    SpeechInto,
    SpeechStarted,
    Utterance,
)
from ._rates import Resample, converter
from ._user_turn import UserTurn

if TYPE_CHECKING:
    from actorflow.pipeline import StageSpec

# How much may be between two of these stages; the rest waits in the microphone.
_EDGE: Final[Mapping[str, Any]] = {"stream_buffer": 8, "stream_ms": 100}


@final
@attrs.frozen
class _Frame:
    """What the detector says of one frame; an empty one where the client ended its input."""

    data: bytes
    probability: float
    duration_ms: float = 0.0


@final
class Hearing:
    """What one session hears, and what is true of it from one life to the next."""

    def __init__(
        self,
        session: Session,
        make_detector: Callable[[], SpeechDetector],
        *,
        endpointing: Endpointing,
        barge_in: BargeIn,
        resample: Resample | None,
    ) -> None:
        """Take the microphone of `session`.

        Raises:
          AudioFormatMismatchError: if the detector does not understand its audio.
        """
        self._session = session
        self._make_detector = make_detector
        self._detector = make_detector()
        self._resample = resample
        self._barge_in = barge_in
        self._has_echo = session.metadata.get("echo") is True
        if session.audio.channels != 1:
            raise AudioFormatMismatchError("audio", (session.audio.channels,), "one channel")
        self._new_converter()
        self.microphone: Final[AsyncIterator[AudioChunk]] = session.take_microphone()
        self.listener: Final = Listener(self._detector.sample_rate, endpointing, barge_in)
        self.user_turn: UserTurn | None = None
        """The turn that is being answered, or was last."""

    def _new_converter(self) -> None:
        rates = self._session.audio.sample_rate, self._detector.sample_rate
        self._converter = converter(*rates, self._resample)
        self._cutter = FrameCutter(self._detector.frame_size)
        self._frame_ms = calculate_audio_duration_ms(
            self._detector.frame_size, self._detector.sample_rate
        )

    async def live(self, pipeline: Pipeline, inbox: Inbox[Any]) -> None:
        """Hear until the session ends. A second life has a detector that remembers nothing."""
        restarts = inbox.ctx.incarnation - 1
        if restarts:
            self._detector = self._make_detector()
            self._new_converter()
            self._session.emit("session.hearing_restarted", restarts=restarts)
        await pipeline.run(
            ports=_HearingPorts(self),
            event_sink=self._session.event_sink,
            metadata={"session_id": self._session.id},
        )

    def detect(self, chunk: AudioChunk) -> Iterable[_Frame]:
        """The frames that a piece of audio completes, and how likely each is speech."""
        frames = self._cutter.cut(self._converter.convert(chunk.data))
        if chunk.is_final:
            frames += self._cutter.cut(self._converter.flush()) + self._cutter.last()
        for frame in frames:
            yield _Frame(frame, self._detector.probability(frame), self._frame_ms)
        if chunk.is_final:
            self._detector.reset()
            yield _Frame(b"", 0.0)

    def listen(self, frame: _Frame) -> None:
        """Do what follows from one more frame."""
        is_answering = self._session.is_answering
        if self._may_not_listen():
            # What is heard now neither interrupts nor is it a part of what is said next.
            self.listener.forget()
        elif frame.data:
            signs = self.listener.hear(frame.data, frame.probability, is_answering=is_answering)
            self._obey(signs)
        else:
            self._obey(self.listener.end(is_answering=is_answering))

    def _may_not_listen(self) -> bool:
        if self.user_turn is not None and self.user_turn.is_uninterrupted:
            return True
        if not self._has_echo:
            return False
        until = self._session.audible_until + self._barge_in.echo_tail_ms / 1000
        return trio.current_time() < until

    def _obey(self, signs: Sequence[Sign]) -> None:
        for sign in signs:
            match sign:
                case SpeechStarted(at_ms):
                    self._session.emit("session.speech_started", at_ms=at_ms)
                case SpeechInto():
                    self._session.interrupt("speech")
                case SpeechIgnored(utterance):
                    self._report_end(utterance, is_ignored=True)
                case _:
                    self._report_end(sign, is_ignored=False)
                    self._answer(sign)

    def _report_end(self, utterance: Utterance, *, is_ignored: bool) -> None:
        self._session.emit(
            "session.speech_ended",
            at_ms=utterance.started_ms + utterance.duration_ms,
            duration_ms=utterance.duration_ms,
            ended_by=utterance.ended_by,
            is_ignored=is_ignored,
        )

    def _answer(self, utterance: Utterance) -> None:
        if not self._session.begin_turn(utterance):
            self._session.emit("session.overloaded", direction="in", policy="reject", dropped=1)


async def _microphone(ctx: StageContext) -> None:
    async for chunk in _hearing(ctx).microphone:
        await ctx.send(chunk)


async def _detector(ctx: StageContext) -> None:
    hearing = _hearing(ctx)
    async for chunk in ctx.stream():
        for frame in hearing.detect(chunk):
            await ctx.send(frame)


async def _endpointing(ctx: StageContext) -> None:
    hearing = _hearing(ctx)
    async for frame in ctx.stream():
        hearing.listen(frame)


def _hearing(ctx: StageContext) -> Hearing:
    found: Hearing = ctx.ports.hearing
    return found


@attrs.frozen
class _HearingPorts:
    hearing: Hearing


def hearing_pipeline(filters: Iterable[tuple[str, Any]]) -> Pipeline:
    """The session part, with `filters` between the microphone and the detector."""
    line: list[StageSpec] = [stage("microphone", _microphone)]
    more = [*filters, ("detector", _detector), ("endpointing", _endpointing)]
    for name, runner in more:
        source = line[-1].name
        line.append(stage(name, runner, stream_from=source, **_EDGE))
    return Pipeline.from_stages(*line, name="hearing")
