"""Connections: a websocket and one in memory keep the same promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection
from wsproto import ConnectionType, WSConnection

from actorflow.errors import ConnectionLostError
from actorflow.testing import memory_connection_pair
from actorflow.transport import Connection, WebsocketConnection, hang_up

Pair: TypeAlias = tuple[Connection, Connection]


@asynccontextmanager
async def in_memory() -> AsyncIterator[Pair]:
    yield memory_connection_pair()


@asynccontextmanager
async def websockets() -> AsyncIterator[Pair]:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        # What the library does for sockets, which a stream in memory is not.
        client = WebSocketConnection(near, WSConnection(ConnectionType.CLIENT), host="h", path="/")
        server = WebSocketConnection(far, WSConnection(ConnectionType.SERVER))
        nursery.start_soon(client._reader_task)
        nursery.start_soon(server._reader_task)
        request = await server._get_request()
        await request.accept()
        await client._open_handshake.wait()
        yield (
            WebsocketConnection(client, near, "the server"),
            WebsocketConnection(server, far, "the client"),
        )
        nursery.cancel_scope.cancel()


KINDS = [in_memory, websockets]
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.mark.spec("A118")
@pytest.mark.parametrize("pair", KINDS)
async def test_frames_arrive_whole_and_in_order(pair: Open) -> None:
    async with pair() as (here, there):
        await here.send("text")
        await there.send(b"bytes")
        found = [await there.receive(), await here.receive()]
        await there.ping()

    assert found == ["text", b"bytes"]
    assert here.peer != there.peer


@pytest.mark.parametrize("pair", KINDS)
async def test_goodbye_reaches_the_other_end_after_what_was_sent(pair: Open) -> None:
    async with pair() as (here, there), trio.open_nursery() as nursery:
        await here.send("last words")
        nursery.start_soon(hang_up, here, 4001, "é" * 100, 5)
        found = await there.receive()
        with pytest.raises(ConnectionLostError) as caught:
            await there.receive()

    assert found == "last words"
    assert caught.value.close_code == 4001
    # A close frame of a websocket has room for 123 bytes.
    assert caught.value.reason[:61] == "é" * 61


@pytest.mark.parametrize("pair", KINDS)
async def test_everything_fails_the_same_way_afterwards(pair: Open) -> None:
    async with pair() as (here, there):
        await here.abort()
        await wait_all_tasks_blocked()
        for one in (here, there):
            for attempt in (one.receive, one.ping, lambda one=one: one.send("x")):
                with pytest.raises(ConnectionLostError):
                    await attempt()
            await one.aclose(1000)
            await one.abort()


@pytest.mark.parametrize("pair", KINDS)
async def test_abort_wakes_who_waits(pair: Open) -> None:
    async def wait(connection: Connection) -> None:
        with pytest.raises(ConnectionLostError) as caught:
            await connection.receive()
        assert caught.value.close_code == 1006

    async with pair() as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(wait, here)
        nursery.start_soon(wait, there)
        await wait_all_tasks_blocked()
        await here.abort()


async def test_websocket_whose_tasks_are_gone_is_lost(autojump_clock: MockClock) -> None:
    async with websockets() as (here, _):
        assert isinstance(here, WebsocketConnection)
        here._websocket._send_channel.close()
        with pytest.raises(ConnectionLostError) as caught:
            await here.receive()

    assert caught.value.close_code == 1006


async def test_mute_end_answers_nothing(autojump_clock: MockClock) -> None:
    here, there = memory_connection_pair(1)
    there.is_mute = True
    with trio.move_on_after(5) as patience:
        await here.ping()
    begin = trio.current_time()
    await hang_up(here, 1000, "", 5)

    assert patience.cancelled_caught
    assert trio.current_time() - begin == 5
    assert here.closed == there.closed == (1006, "")


async def test_full_connection_makes_the_sender_wait(autojump_clock: MockClock) -> None:
    here, there = memory_connection_pair(1)
    await here.send("one")
    with trio.move_on_after(1) as patience:
        await here.send("two")
    assert patience.cancelled_caught
    await there.receive()
    await here.send("two")

    assert await there.receive() == "two"
