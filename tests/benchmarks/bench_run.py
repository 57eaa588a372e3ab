"""What running a pipeline costs, as ratios to bare trio measured beside it.

The floor of a stage is a task that reports to its supervisor over a channel.
Each figure is the best of several rounds in which floor and run take turns.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from actorflow.events import NoOpEventSink
from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import StageContext

Measure = Callable[[], Awaitable[float]]

ROUNDS = 7


def ratio(measured: Measure, floor: Measure, per: int) -> float:
    """The smallest time of `measured` in smallest times of `floor`."""

    async def measure() -> tuple[float, float]:
        best = least = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            least = min(least, await floor())
            best = min(best, await measured())
        return best / per, least / per

    taken, least = trio.run(measure)
    print(f"\n  {taken * 1e6:8.2f} us against {least * 1e6:6.2f} us: {taken / least:.2f}")
    return taken / least


async def nothing(ctx: StageContext) -> None: ...


async def forever(ctx: StageContext) -> None:
    await trio.sleep_forever()


def chain(length: int, **options: Any) -> UnifiedStageGraph:
    specs = [
        StageSpec(f"s{i}", nothing, dependencies=(f"s{i - 1}",) if i else ()) for i in range(length)
    ]
    return UnifiedStageGraph(specs, **options)


def fan_out(width: int, runner: Any, **options: Any) -> UnifiedStageGraph:
    return UnifiedStageGraph([StageSpec(f"s{i}", runner) for i in range(width)], **options)


def running(graph: UnifiedStageGraph, times: int = 1) -> Measure:
    """The mean of several runs after a first one, so that short runs are not cold."""

    async def measure() -> float:
        await graph.run(event_sink=NoOpEventSink())
        start = time.process_time()
        for _ in range(times):
            await graph.run(event_sink=NoOpEventSink())
        return (time.process_time() - start) / times

    return measure


def tasks_in_turn(count: int) -> Measure:
    async def measure() -> float:
        send, receive = trio.open_memory_channel[int](1)

        async def report() -> None:
            await send.send(1)

        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(report)
                await receive.receive()
        return time.process_time() - start

    return measure


def tasks_at_once(count: int) -> Measure:
    async def measure() -> float:
        send, receive = trio.open_memory_channel[int](count)

        async def report() -> None:
            await send.send(1)

        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(report)
            for _ in range(count):
                await receive.receive()
        return time.process_time() - start

    return measure


def floor(count: int) -> Measure:
    """The same for bare tasks: as many as in a thousand, so that these are not cold either."""
    times = max(1, 1_000 // count)

    async def measure() -> float:
        return await tasks_in_turn(count * times)() / times

    return measure


# What a run costs beside its stages weighs as much as six of them.
@pytest.mark.parametrize(("length", "limit"), [(10, 4.5), (100, 2.6), (1_000, 2.5), (10_000, 2.6)])
def test_stage_of_a_chain_without_interceptors(length: int, limit: float) -> None:
    graph = chain(length, interceptors=())

    assert ratio(running(graph, max(1, 1_000 // length)), floor(length), length) < limit


def test_chain_of_ten_thousand_costs_no_more_per_stage_than_one_of_a_hundred() -> None:
    short, long = chain(100, interceptors=()), chain(10_000, interceptors=())

    async def hundred_times() -> float:
        return await running(short, 100)() * 100

    assert ratio(running(long), hundred_times, 10_000) < 1.3


@pytest.mark.parametrize(("length", "limit"), [(10, 6), (100, 4), (1_000, 4)])
def test_stage_of_a_chain_with_the_default_interceptors(length: int, limit: float) -> None:
    assert ratio(running(chain(length), max(1, 1_000 // length)), floor(length), length) < limit


@pytest.mark.parametrize(("options", "limit"), [({"interceptors": ()}, 2), ({}, 3)])
def test_fan_out_of_a_thousand(options: dict[str, Any], limit: float) -> None:
    graph = fan_out(1_000, nothing, **options)

    assert ratio(running(graph), tasks_at_once(1_000), 1_000) < limit


@pytest.mark.parametrize(("options", "limit"), [({"interceptors": ()}, 4.5), ({}, 6)])
def test_a_hundred_runs_of_five_stages_at_a_time(options: dict[str, Any], limit: float) -> None:
    graph = chain(5, **options)

    async def measure() -> float:
        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(graph.run)
        return time.process_time() - start

    assert ratio(measure, tasks_in_turn(500), 500) < limit


def test_cancelling_a_thousand_sleeping_stages() -> None:
    graph = fan_out(1_000, forever, interceptors=())

    async def measure() -> float:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(graph.run)
                await trio.testing.wait_all_tasks_blocked()
                start = time.process_time()
                scope.cancel()
        return time.process_time() - start

    async def bare() -> float:
        async with trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            start = time.process_time()
            nursery.cancel_scope.cancel()
        return time.process_time() - start

    assert ratio(measure, bare, 1_000) < 3


def memory_of(count: int, run: Callable[[], Awaitable[object]]) -> float:
    """Bytes per run while `count` of them wait."""

    async def measure() -> float:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                gc.collect()
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(count):
                    nursery.start_soon(run)
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                scope.cancel()
        return (after - before) / count

    return trio.run(measure)


def test_memory_of_a_run_of_five_waiting_stages() -> None:
    taken = memory_of(100, fan_out(5, forever, interceptors=()).run)

    async def bare() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.sleep_forever)

    least = memory_of(100, bare)
    print(f"\n  {taken / 1024:.1f} KiB a run against {least / 1024:.1f} KiB of five bare tasks")
    assert taken < 4 * least
