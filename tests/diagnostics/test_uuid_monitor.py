"""Ids that come twice, and ids whose time is off."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import timezone
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.diagnostics import ClockSkewDetector, UuidCollisionMonitor, UuidEvent
from actorflow.diagnostics._window import IdWindow
from actorflow.errors import InvalidDiagnosticsError
from actorflow.events import event_sink_scope
from actorflow.testing import RecordingEventSink

ONE, OTHER, THIRD = (uuid.UUID(int=number, version=4) for number in (1, 2, 3))


def of_time(unix_time: float) -> uuid.UUID:
    """A UUIDv7 of this moment."""
    return uuid.UUID(int=round(unix_time * 1000) << 80 | 7 << 76 | 0b10 << 62)


# The window


@pytest.mark.spec("G78")
async def test_id_that_comes_again_is_a_collision() -> None:
    monitor = UuidCollisionMonitor()

    assert [monitor.observe(uid) for uid in (ONE, ONE, OTHER, ONE)] == [False, True, False, True]
    assert monitor.statistics().observed == 4
    assert monitor.statistics().collisions == 2


@pytest.mark.spec("G78", "G79")
async def test_every_sighting_gives_an_id_its_whole_lifetime_anew(
    autojump_clock: MockClock,
) -> None:
    monitor = UuidCollisionMonitor(ttl_seconds=10)

    seen = []
    for pause in (0, 9, 9, 10):
        await trio.sleep(pause)
        seen.append(monitor.observe(ONE))

    # After ten seconds it is not younger than ten seconds.
    assert seen == [False, True, True, False]


@pytest.mark.spec("G79")
def test_id_of_an_earlier_trio_run_is_known() -> None:
    # The clock of each run begins somewhere else.
    monitor = UuidCollisionMonitor()
    uid = uuid.uuid4()

    async def observe() -> bool:
        return monitor.observe(uid)

    def run_with_clock_at(seconds: float) -> bool:
        clock = MockClock()
        clock.jump(seconds)
        return trio.run(observe, clock=clock)

    assert [run_with_clock_at(seconds) for seconds in (1e6, 0, 1e6)] == [False, True, True]


@pytest.mark.spec("G79")
async def test_ids_leave_in_time_without_being_asked_for(autojump_clock: MockClock) -> None:
    monitor = UuidCollisionMonitor(ttl_seconds=10)
    monitor.observe(ONE)
    await trio.sleep(5)
    monitor.observe(OTHER)

    assert len(monitor) == 2
    await trio.sleep(5)
    assert len(monitor) == 1
    assert monitor.statistics().in_window == 1
    await trio.sleep(5)
    assert len(monitor) == 0


@pytest.mark.spec("G79")
async def test_oldest_id_makes_room() -> None:
    monitor = UuidCollisionMonitor(max_entries=2)
    for uid in (ONE, OTHER, ONE, THIRD):
        monitor.observe(uid)

    # ONE was seen after OTHER.
    assert len(monitor) == 2
    assert monitor.observe(ONE)
    assert not monitor.observe(OTHER)


@pytest.mark.spec("G79")
async def test_window_has_a_second_and_an_id_at_least(autojump_clock: MockClock) -> None:
    monitor = UuidCollisionMonitor(ttl_seconds=-5, max_entries=0)

    monitor.observe(ONE)
    await trio.sleep(0.5)
    assert monitor.observe(ONE)
    await trio.sleep(1.5)
    assert not monitor.observe(ONE)


@pytest.mark.spec("G78", "G79", "G80")
@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 4)), max_size=40),
    st.integers(1, 4),
)
def test_window_holds_what_a_list_of_all_sightings_says(
    sightings: list[tuple[int, float]], max_entries: int
) -> None:
    window = IdWindow(5, max_entries)
    newest: dict[uuid.UUID, float] = {}
    now = 0.0

    for number, pause in sightings:
        now += pause
        uid = uuid.UUID(int=number)
        newest = {it: at for it, at in newest.items() if now - at < 5}
        assert (window.observe(uid, now) > 1) is (uid in newest)
        newest.pop(uid, None)
        newest = dict([*newest.items(), (uid, now)][-max_entries:])
        assert window.size(now) == len(newest)


@pytest.mark.spec("G80")
def test_each_id_is_forgotten_once_and_not_searched_for() -> None:
    forgotten = 0

    class Counting(OrderedDict[uuid.UUID, Any]):
        def popitem(self, last: bool = True) -> tuple[uuid.UUID, Any]:
            nonlocal forgotten
            forgotten += 1
            return super().popitem(last=last)

    window = IdWindow(10, 1_000_000)
    window._sightings = Counting()
    for second in range(1000):
        window.observe(uuid.UUID(int=second), second)
        assert forgotten <= second

    assert window.size(999) == 10
    assert forgotten == 990


@pytest.mark.spec("G79", "G84")
def test_usual_window_is_five_minutes_and_fifty_thousand_ids() -> None:
    options = inspect.signature(UuidCollisionMonitor).parameters

    assert options["ttl_seconds"].default == 300
    assert options["max_entries"].default == 50_000
    assert options["max_skew_ms"].default == 5000
    assert inspect.signature(ClockSkewDetector).parameters["max_skew_ms"].default == 5000


# What counts as an id


@pytest.mark.spec("G81")
async def test_notations_of_an_id_are_the_same_id() -> None:
    monitor = UuidCollisionMonitor()

    assert not monitor.observe(ONE)
    for text in (str(ONE), str(ONE).upper(), ONE.hex, f"{{{ONE}}}", ONE.urn):
        assert monitor.observe(text)


@pytest.mark.spec("G81", "G118")
@pytest.mark.parametrize("value", ["", "abc", None, 7, 1.5, ONE.bytes, [ONE]])
async def test_what_is_no_id_is_refused_and_leaves_no_trace(value: Any) -> None:
    monitor = UuidCollisionMonitor()

    with pytest.raises(InvalidDiagnosticsError, match="value must be a UUID") as refused:
        monitor.observe(value)

    assert isinstance(refused.value, TypeError | ValueError)
    assert refused.value.code == "DIAG-002-INVALID"
    assert refused.value.fix_hint
    assert len(monitor) == monitor.statistics().observed == 0


# Who is told


@pytest.mark.spec("G82")
async def test_listeners_hear_of_every_observation(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[UuidEvent] = []

    def broken(event: UuidEvent) -> None:
        raise LookupError("nobody there")

    monitor = UuidCollisionMonitor(category="order", listeners=[broken, heard.append])
    monitor.add_listener(heard.append)
    monitor.observe(ONE)
    monitor.observe(str(ONE))

    first, _, again, _ = heard
    assert (first.value, first.collision, first.category) == (ONE, False, "order")
    assert again.collision
    assert first.skew_ms is None
    assert first.observed_at == clock.now()
    assert first.observed_at.tzinfo is timezone.utc
    failures = [r for r in caplog.records if r.getMessage() == "diagnostics_listener_failed"]
    assert len(failures) == 2


@pytest.mark.spec("G82")
def test_listener_that_cannot_be_called_is_refused() -> None:
    listener: Any = "print"

    with pytest.raises(InvalidDiagnosticsError, match="listener must be"):
        UuidCollisionMonitor(listeners=[listener])


@pytest.mark.spec("G83", "E26")
def test_sink_that_is_false_while_it_is_empty_is_a_sink() -> None:
    class Kept(list[str]):
        async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            self.append(type)

        def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            self.append(type)

    kept = Kept()
    monitor = UuidCollisionMonitor(event_sink=kept)

    monitor.observe(ONE)
    monitor.observe(ONE)

    assert kept == ["uuid.collision"]


@pytest.mark.spec("G83", "E26")
async def test_collision_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    given, current = RecordingEventSink(strict=True), RecordingEventSink(strict=True)

    with event_sink_scope(current):
        for sink in (given, None):
            monitor = UuidCollisionMonitor(category="order", ttl_seconds=60, event_sink=sink)
            for _ in range(3):
                monitor.observe(ONE)

    told = [
        {"value": str(ONE), "category": "order", "occurrences": times, "window_seconds": 60}
        for times in (2, 3)
    ]
    assert given.payloads("uuid.collision") == current.payloads("uuid.collision") == told
    record = next(r for r in caplog.records if r.getMessage() == "uuid_collision")
    assert record.levelno == logging.WARNING
    assert (vars(record)["value"], vars(record)["occurrences"]) == (str(ONE), 2)
    assert vars(record)["category"] == "order"


@pytest.mark.spec("G83")
async def test_collision_is_found_whatever_the_sink_does(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def emit(self, *, type: str, data: Any) -> None: ...

        def try_emit(self, *, type: str, data: Any) -> None:
            raise OSError("disk full")

    monitor = UuidCollisionMonitor(event_sink=Broken())
    monitor.observe(ONE)

    assert monitor.observe(ONE)
    assert "event_emit_failed" in caplog.text


# Clocks that are off


@pytest.fixture
def new_year() -> Iterator[float]:
    with clock.starting_at(1_767_225_600.0):
        yield 1_767_225_600.0


@pytest.mark.spec("G84")
@pytest.mark.parametrize(
    ("off_by", "skew_ms"), [(0, None), (5, None), (-5, None), (5.001, 5001.0), (-60, 60_000.0)]
)
def test_skew_is_what_is_more_than_allowed(
    off_by: float, skew_ms: float | None, new_year: float
) -> None:
    assert ClockSkewDetector().check(of_time(new_year + off_by)) == skew_ms


@pytest.mark.spec("G84")
def test_id_without_a_time_is_never_off() -> None:
    detector = ClockSkewDetector(0)

    assert detector.check(uuid.uuid4()) is None
    assert detector.check(uuid.uuid1()) is None


@pytest.mark.spec("G84", "E26")
def test_skew_is_logged_and_reported(new_year: float, caplog: pytest.LogCaptureFixture) -> None:
    given, current = RecordingEventSink(strict=True), RecordingEventSink(strict=True)
    heard: list[UuidEvent] = []
    late = of_time(new_year - 6)

    with event_sink_scope(current):
        for sink in (given, None):
            monitor = UuidCollisionMonitor(
                check_skew=True, max_skew_ms=5500, event_sink=sink, listeners=[heard.append]
            )
            monitor.observe(of_time(new_year))
            assert not monitor.observe(late)
            assert monitor.statistics().skewed == 1

    told = {
        "value": str(late),
        "category": "default",
        "skew_ms": 6000.0,
        "max_skew_ms": 5500,
    }
    assert given.payloads("uuid.clock_skew") == current.payloads("uuid.clock_skew") == [told]
    assert [event.skew_ms for event in heard] == [None, 6000.0] * 2
    record = next(r for r in caplog.records if r.getMessage() == "uuid_clock_skew")
    assert record.levelno == logging.WARNING


@pytest.mark.spec("G84")
def test_skew_is_checked_for_those_who_ask(new_year: float) -> None:
    heard: list[UuidEvent] = []
    UuidCollisionMonitor(listeners=[heard.append]).observe(of_time(new_year - 3600))

    assert heard[0].skew_ms is None


@pytest.mark.parametrize("limit", [-1, float("nan"), "5", True, None])
def test_impossible_skew_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidDiagnosticsError, match="max_skew_ms must be a number from 0 on"):
        UuidCollisionMonitor(max_skew_ms=limit)
