"""Interceptors around the stages of a run: what the run has to do with them (30.11, 30.13)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import (
    PipelineValidationError,
    StageTimeoutError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.interceptors import (
    BaseInterceptor,
    ErrorAction,
    InterceptorResult,
    RetryInterceptor,
    TimeoutInterceptor,
)
from actorflow.model import StageKind, StageOutput, StageStatus
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, Pipeline, StageSpec
from actorflow.runtime import PipelineResults, UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

from .stages import forever, nothing, spec


async def run(*specs: StageSpec, **options: Any) -> PipelineResults:
    sink = options.pop("sink", None)
    graph = UnifiedStageGraph(specs, failure_mode="best_effort", **options)
    return await graph.run(event_sink=sink)


@pytest.mark.spec("20.11.3", "30.11.1")
def test_graph_holds_its_interceptors_from_the_outermost_to_the_innermost() -> None:
    class Named(BaseInterceptor):
        def __init__(self, name: str, priority: int) -> None:
            super().__init__()
            self.name = name
            self.priority = priority

    outer, inner, last = Named("outer", 1), Named("inner", 5), Named("last", 5)

    graph = UnifiedStageGraph([spec("a", nothing)], interceptors=[inner, last, outer])

    assert graph.interceptors == (outer, inner, last)
    assert UnifiedStageGraph([spec("a", nothing)], interceptors=[]).interceptors == ()
    assert UnifiedStageGraph([spec("a", nothing)]).interceptors != ()
    with pytest.raises(PipelineValidationError):
        UnifiedStageGraph([spec("a", nothing)], interceptors=[object()])


@pytest.mark.spec("20.7.5")
def test_every_build_has_interceptors_of_its_own() -> None:
    pipeline = Pipeline("p", [spec("a", nothing)])
    first, second = pipeline.build(), pipeline.build()

    assert isinstance(first, UnifiedStageGraph)
    assert isinstance(second, UnifiedStageGraph)
    assert not set(map(id, first.interceptors)) & set(map(id, second.interceptors))


@pytest.mark.spec("30.11.13")
def test_interceptor_may_refuse_a_graph() -> None:
    class Picky(BaseInterceptor):
        name = "picky"

        def check_graph(self, graph: UnifiedStageGraph) -> None:
            raise LookupError(f"not {graph.pipeline_name}")

    with pytest.raises(LookupError, match="not this"):
        UnifiedStageGraph([spec("a", nothing)], pipeline_name="this", interceptors=[Picky()])


@pytest.mark.spec("30.3.4", "30.13.2")
async def test_tries_are_counted_and_seen(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    seen = []

    async def third_time(ctx: StageContext) -> StageOutput:
        seen.append((ctx.attempt, ctx.try_number))
        await ctx.bag.write("key", ctx.try_number, ctx.stage_name)
        return StageOutput.ok() if ctx.try_number == 3 else StageOutput.retry("busy")

    results = await run(
        spec("a", third_time),
        interceptors=[RetryInterceptor(5, 100, jitter_strategy="none")],
        sink=sink,
    )

    assert seen == [(1, 1), (1, 2), (1, 3)]
    assert results.stage_results["a"].tries == 3
    assert results["a"].duration_ms == 300.0
    sink.assert_emitted("stage.completed", stage="a", tries=3, attempt=1)
    assert sink.types().count("stage.started") == 1


@pytest.mark.spec("10.2.3")
@pytest.mark.parametrize("kind", StageKind)
async def test_kinds_behave_alike_but_for_guards_and_work(
    kind: StageKind, sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def second_time(ctx: StageContext) -> StageOutput:
        return StageOutput.ok() if ctx.try_number == 2 else StageOutput.retry("busy")

    specs = (spec("before", nothing), spec("a", second_time, "before", kind=kind))
    await UnifiedStageGraph(specs).run(event_sink=sink)

    types = [t for t in sink.types() if not t.startswith("work.idempotency")]
    assert types.count("work.retry_attempt") == (kind is StageKind.WORK)
    assert [t for t in types if t != "work.retry_attempt"][3:] == [
        "stage.started",
        "stage.retry_scheduled",
        "stage.completed",
        "pipeline.completed",
    ]
    strategy = GuardRetryStrategy({"a": GuardRetryPolicy("before")})
    with nullcontext() if kind is StageKind.GUARD else pytest.raises(PipelineValidationError):
        UnifiedStageGraph(specs, guard_retry_strategy=strategy)


@pytest.mark.spec("30.13.8", "30.4.5")
async def test_retries_that_run_out_fail_the_stage(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def busy(ctx: StageContext) -> StageOutput:
        return StageOutput.retry("busy", {"queue": 9})

    results = await run(spec("a", busy), interceptors=[RetryInterceptor(2)], sink=sink)

    assert results["a"].status is StageStatus.FAIL
    assert results["a"].data == {"queue": 9}
    assert results.stage_results["a"].tries == 2
    assert not any("RetryInterceptor" in w for w in results.stage_results["a"].warnings)
    sink.assert_emitted("stage.failed", stage="a", status="retry", tries=2)


@pytest.mark.spec("30.4.5")
async def test_retry_that_no_interceptor_grants_becomes_a_failure_with_a_hint() -> None:
    async def busy(ctx: StageContext) -> StageOutput:
        return StageOutput.retry("busy")

    results = await run(spec("a", busy), interceptors=[TimeoutInterceptor(500)])

    assert results["a"].status is StageStatus.FAIL
    [warning] = results.stage_results["a"].warnings
    assert "RetryInterceptor" in warning


@pytest.mark.spec("30.8.1", "30.8.2", "30.8.5")
async def test_timeouts_are_tried_again_with_the_full_limit(autojump_clock: MockClock) -> None:
    deadlines = []

    async def slow(ctx: StageContext) -> None:
        deadlines.append(ctx.deadline - trio.current_time())
        await trio.sleep_forever()

    begun_at = trio.current_time()
    results = await run(
        spec("a", slow),
        interceptors=[TimeoutInterceptor(500), RetryInterceptor(3, 1000, jitter_strategy="none")],
    )

    assert deadlines == [0.5] * 3
    assert trio.current_time() - begun_at == 3 * 0.5 + 1 + 2
    assert isinstance(results.failures[0].exception, StageTimeoutError)
    assert results.stage_results["a"].timed_out


@pytest.mark.spec("30.11.3", "30.11.4")
async def test_short_circuit_has_a_start_and_an_end_and_no_call(sink: RecordingEventSink) -> None:
    class Answer(BaseInterceptor):
        name = "answer"

        async def before(self, stage_name: str, ctx: Any) -> InterceptorResult:
            return InterceptorResult(stage_ran=False, result={"from": self.name})

    async def never(ctx: StageContext) -> None:
        pytest.fail("called")

    results = await run(spec("a", never), interceptors=[Answer()], sink=sink)

    assert results.data("a") == {"from": "answer"}
    assert results.stage_results["a"].short_circuited_by == "answer"
    assert results.stage_results["a"].tries == 0
    assert sink.types()[1:3] == ["stage.started", "stage.completed"]


@pytest.mark.spec("30.11.5", "30.6.6")
async def test_failure_of_a_chain_is_the_failure_of_the_stage() -> None:
    class Transform(BaseInterceptor):
        name = "transform"

        async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> ErrorAction:
            raise PermissionError("not you") from error

    async def boom(ctx: StageContext) -> None:
        raise LookupError("gone")

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph([spec("a", boom)], interceptors=[Transform()]).run()

    assert isinstance(caught.value.original, PermissionError)
    assert isinstance(caught.value.original.__cause__, LookupError)


@pytest.mark.spec("30.11.9", "30.7.3")
async def test_cancelled_call_releases_before_the_stage_is_settled(
    sink: RecordingEventSink,
) -> None:
    class Holds(BaseInterceptor):
        name = "holds"

        async def release(self, stage_name: str, ctx: Any) -> None:
            await trio.lowlevel.checkpoint()
            ctx.try_emit_event("app.released", {"by": stage_name})

    async with UnifiedStageGraph([spec("a", forever)], interceptors=[Holds()]).start(
        event_sink=sink
    ) as handle:
        await wait_all_tasks_blocked()
        handle.cancel()
        with pytest.raises(UnifiedPipelineCancelled):
            await handle.wait()

    assert sink.types()[-3:] == ["app.released", "stage.failed", "pipeline.canceled"]


@pytest.mark.spec("30.11.11")
async def test_interceptors_see_the_call_and_what_others_noted() -> None:
    seen: list[Any] = []
    context = PipelineContext(data={"k": 1})

    class Notes(BaseInterceptor):
        name = "notes"

        async def before(self, stage_name: str, ctx: Any) -> None:
            ctx.add_observation("order", stage_name)

    class Looks(BaseInterceptor):
        name = "looks"

        async def before(self, stage_name: str, ctx: Any) -> None:
            seen.append(
                (
                    ctx.stage_name,
                    str(ctx.stage_kind),
                    ctx.runner is nothing,
                    ctx.snapshot is context.snapshot,
                    ctx.inputs.stages,
                    ctx.attempt,
                    ctx.timeout_ms,
                    ctx.data["k"],
                    ctx.pipeline_name,
                    ctx.get_observation("order", "notes"),
                )
            )

    graph = UnifiedStageGraph(
        [spec("a", nothing), spec("b", nothing, "a", timeout=2, kind="guard")],
        pipeline_name="p",
        interceptors=[Notes(), Looks()],
    )
    await graph.run(context)

    assert seen == [
        ("a", "transform", True, True, (), 1, None, 1, "p", "a"),
        ("b", "guard", True, True, ("a",), 1, 2000.0, 1, "p", "b"),
    ]


@pytest.mark.spec("30.13.10")
async def test_producer_that_has_sent_is_not_tried_again(autojump_clock: MockClock) -> None:
    async def sends(ctx: StageContext) -> StageOutput:
        await ctx.send(ctx.try_number)
        return StageOutput.retry("line broke")

    async def reads(ctx: StageContext) -> dict[str, Any]:
        got = []
        with pytest.raises(Exception, match="broke off"):
            async for item in ctx.stream():
                got.append(item)
        return {"got": got}

    results = await run(
        spec("sends", sends),
        spec("reads", reads, stream_from="sends"),
        interceptors=[RetryInterceptor()],
    )

    assert results.stage_results["sends"].tries == 1
    assert results.data("reads") == {"got": [1]}


async def test_stage_learns_under_which_key_its_work_counts() -> None:
    class Key:
        key = "k-1"
        fence = 1
        attempt = 1

    class Sets(BaseInterceptor):
        name = "sets"

        async def before(self, stage_name: str, ctx: Any) -> None:
            ctx.set_idempotency(Key())

    async def work(ctx: StageContext) -> dict[str, Any]:
        assert ctx.idempotency is not None
        return {"key": ctx.idempotency.key}

    results = await run(spec("a", work), interceptors=[Sets()])

    assert results.data("a") == {"key": "k-1"}
