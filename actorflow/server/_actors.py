"""The tasks of a session: its actor, and per connection a reader, a writer and a heartbeat.

    sessions/<id>            a supervisor that restarts nothing
    ├── app                  what the application does beside its turns, if anything
    ├── session              spawns, closes and cleans up
    ├── reader-1, writer-1, heartbeat-1
    └── turn-1

They tell each other nothing: all of them look at the `Session` and change it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from actorflow.actors import Actor, ActorRef, Child, Crashed, Down, Inbox, Reason, Supervisor
from actorflow.errors import (
    ActorflowError,
    ActorStoppedError,
    ConnectionLostError,
    MailboxFullError,
    ProtocolViolationError,
    UnifiedPipelineCancelled,
)
from actorflow.protocol import (
    CloseCode,
    Error,
    ErrorCode,
    Failure,
    ServerMessage,
    SessionState,
    UserAudio,
    WireFormat,
)
from actorflow.transport import hang_up

from ._link import Link
from ._session import CRASH, SHUTDOWN, Session, SessionApp
from ._turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable


_BESIDE: Final = "app"


@final
@attrs.frozen(eq=False)
class Attach:
    """Go on over another connection."""

    link: Link


@final
@attrs.frozen
class Wake:
    """Look whether there is anything to do."""


@final
@attrs.frozen
class IdleCheck:
    """Look whether the client is still interested."""


@final
@attrs.frozen
class GraceOver:
    """The client has not come back in time, if it is still away since then."""

    detached_at: float


def session_tree(
    session: Session,
    app: SessionApp,
    beside: Supervisor | None,
    forget: Callable[[Session], None],
) -> Supervisor:
    """The supervisor of one session. What works beside it begins before it and ends after it."""
    shutdown = session.config.close_timeout + 1
    actor = Child(
        "session",
        partial(SessionActor, session, app, forget),
        restart="transient",
        shutdown=shutdown,
    )
    if beside is None:
        return Supervisor(actor, max_restarts=0)
    # The session actor sees it end, and ends the session in order.
    return Supervisor(Child(_BESIDE, beside, restart="temporary"), actor, max_restarts=0)


@final
class SessionActor(Actor[Any]):
    """Does for a session what has to be waited for."""

    def __init__(
        self, session: Session, app: SessionApp, forget: Callable[[Session], None]
    ) -> None:
        self._session = session
        self._app = app
        self._forget = forget
        self._links = 0
        self._turn: tuple[ActorRef[Any], Turn] | None = None
        # Those of the present connection, the writer first.
        self._tasks: list[ActorRef[Any]] = []
        self._has_hung_up = False

    async def on_start(self) -> None:
        """Let the session wake this actor."""
        self._session.actor = self.ctx.ref
        self._session.wake = self._wake
        self.ctx.send_after(self._session.config.idle_timeout, IdleCheck())
        beside = f"sessions/{self._session.id}/{_BESIDE}"
        if beside in self.ctx.system:
            self.ctx.monitor(self.ctx.system[beside])

    def _wake(self) -> None:
        # With a full mailbox it will look soon; stopped, it has no need to.
        with suppress(MailboxFullError, ActorStoppedError):
            self.ctx.ref.tell_nowait(Wake())

    async def receive(self, message: object) -> None:
        """Carry out one wish, then whatever else there is to do."""
        # While its tree is being stopped nothing can be spawned any more. `on_stop` comes
        # next, and does what is left to do.
        with suppress(ActorStoppedError):
            match message:
                case Attach(link):
                    await self._attach(link)
                case Down(ref, reason):
                    self._ended(ref, reason)
                case GraceOver(detached_at):
                    self._end_if_still_away(detached_at)
                case IdleCheck():
                    self._end_if_idle()
            await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        session = self._session
        if self.ctx.is_stopping:
            return
        if session.ending is not None:
            await self._hang_up()
        elif session.link is not None and session.link.lost is not None:
            await self._detach(session.link, session.link.lost)
        if session.turn is not None and not session.turn.has_task and session.ending is None:
            await self._run(session.turn)

    # Connections

    async def _attach(self, link: Link) -> None:
        session = self._session
        if self._has_hung_up:
            assert session.ending is not None
            timeout = session.config.close_timeout
            await close_link(link, session.ending.code, session.ending.reason, timeout)
            return
        replaced = session.link
        await self._stop_tasks()
        if replaced is not None:
            farewell = partial(say_farewell, replaced, session.config.close_timeout)
            await self._spawn(farewell, f"farewell-{self._links}")
        session.attach(link)
        self._links += 1
        for name, behaviour in (("writer", write), ("reader", read), ("heartbeat", beat_heart)):
            task = partial(behaviour, session, link)
            ref = await self._spawn(task, f"{name}-{self._links}")
            self._tasks.append(ref)
            self.ctx.monitor(ref)

    async def _detach(self, link: Link, lost: ConnectionLostError) -> None:
        session = self._session
        await self._stop_tasks()
        await link.connection.abort()
        link.done.set()
        ended = lost.close_code in (CloseCode.NORMAL, CloseCode.TOO_BIG)
        # In the meantime the application may have closed it.
        ended = ended or session.ending is not None
        if ended or not link.format.is_resumable or session.is_draining:
            session.link = None
            session.end(lost.close_code, lost.reason or "the connection ended")
            await self._hang_up()
            return
        session.detach()
        grace = session.config.resume_grace
        self.ctx.send_after(grace, GraceOver(session.detached_at))
        recorder = partial(record, session, link.format)
        self._tasks.append(await self._spawn(recorder, f"recorder-{self._links}"))
        await session.sink.emit(
            type="session.detached",
            data={
                "session_id": session.id,
                "reason": lost.reason or f"code {lost.close_code}",
                "grace_seconds": grace,
            },
        )

    async def _stop_tasks(self) -> None:
        for ref in self._tasks:
            ref.kill("its connection is over")
            await ref.wait_stopped()
        self._tasks.clear()

    async def _spawn(self, behaviour: Any, name: str) -> ActorRef[Any]:
        under = f"sessions/{self._session.id}"
        ref: ActorRef[Any] = await self.ctx.system.spawn(
            behaviour, name=name, under=under, shutdown=0
        )
        return ref

    # Turns

    async def _run(self, turn: Turn) -> None:
        turn.has_task = True
        ref = await self._spawn(partial(run_turn, self._app, self._session, turn), turn.id)
        self._turn = ref, turn
        self.ctx.monitor(ref)

    def _ended(self, ref: ActorRef[Any], reason: Reason) -> None:
        if self._turn is not None and self._turn[0] is ref:
            turn = self._turn[1]
            self._turn = None
            if not turn.has_finished:
                self._session.finish_turn(turn, _failure_of(reason))
        elif isinstance(reason, Crashed):
            # Without its reader, its writer or its application a session would be deaf or dumb.
            self._session.fail()

    # Endings

    def _end_if_still_away(self, detached_at: float) -> None:
        session = self._session
        if session.state is SessionState.DETACHED and session.detached_at == detached_at:
            session.end(CloseCode.GOING_AWAY, "client_gone")

    def _end_if_idle(self) -> None:
        session = self._session
        timeout = session.config.idle_timeout
        now = trio.current_time()
        # A turn is activity, and being away has a limit of its own.
        busy = session.turn is not None or session.link is None
        left = timeout if busy else session.last_active + timeout - now
        if left <= 0:
            session.end(CloseCode.IDLE, f"nothing was said for {timeout:g} s")
        else:
            self.ctx.send_after(left, IdleCheck())

    async def _hang_up(self) -> None:
        session = self._session
        if self._has_hung_up:
            return
        self._has_hung_up = True
        assert session.ending is not None
        if session.link is not None:
            await self._close(session.link, session.ending.code, session.ending.reason)
        self.ctx.system[f"sessions/{session.id}"].stop(session.ending.reason)

    async def _close(self, link: Link, code: int, reason: str) -> None:
        timeout = self._session.config.close_timeout
        with trio.move_on_after(timeout):
            # The last words: the writer ends when it has none left.
            for writer in self._tasks[:1]:
                await writer.wait_stopped()
        await self._stop_tasks()
        await close_link(link, code, reason, timeout)

    async def on_stop(self, reason: Reason) -> None:
        """End the session whatever the reason, and leave nothing behind."""
        session = self._session
        code = CloseCode.GOING_AWAY if not isinstance(reason, Crashed) else CloseCode.INTERNAL
        session.end(code, SHUTDOWN if code is CloseCode.GOING_AWAY else CRASH)
        assert session.ending is not None
        try:
            if session.link is not None and not self._has_hung_up:
                await self._say_goodbye(session.link)
        finally:
            self._forget(session)
            if session.link is not None:
                session.link.done.set()
            counters = session.counters
            # The sink shields and limits this by itself.
            await session.sink.emit(  # noqa: ASYNC102
                type="session.closed",
                data={
                    "session_id": session.id,
                    "code": int(session.ending.code),
                    "reason": session.ending.reason,
                    "duration_ms": round((trio.current_time() - session.opened_at) * 1000, 3),
                    "turns": counters.turns,
                    "bytes_in": counters.bytes_in,
                    "bytes_out": counters.bytes_out,
                },
            )

    async def _say_goodbye(self, link: Link) -> None:
        # The reader and the writer were stopped before this actor.
        session = self._session
        assert session.ending is not None
        timeout = session.config.close_timeout
        with trio.move_on_after(timeout):
            await flush(session, link)
        await close_link(link, session.ending.code, session.ending.reason, timeout)


def _failure_of(reason: Reason) -> Failure:
    # What an exception says may be none of the client's business; its code is.
    if isinstance(reason, Crashed) and isinstance(reason.error, ActorflowError):
        return Failure(reason.error.code, "the turn failed")
    return Failure(ErrorCode.TURN_FAILED, "the turn failed")


async def close_link(link: Link, code: int, reason: str, timeout: float) -> None:
    """Close the connection, in order if no frame is half sent."""
    try:
        if link.is_sending:
            await link.connection.abort()
        else:
            await hang_up(link.connection, code, reason, timeout)
    finally:
        link.done.set()


# Tasks of one connection


async def read(session: Session, link: Link, _: Inbox[Any]) -> None:
    """Hear what the client says until the connection ends."""
    try:
        while True:
            frame = await link.connection.receive()
            link.last_heard = trio.current_time()
            session.counters.messages_in += 1
            session.counters.bytes_in += len(frame)
            link.format, messages = link.format.read(frame)
            for message in messages:
                if isinstance(message, UserAudio):
                    await session.hear(link, message.data)
                else:
                    session.receive(link, message)
    except ConnectionLostError as error:
        session.lose(link, error)
    except ProtocolViolationError as error:
        fatal = Error(error.error_code, str(error))
        session.end(error.close_code, str(error), fatal)


async def write(session: Session, link: Link, _: Inbox[Any]) -> None:
    """Say what there is to say until the connection, or the session, ends."""
    try:
        for greeting in link.greeting:
            for frame in link.format.write(0, greeting):
                await send(session, link, frame)
        for frame in session.replay.after(link.after_seq):
            await send(session, link, frame)
        while (message := await next_message(session)) is not None:
            for frame in session.frames_of(message, link.format):
                await send(session, link, frame)
    except ConnectionLostError as error:
        session.lose(link, error)


async def record(session: Session, wire_format: WireFormat, _: Inbox[Any]) -> None:
    """Keep what there is to say for a client that comes back."""
    while (message := await next_message(session)) is not None:
        session.frames_of(message, wire_format)


async def next_message(session: Session) -> ServerMessage | None:
    """Wait for the next message; None when the session is over and all is said."""
    await trio.lowlevel.checkpoint()
    while True:
        found = session.next_message(trio.current_time())
        if isinstance(found, float):
            with trio.move_on_at(found):
                await session.work.wait()
        elif found is not None or session.ending is not None:
            return found
        else:
            await session.work.wait()


async def send(session: Session, link: Link, frame: Any) -> None:
    """Send one frame, within the time a client may take for it."""
    link.is_sending = True
    with trio.move_on_after(session.config.slow_client_timeout) as patience:
        await link.connection.send(frame)
        link.is_sending = False
    if patience.cancelled_caught:
        session.end(CloseCode.SLOW_CLIENT, "the client does not read")
        raise ConnectionLostError(CloseCode.SLOW_CLIENT, "the client does not read")
    session.counters.messages_out += 1
    session.counters.bytes_out += len(frame)


async def flush(session: Session, link: Link) -> None:
    """Send the last words of a session."""
    if link.is_sending:
        return
    try:
        while (message := session.next_control()) is not None:
            for frame in session.frames_of(message, link.format):
                await send(session, link, frame)
    except ConnectionLostError:
        return


async def beat_heart(session: Session, link: Link, _: Inbox[Any]) -> None:
    """Ask the client for a sign of life again and again, and give it up without one."""
    config = session.config
    async with trio.open_nursery() as nursery:
        while True:
            asked_at = trio.current_time() + config.heartbeat_interval
            await trio.sleep_until(asked_at)
            if not link.is_pinging:
                link.is_pinging = True
                nursery.start_soon(ping, session, link)
            await trio.sleep(config.heartbeat_timeout)
            # While the reader waits for room, nobody would hear an answer.
            if link.last_heard < asked_at and not link.is_paused:
                session.lose(link, ConnectionLostError(CloseCode.HEARTBEAT, "no sign of life"))


async def ping(session: Session, link: Link) -> None:
    """Ask once. A ping is never given up, because a part of it may have left."""
    try:
        await link.connection.ping()
    except ConnectionLostError as error:
        session.lose(link, error)
    else:
        link.last_heard = trio.current_time()
        link.is_pinging = False


async def say_farewell(link: Link, timeout: float, _: Inbox[Any]) -> None:
    """Close a connection that another one has replaced."""
    await close_link(link, CloseCode.REPLACED, "replaced by another connection", timeout)


async def run_turn(app: SessionApp, session: Session, turn: Turn, _: Inbox[Any]) -> None:
    """Let the application answer."""
    is_canceled = False
    with turn.scope:
        try:
            await app.on_turn(session, turn)
        except UnifiedPipelineCancelled:
            is_canceled = True
    failure = None
    if turn.scope.cancelled_caught and not turn.is_over:
        failure = Failure("TURN_TIMEOUT", "the turn took too long")
    session.finish_turn(turn, failure, is_canceled=is_canceled)
