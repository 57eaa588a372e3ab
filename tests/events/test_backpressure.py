from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import Child, Supervisor, open_system
from actorflow.errors import (
    ForeignThreadError,
    InvalidEventSinkError,
    SinkClosedError,
    SinkNotOwnedError,
    SinkNotRunningError,
)
from actorflow.events import (
    BackpressureAwareEventSink,
    BoundEventSink,
    DrainReport,
    EventSink,
    NoOpEventSink,
    wait_for_event_sink_tasks,
)
from actorflow.events._backlog import _present_work

Payload = Mapping[str, Any] | None


class Downstream:
    """Takes `seconds` per event and fails for types that begin with "bad"."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.started: list[str] = []
        self.delivered: list[str] = []
        self.active = self.most_active = 0
        self.flushed = self.closed = 0

    async def emit(self, *, type: str, data: Payload) -> None:
        self.started.append(type)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if self.seconds:
                await trio.sleep(self.seconds)
            if type.startswith("bad"):
                raise OSError(type)
            self.delivered.append(type)
        finally:
            self.active -= 1

    def try_emit(self, *, type: str, data: Payload) -> None: ...

    async def flush(self) -> None:
        self.flushed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Gate(Downstream):
    """Holds each event until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self._through = trio.Semaphore(0)

    def open(self, events: int = 1000) -> None:
        for _ in range(events):
            self._through.release()

    async def emit(self, *, type: str, data: Payload) -> None:
        self.started.append(type)
        await self._through.acquire()
        self.delivered.append(type)


def try_all(sink: EventSink, *types: str) -> list[bool | None]:
    return [sink.try_emit(type=type, data=None) for type in types]


def balanced(sink: BackpressureAwareEventSink) -> bool:
    now = sink.statistics()
    settled = now.delivered + now.failed + now.abandoned
    return now.accepted == settled + now.pending + now.in_flight


async def emit_later(nursery: trio.Nursery, sink: EventSink, *types: str) -> None:
    """Start an emission for each type, one after the other."""
    for type in types:
        nursery.start_soon(partial(sink.emit, type=type, data=None))
        await wait_all_tasks_blocked()


# States and owners


@pytest.mark.spec("E36", "E35")
async def test_states_follow_start_and_stop() -> None:
    sink = BackpressureAwareEventSink(Downstream())
    async with open_system() as system:
        assert not sink.is_running
        await sink.start()
        assert sink.is_running
        (actor,) = [info for _, info in system.tree().walk() if "event_sink" in info.path]
        assert actor.state == "running"

        await sink.stop()
        assert not sink.is_running
        await sink.start()
        assert sink.is_running


@pytest.mark.spec("E37")
async def test_sink_is_owned_by_its_block_or_a_system() -> None:
    sink = BackpressureAwareEventSink(Downstream())
    with pytest.raises(SinkNotOwnedError):
        await sink.start()

    async with sink:
        assert sink.is_running
    assert not sink.is_running

    async with open_system() as system:
        await sink.start(system)
        await sink.start(system)
        assert len([path for path in _paths(system) if "event_sink" in path]) == 1
    assert not sink.is_running


def _paths(system: Any) -> list[str]:
    return [info.path for _, info in system.tree().walk()]


@pytest.mark.spec("E37")
async def test_block_inside_a_system_uses_that_system() -> None:
    async with open_system() as system, BackpressureAwareEventSink(Downstream()):
        assert any("event_sink" in path for path in _paths(system))


async def test_sinks_live_under_the_supervisor_of_sinks() -> None:
    sinks: Child[None] = Child("sinks", Supervisor())

    async with open_system(sinks) as system, BackpressureAwareEventSink(Downstream()):
        assert any(path.startswith("sinks/event_sink") for path in _paths(system))


async def test_block_may_be_entered_again_inside_itself() -> None:
    downstream = Downstream()
    sink = BackpressureAwareEventSink(downstream)

    async with sink:
        async with sink:
            try_all(sink, "a")
        assert not sink.is_running

    assert downstream.delivered == ["a"]


