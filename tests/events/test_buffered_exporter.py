from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import open_system
from actorflow.errors import (
    ExporterClosedError,
    ExportError,
    InvalidExporterError,
    SinkNotOwnedError,
)
from actorflow.events import AnalyticsEvent, BufferedExporter, wait_for_event_sink_tasks


class Exporter:
    """Keeps batches; takes `seconds` and fails `failures` times first."""

    def __init__(self, *, failures: float = 0, seconds: float = 0) -> None:
        self.batches: list[list[str]] = []
        self.failures = failures
        self.seconds = seconds
        self.attempts = self.flushed = self.closed = 0

    @property
    def exported(self) -> list[str]:
        return [type for batch in self.batches for type in batch]

    async def export(self, event: AnalyticsEvent) -> None:
        raise NotImplementedError

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        self.attempts += 1
        if self.seconds:
            await trio.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise OSError("no route")
        self.batches.append([event.event_type for event in events])

    async def flush(self) -> None:
        self.flushed += 1

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


def named(*types: str) -> list[AnalyticsEvent]:
    return [AnalyticsEvent(type) for type in types]


@pytest.mark.spec("E95")
async def test_full_batch_leaves_at_once() -> None:
    exporter = Exporter()
    buffered = BufferedExporter(exporter, batch_size=2)

    await buffered.export(*named("a"))
    assert (exporter.batches, buffered.buffer_size) == ([], 1)
    await buffered.export(*named("b"))
    await buffered.export_batch(named("c", "d", "e"))
    await buffered.export(*named("f"))

    assert exporter.batches == [["a", "b"], ["c", "d", "e"]]
    assert buffered.buffer_size == 1


