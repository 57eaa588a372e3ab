"""Whole calls by script: what the user says and does when, and what came back when.

The clock is virtual, so an hour of talk takes seconds, and with the same seed it is
the same hour, to the byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar, cast, final
from zlib import crc32

import attrs
import trio

from actorflow import clock, ids
from actorflow.client import ClientSession, Reconnect, open_session_over
from actorflow.codec import canonical_json
from actorflow.errors import ActorflowError, ConnectionLostError, MockConfigError, ResumeGapError
from actorflow.events import EventSink, event_sink_scope
from actorflow.protocol import (
    AudioShape,
    HouseFormat,
    Interrupted,
    ReplyAudio,
    ReplyText,
    ServerMessage,
    Transcript,
    TurnStarted,
)
from actorflow.server import ServerConfig, SessionApp, Sessions, open_sessions
from actorflow.transport import Connection

from ._calls_leaks import no_leaks
from ._calls_speech import ScriptedMic, Speech
from ._connection import MemoryConnection, memory_connection_pair
from ._seeded import run_seeded
from ._sinks import RecordedEvent, RecordingEventSink

M = TypeVar("M")

# What is still on its way when the last thing in the script has happened.
_AFTERWARDS: Final = 5.0
# As often as it takes, and soon after an outage is over.
_PATIENT: Final = Reconnect(max_attempts=1_000_000, base_delay_ms=100, max_delay_ms=100)
# The first instant of 2020, where seeded ids begin as well.
_BEGINNING: Final = 1_577_836_800.0


@final
@attrs.frozen
class Writing:
    """The user writes something."""

    at: float
    text: str


@final
@attrs.frozen
class Interruption:
    """The client breaks off the answer, and says how much of it was played.

    A client does so that notices by itself that its user speaks. Where the server
    listens for that, a `Speech` into the answer is enough.
    """

    at: float


@final
@attrs.frozen
class EndOfTurn:
    """The client says that no more input of this turn comes."""

    at: float


@final
@attrs.frozen
class Outage:
    """The network is gone for so many seconds. The client comes back by itself."""

    at: float
    seconds: float


Moment: TypeAlias = Speech | Writing | Interruption | EndOfTurn | Outage
"""What can happen in the script of a call."""


@final
@attrs.frozen
class Heard:
    """A message of the server, and when the client got it."""

    at: float
    """Seconds since the beginning of the call."""
    message: ServerMessage


@final
@attrs.frozen
class CallRecord:
    """What a client saw of a call."""

    heard: tuple[Heard, ...]
    played: Mapping[str, float]
    """By turn, the milliseconds that came out of the speaker."""
    reconnects: int = 0
    errors: tuple[ActorflowError, ...] = ()
    """What the client was told about gaps, and why the session ended early."""
    events: tuple[RecordedEvent, ...] = attrs.field(default=(), repr=False)
    """What sessions and runs reported; `run_call` fills it in."""

    def messages(self, kind: type[M]) -> list[M]:
        """The messages of one kind, in order."""
        return [cast("M", it.message) for it in self.heard if isinstance(it.message, kind)]

    def times(self, kind: type[ServerMessage]) -> list[float]:
        """When the messages of one kind came."""
        return [it.at for it in self.heard if isinstance(it.message, kind)]

    def understood(self) -> list[str]:
        """What the server understood of the user's speech, the final transcripts."""
        return [it.text for it in self.messages(Transcript) if it.is_final]

    def answer(self, turn_id: str) -> str:
        """What a turn answered, as text."""
        return "".join(it.delta for it in self.messages(ReplyText) if it.turn_id == turn_id)

    @property
    def stale(self) -> tuple[Heard, ...]:
        """Messages of turns that had been interrupted before. There must be none."""
        over: set[str | None] = set()
        found = []
        for heard in self.heard:
            turn_id = getattr(heard.message, "turn_id", None)
            if turn_id in over:
                found.append(heard)
            elif isinstance(heard.message, Interrupted) and turn_id is not None:
                over.add(turn_id)
        return tuple(found)

    def log(self) -> str:
        """All of it as text: two runs of one script with one seed have the same."""
        lines = [f"{it.at:.6f} {_line_of(it.message)}" for it in self.heard]
        lines += [f"played {ms:.3f} ms of {turn_id}" for turn_id, ms in self.played.items()]
        lines += [f"{it.type} {canonical_json(it.data).decode()}" for it in self.events]
        return "\n".join(lines)


def _line_of(message: ServerMessage) -> str:
    frames = HouseFormat().write(0, message)
    # Audio as its checksum: an hour of it would be a hundred megabytes.
    return " ".join(it if isinstance(it, str) else f"{crc32(it):08x}" for it in frames)