@pytest.mark.spec("E38")
async def test_emit_starts_a_new_sink_inside_a_system() -> None:
    downstream = Downstream()
    sink = BackpressureAwareEventSink(downstream, max_queue_size=1)
    try_all(sink, "tried")

    async with open_system():
        await sink.emit(type="emitted", data=None)
        assert sink.is_running

    assert downstream.delivered == ["tried", "emitted"]


@pytest.mark.spec("E38")
async def test_emit_outside_a_system_buffers_until_full() -> None:
    downstream = Downstream()
    sink = BackpressureAwareEventSink(downstream, max_queue_size=2)

    await sink.emit(type="a", data=None)
    await sink.emit(type="b", data=None)
    with pytest.raises(SinkNotRunningError, match="2 of 2"):
        await sink.emit(type="c", data=None)
    assert not sink.is_running

    async with sink:
        pass
    assert downstream.delivered == ["a", "b"]


@pytest.mark.spec("E40", "E2")
def test_new_sink_buffers_without_a_loop() -> None:
    downstream = Downstream()
    sink = BackpressureAwareEventSink(downstream, max_queue_size=2)
    assert try_all(sink, "a", "b", "c") == [True, True, False]

    async def main() -> None:
        async with sink:
            sink.try_emit(type="d", data=None)

    assert sink.queue_size == 2
    trio.run(main)
    assert downstream.delivered == ["a", "b"] + ["d"] * (sink.metrics.emitted == 3)


# Intake


@pytest.mark.spec("E39", "E42", "E43", "E45", "E11")
async def test_waiting_emitters_come_in_turn_and_are_not_overtaken() -> None:
    gate = Gate()
    async with BackpressureAwareEventSink(gate, max_queue_size=2) as sink:
        async with trio.open_nursery() as nursery:
            try_all(sink, "1")
            await wait_all_tasks_blocked()
            assert (sink.queue_size, gate.started) == (0, ["1"])
            try_all(sink, "2", "3")
            await emit_later(nursery, sink, "4", "5")
            assert (sink.metrics.emitted, sink.queue_size) == (3, 2)

            gate.open(1)
            await wait_all_tasks_blocked()
            assert try_all(sink, "overtaking") == [False]
            assert sink.metrics.emitted == 4
            gate.open()
        await sink.flush()

    assert gate.delivered == ["1", "2", "3", "4", "5"]


@pytest.mark.spec("E40", "E41")
async def test_drop_is_counted_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    sink = BackpressureAwareEventSink(
        Downstream(), max_queue_size=1, on_drop=lambda *event: told.append(event)
    )

    assert sink.try_emit(type="a", data=None) is True
    assert sink.try_emit(type="b", data={"x": 1}) is False

    assert (sink.metrics.emitted, sink.metrics.dropped) == (1, 1)
    assert told == [("b", {"x": 1})]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("actorflow.events.backpressure", "WARNING")
    assert record.message == "Event dropped due to backpressure"
    wanted = {"event_type": "b", "queue_size": 1, "dropped_total": 1}
    assert record.__dict__.items() >= wanted.items()
    await sink.stop()


@pytest.mark.spec("E41")
async def test_exception_of_a_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with BackpressureAwareEventSink(
        Downstream(), max_queue_size=1, on_drop=fail, on_error=fail
    ) as sink:
        try_all(sink, "bad", "dropped")
        await sink.flush()
        try_all(sink, "good")

    messages = [record.message for record in caplog.records]
    assert messages.count("event_sink_callback_failed") == 2
    assert sink.statistics().delivered == 1


@pytest.mark.spec("E41")
async def test_callback_that_emits_into_its_full_sink_is_not_called_for_that() -> None:
    told: list[str] = []

    def again(type: str, _: Payload) -> None:
        told.append(type)
        sink.try_emit(type="again", data=None)

    sink = BackpressureAwareEventSink(Downstream(), max_queue_size=1, on_drop=again)
    try_all(sink, "a", "b")

    assert told == ["b"]
    assert sink.metrics.dropped == 2
    await sink.stop()


