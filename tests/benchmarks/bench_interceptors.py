"""What interceptors cost, as ratios to bare trio and to a run without any, measured beside it.

The floor is that of a stage: a task that reports to its supervisor over a channel.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio

from actorflow.events import NoOpEventSink
from actorflow.interceptors import (
    BaseInterceptor,
    CircuitBreakerInterceptor,
    IdempotencyInterceptor,
    LoggingInterceptor,
    MetricsInterceptor,
    RetryInterceptor,
    compile_chains,
    get_default_interceptors,
)
from actorflow.model import StageKind
from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext

Measure = Callable[[int], Awaitable[float]]

ROUNDS = 9
COUNT = 300


def ratio(measured: Measure, floor: Measure) -> float:
    """The smallest time of `measured` in smallest times of `floor`."""

    async def measure() -> tuple[float, float]:
        best = least = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            least = min(least, await floor(COUNT))
            best = min(best, await measured(COUNT))
        return best / COUNT, least / COUNT

    taken, least = trio.run(measure)
    print(f"\n  {taken * 1e6:8.2f} us against {least * 1e6:6.2f} us: {taken / least:.2f}")
    return taken / least


async def tasks_in_turn(count: int) -> float:
    send, receive = trio.open_memory_channel[int](1)

    async def report() -> None:
        await send.send(1)

    start = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(report)
            await receive.receive()
    return time.process_time() - start


async def nothing(ctx: StageContext) -> None: ...


def running(kind: StageKind = StageKind.TRANSFORM, **options: Any) -> Measure:
    """Runs of a chain of no-op stages, with a key so that work is protected."""

    async def measure(count: int) -> float:
        graph = UnifiedStageGraph(
            [StageSpec(f"s{i}", nothing, kind, (f"s{i - 1}",) if i else ()) for i in range(count)],
            **options,
        )
        ctx = PipelineContext(data={"idempotency_key": "k"}, event_sink=NoOpEventSink())
        start = time.process_time()
        await graph.run(ctx)
        return time.process_time() - start

    return measure


without = running(interceptors=())


class Plain(BaseInterceptor):
    name = "plain"

    async def before(self, stage_name: str, ctx: Any) -> None: ...


def test_stage_that_nothing_wraps_has_no_chain() -> None:
    spec = StageSpec("a", nothing)
    idle: Iterable[BaseInterceptor] = [BaseInterceptor(), IdempotencyInterceptor()]

    assert compile_chains(idle, [spec]) == (None,)


def test_run_with_the_default_set_beside_one_without() -> None:
    assert ratio(running(), without) < 1.7


def test_stage_with_the_default_set_beside_bare_trio() -> None:
    assert ratio(running(), tasks_in_turn) < 4.5


@pytest.mark.parametrize(
    "interceptor",
    [
        Plain(),
        RetryInterceptor(),
        MetricsInterceptor(),
        CircuitBreakerInterceptor(),
        LoggingInterceptor(),
    ],
    ids=lambda interceptor: interceptor.name,
)
def test_run_with_one_interceptor_beside_one_without(interceptor: BaseInterceptor) -> None:
    assert ratio(running(interceptors=[interceptor]), without) < 1.6


def test_work_that_counts_once_beside_work_that_does_not() -> None:
    once = running(StageKind.WORK, interceptors=[IdempotencyInterceptor()])

    assert ratio(once, running(StageKind.WORK, interceptors=())) < 8


def test_default_set_is_wrapped_around_work_without_a_key_cheaply() -> None:
    async def measure(count: int) -> float:
        graph = UnifiedStageGraph(
            [
                StageSpec(f"s{i}", nothing, StageKind.WORK, (f"s{i - 1}",) if i else ())
                for i in range(count)
            ],
            interceptors=get_default_interceptors(),
        )
        start = time.process_time()
        await graph.run(event_sink=NoOpEventSink())
        return time.process_time() - start

    assert ratio(measure, without) < 2.2
