"""The queue between tasks: bounds, order, ends, and what it reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from actorflow.audio import AudioChunk, BackpressureStats, ChunkQueue
from actorflow.errors import InvalidAudioError
from actorflow.events import validate_event
from actorflow.model import ContextSnapshot, RunIdentity
from actorflow.stages import StageInputs, create_stage_context
from actorflow.testing import RecordingEventSink, run_seeded


class Emitted(list[tuple[str, Mapping[str, Any]]]):
    """What a queue said, each event checked against the catalogue."""

    def __call__(self, type: str, data: dict[str, Any]) -> None:
        assert validate_event(type, data) == []
        self.append((type, data))

    def types(self) -> list[str]:
        return [type for type, _ in self]


def sound(ms: float) -> AudioChunk:
    return AudioChunk(bytes(int(ms * 32)))


async def filled(queue: ChunkQueue[Any], *items: object) -> None:
    for item in items:
        assert queue.put_nowait(item)


async def rest(queue: ChunkQueue[Any]) -> list[Any]:
    """What is left in a queue."""
    queue.close_nowait()
    return [item async for item in queue]


# Order and bounds


@pytest.mark.spec("A12")
async def test_items_come_in_the_order_they_were_put() -> None:
    queue = ChunkQueue[int](3)
    await filled(queue, 1, 2, 3)

    assert len(queue) == queue.max_size == 3
    assert await rest(queue) == [1, 2, 3]


@pytest.mark.spec("A12", "A15")
async def test_producers_come_in_in_order_of_arrival() -> None:
    queue = ChunkQueue[int](1)
    await filled(queue, 0)
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            nursery.start_soon(queue.put, number)
            await wait_all_tasks_blocked()
        sizes = []
        got = []
        for _ in range(4):
            got.append(await queue.get())
            sizes.append(len(queue))

    assert got == [0, 1, 2, 3]
    assert sizes == [1, 1, 1, 0]


@pytest.mark.spec("A12")
async def test_consumers_are_served_in_order_of_arrival() -> None:
    queue = ChunkQueue[int]()
    got: dict[str, int | None] = {}

    async def consume(name: str) -> None:
        got[name] = await queue.get()

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(consume, name)
            await wait_all_tasks_blocked()
        assert queue.statistics().waiting_consumers == 3
        await filled(queue, 1, 2, 3)

    assert got == {"a": 1, "b": 2, "c": 3}


@pytest.mark.spec("A12")
async def test_nobody_overtakes_a_waiting_producer() -> None:
    queue = ChunkQueue[AudioChunk](10, max_ms=100)
    await filled(queue, sound(90))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, sound(60))
        await wait_all_tasks_blocked()

        # It would have room, the one in line has not.
        assert not queue.put_nowait(sound(5))
        await queue.get()
    assert [chunk.duration_ms for chunk in await rest(queue)] == [60]


# Audio milliseconds


@pytest.mark.spec("A12a")
async def test_queue_is_full_when_it_holds_enough_audio() -> None:
    queue = ChunkQueue[AudioChunk](10, max_ms=100)
    await filled(queue, sound(60), sound(40))

    assert not queue.put_nowait(sound(0.5))
    assert queue.monitor.fill_percentage == 100
    assert queue.statistics().buffered_ms == queue.statistics().peak_ms == 100
    await queue.get()
    assert queue.statistics().buffered_ms == 40
    assert queue.monitor.fill_percentage == 40
    assert queue.put_nowait(sound(60))


@pytest.mark.spec("A12a")
async def test_number_of_items_bounds_audio_too() -> None:
    queue = ChunkQueue[AudioChunk](2, max_ms=1000)
    await filled(queue, sound(1), sound(1))

    assert not queue.put_nowait(sound(1))
    assert queue.statistics().dropped_ms == 1


@pytest.mark.spec("A12a")
async def test_item_longer_than_the_bound_has_room_in_an_empty_queue_only() -> None:
    queue = ChunkQueue[AudioChunk](10, max_ms=100)
    assert queue.put_nowait(sound(500))

    assert queue.monitor.fill_percentage == 100
    assert not queue.put_nowait(sound(500))
    await queue.get()
    assert queue.put_nowait(sound(500))


@pytest.mark.spec("A12a", "A14")
async def test_as_much_of_the_oldest_audio_is_dropped_as_the_newest_needs() -> None:
    emitted = Emitted()
    queue = ChunkQueue[AudioChunk](10, max_ms=100, drop_on_overflow=True, event_emitter=emitted)
    await filled(queue, sound(30), sound(30), sound(30))
    await filled(queue, sound(50))

    assert [data["queue_size"] for type, data in emitted if "dropped" in type] == [2, 1]
    assert queue.statistics().dropped_ms == 60
    assert [chunk.duration_ms for chunk in await rest(queue)] == [30, 50]


@pytest.mark.spec("A12a")
async def test_one_long_item_out_lets_several_short_ones_in() -> None:
    queue = ChunkQueue[AudioChunk](10, max_ms=100)
    await filled(queue, sound(100))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(queue.put, sound(50))
        await wait_all_tasks_blocked()
        await queue.get()

        assert (len(queue), queue.statistics().waiting_producers) == (2, 1)
        await queue.get()


@pytest.mark.spec("A12a", "A23")
async def test_short_items_come_in_when_a_long_one_before_them_gives_up() -> None:
    queue = ChunkQueue[AudioChunk](10, max_ms=100)
    await filled(queue, sound(60))
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def give_up() -> None:
            with scope:
                await queue.put(sound(90))

        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(queue.put, sound(40))
        await wait_all_tasks_blocked()
        assert len(queue) == 1
        scope.cancel()

    assert [chunk.duration_ms for chunk in await rest(queue)] == [60, 40]


@pytest.mark.spec("A12a", "A14", "A25")
@pytest.mark.parametrize("drop_on_overflow", [True, False])
async def test_consumer_half_as_fast_never_lets_audio_pile_up(
    drop_on_overflow: bool, autojump_clock: MockClock
) -> None:
    queue = ChunkQueue[AudioChunk](1000, max_ms=400, drop_on_overflow=drop_on_overflow)
    chunks = 2 * 60 * 50

    async def speak() -> None:
        for number in range(chunks):
            assert await queue.put(AudioChunk(bytes(640), sequence=number))
            await trio.sleep(0.02)
        await queue.close()

    heard = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        async for _ in queue:
            heard += 1
            await trio.sleep(0.04)

    statistics = queue.statistics()
    assert statistics.peak_ms <= 400
    assert statistics.dropped_ms == 20 * statistics.backpressure.dropped_items
    assert heard == chunks - statistics.backpressure.dropped_items
    if drop_on_overflow:
        assert heard == pytest.approx(chunks / 2, rel=0.01)
    else:
        assert statistics.backpressure.total_blocked_ms > 0.9 * chunks * 20


@pytest.mark.spec("A12a")
async def test_how_long_an_item_plays_can_be_asked_for() -> None:
    queue = ChunkQueue[str](10, max_ms=10, duration_of=len)
    await filled(queue, "12345", "1234")

    assert not queue.put_nowait("12")
    assert queue.statistics().buffered_ms == 9


# Closed


@pytest.mark.spec("A13")
async def test_closed_queue_takes_nothing_and_says_nothing() -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](event_emitter=emitted)
    await queue.close()
    emitted.clear()

    assert await queue.put(1) is False
    assert queue.put_nowait(1) is False
    assert emitted == []
    assert queue.monitor.stats == BackpressureStats()


@pytest.mark.spec("A19")
async def test_what_is_left_at_the_close_is_delivered_before_the_end() -> None:
    queue = ChunkQueue[int]()
    await filled(queue, 1, 2)
    await queue.close()

    assert [await queue.get() for _ in range(4)] == [1, 2, None, None]


@pytest.mark.spec("A19")
async def test_get_waits_while_the_queue_is_open(autojump_clock: MockClock) -> None:
    queue = ChunkQueue[int]()
    with trio.move_on_after(5) as scope:
        await queue.get()

    assert scope.cancelled_caught


@pytest.mark.spec("A20")
async def test_get_without_waiting_gives_an_item_the_end_or_says_that_it_would_wait() -> None:
    queue = ChunkQueue[int]()
    with pytest.raises(trio.WouldBlock):
        queue.get_nowait()
    await filled(queue, 1)
    queue.close_nowait()

    assert queue.get_nowait() == 1
    assert queue.get_nowait() is None


@pytest.mark.spec("A21")
async def test_close_wakes_everybody_and_reports_once() -> None:
    emitted = Emitted()
    empty = ChunkQueue[int](event_emitter=emitted)
    full = ChunkQueue[int](1)
    await filled(full, 0)
    answers: list[object] = []

    async def note(answer: Any, *args: object) -> None:
        answers.append(await answer(*args))

    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            nursery.start_soon(note, empty.get)
            nursery.start_soon(note, full.put, number)
        await wait_all_tasks_blocked()
        assert full.statistics().waiting_producers == 3
        for _ in range(2):
            await empty.close()
            await full.close()

    assert sorted(map(str, answers)) == ["False"] * 3 + ["None"] * 3
    assert await rest(full) == [0]
    assert empty.is_closed
    assert emitted == [("stream.queue_closed", BackpressureStats().to_dict())]


@pytest.mark.spec("A21")
async def test_close_holds_also_when_it_is_cancelled() -> None:
    queue = ChunkQueue[int]()
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.close()

    assert scope.cancelled_caught
    assert queue.is_closed


@pytest.mark.spec("A21", "A15")
async def test_producer_that_is_told_of_the_close_was_blocked(autojump_clock: MockClock) -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](1, event_emitter=emitted)
    await filled(queue, 0)
    emitted.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 1)
        await trio.sleep(0.25)
        await queue.close()

    assert emitted[0] == ("stream.producer_blocked", {"blocked_ms": 250.0, "queue_size": 1})
    assert emitted[1][0] == "stream.queue_closed"
    assert emitted[1][1]["total_blocked_ms"] == 250.0


@pytest.mark.spec("A22")
async def test_each_item_goes_to_one_of_several_consumers_and_all_stop() -> None:
    queue = ChunkQueue[int](3)
    got: list[list[int]] = []

    async def consume() -> None:
        mine: list[int] = []
        got.append(mine)
        async for item in queue:
            mine.append(item)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(consume)
        for number in range(200):
            await queue.put(number)
        await queue.close()

    assert sorted(number for mine in got for number in mine) == list(range(200))
    assert all(mine == sorted(mine) for mine in got)


# Overflow


@pytest.mark.spec("A14")
async def test_oldest_item_makes_room_without_waiting() -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](2, drop_on_overflow=True, event_emitter=emitted)
    for number in range(4):
        assert await queue.put(number)

    assert len(queue) == 2
    assert [it for it in emitted if it[0] == "stream.chunk_dropped"] == [
        ("stream.chunk_dropped", {"queue_size": 1, "max_size": 2, "reason": "overflow"})
    ] * 2
    assert queue.monitor.stats == BackpressureStats(4, 2, 0, 2, 0.0)
    assert queue.statistics().policy == "drop_oldest"
    assert await rest(queue) == [2, 3]


@pytest.mark.spec("A15")
async def test_blocked_producer_is_counted_and_reported(autojump_clock: MockClock) -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](1, event_emitter=emitted)
    await filled(queue, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 1)
        await trio.sleep(0.1)
        assert await queue.get() == 0

    assert ("stream.producer_blocked", {"blocked_ms": 100.0, "queue_size": 1}) in emitted
    assert queue.monitor.stats == BackpressureStats(2, 0, 1, 1, 100.0)
    assert queue.statistics().policy == "wait"


@pytest.mark.spec("A15")
@pytest.mark.parametrize(("seconds", "times"), [(0.001, 0), (0.0011, 1)])
async def test_wait_of_a_millisecond_is_none(
    autojump_clock: MockClock, seconds: float, times: int
) -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](1, event_emitter=emitted)
    await filled(queue, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 1)
        await trio.sleep(seconds)
        await queue.get()

    assert queue.monitor.stats.blocked_puts == times
    assert emitted.types().count("stream.producer_blocked") == times


@pytest.mark.spec("A16")
async def test_put_is_recorded_before_its_throttling_is_told() -> None:
    seen: list[tuple[str, int]] = []
    queue: ChunkQueue[int] = ChunkQueue(
        1, event_emitter=lambda name, _: seen.append((name, queue.monitor.stats.total_items))
    )

    assert await queue.put(1)
    assert seen == [("stream.throttle_started", 1)]


@pytest.mark.spec("A17")
async def test_throttling_is_told_when_it_begins_and_when_it_ends() -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](10, event_emitter=emitted)
    for number in range(10):
        await queue.put(number)
    for _ in range(5):
        await queue.get()
    for _ in range(5):
        queue.get_nowait()

    assert emitted == [
        ("stream.throttle_started", {"fill_percentage": 80.0, "queue_size": 8}),
        ("stream.throttle_ended", {"fill_percentage": 20.0, "queue_size": 2}),
    ]


@pytest.mark.spec("A18")
async def test_item_that_cannot_wait_is_the_one_that_is_dropped() -> None:
    emitted = Emitted()
    queue = ChunkQueue[int](1, event_emitter=emitted)
    assert queue.put_nowait(1)
    emitted.clear()

    assert not queue.put_nowait(2)
    assert emitted == [
        ("stream.chunk_dropped", {"queue_size": 1, "max_size": 1, "reason": "queue_full"})
    ]
    assert queue.monitor.stats.dropped_items == 1
    assert await rest(queue) == [1]


@pytest.mark.spec("A18")
async def test_put_without_waiting_drops_the_oldest_where_put_does() -> None:
    queue = ChunkQueue[int](1, drop_on_overflow=True)

    assert queue.put_nowait(1)
    assert queue.put_nowait(2)
    assert await rest(queue) == [2]


@pytest.mark.spec("A25a")
async def test_cleared_items_are_not_dropped_items() -> None:
    emitted = Emitted()
    queue = ChunkQueue[AudioChunk](2, max_ms=1000, event_emitter=emitted)
    await filled(queue, sound(10), sound(10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, sound(30))
        await wait_all_tasks_blocked()

        assert queue.clear() == 2
        assert queue.statistics().buffered_ms == 30
    assert queue.statistics().cleared_items == 2
    assert queue.monitor.stats.dropped_items == 0
    assert emitted.types() == ["stream.throttle_started", "stream.throttle_ended"]
    queue.close_nowait()
    assert queue.clear() == 1
    assert await queue.get() is None
    assert queue.statistics().buffered_ms == 0


async def test_empty_queue_is_still_a_queue() -> None:
    assert ChunkQueue[int]()


# Being cancelled, and letting others run


@pytest.mark.spec("A23")
async def test_cancelled_call_changes_nothing_even_if_it_need_not_wait() -> None:
    queue = ChunkQueue[int]()
    await filled(queue, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.put(2)
    with trio.CancelScope() as other:
        other.cancel()
        await queue.get()

    assert scope.cancelled_caught
    assert other.cancelled_caught
    assert await rest(queue) == [1]


@pytest.mark.spec("A23")
@pytest.mark.parametrize("drop_on_overflow", [True, False])
async def test_busy_queue_lets_others_run(drop_on_overflow: bool) -> None:
    queue = ChunkQueue[int](10_000, drop_on_overflow=drop_on_overflow)
    calls = 0
    longest = 0

    async def neighbour() -> None:
        nonlocal calls, longest
        while True:
            longest = max(longest, calls)
            calls = 0
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        for number in range(200):
            await queue.put(number)
            calls += 1
        for _ in range(100):
            await queue.get()
            calls += 1
        await queue.close()
        for _ in range(200):
            await queue.put(0)
            calls += 1
        for _ in range(200):
            await queue.get()
            calls += 1
        nursery.cancel_scope.cancel()

    # trio runs what is ready in any order, so two turns may follow each other.
    assert 1 <= longest <= 2 * 32


@pytest.mark.spec("A23")
@pytest.mark.parametrize("seed", range(3))
def test_several_busy_tasks_let_others_run_where_time_stands_still(seed: int) -> None:
    async def main() -> None:
        queue = ChunkQueue[int](1, drop_on_overflow=True)
        puts = 0

        async def never_stop() -> None:
            nonlocal puts
            while puts < 10_000:
                puts += 1
                await queue.put(puts)

        async with trio.open_nursery() as nursery:
            # One after the other, so that each begins in the turn of another.
            for _ in range(5):
                nursery.start_soon(never_stop)
                await trio.lowlevel.checkpoint()
            assert puts < 10_000
            nursery.cancel_scope.cancel()

    run_seeded(main, seed=seed)


@pytest.mark.spec("A23")
async def test_calls_that_take_time_let_others_run_each_time(mock_clock: MockClock) -> None:
    queue = ChunkQueue[int]()
    ran = 0

    async def neighbour() -> None:
        nonlocal ran
        while True:
            ran += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        await queue.put(0)
        before = ran
        for number in range(1, 5):
            mock_clock.jump(0.001)
            await queue.put(number)
        nursery.cancel_scope.cancel()

    # trio may run us first in each batch, so the neighbour's last turn may be still ahead.
    assert ran - before >= 3


@pytest.mark.spec("A23")
async def test_item_given_to_a_consumer_survives_its_cancellation() -> None:
    queue = ChunkQueue[int]()
    got: list[int | None] = []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def consume() -> None:
            with scope:
                got.append(await queue.get())

        nursery.start_soon(consume)
        await wait_all_tasks_blocked()
        await filled(queue, 1)
        scope.cancel()

    assert got == [1]


@pytest.mark.spec("A23")
async def test_item_put_right_after_a_consumer_was_cancelled_stays() -> None:
    queue = ChunkQueue[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.get)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert queue.put_nowait(1)

    assert await rest(queue) == [1]


@pytest.mark.spec("A23")
async def test_room_made_right_after_a_producer_was_cancelled_stays_empty() -> None:
    queue = ChunkQueue[int](1)
    await filled(queue, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

        assert queue.get_nowait() == 0
    assert len(queue) == 0


# Emitters


@pytest.mark.spec("A24")
async def test_emitter_that_fails_is_logged_once_per_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(type: str, data: dict[str, Any]) -> None:
        raise RuntimeError(type)

    caplog.set_level(logging.DEBUG, "actorflow.audio")
    queue = ChunkQueue[int](1, drop_on_overflow=True, event_emitter=broken)
    for number in range(5):
        assert await queue.put(number)

    assert await rest(queue) == [4]
    assert [vars(record)["event_type"] for record in caplog.records] == [
        "stream.throttle_started",
        "stream.chunk_dropped",
        "stream.queue_closed",
        "stream.throttle_ended",
    ]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


@pytest.mark.spec("A24")
@pytest.mark.parametrize("drop_on_overflow", [True, False])
async def test_emitter_may_use_the_queue_that_it_hears_about(drop_on_overflow: bool) -> None:
    heard: list[str] = []

    def meddle(type: str, data: dict[str, Any]) -> None:
        heard.append(type)
        assert len(queue) <= 2
        if len(heard) < 50:
            queue.put_nowait(100 + len(heard))

    queue = ChunkQueue[int](2, drop_on_overflow=drop_on_overflow, event_emitter=meddle)
    for number in range(3):
        queue.put_nowait(number)

    # Each put is told once, whatever the emitter does about it.
    assert len(heard) < 10
    assert len(queue) == 2


@pytest.mark.spec("A24", "A17")
async def test_throttling_turned_round_by_an_emitter_is_told_with_the_next_item() -> None:
    heard: list[str] = []

    def meddle(type: str, data: dict[str, Any]) -> None:
        heard.append(type)
        if type == "stream.throttle_started" and len(heard) == 1:
            queue.get_nowait()
        elif type == "stream.throttle_ended" and len(heard) == 2:
            queue.put_nowait(7)

    queue = ChunkQueue[int](1, event_emitter=meddle)
    queue.put_nowait(1)
    assert heard == ["stream.throttle_started", "stream.throttle_ended"]

    assert not queue.put_nowait(2)
    assert queue.get_nowait() == 7
    assert queue.put_nowait(3)
    assert heard[2:] == ["stream.chunk_dropped", "stream.throttle_started"]


@pytest.mark.spec("A26")
async def test_events_carry_the_ids_of_the_run() -> None:
    sink = RecordingEventSink(strict=True)
    identity = RunIdentity(pipeline_run_id="00000000-0000-0000-0000-000000000001")
    snapshot = ContextSnapshot(identity)
    ctx = create_stage_context(
        snapshot=snapshot, inputs=StageInputs(snapshot), stage_name="tts", event_sink=sink
    )
    queue = ChunkQueue[int](1, event_emitter=ctx.try_emit_event)
    await filled(queue, 1)
    await queue.close()

    assert sink.types() == ["stream.throttle_started", "stream.queue_closed"]
    for event in sink.events:
        assert event.data["pipeline_run_id"] == str(identity.pipeline_run_id)


# Bad input


@pytest.mark.parametrize(
    "settings",
    [
        {"max_size": 0},
        {"max_size": 1.5},
        {"max_ms": 0},
        {"max_ms": float("nan")},
        {"event_emitter": "no function"},
        {"event_emitter": RecordingEventSink().emit},
    ],
)
def test_queue_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidAudioError):
        ChunkQueue[int](**settings)


async def test_none_cannot_be_put() -> None:
    queue = ChunkQueue[Any]()

    with pytest.raises(InvalidAudioError, match="end of a queue"):
        await queue.put(None)
    with pytest.raises(InvalidAudioError):
        queue.put_nowait(None)


async def test_item_that_plays_for_a_negative_time_is_refused() -> None:
    queue = ChunkQueue[int](max_ms=10, duration_of=lambda _: -1)

    with pytest.raises(InvalidAudioError, match="duration_of"):
        await queue.put(1)
    assert len(queue) == 0


async def test_producers_and_consumers_go_on_side_by_side() -> None:
    queue = ChunkQueue[int](1)
    order = Sequencer()

    async def produce() -> None:
        async with order(0):
            await queue.put(1)
        async with order(2):
            assert await queue.put(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async with order(1):
            assert await queue.get() == 1
        assert await queue.get() == 2
