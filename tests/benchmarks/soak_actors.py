"""Soak the actor kernel: restarts and short-lived actors by the ten thousand, in flat memory.

    python tests/benchmarks/soak_actors.py [--restarts N] [--actors N]

Takes a minute or two. After a warm-up, neither the number of objects nor the
memory of the process may grow; the exit status is 1 if they do.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing

from actorflow.actors import Actor, Backoff, Child, Inbox, Reply, State, System, open_system
from actorflow.errors import ActorCrashedError

# What may be left of a run that does not leak. trio forgets cancelled deadlines
# when there are a thousand of them, each some three objects.
OBJECTS: Final = 4_000
BYTES: Final = 2_000_000
ROUNDS: Final = 10
PAUSE: Final = 0.001


@attrs.frozen
class Footprint:
    """What the process holds at one moment."""

    objects: int
    resident: int

    @classmethod
    def now(cls) -> Footprint:
        for _ in range(3):
            gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(len(gc.get_objects()), pages * 4096)

    def __str__(self) -> str:
        return f"{self.objects:,} objects, {self.resident / 1e6:.1f} MB"


class Fragile(Actor[Any]):
    """Leaves something of every kind behind when it crashes."""

    async def on_start(self) -> None:
        self.ctx.send_every(3600, "tick")
        self.ctx.send_after(3600, "late")

    async def receive(self, message: Any) -> None:
        if isinstance(message, Reply):
            raise ValueError("asked")
        self.ctx.monitor(self.ctx.system["witness"])
        raise ValueError(message)


async def witness(inbox: Inbox[Any]) -> None:
    async for _ in inbox:
        pass


async def restart(system: System, times: int) -> None:
    fragile = system["fragile"]
    before = fragile.statistics().restarts
    for number in range(times):
        if number % 2:
            with suppress(ActorCrashedError):
                await fragile.ask(lambda reply: reply, timeout=60)
        else:
            await fragile.tell("crash")
        await trio.sleep(2 * PAUSE)
    assert fragile.statistics().restarts == before + times


async def come_and_go(system: System, times: int) -> None:
    async def visitor(inbox: Inbox[Reply[int]]) -> None:
        inbox.ctx.monitor(system["witness"])
        async for reply in inbox:
            reply.send(1)

    for _ in range(times):
        ref = await system.spawn(visitor)
        assert await ref.ask(_same, timeout=60) == 1
        ref.stop()
        await ref.wait_stopped()
    assert len(system.tree().children) == 2


def _same(reply: Reply[int]) -> Reply[int]:
    return reply


async def soak(what: str, work: Callable[[System, int], Awaitable[None]], total: int) -> bool:
    children = (
        Child("witness", witness),
        Child("fragile", Fragile, backoff=Backoff(base=PAUSE, cap=PAUSE)),
    )
    async with open_system(*children, max_restarts=sys.maxsize, window=0.5) as system:
        each = max(1, total // ROUNDS)
        # The first round fills caches and the heap of cancelled timers.
        await work(system, each)
        first = Footprint.now()
        start = time.perf_counter()
        print(f"{what}: {each:,} done, {first}")
        last = first
        for number in range(2, ROUNDS + 1):
            await work(system, each)
            last = Footprint.now()
            print(f"{what}: {number * each:,} done, {last}")
        seconds = time.perf_counter() - start
        alive = [info for _, info in system.tree().walk() if info.state is State.RUNNING]
        assert len(alive) == 3
    print(f"{what}: {seconds / (each * (ROUNDS - 1)) * 1e6:.0f} us each")
    flat = last.objects - first.objects <= OBJECTS and last.resident - first.resident <= BYTES
    print(f"{what}: memory is {'flat' if flat else 'GROWING'}")
    return flat


async def main(restarts: int, actors: int) -> bool:
    # Both are tried, whatever becomes of the first.
    results = [
        await soak("restarts", restart, restarts),
        await soak("actors that come and go", come_and_go, actors),
    ]
    return all(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=10_000)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    clock = trio.testing.MockClock(autojump_threshold=0)
    flat = trio.run(main, arguments.restarts, arguments.actors, clock=clock)
    sys.exit(0 if flat else 1)
