"""Counting what a queue does, and saying when its producers should slow down."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.audio import BackpressureMonitor, BackpressureStats
from actorflow.errors import InvalidAudioError


@pytest.mark.spec("A7")
def test_put_counts_and_knows_the_peak_and_the_fill() -> None:
    monitor = BackpressureMonitor()
    for size in (3, 7, 2):
        monitor.record_put(size, 20)

    assert monitor.stats == BackpressureStats(total_items=3, max_queue_size=7)
    assert monitor.fill_percentage == pytest.approx(10)


@pytest.mark.spec("A7")
def test_fuller_of_two_measures_is_the_fill() -> None:
    monitor = BackpressureMonitor()

    monitor.record_put(1, 10, 0.5)
    assert monitor.fill_percentage == 50
    monitor.record_get(9, 10, 0.5)
    assert monitor.fill_percentage == 90


@pytest.mark.spec("A8")
def test_throttling_lasts_from_the_high_mark_to_the_low_one() -> None:
    monitor = BackpressureMonitor()
    said = []
    for size in (79, 80, 50, 21, 20, 50, 79):
        monitor.record_put(size)
        said.append(monitor.should_throttle())

    assert said == [False, True, True, True, False, False, False]


@pytest.mark.spec("A9")
def test_get_ends_throttling_and_counts_nothing() -> None:
    monitor = BackpressureMonitor()
    monitor.record_put(90)
    before = monitor.stats
    monitor.record_get(20)

    assert not monitor.should_throttle()
    assert monitor.fill_percentage == 20
    assert monitor.stats == before


@pytest.mark.spec("A9")
def test_waits_and_drops_are_counted_on_their_own() -> None:
    monitor = BackpressureMonitor()
    monitor.record_blocked(2.5)
    monitor.record_blocked(1)
    monitor.record_drop()

    assert monitor.stats == BackpressureStats(dropped_items=1, blocked_puts=2, total_blocked_ms=3.5)
    assert monitor.fill_percentage == 0


@pytest.mark.spec("A10")
def test_stats_do_not_change_later_and_have_a_drop_rate() -> None:
    monitor = BackpressureMonitor()
    assert monitor.stats.to_dict()["drop_rate"] == 0
    for _ in range(4):
        monitor.record_put(1)
    monitor.record_drop()
    stats = monitor.stats
    monitor.record_put(2)

    assert stats.to_dict() == {
        "total_items": 4,
        "dropped_items": 1,
        "blocked_puts": 0,
        "max_queue_size": 1,
        "total_blocked_ms": 0.0,
        "drop_rate": 0.25,
    }
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        stats.total_items = 0  # type: ignore[misc]


@pytest.mark.spec("A11")
@pytest.mark.parametrize(("threshold", "high", "low"), [(0.5, 50, 20), (0.3, 30, 15), (1, 100, 20)])
def test_threshold_sets_both_marks(threshold: float, high: int, low: int) -> None:
    monitor = BackpressureMonitor(threshold=threshold)
    said = []
    for size in (high - 1, high, low + 1, low):
        monitor.record_put(size)
        said.append(monitor.should_throttle())

    assert said == [False, True, True, False]


@pytest.mark.spec("A8", "A9", "A11")
@given(
    marks=st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True).map(sorted),
    looks=st.lists(st.tuples(st.booleans(), st.integers(0, 50))),
)
def test_latch_depends_on_the_last_mark_that_was_passed(
    marks: list[int], looks: list[tuple[bool, int]]
) -> None:
    low, high = marks
    monitor = BackpressureMonitor(high_water_mark=high, low_water_mark=low)
    expected = False
    for is_put, size in looks:
        record = monitor.record_put if is_put else monitor.record_get
        record(size, 50)
        fill = size / 50 * 100
        expected = True if fill >= high else False if fill <= low else expected

        assert monitor.should_throttle() is expected
    assert monitor.stats.total_items == sum(is_put for is_put, _ in looks)


@pytest.mark.parametrize(
    "marks",
    [
        {"high_water_mark": 101},
        {"high_water_mark": -1},
        {"low_water_mark": -1},
        {"low_water_mark": 80},
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"threshold": 0},
    ],
)
def test_marks_out_of_order_are_refused(marks: dict[str, Any]) -> None:
    with pytest.raises(InvalidAudioError):
        BackpressureMonitor(**marks)


@pytest.mark.parametrize("arguments", [(-1,), (0, 0), (0, 1, -1.0), (0, 1, float("nan"))])
def test_sizes_that_cannot_be_are_refused(arguments: Any) -> None:
    # Any: it is the point that it may be anything.
    monitor = BackpressureMonitor()

    with pytest.raises(InvalidAudioError):
        monitor.record_put(*arguments)
    with pytest.raises(InvalidAudioError):
        monitor.record_get(*arguments)
    assert monitor.stats == BackpressureStats()


def test_negative_wait_is_refused() -> None:
    with pytest.raises(InvalidAudioError, match="blocked_ms"):
        BackpressureMonitor().record_blocked(-1)
