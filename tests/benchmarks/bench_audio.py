"""What a queue costs per item, as ratios to a bare trio memory channel measured beside it.

Each figure is the best of several rounds in which both take turns, so a machine
that is slow for a moment is slow for both.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from actorflow.audio import AudioChunk, ChunkQueue, StreamingBuffer

Measure = Callable[[int], Awaitable[float]]

ITEMS = 20_000
ROUNDS = 5


def ratio(queue: Measure, floor: Measure) -> float:
    """The smallest time of `queue` per smallest time of `floor`."""

    async def measure() -> tuple[float, float]:
        best_queue = best_floor = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            best_floor = min(best_floor, await floor(ITEMS))
            best_queue = min(best_queue, await queue(ITEMS))
        return best_queue / ITEMS, best_floor / ITEMS

    taken, least = trio.run(measure)
    print(f"\n  {taken * 1e6:.2f} us against {least * 1e6:.2f} us: {taken / least:.2f}")
    return taken / least


async def through_a_channel(size: int, count: int) -> float:
    into, out = trio.open_memory_channel[int](size)

    async def produce() -> None:
        async with into:
            for number in range(count):
                await into.send(number)

    start = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async for _ in out:
            pass
    return time.process_time() - start


async def through_a_queue(size: int, max_ms: float | None, count: int) -> float:
    queue = ChunkQueue[int](size, max_ms=max_ms, duration_of=lambda _: 20.0)

    async def produce() -> None:
        for number in range(count):
            await queue.put(number)
        await queue.close()

    start = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async for _ in queue:
            pass
    return time.process_time() - start


@pytest.mark.parametrize(
    ("size", "max_ms", "limit"),
    [(100, None, 0.4), (10_000, None, 0.4), (8, None, 0.6), (1, None, 1.2), (100, 2000, 0.5)],
)
def test_item_costs_less_than_a_hop_over_a_channel(
    size: int, max_ms: float | None, limit: float
) -> None:
    taken = ratio(partial(through_a_queue, size, max_ms), partial(through_a_channel, size))

    assert taken < limit


@pytest.mark.parametrize("size", [8, 32, 256])
def test_item_costs_no_more_than_in_the_queue_of_stageflow(size: int) -> None:
    # Where stageflow-core is installed. Each queue runs on the loop it was made for.
    streaming = pytest.importorskip("stageflow.helpers.streaming")

    async def theirs() -> float:
        queue = streaming.ChunkQueue(size)

        async def produce() -> None:
            for number in range(ITEMS):
                await queue.put(number)

        start = time.process_time()
        producer = asyncio.create_task(produce())
        left = ITEMS
        async for _ in queue:
            left -= 1
            # Its `close` would have no room for the end mark while the queue is full.
            if not left:
                break
        await producer
        return time.process_time() - start

    best_ours = best_theirs = float("inf")
    for _ in range(2 * ROUNDS):
        gc.collect()
        best_theirs = min(best_theirs, asyncio.run(theirs()))
        best_ours = min(best_ours, trio.run(through_a_queue, size, None, ITEMS))
    ours_us, theirs_us = best_ours / ITEMS * 1e6, best_theirs / ITEMS * 1e6
    print(
        f"\n  {ours_us:.2f} us against {theirs_us:.2f} us: {theirs_us / ours_us:.2f} times as many"
    )

    assert best_ours < best_theirs


def test_time_per_byte_of_a_buffer_does_not_depend_on_what_is_in_it() -> None:
    chunk = AudioChunk(bytes(640))

    def seconds(held_ms: int) -> float:
        buffer = StreamingBuffer(max_duration_ms=held_ms + 20)
        while buffer.duration_ms < held_ms:
            buffer.add_chunk(chunk)
        start = time.process_time()
        for _ in range(ITEMS):
            buffer.add_chunk(chunk)
            buffer.read(20)
        return time.process_time() - start

    best = {held_ms: float("inf") for held_ms in (200, 60_000)}
    for _ in range(ROUNDS):
        for held_ms, least in best.items():
            best[held_ms] = min(least, seconds(held_ms))
    print("\n  us per chunk:", *(f"{it / ITEMS * 1e6:.2f}" for it in best.values()))

    assert best[60_000] < 1.5 * best[200]
