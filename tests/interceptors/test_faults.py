"""Faults at each await of a call: every hook of every layer crashes, hangs or is cancelled.

Whatever happens, a call has exactly one outcome or passes the cancellation on, what was
entered is released from the inside out, and nothing is left claimed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import CriticalInterceptorError, StageCancellationRequested, TransientError
from actorflow.interceptors import (
    CircuitBreakerInterceptor,
    ErrorAction,
    IdempotencyInterceptor,
    InterceptorResult,
    RetryInterceptor,
    TracingInterceptor,
    get_default_interceptors,
    run_with_interceptors,
)
from actorflow.model import StageKind, StageOutput
from actorflow.stages import PipelineContext, StageResult
from actorflow.stores import InMemoryIdempotencyStore

from .recording import Recorder

HOOKS = ("before", "on_error", "after", "release", "fallback")
LAYERS = ("outer", "middle", "inner")


class Stopped(BaseException):
    """What ends a program, and is nobody's to catch."""


async def _crash(*args: Any) -> Any:
    raise ValueError("crashed")


async def _crash_later(*args: Any) -> Any:
    await trio.sleep(1)
    raise ValueError("crashed")


async def _critical(*args: Any) -> Any:
    raise CriticalInterceptorError("x", "y", "critical")


async def _hang(*args: Any) -> Any:
    await trio.sleep_forever()


async def _stop(*args: Any) -> Any:
    raise Stopped


async def _group(*args: Any) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash)
        nursery.start_soon(_crash_later)


async def _raise_while_leaving(*args: Any) -> Any:
    try:
        await trio.sleep_forever()
    finally:
        raise TransientError("while leaving")


FAULTS = {
    "crash": _crash,
    "crash_later": _crash_later,
    "critical": _critical,
    "hang": _hang,
    "stop": _stop,
    "group": _group,
    "raise_while_leaving": _raise_while_leaving,
}


@attrs.define
class Call:
    """What became of a call, as its invariants see it."""

    trace: list[str]
    result: StageResult | None = None
    cancelled: bool = False
    stopped: bool = False

    @property
    def endings(self) -> int:
        return (self.result is not None) + (self.cancelled or self.stopped)


async def carried_out(stage: Any, layers: list[Recorder], trace: list[str]) -> Call:
    """Make a call that is cancelled after a minute."""
    call = Call(trace)
    with trio.move_on_after(60) as scope:
        try:
            call.result = await run_with_interceptors("stage", stage, PipelineContext(), layers)
        except Stopped:
            call.stopped = True
        except BaseExceptionGroup as group:
            stopped, others = group.split(Stopped)
            call.stopped = stopped is not None
            if others is not None:
                raise others from None
    call.cancelled = scope.cancelled_caught
    return call


def broken_rules(call: Call) -> Iterator[str]:
    """What does not hold of a call that must hold of each."""
    if call.endings != 1:
        yield f"{call.endings} endings"
    inside: list[str] = []
    for entry in call.trace:
        layer, _, hook = entry.partition(".")
        if hook == "before":
            inside.append(layer)
        elif hook == "release":
            if not inside or inside[-1] != layer:
                yield f"{layer} was released while inside {inside}"
            inside = [it for it in inside if it != layer]
        elif layer not in inside:
            yield f"{entry} outside of its layer"
    if inside:
        yield f"{inside} were never released"


def layers_with(trace: list[str], faults: dict[tuple[str, str], Any]) -> list[Recorder]:
    return [
        Recorder(
            name,
            trace,
            priority=number,
            **{
                "on_error": lambda *args: ErrorAction.FAIL,
                **{hook: fault for (layer, hook), fault in faults.items() if layer == name},
            },
        )
        for number, name in enumerate(LAYERS)
    ]


@pytest.mark.spec("30.11.2", "30.11.8", "30.11.9", "W2")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("layer", LAYERS)
async def test_fault_in_a_hook(
    layer: str, hook: str, fault: str, autojump_clock: MockClock
) -> None:
    for stage_fails in (False, True):
        trace: list[str] = []
        faults: dict[tuple[str, str], Any] = {(layer, hook): FAULTS[fault]}
        if hook == "fallback":
            faults[layer, "on_error"] = lambda *args: ErrorAction.FALLBACK

        async def stage() -> Any:
            await trio.sleep(1)
            if stage_fails:  # noqa: B023 - it is called in this turn of the loop
                raise LookupError("gone")

        call = await carried_out(stage, layers_with(trace, faults), trace)

        assert list(broken_rules(call)) == []


@pytest.mark.spec("30.11.5", "30.11.9", "W2")
@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_in_the_stage(fault: str, autojump_clock: MockClock) -> None:
    trace: list[str] = []

    call = await carried_out(FAULTS[fault], layers_with(trace, {}), trace)

    assert list(broken_rules(call)) == []


