"""What the results of real runs say about their stages."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import UnifiedStageExecutionError
from actorflow.events import WideEventEmitter
from actorflow.interceptors import BaseInterceptor, InterceptorContext
from actorflow.model import StageOutput
from actorflow.pipeline import (
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    StageSpec,
    edge,
    stage,
)
from actorflow.runtime import PipelineResults
from actorflow.stages import ExecutionContext, PipelineContext, StageContext, StageResult


@stage
async def first(ctx: StageContext) -> dict[str, Any]:
    return {"branch": "taken"}


@pytest.mark.spec("10.18.2")
async def test_duration_and_times_are_those_of_one_call(autojump_clock: MockClock) -> None:
    @stage
    async def slow(ctx: StageContext) -> None:
        await trio.sleep(2.5)

    result = (await Pipeline.from_stages(slow).run()).stage_results["slow"]

    assert result.duration_ms == 2500
    assert (result.ended_at - result.started_at).total_seconds() == 2.5
    assert result.started_at.utcoffset() is not None


async def test_results_travel_without_the_stages() -> None:
    unnamed = StageSpec("unnamed", lambda _: {"n": 1})
    results = (await Pipeline("lonely", [unnamed]).run()).stage_results

    assert pickle.loads(pickle.dumps(results)) == results
    assert copy.copy(results) == results


@pytest.mark.spec("10.18.3")
async def test_result_says_who_skipped_a_stage() -> None:
    @stage
    async def itself(ctx: StageContext) -> StageOutput:
        return StageOutput.skip("nothing to do")

    @stage(after="first", when=lambda inputs: False)
    async def by_when(ctx: StageContext) -> None: ...

    @stage(after=edge("first", when="other"))
    async def by_dependency(ctx: StageContext) -> None: ...

    @stage
    async def reason(ctx: StageContext) -> dict[str, str]:
        return {"skip_reason": "not today"}

    @stage(after="reason", conditional=True)
    async def by_condition(ctx: StageContext) -> None: ...

    # Somebody has to use the label that `first` chooses.
    @stage(after=edge("first", when="taken"))
    async def taken(ctx: StageContext) -> None: ...

    results = await Pipeline.from_stages(
        first, itself, by_when, by_dependency, reason, by_condition, taken
    ).run()

    skipped_by = {name: result.skipped_by for name, result in results.stage_results.items()}
    assert skipped_by == {
        "first": None,
        "itself": "stage",
        "by_when": "when",
        "by_dependency": "dependency",
        "reason": None,
        "by_condition": "conditional",
        "taken": None,
    }


@pytest.mark.spec("10.18.3")
async def test_result_says_that_a_failure_skipped_a_stage() -> None:
    @stage
    async def broken(ctx: StageContext) -> None:
        raise ValueError

    @stage(after="broken")
    async def dependent(ctx: StageContext) -> None: ...

    pipeline = Pipeline.from_stages(broken, dependent, failure_mode="continue_on_failure")
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await pipeline.run()

    results = caught.value.results
    assert isinstance(results, PipelineResults)
    assert results.stage_results["dependent"].skipped_by == "failure"


@pytest.mark.spec("10.18.3")
async def test_result_counts_attempts_and_tries(autojump_clock: MockClock) -> None:
    calls: list[str] = []

    @stage
    async def draft(ctx: StageContext) -> StageOutput:
        calls.append("draft")
        if len(calls) == 1:
            return StageOutput.retry("once more")
        return StageOutput.ok()

    @stage(kind="guard", after="draft")
    async def check(ctx: StageContext) -> StageOutput:
        calls.append("check")
        return StageOutput.fail("no") if calls.count("check") == 1 else StageOutput.ok()

    strategy = GuardRetryStrategy({"check": GuardRetryPolicy("draft")})
    results = await Pipeline.from_stages(draft, check, guard_retry_strategy=strategy).run()

    assert calls == ["draft", "draft", "check", "draft", "check"]
    result = results.stage_results["draft"]
    # The second attempt needed one try; the first had two.
    assert (result.attempt, result.tries) == (2, 1)
    assert results.stage_results["check"].attempt == 2


@pytest.mark.spec("10.18.4")
async def test_warnings_hold_what_went_wrong_beside_the_stage() -> None:
    class Nosy(BaseInterceptor):
        name = "nosy"

        async def after(
            self, stage_name: str, result: StageResult, ctx: InterceptorContext | PipelineContext
        ) -> None:
            raise ValueError("looked too closely")

    results = await Pipeline.from_stages(first).run(interceptors=[Nosy()])

    result = results.stage_results["first"]
    assert result.status == "completed"
    assert any("looked too closely" in warning for warning in result.warnings)


@pytest.mark.spec("10.19.3")
async def test_stage_that_ran_again_stands_once_at_its_newest_completion() -> None:
    drafts: list[int] = []

    @stage
    async def draft(ctx: StageContext) -> dict[str, int]:
        drafts.append(len(drafts))
        return {"number": len(drafts)}

    @stage(after="draft")
    async def beside(ctx: StageContext) -> None: ...

    @stage(kind="guard", after="draft")
    async def check(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no") if len(drafts) < 3 else StageOutput.ok()

    @stage
    async def early(ctx: StageContext) -> None: ...

    strategy = GuardRetryStrategy({"check": GuardRetryPolicy("draft", max_attempts=5)})
    results = await Pipeline.from_stages(
        draft, early, beside, check, guard_retry_strategy=strategy
    ).run()

    assert results.data("draft") == {"number": 3}
    assert list(results)[:2] == ["early", "draft"]
    assert sorted(results) == ["beside", "check", "draft", "early"]


@pytest.mark.spec("10.19.4")
async def test_stages_that_never_started_are_absent() -> None:
    @stage
    async def broken(ctx: StageContext) -> None:
        raise ValueError

    @stage(after="broken")
    async def later(ctx: StageContext) -> None: ...

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await Pipeline.from_stages(first, broken, later).run()

    results = caught.value.results
    assert isinstance(results, PipelineResults)
    assert "later" not in results
    assert "later" not in results.stage_results


class Bare:
    """A context with what the protocol asks for and nothing else."""

    def __init__(self) -> None:
        self.emitted: list[tuple[str, Any]] = []

    pipeline_run_id = None
    request_id = None
    execution_mode = None
    metadata: dict[str, Any] = {}

    def get_metadata(self, key: str, default: Any = None) -> Any:
        return default

    def to_dict(self) -> dict[str, Any]:
        return {}

    def try_emit_event(self, type: str, data: Any = None) -> None:
        self.emitted.append((type, data))


@pytest.mark.spec("10.9.2")
async def test_what_takes_a_context_takes_every_context() -> None:
    bare = Bare()
    assert isinstance(bare, ExecutionContext)
    result = (await Pipeline.from_stages(first).run()).stage_results["first"]

    WideEventEmitter().emit_stage_event(ctx=bare, result=result)

    [(event_type, payload)] = bare.emitted
    assert event_type == "stage.wide"
    assert payload["stage"] == "first"


@pytest.mark.spec("10.9.1")
async def test_context_of_an_interceptor_is_an_execution_context() -> None:
    seen: list[bool] = []

    class Look(BaseInterceptor):
        name = "look"

        async def before(self, stage_name: str, ctx: InterceptorContext | PipelineContext) -> None:
            assert isinstance(ctx, InterceptorContext)
            seen.append(isinstance(ctx, ExecutionContext))

    await Pipeline.from_stages(first).run(interceptors=[Look()])

    assert seen == [True]


@pytest.mark.spec("10.11.5")
async def test_run_pins_the_snapshot_it_starts_with() -> None:
    snapshots: list[object] = []
    context = PipelineContext(input_text="as it was")

    @stage
    async def change(ctx: StageContext) -> None:
        snapshots.append(ctx.snapshot)
        context.input_text = "changed meanwhile"

    @stage(after="change")
    async def look(ctx: StageContext) -> None:
        snapshots.append(ctx.snapshot)

    await Pipeline.from_stages(change, look).run(context)

    assert snapshots[0] is snapshots[1]
    assert context.snapshot is not snapshots[0]


@pytest.mark.spec("10.12.5")
async def test_timer_is_one_for_the_run(autojump_clock: MockClock) -> None:
    timers: list[object] = []

    @stage
    async def early(ctx: StageContext) -> None:
        timers.append(ctx.timer)
        await trio.sleep(1)

    @stage(after="early")
    async def late(ctx: StageContext) -> None:
        timers.append(ctx.timer)
        assert ctx.timer.elapsed_ms() == 1000

    await Pipeline.from_stages(early, late).run()

    assert timers[0] is timers[1]


@pytest.mark.spec("20.7.6")
async def test_runtime_that_is_passed_in_is_what_stages_find() -> None:
    found: list[object] = []
    mine = object()

    @stage
    async def look(ctx: StageContext) -> None:
        found.append(ctx.runtime)

    pipeline = Pipeline.from_stages(look)
    await pipeline.run("text", runtime=mine, interceptors=())
    await pipeline.run(PipelineContext(runtime=mine), interceptors=())
    async with pipeline.start("text", runtime=mine, interceptors=()):
        pass
    await pipeline.run("text")

    assert found == [mine, mine, mine, None]


@pytest.mark.spec("20.8.7")
async def test_skipped_stage_passes_no_interceptor() -> None:
    passed: list[str] = []

    class Look(BaseInterceptor):
        name = "look"

        async def before(self, stage_name: str, ctx: InterceptorContext | PipelineContext) -> None:
            passed.append(stage_name)

    @stage(after="first", when=lambda inputs: False)
    async def never(ctx: StageContext) -> None: ...

    @stage(after=edge("first", when="taken"))
    async def taken(ctx: StageContext) -> None: ...

    await Pipeline.from_stages(first, never, taken).run(interceptors=[Look()])

    assert passed == ["first", "taken"]
