"""Stages that run beside each other and hand items on (30.15)."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import (
    InvalidArgumentError,
    StreamBrokenError,
    StreamClosedError,
    UndeclaredDependencyError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.model import AudioChunk, StageOutput, StageStatus
from actorflow.pipeline import StageSpec
from actorflow.runtime import PipelineResults, UnifiedStageGraph
from actorflow.runtime._streams import StreamEdge, Turn
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

from .stages import nothing, spec


async def three(ctx: StageContext) -> dict[str, int]:
    for number in range(3):
        await ctx.send(number)
    return {"sent": 3}


async def collect(ctx: StageContext) -> dict[str, Any]:
    return {"got": [item async for item in ctx.stream()]}


class SteppingClock(trio.abc.Clock):
    """Time that passes when it is spent, and a step whenever somebody looks."""

    def __init__(self, step: float = 0.0) -> None:
        self._now = 0.0
        self._step = step

    def spend(self, seconds: float) -> None:
        self._now += seconds

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        self._now += self._step
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self._now else min(deadline - self._now, 0.001)


async def best_effort(*specs: StageSpec, **options: Any) -> PipelineResults:
    sink = options.pop("sink", None)
    graph = UnifiedStageGraph(specs, failure_mode="best_effort", **options)
    return await graph.run(event_sink=sink)


@pytest.mark.spec("30.15.1", "30.15.2", "20.9.1")
async def test_consumer_gets_every_item_in_order_while_the_producer_runs(
    autojump_clock: MockClock,
) -> None:
    items = [object() for _ in range(5)]
    arrived = []

    async def produce(ctx: StageContext) -> None:
        for item in items:
            await trio.sleep(1)
            await ctx.send(item)

    async def consume(ctx: StageContext) -> None:
        async for item in ctx.stream("produce"):
            arrived.append((trio.current_time(), item))

    begun_at = trio.current_time()
    await best_effort(spec("produce", produce), spec("consume", consume, stream_from="produce"))

    assert arrived == [(begun_at + second, item) for second, item in enumerate(items, 1)]


@pytest.mark.spec("20.9.3", "30.15.1")
async def test_every_consumer_gets_every_item_and_a_slow_one_holds_back_nobody_else(
    autojump_clock: MockClock,
) -> None:
    fast: list[float] = []

    async def slow_reader(ctx: StageContext) -> dict[str, Any]:
        got = []
        async for item in ctx.stream():
            await trio.sleep(1)
            got.append(item)
        return {"got": got}

    async def fast_reader(ctx: StageContext) -> dict[str, Any]:
        got = []
        async for item in ctx.stream():
            fast.append(trio.current_time())
            got.append(item)
        return {"got": got}

    begun_at = trio.current_time()
    results = await best_effort(
        spec("three", three),
        spec("slow", slow_reader, stream_from="three", stream_buffer=1),
        spec("fast", fast_reader, stream_from="three", stream_buffer=1),
    )

    assert results.data("slow") == results.data("fast") == {"got": [0, 1, 2]}
    # The third item waits for room at the slow one, and is at the fast one already.
    assert [at - begun_at for at in fast] == [0, 0, 0]


@pytest.mark.spec("30.15.1")
async def test_producer_is_never_further_ahead_than_the_buffer(autojump_clock: MockClock) -> None:
    sent = 0

    async def produce(ctx: StageContext) -> None:
        nonlocal sent
        for number in range(20):
            await ctx.send(number)
            sent += 1

    async def consume(ctx: StageContext) -> None:
        taken = 0
        async for _ in ctx.stream():
            taken += 1
            await trio.sleep(1)
            assert sent <= taken + 4

    results = await best_effort(
        spec("produce", produce), spec("consume", consume, stream_from="produce", stream_buffer=4)
    )

    assert sent == 20
    assert not results.failures


@pytest.mark.spec("30.15.2")
async def test_stream_of_a_producer_that_is_done_is_read_to_its_end_and_then_over() -> None:
    async def late(ctx: StageContext) -> dict[str, Any]:
        first = [item async for item in ctx.stream("three")]
        again = [item async for item in ctx.stream("three")]
        return {"first": first, "again": again}

    async def slow(ctx: StageContext) -> None:
        await wait_all_tasks_blocked()

    results = await best_effort(
        spec("three", three), spec("slow", slow), spec("late", late, "slow", stream_from="three")
    )

    assert results.data("late") == {"first": [0, 1, 2], "again": []}


@pytest.mark.spec("30.15.2", "20.9.4")
async def test_stream_of_a_skipped_producer_is_empty() -> None:
    results = await best_effort(
        spec("a", nothing),
        spec("mic", three, "a", when=lambda inputs: False),
        spec("stt", collect, stream_from="mic", join="always"),
        spec("other", collect, stream_from="mic"),
    )

    assert results.data("stt") == {"got": []}
    assert results["other"].status is StageStatus.SKIP


@pytest.mark.spec("30.15.3")
@pytest.mark.parametrize("mode", ["continue_on_failure", "best_effort"])
async def test_broken_stream_raises_after_what_was_sent(mode: str) -> None:
    seen: list[Any] = []
    context = PipelineContext()

    async def breaks(ctx: StageContext) -> None:
        await ctx.send("one")
        await wait_all_tasks_blocked()
        raise LookupError("line is dead")

    async def consume(ctx: StageContext) -> dict[str, Any]:
        try:
            async for item in ctx.stream():
                seen.append(item)
        except StreamBrokenError as error:
            seen.append((error.source, error.consumer, repr(error.__cause__)))
        return {"partial": True}

    graph = UnifiedStageGraph(
        [spec("breaks", breaks), spec("consume", consume, stream_from="breaks")], failure_mode=mode
    )
    with suppress(UnifiedStageExecutionError):
        await graph.run(context)

    assert seen == ["one", ("breaks", "consume", "LookupError('line is dead')")]
    output = context.outputs.get_output("consume")
    assert output is not None
    assert output.status is StageStatus.OK


@pytest.mark.spec("30.15.4")
async def test_producer_goes_on_without_a_consumer_that_has_ended(
    autojump_clock: MockClock,
) -> None:
    async def one_only(ctx: StageContext) -> dict[str, Any]:
        async for item in ctx.stream():
            return {"got": item}
        return {}

    async def many(ctx: StageContext) -> None:
        for number in range(100):
            await ctx.send(number)

    results = await best_effort(
        spec("many", many), spec("one", one_only, stream_from="many", stream_buffer=1)
    )

    assert results.data("one") == {"got": 0}
    assert results.ok("many")


@pytest.mark.spec("30.15.5")
async def test_output_of_the_producer_can_be_waited_for() -> None:
    async def consume(ctx: StageContext) -> dict[str, Any]:
        output = await ctx.stream_output("three")
        with pytest.raises(UndeclaredDependencyError, match="stream"):
            ctx.inputs.get_output("three")
        return {"sent": output.data["sent"]}

    results = await best_effort(spec("three", three), spec("consume", consume, stream_from="three"))

    assert results.data("consume") == {"sent": 3}


@pytest.mark.spec("30.15.1")
@pytest.mark.parametrize("pace", [0.0, 0.0004])
async def test_stages_that_never_wait_let_others_run(pace: float) -> None:
    # `pace` is what an item takes of the processor.
    clock = SteppingClock()
    runs: list[int] = []
    handled: list[int] = []

    async def work(ctx: StageContext) -> None:
        for number in range(200):
            clock.spend(pace)
            handled.append(number)
            await ctx.send(number)

    async def read(ctx: StageContext) -> None:
        async for number in ctx.stream():
            clock.spend(pace)
            handled.append(number)

    async def main() -> None:
        graph = UnifiedStageGraph(
            [spec("work", work), spec("read", read, stream_from="work", stream_buffer=1_000)]
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await graph.run()
            nursery.cancel_scope.cancel()

    async def watch() -> None:
        while True:
            runs.append(len(handled))
            await trio.lowlevel.checkpoint()

    await trio.to_thread.run_sync(partial(trio.run, main, clock=clock))

    assert len(handled) == 400
    gaps = [after - before for before, after in pairwise(runs)]
    # Both stages may have their turn twice between two looks.
    assert max(gaps) <= 4 * (33 if pace == 0 else 4)


@pytest.mark.spec("30.15.1")
async def test_stream_survives_a_machine_that_is_slow_between_any_two_steps() -> None:
    results: list[PipelineResults] = []

    async def relay(ctx: StageContext) -> None:
        async for item in ctx.stream():
            await ctx.send(item)

    async def main() -> None:
        graph = UnifiedStageGraph(
            [
                spec("three", three),
                spec("relay", relay, stream_from="three", stream_buffer=1),
                spec("collect", collect, stream_from="relay", stream_buffer=1),
            ]
        )
        with trio.fail_after(1_000):
            results.append(await graph.run())

    # Each look at the clock finds it two milliseconds later.
    await trio.to_thread.run_sync(partial(trio.run, main, clock=SteppingClock(0.002)))

    assert results[0].data("collect") == {"got": [0, 1, 2]}


@pytest.mark.spec("30.15.1")
async def test_nobody_waits_where_every_consumer_has_room(sink: RecordingEventSink) -> None:
    results = await best_effort(
        spec("three", three),
        spec("one", collect, stream_from="three"),
        spec("two", collect, stream_from="three"),
        sink=sink,
    )

    assert results.data("one") == results.data("two") == {"got": [0, 1, 2]}
    assert [it["blocked_puts"] for it in sink.payloads("stream.queue_closed")] == [0, 0]


@pytest.mark.spec("30.15.1")
async def test_producer_waits_for_the_one_that_has_no_room(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def late(ctx: StageContext) -> dict[str, Any]:
        await trio.sleep(1)
        return await collect(ctx)

    results = await best_effort(
        spec("three", three),
        spec("narrow", late, stream_from="three", stream_buffer=1),
        spec("wide", collect, stream_from="three"),
        sink=sink,
    )

    assert results.data("narrow") == results.data("wide") == {"got": [0, 1, 2]}
    narrow, wide = (it["blocked_puts"] for it in sink.payloads("stream.queue_closed"))
    assert narrow >= 1
    assert wide == 0


async def test_several_tasks_of_a_stage_may_send_and_read() -> None:
    async def send(ctx: StageContext) -> None:
        async def some(first: int) -> None:
            for number in range(first, first + 50):
                await ctx.send(number)

        async with trio.open_nursery() as nursery:
            for first in (0, 50, 100):
                nursery.start_soon(some, first)

    async def read(ctx: StageContext) -> dict[str, list[int]]:
        got: list[int] = []

        async def some() -> None:
            async for number in ctx.stream():
                got.append(number)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(some)
        return {"got": got}

    for buffer in (1, 2, 1_000):
        results = await best_effort(
            spec("send", send), spec("read", read, stream_from="send", stream_buffer=buffer)
        )
        assert sorted(results.data("read")["got"]) == list(range(150))


@pytest.mark.spec("30.15.6")
async def test_dependents_of_a_consumer_wait_for_the_consumer_only(
    autojump_clock: MockClock,
) -> None:
    ended: dict[str, float] = {}

    async def slow_end(ctx: StageContext) -> None:
        await ctx.send(1)
        await trio.sleep(10)
        ended["producer"] = trio.current_time()

    async def first(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            return

    async def after(ctx: StageContext) -> None:
        ended["after"] = trio.current_time()

    await best_effort(spec("p", slow_end), spec("c", first, stream_from="p"), spec("d", after, "c"))

    assert ended["after"] == ended["producer"] - 10


@pytest.mark.spec("30.15.7")
async def test_cancelling_wakes_both_sides(sink: RecordingEventSink) -> None:
    async def floods(ctx: StageContext) -> None:
        while True:
            await ctx.send(0)

    async def reads_nothing(ctx: StageContext) -> None:
        await trio.sleep_forever()

    async def sends_nothing(ctx: StageContext) -> None:
        await trio.sleep_forever()

    async def waits(ctx: StageContext) -> None:
        await ctx.stream_output()

    graph = UnifiedStageGraph(
        [
            spec("floods", floods),
            spec("reads_nothing", reads_nothing, stream_from="floods"),
            spec("sends_nothing", sends_nothing),
            spec("reads", collect, stream_from="sends_nothing"),
            spec("waits", waits, stream_from="sends_nothing"),
        ]
    )
    async with graph.start(event_sink=sink) as run:
        await wait_all_tasks_blocked()
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    assert len(sink.payloads("stream.queue_closed")) == 3
    assert sink.types()[-1] == "pipeline.canceled"


@pytest.mark.spec("30.15.7", "30.1.1")
async def test_edge_of_stages_that_never_started_is_closed_with_the_run(
    sink: RecordingEventSink,
) -> None:
    async def cancel(ctx: StageContext) -> StageOutput:
        return StageOutput.cancel("enough")

    graph = UnifiedStageGraph(
        [spec("a", cancel), spec("mic", three, "a"), spec("stt", collect, stream_from="mic")]
    )
    with pytest.raises(UnifiedPipelineCancelled):
        await graph.run(event_sink=sink)

    assert sink.types()[-2:] == ["stream.queue_closed", "pipeline.canceled"]


@pytest.mark.spec("30.15.7")
async def test_every_edge_tells_its_numbers_once(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def slowly(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            await trio.sleep(1)

    results = await best_effort(
        spec("three", three), spec("slow", slowly, stream_from="three", stream_buffer=1), sink=sink
    )

    [payload] = sink.payloads("stream.queue_closed")
    numbers = results.stage_results["three"].streams["slow"]
    assert {"stage": "three", **numbers}.items() <= payload.items()
    # How often it had to wait before the consumer began depends on the scheduler.
    assert numbers["blocked_puts"] in (1, 2)
    assert {**numbers, "blocked_puts": 1} == {
        "total_items": 3,
        "dropped_items": 0,
        "blocked_puts": 1,
        "max_queue_size": 1,
        "total_blocked_ms": 1000.0,
        "drop_rate": 0.0,
    }


@pytest.mark.spec("30.15.8")
async def test_sending_to_nobody_and_reading_from_strangers_is_refused() -> None:
    async def sends(ctx: StageContext) -> None:
        with pytest.raises(StreamClosedError, match="'sends' sends, but no stage"):
            await ctx.send(1)

    async def reads(ctx: StageContext) -> None:
        with pytest.raises(UndeclaredDependencyError):
            ctx.stream("stranger")
        with pytest.raises(UndeclaredDependencyError):
            ctx.stream()

    async def reads_two(ctx: StageContext) -> None:
        with pytest.raises(InvalidArgumentError, match="one of p, q"):
            ctx.stream()
        with pytest.raises(UndeclaredDependencyError):
            ctx.stream("stranger")
        assert [item async for item in ctx.stream("q")] == [0, 1, 2]

    results = await best_effort(
        spec("sends", sends),
        spec("reads", reads),
        spec("p", three),
        spec("q", three),
        spec("two", reads_two, stream_from=("p", "q")),
    )

    assert results.failures == ()


@pytest.mark.spec("30.15.8")
async def test_sending_after_the_call_has_ended_is_refused() -> None:
    kept: list[StageContext] = []

    async def keeps(ctx: StageContext) -> None:
        kept.append(ctx)
        await ctx.send(1)

    async def consume(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            pass
        with pytest.raises(StreamClosedError):
            await kept[0].send(2)

    results = await best_effort(spec("keeps", keeps), spec("consume", consume, stream_from="keeps"))

    assert results.failures == ()


@pytest.mark.spec("30.3.3")
async def test_consumer_starts_after_its_producer(sink: RecordingEventSink) -> None:
    await best_effort(spec("stt", collect, stream_from="mic"), spec("mic", three), sink=sink)

    started = [payload["stage"] for payload in sink.payloads("stage.started")]
    assert started == ["mic", "stt"]


async def test_output_of_a_producer_that_was_cut_off_never_comes() -> None:
    edge = StreamEdge("p", spec("c", nothing), Turn(), Turn())
    edge.producer_ended(None, None)

    with pytest.raises(StreamBrokenError, match="from 'p' to 'c'"):
        await edge.output()


@pytest.mark.spec("30.8.6")
async def test_streaming_stages_share_a_slot(autojump_clock: MockClock) -> None:
    results = await best_effort(
        spec("three", three),
        spec("other", nothing),
        spec("collect", collect, "other", stream_from="three", stream_buffer=1),
        max_concurrency=1,
    )

    assert results.data("collect") == {"got": [0, 1, 2]}


async def test_producer_that_fails_in_its_rules_breaks_the_stream() -> None:
    async def consume(ctx: StageContext) -> StageOutput:
        with pytest.raises(StreamBrokenError):
            await ctx.stream().__anext__()
        output = await ctx.stream_output()
        return StageOutput.ok(status=str(output.status))

    results = await best_effort(
        spec("a", nothing),
        spec("mic", three, "a", inputs=("a:device",)),
        spec("stt", consume, stream_from="mic"),
    )

    assert results.data("stt") == {"status": "fail"}


# Edges bounded in the time their items play


def chunk(milliseconds: float) -> AudioChunk:
    return AudioChunk(bytes(round(32 * milliseconds)))


@pytest.mark.spec("30.15.12")
async def test_producer_is_at_most_so_much_audio_ahead(autojump_clock: MockClock) -> None:
    sent: list[float] = []

    async def speak(ctx: StageContext) -> None:
        for duration_ms in (20, 20, 30, 500, 20):
            await ctx.send(chunk(duration_ms))
            sent.append(trio.current_time() - begun_at)

    async def play(ctx: StageContext) -> dict[str, Any]:
        await trio.sleep(1)
        heard = []
        async for piece in ctx.stream():
            heard.append(piece.duration_ms)
            await trio.sleep(1)
        return {"heard": heard}

    graph = UnifiedStageGraph(
        [spec("speak", speak), spec("play", play, stream_from="speak", stream_ms=60)]
    )
    begun_at = trio.current_time()
    results = await graph.run()

    assert results.data("play")["heard"] == [20, 20, 30, 500, 20]
    # The long one has room where nothing else is, the last one after it.
    assert sent == [0, 0, 1, 3, 4]
    numbers = results.stage_results["speak"].streams["play"]
    assert {key: numbers[key] for key in ("max_ms", "peak_ms", "dropped_ms")} == {
        "max_ms": 60,
        "peak_ms": 500.0,
        "dropped_ms": 0.0,
    }


@pytest.mark.spec("30.15.12")
@pytest.mark.parametrize(
    ("bound", "heard", "dropped_ms"),
    [({"stream_ms": 60}, [3, 4, 5], 60.0), ({"stream_buffer": 2}, [4, 5], None)],
)
async def test_live_audio_drops_what_is_oldest_and_counts_it(
    sink: RecordingEventSink,
    autojump_clock: MockClock,
    bound: dict[str, float],
    heard: list[int],
    dropped_ms: float | None,
) -> None:
    async def speak(ctx: StageContext) -> None:
        for number in range(6):
            await ctx.send(attrs.evolve(chunk(20), sequence=number))
        spoken_at.append(trio.current_time())
        await trio.sleep(5)

    async def play(ctx: StageContext) -> dict[str, Any]:
        await trio.sleep(1)
        return {"heard": [piece.sequence async for piece in ctx.stream()]}

    spoken_at: list[float] = []
    begun_at = trio.current_time()
    # Any: options of several types.
    options: Any = {"stream_policy": "drop_oldest", **bound}
    results = await UnifiedStageGraph(
        [spec("speak", speak), spec("play", play, stream_from="speak", **options)]
    ).run(event_sink=sink)

    assert spoken_at == [begun_at]
    assert results.data("play")["heard"] == heard
    [payload] = sink.payloads("stream.queue_closed")
    dropped = 6 - len(heard)
    assert (payload["total_items"], payload["dropped_items"]) == (6, dropped)
    assert payload["drop_rate"] == dropped / 6
    assert results.stage_results["speak"].streams["play"].get("dropped_ms") == dropped_ms


@pytest.mark.spec("30.15.12", "30.15.4")
@pytest.mark.parametrize("policy", ["wait", "drop_oldest"])
async def test_bounded_edge_is_left_by_its_consumer(autojump_clock: MockClock, policy: str) -> None:
    async def speak(ctx: StageContext) -> None:
        for _ in range(10):
            await ctx.send(chunk(20))

    async def one_only(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            return

    options: Any = {"stream_ms": 30, "stream_policy": policy}
    results = await UnifiedStageGraph(
        [spec("speak", speak), spec("one", one_only, stream_from="speak", **options)]
    ).run()

    assert results.ok("speak")


@pytest.mark.spec("30.15.12")
async def test_items_that_do_not_play_are_bounded_by_their_number(
    autojump_clock: MockClock,
) -> None:
    ahead = []

    async def count(ctx: StageContext) -> None:
        for number in range(6):
            await ctx.send(number)
            ahead.append(number)
        ahead.append(-1)

    async def wait(ctx: StageContext) -> None:
        await trio.sleep(1)
        assert ahead == [0, 1, 2]
        assert [item async for item in ctx.stream()] == list(range(6))

    options: Any = {"stream_ms": 30, "stream_buffer": 3}
    await UnifiedStageGraph(
        [spec("count", count), spec("wait", wait, stream_from="count", **options)]
    ).run()
