"""Faults that are put around methods and stages from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow import Pipeline, StageContext, stage
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.events import BackpressureAwareEventSink, EventSink, TeeEventSink
from actorflow.interceptors import (
    BaseInterceptor,
    IdempotencyInterceptor,
    RetryInterceptor,
    RetryPolicy,
)
from actorflow.pipeline import StageSpec
from actorflow.stores import InMemoryIdempotencyStore
from actorflow.testing import (
    Fails,
    Fault,
    Hangs,
    Lags,
    RecordingEventSink,
    SwallowsCancel,
    faulty,
    with_faults,
)

RETRY = RetryInterceptor(
    5, base_delay_ms=1000, backoff_strategy="constant", jitter_strategy="none", retry_on=[OSError]
)


@stage
async def fetch(ctx: StageContext) -> dict[str, int]:
    await trio.sleep(0.5)
    return {"tries": ctx.try_number}


@stage(after="fetch", config={"loud": True})
class Shout:
    def __init__(self, loud: bool) -> None:
        self.loud = loud

    def execute(self, ctx: StageContext) -> dict[str, bool]:
        return {"loud": self.loud}


PIPELINE = Pipeline.from_stages(fetch, Shout, name="greeting")


class Service:
    """Something that has methods of both kinds."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def ask(self, number: int, *, times: int = 1) -> int:
        await trio.sleep(1)
        self.calls.append(number)
        return number * times

    def look(self) -> int:
        self.calls.append(0)
        return len(self.calls)


# Methods


async def test_method_fails_at_the_call_that_was_named(autojump_clock: MockClock) -> None:
    service = Service()
    fault = Fails(OSError("down"), calls=2)
    broken = faulty(service, ask=fault)

    assert await broken.ask(1) == 1
    with trio.testing.assert_checkpoints(), pytest.raises(OSError, match="down"):
        await broken.ask(2)
    assert await broken.ask(3, times=2) == 6
    assert service.calls == [1, 3]
    assert fault.happened == 1


async def test_answer_may_be_lost_after_the_call(autojump_clock: MockClock) -> None:
    service = Service()
    broken = faulty(service, ask=Fails(OSError, after=True), look=Fails(OSError, after=True))

    with pytest.raises(OSError):
        await broken.ask(1)
    with pytest.raises(OSError):
        broken.look()

    assert service.calls == [1, 0]


def test_methods_that_cannot_wait_can_fail() -> None:
    broken = faulty(Service(), look=Fails(lambda: LookupError("where"), calls=(1, 3)))

    with pytest.raises(LookupError, match="where"):
        broken.look()
    assert broken.look() == 1
    with pytest.raises(LookupError):
        broken.look()


async def test_hanging_ends_by_cancellation_alone(autojump_clock: MockClock) -> None:
    service = Service()

    with trio.move_on_after(3600) as scope:
        await faulty(service, ask=Hangs()).ask(1)

    assert scope.cancelled_caught
    assert service.calls == []


async def test_lagging_is_slow(autojump_clock: MockClock) -> None:
    assert await faulty(Service(), ask=Lags(5)).ask(1) == 1
    assert trio.current_time() == 6


async def test_swallowed_cancel_is_found_at_the_next_checkpoint(autojump_clock: MockClock) -> None:
    broken = faulty(Service(), ask=SwallowsCancel())

    assert await broken.ask(1) == 1
    with trio.move_on_after(0.5) as scope:
        answer = await broken.ask(2)
        assert answer is None
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_first_fault_that_is_due_happens(autojump_clock: MockClock) -> None:
    broken = faulty(Service(), ask=[Lags(2, calls=range(2, 4)), Fails(OSError, calls=3), Lags(7)])

    await broken.ask(1)
    assert trio.current_time() == 8
    await broken.ask(2)
    await broken.ask(3)
    assert trio.current_time() == 14


