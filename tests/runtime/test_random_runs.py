"""Random pipelines with random stages, really run: what holds for every one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from hypothesis import assume, given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import FailureMode, GuardRetryPolicy, GuardRetryStrategy, StageSpec
from actorflow.pipeline._validation import find_problems
from actorflow.runtime import PipelineResults, RunHandle, UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

SECONDS = st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0])
ENDS = st.sampled_from(["ok", "ok", "ok", "skip", "fail", "raise", "retry", "cancel", "mark"])


@attrs.frozen
class Behaviour:
    """What a stage of these pipelines does, and what it does when it is cancelled."""

    seconds: float
    end: str
    when_cancelled: str
    sends: int

    async def execute(self, ctx: StageContext) -> Any:
        ctx.add_cleanup(lambda: ctx.ports.append(ctx.stage_name))
        try:
            for number in range(self.sends):
                await ctx.send(number)
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            await self._be_cancelled()  # noqa: ASYNC102 - what it shields is the point
            raise
        return self._finish(ctx)

    async def _be_cancelled(self) -> None:
        if self.when_cancelled == "linger":
            with trio.CancelScope(shield=True):
                await trio.sleep(0.3)
        elif self.when_cancelled == "raise":
            raise OSError("while stopping")

    def _finish(self, ctx: StageContext) -> Any:
        match self.end:
            case "skip":
                return StageOutput.skip("no need")
            case "fail":
                return StageOutput.fail("no")
            case "raise":
                raise LookupError("broken")
            case "retry":
                return StageOutput.retry("busy")
            case "cancel":
                return StageOutput.cancel("enough")
            case "mark":
                ctx.cancel_token.cancel("marked")
        return {"attempt": ctx.attempt}


@attrs.frozen
class Consumer:
    """Reads a stream to its end, whatever that is."""

    async def execute(self, ctx: StageContext) -> Any:
        return {"got": [item async for item in ctx.stream()]}


@attrs.frozen
class Program:
    specs: tuple[StageSpec, ...]
    options: dict[str, Any]
    cancel_after: float | None
    way: str


@st.composite
def programs(draw: st.DrawFn) -> Program:
    specs: list[StageSpec] = []
    policies: dict[str, GuardRetryPolicy] = {}
    producers = set()
    for number in range(draw(st.integers(1, 7))):
        before = [spec.name for spec in specs]
        behaviour = Behaviour(
            draw(SECONDS), draw(ENDS), draw(st.sampled_from(["go", "linger", "raise"])), 0
        )
        name = f"s{number}"
        needed = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        if before and not needed and draw(st.booleans()):
            source = draw(st.sampled_from(before))
            producers.add(source)
            specs.append(StageSpec(name, Consumer(), stream_from=source, stream_buffer=2))
            continue
        is_guard = bool(needed) and draw(st.booleans())
        if is_guard:
            policies[name] = GuardRetryPolicy(draw(st.sampled_from(needed)), max_attempts=2)
        specs.append(
            StageSpec(
                name,
                behaviour,
                kind="guard" if is_guard else "work",
                dependencies=needed,
                join=draw(st.sampled_from(["any", "all", "always"])),
                timeout=draw(st.sampled_from([None, None, 0.2])),
            )
        )
    specs = [
        spec.evolve(runner=attrs.evolve(spec.runner, sends=5))
        if spec.name in producers and isinstance(spec.runner, Behaviour)
        else spec
        for spec in specs
        if spec.name not in producers or isinstance(spec.runner, Behaviour)
    ]
    options = {
        "failure_mode": draw(st.sampled_from(FailureMode)),
        "max_concurrency": draw(st.sampled_from([None, None, 1, 2])),
        "guard_retry_strategy": GuardRetryStrategy(policies),
        "cleanup_timeout": 2.0,
        "interceptors": draw(st.sampled_from([None, ()])),
    }
    assume(not find_problems(specs, guard_retry_strategy=options["guard_retry_strategy"]))
    return Program(
        tuple(draw(st.permutations(specs))),
        options,
        draw(st.sampled_from([None, None, 0.0, 0.05, 0.4])),
        draw(st.sampled_from(["handle", "scope", "context"])),
    )


async def carry_out(program: Program) -> None:
    graph = UnifiedStageGraph(program.specs, **program.options)
    sink = RecordingEventSink(strict=True)
    context = PipelineContext(ports=[])
    before = trio.lowlevel.current_statistics().tasks_living
    outcome: PipelineResults | Exception | None = None
    runs: list[RunHandle] = []

    with trio.CancelScope() as scope:
        try:
            async with graph.start(context, event_sink=sink) as run:
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
    tried_once = program.options["interceptors"] == ()
    assert not tried_once or len(context.ports) == sum(
        spec_runs(sink, spec.name) for spec in program.specs if isinstance(spec.runner, Behaviour)
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
@settings(max_examples=150)
@given(program=programs())
def test_every_run_ends_in_order_and_leaves_nothing(program: Program) -> None:
    clock = MockClock(autojump_threshold=0)

    trio.run(carry_out, program, clock=clock)