@final
@attrs.define
class _Speaker:
    """What a loudspeaker has played, by the clock."""

    played: dict[str, float] = attrs.field(factory=dict)
    waiting: deque[tuple[float, ReplyAudio]] = attrs.field(factory=deque)
    """Pieces of audio, each with the time at which it will have been played."""

    def put(self, piece: ReplyAudio, now: float) -> None:
        begins_at = max(now, self.waiting[-1][0]) if self.waiting else now
        self.waiting.append((begins_at + piece.duration_ms / 1000, piece))

    def take_played(self, now: float) -> ReplyAudio | None:
        """The next piece that is over, once."""
        if not self.waiting or self.waiting[0][0] > now:
            return None
        _, piece = self.waiting.popleft()
        self._count(piece.turn_id, piece.duration_ms)
        return piece

    def stop(self, now: float) -> None:
        """Throw away what was not played; a part of the first piece may have been."""
        for ends_at, piece in self.waiting:
            left_ms = min((ends_at - now) * 1000, piece.duration_ms)
            self._count(piece.turn_id, piece.duration_ms - left_ms)
        self.waiting.clear()

    def _count(self, turn_id: str, ms: float) -> None:
        self.played[turn_id] = self.played.get(turn_id, 0.0) + ms


@final
class _Network:
    """Connections to the sessions of an application, which can be cut."""

    def __init__(self, sessions: Sessions, nursery: trio.Nursery) -> None:
        self._sessions = sessions
        self._nursery = nursery
        self._here: MemoryConnection | None = None
        self._down_until = 0.0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A connection, unless there is an outage."""
        if trio.current_time() < self._down_until:
            raise ConnectionLostError(1006, "there is an outage")
        self._here, there = memory_connection_pair()
        wire_format = HouseFormat(self._sessions.config.max_message_size)
        self._nursery.start_soon(self._sessions.serve, there, wire_format)
        try:
            yield self._here
        finally:
            self._here.cut()

    def fail(self, seconds: float) -> None:
        """Lose the connection, and let none be made for a while."""
        self._down_until = trio.current_time() + seconds
        assert self._here is not None  # a script begins when there was a connection
        self._here.cut()


@final
class _Caller:
    """A client that follows a script, and plays what it hears."""

    def __init__(
        self, session: ClientSession, network: _Network, heard: list[Heard], speaker: _Speaker
    ) -> None:
        self._session = session
        self._network = network
        self._heard = heard
        self._speaker = speaker
        self._begun_at = trio.current_time()
        self._turn_id: str | None = None
        self._given_up: str | None = None
        self._has_audio = trio.Event()

    async def listen(self, errors: list[ActorflowError]) -> None:
        """Hear what there is until the session is over."""
        is_over = False
        while not is_over:
            try:
                async for message in self._session:
                    self._take(message)
                is_over = True
            except ActorflowError as error:
                errors.append(error)
                # After a gap there is more to hear.
                is_over = not isinstance(error, ResumeGapError)

    def _take(self, message: ServerMessage) -> None:
        now = trio.current_time()
        self._heard.append(Heard(round(now - self._begun_at, 9), message))
        match message:
            case TurnStarted(turn_id=turn_id):
                self._turn_id = turn_id
            case ReplyAudio(turn_id=turn_id) if turn_id != self._given_up:
                self._speaker.put(message, now)
                self._has_audio.set()
            case Interrupted(turn_id=str()):
                self._speaker.stop(now)

    async def act(self, moments: tuple[Moment, ...]) -> None:
        """Do what the script says."""
        with _while_there_is_a_session():
            for moment in moments:
                await trio.sleep_until(self._begun_at + moment.at)
                match moment:
                    case Writing(text=text):
                        await self._session.send_text(text)
                    case Interruption():
                        await self._barge_in()
                    case EndOfTurn():
                        await self._session.end_turn()
                    case Outage(seconds=seconds):
                        self._network.fail(seconds)
                    case _:
                        pass  # the microphone hears speech by itself

    async def _barge_in(self) -> None:
        self._speaker.stop(trio.current_time())
        turn_id = self._given_up = self._turn_id
        played_ms = self._speaker.played.get(turn_id or "", 0.0)
        await self._session.interrupt(turn_id=turn_id, played_ms=played_ms)

    async def speak(self, mic: ScriptedMic, seconds: float) -> None:
        """Send what the microphone hears."""
        with _while_there_is_a_session():
            await mic.play(self._session.send_audio, seconds)

    async def play(self, *, reports: bool) -> None:
        """Play what was heard, and say so."""
        with _while_there_is_a_session():
            while True:
                if not self._speaker.waiting:
                    self._has_audio = trio.Event()
                    await self._has_audio.wait()
                await trio.sleep_until(self._speaker.waiting[0][0])
                piece = self._speaker.take_played(trio.current_time())
                if piece is not None and reports:
                    await self._session.played(piece.turn_id, piece.ends_at_ms)


@contextmanager
def _while_there_is_a_session() -> Iterator[None]:
    # Having nobody to talk to any more is no fault of a script; `listen` knows why.
    with suppress(ActorflowError):
        yield


async def place_call(
    sessions: Sessions,
    *moments: Moment,
    seconds: float | None = None,
    audio: AudioShape | None = None,
    metadata: Mapping[str, object] | None = None,
    reports_playback: bool = True,
) -> CallRecord:
    """Call an application's sessions over memory, follow the script, and hang up.

    If anything is spoken, the microphone is on all the time and hears silence between.

    Args:
      moments: what the user says and does, and when.
      seconds: how long the call lasts; by default five seconds more than the script.
      audio: what the audio looks like.
      metadata: what the client sends with its start.
      reports_playback: whether the client tells how far its speaker has come.

    Raises:
      MockConfigError: for a script that cannot happen.
    """
    script = tuple(sorted(moments, key=lambda it: it.at))
    if script and script[0].at < 0:
        raise MockConfigError("at", script[0].at, "a time in the call, so at least 0")
    mic = ScriptedMic(*(it for it in script if isinstance(it, Speech)), shape=audio)
    last = max((mic.speaks_until, *(it.at for it in script)))
    length = last + _AFTERWARDS if seconds is None else seconds
    heard: list[Heard] = []
    errors: list[ActorflowError] = []
    speaker = _Speaker()
    reconnects = 0
    async with trio.open_nursery() as lines:
        network = _Network(sessions, lines)
        try:
            async with open_session_over(
                network.connect,
                audio=audio,
                metadata=metadata,
                reconnect=_PATIENT,
            ) as session:
                caller = _Caller(session, network, heard, speaker)
                async with trio.open_nursery() as nursery:
                    nursery.cancel_scope.deadline = trio.current_time() + length
                    nursery.start_soon(caller.act, script)
                    nursery.start_soon(partial(caller.play, reports=reports_playback))
                    if mic.speech:
                        nursery.start_soon(caller.speak, mic, length)
                    await caller.listen(errors)
                    nursery.cancel_scope.cancel()
                reconnects = session.reconnects
                speaker.stop(trio.current_time())
        except ActorflowError as error:
            errors.append(error)
    # Sums of floats drift, and nobody hears a part of a microsecond.
    played = {turn_id: round(ms, 3) for turn_id, ms in speaker.played.items()}
    return CallRecord(tuple(heard), MappingProxyType(played), reconnects, tuple(errors))


def run_call(
    app: SessionApp,
    *moments: Moment,
    seconds: float | None = None,
    config: ServerConfig | None = None,
    audio: AudioShape | None = None,
    metadata: Mapping[str, object] | None = None,
    reports_playback: bool = True,
    seed: int = 0,
) -> CallRecord:
    """Make a whole call to an application on a virtual clock, and return what was seen of it.

    The seed decides what chance decides: the order of tasks that are ready at the
    same time, ids, `random`. See `place_call` for the rest, and for calls of several
    clients at a time.

    Raises:
      AssertionError: if the call leaves a task, channel or session behind.
    """
    sink = RecordingEventSink()

    async def call() -> CallRecord:
        async with no_leaks():
            with event_sink_scope(sink):
                async with open_sessions(app, config=config, event_sink=sink) as sessions:
                    return await place_call(
                        sessions,
                        *moments,
                        seconds=seconds,
                        audio=audio,
                        metadata=metadata,
                        reports_playback=reports_playback,
                    )

    with ids.seeded(seed), clock.starting_at(_BEGINNING):
        record = run_seeded(call, seed=seed)
    return attrs.evolve(record, events=tuple(sink.events))


@asynccontextmanager
async def open_session_pair(
    app: SessionApp,
    *,
    config: ServerConfig | None = None,
    audio: AudioShape | None = None,
    metadata: Mapping[str, object] | None = None,
    event_sink: EventSink | None = None,
) -> AsyncIterator[tuple[ClientSession, Sessions]]:
    """A client's session over memory with an application, and the sessions it is one of."""
    failure: Exception | None = None
    async with (
        trio.open_nursery() as lines,
        open_sessions(app, config=config, event_sink=event_sink) as sessions,
    ):
        network = _Network(sessions, lines)
        try:
            async with open_session_over(
                network.connect, audio=audio, metadata=metadata
            ) as session:
                yield session, sessions
        except Exception as error:  # noqa: BLE001 - raised again, outside of the nursery's group
            failure = error
    if failure is not None:
        raise failure
