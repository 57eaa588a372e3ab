"""Trying again (30.13, 80.4)."""

from __future__ import annotations

import math
from collections.abc import Collection
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import (
    CircuitOpenError,
    CriticalInterceptorError,
    InvalidArgumentError,
    InvalidTypeError,
    RateLimitError,
    RefusedError,
    ServiceUnavailableError,
    StageFailedError,
    StageRetryRequested,
    StageTimeoutError,
    TransientError,
    WorkInDoubtError,
)
from actorflow.interceptors import (
    ErrorAction,
    RetryInterceptor,
    RetryPolicy,
    get_default_interceptors,
    run_with_interceptors,
)
from actorflow.interceptors._retry_policy import Again, Decision, GiveUp, decide
from actorflow.model import StageKind, StageOutput
from actorflow.stages import PipelineContext, StageResult
from actorflow.testing import RecordingEventSink

from .recording import Recorder, Stage, for_ever

PLAIN: dict[str, Any] = {"jitter_strategy": "none"}
CIRCUIT_OPEN = CircuitOpenError("p/a", "p", "a", 5, 1.0)


async def call(
    stage: Any, *interceptors: Any, kind: StageKind = StageKind.TRANSFORM
) -> tuple[StageResult, RecordingEventSink]:
    sink = RecordingEventSink(strict=True)
    ctx = PipelineContext(event_sink=sink)
    result = await run_with_interceptors("stage", stage, ctx, interceptors, kind=kind)
    return result, sink


def failed(**fields: Any) -> StageFailedError:
    output = StageOutput.fail("no", **fields)
    return StageFailedError("stage", "no", output)


def wants(**fields: Any) -> StageRetryRequested:
    output = StageOutput.retry("later", **fields)
    return StageRetryRequested("stage", "later", output)


# What is tried again


@pytest.mark.spec("30.13.3", "30.13.4", "W45")
@pytest.mark.parametrize(
    "error",
    [
        *(TransientError(), RateLimitError(), ServiceUnavailableError()),
        *(TimeoutError(), trio.TooSlowError(), ConnectionResetError(), OSError()),
        *(trio.BrokenResourceError(), StageTimeoutError("stage", 1, 1)),
        *(failed(retryable=True), wants()),
        ExceptionGroup("both", [TransientError(), OSError()]),
    ],
    ids=repr,
)
def test_what_may_work_the_next_time_is_tried_again(error: Exception) -> None:
    assert decide(RetryPolicy(base_delay_ms=0), error, failures=1) == Again(0)


@pytest.mark.spec("30.13.3", "30.13.4", "W45", "W46")
@pytest.mark.parametrize(
    "error",
    [
        *(ValueError(), LookupError(), failed(), wants(retryable=False)),
        *(FileNotFoundError(), FileExistsError(), PermissionError()),
        *(IsADirectoryError(), NotADirectoryError()),
        ExceptionGroup("both", [TransientError(), ValueError()]),
    ],
    ids=repr,
)
def test_what_will_fail_again_is_not(error: Exception) -> None:
    assert decide(RetryPolicy(), error, failures=1) is None


@pytest.mark.spec("30.13.3", "W46")
@pytest.mark.parametrize(
    "error",
    [
        *(CriticalInterceptorError("a", "after", "x"), CIRCUIT_OPEN, RefusedError()),
        *(WorkInDoubtError("k", "p/a", "then"), failed()),
        ExceptionGroup("both", [TransientError(), CIRCUIT_OPEN]),
    ],
    ids=repr,
)
def test_refusals_are_not_tried_again_whatever_is_asked_for(error: Exception) -> None:
    assert decide(RetryPolicy(retry_on=Exception), error, failures=1) is None


@pytest.mark.spec("30.13.3")
def test_outputs_that_ask_for_it_can_be_left_alone() -> None:
    policy = RetryPolicy()

    assert decide(policy, wants(), failures=1, statuses=()) is None
    assert decide(policy, failed(retryable=True), failures=1, statuses=()) is not None


# When


@pytest.mark.spec("30.13.1", "30.13.2")
def test_delays_grow_until_the_attempts_are_used_up() -> None:
    policy = RetryPolicy(max_attempts=4, jitter_strategy="none")

    found = [decide(policy, TransientError(), failures=n) for n in (1, 2, 3, 4)]

    assert found == [Again(1000), Again(2000), Again(4000), GiveUp("max_attempts")]


