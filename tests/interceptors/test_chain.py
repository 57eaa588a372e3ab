"""The way of a call through its interceptors (30.11)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import (
    CriticalInterceptorError,
    InterceptorError,
    PipelineValidationError,
    StageCancellationRequested,
    StageFailedError,
    StageRetryRequested,
    StageTimeoutError,
    TransientError,
    UnsupportedResultError,
)
from actorflow.interceptors import (
    BaseInterceptor,
    ErrorAction,
    InterceptorContext,
    InterceptorResult,
    Outcome,
    RetryInterceptor,
    check_graph,
    compile_chains,
    ordered,
    run_with_interceptors,
)
from actorflow.model import StageKind, StageOutput, StageStatus
from actorflow.pipeline import StageSpec
from actorflow.stages import ExecutionContext, PipelineContext, StageResult

from .recording import Recorder, Stage, answering, for_ever, raising

RETRY, FALLBACK, FAIL = ErrorAction.RETRY, ErrorAction.FALLBACK, ErrorAction.FAIL


async def call(
    stage: Any, *interceptors: Any, ctx: PipelineContext | None = None, **options: Any
) -> StageResult:
    return await run_with_interceptors(
        "stage", stage, ctx or PipelineContext(), interceptors, **options
    )


# Order


@pytest.mark.spec("30.11.1", "30.11.2")
async def test_lowest_priority_is_outermost() -> None:
    trace: list[str] = []
    inner = Recorder("inner", trace, priority=20)
    twin = Recorder("twin", trace, priority=20)
    outer = Recorder("outer", trace, priority=10)

    result = await call(Stage({"n": 1}), inner, twin, outer)

    assert result.data == {"n": 1}
    assert trace == [
        *("outer.before", "inner.before", "twin.before"),
        *("twin.after", "twin.release", "inner.after", "inner.release"),
        *("outer.after", "outer.release"),
    ]


@pytest.mark.spec("30.11.2", "30.11.5")
async def test_failure_asks_each_layer_inside_out_before_its_after() -> None:
    trace: list[str] = []
    outer, inner = Recorder("outer", trace, priority=1), Recorder("inner", trace)

    result = await call(Stage(LookupError("gone")), outer, inner)

    assert (result.status, result.error, result.error_type) == ("failed", "gone", "LookupError")
    assert trace == [
        *("outer.before", "inner.before"),
        *("inner.on_error", "inner.after", "inner.release"),
        *("outer.on_error", "outer.after", "outer.release"),
    ]


async def test_after_sees_the_outcome_as_its_layer_leaves_it() -> None:
    inner = Recorder("inner", on_error=answering(FALLBACK), fallback=answering(StageOutput.ok(n=2)))

    await call(Stage(LookupError()), inner)

    assert [(it.status, it.data) for it in inner.results] == [("completed", {"n": 2})]


# Short circuits


@pytest.mark.spec("30.11.3")
async def test_short_circuit_keeps_the_stage_from_being_called() -> None:
    trace: list[str] = []
    stage = Stage(None)
    answer = InterceptorResult(stage_ran=False, result={"cached": True})
    outer = Recorder("outer", trace, priority=1)
    middle = Recorder("middle", trace, priority=2, before=answering(answer))
    inner = Recorder("inner", trace, priority=3)

    result = await call(stage, outer, middle, inner)

    assert stage.calls == 0
    assert trace == ["outer.before", "middle.before", "outer.after", "outer.release"]
    assert (result.status, result.data) == ("completed", {"cached": True})
    assert (result.short_circuited_by, result.tries) == ("middle", 0)
    assert outer.results[0].short_circuited_by == "middle"


def stage_result(status: Any, **more: Any) -> StageResult:
    moment = PipelineContext().created_at
    return StageResult("other", status, moment, moment, **more)


@pytest.mark.spec("30.11.4")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, StageOutput.skip("short-circuited by cache")),
        ({"result": {"n": 1}}, StageOutput.ok(n=1)),
        ({"result": StageOutput.skip("why")}, StageOutput.skip("why")),
        ({"result": StageOutput.cancel("why")}, StageOutput.cancel("why")),
        ({"result": StageOutput.ok(n=1), "status": "ok"}, StageOutput.ok(n=1)),
        ({"result": StageOutput.ok(n=1), "error": "no"}, StageOutput.fail("no", {"n": 1})),
        ({"error": "no"}, StageOutput.fail("no")),
        ({"error": LookupError("no")}, StageOutput.fail(LookupError("no"))),
        ({"error": "no", "status": "ok"}, StageOutput.ok()),
        ({"status": "fail"}, StageOutput.fail("short-circuited by cache")),
        ({"status": "skip"}, StageOutput.skip("short-circuited by cache")),
        ({"status": "cancel"}, StageOutput.cancel("Cancelled by cache")),
        (
            {"status": "skip", "result": {"n": 1}},
            StageOutput.skip("short-circuited by cache", {"n": 1}),
        ),
        ({"result": stage_result("completed", data={"n": 1})}, StageOutput.ok(n=1)),
        ({"result": stage_result("failed", error="no")}, StageOutput.fail("no")),
        ({"result": stage_result("skipped", error="why")}, StageOutput.skip("why")),
        ({"result": stage_result("canceled", error="why")}, StageOutput.cancel("why")),
        (
            {"result": stage_result("completed", output=StageOutput.ok(n=1, version="2"))},
            StageOutput.ok(n=1, version="2"),
        ),
    ],
)
async def test_short_circuit_has_the_status_it_says(answer: Any, expected: StageOutput) -> None:
    cache = Recorder("cache", before=answering(InterceptorResult(stage_ran=False, **answer)))

    result = await call(Stage(None), cache)

    assert result.output == expected


@pytest.mark.spec("30.11.4")
@pytest.mark.parametrize(
    "answer",
    [
        InterceptorResult(stage_ran=False, result=StageOutput.retry("later")),
        InterceptorResult(stage_ran=False, status="retry"),
        InterceptorResult(stage_ran=False, result=42),
        42,
    ],
)
async def test_impossible_answer_fails_the_stage(answer: Any) -> None:
    outer = Recorder("outer", priority=1)

    result = await call(Stage(None), outer, Recorder("cache", before=answering(answer)))

    assert result.error_type == "InterceptorError"
    assert isinstance(outer.errors[0], InterceptorError)
    assert outer.errors[0].hook == "before"


@pytest.mark.spec("30.11.4", "30.11.5")
async def test_error_of_a_short_circuit_is_what_outer_layers_see() -> None:
    error = LookupError("no")
    outer = Recorder("outer", priority=1)
    answer = InterceptorResult(stage_ran=False, error=error)

    await call(Stage(None), outer, Recorder("cache", before=answering(answer)))

    assert outer.errors == [error]


async def test_answer_that_lets_the_call_in_changes_nothing() -> None:
    result = await call(Stage({"n": 1}), Recorder("a", before=answering(InterceptorResult())))

    assert result.data == {"n": 1}
    assert result.short_circuited_by is None


# Failures


@pytest.mark.spec("30.11.5")
@pytest.mark.parametrize(
    ("step", "error_type"),
    [
        (LookupError("gone"), LookupError),
        (StageOutput.fail("no", {"n": 1}), StageFailedError),
        (StageOutput.retry("later", {"n": 1}), StageRetryRequested),
        (42, UnsupportedResultError),
        (ExceptionGroup("one", [LookupError("gone")]), LookupError),
    ],
)
async def test_failure_of_any_kind_reaches_on_error(step: Any, error_type: type) -> None:
    watching = Recorder("watching")

    result = await call(Stage(step), watching)

    assert [type(error) for error in watching.errors] == [error_type]
    assert result.status == "failed"
    if isinstance(step, StageOutput):
        assert result.output is step


@pytest.mark.spec("30.11.5", "30.8.2")
async def test_timeout_reaches_on_error(autojump_clock: MockClock) -> None:
    def limit(ctx: Any) -> None:
        ctx.timeout_ms = 1500

    watching = Recorder("watching", before=limit)

    result = await call(for_ever, watching)

    assert isinstance(watching.errors[0], StageTimeoutError)
    assert (result.timed_out, result.error) == (True, "Stage timed out after 1500ms")


@pytest.mark.spec("30.11.5")
@pytest.mark.parametrize("output", [StageOutput.skip("x"), StageOutput.cancel("x"), None])
async def test_what_is_no_failure_asks_nobody(output: Any) -> None:
    watching = Recorder("watching")

    await call(Stage(output), watching)

    assert watching.errors == []


async def test_request_to_cancel_is_no_failure() -> None:
    watching = Recorder("watching")

    result = await call(Stage(StageCancellationRequested("enough")), watching)

    assert watching.errors == []
    assert result.output == StageOutput.cancel("enough")


@pytest.mark.spec("30.11.6")
async def test_retry_runs_everything_inside_again() -> None:
    trace: list[str] = []
    stage = Stage(LookupError("1"), LookupError("2"), {"n": 3})
    numbers: list[int] = []
    outer = Recorder("outer", trace, priority=1)
    again = Recorder("again", trace, priority=2, on_error=answering(RETRY))
    inner = Recorder("inner", trace, priority=3, before=lambda ctx: numbers.append(ctx.try_number))

    result = await call(stage, outer, again, inner)

    once = ["inner.before", "inner.on_error", "inner.after", "inner.release", "again.on_error"]
    assert trace == [
        *("outer.before", "again.before"),
        *once,
        *once,
        *("inner.before", "inner.after", "inner.release"),
        *("again.after", "again.release", "outer.after", "outer.release"),
    ]
    assert (stage.calls, result.tries, numbers) == (3, 3, [1, 2, 3])
    assert result.data == {"n": 3}


@pytest.mark.spec("30.11.6")
async def test_duration_is_that_of_the_try_inside_and_of_all_outside(
    autojump_clock: MockClock,
) -> None:
    async def pause(*args: Any) -> ErrorAction:
        await trio.sleep(5)
        return RETRY

    stage = Stage(LookupError(), None)
    inner, outer = Recorder("inner", priority=3), Recorder("outer", priority=1)

    async def both() -> Any:
        await trio.sleep(1)
        return await stage()

    await call(both, outer, Recorder("again", priority=2, on_error=pause), inner)

    assert [it.duration_ms for it in inner.results] == [1000, 1000]
    assert [it.duration_ms for it in outer.results] == [7000]
    assert outer.results[0].tries == 2


@pytest.mark.spec("30.11.6")
async def test_fallback_takes_the_place_of_a_failure() -> None:
    outer = Recorder("outer", priority=1)
    plan_b = Recorder("plan_b", on_error=answering(FALLBACK), fallback=answering({"n": 2}))

    result = await call(Stage(LookupError()), outer, plan_b)

    assert result.data == {"n": 2}
    assert outer.errors == []


@pytest.mark.spec("30.11.6")
async def test_fallback_that_raises_the_error_leaves_the_failure_as_it_is() -> None:
    output = StageOutput.fail("no", {"n": 1})

    result = await call(Stage(output), Recorder("plan_b", on_error=answering(FALLBACK)))

    assert result.output is output


async def test_without_a_fallback_of_its_own_the_failure_stands() -> None:
    class Asks(BaseInterceptor):
        name = "asks"

        async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> str:
            return "fallback"

    output = StageOutput.fail("no", {"n": 1})

    assert (await call(Stage(output), Asks())).output is output


async def test_impossible_fallback_fails_the_stage() -> None:
    plan_b = Recorder("plan_b", on_error=answering(FALLBACK), fallback=answering(42))

    result = await call(Stage(LookupError()), plan_b)

    assert result.error_type == "InterceptorError"


@pytest.mark.spec("30.11.7")
async def test_raising_from_on_error_transforms_the_error() -> None:
    original = LookupError("gone")
    outer = Recorder("outer", priority=1)

    result = await call(
        Stage(original), outer, Recorder("inner", on_error=raising(TransientError("soon")))
    )

    assert result.error == "soon"
    assert isinstance(outer.errors[0], TransientError)
    assert outer.errors[0].__cause__ is original


async def test_unknown_answer_of_on_error_fails_the_stage() -> None:
    result = await call(Stage(LookupError()), Recorder("inner", on_error=answering("ignore")))

    assert result.error_type == "InterceptorError"
    assert "'ignore'" in (result.error or "")


# What interceptors do wrong


@pytest.mark.spec("30.11.8", "30.11.2")
async def test_failing_before_fails_the_stage_and_is_released() -> None:
    trace: list[str] = []
    stage = Stage(None)
    outer = Recorder("outer", trace, priority=1)

    result = await call(stage, outer, Recorder("bad", trace, before=raising(LookupError("x"))))

    assert stage.calls == 0
    assert trace == [
        *("outer.before", "bad.before", "bad.release"),
        *("outer.on_error", "outer.after", "outer.release"),
    ]
    assert result.error_type == "InterceptorError"
    assert isinstance(outer.errors[0].__cause__, LookupError)
    assert str(outer.errors[0]) == "interceptor 'bad' failed in before: LookupError: x"


async def test_before_may_ask_to_cancel_the_run() -> None:
    bad = Recorder("bad", before=raising(StageCancellationRequested("closed")))

    assert (await call(Stage(None), bad)).output == StageOutput.cancel("closed")


@pytest.mark.spec("30.11.8")
async def test_failing_after_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    result = await call(Stage({"n": 1}), Recorder("bad", after=raising(LookupError())))

    assert result.data == {"n": 1}
    assert result.warnings == ("interceptor 'bad' failed in after: LookupError",)
    [record] = caplog.records
    assert (record.getMessage(), record.levelno) == ("interceptor_failed", logging.WARNING)
    assert vars(record)["interceptor"] == "bad"


@pytest.mark.spec("30.11.8")
async def test_impossible_output_of_after_is_a_warning() -> None:
    result = await call(Stage({"n": 1}), Recorder("bad", after=answering(42)))

    assert result.data == {"n": 1}
    assert len(result.warnings) == 1


async def test_output_of_after_replaces_the_outcome() -> None:
    outer = Recorder("outer", priority=1)

    result = await call(Stage(None), outer, Recorder("a", after=answering(StageOutput.fail("no"))))

    assert result.error == "no"
    assert isinstance(outer.errors[0], StageFailedError)


@pytest.mark.spec("30.11.3")
async def test_replaced_short_circuit_stays_one() -> None:
    answer = InterceptorResult(stage_ran=False, result={"n": 1})

    result = await call(
        Stage(None),
        Recorder("outer", priority=1, after=answering(StageOutput.ok(n=2))),
        Recorder("cache", before=answering(answer)),
    )

    assert (result.data, result.short_circuited_by) == ({"n": 2}, "cache")


@pytest.mark.spec("30.11.8")
@pytest.mark.parametrize("hook", ["before", "after", "on_error"])
@pytest.mark.parametrize("observer", [False, True])
async def test_critical_error_of_any_hook_fails_the_call(hook: str, observer: bool) -> None:
    critical = CriticalInterceptorError("a", hook, "broken")
    outer = Recorder(
        "outer", priority=1, on_error=answering(FALLBACK), after=answering(StageOutput.ok())
    )
    hooks: dict[str, Any] = {hook: raising(critical)}
    bad = Recorder("bad", observer=observer, **hooks)

    result = await call(Stage(LookupError()), outer, bad)

    assert (result.status, result.error_type) == ("failed", "CriticalInterceptorError")
    assert outer.errors == []


@pytest.mark.spec("30.11.8")
@pytest.mark.parametrize("hook", ["before", "after", "on_error", "release"])
async def test_errors_of_an_observer_are_isolated(hook: str) -> None:
    stage = Stage(LookupError("gone"))
    hooks: dict[str, Any] = {hook: raising(ValueError("mine"))}
    watching = Recorder("watching", observer=True, **hooks)

    result = await call(stage, watching)

    assert (stage.calls, result.error) == (1, "gone")
    assert result.warnings == (f"interceptor 'watching' failed in {hook}: ValueError: mine",)


@pytest.mark.spec("30.11.8")
async def test_answers_of_an_observer_are_ignored() -> None:
    watching = Recorder(
        "watching",
        observer=True,
        before=answering(InterceptorResult(stage_ran=False)),
        on_error=answering(RETRY),
        after=answering(StageOutput.ok()),
    )
    stage = Stage(LookupError("gone"))

    result = await call(stage, watching)

    assert (stage.calls, result.error, result.warnings) == (1, "gone", ())


@pytest.mark.spec("30.11.8")
@pytest.mark.parametrize("error", [ValueError("x"), CriticalInterceptorError("a", "b", "c")])
async def test_errors_in_release_are_isolated(error: Exception) -> None:
    trace: list[str] = []
    outer = Recorder("outer", trace, priority=1)

    result = await call(Stage({"n": 1}), outer, Recorder("bad", trace, release=raising(error)))

    assert result.data == {"n": 1}
    assert len(result.warnings) == 1
    assert trace[-2:] == ["outer.after", "outer.release"]


# Cancellation


@pytest.mark.spec("30.11.9", "W2")
async def test_cancellation_releases_inside_out_and_asks_nobody(autojump_clock: MockClock) -> None:
    trace: list[str] = []
    released: list[float] = []

    async def slowly(*args: Any) -> None:
        await trio.sleep(1)
        released.append(trio.current_time())

    outer = Recorder("outer", trace, priority=1, release=slowly)
    inner = Recorder("inner", trace, release=slowly)
    start = trio.current_time()

    with trio.move_on_after(2) as scope:
        await call(for_ever, outer, inner)

    assert scope.cancelled_caught
    assert trace == ["outer.before", "inner.before", "inner.release", "outer.release"]
    assert released == [start + 3, start + 4]


@pytest.mark.spec("30.11.9", "30.7.5")
async def test_release_that_hangs_is_given_up_and_leaves_time_for_the_others(
    autojump_clock: MockClock,
) -> None:
    trace: list[str] = []
    outer = Recorder("outer", trace, priority=1)
    inner = Recorder("inner", trace, release=for_ever)
    start = trio.current_time()

    result = await call(Stage({"n": 1}), outer, inner)

    # Half of the ten seconds that a clean-up may take.
    assert trio.current_time() == start + 5
    assert trace[-3:] == ["inner.release", "outer.after", "outer.release"]
    assert result.warnings == (
        "interceptor 'inner' failed in release: TimeoutError: not done after 5 s",
    )


@pytest.mark.spec("30.11.9")
async def test_error_raised_while_being_cancelled_asks_nobody(autojump_clock: MockClock) -> None:
    async def stage() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise TransientError("while leaving")

    again = Recorder("again", on_error=answering(RETRY))

    with trio.move_on_after(1):
        result = await call(stage, again)

    assert result.error == "while leaving"
    assert again.trace == ["again.before", "again.release"]


# The context


@pytest.mark.spec("30.11.10")
async def test_state_belongs_to_one_interceptor_and_one_call(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    def enter(ctx: Any) -> None:
        ctx.state["entered"] = len(seen)

    def leave(result: Any, ctx: Any) -> None:
        seen.append(ctx.state)

    one = Recorder("one", before=enter, after=leave)
    other = Recorder("other", after=lambda result, ctx: seen.append(ctx.state))

    async def stage() -> None:
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(call, stage, one, other)

    assert seen.count({}) == 2
    assert [state for state in seen if state] == [{"entered": 0}, {"entered": 0}]
    assert len({id(state) for state in seen}) == 4


@pytest.mark.spec("30.11.11")
async def test_observations_are_read_by_other_interceptors_of_the_run() -> None:
    ctx = PipelineContext()
    found: list[Any] = []
    writer = Recorder("writer", before=lambda c: c.add_observation("key", 1))
    reader = Recorder(
        "reader",
        before=lambda c: found.extend(
            [c.get_observation("key", interceptor="writer"), c.get_observation("key")]
        ),
    )

    await call(Stage(None), writer, ctx=ctx)
    await call(Stage(None), reader, ctx=ctx)

    assert found == [1, None]


@pytest.mark.spec("W53")
async def test_nothing_of_a_failed_try_is_carried_into_the_next() -> None:
    seen: list[Any] = []

    def enter(ctx: Any) -> None:
        seen.append((dict(ctx.state), ctx.get_observation("key")))
        ctx.state["key"] = 1
        ctx.add_observation("key", 1)

    again = Recorder("again", priority=1, on_error=answering(RETRY))

    await call(Stage(LookupError(), None), again, Recorder("inner", before=enter))

    assert seen == [({}, None), ({}, None)]


@pytest.mark.spec("W53", "30.11.11")
async def test_what_is_noted_outside_of_a_repetition_stays() -> None:
    seen: list[Any] = []
    again = Recorder(
        "again",
        priority=1,
        before=lambda ctx: ctx.add_observation("key", 1),
        on_error=answering(RETRY),
    )
    inner = Recorder(
        "inner", before=lambda ctx: seen.append(ctx.get_observation("key", interceptor="again"))
    )

    await call(Stage(LookupError(), None), again, inner)

    assert seen == [1, 1]


async def test_context_is_that_of_the_run_with_the_call_on_top() -> None:
    run = PipelineContext(topology="chat", data={"n": 1}, metadata={"m": 2}, user_id=None)
    seen: list[InterceptorContext] = []

    await call(Stage(None), Recorder("a", before=seen.append), ctx=run, kind=StageKind.WORK)

    [ctx] = seen
    assert isinstance(ctx, ExecutionContext)
    assert (ctx.stage_name, ctx.stage_kind, ctx.pipeline_name) == ("stage", "work", "chat")
    assert (ctx.pipeline_run_id, ctx.request_id, ctx.execution_mode) == (None, None, None)
    assert (ctx.data, ctx.metadata, ctx.get_metadata("m")) == ({"n": 1}, {"m": 2}, 2)
    assert (ctx.snapshot, ctx.attempt, ctx.has_sent) == (run.snapshot, 1, False)
    assert ctx.inputs.snapshot is run.snapshot
    assert ctx.to_dict() == run.to_dict()
    with pytest.raises(AttributeError):
        _ = ctx._data
    with pytest.raises(AttributeError):
        setattr(ctx, "data", {})  # noqa: B010 - a type checker would see it, too


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (None, None)]
)
async def test_impossible_limit_is_refused(limit: Any, error: Any) -> None:
    errors: list[type] = []

    def set_limit(ctx: Any) -> None:
        try:
            ctx.timeout_ms = limit
        except (TypeError, ValueError) as found:
            errors.append(type(found))

    await call(Stage(None), Recorder("a", before=set_limit))

    assert all(issubclass(found, error) for found in errors)
    assert bool(errors) is (error is not None)


async def test_warnings_of_interceptors_are_in_the_result() -> None:
    result = await call(Stage(None), Recorder("a", before=lambda ctx: ctx.add_warning("old key")))

    assert result.warnings == ("old key",)


# Beside


async def test_companion_runs_beside_what_is_inside(autojump_clock: MockClock) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(trio.current_time() - start)
            await trio.sleep(1)

    async def stage() -> Any:
        await trio.sleep(2.5)
        return {"n": 1}

    start = trio.current_time()
    result = await call(stage, Recorder("a", before=lambda ctx: ctx.run_beside(tick)))

    assert result.data == {"n": 1}
    assert ticks == [0, 1, 2]


async def test_error_of_a_companion_ends_the_call(autojump_clock: MockClock) -> None:
    trace: list[str] = []

    async def lose() -> None:
        await trio.sleep(1)
        raise TransientError("lost")

    owner = Recorder("owner", trace, priority=1, before=lambda ctx: ctx.run_beside(lose))

    result = await call(for_ever, owner, Recorder("inner", trace))

    assert result.error == "lost"
    assert trace == [
        *("owner.before", "inner.before", "inner.release"),
        *("owner.on_error", "owner.after", "owner.release"),
    ]


async def test_companion_runs_again_with_every_repetition(autojump_clock: MockClock) -> None:
    begun: list[float] = []

    async def companion() -> None:
        begun.append(trio.current_time())
        await trio.sleep_forever()

    owner = Recorder(
        "owner", before=lambda ctx: ctx.run_beside(companion), on_error=answering(RETRY)
    )

    steps = Stage(LookupError(), None)

    async def both() -> Any:
        await trio.sleep(1)
        return await steps()

    result = await call(both, owner)

    assert result.status == "completed"
    assert len(begun) == 2


# By hand


async def test_hooks_that_nobody_overrides_do_nothing() -> None:
    idle, ctx, error = BaseInterceptor(), PipelineContext(), LookupError()
    result = await call(Stage(None))

    await idle.before("stage", ctx)
    await idle.after("stage", result, ctx)
    await idle.release("stage", ctx)
    assert await idle.on_error("stage", error, ctx) is FAIL
    with pytest.raises(LookupError):
        await idle.fallback("stage", error, ctx)
    ended: Any = RetryInterceptor().ended
    assert await ended("stage", Outcome(StageOutput.ok()), 0.0, ctx) is None


# Configuration


@pytest.mark.spec("30.11.10")
def test_interceptor_may_be_anything_with_the_hooks() -> None:
    class Duck:
        name = "duck"

        async def before(self, stage_name: str, ctx: Any) -> None: ...
        async def after(self, stage_name: str, result: Any, ctx: Any) -> None: ...
        async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> str:
            return "fail"

    duck = Duck()

    assert ordered([duck]) == (duck,)
    assert compile_chains([duck], [StageSpec("a", Stage(None))])[0] is not None


async def test_duck_is_called() -> None:
    class Duck:
        name = "duck"

        async def before(self, stage_name: str, ctx: Any) -> InterceptorResult:
            return InterceptorResult(stage_ran=False, result={"quack": True})

        async def after(self, stage_name: str, result: Any, ctx: Any) -> None: ...
        async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> None: ...

    assert (await call(Stage(None), Duck())).data == {"quack": True}


def nameless() -> Any:
    interceptor: Any = Recorder("a")
    interceptor.name = None
    return interceptor


@pytest.mark.parametrize(
    ("interceptors", "text"),
    [
        ([object()], "lacks before, after, on_error"),
        ([nameless()], "lacks a name"),
        ([Recorder("a"), Recorder("b"), Recorder("a")], "two interceptors are called 'a'"),
    ],
)
def test_what_is_no_set_of_interceptors_is_refused(interceptors: Any, text: str) -> None:
    with pytest.raises(PipelineValidationError, match=text) as caught:
        ordered(interceptors)

    assert caught.value.code == "CONTRACT-004-OPTION"


@pytest.mark.spec("30.11.13")
def test_interceptor_may_refuse_a_graph() -> None:
    class Strict(BaseInterceptor):
        name = "strict"

        def check_graph(self, graph: object) -> None:
            raise LookupError(graph)

    with pytest.raises(LookupError, match="graph"):
        check_graph([Recorder("a"), Strict()], "graph")
    check_graph([Recorder("a")], "graph")


@pytest.mark.spec("30.11.14")
def test_stage_that_nothing_wraps_has_no_chain() -> None:
    class OnlyGuards(Recorder):
        def applies_to(self, stage_name: str, kind: StageKind) -> bool:
            return kind is StageKind.GUARD

    specs = [StageSpec("a", Stage(None)), StageSpec("b", Stage(None), kind=StageKind.GUARD)]

    assert compile_chains([], specs) == (None, None)
    assert compile_chains([BaseInterceptor()], specs) == (None, None)
    first, second = compile_chains([OnlyGuards("guards")], specs)
    assert (first is None, second is None) == (True, False)


def test_stages_and_kinds_say_what_is_wrapped() -> None:
    by_name = BaseInterceptor(stages=["a"])
    by_kind = BaseInterceptor(kinds=["work"])

    assert by_name.applies_to("a", StageKind.WORK)
    assert not by_name.applies_to("b", StageKind.WORK)
    assert by_kind.applies_to("b", StageKind.WORK)
    assert not by_kind.applies_to("b", StageKind.GUARD)


async def test_who_repeats_without_end_can_be_cancelled() -> None:
    class Stuck(BaseException):
        pass

    calls = 0

    def enter(ctx: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 10_000:
            raise Stuck
        raise LookupError

    async with trio.open_nursery() as nursery:
        again = Recorder("again", priority=1, on_error=answering(RETRY))
        nursery.start_soon(call, Stage(None), again, Recorder("locked", before=enter))
        await wait_until(lambda: calls > 100)
        nursery.cancel_scope.cancel()

    assert calls < 10_000


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_interceptor_need_not_call_the_initializer_of_its_base() -> None:
    class Thresholds(BaseInterceptor):
        def __init__(self, most: int) -> None:
            self.most = most

        async def after(self, stage_name: str, result: StageResult, ctx: Any) -> StageOutput:
            return StageOutput.ok(most=self.most)

    result = await call(Stage({}), Thresholds(3))

    assert result.output == StageOutput.ok(most=3)


async def test_status_of_the_result_follows_the_output() -> None:
    result = await call(lambda: StageOutput.skip("why"))

    assert (result.status, result.tries) == ("skipped", 1)
    assert result.output is not None
    assert result.output.status is StageStatus.SKIP


@pytest.mark.parametrize("status", StageStatus)
def test_outcome_and_result_have_the_same_status(status: StageStatus) -> None:
    output = StageOutput(status)
    moment = PipelineContext().created_at
    result = StageResult.from_output("stage", output, started_at=moment, ended_at=moment)

    assert Outcome(output).status == result.status


async def test_result_of_a_stage_may_be_handed_through() -> None:
    output = StageOutput.ok(n=1)

    result = await call(lambda: stage_result("completed", output=output))

    assert result.output is output