async def test_thing_with_faults_passes_for_the_thing() -> None:
    recorded = RecordingEventSink()
    sink = faulty(recorded, emit=Fails(OSError))

    assert isinstance(sink, RecordingEventSink)
    assert isinstance(sink, EventSink)
    assert sink.events is recorded.events
    sink.events = []
    assert recorded.events == []
    assert sink.try_emit(type="a", data=None)
    recorded.assert_emitted("a")


async def test_fault_of_ones_own(autojump_clock: MockClock) -> None:
    class Twice(Fault):
        async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
            await call()
            return await call()

    service = Service()
    await faulty(service, ask=Twice()).ask(1)

    assert service.calls == [1, 1]


def test_faults_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="must be methods of a Service, found 'asc'"):
        faulty(Service(), asc=Hangs())
    with pytest.raises(InvalidArgumentError, match="look must be Fails, because the method cannot"):
        faulty(Service(), look=[Fails(OSError), Hangs()])
    for calls in (0, [], [1, 0], "1", [1.5]):
        with pytest.raises(InvalidArgumentError, match="calls must be numbers of calls from 1 on"):
            Hangs(calls=calls)  # type: ignore[arg-type]
    for seconds in (-1, float("inf"), "1"):
        with pytest.raises(InvalidArgumentError, match="seconds must be zero or more seconds"):
            Lags(seconds)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="error must be an exception, or a class"):
        Fails("down")  # type: ignore[arg-type]
    # Otherwise the stage would fail all right, but for the wrong reason.
    for no_fault in (Fails, OSError(), [OSError()], "down"):
        with pytest.raises(InvalidTypeError, match="faults must be a Fault such as"):
            with_faults(PIPELINE, {"fetch": no_fault})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgumentError, match="of stages among 'fetch', 'Shout'"):
        with_faults(PIPELINE, {"fetsch": Hangs()})


def test_fault_of_ones_own_says_what_goes_wrong() -> None:
    class Nothing(Fault):
        pass

    with pytest.raises(TypeError, match="around"):
        Nothing()  # type: ignore[abstract]


def test_methods_need_no_signature() -> None:
    with pytest.raises(OSError, match="full"):
        faulty({"a": 1}, pop=Fails(OSError("full"))).pop("a")


async def test_what_returns_a_coroutine_can_wait(autojump_clock: MockClock) -> None:
    service = Service()

    class Door:
        def open(self) -> Coroutine[Any, Any, int]:
            return service.ask(1)

    assert await faulty(Door(), open=Lags(2)).open() == 1
    assert trio.current_time() == 3


# Stages


async def test_stage_fails_until_it_does_not(autojump_clock: MockClock) -> None:
    fault = Fails(ConnectionError("down"), calls=(1, 2))

    results = await with_faults(PIPELINE, {"fetch": fault}).run(interceptors=[RETRY])

    assert results.data("fetch") == {"tries": 3}
    assert results.data("Shout") == {"loud": True}
    assert fault.happened == 2
    assert PIPELINE.get_stage("fetch") == Pipeline.from_stages(fetch).get_stage("fetch")


async def test_each_run_counts_its_own_calls(autojump_clock: MockClock) -> None:
    broken = with_faults(PIPELINE, {"fetch": Fails(OSError, calls=1)})
    tries: list[int] = []

    async def run() -> None:
        results = await broken.run(interceptors=[RETRY])
        tries.append(results.data("fetch")["tries"])

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run)
    await run()

    assert tries == [2] * 4


async def test_class_runners_and_plain_functions_have_faults_too(
    autojump_clock: MockClock,
) -> None:
    results = await with_faults(PIPELINE, {"Shout": Lags(10)}).run()

    assert results.data("Shout") == {"loud": True}
    assert trio.current_time() == 10.5


