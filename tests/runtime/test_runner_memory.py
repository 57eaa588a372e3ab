"""Samples of memory around runs and their stages."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from actorflow.diagnostics import MemoryTracker, track_memory
from actorflow.events import event_sink_scope
from actorflow.interceptors import BaseInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime import PipelineRunner
from actorflow.stages import StageContext
from actorflow.testing import RecordingEventSink


@pytest.fixture
def tracker() -> Iterator[MemoryTracker]:
    tracker = MemoryTracker()
    yield tracker
    tracker.stop()


def labels(tracker: MemoryTracker | None) -> list[str | None]:
    assert tracker is not None
    return [sample.label for sample in tracker.samples]


async def fine(ctx: StageContext) -> None:
    await trio.lowlevel.checkpoint()


async def canceling(ctx: StageContext) -> StageOutput:
    return StageOutput.cancel("enough")


async def failing(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("no")


async def endless(ctx: StageContext) -> None:
    await trio.sleep_forever()


def of(stage: object) -> Pipeline:
    # mypy: the fixture of a parameter has no type.
    return Pipeline.from_stages(StageSpec("only", stage))  # type: ignore[arg-type]


@pytest.mark.spec("30.17.4", "30.17.7", "G75")
@pytest.mark.parametrize(
    ("stage", "ending"),
    [(fine, "end"), (canceling, "cancelled"), (failing, "error"), (endless, "cancelled")],
)
async def test_every_run_has_a_sample_before_and_one_after(
    stage: object, ending: str, tracker: MemoryTracker, autojump_clock: MockClock
) -> None:
    runner = PipelineRunner(memory_tracker=tracker)

    with trio.move_on_after(10):
        await runner.run(of(stage))

    assert labels(tracker) == ["pipeline:start", f"pipeline:{ending}"]


@pytest.mark.spec("30.17.4", "G75", "30.19.2")
async def test_own_tracker_starts_with_the_first_run_and_traces_on() -> None:
    runner = PipelineRunner(enable_memory_tracker=True)
    assert runner.memory_tracker is not None
    assert not tracemalloc.is_tracing()

    for _ in range(2):
        await runner.run(of(fine))
        assert runner.memory_tracker.is_active
    assert labels(runner.memory_tracker) == ["pipeline:start", "pipeline:end"] * 2

    runner.memory_tracker.stop()
    await runner.run(of(fine))
    assert len(runner.memory_tracker.samples) == 4
    assert not tracemalloc.is_tracing()


@pytest.mark.spec("G66", "G75")
async def test_runner_that_nobody_holds_does_not_trace() -> None:
    runner = PipelineRunner(enable_memory_tracker=True)
    await runner.run(of(fine))
    del runner
    gc.collect()

    assert not tracemalloc.is_tracing()


@pytest.mark.spec("30.17.4", "G75")
async def test_tracker_that_is_not_to_start_waits_for_its_owner() -> None:
    runner = PipelineRunner(enable_memory_tracker=True, memory_tracker_auto_start=False)
    assert runner.memory_tracker is not None

    assert (await runner.run(of(fine))).success
    assert runner.memory_tracker.samples == ()
    runner.memory_tracker.start()
    await runner.run(of(fine))
    runner.memory_tracker.stop()

    assert labels(runner.memory_tracker) == ["pipeline:start", "pipeline:end"]


@pytest.mark.spec("30.17.4", "G72", "G74", "G75")
async def test_samples_inside_the_run_are_events_of_it(
    tracker: MemoryTracker, sink: RecordingEventSink
) -> None:
    @track_memory("load")
    async def load() -> None:
        await trio.lowlevel.checkpoint()

    async def loading(ctx: StageContext) -> None:
        await load()

    runner = PipelineRunner(memory_tracker=tracker, memory_sample_stages=True)
    with event_sink_scope(sink):
        result = await runner.run(of(loading))

    inside = ["stage:only:start", "load:start", "load:end", "stage:only:end"]
    assert labels(tracker) == ["pipeline:start", *inside, "pipeline:end"]
    samples = [event["data"] for event in result.events if event["type"] == "memory.sample"]
    assert [sample["label"] for sample in samples] == inside
    sink.assert_seq_contiguous(result.pipeline_run_id or "")
    assert sink.types()[0] == "pipeline.started"
    assert sink.types()[-1] == "pipeline.completed"


@pytest.mark.spec("G75")
@pytest.mark.parametrize("stage", [failing, canceling, endless])
async def test_every_call_of_a_stage_has_a_sample_before_and_one_after(
    stage: object, tracker: MemoryTracker, autojump_clock: MockClock
) -> None:
    runner = PipelineRunner(memory_tracker=tracker, memory_sample_stages=True)

    with trio.move_on_after(10):
        await runner.run(of(stage))

    assert labels(tracker)[1:3] == ["stage:only:start", "stage:only:end"]


@pytest.mark.spec("G75")
async def test_samples_of_a_stage_are_around_everything_else(tracker: MemoryTracker) -> None:
    class Observing(BaseInterceptor):
        """Subclass of the tests: takes samples as the outermost of all others."""

        name = "observing"
        priority = 1

        async def before(self, stage_name: str, ctx: object) -> None:
            tracker.observe("inside")

        async def release(self, stage_name: str, ctx: object) -> None:
            tracker.observe("still inside")

    runner = PipelineRunner(
        memory_tracker=tracker, memory_sample_stages=True, interceptors=[Observing()]
    )
    await runner.run(of(fine))

    assert labels(tracker)[1:-1] == [
        "stage:only:start",
        "inside",
        "still inside",
        "stage:only:end",
    ]


@pytest.mark.spec("G68", "30.11.8")
async def test_listener_that_breaks_breaks_no_stage(tracker: MemoryTracker) -> None:
    def stop(sample: object) -> None:
        raise LookupError("nobody there")

    tracker.add_listener(stop)
    runner = PipelineRunner(memory_tracker=tracker, memory_sample_stages=True)

    assert (await runner.run(of(fine))).success
