"""Who is let in, and the list of those who are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, Never, final

import attrs
import trio

from actorflow.actors import Child, Supervisor, System, open_system
from actorflow.errors import (
    ActorStoppedError,
    AudioFormatMismatchError,
    ConnectionLostError,
    ProtocolViolationError,
    StartFailedError,
)
from actorflow.events import EventSink, get_event_sink
from actorflow.ids import uuid7
from actorflow.protocol import (
    CloseCode,
    Error,
    ErrorCode,
    ServerMessage,
    SessionState,
    Start,
    WireFormat,
    check_allowed,
)
from actorflow.transport import Connection, hang_up

from ._actors import Attach, session_tree
from ._admission import ANONYMOUS, Principal
from ._config import ServerConfig
from ._link import Link
from ._session import CRASH, SHUTDOWN, Counters, ListeningApp, Session, SessionApp
from ._signal import Signal

_log: Final = logging.getLogger("actorflow.server")


@final
@attrs.frozen
class ServerStatistics:
    """What a server does and has done."""

    connections: int
    """Connections that are open, those without a session included."""
    sessions: Mapping[str, int]
    """Open sessions by state."""
    turns: int
    interrupted: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    stale: int
    events_dropped: int
    replay_bytes: int


@final
@attrs.frozen
class Refusal:
    """Why a connection gets no session."""

    code: int
    reason: str
    error: Error | None = None


_CRASHED: Final = Refusal(CloseCode.INTERNAL, CRASH, Error(ErrorCode.TURN_FAILED, CRASH))


@final
class Sessions:
    """All sessions of one application, whatever their connections are made of."""

    def __init__(
        self, system: System, app: SessionApp, config: ServerConfig, sink: EventSink
    ) -> None:
        self.config: Final = config
        self._system = system
        self._app = app
        self._sink = sink
        self._open: dict[str, Session] = {}
        self._past = Counters()
        self._connections = 0
        self._is_draining = False
        self._changed = Signal()

    async def serve(
        self,
        connection: Connection,
        wire_format: WireFormat,
        principal: Principal = ANONYMOUS,
    ) -> None:
        """Serve one connection from its first message to its end.

        Whatever the client does, nothing is raised. The connection is closed when
        this returns; its session may wait for the client to come back.
        """
        self._connections += 1
        try:
            found = await self._admit(connection, wire_format, principal)
            if isinstance(found, Link):
                await found.done.wait()
            else:
                await self._refuse(connection, wire_format, found)
        finally:
            self._connections -= 1

    async def drain(self, timeout: float = 30.0) -> None:
        """Let no one in, let turns end for `timeout` seconds, then cancel what is left.

        Returns when no session is left, and nothing that worked for one.
        """
        self._is_draining = True
        trees = [self._system[path] for path in self._paths() if path in self._system]
        for session in self._all():
            session.drain(timeout)
        with trio.move_on_after(timeout):
            await self._until_empty()
        for session in self._all():
            session.end(CloseCode.GOING_AWAY, SHUTDOWN)
        await self._until_empty()
        for tree in trees:
            await tree.wait_stopped()

    def statistics(self) -> ServerStatistics:
        """What there is and was, as of now."""
        total = Counters()
        total.add(self._past)
        for session in self._all():
            total.add(session.counters)
        states = Counter(str(session.state) for session in self._all())
        return ServerStatistics(
            connections=self._connections,
            sessions=MappingProxyType(dict(states)),
            replay_bytes=sum(session.replay.byte_count for session in self._all()),
            **attrs.asdict(total),
        )

    def _paths(self) -> list[str]:
        return [f"sessions/{session_id}" for session_id in self._open]

    def _all(self) -> tuple[Session, ...]:
        return tuple(self._open.values())

    async def _until_empty(self) -> None:
        while self._open:
            await self._changed.wait()

    # Coming in

    async def _admit(
        self, connection: Connection, wire_format: WireFormat, principal: Principal
    ) -> Link | Refusal:
        timeout = self.config.start_timeout
        start = None
        try:
            with trio.move_on_after(timeout):
                wire_format, start = await _first_message(connection, wire_format)
        except ConnectionLostError as lost:
            return Refusal(lost.close_code, lost.reason)
        except ProtocolViolationError as error:
            return Refusal(error.close_code, str(error), Error(error.error_code, str(error)))
        if start is None:
            return Refusal(CloseCode.NO_START, f"no start message within {timeout:g} s")
        if start.resume_token is not None and wire_format.is_resumable:
            return await self._resume(connection, wire_format, principal, start)
        return await self._open_session(connection, wire_format, principal, start)

    async def _open_session(
        self, connection: Connection, wire_format: WireFormat, principal: Principal, start: Start
    ) -> Link | Refusal:
        if self._is_draining:
            return Refusal(CloseCode.GOING_AWAY, SHUTDOWN)
        theirs = sum(session.principal.id == principal.id for session in self._all())
        if theirs >= self.config.max_sessions_per_principal:
            return Refusal(CloseCode.POLICY, f"{theirs} sessions are open already")
        session = Session(str(uuid7()), principal, start, self.config, self._sink)
        try:
            beside = self._app.on_session(session) if isinstance(self._app, ListeningApp) else None
        except AudioFormatMismatchError as error:
            why = str(error)
            return Refusal(CloseCode.PROTOCOL, why, Error(ErrorCode.AUDIO_FORMAT, why))
        except Exception:  # noqa: BLE001 - user code
            _log.exception("session_failed_to_begin")
            return _CRASHED
        self._open[session.id] = session
        tree = session_tree(session, self._app, beside, self._forget)
        try:
            await self._system.spawn(tree, name=session.id, under="sessions")
        except StartFailedError:
            # It may have begun without what should work beside it, and forgotten itself.
            self._open.pop(session.id, None)
            return _why_over(session, _CRASHED)
        data = {
            "session_id": session.id,
            "principal": principal.id,
            "subprotocol": wire_format.subprotocol,
            "peer": connection.peer,
        }
        await session.sink.emit(type="session.opened", data=data)
        ready = session.ready(resumed=False, is_resumable=wire_format.is_resumable)
        return await self._attach(session, Link(connection, wire_format, (ready,)))

    async def _resume(
        self, connection: Connection, wire_format: WireFormat, principal: Principal, start: Start
    ) -> Link | Refusal:
        refusal = Refusal(CloseCode.RESUME_REFUSED, "the session cannot be resumed")
        assert start.resume_token is not None  # that is why it came here
        session = self._open.get(start.resume_token.partition(".")[0])
        if session is None or start.last_seq >= session.replay.next_seq:
            return refusal
        if not session.accepts(start.resume_token, principal):
            return refusal
        # Until here nothing has waited, so of two that come with one token one is late.
        session.replay.acknowledge(start.last_seq)
        gap = session.replay.has_gap(start.last_seq)
        greeting: tuple[ServerMessage, ...] = (session.ready(resumed=True, is_resumable=True),)
        if gap:
            why = "messages were dropped while the client was away"
            first = session.replay.first_seq
            greeting += (Error(ErrorCode.RESUME_GAP, why, fatal=False, first_seq=first),)
        data = {
            "session_id": session.id,
            "replayed": len(session.replay),
            "gap": gap,
            "detached_seconds": trio.current_time() - session.detached_at,
        }
        await session.sink.emit(type="session.resumed", data=data)
        link = Link(connection, wire_format, greeting, start.last_seq)
        return await self._attach(session, link)

    async def _attach(self, session: Session, link: Link) -> Link | Refusal:
        assert session.actor is not None  # it has started
        try:
            await session.actor.tell(Attach(link))
        except ActorStoppedError:
            return _why_over(session, Refusal(CloseCode.GOING_AWAY, SHUTDOWN))
        return link

    async def _refuse(
        self, connection: Connection, wire_format: WireFormat, refusal: Refusal
    ) -> None:
        timeout = self.config.close_timeout
        if refusal.error is not None:
            # It is the only one who sends here, and if it cannot, so be it.
            with trio.move_on_after(timeout) as patience:
                try:
                    for frame in wire_format.write(0, refusal.error):
                        await connection.send(frame)
                except ConnectionLostError:
                    pass
            if patience.cancelled_caught:
                await connection.abort()
                return
        await hang_up(connection, refusal.code, refusal.reason, timeout)

    def _forget(self, session: Session) -> None:
        del self._open[session.id]
        self._past.add(session.counters)
        self._changed.set()


def _why_over(session: Session, otherwise: Refusal) -> Refusal:
    ending = session.ending
    if ending is None or ending.reason == CRASH:
        return otherwise
    return Refusal(ending.code, ending.reason)


async def _first_message(
    connection: Connection, wire_format: WireFormat
) -> tuple[WireFormat, Start]:
    messages = wire_format.opening()
    while not messages:
        wire_format, messages = wire_format.read(await connection.receive())
    (first,) = messages
    check_allowed(SessionState.WAITING_START, first)
    assert isinstance(first, Start)  # nothing else is allowed
    return wire_format, first


@asynccontextmanager
async def open_sessions(
    app: SessionApp,
    *,
    config: ServerConfig | None = None,
    event_sink: EventSink | None = None,
) -> AsyncIterator[Sessions]:
    """Run the sessions of an application for as long as the block lasts.

    Hand connections to `Sessions.serve`: those of `open_server` come from sockets,
    those of tests from memory. However the block is left, every session is closed
    with 1001 first.
    """
    config = config or ServerConfig()
    # A session says its last words, closes its connection and cleans up.
    grace = 2 * config.close_timeout + 1
    tree: Child[Never] = Child("sessions", Supervisor(), restart="temporary")
    async with open_system(tree, grace=grace) as system:
        sink = get_event_sink() if event_sink is None else event_sink
        yield Sessions(system, app, config, sink)
