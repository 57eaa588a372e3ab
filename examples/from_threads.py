"""Tell and ask an actor from threads that trio does not know.

Such a thread needs the token of the trio program. With it `trio.from_thread.run`
runs one async call over there and waits for it, so a full mailbox holds the
thread up, and answers and errors come back to it. `ref.tell_nowait` is called
the same way with `trio.from_thread.run_sync`. Never call a ref directly from
another thread.

Prints:
  the counter has 3000
"""

from __future__ import annotations

import functools
import threading
from typing import TypeAlias, final

import attrs
import trio

from actorflow.actors import Actor, ActorRef, Reply, open_actor


@final
@attrs.frozen
class Add:
    number: int


@final
@attrs.frozen
class Total:
    reply: Reply[int]


Message: TypeAlias = Add | Total


@final
class Counter(Actor[Message]):
    def __init__(self) -> None:
        self._total = 0

    async def receive(self, message: Message) -> None:
        match message:
            case Add(number):
                self._total += number
            case Total(reply):
                reply.send(self._total)


def add_many(counter: ActorRef[Message], token: trio.lowlevel.TrioToken) -> None:
    for _ in range(1000):
        trio.from_thread.run(counter.tell, Add(1), trio_token=token)


def print_total(counter: ActorRef[Message], token: trio.lowlevel.TrioToken) -> None:
    ask = functools.partial(counter.ask, Total, timeout=5)
    print("the counter has", trio.from_thread.run(ask, trio_token=token))


async def main() -> None:
    token = trio.lowlevel.current_trio_token()
    async with open_actor(Counter) as counter:
        adders = [threading.Thread(target=add_many, args=(counter, token)) for _ in range(3)]
        for thread in adders:
            thread.start()
        for thread in adders:
            await trio.to_thread.run_sync(thread.join)
        reader = threading.Thread(target=print_total, args=(counter, token))
        reader.start()
        await trio.to_thread.run_sync(reader.join)


if __name__ == "__main__":
    trio.run(main)
