"""Random pipelines with random stages, really run: what holds for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.model import StageStatus
from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime import PipelineResults, RunHandle
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink, pipelines, run_seeded

from .stages import PROGRAMS


@attrs.frozen
class Tidy:
    """A scripted stage that registers a clean-up first."""

    script: Any

    async def execute(self, ctx: StageContext) -> Any:
        ctx.add_cleanup(lambda: ctx.ports.append(ctx.stage_name))
        return await self.script.execute(ctx)


def tidy(pipeline: Pipeline) -> Pipeline:
    specs: Sequence[StageSpec] = pipeline.stages
    return pipeline.with_stages(
        *(spec.evolve(runner=Tidy(spec.runner)) for spec in specs), replace=True
    )


@attrs.frozen
class Program:
    """A pipeline, and how and when its run is cancelled."""

    pipeline: Pipeline
    interceptors: tuple[()] | None
    cancel_after: float | None
    way: str


programs = st.builds(
    Program,
    pipelines(max_stages=7).map(tidy),
    interceptors=st.sampled_from([(), None]),
    cancel_after=st.sampled_from([None, None, 0.0, 0.05, 0.4]),
    way=st.sampled_from(["handle", "scope", "context"]),
)


async def carry_out(program: Program) -> None:
    sink = RecordingEventSink(strict=True)
    context = PipelineContext(ports=[])
    before = trio.lowlevel.current_statistics().tasks_living
    outcome: PipelineResults | Exception | None = None
    runs: list[RunHandle] = []

    with trio.CancelScope() as scope:
        try:
            async with program.pipeline.start(
                context, event_sink=sink, interceptors=program.interceptors, cleanup_timeout=2.0
            ) as run:
                assert isinstance(run, RunHandle)
                runs.append(run)
                if program.cancel_after is not None:
                    await trio.sleep(program.cancel_after)
                    ways: dict[str, Callable[[], object]] = {
                        "handle": run.cancel,
                        "scope": scope.cancel,
                        "context": context.mark_canceled,
                    }
                    ways[program.way]()
                outcome = await run.wait()
        except (UnifiedStageExecutionError, UnifiedPipelineCancelled) as error:
            outcome = error

    assert trio.lowlevel.current_statistics().tasks_living == before
    check_events(sink, context, outcome)
    check_results(context, runs[0].results)
    # A stage that is tried again registers its cleanup again.
    tried_once = program.interceptors == ()
    assert not tried_once or len(context.ports) == sum(
        spec_runs(sink, name) for name in program.pipeline
    )


def spec_runs(sink: RecordingEventSink, name: str) -> int:
    """How often a stage was called and got to its first step."""
    interrupted = [
        p
        for p in sink.payloads("stage.failed")
        if p["stage"] == name and p["status"] == "cancel" and p["tries"] == 0
    ]
    started = [p for p in sink.payloads("stage.started") if p["stage"] == name]
    return len(started) - len(interrupted)


def check_events(sink: RecordingEventSink, context: PipelineContext, outcome: object) -> None:
    types = sink.types()
    sink.assert_seq_contiguous(str(context.pipeline_run_id))
    terminal = [t for t in types if t in ENDINGS]
    assert terminal == [types[-1]]
    assert types.count("pipeline.started") == (1 if types[0] == "pipeline.started" else 0)
    if isinstance(outcome, UnifiedPipelineCancelled):
        assert types[-1] == "pipeline.canceled"
    elif isinstance(outcome, UnifiedStageExecutionError):
        assert types[-1] == "pipeline.failed"
    elif isinstance(outcome, PipelineResults):
        assert types[-1] == ("pipeline.failed" if outcome.failures else "pipeline.completed")
    open_attempts: dict[Any, int] = {}
    for event in sink.events:
        stage = event.data.get("stage")
        if event.type == "stage.started":
            assert stage not in open_attempts
            open_attempts[stage] = event.data["attempt"]
        elif event.type in ("stage.completed", "stage.failed"):
            assert open_attempts.pop(stage) == event.data["attempt"]
        elif event.type == "stage.skipped" and event.data["duration_ms"] is not None:
            del open_attempts[stage]
    assert open_attempts == {}


ENDINGS = ("pipeline.completed", "pipeline.failed", "pipeline.canceled")


def check_results(context: PipelineContext, results: PipelineResults) -> None:
    for name, output in results.items():
        assert output.status is not StageStatus.RETRY
        assert name in results.stage_results
        newest = context.outputs.get(name)
        assert newest is not None
    failed = [name for name, output in results.items() if output.status is StageStatus.FAIL]
    assert sorted(failed) == sorted(failure.stage for failure in results.failures)


@pytest.mark.spec("30.1.1", "30.3.1", "30.3.2", "30.6.5", "30.7.3", "30.7.6", "E69")
@settings(max_examples=PROGRAMS)
@given(program=programs, seed=st.integers(0, 2**16))
def test_every_run_ends_in_order_and_leaves_nothing(program: Program, seed: int) -> None:
    run_seeded(carry_out, program, seed=seed)
