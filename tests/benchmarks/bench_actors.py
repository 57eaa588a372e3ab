"""What the actor kernel costs, as ratios to bare trio measured beside it.

Each figure is the best of several rounds in which the floor and the actor take
turns, so a machine that is slow for a moment is slow for both.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from actorflow.actors import Child, Inbox, Reply, open_system

Measure = Callable[[int], Awaitable[float]]

ROUNDS = 7


def ratio(actor: Measure, floor: Measure, count: int) -> float:
    """Return the smallest time of `actor` per smallest time of `floor`."""

    async def measure() -> tuple[float, float]:
        best_actor = best_floor = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            best_floor = min(best_floor, await floor(count))
            best_actor = min(best_actor, await actor(count))
        return best_actor / count, best_floor / count

    taken, least = trio.run(measure)
    print(f"\n  {taken * 1e6:8.2f} us against {least * 1e6:6.2f} us: {taken / least:.2f}")
    return taken / least


async def checkpoints(count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        await trio.lowlevel.checkpoint()
    return time.process_time() - start


async def discard(inbox: Inbox[object]) -> None:
    async for _ in inbox:
        pass


async def echo(inbox: Inbox[Reply[int]]) -> None:
    async for reply in inbox:
        reply.send(1)


async def saturated_tells(count: int) -> float:
    async with open_system(Child("sink", discard)) as system:
        sink = system["sink"]
        start = time.process_time()
        for number in range(count):
            await sink.tell(number)
        return time.process_time() - start


async def idle_asks(count: int) -> float:
    async with open_system(Child("echo", echo)) as system:
        ref = system["echo"]

        def request(reply: Reply[int]) -> Reply[int]:
            return reply

        await ref.ask(request)
        start = time.process_time()
        for _ in range(count):
            await ref.ask(request)
        return time.process_time() - start


async def five_bare_hops(count: int) -> float:
    async def pass_on(
        receive: trio.MemoryReceiveChannel[int], send: trio.MemorySendChannel[int]
    ) -> None:
        while True:
            send.send_nowait(await receive.receive())

    async with trio.open_nursery() as nursery:
        first, receive = trio.open_memory_channel[int](64)
        for _ in range(4):
            send, following = trio.open_memory_channel[int](64)
            nursery.start_soon(pass_on, receive, send)
            receive = following
        last_send, last = trio.open_memory_channel[int](64)
        nursery.start_soon(pass_on, receive, last_send)
        start = time.process_time()
        for number in range(count):
            first.send_nowait(number)
            await last.receive()
        taken = time.process_time() - start
        nursery.cancel_scope.cancel()
    return taken


async def five_actors_in_a_row(count: int) -> float:
    done, arrived = trio.open_memory_channel[int](1)

    async def end(inbox: Inbox[int]) -> None:
        async for number in inbox:
            done.send_nowait(number)

    def passing_to(name: str) -> Callable[[Inbox[int]], Awaitable[None]]:
        async def pass_on(inbox: Inbox[int]) -> None:
            following = inbox.ctx.system[name]
            async for number in inbox:
                await following.tell(number)

        return pass_on

    children = [Child("5", end), *(Child(str(n), passing_to(str(n + 1))) for n in (4, 3, 2, 1))]
    async with open_system(*children) as system:
        first = system["1"]
        start = time.process_time()
        for number in range(count):
            await first.tell(number)
            await arrived.receive()
        return time.process_time() - start


async def task_and_channel(count: int) -> float:
    async with trio.open_nursery() as nursery:
        start = time.process_time()
        for _ in range(count):
            send, receive = trio.open_memory_channel[int](64)
            nursery.start_soon(trio.lowlevel.checkpoint)
            send.close()
            receive.close()
            # One at a time, as the lives below.
            await trio.lowlevel.checkpoint()
    return time.process_time() - start


async def lives(count: int) -> float:
    async with open_system() as system:
        start = time.process_time()
        for number in range(count):
            ref = await system.spawn(discard, name="one")
            await ref.tell(number)
            ref.stop()
            await ref.wait_stopped()
        return time.process_time() - start


def test_saturated_tell_costs_less_than_half_a_checkpoint() -> None:
    assert ratio(saturated_tells, checkpoints, 20_000) <= 0.4


def test_idle_ask_costs_at_most_five_checkpoints() -> None:
    assert ratio(idle_asks, checkpoints, 5_000) <= 5


def test_five_actors_in_a_row_cost_little_more_than_five_channels() -> None:
    assert ratio(five_actors_in_a_row, five_bare_hops, 3_000) <= 1.3


def test_life_of_an_actor_costs_at_most_six_times_a_task_and_a_channel() -> None:
    assert ratio(lives, task_and_channel, 2_000) <= 6


def test_idle_actor_takes_at_most_eight_kilobytes() -> None:
    async def measure(count: int = 2_000) -> float:
        async with open_system() as system:
            await system.spawn(discard)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                await system.spawn(discard)
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        return (after - before) / count

    size = trio.run(measure)
    print(f"\n  {size:.0f} bytes")
    assert size <= 8 * 1024
