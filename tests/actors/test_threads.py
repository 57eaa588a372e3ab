"""Other threads reach actors through trio's token."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from actorflow.actors import Inbox, Reply, open_actor
from actorflow.errors import MailboxFullError


async def total(inbox: Inbox[Any]) -> None:
    count = 0
    async for message in inbox:
        if isinstance(message, int):
            count += message
        else:
            message.send(count)


def request(reply: Reply[int]) -> Reply[int]:
    return reply


async def test_thread_tells_and_asks() -> None:
    async with open_actor(total) as ref:
        token = trio.lowlevel.current_trio_token()

        def work() -> int:
            for number in range(100):
                trio.from_thread.run(ref.tell, number, trio_token=token)
            trio.from_thread.run_sync(ref.tell_nowait, 1000, trio_token=token)
            return trio.from_thread.run(ref.ask, request, trio_token=token)

        assert await trio.to_thread.run_sync(work) == sum(range(100)) + 1000


async def test_thread_gets_the_errors_too() -> None:
    async def stuck(inbox: Inbox[Any]) -> None:
        await trio.sleep_forever()

    async with open_actor(stuck, capacity=1, shutdown=0) as ref:
        ref.tell_nowait(1)

        def work() -> None:
            trio.from_thread.run_sync(ref.tell_nowait, 2)

        with pytest.raises(MailboxFullError):
            await trio.to_thread.run_sync(work)