@pytest.mark.spec("30.13.6", "W50")
@pytest.mark.parametrize(
    ("error", "delay_ms"),
    [
        (RateLimitError("slow down", 2.5), 2500),
        (RateLimitError("slow down", 60), 60_000),
        (ServiceUnavailableError("down", 0.5), 1000),
        (ServiceUnavailableError("down", math.inf), 1000),
        (wants(retry_after_ms=4000), 4000),
        (failed(retryable=True, data={"retry_after_ms": 4000}), 4000),
        (failed(retryable=True, data={"retry_after_ms": "soon"}), 1000),
        (ExceptionGroup("both", [RateLimitError("x", 3), RateLimitError("x", 4)]), 4000),
    ],
    ids=repr,
)
def test_what_the_service_asks_for_is_a_lower_bound(error: Exception, delay_ms: int) -> None:
    policy = RetryPolicy(jitter_strategy="none", max_delay_ms=1000)

    assert decide(policy, error, failures=1) == Again(delay_ms)


@pytest.mark.spec("W50")
def test_wait_that_ends_too_late_is_not_begun() -> None:
    policy = RetryPolicy(jitter_strategy="none", max_elapsed_ms=1500)
    error = TransientError()

    assert decide(policy, error, failures=1, elapsed_ms=500) == Again(1000)
    assert decide(policy, error, failures=1, elapsed_ms=501) == GiveUp("max_elapsed")
    assert decide(policy, error, failures=1, time_left_ms=1001) == Again(1000)
    assert decide(policy, error, failures=1, time_left_ms=1000) == GiveUp("deadline")


@pytest.mark.spec("30.13.10", "W48")
def test_stage_that_has_sent_something_is_not_repeated() -> None:
    assert decide(RetryPolicy(), wants(), failures=1, has_sent=True) == GiveUp("stream_started")
    assert decide(RetryPolicy(), ValueError(), failures=1, has_sent=True) is None


@pytest.mark.spec("30.13.1", "W52")
@given(
    st.integers(1, 50),
    st.sampled_from(["exponential", "linear", "constant"]),
    st.sampled_from(["none", "full", "equal", "decorrelated"]),
    st.integers(0, 10_000),
    st.integers(0, 100_000),
    st.integers(),
)
@settings(max_examples=50)
def test_delay_stays_within_bounds_and_follows_the_dice(
    failures: int, strategy: Any, jitter: Any, base: int, cap: int, seed: int
) -> None:
    policy = RetryPolicy(51, base, cap, strategy, jitter)

    def draw() -> Decision:
        return decide(policy, TransientError(), failures=failures, random=Random(seed))

    found = draw()

    assert isinstance(found, Again)
    assert 0 <= found.delay_ms <= cap
    assert draw() == found


# In a chain


@pytest.mark.spec("30.13.2", "30.13.7", "30.13.8", "W44", "W49")
async def test_stage_that_always_fails_runs_as_often_as_allowed(autojump_clock: MockClock) -> None:
    stage = Stage(TransientError("down"))
    start = trio.current_time()

    result, sink = await call(stage, RetryInterceptor(5, **PLAIN))

    assert stage.calls == 5
    assert trio.current_time() - start == 1 + 2 + 4 + 8
    assert (result.error, result.error_type, result.tries) == ("down", "TransientError", 5)
    assert result.warnings == ("gave up after 5 tries in 15 s: max_attempts",)
    assert sink.types() == ["stage.retry_scheduled"] * 4 + ["stage.retry_exhausted"]
    scheduled = sink.payloads("stage.retry_scheduled")
    assert [(it["attempt"], it["delay_ms"]) for it in scheduled] == [
        *((1, 1000), (2, 2000), (3, 4000), (4, 8000))
    ]
    assert {it["error"] for it in scheduled} == {"down"}
    assert {it["backoff_strategy"] for it in scheduled} == {"exponential"}
    sink.assert_emitted("stage.retry_exhausted", stage="stage", attempts=5, error="down")


@pytest.mark.spec("30.13.2", "30.13.8", "W49")
async def test_single_attempt_is_exhausted_at_once() -> None:
    stage = Stage(TransientError())

    _, sink = await call(stage, RetryInterceptor(1))

    assert stage.calls == 1
    assert sink.types() == ["stage.retry_exhausted"]
    sink.assert_emitted("stage.retry_exhausted", error="temporary failure")


@pytest.mark.spec("W49")
async def test_success_ends_the_tries(autojump_clock: MockClock) -> None:
    stage = Stage(TransientError(), TransientError(), {"n": 1})

    result, sink = await call(stage, RetryInterceptor(5))

    assert (result.data, result.tries) == ({"n": 1}, 3)
    assert sink.types() == ["stage.retry_scheduled"] * 2


@pytest.mark.spec("30.13.3", "30.13.8", "W48")
@pytest.mark.parametrize(
    "output",
    [StageOutput.retry("later", {"n": 1}), StageOutput.fail("no", {"n": 1}, retryable=True)],
)
async def test_last_output_stands_with_its_data(
    output: StageOutput, autojump_clock: MockClock
) -> None:
    result, sink = await call(Stage(output), RetryInterceptor(2))

    assert result.output is output
    assert sink.types() == ["stage.retry_scheduled", "stage.retry_exhausted"]


