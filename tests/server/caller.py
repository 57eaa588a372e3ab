"""A client by hand: says what a test wants, and hears what there is."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import attrs
import trio

from actorflow.errors import ConnectionLostError
from actorflow.events import validate_event
from actorflow.protocol import (
    Ack,
    ClientMessage,
    HouseClientFormat,
    HouseFormat,
    Numbered,
    Ready,
    ServerMessage,
    Start,
    WireFormat,
)
from actorflow.server import (
    ANONYMOUS,
    Principal,
    ServerConfig,
    Session,
    SessionApp,
    Sessions,
    Turn,
    open_sessions,
)
from actorflow.testing import MemoryConnection, RecordingEventSink, memory_connection_pair

M = TypeVar("M")

# 20 ms of the usual shape.
PIECE = b"\1\0" * 320


@attrs.define
class App(SessionApp):
    """An application that is one function."""

    answer: Callable[[Session, Turn], Awaitable[None]]

    async def on_turn(self, session: Session, turn: Turn) -> None:
        await self.answer(session, turn)


async def echo(session: Session, turn: Turn) -> None:
    await turn.send_text(turn.text or "", is_final=True)


class Caller:
    def __init__(self, connection: MemoryConnection) -> None:
        self.connection = connection
        self.format = HouseClientFormat()
        self.heard: list[Numbered] = []
        self.ready: Ready | None = None

    async def say(self, *messages: ClientMessage) -> None:
        for message in messages:
            for frame in self.format.write(message):
                await self.connection.send(frame)

    async def hear(self) -> ServerMessage:
        while True:
            self.format, found = self.format.read(await self.connection.receive())
            if found:
                self.heard.extend(found)
                return found[0].message

    async def hear_a(self, kind: type[M]) -> M:
        while True:
            message = await self.hear()
            if isinstance(message, kind):
                return message

    async def hear_to_the_end(self) -> tuple[int, str]:
        try:
            while True:
                await self.hear()
        except ConnectionLostError as error:
            return error.close_code, error.reason

    async def start(self, start: Start | None = None) -> Ready:
        await self.say(start or Start())
        self.ready = await self.hear_a(Ready)
        return self.ready

    async def acknowledge(self) -> None:
        await self.say(Ack(self.last_seq))

    @property
    def last_seq(self) -> int:
        return max((numbered.seq for numbered in self.heard), default=0)

    def said(self, kind: type[M]) -> list[M]:
        return [cast("M", it.message) for it in self.heard if isinstance(it.message, kind)]


@attrs.define
class House:
    """Sessions of an application, and callers that come in over memory."""

    sessions: Sessions
    nursery: trio.Nursery
    sink: RecordingEventSink
    served: list[trio.Event] = attrs.field(factory=list)

    def connect(
        self,
        wire_format: WireFormat | None = None,
        principal: Principal = ANONYMOUS,
        buffer: float = 1000,
    ) -> tuple[MemoryConnection, trio.Event]:
        here, there = memory_connection_pair(cast("int", buffer))
        done = trio.Event()
        self.served.append(done)
        format_ = wire_format or HouseFormat(self.sessions.config.max_message_size)

        async def serve() -> None:
            await self.sessions.serve(there, format_, principal)
            done.set()

        self.nursery.start_soon(serve)
        return here, done

    async def call(
        self, start: Start | None = None, principal: Principal = ANONYMOUS, buffer: float = 1000
    ) -> Caller:
        caller = Caller(self.connect(principal=principal, buffer=buffer)[0])
        await caller.start(start)
        return caller

    async def resume(self, caller: Caller, **changes: Any) -> Caller:
        """The same client over a new connection."""
        assert caller.ready is not None
        wishes = {"resume_token": caller.ready.resume_token, "last_seq": caller.last_seq}
        again = Caller(self.connect()[0])
        await again.start(Start(**(wishes | changes)))
        return again

    @property
    def states(self) -> dict[str, int]:
        return dict(self.sessions.statistics().sessions)


@asynccontextmanager
async def open_house(
    answer: Callable[[Session, Turn], Awaitable[None]] = echo,
    # Any: settings may come from a dict.
    recording: Any = None,
    # Any: as above, beside settings from a dict.
    app: Any = None,
    **config: Any,
) -> AsyncIterator[House]:
    """Sessions and callers; afterwards no task and no session is left."""
    tasks = _task_count()
    sink = RecordingEventSink()
    async with trio.open_nursery() as nursery:
        settings = ServerConfig(**config)
        async with open_sessions(
            app or App(answer), config=settings, event_sink=recording or sink
        ) as sessions:
            house = House(sessions, nursery, sink)
            yield house
        with trio.fail_after(math.inf):
            for done in house.served:
                await done.wait()
        assert sessions.statistics().connections == 0
        assert dict(sessions.statistics().sessions) == {}
    assert _task_count() == tasks
    assert [it for event in sink.events for it in validate_event(event.type, event.data)] == []


def _task_count() -> int:
    return trio.lowlevel.current_statistics().tasks_living
