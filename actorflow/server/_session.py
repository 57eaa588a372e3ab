"""One conversation: what is true of it between any two awaits.

Everything that is decided about a session is decided here, by methods that do not
wait: the reader tells it what the client said, the writer asks it what comes next,
the application answers through its turns. Because nothing here awaits, an
interruption takes effect in the instant in which it is read, whatever the queues
hold. Whatever has to be waited for (spawning, closing) is the session actor's, who
is woken by `wake`.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, final, runtime_checkable

import attrs
import trio

from actorflow.actors import ActorRef, Supervisor
from actorflow.errors import ConnectionLostError, InvalidArgumentError
from actorflow.events import BoundEventSink, EventSink, TeeEventSink
from actorflow.model import AudioChunk
from actorflow.protocol import (
    Ack,
    AudioShape,
    ClientMessage,
    CloseCode,
    Closing,
    End,
    Error,
    ErrorCode,
    Failure,
    Flow,
    Frame,
    Interrupt,
    Interrupted,
    Microphone,
    Outbox,
    Pacer,
    Ping,
    Played,
    Pong,
    Ready,
    ReplayBuffer,
    ReplyAudio,
    ReplyText,
    ServerEvent,
    ServerMessage,
    SessionLimits,
    SessionState,
    Start,
    Step,
    TurnCompleted,
    TurnMessage,
    TurnStarted,
    UserText,
    WireFormat,
    after,
    check_allowed,
)

from ._admission import Principal
from ._config import ServerConfig
from ._forwarding import ClientSink
from ._link import Link
from ._signal import Signal
from ._turn import Turn

SHUTDOWN: Final = "server_shutdown"
CRASH: Final = "the session crashed"


class SessionApp(Protocol):
    """What answers. One object serves all sessions."""

    async def on_turn(self, session: Session, turn: Turn) -> None:
        """Answer one turn.

        Cancelled when the user interrupts, the client does not come back or the
        server shuts down. An exception fails the turn; the session goes on. A
        pipeline that a stage has cancelled makes the turn a canceled one.
        """
        ...


@runtime_checkable
class ListeningApp(SessionApp, Protocol):
    """What answers, and does something in each session beside its turns."""

    def on_session(self, session: Session) -> Supervisor:
        """Return what works for a session from its first message to its end.

        It is part of the session's tree, stopped in order when the session and all its
        turns have ended. When it gives up, the session ends with 1011. An
        `AudioFormatMismatchError` turns the client away.
        """
        ...


@final
@attrs.define
class Counters:
    """What has passed through a session, or a server, so far."""

    turns: int = 0
    interrupted: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: int = 0
    """Pieces of the user's audio."""
    stale: int = 0
    """Messages that turns sent after they were over."""
    events_dropped: int = 0
    """Events that a client was not told of because too much waited for it."""

    def add(self, other: Counters) -> None:
        """Count what `other` has counted, too."""
        for field in attrs.fields(Counters):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@final
@attrs.frozen
class Ending:
    """Why a session is over."""

    code: int
    reason: str


def _nobody_is_there_yet() -> None:
    """Do nothing: the actor looks by itself when it comes."""


