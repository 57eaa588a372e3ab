"""The first bytes of a connection."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from actorflow.server._doorstep import Doorstep, answer


async def test_bytes_that_were_looked_at_are_read_again(autojump_clock: object) -> None:
    near, far = memory_stream_pair()
    doorstep = Doorstep(near)
    await far.send_all(b"GET / HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\nmore")

    assert await doorstep.asks_for_upgrade()
    assert await doorstep.receive_some(3) == b"GET"
    assert (await doorstep.receive_some()).endswith(b"more")
    await far.send_all(b"later")
    assert await doorstep.receive_some() == b"later"
    await doorstep.wait_send_all_might_not_block()
    await doorstep.send_all(b"answer")
    assert await far.receive_some() == b"answer"


@pytest.mark.parametrize("request_", [b"", b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000, b"half"])
async def test_everything_else_does_not_ask_for_an_upgrade(request_: bytes) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, request_)
        await trio.testing.wait_all_tasks_blocked()
        await far.aclose()
        assert not await Doorstep(near).asks_for_upgrade()


async def test_closing_is_told() -> None:
    told: list[bool] = []
    doorstep = Doorstep(memory_stream_pair()[0])
    await doorstep.aclose()
    doorstep.when_closed = lambda: told.append(True)
    await doorstep.aclose()

    assert told == [True]


async def test_answer_says_what_to_use_instead() -> None:
    near, far = memory_stream_pair()
    await answer(near, 426, "not a websocket")
    await near.aclose()
    received = await far.receive_some()

    assert received.startswith(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n")
    assert received.endswith(b"\r\n\r\nnot a websocket")


async def test_answer_nobody_hears_is_no_problem() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    await answer(near, 503, "too many connections")