@pytest.mark.spec("E95")
async def test_quiet_batch_leaves_an_interval_after_its_first_event(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter()
    async with BufferedExporter(sink=exporter, flush_interval=10) as buffered:
        await trio.sleep(25)
        await buffered.export(*named("a"))
        await trio.sleep(6)
        await buffered.export(*named("b"))
        await trio.sleep(3.9)
        assert exporter.batches == []
        await trio.sleep(0.2)
        assert exporter.batches == [["a", "b"]]
        await trio.sleep(100)
        await buffered.export(*named("c"))
        await trio.sleep(10.1)

    assert exporter.batches == [["a", "b"], ["c"]]
    assert exporter.closed == 1


@pytest.mark.spec("E95")
async def test_idle_exporter_sets_no_timer(mock_clock: MockClock) -> None:
    async with BufferedExporter(Exporter()):
        await wait_all_tasks_blocked()

        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


@pytest.mark.spec("E95")
async def test_without_an_owner_the_next_export_looks_at_the_clock(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter()
    buffered = BufferedExporter(exporter, flush_interval_seconds=10)
    await buffered.export(*named("a"))
    await trio.sleep(9)
    await buffered.export(*named("b"))
    assert exporter.batches == []
    await trio.sleep(1)
    await buffered.export(*named("c"))

    assert exporter.batches == [["a", "b", "c"]]
    with pytest.raises(SinkNotOwnedError):
        await buffered.start()


@pytest.mark.spec("E95")
async def test_system_may_own_the_timer(autojump_clock: MockClock) -> None:
    exporter = Exporter()
    buffered = BufferedExporter(exporter, flush_interval=5)
    await buffered.export(*named("before"))

    async with open_system() as system:
        await trio.sleep(2)
        await buffered.start(system)
        await buffered.start()
        await trio.sleep(3.1)
        assert exporter.batches == [["before"]]
        await buffered.export(*named("last"))

    assert exporter.batches == [["before"], ["last"]]
    assert exporter.closed == 0


@pytest.mark.spec("E96", "E97")
async def test_full_buffer_drops_its_oldest_event() -> None:
    told: list[tuple[int, int]] = []
    exporter = Exporter(failures=float("inf"))
    buffered = BufferedExporter(
        exporter,
        batch_size=3,
        max_buffer_size=3,
        on_overflow=lambda count, size: told.append((count, size)),
    )

    for type in "abcde":
        await buffered.export(*named(type))

    assert buffered.stats == {
        "buffer_size": 3,
        "max_buffer_size": 3,
        "fill_ratio": 1.0,
        "dropped_count": 2,
        "high_water_warned": True,
    }
    assert (buffered.dropped_count, buffered.buffer_size) == (2, 3)
    assert told == [(-1, 3), (1, 3), (2, 3)]
    exporter.failures = 0
    await buffered.flush()
    assert exporter.exported == ["c", "d", "e"]


@pytest.mark.spec("E96")
async def test_high_water_is_told_once_until_it_has_gone_down() -> None:
    told: list[int] = []
    exporter = Exporter()
    buffered = BufferedExporter(
        exporter,
        batch_size=100,
        max_buffer_size=100,
        high_water_mark=0.5,
        on_overflow=lambda count, _: told.append(count),
    )

    await buffered.export_batch(named(*["a"] * 70))
    assert told == [-1]
    assert buffered.stats["high_water_warned"]
    await buffered.flush()
    assert not buffered.stats["high_water_warned"]
    await buffered.export_batch(named(*["a"] * 50))

    assert told == [-1, -1]


@pytest.mark.spec("E96")
@pytest.mark.parametrize(("came_meanwhile", "is_told_again"), [(3, True), (4, False)])
async def test_high_water_has_gone_down_at_half_of_it(
    autojump_clock: MockClock, came_meanwhile: int, is_told_again: bool
) -> None:
    buffered = BufferedExporter(
        Exporter(seconds=1), batch_size=8, max_buffer_size=10, high_water_mark=0.8
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffered.export_batch, named(*["a"] * 8))
        await wait_all_tasks_blocked()
        await buffered.export_batch(named(*["b"] * came_meanwhile))

    assert buffered.stats["high_water_warned"] is not is_told_again


@pytest.mark.spec("E96")
async def test_exception_of_the_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: int) -> None:
        raise ZeroDivisionError

    buffered = BufferedExporter(Exporter(), batch_size=2, max_buffer_size=2, on_overflow=fail)

    await buffered.export_batch(named("a", "b", "c"))

    assert [record.message for record in caplog.records] == ["event_sink_callback_failed"] * 2


@pytest.mark.spec("E98")
async def test_batch_that_failed_stays_first(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter(failures=2)
    buffered = BufferedExporter(exporter, batch_size=2)

    await buffered.export_batch(named("a", "b"))
    await buffered.export(*named("c"))
    assert exporter.attempts == 1
    await buffered.export(*named("d"))
    assert exporter.attempts == 2
    await buffered.export_batch(named("e", "f"))

    assert exporter.batches == [["a", "b", "c", "d", "e", "f"]]
    messages = [(r.levelname, r.message, r.__dict__["events"]) for r in caplog.records]
    assert messages == [
        ("ERROR", "analytics_export_failed", 2),
        ("ERROR", "analytics_export_failed", 4),
    ]


@pytest.mark.spec("E98")
async def test_timer_goes_on_after_a_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Exporter(failures=2)
    async with BufferedExporter(exporter, flush_interval=10) as buffered:
        await buffered.export(*named("a"))
        await trio.sleep(25)
        assert (exporter.attempts, exporter.batches) == (2, [])
        await trio.sleep(6)

        assert exporter.batches == [["a"]]


@pytest.mark.spec("E98")
async def test_flush_that_was_asked_for_tells_its_failure() -> None:
    class Unflushable(Exporter):
        async def flush(self) -> None:
            raise OSError("flush")

    exporter = Exporter(failures=1)
    buffered = BufferedExporter(exporter)
    await buffered.export_batch(named("a", "b"))

    with pytest.raises(ExportError) as caught:
        await buffered.flush()
    assert (caught.value.undelivered, caught.value.exporter) == (2, "Exporter")
    assert isinstance(caught.value.__cause__, OSError)
    await buffered.flush()
    assert (exporter.exported, exporter.flushed) == (["a", "b"], 1)

    with pytest.raises(ExportError) as caught:
        await BufferedExporter(Unflushable()).flush()
    assert caught.value.undelivered == 0


@pytest.mark.spec("E98")
async def test_export_only_appends_while_a_batch_is_written(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=1)
    buffered = BufferedExporter(exporter, batch_size=2, max_buffer_size=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffered.export_batch, named("a", "b"))
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await buffered.export_batch(named("c", "d", "e"))
        assert trio.current_time() == start
        assert buffered.buffer_size == 3

    assert buffered.stats["high_water_warned"]
    await buffered.flush()
    assert exporter.batches == [["a", "b"], ["c", "d", "e"]]


@pytest.mark.spec("E98")
async def test_batch_that_failed_stays_before_what_came_meanwhile(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=1, failures=1)
    buffered = BufferedExporter(exporter, batch_size=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffered.export_batch, named("a", "b"))
        await wait_all_tasks_blocked()
        await buffered.export(*named("c"))

    await buffered.flush()
    assert exporter.batches == [["a", "b", "c"]]


@pytest.mark.spec("E98")
async def test_cancelled_export_loses_nothing(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=5)
    buffered = BufferedExporter(exporter, batch_size=2)

    with trio.move_on_after(1):
        await buffered.export_batch(named("a", "b"))
    await buffered.export(*named("c"))
    await buffered.flush()

    assert exporter.batches == [["a", "b", "c"]]


@pytest.mark.spec("E98")
async def test_close_flushes_closes_and_tells_what_remains() -> None:
    exporter = Exporter(failures=1)
    buffered = BufferedExporter(exporter)
    await buffered.export_batch(named("a", "b"))

    with pytest.raises(ExportError) as caught:
        await buffered.close()
    assert caught.value.undelivered == 2
    assert isinstance(caught.value.__cause__, OSError)
    await buffered.close()

    assert exporter.closed == 1
    with pytest.raises(ExporterClosedError):
        await buffered.export(*named("c"))


@pytest.mark.spec("E98")
async def test_block_that_is_cancelled_exports_its_last_batch(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=1)

    with trio.CancelScope() as scope:
        async with BufferedExporter(exporter) as buffered:
            await buffered.export(*named("a"))
            scope.cancel()

    assert exporter.batches == [["a"]]
    assert exporter.closed == 1


@pytest.mark.spec("E98")
async def test_last_batch_that_takes_too_long_is_told_and_the_exporter_closed(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=100)
    start = trio.current_time()

    with pytest.raises(ExportError) as caught:
        async with BufferedExporter(exporter, close_timeout=3) as buffered:
            await buffered.export(*named("a"))

    assert trio.current_time() - start == 3
    assert caught.value.undelivered == 1
    assert exporter.closed == 1


@pytest.mark.spec("E98")
async def test_batch_that_the_timer_is_exporting_counts_as_undelivered(
    autojump_clock: MockClock,
) -> None:
    exporter = Exporter(seconds=100)

    with pytest.raises(ExportError) as caught:
        async with BufferedExporter(exporter, flush_interval=1, close_timeout=3) as buffered:
            await buffered.export_batch(named("a", "b"))
            await trio.sleep(2)
            assert (buffered.buffer_size, buffered.is_empty) == (0, False)

    assert caught.value.undelivered == 2


@pytest.mark.spec("E58")
async def test_waiting_for_sinks_flushes_the_buffer(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=1)
    async with BufferedExporter(exporter) as buffered:
        await wait_for_event_sink_tasks()
        assert exporter.attempts == 0
        await buffered.export(*named("a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_event_sink_tasks)
            await wait_all_tasks_blocked()
            await buffered.export(*named("b"))
            nursery.start_soon(wait_for_event_sink_tasks)
        assert exporter.batches == [["a"], ["b"]]

        exporter.failures = 1
        await buffered.export(*named("c"))
        await wait_for_event_sink_tasks()
        assert (buffered.buffer_size, buffered.is_empty) == (1, False)
    assert exporter.exported == ["a", "b", "c"]


async def test_killed_timer_leaves_nobody_waiting(autojump_clock: MockClock) -> None:
    exporter = Exporter(seconds=60)
    buffered = BufferedExporter(exporter)
    async with open_system() as system:
        await buffered.start()
        await buffered.export(*named("a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_event_sink_tasks)
            await wait_all_tasks_blocked()
            nursery.start_soon(wait_for_event_sink_tasks)
            await wait_all_tasks_blocked()
            (path,) = [
                info.path for _, info in system.tree().walk() if "event_exporter" in info.path
            ]
            system[path].kill()
        assert buffered.buffer_size == 1
    exporter.seconds = 0
    await buffered.close()
    assert exporter.exported == ["a"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "exporter"),
        ({"exporter": Exporter(), "sink": Exporter()}, "exporter"),
        ({"exporter": Exporter(), "batch_size": 0}, "batch_size"),
        ({"exporter": Exporter(), "batch_size": 3, "max_buffer_size": 2}, "batch_size"),
        ({"exporter": Exporter(), "batch_size": 0, "max_buffer_size": 0}, "batch_size"),
        ({"exporter": Exporter(), "max_buffer_size": 0}, "max_buffer_size"),
        ({"exporter": Exporter(), "flush_interval": 0}, "flush_interval_seconds"),
        ({"exporter": Exporter(), "high_water_mark": 0}, "high_water_mark"),
        ({"exporter": Exporter(), "high_water_mark": 1.1}, "high_water_mark"),
        ({"exporter": Exporter(), "close_timeout": -1}, "close_timeout"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, named: str) -> None:
    with pytest.raises(InvalidExporterError, match=named) as caught:
        BufferedExporter(**arguments)
    assert isinstance(caught.value, TypeError)


@pytest.mark.spec("E98", "E96")
@given(
    st.lists(st.sampled_from(["export", "batch", "sleep", "flush", "fail", "cancel"]), max_size=25),
    st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=60)
def test_events_leave_once_and_in_order_or_are_counted_as_dropped(
    program: list[str], batch_size: int, owned: bool
) -> None:
    exporter = Exporter()
    emitted = 0

    async def play(buffered: BufferedExporter) -> None:
        nonlocal emitted
        for operation in program:
            exporter.seconds = 0
            if operation == "export":
                emitted += 1
                await buffered.export(*named(f"{emitted:03}"))
            elif operation == "batch":
                emitted += 3
                await buffered.export_batch(named(*(f"{emitted - 2 + n:03}" for n in range(3))))
            elif operation == "sleep":
                await trio.sleep(4)
            elif operation == "fail":
                exporter.failures += 1
            else:
                exporter.seconds = 5 if operation == "cancel" else 0
                with trio.move_on_after(1 if operation == "cancel" else 100):
                    with suppress(ExportError):
                        await buffered.flush()

    async def main() -> BufferedExporter:
        buffered = BufferedExporter(
            exporter, batch_size=batch_size, max_buffer_size=6, flush_interval=3
        )
        if owned:
            async with buffered:
                await play(buffered)
                exporter.failures = exporter.seconds = 0
        else:
            await play(buffered)
            exporter.failures = exporter.seconds = 0
            await buffered.close()
        return buffered

    buffered = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert exporter.exported == sorted(set(exporter.exported))
    assert len(exporter.exported) + buffered.dropped_count == emitted