@final
class Session:
    """One conversation with a client, over one connection or several in a row."""

    def __init__(
        self,
        session_id: str,
        principal: Principal,
        start: Start,
        config: ServerConfig,
        sink: EventSink,
    ) -> None:
        self.id: Final = session_id
        self.principal: Final = principal
        self.metadata: Final[Mapping[str, Any]] = start.metadata
        self.audio: Final[AudioShape] = start.audio
        """What the audio looks like, in both directions."""
        self.state = SessionState.IDLE
        self.counters: Final = Counters()
        self.config: Final = config
        self.event_sink: Final[EventSink] = (
            TeeEventSink(sink, ClientSink(self)) if config.forward_events else sink
        )
        """Where runs of this session report: what the server was given, and the client
        as far as `forward_events` goes."""
        self.sink: Final = BoundEventSink(self.event_sink)
        self.piece_size: Final = start.audio.frame_size * int(
            start.audio.sample_rate * config.piece_ms / 1000
        )
        self.replay: Final = ReplayBuffer(config.replay_messages, config.replay_bytes)
        self.microphone: Final = Microphone(start.audio, config.inbound_ms)
        self.link: Link | None = None
        self.turn: Turn | None = None
        self.ending: Ending | None = None
        self.actor: ActorRef[Any] | None = None
        self.wake: Callable[[], None] = _nobody_is_there_yet
        """Lets the session actor look at what there is to do."""
        self.app_data: Any = None
        """Whatever the application wants to keep with the session."""
        self.is_draining = False
        self.opened_at: Final = trio.current_time()
        self.last_active = self.opened_at
        self.detached_at = self.opened_at
        self.work: Final = Signal()
        """There may be something to send."""
        self._outbox = Outbox(config.outbound_messages, config.outbound_bytes)
        self._pacer = Pacer(config.lead_ms)
        self._prompts: deque[object] = deque()
        self._room = Signal()
        self._heard = Signal()
        self._listened = Signal()
        self._is_throttled = False
        self._reports_playback = False
        self._failed_turns = 0
        self._heard_ms = 0.0
        self._heard_pieces = 0
        self._is_overheard = False
        # How many pieces had come each time the client said that its input is over. More ends
        # than pieces wait only where what was between them has been dropped.
        self._input_ends: deque[int] = deque(maxlen=self.microphone.max_pieces + 1)
        self._pieces_in = 0
        # Turns whose last words went to a client that was away.
        self._unheard: list[Turn] = []
        self._token: str | None = None

    # For applications

    def interrupt(self, reason: str = "interrupted", *, carry: bytes = b"") -> bool:
        """Break off the present turn, at once, and say whether there was one.

        Its scope is cancelled, what it had to say and has not been sent is thrown
        away, and the client is told.

        Args:
          carry: audio that the turn has read and that belongs to the next one, the
            beginning of the words that interrupted.
        """
        return self._interrupt(Interrupt(reason=reason), carry)

    def take_microphone(self) -> AsyncIterator[AudioChunk]:
        """All audio of the user from now on, whether there is a turn or not.

        Turns get none of it, and it begins none: `begin_turn` does. What is not read
        survives turns and interruptions. `is_final` is set where the client said that
        its input is over, on an empty chunk if need be. Ends with the session.
        """
        self._is_overheard = True
        return _Overhearing(self)

    def begin_turn(self, prompt: object) -> bool:
        """Begin a turn about `prompt`, or have it wait for the present one to end.

        False if there will be none: the session is over, or draining, or as many wait
        as may (`queued_texts`).
        """
        if prompt is None:
            raise InvalidArgumentError("prompt", prompt, "what the turn is about")
        if self.ending is not None or self.is_draining:
            return False
        if len(self._prompts) >= self.config.queued_texts:
            return False
        self._prompts.append(prompt)
        self._begin_if_wanted()
        return True

    @property
    def _is_away(self) -> bool:
        return self.state is SessionState.DETACHED

    @property
    def is_answering(self) -> bool:
        """Whether there is something to interrupt."""
        return self.turn is not None and not self.turn.is_over

    @property
    def audible_until(self) -> float:
        """When all audio that was sent will have been played, on trio's clock."""
        return self._pacer.ends_at

    def tell(self, event: str, data: Mapping[str, Any]) -> bool:
        """Tell the client of something that happened, unless too much waits for it."""
        if self.ending is not None:
            return False
        if self._outbox.is_crowded:
            self.counters.events_dropped += 1
            return False
        self.put_control(ServerEvent(event, data))
        return True

    def close(self, reason: str = "closed by the application") -> None:
        """End the session in order."""
        self.end(CloseCode.NORMAL, reason)

    def fail(self, reason: str = CRASH) -> None:
        """End the session because something that it needs has failed."""
        self.end(CloseCode.INTERNAL, reason, Error(ErrorCode.TURN_FAILED, reason))

    # For the actor, the registry and the tasks of a connection

    def take_step(self, step: Step) -> None:
        """Change the state by the table."""
        self.state = after(self.state, step)

    def new_token(self) -> str:
        """A token with which the session can be resumed once. The one before is void."""
        self._token = f"{self.id}.{secrets.token_urlsafe(24)}"
        return self._token

    def accepts(self, token: str, principal: Principal) -> bool:
        """Whether `token` resumes this session. `ready` makes the next one."""
        return (
            self._token is not None
            and hmac.compare_digest(self._token.encode(), token.encode())
            and principal.id == self.principal.id
            and self.ending is None
            and not self.is_draining
        )

    def ready(self, *, resumed: bool, is_resumable: bool) -> Ready:
        """What greets a connection."""
        limits = SessionLimits(
            self.config.max_message_size,
            self.config.inbound_ms,
            self.config.idle_timeout,
            self.config.heartbeat_interval,
        )
        return Ready(self.id, resumed, limits, self.new_token() if is_resumable else None)

    def attach(self, link: Link) -> None:
        """Go on over this connection."""
        if self.state is SessionState.DETACHED:
            in_turn = self.turn is not None
            self.take_step(Step.RESUMED_IN_TURN if in_turn else Step.RESUMED)
            self._hear_the_rest()
        self.link = link
        self.last_active = trio.current_time()

    def _hear_the_rest(self) -> None:
        # It has gone to a client that was away, who begins to play it now.
        for turn in self._unheard:
            turn.settle()
        self._unheard.clear()
        if self.turn is not None:
            unheard_ms = self.turn.playback.sent_ms - self.turn.played_when_lost
            self._pacer = self._pacer.cleared().sent(unheard_ms, trio.current_time())

    def detach(self) -> None:
        """Go on without a connection."""
        if self.turn is not None:
            self.turn.played_when_lost = self._played_by_the_clock(self.turn)
            self.turn.playback_when_lost = self.turn.playback
        self.take_step(Step.LOST)
        self.link = None
        self.detached_at = trio.current_time()

    def lose(self, link: Link, error: ConnectionLostError) -> None:
        """Note that a connection has ended. The first report of it counts."""
        if link is self.link and link.lost is None:
            link.lost = error
            self.wake()

    def end(self, code: int, reason: str, error: Error | None = None) -> None:
        """Decide that the session is over. The first reason wins."""
        if self.ending is not None:
            return
        self.ending = Ending(code, reason)
        if self.turn is not None:
            self._cancel_turn(self.turn, reason, None)
        for turn in self._unheard:
            self._close_ledger(turn, 0.0, self._played(turn))
        self.take_step(Step.CLOSED)
        if error is not None:
            self._outbox.put_control(error)
        self._outbox.put_control(Closing(reason))
        self._wake_everybody()

    def drain(self, deadline_seconds: float) -> None:
        """Let the present turn end, and begin no other."""
        if self.ending is not None or self.is_draining:
            return
        self.is_draining = True
        if after(self.state, Step.DRAIN) is SessionState.CLOSED:
            self.end(CloseCode.GOING_AWAY, SHUTDOWN)
        else:
            self.take_step(Step.DRAIN)
            limit = deadline_seconds if math.isfinite(deadline_seconds) else None
            self.put_control(Closing(SHUTDOWN, limit))

    def _wake_everybody(self) -> None:
        for signal in (self.work, self._room, self._heard, self._listened):
            signal.set()
        self.wake()

    # What the client says

    def receive(self, link: Link, message: ClientMessage) -> None:
        """Obey a message other than audio.

        Raises:
          ProtocolViolationError: if it may not come now.
        """
        if self.ending is not None or self.link is not link:
            return
        check_allowed(self.state, message)
        self.last_active = trio.current_time()
        match message:
            case UserText(text):
                self._take_text(text)
            case Interrupt():
                self._interrupt(message, b"")
            case End(scope="turn"):
                self._end_input()
            case End():
                self.end(CloseCode.NORMAL, "ended by the client")
            case Ack(seq):
                self.replay.acknowledge(seq)
            case Played(turn_id, played_ms):
                self._note_playback(turn_id, played_ms)
            case Ping(ping_id):
                self.put_control(Pong(ping_id))
            case _:  # pragma: no cover - `start` is not allowed any more, audio goes to `hear`
                raise AssertionError(message)

    def _note_playback(self, turn_id: str, played_ms: float) -> None:
        self._reports_playback = True
        turn = self.turn
        if turn is None or turn.id != turn_id:
            # It was on its way when that turn ended.
            return
        turn.playback = turn.playback.acknowledged(played_ms)

    def _take_text(self, text: str) -> None:
        if not self.begin_turn(text) and not self.is_draining:
            why = f"more than {self.config.queued_texts} messages wait for their turn"
            self.end(CloseCode.OVERLOADED, why, Error(ErrorCode.OVERLOADED, why))

    def _end_input(self) -> None:
        if self._is_overheard:
            # Said twice, it is over once.
            if not self._input_ends or self._input_ends[-1] < self._pieces_in:
                self._input_ends.append(self._pieces_in)
            self._heard.set()
        elif self.turn is not None and self.turn.input_left is None:
            self.turn.input_left = len(self.microphone)
            self._heard.set()

    async def hear(self, link: Link, data: bytes) -> None:
        """Take a piece of the user's audio; wait for room if that is the policy."""
        if self.ending is not None or self.link is not link or not self._has_ears:
            return
        self.last_active = trio.current_time()
        if not self.microphone.has_room(len(data)):
            await self._make_room(link, len(data))
            if self.ending is not None or self.link is not link:
                return
        before = len(self.microphone)
        self.microphone.put(data)
        self._pieces_in += len(self.microphone) - before
        self._heard.set()
        self._begin_if_wanted()

    @property
    def _has_ears(self) -> bool:
        # Draining, there is no next turn that could listen.
        if not self.is_draining:
            return True
        turn = self.turn
        return not self._is_overheard and turn is not None and turn.input_left is None

    async def _make_room(self, link: Link, byte_count: int) -> None:
        policy = self.config.inbound_policy
        if policy == "reject":
            self._overloaded(0)
            self._too_much_audio()
        elif policy == "drop_oldest":
            self._drop_oldest(byte_count)
        else:
            self._overloaded(0)
            link.is_paused = True
            with trio.move_on_after(self.config.inbound_pause_limit) as patience:
                while not self.microphone.has_room(byte_count) and self.ending is None:
                    await self._listened.wait()
            link.is_paused = False
            link.last_heard = trio.current_time()
            if patience.cancelled_caught:
                self._too_much_audio()

    def _drop_oldest(self, byte_count: int) -> None:
        dropped = self.microphone.drop_oldest(byte_count)
        self.counters.dropped += dropped
        if self.turn is not None and self.turn.input_left is not None:
            self.turn.input_left = max(0, self.turn.input_left - dropped)
        self._overloaded(dropped)

    def _overloaded(self, dropped: int) -> None:
        # Once per time of trouble, not once per frame.
        if self._is_throttled:
            return
        self._is_throttled = True
        self._tell_flow("pause")
        self.emit(
            "session.overloaded",
            direction="in",
            policy=self.config.inbound_policy,
            dropped=dropped,
        )

    def _too_much_audio(self) -> None:
        why = f"more than {self.config.inbound_ms:g} ms of audio wait to be worked off"
        self.end(CloseCode.OVERLOADED, why, Error(ErrorCode.OVERLOADED, why))

    def _tell_flow(self, state: Any) -> None:
        microphone = self.microphone
        self.put_control(Flow("in", state, microphone.buffered_ms, microphone.dropped))

    async def listen(self, turn: Turn) -> AudioChunk | None:
        """The next piece of audio for `turn`; None when there will be no more."""
        if self._is_overheard:
            return None
        while not turn.is_input_over and not len(self.microphone):
            await self._heard.wait()
        if turn.is_input_over:
            return None
        if turn.input_left is not None:
            turn.input_left -= 1
        return self._next_chunk(self.microphone.take())

    async def overhear(self) -> AudioChunk | None:
        """The next piece of audio for whoever has the microphone; None at the end."""
        while not len(self.microphone) and not self._input_ends and self.ending is None:
            await self._heard.wait()
        if self.ending is not None:
            return None
        if self._input_ends_here():
            return self._next_chunk(b"", is_final=True)
        return self._next_chunk(self.microphone.take(), is_final=self._input_ends_here())

    def _input_ends_here(self) -> bool:
        pieces_out = self._pieces_in - len(self.microphone)
        if not self._input_ends or self._input_ends[0] > pieces_out:
            return False
        self._input_ends.popleft()
        return True

    def _next_chunk(self, data: bytes, *, is_final: bool = False) -> AudioChunk:
        if self._is_throttled and self.microphone.buffered_ms <= self.config.inbound_ms / 2:
            self._is_throttled = False
            self._tell_flow("resume")
        self._listened.set()
        chunk = AudioChunk(
            data,
            self.audio.sample_rate,
            self.audio.channels,
            timestamp_ms=self._heard_ms,
            sequence=self._heard_pieces,
            is_final=is_final,
        )
        self._heard_ms += chunk.duration_ms
        self._heard_pieces += 1
        return chunk

    # Turns

    def _begin_if_wanted(self) -> None:
        # The turn begins in the instant in which its first input is read, so that what
        # is read next finds it. The actor then gives it a task.
        if self.turn is not None or self.ending is not None or self.is_draining:
            return
        if not self._prompts and (self._is_overheard or not len(self.microphone)):
            return
        self.counters.turns += 1
        prompt = self._prompts.popleft() if self._prompts else None
        turn = self.turn = Turn(self, self.counters.turns, prompt)
        if self.config.max_turn_seconds is not None:
            turn.scope.deadline = trio.current_time() + self.config.max_turn_seconds
        self.take_step(Step.TURN_BEGAN)
        self.put(TurnStarted(turn.id, str(turn.run_id)))
        self.wake()

    def finish_turn(
        self, turn: Turn, failure: Failure | None, *, is_canceled: bool = False
    ) -> None:
        """Note that the application has nothing more to say in this turn."""
        turn.has_finished = True
        self.counters.stale += turn.stale
        if not turn.is_over:
            status: Any = "completed" if failure is None else "failed"
            if is_canceled:
                status = "canceled"
            duration_ms = (trio.current_time() - turn.started_at) * 1000
            self.put(TurnCompleted(turn.id, status, duration_ms, failure))
            self._failed_turns = 0 if failure is None else self._failed_turns + 1
        self._settle(turn)
        if self._failed_turns >= self.config.max_failed_turns:
            why = f"{self._failed_turns} turns in a row failed"
            self.end(CloseCode.INTERNAL, why, Error(ErrorCode.TURN_FAILED, why))

    def _settle(self, turn: Turn) -> None:
        # A turn can be interrupted until all it said has left.
        if not (turn.has_finished and turn.is_over):
            return
        self.turn = None
        self.last_active = trio.current_time()
        if self.ending is not None:
            return
        self.take_step(Step.TURN_ENDED)
        if self.state is SessionState.CLOSED:
            self.end(CloseCode.GOING_AWAY, SHUTDOWN)
        else:
            self._begin_if_wanted()

    def _interrupt(self, wish: Interrupt, carry: bytes) -> bool:
        turn = self.turn
        if turn is None or turn.is_over or wish.turn_id not in (None, turn.id):
            self.put_control(Interrupted())
            return False
        self.microphone.put_back(carry)
        self.counters.interrupted += 1
        discarded_ms = self._cancel_turn(turn, wish.reason, wish.played_ms)
        self.put_control(Interrupted(turn.id, discarded_ms, turn.last_sequence))
        self.emit(
            "session.interrupted",
            turn_id=turn.id,
            turn_run_id=str(turn.run_id),
            reason=wish.reason,
            discarded_ms=discarded_ms,
            played_ms=turn.playback.acknowledged_ms,
        )
        self._settle(turn)
        return True

    def _cancel_turn(self, turn: Turn, reason: str, played_ms: float | None) -> float:
        discarded_ms = self._outbox.discard().audio_ms
        if played_ms is None:
            played_ms = self._played(turn)
        self._close_ledger(turn, discarded_ms, played_ms)
        turn.is_over = True
        turn.has_finished = turn.has_finished or not turn.has_task
        # The run first, or it would end with the scope around it for a reason.
        turn.cancel_token.cancel(reason)
        turn.scope.cancel(reason=reason)
        self._pacer = self._pacer.cleared()
        self._room.set()
        self._heard.set()
        return discarded_ms

    def _close_ledger(self, turn: Turn, discarded_ms: float, played_ms: float | None) -> None:
        playback = turn.playback
        if self._is_away:
            # What was recorded for a client that has not come back was not sent.
            playback = turn.playback_when_lost
            discarded_ms += turn.playback.sent_ms - playback.sent_ms
        turn.playback = playback.interrupted(discarded_ms, played_ms)
        turn.settle()

    def _played(self, turn: Turn) -> float | None:
        return None if self._reports_playback else self._played_by_the_clock(turn)

    def _played_by_the_clock(self, turn: Turn) -> float:
        # What is recorded for a client that is away is not played.
        if self._is_away:
            return turn.played_when_lost
        waiting_ms = max(0.0, self._pacer.ends_at - trio.current_time()) * 1000
        return max(0.0, turn.playback.sent_ms - waiting_ms)

    # What is sent

    async def has_room(self, turn: Turn) -> bool:
        """Wait until `turn` may put a message in; False if it is over."""
        while self._outbox.is_full and not turn.is_over:
            await self._room.wait()
        return not turn.is_over

    def put(self, message: TurnMessage) -> None:
        """Add a message of the present turn."""
        self._outbox.put(message)
        self.work.set()

    def put_control(self, message: ServerMessage) -> None:
        """Add a message that overtakes those of turns."""
        self._outbox.put_control(message)
        self.work.set()
        if self._outbox.is_flooded:
            self.end(CloseCode.SLOW_CLIENT, "the client does not read")

    def next_control(self) -> ServerMessage | None:
        """The next of the messages that wait for nothing."""
        return self._outbox.next_control()

    def next_message(self, now: float) -> ServerMessage | float | None:
        """What to send next; or when to ask again; or None if there is nothing."""
        control = self.next_control()
        if control is not None:
            return control
        head = self._outbox.peek()
        if isinstance(head, ReplyAudio) and self._pacer.due > now:
            return self._pacer.due
        if head is None:
            return None
        message = self._outbox.take()
        self._room.set()
        self._hand_over(message, now)
        return message

    def _hand_over(self, message: TurnMessage, now: float) -> None:
        turn = self.turn
        assert turn is not None  # the outbox holds messages of the present turn only
        match message:
            case ReplyAudio(sequence=sequence, duration_ms=duration_ms):
                turn.playback = turn.playback.sent(duration_ms)
                turn.last_sequence = sequence
                self._pacer = self._pacer.sent(duration_ms, now)
            case ReplyText(delta=text):
                turn.playback = turn.playback.said(text)
            case TurnCompleted():
                turn.playback = turn.playback.completed()
                turn.is_over = True
                if self._is_away:
                    self._unheard.append(turn)
                else:
                    turn.settle()
                self._forget_input(turn)
                self._settle(turn)

    def _forget_input(self, turn: Turn) -> None:
        # What a turn did not care to hear would otherwise begin the next one, and
        # that one another. What came after the end of its input is for the next.
        if self._is_overheard:
            return
        left = turn.input_left
        self.microphone.clear(len(self.microphone) if left is None else left)

    def frames_of(self, message: ServerMessage, wire_format: WireFormat) -> tuple[Frame, ...]:
        """The frames of a message, numbered, and recorded for a client that comes back."""
        if isinstance(message, Pong):
            return wire_format.write(0, message)
        frames = wire_format.write(self.replay.next_seq, message)
        self.replay.record(frames if wire_format.is_resumable else ())
        return frames

    # Reports

    def emit(self, type_: str, **data: object) -> None:
        """Report something that happened, without waiting."""
        self.sink.try_emit(type=type_, data={"session_id": self.id, **data})


@final
class _Overhearing:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __aiter__(self) -> _Overhearing:
        return self

    async def __anext__(self) -> AudioChunk:
        await trio.lowlevel.checkpoint()
        chunk = await self._session.overhear()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
