from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import open_system
from actorflow.errors import (
    ExportError,
    ForeignThreadError,
    InvalidArgumentError,
    SinkClosedError,
    SinkNotOwnedError,
)
from actorflow.events import (
    AnalyticsEvent,
    AnalyticsSink,
    BoundEventSink,
    BufferedExporter,
    JSONFileExporter,
    read_events,
    wait_for_event_sink_tasks,
)


class Exporter:
    """Keeps events; takes `seconds` per batch and refuses events whose type begins with "bad"."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.events: list[AnalyticsEvent] = []
        self.batches: list[int] = []
        self.flushed = self.closed = 0

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.events]

    async def export(self, event: AnalyticsEvent) -> None:
        await self.export_batch([event])

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        batch = list(events)
        assert len(batch) <= 100
        await trio.sleep(self.seconds)
        if any(event.event_type.startswith("bad") for event in batch):
            raise OSError("refused")
        self.events += batch
        self.batches.append(len(batch))

    async def flush(self) -> None:
        self.flushed += 1

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


def try_all(sink: AnalyticsSink, *types: str) -> list[bool | None]:
    return [sink.try_emit(type=type, data=None) for type in types]


@pytest.mark.spec("E101")
async def test_event_is_converted() -> None:
    exporter = Exporter()
    time = datetime(2026, 1, 1, tzinfo=timezone.utc)
    data = {
        "pipeline_run_id": "r",
        "stage": "llm",
        "duration_ms": 1.5,
        "timestamp": time.isoformat(),
    }

    await AnalyticsSink(exporter).emit(type="stage.completed", data=data)

    assert exporter.events == [AnalyticsEvent("stage.completed", time, data, "r", "llm", 1.5)]


@pytest.mark.spec("E100")
@pytest.mark.parametrize(
    ("include", "exclude", "passed"),
    [
        (None, None, ["stage.started", "tool.started", "stage.failed"]),
        (["stage"], None, ["stage.started", "stage.failed"]),
        (["stage", "tool"], ["failed"], ["stage.started", "tool.started"]),
        (None, ["start"], ["stage.failed"]),
    ],
)
async def test_patterns_choose_events(
    include: list[str] | None, exclude: list[str] | None, passed: list[str]
) -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter, include_patterns=include, exclude_patterns=exclude)
    types = ["stage.started", "tool.started", "stage.failed"]

    for type in types:
        await sink.emit(type=type, data=None)
    assert try_all(sink, *types) == [True] * 3
    await sink.flush()

    assert exporter.types == passed * 2
    assert [type for type in types if sink.takes(type)] == passed


@pytest.mark.spec("E102")
async def test_emit_waits_for_the_export(autojump_clock: MockClock) -> None:
    exporter = Exporter(2)
    start = trio.current_time()

    await AnalyticsSink(exporter).emit(type="a", data=None)

    assert trio.current_time() - start == 2
    assert exporter.types == ["a"]


@pytest.mark.spec("E102")
async def test_tried_events_wait_for_the_next_emit_when_there_is_no_owner() -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)

    assert try_all(sink, "1", "2") == [True, True]
    await wait_all_tasks_blocked()
    assert (exporter.types, sink.pending) == ([], 2)
    assert not sink.offer(type="x", data=None)
    await sink.emit(type="3", data=None)

    assert exporter.types == ["1", "2", "3"]
    with pytest.raises(SinkNotOwnedError):
        await sink.start()


@pytest.mark.spec("E102")
async def test_tried_events_are_exported_by_the_actor() -> None:
    exporter = Exporter()
    async with AnalyticsSink(exporter, max_pending=2) as sink:
        assert try_all(sink, "1", "2") == [True, True]
        assert not sink.offer(type="3", data=None)
        await wait_all_tasks_blocked()
        assert exporter.types == ["1", "2"]
        assert sink.offer(type="3", data=None)

    assert exporter.types == ["1", "2", "3"]
    assert exporter.closed == 1


@pytest.mark.spec("E102")
async def test_events_that_come_during_an_export_do_not_wait_for_more(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=5)
    async with AnalyticsSink(exporter) as sink:
        try_all(sink, "a")
        await trio.sleep(2)
        try_all(sink, "b")
        # Nothing else happens that would wake anybody.
        await trio.sleep(60)

        assert exporter.types == ["a", "b"]


@pytest.mark.spec("E102")
async def test_events_that_come_during_an_export_wait_for_a_moment_too(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=0.01)
    types = [str(number) for number in range(60)]
    async with AnalyticsSink(exporter) as sink:
        for type in types:
            try_all(sink, type)
            await trio.sleep(0.001)

    assert exporter.types == types
    # Not one for each export that is just over.
    assert len(exporter.batches) <= 3


@pytest.mark.spec("E103")
async def test_flush_does_not_wait_for_what_comes_after_it(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=1)
    sink = AnalyticsSink(exporter)
    try_all(sink, "before")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.flush)
        await trio.sleep(0.5)
        try_all(sink, "after")

    assert (exporter.types, sink.pending) == (["before"], 1)


@pytest.mark.spec("E103")
async def test_events_that_come_during_the_last_export_are_exported(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=1)
    sink = AnalyticsSink(exporter)

    async with trio.open_nursery() as nursery, open_system():
        await sink.start()
        try_all(sink, "a")
        nursery.start_soon(_try_after, 0.5, sink, "b")

    assert (exporter.types, sink.pending) == (["a", "b"], 0)


async def _try_after(seconds: float, sink: AnalyticsSink, type: str) -> None:
    await trio.sleep(seconds)
    try_all(sink, type)


@pytest.mark.spec("E102")
async def test_events_from_before_there_was_an_owner_are_exported_first(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)
    try_all(sink, "early")

    async with sink:
        await trio.sleep(60)

        assert exporter.types == ["early"]


@pytest.mark.spec("E102")
async def test_actor_lets_events_come_together_for_a_moment(mock_clock: MockClock) -> None:
    exporter = Exporter()
    async with AnalyticsSink(exporter, max_pending=8) as sink:
        await wait_all_tasks_blocked()
        try_all(sink, "1")
        await wait_all_tasks_blocked()
        try_all(sink, "2")
        await wait_all_tasks_blocked()
        assert exporter.types == []
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert exporter.types == ["1", "2"]

        # Half a queue is reason enough to hurry.
        try_all(sink, "3", "4", "5", "6")
        await wait_all_tasks_blocked()
        assert exporter.types == ["1", "2", "3", "4", "5", "6"]
        await sink.emit(type="7", data=None)
        assert exporter.types[-1] == "7"

        # Also when it gets that full while it waits for more.
        try_all(sink, "8")
        await wait_all_tasks_blocked()
        try_all(sink, "9", "10", "11")
        await wait_all_tasks_blocked()
        assert exporter.types[-4:] == ["8", "9", "10", "11"]


@pytest.mark.spec("E102")
async def test_full_queue_refuses_counts_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    sink = AnalyticsSink(Exporter(), max_pending=2)

    assert try_all(sink, *"abc") == [True, True, False]

    assert sink.dropped == 1
    (record,) = caplog.records
    assert record.message == "Event dropped due to backpressure"
    wanted = {"event_type": "c", "queue_size": 2, "dropped_total": 1}
    assert record.__dict__.items() >= wanted.items()


async def test_failing_export_is_told_to_its_emitter_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)

    with pytest.raises(ExportError) as caught:
        await sink.emit(type="bad", data=None)
    assert (caught.value.undelivered, caught.value.exporter) == (1, "Exporter")
    assert isinstance(caught.value.__cause__, OSError)
    await sink.emit(type="good", data=None)

    assert (sink.failed, exporter.types) == (1, ["good"])
    assert [r.message for r in caplog.records] == ["analytics_export_failed"]


@pytest.mark.spec("E103")
async def test_flush_and_close_export_what_is_queued() -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)
    try_all(sink, "1")
    await sink.flush()
    assert (exporter.types, exporter.flushed) == (["1"], 1)

    try_all(sink, "2")
    await sink.aclose()

    assert (exporter.types, exporter.closed) == (["1", "2"], 1)
    assert try_all(sink, "3") == [False]
    with pytest.raises(SinkClosedError):
        await sink.emit(type="3", data=None)


@pytest.mark.spec("E103")
@pytest.mark.parametrize("seconds", [1, 100])
async def test_cancelled_block_exports_what_it_can_and_says_what_it_cannot(
    seconds: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Exporter(seconds)

    with trio.CancelScope() as scope:
        async with AnalyticsSink(exporter, stop_timeout=3) as sink:
            try_all(sink, "1", "2")
            scope.cancel()

    assert exporter.closed == 1
    if seconds == 1:
        assert exporter.types == ["1", "2"]
        assert not caplog.records
    else:
        assert [r.message for r in caplog.records] == ["event_sink_drain_timeout"]
        assert caplog.records[0].__dict__["remaining"] == 2


@pytest.mark.spec("E103")
async def test_closing_system_exports_what_is_queued() -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)

    async with open_system():
        await sink.start()
        await sink.start()
        await wait_all_tasks_blocked()
        try_all(sink, "1")

    assert exporter.types == ["1"]
    assert exporter.closed == 0


async def test_idle_sink_ends_with_its_system() -> None:
    exporter = Exporter()
    sink = AnalyticsSink(exporter)

    async with open_system():
        await sink.start()
        await wait_all_tasks_blocked()

    assert not sink.offer(type="1", data=None)


async def test_export_that_was_cancelled_is_repeated(autojump_clock: MockClock) -> None:
    exporter = Exporter(5)
    sink = AnalyticsSink(exporter)

    with trio.move_on_after(1):
        await sink.emit(type="1", data=None)
    await sink.emit(type="2", data=None)

    assert exporter.types == ["1", "2"]


@pytest.mark.spec("E58")
async def test_waiting_for_sinks_waits_for_exports(autojump_clock: MockClock) -> None:
    exporter = Exporter(1)
    async with AnalyticsSink(exporter) as sink:
        try_all(sink, "1", "2")
        await wait_for_event_sink_tasks()

        assert exporter.types == ["1", "2"]


@pytest.mark.spec("E11", "E102")
@given(
    st.lists(st.sampled_from(["emit", "try", "sleep"]), max_size=25),
    st.sampled_from([0, 0.5, 3]),
    st.booleans(),
)
@settings(max_examples=50)
def test_events_of_a_run_are_exported_in_order(
    program: list[str], seconds: float, owned: bool
) -> None:
    exporter = Exporter(seconds)

    async def play(sink: AnalyticsSink) -> None:
        bound = BoundEventSink(sink, emit_timeout=1e6)
        async with trio.open_nursery() as nursery:
            for operation in program:
                if operation == "emit":
                    nursery.start_soon(lambda: bound.emit(type="a", data=None))
                elif operation == "try":
                    bound.try_emit(type="b", data=None)
                else:
                    await trio.sleep(1)

    async def main() -> None:
        sink = AnalyticsSink(exporter, stop_timeout=1e6)
        if owned:
            async with sink:
                await play(sink)
        else:
            await play(sink)
            await sink.aclose()

    trio.run(main, clock=MockClock(autojump_threshold=0))

    numbers = [event.data["seq"] for event in exporter.events]
    assert numbers == list(range(1, 1 + sum(operation != "sleep" for operation in program)))


@pytest.mark.spec("E11", "E102")
async def test_event_keeps_its_place_while_its_emitter_waits(autojump_clock: MockClock) -> None:
    exporter = Exporter(2)
    sink = AnalyticsSink(exporter)
    try_all(sink, "1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: sink.emit(type="2", data=None))
        await trio.sleep(1)
        try_all(sink, "3")
    await sink.flush()

    assert exporter.types == ["1", "2", "3"]


async def test_events_find_their_way_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    exporter = BufferedExporter(JSONFileExporter(path), batch_size=7)

    async with AnalyticsSink(exporter) as sink:
        bound = BoundEventSink(sink)
        for number in range(250):
            bound.try_emit(type="order.placed", data={"number": number})
        await bound.emit(type="order.closed", data=None)

    events = list(read_events(path))
    assert [event.data.get("number") for event in events] == [*range(250), None]
    assert [event.data["seq"] for event in events] == list(range(1, 252))


def test_queue_holds_something() -> None:
    arguments: dict[str, Any] = {"max_pending": 0}
    with pytest.raises(InvalidArgumentError, match="max_pending"):
        AnalyticsSink(Exporter(), **arguments)


@pytest.mark.spec("E7")
async def test_other_threads_are_sent_back() -> None:
    exporter = Exporter()
    async with AnalyticsSink(exporter) as sink:
        await wait_all_tasks_blocked()
        for call in (sink.try_emit, sink.offer):
            with pytest.raises(ForeignThreadError):
                await trio.to_thread.run_sync(partial(call, type="a", data=None))
        assert try_all(sink, "b") == [True]

    assert exporter.types == ["b"]
