"""What contexts and results promise about runs, shown by runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import UnifiedStageExecutionError
from actorflow.interceptors import BaseInterceptor, InterceptorContext, RetryInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import ExecutionContext, PipelineContext, PipelineTimer, StageContext


def spec(name: str, runner: Any, *after: str, **options: Any) -> StageSpec:
    return StageSpec(name, runner, dependencies=after, **options)


async def nothing(ctx: StageContext) -> None: ...


async def fails(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("no")


class Watching(BaseInterceptor):
    """Keeps the contexts it is given, and has a mistake in its last hook."""

    name = "watching"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[InterceptorContext] = []

    async def before(self, stage_name: str, ctx: InterceptorContext) -> None:
        self.seen.append(ctx)

    async def after(self, stage_name: str, result: object, ctx: InterceptorContext) -> None:
        raise ArithmeticError("watched badly")


@pytest.mark.spec("10.9.1")
async def test_interceptors_hold_an_execution_context() -> None:
    watching = Watching()

    await UnifiedStageGraph([spec("a", nothing)], interceptors=[watching]).run()

    [ctx] = watching.seen
    assert isinstance(ctx, ExecutionContext)


@pytest.mark.spec("10.11.5", "10.12.1")
async def test_every_stage_gets_the_snapshot_the_run_began_with() -> None:
    context = PipelineContext(input_text="before")
    seen: list[object] = []

    async def change(ctx: StageContext) -> None:
        seen.append(ctx.snapshot)
        context.input_text = "after"

    async def look(ctx: StageContext) -> None:
        seen.append(ctx.snapshot)

    await UnifiedStageGraph([spec("a", change), spec("b", look, "a")]).run(context)

    first, second = seen
    assert first is second
    assert context.snapshot is not first


@pytest.mark.spec("10.12.5")
async def test_stages_share_the_timer_of_their_run(autojump_clock: MockClock) -> None:
    timers: list[PipelineTimer] = []
    elapsed: list[float] = []

    async def look(ctx: StageContext) -> None:
        await trio.sleep(1)
        timers.append(ctx.timer)
        elapsed.append(ctx.timer.elapsed_ms())

    await UnifiedStageGraph([spec("a", look), spec("b", look, "a")]).run()

    assert timers[0] is timers[1]
    assert elapsed == pytest.approx([1000, 2000])


@pytest.mark.spec("10.14.6")
async def test_what_a_stage_wrote_is_gone_when_it_is_tried_again(autojump_clock: MockClock) -> None:
    found: list[list[str]] = []

    async def write(ctx: StageContext) -> StageOutput:
        found.append(ctx.bag.keys())
        await ctx.bag.write(f"try {ctx.try_number}", 1, ctx.stage_name)
        return StageOutput.ok() if ctx.try_number == 2 else StageOutput.retry("busy")

    context = PipelineContext()
    await UnifiedStageGraph([spec("a", write)], interceptors=[RetryInterceptor(2)]).run(context)

    assert found == [[], []]
    assert context.bag.keys() == ["try 2"]


@pytest.mark.spec("10.18.2")
async def test_results_measure_and_date_the_same_call(autojump_clock: MockClock) -> None:
    async def slow(ctx: StageContext) -> None:
        await trio.sleep(1.5)

    results = await UnifiedStageGraph([spec("a", slow), spec("b", slow, "a")]).run()

    a, b = results.stage_results["a"], results.stage_results["b"]
    assert a.duration_ms == b.duration_ms == 1500
    assert a.ended_at - a.started_at == timedelta(seconds=1.5)
    assert a.started_at.utcoffset() == timedelta(0)
    assert b.started_at == a.ended_at


@pytest.mark.spec("10.18.3")
async def test_results_say_which_rule_skipped_a_stage() -> None:
    async def skips(ctx: StageContext) -> StageOutput:
        return StageOutput.skip("nothing to do", {"skip_reason": "asked to"})

    specs = [
        spec("ran", nothing),
        spec("stage", skips),
        spec("conditional", nothing, "stage", conditional=True),
        spec("when", nothing, "ran", when=lambda inputs: False),
        spec("dependency", nothing, "when"),
        spec("fails", fails),
        spec("failure", nothing, "fails"),
    ]
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph(specs, failure_mode="continue_on_failure").run()

    rules = {name: it.skipped_by for name, it in caught.value.results.stage_results.items()}
    ran = {"ran": None, "fails": None}
    skipped = ("stage", "conditional", "when", "dependency", "failure")
    assert rules == {**ran, **dict(zip(skipped, skipped, strict=True))}


@pytest.mark.spec("10.18.3", "10.19.3")
async def test_repeated_stage_appears_once_where_it_ended_last(autojump_clock: MockClock) -> None:
    async def write(ctx: StageContext) -> dict[str, int]:
        return {"attempt": ctx.attempt}

    async def check(ctx: StageContext) -> StageOutput:
        is_fine = ctx.inputs.get_from("write", "attempt") == 2
        return StageOutput.ok() if is_fine else StageOutput.fail("too short")

    async def beside(ctx: StageContext) -> None:
        await trio.sleep(0)

    specs = [
        spec("write", write),
        spec("beside", beside),
        spec("check", check, "write", kind="guard"),
    ]
    strategy = GuardRetryStrategy({"check": GuardRetryPolicy("write")})
    results = await UnifiedStageGraph(specs, guard_retry_strategy=strategy).run()

    assert sorted(results) == ["beside", "check", "write"]
    assert [name for name in results if name != "beside"] == ["write", "check"]
    assert results.data("write") == {"attempt": 2}
    assert list(results).index("beside") == 0
    report = results.stage_results["write"]
    assert (report.attempt, report.tries) == (2, 1)


@pytest.mark.spec("10.18.3")
async def test_results_count_tries_apart_from_attempts(autojump_clock: MockClock) -> None:
    async def third_time(ctx: StageContext) -> StageOutput:
        return StageOutput.ok() if ctx.try_number == 3 else StageOutput.retry("busy")

    graph = UnifiedStageGraph([spec("a", third_time)], interceptors=[RetryInterceptor(3)])
    results = await graph.run()

    report = results.stage_results["a"]
    assert (report.attempt, report.tries) == (1, 3)


@pytest.mark.spec("10.18.4")
async def test_mistake_of_an_interceptor_is_a_warning_of_the_result() -> None:
    results = await UnifiedStageGraph([spec("a", nothing)], interceptors=[Watching()]).run()

    assert results.ok("a")
    [warning] = results.stage_results["a"].warnings
    assert "watched badly" in warning


@pytest.mark.spec("10.19.4")
async def test_stages_that_never_started_are_no_results() -> None:
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph([spec("a", fails), spec("b", nothing, "a")]).run()

    assert list(caught.value.results) == ["a"]
    assert list(caught.value.results.stage_results) == ["a"]


class MuteError(Exception):
    def __str__(self) -> str:
        raise ArithmeticError("has no text")


async def test_exception_without_text_fails_its_stage_like_any_other() -> None:
    async def mute(ctx: StageContext) -> None:
        raise MuteError

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph([spec("a", mute)]).run()

    [failure] = caught.value.results.failures
    assert (failure.stage, failure.error) == ("a", "MuteError")