@pytest.mark.spec("30.11.9", "W2")
@pytest.mark.parametrize("seconds", range(12))
async def test_cancellation_at_any_moment(seconds: int, autojump_clock: MockClock) -> None:
    trace: list[str] = []
    calls = 0

    async def slow(*args: Any) -> None:
        await trio.sleep(1)

    async def again(error: Exception, ctx: Any) -> ErrorAction:
        await trio.sleep(1)
        return ErrorAction.RETRY if calls == 1 else ErrorAction.FAIL

    async def stage() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(1)
        raise LookupError("gone")

    layers = [
        Recorder("outer", trace, priority=1, before=slow, after=slow, release=slow, on_error=again),
        Recorder("inner", trace, priority=2, before=slow, after=slow, release=slow),
    ]
    call = Call(trace)

    with trio.move_on_after(seconds + 0.5) as scope:
        call.result = await run_with_interceptors("stage", stage, PipelineContext(), layers)
    call.cancelled = scope.cancelled_caught

    assert list(broken_rules(call)) == []


@pytest.mark.spec("30.11.9", "W2")
async def test_program_that_stops_during_a_release_releases_the_others(
    autojump_clock: MockClock,
) -> None:
    trace: list[str] = []
    faults = {("inner", "release"): _stop, ("middle", "release"): _stop}

    call = await carried_out(_hang, layers_with(trace, faults), trace)

    assert call.stopped
    assert trace[-3:] == ["inner.release", "middle.release", "outer.release"]


def answer_instead(*args: Any) -> InterceptorResult:
    return InterceptorResult(stage_ran=False)


@pytest.mark.spec("30.11.2", "30.11.6", "30.11.9")
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(LAYERS), st.sampled_from(HOOKS)),
        st.sampled_from(
            [
                *FAULTS.values(),
                answer_instead,
                lambda *args: StageOutput.fail("replaced"),
                lambda *args: ErrorAction.FALLBACK,
            ]
        ),
        max_size=5,
    ),
    st.lists(st.sampled_from([*FAULTS.values(), None]), max_size=3),
    st.floats(0, 5),
)
@settings(max_examples=100)
def test_faults_in_any_combination(
    faults: dict[tuple[str, str], Any], steps: list[Any], deadline: float
) -> None:
    async def main() -> None:
        trace: list[str] = []
        script = iter(steps)

        async def stage() -> Any:
            await trio.sleep(1)
            step = next(script, None)
            return None if step is None else await step()

        async def retry_twice(*args: Any) -> ErrorAction:
            return ErrorAction.RETRY if trace.count("middle.on_error") < 3 else ErrorAction.FAIL

        repeated: dict[tuple[str, str], Any] = {("middle", "on_error"): retry_twice, **faults}
        layers = layers_with(trace, repeated)
        # What was raised beside the cancellation comes out beside it.
        with suppress(ExceptionGroup), trio.move_on_after(deadline):
            # Its own minute is longer, so this one ends it.
            await carried_out(stage, layers, trace)
        inside = list(broken_rules(Call(trace, cancelled=True)))
        # Who answers instead of letting the call in is not released.
        answering = [layer for layer in LAYERS if faults.get((layer, "before")) is answer_instead]
        assert [it for it in inside if not any(layer in it for layer in answering)] == []

    trio.run(main, clock=MockClock(autojump_threshold=0))


# The shipped ones


class Spans:
    """A tracer that counts."""

    def __init__(self) -> None:
        self.open = 0

    def start_span(self, name: str, *, attributes: Any) -> Spans:
        self.open += 1
        return self

    def record_exception(self, exception: BaseException) -> None: ...

    def end(self) -> None:
        self.open -= 1


@pytest.mark.spec("W2", "W19", "W20", "30.12.2", "30.12.5", "30.12.7")
@pytest.mark.parametrize(
    ("hook", "fault", "seconds"),
    [*product((*HOOKS[:4], "stage"), FAULTS, (0.5, 45))],
)
async def test_nothing_stays_claimed(
    hook: str, fault: str, seconds: float, autojump_clock: MockClock
) -> None:
    store, spans = InMemoryIdempotencyStore(), Spans()
    breaker = CircuitBreakerInterceptor(1, 10)
    inner: dict[str, Any] = {} if hook == "stage" else {hook: FAULTS[fault]}
    interceptors = [
        IdempotencyInterceptor(store, lease_seconds=1e6),
        breaker,
        RetryInterceptor(2),
        TracingInterceptor(spans),
    ]

    async def failing() -> None:
        raise LookupError("gone")

    async def stage() -> Any:
        await trio.sleep(0.2)
        if hook == "stage":
            return await FAULTS[fault]()
        raise TransientError("soon")

    async def once(what: Any, *more: Any) -> None:
        ctx = PipelineContext(data={"idempotency_key": "k"})
        chain = [*interceptors, *more]
        await run_with_interceptors("stage", what, ctx, chain, kind=StageKind.WORK)

    await once(failing)
    await trio.sleep(10)
    with trio.move_on_after(seconds):
        # What stops the program passes, alone or in a group.
        with suppress(Stopped, BaseExceptionGroup):
            await once(stage, Recorder("inner", **inner))

    assert spans.open == 0
    assert [record.state for record in store._records.values() if record.output is None] == []
    assert store._changes == {}
    # Whatever became of the probe, there is room for the next one in time.
    assert breaker.state.circuit("pipeline", "stage").probes == 0


@pytest.mark.spec("30.11.9", "30.4.2")
async def test_request_to_cancel_passes_every_default_interceptor() -> None:
    async def stage() -> None:
        raise StageCancellationRequested("enough")

    result = await run_with_interceptors(
        "stage", stage, PipelineContext(), get_default_interceptors()
    )

    assert result.output == StageOutput.cancel("enough")