@pytest.mark.spec("30.13.3", "30.8.5", "W44")
async def test_timeouts_are_tried_again_each_with_the_full_limit(
    autojump_clock: MockClock,
) -> None:
    def limit(ctx: Any) -> None:
        ctx.timeout_ms = 500

    start = trio.current_time()

    result, _ = await call(
        for_ever, Recorder("limit", before=limit), RetryInterceptor(2, 100, **PLAIN)
    )

    assert (result.timed_out, result.tries) == (True, 2)
    assert trio.current_time() - start == pytest.approx(0.5 + 0.1 + 0.5)


@pytest.mark.spec("30.13.8")
async def test_failure_that_is_not_retryable_emits_nothing(autojump_clock: MockClock) -> None:
    stage = Stage(TransientError(), ValueError("no"))

    result, sink = await call(stage, RetryInterceptor(5))

    assert (result.error, stage.calls) == ("no", 2)
    assert sink.types() == ["stage.retry_scheduled"]


@pytest.mark.spec("30.13.7", "W47")
async def test_work_reports_the_next_try_when_it_begins(autojump_clock: MockClock) -> None:
    seen: list[tuple[float, str]] = []
    sink = RecordingEventSink(strict=True)
    start = trio.current_time()

    async def stage() -> Any:
        seen.extend((trio.current_time() - start, it) for it in sink.types())
        sink.events.clear()
        return await steps()

    steps = Stage(TransientError("x"), None)
    ctx = PipelineContext(event_sink=sink)

    await run_with_interceptors(
        "charge", stage, ctx, [RetryInterceptor(**PLAIN)], kind=StageKind.WORK
    )

    assert seen == [(1, "stage.retry_scheduled"), (1, "work.retry_attempt")]


@pytest.mark.spec("W47")
async def test_retry_of_work_is_told_with_number_delay_and_error(
    autojump_clock: MockClock,
) -> None:
    stage = Stage(TransientError("x"), None)

    _, sink = await call(stage, RetryInterceptor(**PLAIN), kind=StageKind.WORK)

    sink.assert_emitted("work.retry_attempt", stage="stage", attempt=2, delay_ms=1000, error="x")


@pytest.mark.spec("30.13.9")
async def test_events_carry_the_common_keys(autojump_clock: MockClock) -> None:
    _, sink = await call(Stage(TransientError()), RetryInterceptor(2))

    assert sink.types() == ["stage.retry_scheduled", "stage.retry_exhausted"]
    for event in sink.events:
        assert {"pipeline_run_id", "request_id", "execution_mode", "seq", "timestamp"} <= set(
            event.data
        )


@pytest.mark.spec("30.13.9", "W51")
async def test_cancelled_delay_emits_nothing_more(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink(strict=True)
    stage = Stage(TransientError())
    ctx = PipelineContext(event_sink=sink)

    async def cancelled(task_status: Any) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await run_with_interceptors(
                "stage", stage, ctx, [RetryInterceptor(**PLAIN)], kind=StageKind.WORK
            )

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(cancelled)
        await trio.sleep(0.5)
        scope.cancel()
        cancelled_at = trio.current_time()
    assert trio.current_time() == cancelled_at

    assert stage.calls == 1
    assert sink.types() == ["stage.retry_scheduled"]


@pytest.mark.spec("W50", "W48")
async def test_deadline_of_the_run_ends_the_tries_at_once(autojump_clock: MockClock) -> None:
    start = trio.current_time()

    with trio.move_on_after(2.5):
        result, sink = await call(Stage(TransientError("x")), RetryInterceptor(9, **PLAIN))

    assert trio.current_time() - start == 1
    assert result.error == "x"
    assert sink.types() == ["stage.retry_scheduled", "stage.retry_exhausted"]


@pytest.mark.spec("W50")
async def test_elapsed_time_ends_the_tries(autojump_clock: MockClock) -> None:
    retry = RetryInterceptor(9, max_elapsed_ms=3500, **PLAIN)

    result, _ = await call(Stage(TransientError("x")), retry)

    assert result.tries == 3


@pytest.mark.spec("30.13.2", "W4")
async def test_delays_of_one_call_do_not_depend_on_another(autojump_clock: MockClock) -> None:
    retry = RetryInterceptor(3, jitter_strategy="decorrelated", random=Random(1))
    sinks: list[RecordingEventSink] = []

    async def one() -> None:
        _, sink = await call(Stage(TransientError(), TransientError(), None), retry)
        sinks.append(sink)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)

    for sink in sinks:
        first, second = sink.payloads("stage.retry_scheduled")
        assert 1000 <= first["delay_ms"] <= 3000
        assert 1000 <= second["delay_ms"] <= first["delay_ms"] * 3
        assert (first["attempt"], second["attempt"]) == (1, 2)