@pytest.mark.spec("E41")
async def test_many_drops_are_summed_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with BackpressureAwareEventSink(Gate(), max_queue_size=1, stop_timeout=0) as sink:
        try_all(sink, *["a"] * 30)

    drops = [r for r in caplog.records if r.message == "Event dropped due to backpressure"]
    assert len(drops) == 11
    assert sum(1 + r.__dict__["suppressed"] for r in drops[:10]) == 10
    assert drops[10].__dict__["suppressed"] == 19


@pytest.mark.spec("E39")
async def test_cancelled_emitter_leaves_the_line() -> None:
    gate = Gate()
    async with BackpressureAwareEventSink(gate, max_queue_size=1) as sink:
        try_all(sink, "1")
        await wait_all_tasks_blocked()
        try_all(sink, "2")
        with trio.move_on_after(0):
            await sink.emit(type="given up", data=None)
        gate.open()

    assert gate.delivered == ["1", "2"]
    assert sink.statistics().accepted == 2


@pytest.mark.spec("E7")
async def test_other_threads_are_sent_back() -> None:
    async with BackpressureAwareEventSink(Downstream()) as sink:
        for call in (sink.try_emit, sink.offer):
            with pytest.raises(ForeignThreadError):
                await trio.to_thread.run_sync(partial(call, type="a", data=None))

        def in_a_thread() -> None:
            trio.from_thread.run_sync(lambda: sink.try_emit(type="a", data=None))

        await trio.to_thread.run_sync(in_a_thread)

    assert sink.statistics().delivered == 1


@pytest.mark.spec("E7")
async def test_sink_moves_to_the_thread_that_starts_it() -> None:
    made: list[BackpressureAwareEventSink] = []
    thread = threading.Thread(target=lambda: made.append(BackpressureAwareEventSink(Downstream())))
    thread.start()
    await trio.to_thread.run_sync(thread.join)

    with pytest.raises(ForeignThreadError):
        try_all(made[0], "a")
    async with made[0] as sink:
        assert try_all(sink, "a") == [True]


async def test_sink_takes_what_its_downstream_takes() -> None:
    assert BackpressureAwareEventSink(Downstream()).takes("a")
    assert not BackpressureAwareEventSink(NoOpEventSink()).takes("a")


async def test_offer_is_declined_unless_the_worker_runs_and_has_room() -> None:
    gate = Gate()
    sink = BackpressureAwareEventSink(gate, max_queue_size=1)
    assert not sink.offer(type="a", data=None)

    async with sink:
        answers = [sink.offer(type=type, data=None) for type in ("a", "b")]
        assert answers == [True, False]
        assert sink.metrics.dropped == 0
        gate.open()


@pytest.mark.spec("E35")
async def test_events_are_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "actorflow.events"):
        async with BackpressureAwareEventSink() as sink:
            try_all(sink, "a")

    assert [record.message for record in caplog.records] == ["Event: a"]


# The worker


@pytest.mark.spec("E43")
async def test_one_event_is_in_flight_at_a_time(autojump_clock: MockClock) -> None:
    downstream = Downstream(1)
    async with BackpressureAwareEventSink(downstream) as sink:
        try_all(sink, *"abc")
        await sink.flush()

    assert downstream.most_active == 1
    assert downstream.delivered == ["a", "b", "c"]


@pytest.mark.spec("E44")
async def test_idle_sink_sets_no_timer(mock_clock: MockClock) -> None:
    async with BackpressureAwareEventSink(Downstream()) as sink:
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
        try_all(sink, "a")
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")

    assert sink.statistics().delivered == 1


