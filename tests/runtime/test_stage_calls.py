"""What a stage may be and return, conditions, and limits of time (30.4, 30.5, 30.8)."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import (
    InvalidArgumentError,
    PipelineValidationError,
    PredicateError,
    StageCancellationRequested,
    StageFailedError,
    StageTimeoutError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
    UnknownBranchError,
    UnsupportedResultError,
)
from actorflow.model import StageKind, StageOutput, StageStatus
from actorflow.pipeline import (
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    StageSpec,
    edge,
)
from actorflow.runtime import PipelineResults, UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext

from .stages import nothing, spec


async def outcome(*specs: StageSpec, **options: Any) -> PipelineResults:
    """The results of a run whose failures are no errors."""
    source = options.pop("source", None)
    return await UnifiedStageGraph(specs, failure_mode="best_effort", **options).run(source)


async def error_of(runner: Any, **options: Any) -> Exception:
    """What a stage that does not work leaves as the original error of its run."""
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph([spec("a", runner, **options)]).run()
    return caught.value.original


# What it returns


@pytest.mark.spec("30.4.1", "10.3.7")
@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (StageOutput.ok(n=1, version="2"), StageOutput.ok(n=1, version="2")),
        (StageOutput.skip("why"), StageOutput.skip("why")),
        ({"n": 1}, StageOutput.ok(n=1)),
        (None, StageOutput.ok()),
    ],
)
async def test_stage_returns_an_output_a_mapping_or_nothing(
    returned: Any, expected: StageOutput, autojump_clock: MockClock
) -> None:
    async def stage(ctx: StageContext) -> Any:
        return returned

    results = await outcome(spec("a", stage))

    assert results["a"] == expected.with_duration(0.0)


@pytest.mark.spec("30.4.1")
async def test_anything_else_fails_the_stage() -> None:
    async def stage(ctx: StageContext) -> Any:
        return 42

    error = await error_of(stage)

    assert isinstance(error, UnsupportedResultError)
    assert str(error) == "Stage a returned unsupported result type int"


@pytest.mark.spec("30.4.2", "30.6.1")
async def test_exception_fails_the_stage_with_its_text_or_name() -> None:
    async def with_text(ctx: StageContext) -> None:
        raise LookupError("no such key")

    async def without(ctx: StageContext) -> None:
        raise LookupError

    results = await outcome(spec("a", with_text), spec("b", without))

    assert (results["a"].error, results["a"].error_type) == ("no such key", "LookupError")
    assert results["b"].error == "LookupError"
    assert [f.error_type for f in results.failures] == ["LookupError", "LookupError"]


@pytest.mark.spec("30.4.2")
@pytest.mark.parametrize("interceptors", [None, ()])
async def test_cancellation_request_counts_as_a_cancel_output(interceptors: Any) -> None:
    async def stage(ctx: StageContext) -> None:
        raise StageCancellationRequested("out of money")

    with pytest.raises(UnifiedPipelineCancelled) as caught:
        await UnifiedStageGraph([spec("a", stage)], interceptors=interceptors).run()

    assert (caught.value.stage, caught.value.reason) == ("a", "out of money")
    assert caught.value.results["a"].status is StageStatus.CANCEL


@pytest.mark.spec("30.4.2")
@pytest.mark.parametrize("stopper", [KeyboardInterrupt, SystemExit])
async def test_what_stops_a_program_passes_through(stopper: type[BaseException]) -> None:
    cleaned = []

    async def stage(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append("cleaned"))
        raise stopper

    async def other(ctx: StageContext) -> None:
        await trio.sleep_forever()

    with pytest.raises(stopper):
        await UnifiedStageGraph([spec("a", stage), spec("b", other)]).run()

    assert cleaned == ["cleaned"]


@pytest.mark.spec("30.4.3")
async def test_duration_of_the_call_is_in_the_output(autojump_clock: MockClock) -> None:
    async def stage(ctx: StageContext) -> StageOutput:
        await trio.sleep(0.25)
        return StageOutput.ok().with_duration(7)

    results = await outcome(spec("a", stage))

    assert results["a"].duration_ms == 250.0
    assert results.stage_results["a"].duration_ms == 250.0
    took = results.stage_results["a"].ended_at - results.stage_results["a"].started_at
    assert took.total_seconds() == pytest.approx(0.25)


@pytest.mark.spec("30.4.4", "20.2.1")
async def test_class_is_made_anew_with_its_arguments_for_each_run() -> None:
    made = []

    class Greeter:
        kind = StageKind.ENRICH

        def __init__(self, greeting: str) -> None:
            made.append(self)
            self.greeting = greeting

        async def execute(self, ctx: StageContext) -> dict[str, Any]:
            return {"text": self.greeting, "config": ctx.config["greeting"], "kind": ctx.kind}

    graph = UnifiedStageGraph([spec("a", Greeter, args={"greeting": "hi"})])

    for _ in range(2):
        data = (await graph.run()).data("a")
        assert data == {"text": "hi", "config": "hi", "kind": StageKind.ENRICH}
    assert len(set(map(id, made))) == 2


@pytest.mark.spec("30.4.4")
async def test_exception_in_a_constructor_is_a_failure_of_the_stage() -> None:
    class Broken:
        def __init__(self) -> None:
            raise OSError("no device")

        async def execute(self, ctx: StageContext) -> None: ...

    assert str(await error_of(Broken)) == "no device"


@pytest.mark.spec("20.2.1")
async def test_objects_functions_and_what_is_called_like_them_are_stages() -> None:
    class Callable:
        async def __call__(self, ctx: StageContext) -> dict[str, str]:
            return {"name": ctx.stage_name}

    class Executes:
        async def execute(self, ctx: StageContext) -> dict[str, str]:
            return {"name": ctx.stage_name}

    async def with_option(option: int, ctx: StageContext) -> dict[str, str]:
        return {"name": ctx.stage_name}

    def sync(ctx: StageContext) -> dict[str, str]:
        return {"name": ctx.stage_name}

    runners = {
        "object": Executes(),
        "callable": Callable(),
        "class": Callable,
        "partial": functools.partial(with_option, 1),
        "sync": sync,
        "lambda": lambda ctx: with_option(1, ctx),
    }

    results = await outcome(*(spec(name, runner) for name, runner in runners.items()))

    assert {name: output.data["name"] for name, output in results.items()} == {
        name: name for name in runners
    }


@pytest.mark.spec("30.4.5")
async def test_retry_that_nobody_grants_becomes_a_failure_with_a_hint() -> None:
    async def stage(ctx: StageContext) -> StageOutput:
        return StageOutput.retry("busy", {"queue": 9})

    async def look(ctx: StageContext) -> dict[str, str]:
        output = ctx.inputs.get_output("a")
        assert output is not None
        return {"status": str(output.status)}

    results = await outcome(spec("a", stage), spec("look", look, "a"), interceptors=())

    assert results["a"].status is StageStatus.FAIL
    assert (results["a"].error, results["a"].data) == ("busy", {"queue": 9})
    assert results.data("look") == {"status": "fail"}
    assert results.failures[0].recoverable
    [warning] = results.stage_results["a"].warnings
    assert "RetryInterceptor" in warning


@pytest.mark.spec("30.4.6")
@pytest.mark.parametrize("interceptors", [None, ()])
async def test_group_of_one_counts_as_its_member_and_a_larger_one_stays_whole(
    interceptors: Any,
) -> None:
    async def one(ctx: StageContext) -> None:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [LookupError("it")])])

    async def two(ctx: StageContext) -> None:
        raise ExceptionGroup("both", [LookupError("it"), ValueError("that")])

    results = await outcome(spec("a", one), spec("b", two), interceptors=interceptors)

    single, error = (failure.exception for failure in results.failures)
    assert repr(single) == "LookupError('it')"
    assert isinstance(error, ExceptionGroup)
    assert len(error.exceptions) == 2


# Conditions and contracts, in a run


@pytest.mark.spec("30.5.1")
@pytest.mark.parametrize(("data", "skipped"), [({"skip_reason": "cached"}, True), ({}, False)])
async def test_conditional_stage_is_skipped_when_an_input_says_so(
    data: dict[str, str], skipped: bool
) -> None:
    async def first(ctx: StageContext) -> dict[str, str]:
        return data

    results = await outcome(spec("a", first), spec("b", nothing, "a", conditional=True))

    assert (results["b"].status is StageStatus.SKIP) == skipped
    if skipped:
        assert results["b"].data["reason"] == "cached"
        assert results.stage_results["b"].skipped_by == "conditional"


@pytest.mark.spec("30.5.2")
async def test_only_the_chosen_branch_runs() -> None:
    async def route(ctx: StageContext) -> dict[str, str]:
        return {"branch": "left"}

    results = await outcome(
        spec("route", route, kind="route"),
        spec("left", nothing, edge("route", when="left")),
        spec("right", nothing, edge("route", when="right")),
        spec("below", nothing, "right"),
        spec("merge", nothing, "left", "right"),
    )

    ran = [name for name, output in results.items() if output.status is StageStatus.OK]
    assert ran == ["route", "left", "merge"]


@pytest.mark.spec("30.5.3")
async def test_stage_that_returns_skip_lets_its_dependents_run() -> None:
    async def skip(ctx: StageContext) -> StageOutput:
        return StageOutput.skip("nothing new")

    results = await outcome(spec("a", skip), spec("b", nothing, "a"))

    assert results.stage_results["a"].skipped_by == "stage"
    assert results.ok("b")


@pytest.mark.spec("20.8.10")
async def test_router_that_chooses_an_unknown_branch_fails() -> None:
    async def route(ctx: StageContext) -> dict[str, str]:
        return {"branch": "middle"}

    results = await outcome(spec("route", route), spec("left", nothing, edge("route", when="left")))

    assert isinstance(results.failures[0].exception, UnknownBranchError)


@pytest.mark.spec("20.10.4")
async def test_declared_output_that_is_missing_fails_the_stage() -> None:
    error = await error_of(nothing, outputs=("text",))

    assert isinstance(error, PipelineValidationError)
    assert error.code == "CONTRACT-004-OUTPUT"


@pytest.mark.spec("20.8.11", "20.10.5")
async def test_broken_predicate_and_missing_input_fail_without_a_call() -> None:
    async def never(ctx: StageContext) -> None:
        pytest.fail("called")

    results = await outcome(
        spec("a", nothing),
        spec("b", never, "a", when=lambda inputs: inputs.get("missing")),
        spec("c", never, "a", inputs=("text",)),
    )

    broken, missing = (failure.exception for failure in results.failures)
    assert isinstance(broken, PredicateError)
    assert isinstance(missing, PipelineValidationError)


# Time


@pytest.mark.spec("30.8.1", "30.8.2")
@pytest.mark.parametrize(
    ("of_stage", "of_run", "of_pipeline", "seconds"),
    [
        (1.0, 2000, 3.0, 1),
        (None, 2000, 3.0, 2),
        (None, None, 3.0, 3),
        (math.inf, 2000, 3.0, None),
        (None, 0, 3.0, None),
        (None, -1, 3.0, None),
        (None, math.inf, 3.0, None),
        (None, None, None, None),
    ],
)
async def test_first_limit_that_is_set_counts(
    of_stage: float | None,
    of_run: float | None,
    of_pipeline: float | None,
    seconds: int | None,
    autojump_clock: MockClock,
) -> None:
    async def stage(ctx: StageContext) -> dict[str, float]:
        deadline = ctx.deadline
        await trio.sleep(100)
        return {"deadline": deadline}

    begun_at = trio.current_time()
    data = {} if of_run is None else {"_timeout_ms": of_run}
    results = await outcome(
        spec("a", stage, timeout=of_stage),
        stage_timeout=of_pipeline,
        source=PipelineContext(data=data),
    )

    if seconds is None:
        assert results.data("a") == {"deadline": math.inf}
        return
    assert trio.current_time() - begun_at == seconds
    error = results.failures[0].exception
    assert isinstance(error, StageTimeoutError)
    assert isinstance(error, TimeoutError)
    assert str(error) == f"Stage timed out after {seconds}000ms"
    assert (error.timeout, error.elapsed) == (seconds, seconds)
    assert results.stage_results["a"].timed_out


async def test_limit_of_the_run_that_is_no_number_fails_the_stage() -> None:
    results = await outcome(
        spec("a", nothing), source=PipelineContext(data={"_timeout_ms": "soon"})
    )

    assert "_timeout_ms must be milliseconds" in (results["a"].error or "")


@pytest.mark.spec("30.8.2")
async def test_expired_stage_is_awaited_and_what_it_raises_then_is_the_cause(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5)
                raise OSError("while tidying up")

    begun_at = trio.current_time()
    results = await outcome(spec("a", stubborn, timeout=1))

    assert trio.current_time() - begun_at == 6
    failure = results.failures[0]
    assert isinstance(failure.exception, OSError)


@pytest.mark.spec("30.8.2")
async def test_own_error_that_comes_with_the_expiry_is_the_cause_of_the_timeout(
    autojump_clock: MockClock,
) -> None:
    async def complain() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while tidying up")

    async def stage(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(complain)
            nursery.start_soon(trio.sleep_forever)

    results = await outcome(spec("a", stage, timeout=1))

    error = results.failures[0].exception
    assert isinstance(error, StageTimeoutError)
    assert "while tidying up" in repr(error.__cause__)


@pytest.mark.spec("30.8.3")
@pytest.mark.parametrize("error_type", [TimeoutError, trio.TooSlowError])
async def test_timeout_of_the_stage_itself_is_an_ordinary_error(
    error_type: type[Exception],
) -> None:
    async def stage(ctx: StageContext) -> None:
        raise error_type("mine")

    results = await outcome(spec("a", stage, timeout=5))

    assert type(results.failures[0].exception) is error_type
    assert not results.stage_results["a"].timed_out


@pytest.mark.spec("30.8.4")
async def test_running_try_can_be_given_more_time(autojump_clock: MockClock) -> None:
    async def stage(ctx: StageContext) -> dict[str, Any]:
        begun_at = trio.current_time()
        before = ctx.deadline - begun_at
        await trio.sleep(0.9)
        ctx.extend_timeout(2)
        after = ctx.deadline - begun_at
        await trio.sleep(1.9)
        return {"before": before, "after": after}

    results = await outcome(spec("a", stage, timeout=1))

    assert results.data("a") == {"before": 1, "after": pytest.approx(2.9)}


@pytest.mark.spec("30.8.4")
async def test_running_try_can_be_given_no_more_time(autojump_clock: MockClock) -> None:
    async def stage(ctx: StageContext) -> None:
        ctx.extend_timeout(0)
        await trio.lowlevel.checkpoint()

    results = await outcome(spec("a", stage, timeout=5))

    assert results.stage_results["a"].timed_out
    assert trio.current_time() == 0


@pytest.mark.spec("30.8.4")
async def test_without_a_limit_there_is_nothing_to_extend() -> None:
    async def stage(ctx: StageContext) -> dict[str, float]:
        ctx.extend_timeout(2)
        return {"deadline": ctx.deadline}

    async def negative(ctx: StageContext) -> None:
        ctx.extend_timeout(-1)

    results = await outcome(spec("a", stage), spec("b", negative))

    assert results.data("a") == {"deadline": math.inf}
    assert isinstance(results.failures[0].exception, InvalidArgumentError)


@pytest.mark.spec("30.8.5")
async def test_time_in_the_queue_does_not_count(autojump_clock: MockClock) -> None:
    async def stage(ctx: StageContext) -> None:
        await trio.sleep(0.9)

    results = await outcome(*(spec(f"s{i}", stage, timeout=1) for i in range(5)), max_concurrency=1)

    assert not results.failures


@pytest.mark.spec("30.8.6", "20.10.3")
async def test_no_more_stages_run_than_allowed(autojump_clock: MockClock) -> None:
    running = 0
    most = 0
    order = []

    async def stage(ctx: StageContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(ctx.stage_name)
        await trio.sleep(1)
        running -= 1

    begun_at = trio.current_time()
    await outcome(*(spec(f"s{i}", stage) for i in range(10)), max_concurrency=3)

    assert most == 3
    assert sorted(order[:3]) == ["s0", "s1", "s2"]
    assert order[-1] == "s9"
    assert trio.current_time() - begun_at == 4


# Context of a stage in a run


@pytest.mark.spec("10.12.1", "30.3.4")
async def test_context_of_a_stage_belongs_to_its_run() -> None:
    context = PipelineContext(input_text="hi", data={"k": 1}, ports=object())

    async def stage(ctx: StageContext) -> None:
        assert ctx.snapshot is context.snapshot
        assert (ctx.stage_name, ctx.attempt, ctx.try_number) == ("a", 1, 1)
        assert ctx.run_id == context.pipeline_run_id
        assert ctx.pipeline_name == "p"
        assert ctx.ports is context.ports
        assert ctx.data["k"] == 1
        assert ctx.bag is context.bag
        assert ctx.outputs is context.outputs
        assert ctx.guard_feedback == {}
        assert ctx.idempotency is None
        assert not ctx.is_cancelled

    results = await UnifiedStageGraph([spec("a", stage)], pipeline_name="p").run(context)

    assert results.ok("a")


@pytest.mark.spec("10.14.6")
async def test_what_a_repeated_stage_wrote_into_the_bag_is_discarded() -> None:
    async def write(ctx: StageContext) -> None:
        await ctx.bag.write("key", ctx.attempt, ctx.stage_name)

    async def check(ctx: StageContext) -> StageOutput:
        return StageOutput.ok() if ctx.attempt == 2 else StageOutput.fail("again")

    context = PipelineContext()
    graph = UnifiedStageGraph(
        [spec("write", write), spec("check", check, "write", kind="guard")],
        guard_retry_strategy=GuardRetryStrategy({"check": GuardRetryPolicy("write")}),
    )
    await graph.run(context)

    assert context.bag.read("key") == 2


@pytest.mark.spec("30.9.7", "30.9.8")
async def test_retry_stage_hears_why_and_its_dependents_see_the_new_output() -> None:
    async def write(ctx: StageContext) -> dict[str, str]:
        feedback = ctx.guard_feedback.get("check")
        if feedback is None:
            return {"text": "darn"}
        assert feedback.previous_output is not None
        assert (feedback.error, feedback.attempt) == ("rude", 1)
        return {"text": feedback.previous_output.data["text"].replace("darn", "dear")}

    async def check(ctx: StageContext) -> StageOutput:
        rude = ctx.inputs.get("text") == "darn"
        return StageOutput.fail("rude") if rude else StageOutput.ok()

    async def speak(ctx: StageContext) -> dict[str, Any]:
        return {"said": ctx.inputs.get("text")}

    pipeline = Pipeline(
        "p",
        [
            spec("write", write),
            spec("check", check, "write", kind="guard"),
            spec("speak", speak, "write"),
        ],
        guard_retry_strategy=GuardRetryStrategy({"check": GuardRetryPolicy("write")}),
    )
    results = await pipeline.run()

    assert results.data("speak") == {"said": "dear"}
    assert results.failures == ()


def test_failed_output_stands_behind_its_error() -> None:
    output = StageOutput.fail("no")
    error = StageFailedError("a", "no", output)

    assert (str(error), error.output) == ("no", output)
