"""Circuit breakers (30.12.4-30.12.6)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock

from actorflow.errors import CircuitOpenError, InvalidArgumentError
from actorflow.interceptors import (
    CircuitBreakerInterceptor,
    CircuitBreakerState,
    InterceptorResult,
    RetryInterceptor,
    run_with_interceptors,
)
from actorflow.interceptors._circuit import TABLE, Circuit, Ended, Phase, Rules
from actorflow.model import StageOutput
from actorflow.stages import PipelineContext, StageResult
from actorflow.testing import RecordingEventSink

from .recording import Recorder, Stage, answering, for_ever

ERROR = LookupError("gone")


async def call(
    stage: Any, *interceptors: Any, sink: RecordingEventSink | None = None, name: str = "stage"
) -> StageResult:
    ctx = PipelineContext(topology="chat", event_sink=sink or RecordingEventSink(strict=True))
    return await run_with_interceptors(name, stage, ctx, interceptors)


@pytest.mark.spec("30.12.5")
async def test_of_ten_failing_calls_five_reach_the_stage() -> None:
    stage, breaker = Stage(ERROR), CircuitBreakerInterceptor()

    results = [await call(stage, breaker) for _ in range(10)]

    assert stage.calls == 5
    assert [it.error_type for it in results] == ["LookupError"] * 5 + ["CircuitOpenError"] * 5
    assert {it.status for it in results} == {"failed"}
    assert [it.short_circuited_by for it in results[4:6]] == [None, "circuit_breaker"]
    assert results[-1].error is not None
    assert results[-1].error.startswith("'stage' was not called: it failed 5 times in a row")


@pytest.mark.spec("30.12.5")
async def test_error_of_a_refused_call_says_when_the_next_is_possible(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreakerInterceptor(1)
    outer = Recorder("outer", priority=1)
    await call(Stage(ERROR), breaker)
    await trio.sleep(10)

    await call(Stage(None), outer, breaker)

    [error] = outer.errors
    assert isinstance(error, CircuitOpenError)
    assert (error.name, error.operation, error.provider) == ("chat/stage", "chat", "stage")
    assert (error.failures, error.retry_after) == (1, 20)


@pytest.mark.spec("30.12.5", "30.12.6")
async def test_probe_closes_or_opens_anew(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink(strict=True)
    breaker = CircuitBreakerInterceptor(2, 30)
    stage = Stage(ERROR, ERROR, ERROR, None, ERROR)
    phases: list[str] = []

    for pause in (0, 0, 29.5, 0.5, 29.5, 0.5, 0):
        await trio.sleep(pause)
        await call(stage, breaker, sink=sink)
        phases.append(str(breaker.state.get("chat", "stage")))

    assert phases == ["closed", "open", "open", "open", "open", "closed", "closed"]
    assert stage.calls == 5
    assert sink.types() == [
        *("work.circuit_opened", "work.circuit_rejected"),
        *("work.circuit_half_open", "work.circuit_opened", "work.circuit_rejected"),
        *("work.circuit_half_open", "work.circuit_closed"),
    ]
    sink.assert_emitted(
        "work.circuit_opened",
        circuit="chat/stage",
        stage="stage",
        failures=2,
        reset_after_seconds=30,
    )
    sink.assert_emitted("work.circuit_closed", failures=0)


@pytest.mark.spec("30.12.5")
async def test_half_open_lets_a_few_probes_through_and_refuses_the_others(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreakerInterceptor(1, 1, half_open_max_calls=2)
    await call(Stage(ERROR), breaker)
    await trio.sleep(1)
    results: list[StageResult] = []

    async def slow() -> None:
        await trio.sleep(1)

    async def probe() -> None:
        results.append(await call(slow, breaker))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(probe)

    assert sorted(it.status for it in results) == ["completed"] * 2 + ["failed"] * 3
    assert breaker.state.get("chat", "stage") == "closed"


@pytest.mark.spec("30.12.5", "W2")
async def test_cancelled_probe_gives_its_place_back(autojump_clock: MockClock) -> None:
    breaker = CircuitBreakerInterceptor(1, 1)
    await call(Stage(ERROR), breaker)
    await trio.sleep(1)
    with trio.move_on_after(1):
        await call(for_ever, breaker)
    assert breaker.state.get("chat", "stage") == "half_open"

    result = await call(Stage(None), breaker)

    assert result.status == "completed"


@pytest.mark.spec("30.12.4")
async def test_only_failures_in_a_row_count() -> None:
    breaker = CircuitBreakerInterceptor(2)
    stage = Stage(ERROR, None, ERROR, None, ERROR, ERROR)

    for _ in range(6):
        await call(stage, breaker)

    assert stage.calls == 6
    assert breaker.state.get("chat", "stage") == "open"


@pytest.mark.spec("30.12.4")
async def test_whole_call_counts_once(autojump_clock: MockClock) -> None:
    breaker = CircuitBreakerInterceptor(2)
    stage = Stage(StageOutput.retry("later"))

    await call(stage, breaker, RetryInterceptor(3))
    assert breaker.state.get("chat", "stage") == "closed"
    await call(stage, breaker, RetryInterceptor(3))

    assert breaker.state.get("chat", "stage") == "open"
    assert stage.calls == 6


@pytest.mark.spec("30.12.4")
@pytest.mark.parametrize(
    ("step", "counts"),
    [
        (ERROR, True),
        (StageOutput.retry(), True),
        (StageOutput.retry(retryable=False), False),
        (StageOutput.fail("no", retryable=True), True),
        (StageOutput.fail("no"), False),
        (StageOutput.skip(), False),
        (StageOutput.cancel(), False),
    ],
)
async def test_what_counts_as_a_failure(step: Any, counts: bool) -> None:
    breaker = CircuitBreakerInterceptor(2)
    stage = Stage(ERROR, step)

    await call(stage, breaker)
    await call(stage, breaker)

    # What does not count does not reset the count either.
    assert breaker.state.circuit("chat", "stage").failures == (2 if counts else 1)


@pytest.mark.spec("30.12.4")
async def test_timeout_counts(autojump_clock: MockClock) -> None:
    def limit(ctx: Any) -> None:
        ctx.timeout_ms = 1

    breaker = CircuitBreakerInterceptor(1)

    await call(for_ever, breaker, Recorder("limit", before=limit))

    assert breaker.state.get("chat", "stage") == "open"


@pytest.mark.spec("30.12.4")
async def test_plain_failures_count_on_request() -> None:
    breaker = CircuitBreakerInterceptor(1, count_fail_outputs=True)

    await call(Stage(StageOutput.fail("no")), breaker)

    assert breaker.state.get("chat", "stage") == "open"


@pytest.mark.spec("30.12.4")
async def test_short_circuit_inside_neither_counts_nor_resets() -> None:
    breaker = CircuitBreakerInterceptor(2)
    await call(Stage(ERROR), breaker)

    for error in (None, "no"):
        answer = InterceptorResult(stage_ran=False, result={}, error=error)
        await call(Stage(None), breaker, Recorder("cache", before=answering(answer)))

    assert breaker.state.circuit("chat", "stage").failures == 1


@pytest.mark.spec("30.12.4")
async def test_each_stage_has_a_circuit_of_its_own() -> None:
    breaker = CircuitBreakerInterceptor(1)

    await call(Stage(ERROR), breaker, name="a")

    assert [breaker.state.get("chat", name) for name in "ab"] == ["open", "closed"]
    assert breaker.state.get("other", "a") == "closed"


@pytest.mark.spec("30.12.6")
async def test_state_may_be_shared() -> None:
    state = CircuitBreakerState()
    stage = Stage(ERROR)

    await call(stage, CircuitBreakerInterceptor(1, state=state))
    await call(stage, CircuitBreakerInterceptor(1, state=state))

    assert stage.calls == 1


@pytest.mark.spec("30.12.6", "W6")
async def test_state_keeps_what_is_open_and_forgets_the_rest_first() -> None:
    breaker = CircuitBreakerInterceptor(2, max_keys=2)
    await call(Stage(ERROR), breaker, name="open")
    await call(Stage(ERROR), breaker, name="open")
    for name in ("a", "b"):
        await call(Stage(ERROR), breaker, name=name)

    assert len(breaker.state) == 2
    assert breaker.state.get("chat", "open") == "open"
    assert breaker.state.circuit("chat", "a").failures == 0
    assert breaker.state.circuit("chat", "b").failures == 1

    state = CircuitBreakerState(max_keys=1)
    for name in ("a", "b"):
        state.put("chat", name, Circuit(Phase.OPEN))
    assert (len(state), state.get("chat", "b")) == (1, "open")


@pytest.mark.spec("30.12.6")
async def test_state_forgets_what_was_used_least_recently() -> None:
    breaker = CircuitBreakerInterceptor(9, max_keys=2)

    for name in "abac":
        await call(Stage(ERROR), breaker, name=name)

    assert [breaker.state.circuit("chat", name).failures for name in "abc"] == [2, 0, 1]


async def test_untroubled_stage_leaves_no_trace() -> None:
    breaker = CircuitBreakerInterceptor()

    await call(Stage(None), breaker)

    assert len(breaker.state) == 0


@pytest.mark.spec("30.11.12")
async def test_hooks_can_be_called_by_hand() -> None:
    breaker = CircuitBreakerInterceptor(1)
    ctx = PipelineContext(topology="chat")
    result = await run_with_interceptors("stage", Stage(ERROR), ctx, [])

    assert await breaker.before("stage", ctx) is None
    assert await breaker.on_error("stage", ERROR, ctx) == "fail"
    assert "_interceptor.circuit_breaker.stage" in ctx.data
    await breaker.after("stage", result, ctx)
    await breaker.release("stage", ctx)

    assert breaker.state.get("chat", "stage") == "open"
    assert ctx.data == {}
    refused = await breaker.before("stage", ctx)
    assert refused is not None
    assert isinstance(refused.error, CircuitOpenError)


@pytest.mark.parametrize(
    "options",
    [
        *({"failure_threshold": 0}, {"reset_timeout": 0}, {"half_open_max_calls": 0}),
        {"max_keys": 0},
    ],
)
def test_impossible_options_are_refused(options: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        CircuitBreakerInterceptor(**options)


# The table


def test_every_phase_can_be_left() -> None:
    assert {phase for phase, _ in TABLE} == set(Phase)


RULES = Rules(failure_threshold=2, reset_timeout=10.0, half_open_max_calls=2)


class Breaking(RuleBasedStateMachine):
    """Calls come and go in any order; the model is what the rules say in words."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.under_way: list[int] = []

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        before = self.circuit
        self.circuit, is_admitted = before.admitted(self.now, RULES)
        if before.phase is Phase.CLOSED:
            assert is_admitted
        if before.phase is Phase.OPEN:
            assert is_admitted is (self.now >= before.changed_at + RULES.reset_timeout)
        if is_admitted:
            self.under_way.append(self.circuit.era)

    @precondition(lambda self: self.under_way)
    @rule(how=st.sampled_from(Ended), which=st.integers(0, 100))
    def end(self, how: Ended, which: int) -> None:
        before = self.circuit
        era = self.under_way.pop(which % len(self.under_way))
        self.circuit = before.settled(how, era, self.now, RULES)
        if era != before.era:
            assert self.circuit is before
        elif how is Ended.WELL:
            assert (self.circuit.phase, self.circuit.failures) == (Phase.CLOSED, 0)
        elif how is Ended.BADLY:
            assert self.circuit.failures == before.failures + 1

    @invariant()
    def probes_are_those_under_way(self) -> None:
        circuit = self.circuit
        current = self.under_way.count(circuit.era)
        if circuit.phase is Phase.HALF_OPEN:
            assert circuit.probes == current <= RULES.half_open_max_calls
        else:
            assert circuit.probes == 0

    @invariant()
    def closed_means_below_the_threshold(self) -> None:
        if self.circuit.phase is Phase.CLOSED:
            assert self.circuit.failures < RULES.failure_threshold


TestBreaking = Breaking.TestCase
TestBreaking.settings = settings(max_examples=40, stateful_step_count=30)