async def test_stage_with_faults_is_configured_as_before(autojump_clock: MockClock) -> None:
    seen = []

    class Look(BaseInterceptor):
        async def before(self, stage_name: str, ctx: Any) -> None:
            seen.append((ctx.runner.label, issubclass(ctx.runner, Shouter), ctx.config))

    class Shouter:
        __slots__ = ("loud",)
        label = "!"

        def __init__(self, loud: bool) -> None:
            self.loud = loud

        async def execute(self, ctx: StageContext) -> dict[str, Any]:
            return {"loud": self.loud, "config": ctx.config}

    pipeline = Pipeline("loud", [StageSpec("shout", Shouter, args={"loud": True})])
    fault = Lags(1, calls=1)
    results = await with_faults(pipeline, {"shout": fault}).run(interceptors=[Look()])

    assert results.data("shout") == {"loud": True, "config": {"loud": True}}
    assert seen == [("!", True, {"loud": True})]
    assert fault.happened == 1


async def test_stage_with_faults_keeps_its_own_policy(autojump_clock: MockClock) -> None:
    class Patient:
        name = "patient"
        retry_policy = RetryPolicy(3, 1000, jitter_strategy="none", retry_on=LookupError)

        async def execute(self, ctx: StageContext) -> dict[str, int]:
            return {"tries": ctx.try_number}

    broken = with_faults(Pipeline.from_stages(Patient()), {"patient": Fails(LookupError, calls=1)})

    assert (await broken.run()).data("patient") == {"tries": 2}


async def test_hanging_stage_is_ended_by_its_limit(autojump_clock: MockClock) -> None:
    with pytest.raises(UnifiedStageExecutionError, match="fetch"):
        await with_faults(PIPELINE, {"fetch": Hangs()}).run(stage_timeout=3)

    assert trio.current_time() == 3


async def test_stage_that_swallows_its_cancel_does_not_save_its_run(
    autojump_clock: MockClock,
) -> None:
    fault = SwallowsCancel()
    with pytest.raises(UnifiedPipelineCancelled) as caught:
        async with with_faults(PIPELINE, {"fetch": fault}).start() as run:
            await trio.sleep(0.1)
            run.cancel("enough")
            await run.wait()

    assert fault.happened == 1
    assert list(caught.value.results) == ["fetch"]
    assert trio.current_time() == 0.1


# Interceptors, sinks and stores


async def test_hook_of_an_interceptor_fails() -> None:
    fault = Fails(OSError("hook"))
    around = faulty(BaseInterceptor(), before=fault)

    with pytest.raises(UnifiedStageExecutionError, match="hook"):
        await PIPELINE.run(interceptors=[around])

    assert fault.happened == 1


async def test_interceptor_with_faults_does_its_work(autojump_clock: MockClock) -> None:
    slow = faulty(RETRY, on_error=Lags(1), ended=Fails(OSError))
    broken = with_faults(PIPELINE, {"fetch": Fails(OSError, calls=1)})

    results = await broken.run(interceptors=[slow])

    assert results.data("fetch") == {"tries": 2}
    assert trio.current_time() == 2.5
    assert "after" in str(results.stage_results["fetch"].warnings)


async def test_sink_that_fails_or_hangs_does_not_hurt_the_run(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()
    broken = faulty(recorded, try_emit=Fails(OSError, calls=1), emit=Hangs(calls=2))

    results = await PIPELINE.run(event_sink=broken)

    assert results.ok("Shout")
    assert recorded.types() == [
        *("pipeline.started", "stage.completed", "stage.started", "stage.completed")
    ]


async def test_slow_sink_behind_a_queue_gets_everything(autojump_clock: MockClock) -> None:
    slow, recorded = RecordingEventSink(), RecordingEventSink()
    async with BackpressureAwareEventSink(faulty(slow, emit=Lags(0.2))) as queue:
        await PIPELINE.run(event_sink=TeeEventSink(queue, recorded))

    assert slow.events == recorded.events


async def test_store_that_hangs_once_delays_the_stage_alone(autojump_clock: MockClock) -> None:
    store = faulty(InMemoryIdempotencyStore(), claim=Lags(3, calls=1))
    pipeline = Pipeline.from_stages(stage("work", lambda ctx: {"n": 1}, kind="work"))

    results = await pipeline.run(
        data={"idempotency_key": "k"}, interceptors=[IdempotencyInterceptor(store)]
    )

    assert results.data("work") == {"n": 1}
    assert trio.current_time() == 3