@pytest.mark.spec("30.13.1", "30.13.2")
async def test_each_delay_goes_on_from_the_one_before(autojump_clock: MockClock) -> None:
    options: dict[str, Any] = {"base_delay_ms": 100, "jitter_strategy": "decorrelated"}

    _, sink = await call(Stage(TransientError()), RetryInterceptor(6, random=Random(7), **options))

    dice, delays = Random(7), [100]
    for _ in range(5):
        delays.append(dice.randint(100, max(100, delays[-1] * 3)))
    assert [it["delay_ms"] for it in sink.payloads("stage.retry_scheduled")] == delays[1:]


@pytest.mark.spec("30.13.5")
async def test_default_set_repeats_only_what_asks_for_it(autojump_clock: MockClock) -> None:
    raises, asks = Stage(TransientError()), Stage(StageOutput.retry(), None)

    await call(raises, *get_default_interceptors())
    await call(asks, *get_default_interceptors())

    assert (raises.calls, asks.calls) == (1, 2)


# By hand


@pytest.mark.spec("30.13.11", "30.11.12")
async def test_on_error_waits_and_says_what_follows(autojump_clock: MockClock) -> None:
    retry = RetryInterceptor(2, **PLAIN)
    ctx = PipelineContext(data={"own": 1})
    start = trio.current_time()

    first = await retry.on_error("stage", TransientError(), ctx)
    assert "_interceptor.retry.stage" in ctx.data
    second = await retry.on_error("stage", TransientError(), ctx)

    assert (first, second) == (ErrorAction.RETRY, ErrorAction.FAIL)
    assert trio.current_time() - start == 1
    assert ctx.data == {"own": 1}
    assert await retry.on_error("stage", ValueError(), ctx) == ErrorAction.FAIL


@pytest.mark.spec("30.11.12")
async def test_after_ends_what_on_error_began(autojump_clock: MockClock) -> None:
    retry = RetryInterceptor(2, **PLAIN)
    ctx = PipelineContext()
    result = await run_with_interceptors("stage", Stage(None), ctx, [])

    for _ in range(3):
        assert await retry.on_error("stage", TransientError(), ctx) == ErrorAction.RETRY
        await retry.after("stage", result, ctx)

    assert ctx.data == {}


# Configuration


@pytest.mark.spec("30.13.3")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_attempts": 0}, InvalidArgumentError, "max_attempts"),
        ({"max_attempts": 1.5}, InvalidTypeError, "max_attempts"),
        ({"base_delay_ms": -1}, InvalidArgumentError, "base_delay_ms"),
        ({"max_delay_ms": -1}, InvalidArgumentError, "max_delay_ms"),
        ({"max_delay_ms": "1"}, InvalidTypeError, "max_delay_ms"),
        ({"backoff_strategy": "cubic"}, InvalidArgumentError, "exponential, linear, constant"),
        ({"jitter_strategy": "much"}, InvalidArgumentError, "none, full, equal, decorrelated"),
        ({"retry_on": [42]}, InvalidTypeError, "retry_on"),
        ({"never_retry_on": [int]}, InvalidTypeError, "never_retry_on"),
        ({"max_elapsed_ms": 0}, InvalidArgumentError, "max_elapsed_ms"),
        ({"retry_on_status": ("ok",)}, InvalidArgumentError, "retry_on_status"),
    ],
)
def test_impossible_options_are_refused(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        RetryInterceptor(**options)


def test_name_and_place_are_fixed() -> None:
    retry = RetryInterceptor(stages=["a"], kinds=["work"])

    assert (retry.name, retry.priority, retry.observer) == ("retry", 15, False)
    assert retry.applies_to("a", StageKind.WORK)
    assert not retry.applies_to("b", StageKind.WORK)


def test_statuses_may_be_any_collection() -> None:
    empty: Collection[str] = frozenset()

    RetryInterceptor(retry_on_status=empty)


@pytest.mark.spec("W52")
def test_full_jitter_is_uniform() -> None:
    policy = RetryPolicy(base_delay_ms=99, max_delay_ms=99)
    dice = Random(1)
    draws = [decide(policy, TransientError(), failures=1, random=dice) for _ in range(10_000)]

    buckets = [0] * 10
    for found in draws:
        assert isinstance(found, Again)
        buckets[found.delay_ms // 10] += 1

    # Nine degrees of freedom, p = 0.001.
    assert sum((count - 1000) ** 2 / 1000 for count in buckets) < 27.9