@pytest.mark.spec("E44")
async def test_full_queue_does_not_keep_others_from_running() -> None:
    downstream = Downstream()
    seen: list[int] = []

    async def look() -> None:
        while len(downstream.delivered) < 1000:
            seen.append(len(downstream.delivered))
            await trio.lowlevel.checkpoint()

    async with BackpressureAwareEventSink(downstream) as sink:
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            try_all(sink, *["a"] * 1000)
            nursery.start_soon(look)

    # The scheduler shuffles, so somebody may run at the beginning of one round and
    # at the end of the next.
    assert max(after - before for before, after in pairwise(seen)) <= 200


@pytest.mark.spec("E47")
async def test_failing_downstream_costs_only_its_events(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    downstream = Downstream()
    async with BackpressureAwareEventSink(
        downstream, on_error=lambda *event: told.append(event)
    ) as sink:
        try_all(sink, "bad.1", "good", "bad.2")
        await sink.flush()

    assert downstream.delivered == ["good"]
    assert (sink.statistics().failed, sink.statistics().delivered) == (2, 1)
    assert [(type, repr(error)) for type, _, error in told] == [
        ("bad.1", "OSError('bad.1')"),
        ("bad.2", "OSError('bad.2')"),
    ]
    failures = [r for r in caplog.records if r.message == "event_sink_downstream_failed"]
    assert [(r.levelname, r.__dict__["event_type"]) for r in failures] == [
        ("ERROR", "bad.1"),
        ("ERROR", "bad.2"),
    ]


@pytest.mark.spec("E47")
async def test_failing_flush_of_the_downstream_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unflushable(Downstream):
        async def flush(self) -> None:
            raise OSError("flush")

    async with BackpressureAwareEventSink(Unflushable()) as sink:
        try_all(sink, "a")
        await sink.flush()
        report = await sink.stop()

    assert report == DrainReport()
    assert len(caplog.records) == 2


@pytest.mark.spec("E48")
async def test_downstream_may_emit_into_the_sink_that_serves_it() -> None:
    class Echo(Downstream):
        async def emit(self, *, type: str, data: Payload) -> None:
            self.delivered.append(type)
            if type == "a":
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(lambda: sink.emit(type="echo", data=None))

    echo = Echo()
    async with BackpressureAwareEventSink(echo, max_queue_size=2) as sink:
        await sink.emit(type="a", data=None)
        await sink.flush()

    assert echo.delivered == ["a", "echo", "echo"]
    assert sink.metrics.dropped == 1


@pytest.mark.spec("E46")
async def test_books_are_balanced_while_an_event_is_in_flight() -> None:
    class Watching(Downstream):
        async def emit(self, *, type: str, data: Payload) -> None:
            assert sink.statistics().in_flight == 1
            assert balanced(sink)
            await super().emit(type=type, data=data)

    def on_error(*_: object) -> None:
        assert balanced(sink)

    downstream = Watching()
    async with BackpressureAwareEventSink(downstream, on_error=on_error) as sink:
        try_all(sink, "a", "bad", "b")
        assert balanced(sink)
        await sink.flush()

    assert downstream.delivered == ["a", "b"]
    assert sink.statistics().accepted == 3


# Stopping


@pytest.mark.spec("E49")
async def test_stop_of_a_sink_that_never_ran_reports_what_it_held() -> None:
    told: list[str] = []
    sink = BackpressureAwareEventSink(Downstream(), on_drop=lambda name, _: told.append(name))
    try_all(sink, "a")

    report = await sink.stop()

    assert report == DrainReport(abandoned=(("a", None),))
    assert told == ["a"]
    assert await sink.stop() is report
    assert await BackpressureAwareEventSink().stop() == DrainReport()
    assert balanced(sink)


@pytest.mark.spec("E49", "E51")
async def test_second_stop_waits_for_the_first(autojump_clock: MockClock) -> None:
    downstream = Downstream(1)
    reports: list[DrainReport] = []

    async def stop() -> None:
        reports.append(await sink.stop())

    async with BackpressureAwareEventSink(downstream) as sink:
        try_all(sink, "a", "bad", "c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            nursery.start_soon(stop)

    assert reports[0] is reports[1]
    assert reports[0] == DrainReport(delivered=2, failed=1)
    assert downstream.flushed == 1


@pytest.mark.spec("E50")
async def test_stopping_sink_takes_nothing_new_and_keeps_its_word_to_those_who_wait() -> None:
    gate = Gate()
    async with BackpressureAwareEventSink(gate, max_queue_size=1) as sink:
        try_all(sink, "1")
        await wait_all_tasks_blocked()
        try_all(sink, "2")
        async with trio.open_nursery() as nursery:
            await emit_later(nursery, sink, "3", "4")
            nursery.start_soon(sink.stop)
            await wait_all_tasks_blocked()

            with pytest.raises(SinkClosedError):
                await sink.emit(type="late", data=None)
            assert try_all(sink, "late") == [False]
            assert not sink.offer(type="late", data=None)
            gate.open()
        with pytest.raises(SinkClosedError):
            await sink.emit(type="late", data=None)

    assert gate.delivered == ["1", "2", "3", "4"]
    assert sink.metrics.dropped == 1


@pytest.mark.spec("E52")
async def test_stop_without_drain_finishes_the_event_in_flight() -> None:
    gate = Gate()
    refused: list[type[Exception]] = []
    reports: list[DrainReport] = []

    async def emit() -> None:
        try:
            await sink.emit(type="3", data=None)
        except SinkClosedError as error:
            refused.append(type(error))

    async def stop() -> None:
        reports.append(await sink.stop(drain=False))

    async with BackpressureAwareEventSink(gate, max_queue_size=1) as sink:
        try_all(sink, "1")
        await wait_all_tasks_blocked()
        try_all(sink, "2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(emit)
            await wait_all_tasks_blocked()
            nursery.start_soon(stop)
            await wait_all_tasks_blocked()
            assert gate.delivered == []
            gate.open()

    assert gate.delivered == ["1"]
    assert gate.flushed == 0
    # Room was made for the third one, but only by taking the second.
    assert reports == [DrainReport(delivered=1, abandoned=(("2", None),))]
    assert refused == [SinkClosedError]


@pytest.mark.spec("E53")
async def test_stop_that_takes_too_long_reports_what_is_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    downstream = Downstream(2)
    async with BackpressureAwareEventSink(
        downstream, on_drop=lambda name, _: told.append(name)
    ) as sink:
        try_all(sink, "1", "2", "3", "4")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        report = await sink.stop(timeout=5)

    assert trio.current_time() - start == 5
    assert downstream.delivered == ["1", "2"]
    assert report == DrainReport(delivered=2, abandoned=(("3", None), ("4", None)), timed_out=True)
    assert told == ["3", "4"]
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "event_sink_drain_timeout")
    assert record.__dict__.items() >= {"remaining": 2, "in_flight_type": "3"}.items()
    assert balanced(sink)


@pytest.mark.spec("E53")
async def test_cancelled_stop_is_a_stop_without_patience(autojump_clock: MockClock) -> None:
    downstream = Downstream(2)
    async with BackpressureAwareEventSink(downstream) as sink:
        try_all(sink, "1", "2")
        with trio.move_on_after(3):
            await sink.stop(timeout=60)
        assert not sink.is_running
        assert (await sink.stop()).abandoned == ()

    assert downstream.delivered == ["1"]
    assert sink.statistics().abandoned == 1


@pytest.mark.spec("E54")
@pytest.mark.parametrize("ending", ["exception", "cancel"])
async def test_block_that_is_left_in_a_hurry_drains_all_the_same(
    ending: str, autojump_clock: MockClock
) -> None:
    downstream = Downstream(1)

    with trio.CancelScope() as scope, pytest.raises((ZeroDivisionError, trio.Cancelled)):
        async with BackpressureAwareEventSink(downstream, stop_timeout=2.5) as sink:
            try_all(sink, "1", "2", "3")
            await wait_all_tasks_blocked()
            if ending == "exception":
                raise ZeroDivisionError
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert downstream.delivered == ["1", "2"]
    assert sink.statistics().abandoned == 1


@pytest.mark.spec("E54")
async def test_closing_system_drains_its_sinks(autojump_clock: MockClock) -> None:
    downstream = Downstream(1)
    sink = BackpressureAwareEventSink(downstream)

    async with open_system():
        await sink.start()
        try_all(sink, "1", "2")

    assert downstream.delivered == ["1", "2"]
    assert downstream.flushed == 1
    assert await sink.stop() == DrainReport()


async def test_event_that_comes_as_the_system_closes_is_delivered() -> None:
    downstream = Downstream()
    sink = BackpressureAwareEventSink(downstream)

    async with open_system() as system:
        await sink.start()
        await wait_all_tasks_blocked()
        system.stop()
        assert try_all(sink, "last") == [True]
        await trio.sleep(1)

    assert downstream.delivered == ["last"]


async def test_killed_worker_accounts_for_what_it_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    sink = BackpressureAwareEventSink(Gate(), on_drop=lambda name, _: told.append(name))
    async with open_system() as system:
        await sink.start()
        try_all(sink, "1", "2")
        await wait_all_tasks_blocked()
        (path,) = [path for path in _paths(system) if "event_sink" in path]
        system[path].kill()
        await sink.flush()

        assert not sink.is_running
        assert told == ["1", "2"]
        assert [r.message for r in caplog.records] == ["event_sink_drain_timeout"]
        assert balanced(sink)
        await sink.start()
        assert sink.is_running


async def test_start_waits_for_a_worker_that_is_being_stopped(autojump_clock: MockClock) -> None:
    downstream = Downstream(1)
    sink = BackpressureAwareEventSink(downstream)
    async with open_system() as outer:
        async with open_system() as inner:
            await sink.start(inner)
            try_all(sink, "1")
            await wait_all_tasks_blocked()
            inner.stop()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                await sink.start(outer)
        assert sink.is_running
        try_all(sink, "2")

    assert downstream.delivered == ["1", "2"]


@pytest.mark.spec("E55")
async def test_flush_waits_for_what_was_accepted_before_it() -> None:
    gate = Gate()
    flushed_at: list[list[str]] = []

    async def flush() -> None:
        await sink.flush()
        flushed_at.append(list(gate.delivered))

    async with BackpressureAwareEventSink(gate) as sink:
        try_all(sink, "1", "2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await wait_all_tasks_blocked()
            try_all(sink, "3")
            gate.open(2)
        assert flushed_at == [["1", "2"]]
        assert gate.flushed == 1
        gate.open()


@pytest.mark.spec("E55")
async def test_flush_of_a_sink_nobody_works_for_ends_at_once() -> None:
    sink = BackpressureAwareEventSink(Downstream())
    await sink.flush()
    try_all(sink, "a")

    with pytest.raises(SinkNotRunningError):
        await sink.flush()
    await sink.stop()
    await sink.flush()


@pytest.mark.spec("E56")
async def test_only_aclose_closes_the_downstream() -> None:
    downstream = Downstream()
    async with BackpressureAwareEventSink(downstream) as sink:
        try_all(sink, "a")
    assert downstream.closed == 0

    await sink.aclose()

    assert downstream.closed == 1
    assert downstream.delivered == ["a"]


@pytest.mark.spec("E56")
@pytest.mark.parametrize("is_async", [True, False])
async def test_downstream_may_have_close_instead(is_async: bool) -> None:
    closed: list[str] = []

    async def close_later() -> None:
        closed.append("async")

    class Closable(Downstream):
        aclose = None  # type: ignore[assignment] # hidden below

        def close(self) -> Any:
            return close_later() if is_async else closed.append("sync")

        def __getattribute__(self, name: str) -> Any:
            if name == "aclose":
                raise AttributeError(name)
            return super().__getattribute__(name)

    await BackpressureAwareEventSink(Closable()).aclose()

    assert closed == ["async" if is_async else "sync"]


@pytest.mark.spec("E57")
def test_forgotten_events_are_warned_about() -> None:
    def forget() -> None:
        sink = BackpressureAwareEventSink(Downstream())
        try_all(sink, "a", "b")
        del sink
        gc.collect()

    with pytest.warns(ResourceWarning, match="2 undelivered events"):
        forget()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_queue_size": 0}, "max_queue_size"),
        ({"max_queue_size": "many"}, "max_queue_size"),
        ({"on_drop": 3}, "on_drop"),
        ({"on_error": 3}, "on_error"),
        ({"stop_timeout": -1}, "stop_timeout"),
        ({"stop_timeout": None}, "stop_timeout"),
        ({"downstream": object()}, "downstream"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, named: str) -> None:
    with pytest.raises(InvalidEventSinkError, match=named):
        BackpressureAwareEventSink(**arguments)


async def test_bad_timeout_of_stop_is_refused() -> None:
    with pytest.raises(InvalidEventSinkError, match="timeout"):
        await BackpressureAwareEventSink().stop(timeout=-1)


async def test_sink_shows_its_state() -> None:
    sink = BackpressureAwareEventSink(Downstream())

    assert repr(sink) == "<BackpressureAwareEventSink new, 0 queued>"


# Waiting for everybody


@pytest.mark.spec("E58", "E59")
async def test_waiting_for_sinks_ends_when_what_they_had_is_out() -> None:
    first, second = Gate(), Gate()
    waited: list[tuple[list[str], list[str]]] = []

    async def wait() -> None:
        await wait_for_event_sink_tasks()
        waited.append((list(first.delivered), list(second.delivered)))

    async with (
        BackpressureAwareEventSink(first) as one,
        BackpressureAwareEventSink(second) as two,
        BackpressureAwareEventSink(Downstream()) as failing,
    ):
        try_all(one, "1", "2")
        try_all(two, "1")
        try_all(failing, "bad")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            try_all(one, "later")
            first.open(2)
            await wait_all_tasks_blocked()
            assert not waited
            second.open()
        assert waited == [(["1", "2"], ["1"])]
        first.open()


@pytest.mark.spec("E59", "E60")
async def test_waiting_for_nothing_is_one_checkpoint() -> None:
    sink = BackpressureAwareEventSink(Downstream())
    try_all(sink, "never delivered")
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = steps
        for _ in range(20):
            await wait_for_event_sink_tasks()
        assert 18 <= steps - before <= 22
        with trio.CancelScope() as scope, pytest.raises(trio.Cancelled):
            scope.cancel()
            await wait_for_event_sink_tasks()
        nursery.cancel_scope.cancel()
    await sink.stop()


async def test_numbers_stay_in_order_through_the_queue() -> None:
    class Numbers(Downstream):
        async def emit(self, *, type: str, data: Payload) -> None:
            assert data is not None
            self.numbers.append(data["seq"])
            await trio.lowlevel.checkpoint()

        def __init__(self) -> None:
            super().__init__()
            self.numbers: list[int] = []

    numbers = Numbers()
    async with BackpressureAwareEventSink(numbers, max_queue_size=3) as sink:
        bound = BoundEventSink(sink)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(lambda: bound.emit(type="a", data=None))
                bound.try_emit(type="b", data=None)
                await trio.lowlevel.checkpoint()

    assert numbers.numbers == sorted(numbers.numbers)
    assert len(numbers.numbers) + sink.metrics.dropped == bound.last_seq


@pytest.mark.spec("E60")
async def test_nobody_remembers_a_sink_that_has_stopped() -> None:
    async with BackpressureAwareEventSink(NoOpEventSink()) as sink:
        await sink.emit(type="a", data=None)
        assert len(_present_work()) == 1

    # A process that runs for days has many of them.
    assert _present_work() == set()
