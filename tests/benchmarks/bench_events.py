"""What reporting costs, as ratios to a trio checkpoint measured beside it.

The figures are best of several rounds in which both take turns. A checkpoint
takes 5 microseconds on the machine the limits were set for.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from actorflow.events import (
    AnalyticsSink,
    BackpressureAwareEventSink,
    BoundEventSink,
    BufferedExporter,
    EventSink,
    JSONFileExporter,
    NoOpEventSink,
)
from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import StageContext

Measure = Callable[[], Awaitable[float]]

ROUNDS = 7
COUNT = 20_000
DATA = {"stage": "llm", "kind": "agent", "attempt": 1}


class Discard:
    """Takes everything and keeps nothing; unlike a `NoOpEventSink` it does not say so."""

    async def emit(self, *, type: str, data: object) -> None: ...

    def try_emit(self, *, type: str, data: object) -> None: ...


def checkpoints_per_event(measure: Measure) -> float:
    """Return the time of one event in checkpoints."""

    async def best() -> tuple[float, float]:
        event = checkpoint = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            checkpoint = min(checkpoint, await checkpoints())
            event = min(event, await measure())
        return event / COUNT, checkpoint / COUNT

    event, checkpoint = trio.run(best)
    ratio = event / checkpoint
    print(f"\n  {event * 1e6:6.2f} us against {checkpoint * 1e6:5.2f} us: {ratio:.3f}")
    return ratio


async def checkpoints() -> float:
    start = time.process_time()
    for _ in range(COUNT):
        await trio.lowlevel.checkpoint()
    return time.process_time() - start


async def tried(sink: EventSink) -> float:
    bound = BoundEventSink(sink, pipeline_run_id="run", request_id="request")
    start = time.process_time()
    for _ in range(COUNT):
        bound.try_emit(type="stage.started", data=DATA)
    return time.process_time() - start


async def emitted(sink: EventSink) -> float:
    bound = BoundEventSink(sink, pipeline_run_id="run", request_id="request")
    start = time.process_time()
    for _ in range(COUNT):
        await bound.emit(type="stage.started", data=DATA)
    return time.process_time() - start


async def through_a_queue(*, waits: bool) -> float:
    async with BackpressureAwareEventSink(Discard(), max_queue_size=COUNT) as sink:
        start = time.process_time()
        for _ in range(COUNT // 500):
            for _ in range(500):
                if waits:
                    await sink.emit(type="stage.started", data=DATA)
                else:
                    sink.try_emit(type="stage.started", data=DATA)
            await trio.lowlevel.checkpoint()
        await sink.flush()
        taken = time.process_time() - start
        assert sink.statistics().delivered == COUNT
    return taken


async def into_a_full_queue() -> float:
    """Several emitters that nearly always find the queue full."""
    async with BackpressureAwareEventSink(Discard(), max_queue_size=10) as sink:

        async def emit() -> None:
            for _ in range(COUNT // 10):
                await sink.emit(type="stage.started", data=DATA)

        start = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(emit)
        await sink.flush()
        return time.process_time() - start


async def into_a_file(path: Path) -> float:
    exporter = BufferedExporter(JSONFileExporter(path, append=False), batch_size=500)
    async with AnalyticsSink(exporter, max_pending=COUNT) as sink:
        bound = BoundEventSink(sink, pipeline_run_id="run", request_id="request")
        start = time.process_time()
        for _ in range(COUNT // 500):
            for _ in range(500):
                bound.try_emit(type="stage.started", data=DATA)
            await trio.lowlevel.checkpoint()
        await sink.flush()
        return time.process_time() - start


def test_event_that_nobody_takes_is_nearly_free() -> None:
    assert checkpoints_per_event(partial(tried, NoOpEventSink())) <= 0.1
    assert checkpoints_per_event(partial(emitted, NoOpEventSink())) <= 0.15


def test_event_that_somebody_takes_is_stamped_within_two_checkpoints() -> None:
    assert checkpoints_per_event(partial(tried, Discard())) <= 2


@pytest.mark.spec("E44")
def test_queue_carries_a_hundred_thousand_events_a_second() -> None:
    assert checkpoints_per_event(partial(through_a_queue, waits=False)) <= 2
    assert checkpoints_per_event(partial(through_a_queue, waits=True)) <= 2


def test_waiting_for_room_costs_a_few_checkpoints() -> None:
    assert checkpoints_per_event(into_a_full_queue) <= 3


def test_event_reaches_a_file_within_eight_checkpoints(tmp_path: Path) -> None:
    assert checkpoints_per_event(partial(into_a_file, tmp_path / "events.jsonl")) <= 8


# A run with and without a file of its events

RUNS = 50


async def nothing(ctx: StageContext) -> None: ...


async def runs_into(sink: EventSink) -> float:
    graph = UnifiedStageGraph(
        [StageSpec(f"s{i}", nothing, dependencies=(f"s{i - 1}",) if i else ()) for i in range(5)]
    )
    start = time.process_time()
    for _ in range(RUNS):
        await graph.run(event_sink=sink)
    return time.process_time() - start


async def runs_into_a_file(path: Path) -> float:
    exporter = BufferedExporter(JSONFileExporter(path, append=False))
    async with AnalyticsSink(exporter, max_pending=COUNT) as sink:
        taken = await runs_into(sink)
        begun = time.process_time()
        await sink.flush()
    return taken + time.process_time() - begun


def test_file_of_events_beside_the_run_of_five_stages_that_it_is_about(tmp_path: Path) -> None:
    async def best() -> tuple[float, float]:
        plain = recorded = float("inf")
        for _ in range(ROUNDS):
            gc.collect()
            plain = min(plain, await runs_into(NoOpEventSink()))
            recorded = min(recorded, await runs_into_a_file(tmp_path / "events.jsonl"))
        return recorded / RUNS, plain / RUNS

    recorded, plain = trio.run(best)
    print(f"\n  {recorded * 1e6:6.1f} us against {plain * 1e6:6.1f} us: {recorded / plain:.3f}")
    assert recorded / plain <= 1.8
