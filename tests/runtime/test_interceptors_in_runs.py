"""Whole runs with interceptors: faults in hooks, work that counts once, circuits, checks."""

from __future__ import annotations

from itertools import product
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import (
    CriticalInterceptorError,
    IdempotencyParamMismatch,
    IdempotencyReentryError,
    ImmutabilityViolationError,
    StageCancellationRequested,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.interceptors import (
    BaseInterceptor,
    CircuitBreakerInterceptor,
    ContextSizeInterceptor,
    ErrorAction,
    IdempotencyInterceptor,
    ImmutabilityInterceptor,
    MetricsInterceptor,
    RetryInterceptor,
    RetryPolicy,
)
from actorflow.model import StageKind, StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, Pipeline, StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

from .stages import nothing, spec

ENDS = {"stage.completed", "stage.failed", "stage.skipped"}


def work(runner: Any, name: str = "charge", **options: Any) -> StageSpec:
    return spec(name, runner, kind=StageKind.WORK, **options)


@attrs.define
class Counting:
    """A stage that numbers its calls."""

    calls: int = 0
    takes: float = 0.0

    async def execute(self, ctx: StageContext) -> dict[str, int]:
        self.calls += 1
        n = self.calls
        await trio.sleep(self.takes)
        return {"n": n}


def keyed(key: str = "k", **data: Any) -> PipelineContext:
    return PipelineContext(data={"idempotency_key": key, **data})


# Faults


async def _crash() -> None:
    raise ValueError("crashed")


async def _crash_later() -> None:
    await trio.sleep(1)
    raise ValueError("crashed")


async def _critical() -> None:
    raise CriticalInterceptorError("faulty", "hook", "critical")


async def _cancel() -> None:
    raise StageCancellationRequested("enough")


async def _raise_while_leaving() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("while leaving")


FAULTS: dict[str, Any] = {
    "crash": _crash,
    "crash_later": _crash_later,
    "critical": _critical,
    "cancel": _cancel,
    "hang": trio.sleep_forever,
    "raise_while_leaving": _raise_while_leaving,
}
HOOKS = ("before", "after", "on_error", "fallback", "release")


class Faulty(BaseInterceptor):
    """Subclass of the tests: does `fault` in one hook, and counts who is inside of it."""

    name = "faulty"
    priority = 2

    def __init__(self, hook: str, fault: str) -> None:
        super().__init__()
        self.inside = 0
        self._hook = hook
        self._fault = FAULTS[fault]

    async def _at(self, hook: str) -> None:
        if hook == self._hook:
            await self._fault()

    async def before(self, stage_name: str, ctx: Any) -> None:
        self.inside += 1
        await self._at("before")

    async def after(self, stage_name: str, result: Any, ctx: Any) -> None:
        await self._at("after")

    async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> ErrorAction:
        await self._at("on_error")
        return ErrorAction.FALLBACK if self._hook == "fallback" else ErrorAction.FAIL

    async def fallback(self, stage_name: str, error: Exception, ctx: Any) -> StageOutput:
        await self._at("fallback")
        return StageOutput.ok()

    async def release(self, stage_name: str, ctx: Any) -> None:
        self.inside -= 1
        await self._at("release")


def assert_told_once(sink: RecordingEventSink, stages: set[str]) -> None:
    """Every stage that started has one end, and the run has one that comes last."""
    started = [it.data["stage"] for it in sink.events if it.type == "stage.started"]
    ended = [it.data["stage"] for it in sink.events if it.type in ENDS]
    assert sorted(ended) == sorted(set(ended))
    assert set(started) <= set(ended) <= stages
    ends = [it for it in sink.types() if it in {f"pipeline.{e}" for e in RUN_ENDS}]
    assert ends == [sink.types()[-1]]


RUN_ENDS = ("completed", "failed", "canceled")


@pytest.mark.spec("30.11.2", "30.11.8", "30.11.9", "30.3.1", "30.3.2", "30.1.1")
@pytest.mark.parametrize("mode", ["fail_fast", "continue_on_failure", "best_effort"])
@pytest.mark.parametrize(("hook", "fault"), [*product(HOOKS, FAULTS)])
async def test_fault_in_a_hook_of_a_run(
    hook: str, fault: str, mode: str, sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def fails(ctx: StageContext) -> None:
        await trio.sleep(0.5)
        raise LookupError("gone")

    async def takes_time(ctx: StageContext) -> None:
        await trio.sleep(2)

    faulty = Faulty(hook, fault)
    graph = UnifiedStageGraph(
        [spec("a", fails), spec("b", takes_time), spec("c", nothing, "b"), spec("d", nothing, "a")],
        interceptors=[faulty, MetricsInterceptor(), CircuitBreakerInterceptor()],
        failure_mode=mode,
        cleanup_timeout=1,
    )

    with trio.move_on_after(100):
        try:
            await graph.run(event_sink=sink)
        except (UnifiedStageExecutionError, UnifiedPipelineCancelled) as error:
            outcome = error.results
            assert set(outcome) <= {"a", "b", "c", "d"}

    assert faulty.inside == 0
    assert_told_once(sink, {"a", "b", "c", "d"})


@pytest.mark.spec("30.7.4", "30.11.9")
async def test_what_a_stage_raises_while_it_is_cancelled_is_kept(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(ctx: StageContext) -> None:
        await _raise_while_leaving()

    graph = UnifiedStageGraph(
        [spec("a", stubborn)], interceptors=[RetryInterceptor(5, retry_on=[Exception])]
    )

    with pytest.raises(UnifiedPipelineCancelled) as caught:
        async with graph.start() as run:
            await wait_all_tasks_blocked()
            run.cancel()

    assert [str(failure.exception) for failure in caught.value.failures] == ["while leaving"]


# Order of what is told


@pytest.mark.spec("30.13.7", "30.13.8", "30.3.3", "W47", "W49")
async def test_retries_of_work_are_told_between_start_and_end(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def busy(ctx: StageContext) -> StageOutput:
        return StageOutput.retry("busy")

    graph = UnifiedStageGraph([work(busy)], failure_mode="best_effort")

    results = await graph.run(event_sink=sink)

    assert sink.types() == [
        *("pipeline.started", "stage.started"),
        *("stage.retry_scheduled", "work.retry_attempt"),
        *("stage.retry_scheduled", "work.retry_attempt"),
        *("stage.retry_exhausted", "stage.failed", "pipeline.failed"),
    ]
    sink.assert_emitted("stage.failed", status="retry", tries=3, error="busy")
    [warning] = results.stage_results["charge"].warnings
    assert warning.startswith("gave up after 3 tries")


@pytest.mark.spec("W53", "30.13.5")
async def test_policy_of_the_stage_wins(autojump_clock: MockClock) -> None:
    class Patient:
        retry_policy = RetryPolicy(5, 10, jitter_strategy="none", retry_on=(LookupError,))
        tries: list[int] = []

        async def execute(self, ctx: StageContext) -> None:
            self.tries.append(ctx.try_number)
            raise LookupError("gone")

    with pytest.raises(UnifiedStageExecutionError):
        await UnifiedStageGraph([spec("a", Patient)]).run()

    assert Patient.tries == [1, 2, 3, 4, 5]


@pytest.mark.spec("30.13.11", "30.8.6")
async def test_waiting_for_the_next_try_holds_the_slot(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, float]] = []
    start = trio.current_time()
    retry = RetryInterceptor(2, jitter_strategy="none")

    async def fails_once(ctx: StageContext) -> None:
        seen.append(("a", trio.current_time() - start))
        if ctx.try_number == 1:
            raise TimeoutError

    async def other(ctx: StageContext) -> None:
        seen.append(("b", trio.current_time() - start))

    graph = UnifiedStageGraph(
        [spec("a", fails_once), spec("b", other)], interceptors=[retry], max_concurrency=1
    )
    await graph.run()

    assert seen == [("a", 0), ("a", 1), ("b", 1)]


# Work that counts once


@pytest.mark.spec("W9", "W15", "W17", "30.12.2")
async def test_pipeline_run_twice_with_one_key_does_its_work_once(
    sink: RecordingEventSink,
) -> None:
    charge, refund, plain = Counting(), Counting(), Counting()
    pipeline = Pipeline(
        "shop", [work(charge), work(refund, "refund"), spec("plain", plain, "charge")]
    )

    first = await pipeline.run(keyed())
    second = await pipeline.run(keyed(), event_sink=sink)

    assert (charge.calls, refund.calls, plain.calls) == (1, 1, 2)
    assert first.data("charge") == second.data("charge") == {"n": 1}
    report = second.stage_results["charge"]
    assert report.replayed
    assert report.original_run_id is not None
    assert (report.short_circuited_by, report.tries) == ("idempotency", 0)
    # It is told like every other call.
    assert [it.type for it in sink.events if it.data.get("stage") == "charge"] == [
        *("stage.started", "work.idempotency_hit", "stage.completed")
    ]


@pytest.mark.spec("W15", "W16", "W4")
async def test_of_overlapping_runs_one_does_the_work(autojump_clock: MockClock) -> None:
    charge = Counting(takes=3)
    graph = UnifiedStageGraph([work(charge)])
    found: list[Any] = []

    async def run(key: str) -> None:
        results = await graph.run(keyed(key))
        found.append((key, results.data("charge", "n")))

    async with trio.open_nursery() as nursery:
        for key in "aabbb":
            nursery.start_soon(run, key)

    assert charge.calls == 2
    assert len(set(found)) == 2


@pytest.mark.spec("W12")
async def test_repetition_for_a_guard_really_runs(autojump_clock: MockClock) -> None:
    charge = Counting()

    async def verdict(ctx: StageContext) -> StageOutput:
        n = ctx.inputs.get_from("charge", "n")
        return StageOutput.ok() if n == 2 else StageOutput.fail(f"not {n}")

    graph = UnifiedStageGraph(
        [work(charge), spec("guard", verdict, "charge", kind=StageKind.GUARD)],
        guard_retry_strategy=GuardRetryStrategy({"guard": GuardRetryPolicy("charge")}),
    )

    first = await graph.run(keyed())
    second = await graph.run(keyed())

    # A duplicate gets the same sequence: the rejected output, and then the good one.
    assert charge.calls == 2
    assert first.data("charge") == second.data("charge") == {"n": 2}


@pytest.mark.spec("W18", "W19")
async def test_cancelled_run_leaves_its_keys_free(autojump_clock: MockClock) -> None:
    charge = Counting(takes=10)
    graph = UnifiedStageGraph([work(charge)])

    with trio.move_on_after(1):
        await graph.run(keyed())
    results = await graph.run(keyed())

    assert results.data("charge") == {"n": 2}


@pytest.mark.spec("W26")
async def test_other_parameters_fail_the_run() -> None:
    graph = UnifiedStageGraph([work(Counting())], pipeline_name="shop")
    await graph.run(keyed(idempotency_params={"amount": 1}))

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await graph.run(keyed(idempotency_params={"amount": 2}))

    assert isinstance(caught.value.original, IdempotencyParamMismatch)


@pytest.mark.spec("W22", "W13")
async def test_child_that_waits_for_its_parent_fails_at_once(autojump_clock: MockClock) -> None:
    found: list[Any] = []
    once = IdempotencyInterceptor()

    async def outer(ctx: StageContext) -> None:
        graph = UnifiedStageGraph([work(nothing)], pipeline_name="shop", interceptors=[once])
        found.append(await graph.run(keyed()))

    async def main(ctx: StageContext) -> None:
        try:
            await outer(ctx)
        except UnifiedStageExecutionError as error:
            found.append(error.original)

    graph = UnifiedStageGraph([work(main)], pipeline_name="shop", interceptors=[once])
    await graph.run(keyed())

    assert [type(it) for it in found] == [IdempotencyReentryError]


@pytest.mark.spec("W29", "W21")
async def test_stage_is_told_its_key_and_fence(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    async def charge(ctx: StageContext) -> None:
        assert ctx.idempotency is not None
        seen.append((ctx.idempotency.key, ctx.idempotency.fence, ctx.idempotency.attempt))
        if len(seen) < 3:
            raise TimeoutError

    graph = UnifiedStageGraph(
        [work(charge)],
        interceptors=[IdempotencyInterceptor(), RetryInterceptor(2)],
        failure_mode="best_effort",
    )
    await graph.run(keyed())
    await graph.run(keyed())
    await graph.run(keyed("other"))

    keys = [key for key, _, _ in seen]
    assert keys[:3] == [keys[0]] * 3
    assert keys[3] != keys[0]
    assert len(keys[0]) == 64
    assert [fence for _, fence, _ in seen] == [1, 1, 2, 3]
    assert {attempt for _, _, attempt in seen} == {1}


# Circuits


@pytest.mark.spec("30.12.4", "30.12.5", "30.11.10")
async def test_circuit_lasts_as_long_as_the_pipeline(sink: RecordingEventSink) -> None:
    calls = 0

    async def down(ctx: StageContext) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError("refused")

    pipeline = Pipeline("chat", [spec("a", down)])
    errors: list[str] = []
    for _ in range(10):
        with pytest.raises(UnifiedStageExecutionError) as caught:
            await pipeline.run(event_sink=sink)
        errors.append(type(caught.value.original).__name__)

    assert calls == 5
    assert errors == ["ConnectionError"] * 5 + ["CircuitOpenError"] * 5
    sink.assert_emitted("work.circuit_opened", circuit="chat/a", stage="a", failures=5)
    sink.assert_emitted("stage.failed", status="fail", tries=0, code="RUN-009-CIRCUIT_OPEN")


@pytest.mark.spec("30.12.5")
async def test_cancelled_run_gives_its_probe_back(autojump_clock: MockClock) -> None:
    fails = True

    async def stage(ctx: StageContext) -> None:
        if fails:
            raise ConnectionError
        await trio.sleep(1)

    breaker = CircuitBreakerInterceptor(1, 5)
    graph = UnifiedStageGraph(
        [spec("a", stage)], interceptors=[breaker], failure_mode="best_effort"
    )
    await graph.run()
    await trio.sleep(5)
    fails = False
    with trio.move_on_after(0.5):
        await graph.run()

    results = await graph.run()

    assert results.ok("a")


# Checks


@attrs.define
class Profile:
    """An extension that somebody forgot to freeze."""

    name: str


@pytest.mark.spec("30.14.1", "30.14.2", "30.14.3", "30.14.5")
async def test_mutation_is_found_in_a_run(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def reads(ctx: StageContext) -> None:
        await trio.sleep(3)

    async def writes(ctx: StageContext) -> None:
        await trio.sleep(1)
        assert isinstance(ctx.snapshot.extensions, Profile)
        ctx.snapshot.extensions.name = "Bob"

    graph = UnifiedStageGraph(
        [spec("reads", reads), spec("writes", writes)], interceptors=[ImmutabilityInterceptor()]
    )

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await graph.run(PipelineContext(extensions=Profile("Ada")), event_sink=sink)

    violation = caught.value.original
    assert isinstance(violation, ImmutabilityViolationError)
    assert (violation.stage, violation.suspects) == ("writes", ("reads",))
    assert violation.changed == ("/extensions/name",)
    sink.assert_emitted("context.mutation_detected", stage="writes")


@pytest.mark.spec("30.14.2", "30.14.5", "W4")
async def test_runs_at_the_same_time_are_checked_apart(autojump_clock: MockClock) -> None:
    async def stage(ctx: StageContext) -> None:
        await trio.sleep(1)
        if ctx.snapshot.input_text == "bad":
            assert ctx.snapshot.extensions is not None
            ctx.snapshot.extensions.name = "Bob"
        await trio.sleep(1)

    graph = UnifiedStageGraph(
        [spec("a", stage), spec("b", nothing, "a")],
        interceptors=[ImmutabilityInterceptor(), ContextSizeInterceptor(1)],
        failure_mode="best_effort",
    )
    failed: dict[str, list[str]] = {}

    async def run(text: str) -> None:
        ctx = PipelineContext(input_text=text, extensions=Profile("Ada"))
        failed[text] = (await graph.run(ctx)).failed()

    async with trio.open_nursery() as nursery:
        for text in ("good", "bad", "fine"):
            nursery.start_soon(run, text)

    assert failed == {"good": [], "bad": ["a"], "fine": []}


@pytest.mark.spec("G87", "G88", "G90", "30.14.4")
async def test_outputs_of_dependencies_count_for_the_size(sink: RecordingEventSink) -> None:
    async def talks(ctx: StageContext) -> dict[str, str]:
        return {"text": "x" * 5000}

    graph = UnifiedStageGraph(
        [spec("talks", talks), spec("reads", nothing, "talks"), spec("apart", nothing)],
        interceptors=[ContextSizeInterceptor(4000)],
    )
    ctx = PipelineContext()

    await graph.run(ctx, event_sink=sink)

    assert [it["stage"] for it in sink.payloads("context.size_warning")] == ["reads"]
    assert ctx.metrics['context_size_bytes{stage="reads"}'] > 5000


# Everything at once

STEPS = st.sampled_from(["ok", "skip", "retry", "fail", "raise", "timeout", "slow"])


@pytest.mark.spec("30.11.10", "30.3.1", "30.3.2", "W4", "W20")
@given(
    st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=2, max_size=4),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.1, 9)), min_size=2, max_size=6),
)
@settings(max_examples=25)
def test_overlapping_runs_with_the_default_set(
    scripts: list[list[str]], runs: list[tuple[str, float]]
) -> None:
    async def step(what: str) -> StageOutput:
        match what:
            case "raise":
                raise TimeoutError
            case "slow":
                await trio.sleep(3)
            case "timeout":
                await trio.sleep_forever()
            case "skip":
                return StageOutput.skip("no need")
            case "retry":
                return StageOutput.retry("later")
            case "fail":
                return StageOutput.fail("no", retryable=True)
        return StageOutput.ok()

    def stage(script: list[str]) -> Any:
        async def run(ctx: StageContext) -> StageOutput:
            return await step(script[min(ctx.try_number, len(script)) - 1])

        return run

    async def main() -> None:
        names = [f"s{number}" for number in range(len(scripts))]
        graph = UnifiedStageGraph(
            [
                work(stage(script), name, timeout=4)
                for name, script in zip(names, scripts, strict=True)
            ],
            failure_mode="best_effort",
        )
        sinks: list[RecordingEventSink] = []

        async def run(key: str, patience: float) -> None:
            sinks.append(sink := RecordingEventSink(strict=True))
            with trio.move_on_after(patience):
                await graph.run(keyed(key), event_sink=sink)

        async with trio.open_nursery() as nursery:
            for key, patience in runs:
                nursery.start_soon(run, key, patience)

        for sink in sinks:
            assert_told_once(sink, set(names))
        [once] = [it for it in graph.interceptors if isinstance(it, IdempotencyInterceptor)]
        assert [r for r in once._own_store._records.values() if r.output is None] == []
        assert once._own_store._changes == {}

    trio.run(main, clock=MockClock(autojump_threshold=0))
