"""Random programs against the queue, and calls cancelled at each of their schedule points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from actorflow.audio import ChunkQueue
from actorflow.testing import run_seeded

SEEDS = range(4)


class Books:
    """A queue, and what became of each item."""

    def __init__(self, max_size: int, **settings: Any) -> None:
        self.queue = ChunkQueue[int](max_size, event_emitter=self.hear, **settings)
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.got: list[int] = []
        self.dropped: Counter[str] = Counter()
        self.next_item = 0

    def look(self) -> None:
        """Check what is true at every instant."""
        statistics = self.queue.statistics()
        assert len(self.queue) <= statistics.max_size
        assert not (statistics.waiting_consumers and len(self.queue))
        assert not (statistics.waiting_consumers and statistics.waiting_producers)
        if statistics.max_ms is not None and len(self.queue) > 1:
            assert statistics.buffered_ms <= statistics.max_ms
        if statistics.is_closed:
            assert not statistics.waiting_consumers + statistics.waiting_producers

    def hear(self, type: str, data: dict[str, Any]) -> None:
        self.look()
        if type == "stream.chunk_dropped":
            self.dropped[data["reason"]] += 1

    async def put(self) -> None:
        item = self.next_item
        self.next_item += 1
        told = self.accepted if await self.queue.put(item) else self.refused
        told.append(item)
        self.look()

    def put_nowait(self) -> None:
        item = self.next_item
        self.next_item += 1
        told = self.accepted if self.queue.put_nowait(item) else self.refused
        told.append(item)

    async def get(self) -> None:
        item = await self.queue.get()
        if item is not None:
            self.got.append(item)
        self.look()

    def balance(self, left: list[int]) -> None:
        """Check that every item has had one fate, and the right one."""
        statistics = self.queue.statistics()
        assert statistics.backpressure.dropped_items == self.dropped.total()
        assert self.dropped["queue_full"] <= len(self.refused)
        assert len(self.accepted) == (
            len(self.got) + len(left) + self.dropped["overflow"] + statistics.cleared_items
        )
        assert {*self.got, *left} <= set(self.accepted)
        assert len({*self.got, *left}) == len(self.got) + len(left)
        assert statistics.backpressure.total_items == len(self.accepted)


OPERATIONS = ("put", "put", "get", "get", "put_nowait", "get_nowait", "clear", "close", "cancel")
programs = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), min_size=1, max_size=40
)


@pytest.mark.spec("A12", "A12a", "A13", "A14", "A18", "A21", "A23", "A25", "A25a")
@settings(max_examples=120)
@given(
    program=programs,
    max_size=st.integers(1, 4),
    max_ms=st.none() | st.integers(1, 12),
    drop_on_overflow=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_item_has_one_fate(
    program: list[tuple[str, int]],
    max_size: int,
    max_ms: int | None,
    drop_on_overflow: bool,
    seed: int,
) -> None:
    async def main() -> None:
        books = Books(
            max_size,
            max_ms=max_ms,
            duration_of=lambda item: item % 5,
            drop_on_overflow=drop_on_overflow,
        )
        queue = books.queue
        scopes: list[trio.CancelScope] = []

        async def cancellable(call: Callable[[], Awaitable[None]]) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await call()

        async with trio.open_nursery() as nursery:
            for operation, pause in program:
                match operation:
                    case "put":
                        nursery.start_soon(cancellable, books.put)
                    case "get":
                        nursery.start_soon(cancellable, books.get)
                    case "put_nowait":
                        books.put_nowait()
                    case "get_nowait":
                        try:
                            item = queue.get_nowait()
                        except trio.WouldBlock:
                            assert not len(queue)
                            assert not queue.is_closed
                        else:
                            assert item is not None or queue.is_closed
                            books.got += [] if item is None else [item]
                    case "clear":
                        queue.clear()
                    case "close":
                        queue.close_nowait()
                    case _:
                        for scope in scopes[-pause:]:
                            scope.cancel()
                books.look()
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        queue.close_nowait()
        left = []
        while (item := queue.get_nowait()) is not None:
            left.append(item)
        books.balance(left)

    run_seeded(main, seed=seed)


@pytest.mark.spec("A12", "A22", "A25")
@settings(max_examples=30)
@given(
    max_size=st.integers(1, 5),
    producers=st.integers(1, 4),
    consumers=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_items_of_one_producer_stay_in_order(
    max_size: int, producers: int, consumers: int, seed: int
) -> None:
    async def main() -> None:
        queue = ChunkQueue[tuple[int, int]](max_size)
        got: list[list[tuple[int, int]]] = []

        async def produce(name: int) -> None:
            for number in range(40):
                assert await queue.put((name, number))

        async def consume() -> None:
            got.append([item async for item in queue])

        async with trio.open_nursery() as outer:
            for _ in range(consumers):
                outer.start_soon(consume)
            async with trio.open_nursery() as nursery:
                for name in range(producers):
                    nursery.start_soon(produce, name)
            await queue.close()

        assert sorted(item for mine in got for item in mine) == [
            (name, number) for name in range(producers) for number in range(40)
        ]
        for mine in got:
            for name in range(producers):
                numbers = [number for who, number in mine if who == name]
                assert numbers == sorted(numbers)

    run_seeded(main, seed=seed)


# Cancelled at each schedule point


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before the task step with a given number."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.step = step
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.step:
            self.scope.cancel()


async def puts(queue: ChunkQueue[int], fate: list[int]) -> None:
    for number in range(5):
        if await queue.put(number):
            fate.append(number)


async def gets(queue: ChunkQueue[int], fate: list[int]) -> None:
    for _ in range(5):
        item = await queue.get()
        if item is not None:
            fate.append(item)


@pytest.mark.spec("A23", "A25")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("victim", ["producer", "consumer"])
@pytest.mark.parametrize("max_size", [1, 2])
def test_cancellation_at_any_point_loses_and_adds_nothing(
    max_size: int, victim: str, seed: int
) -> None:
    async def run(step: int) -> int:
        queue = ChunkQueue[int](max_size)
        accepted: list[int] = []
        got: list[int] = []
        instrument = CancelAt(step)

        async def cancelled(
            name: str, work: Callable[[ChunkQueue[int], list[int]], Awaitable[None]], fate: Any
        ) -> None:
            with instrument.scope if victim == name else nullcontext():
                await work(queue, fate)

        trio.lowlevel.add_instrument(instrument)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled, "producer", puts, accepted)
            nursery.start_soon(cancelled, "consumer", gets, got)
            await trio.testing.wait_all_tasks_blocked()
            statistics = queue.statistics()
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(instrument)

        queue.close_nowait()
        left = []
        while (item := queue.get_nowait()) is not None:
            left.append(item)
        assert [*got, *left] == accepted
        assert statistics.backpressure.total_items == len(accepted)
        waiting = queue.statistics()
        assert waiting.waiting_producers == waiting.waiting_consumers == 0
        return instrument.steps

    steps = run_seeded(run, 0, seed=seed)
    for step in range(1, steps + 1):
        run_seeded(run, step, seed=seed)


@pytest.mark.spec("A21", "A23")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_full", [True, False])
def test_close_cancelled_at_any_point_wakes_everybody(is_full: bool, seed: int) -> None:
    async def run(step: int) -> int:
        queue = ChunkQueue[int](1)
        if is_full:
            queue.put_nowait(0)
        instrument = CancelAt(step)
        trio.lowlevel.add_instrument(instrument)
        # Whoever is not woken would keep the nursery, and this test, from ending.
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                if is_full:
                    nursery.start_soon(queue.put, 1)
                else:
                    nursery.start_soon(queue.get)
            await trio.testing.wait_all_tasks_blocked()
            with instrument.scope:
                await queue.close()
            assert queue.is_closed
        trio.lowlevel.remove_instrument(instrument)
        return instrument.steps

    steps = run_seeded(run, 0, seed=seed)
    for step in range(1, steps + 1):
        run_seeded(run, step, seed=seed)
