"""Samples of the memory in use, and who hears of them."""

from __future__ import annotations

import ast
import gc
import inspect
import logging
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import actorflow.diagnostics
from actorflow import clock
from actorflow.diagnostics import (
    MemorySample,
    MemoryTracker,
    current_memory_tracker,
    memory_tracker_scope,
    track_memory,
)
from actorflow.errors import InvalidDiagnosticsError, MemoryTrackerInactiveError
from actorflow.events import event_sink_scope
from actorflow.testing import RecordingEventSink


@pytest.fixture(autouse=True)
def tracing_as_before() -> Iterator[None]:
    # Trackers of tests that failed may still be held by their tracebacks.
    gc.collect()
    assert not tracemalloc.is_tracing()
    yield
    gc.collect()
    assert not tracemalloc.is_tracing()


@pytest.fixture
def tracker() -> Iterator[MemoryTracker]:
    tracker = MemoryTracker()
    yield tracker
    tracker.stop()


def labels(tracker: MemoryTracker) -> list[str | None]:
    return [sample.label for sample in tracker.samples]


# Starting and stopping


@pytest.mark.spec("G65")
def test_nothing_but_the_standard_library_measures() -> None:
    folder = Path(actorflow.diagnostics.__file__).parent
    imported = {
        name.split(".")[0]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""] * (not node.level)
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert "tracemalloc" in imported
    assert imported - sys.stdlib_module_names == {"actorflow", "attrs"}


@pytest.mark.spec("G66")
def test_tracker_traces_from_the_start_unless_told_otherwise() -> None:
    waiting = MemoryTracker(auto_start=False)
    assert not waiting.is_active
    assert not tracemalloc.is_tracing()

    for _ in range(2):
        waiting.start()
        assert waiting.is_active
        assert tracemalloc.is_tracing()
    for _ in range(2):
        waiting.stop()
        assert not waiting.is_active
        assert not tracemalloc.is_tracing()

    started = MemoryTracker()
    assert started.is_active
    started.stop()


@pytest.mark.spec("G66")
def test_tracing_ends_with_the_last_tracker() -> None:
    one, other = MemoryTracker(), MemoryTracker()

    one.stop()
    one.stop()
    assert tracemalloc.is_tracing()
    other.stop()
    assert not tracemalloc.is_tracing()


@pytest.mark.spec("G66")
def test_tracing_that_somebody_else_began_goes_on() -> None:
    tracemalloc.start()
    try:
        MemoryTracker().stop()

        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.spec("G66")
def test_tracker_that_nobody_holds_does_not_trace() -> None:
    tracker = MemoryTracker()
    del tracker
    gc.collect()

    assert not tracemalloc.is_tracing()


@pytest.mark.spec("G66")
def test_tracker_may_be_collected_while_another_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [MemoryTracker()]
    is_tracing = tracemalloc.is_tracing

    def collect() -> bool:
        lost.clear()
        return is_tracing()

    trackers: list[MemoryTracker] = []
    with monkeypatch.context() as patched:
        patched.setattr(tracemalloc, "is_tracing", collect)
        thread = threading.Thread(target=lambda: trackers.append(MemoryTracker()), daemon=True)
        thread.start()
        thread.join(5)

    assert [tracker.is_active for tracker in trackers] == [True]
    assert tracemalloc.is_tracing()
    trackers.pop().stop()


@pytest.mark.spec("G67", "G118")
def test_inactive_tracker_takes_no_samples() -> None:
    tracker = MemoryTracker(auto_start=False)

    with pytest.raises(MemoryTrackerInactiveError) as refused:
        tracker.observe("now")

    assert isinstance(refused.value, RuntimeError)
    assert str(refused.value) == "MemoryTracker is not active; call start() first"
    assert refused.value.code == "DIAG-001-INACTIVE"
    assert refused.value.label == "now"
    assert "start()" in refused.value.fix_hint
    assert tracker.samples == ()


# Samples


@pytest.mark.spec("G68")
async def test_sample_says_when_and_how_much(
    autojump_clock: MockClock, tracker: MemoryTracker
) -> None:
    await trio.sleep(3600)
    kept = bytearray(3_000_000)

    sample = tracker.observe("after")

    current, peak = tracemalloc.get_traced_memory()
    assert sample.timestamp == clock.now()
    assert sample.label == "after"
    assert sample.current_kb == pytest.approx(current / 1024, abs=50)
    assert sample.peak_kb == pytest.approx(peak / 1024, abs=50)
    assert isinstance(sample.current_kb, int)
    assert isinstance(sample.peak_kb, int)
    assert tracker.samples == (sample,)
    assert sample.to_dict() == {
        "timestamp": sample.timestamp.isoformat(),
        "current_kb": sample.current_kb,
        "peak_kb": sample.peak_kb,
        "label": "after",
    }
    assert len(kept) == 3_000_000


@pytest.mark.spec("G68")
def test_listeners_are_told_in_order_and_cannot_break_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[tuple[int, MemorySample]] = []

    def broken(sample: MemorySample) -> None:
        raise LookupError("nobody there")

    tracker = MemoryTracker(listeners=[lambda it: heard.append((1, it)), broken])
    tracker.add_listener(lambda it: heard.append((2, it)))
    tracker.extend_listeners([lambda it: heard.append((3, it)), lambda it: heard.append((4, it))])
    sample = tracker.observe()
    tracker.stop()

    assert heard == [(1, sample), (2, sample), (3, sample), (4, sample)]
    assert "diagnostics_listener_failed" in caplog.text


@pytest.mark.spec("G69")
def test_newest_samples_are_kept() -> None:
    tracker = MemoryTracker(max_samples=2)
    for label in "abc":
        tracker.observe(label)
    tracker.stop()

    assert labels(tracker) == ["b", "c"]


@pytest.mark.spec("G69", "G71")
def test_thousand_samples_and_ten_mebibytes_are_the_usual_limits() -> None:
    options = inspect.signature(MemoryTracker).parameters

    assert options["max_samples"].default == 1000
    assert options["growth_warning_kb"].default == 10 * 1024
    assert options["min_interval"].default == 0


@pytest.mark.spec("G69")
async def test_sample_of_the_same_label_too_soon_is_the_last_one(
    autojump_clock: MockClock,
) -> None:
    heard: list[MemorySample] = []
    tracker = MemoryTracker(min_interval=10, listeners=[heard.append])

    first = tracker.observe("a")
    await trio.sleep(9)
    assert tracker.observe("a") is first
    other = tracker.observe("b")
    await trio.sleep(1)
    again = tracker.observe("a")
    tracker.stop()

    assert list(tracker.samples) == heard == [first, other, again]
    assert again is not first


@pytest.mark.spec("G69")
def test_interval_goes_on_in_the_next_trio_run() -> None:
    # The clock of each run begins somewhere else.
    tracker = MemoryTracker(min_interval=10.0)

    async def observe(after: float) -> None:
        clock.now()
        await trio.sleep(after)
        tracker.observe("x")

    for begins_at, after in ((1e6, 0), (0, 1), (0, 11)):
        trio_clock = MockClock(autojump_threshold=0)
        trio_clock.jump(begins_at)
        trio.run(observe, after, clock=trio_clock)

    assert len(tracker.samples) == 2
    tracker.stop()


@pytest.mark.spec("G69")
async def test_label_that_was_seen_last_is_forgotten_last(autojump_clock: MockClock) -> None:
    tracker = MemoryTracker(max_samples=2, min_interval=10)
    for label in "ab":
        tracker.observe(label)
    await trio.sleep(10)
    again = tracker.observe("a")
    tracker.observe("c")

    assert tracker.observe("a") is again
    tracker.stop()


@pytest.mark.spec("G69")
async def test_labels_are_not_remembered_for_ever() -> None:
    tracker = MemoryTracker(max_samples=3, min_interval=10)
    for number in range(10):
        tracker.observe(str(number))
    tracker.stop()

    assert len(tracker._latest) == 3


@pytest.mark.spec("G70")
def test_new_mebibyte_is_seen_within_five_percent(tracker: MemoryTracker) -> None:
    before = tracker.observe()
    held = bytes(1024 * 1024)
    after = tracker.observe()

    assert after.current_kb - before.current_kb == pytest.approx(1024, rel=0.05)
    assert len(held) == 1024 * 1024


@pytest.mark.spec("G68")
def test_peak_can_be_counted_anew(tracker: MemoryTracker) -> None:
    del [bytes(4_000_000)][0]
    high = tracker.observe().peak_kb
    tracker.reset_peak()

    assert tracker.observe().peak_kb < high - 3000


@pytest.mark.spec("G72")
def test_sample_costs_little_however_many_blocks_are_traced(tracker: MemoryTracker) -> None:
    blocks = [object() for _ in range(100_000)]
    costs = []
    for number in range(50):
        begun_at = time.perf_counter()
        tracker.observe(str(number))
        costs.append(time.perf_counter() - begun_at)

    # The best of many: other processes want the machine, too.
    assert min(costs) < 0.0005
    assert len(blocks) == 100_000


# Growth


@pytest.mark.spec("G71")
def test_growth_by_the_threshold_is_enough(
    monkeypatch: pytest.MonkeyPatch, tracker: MemoryTracker, caplog: pytest.LogCaptureFixture
) -> None:
    for kb, warnings in ((100, 0), (10_339, 0), (10_340, 1)):
        monkeypatch.setattr(tracemalloc, "get_traced_memory", lambda kb=kb: (kb * 1024, kb * 1024))
        tracker.observe()

        assert len(caplog.records) == warnings


def grow(tracker: MemoryTracker, sizes_kb: list[int]) -> list[bytes]:
    held = []
    for size in sizes_kb:
        held.append(bytes(size * 1024))
        tracker.observe("grown")
    return held


@pytest.mark.spec("G71")
def test_growth_across_the_threshold_is_told_and_counts_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = RecordingEventSink(strict=True)
    tracker = MemoryTracker(growth_warning_kb=1000, event_sink=sink)
    tracker.observe("base")
    held = grow(tracker, [600, 600, 600, 100, 600])
    tracker.stop()

    warnings = sink.payloads("memory.growth_warning")
    assert len(warnings) == 2
    for warning in warnings:
        assert 1200 <= warning["growth_kb"] < 1500
        assert warning["growth_kb"] == warning["current_kb"] - warning["baseline_kb"]
        assert warning["threshold_kb"] == 1000
        assert warning["label"] == "grown"
    assert warnings[1]["baseline_kb"] == warnings[0]["current_kb"]
    records = [r for r in caplog.records if r.getMessage() == "memory_growth_warning"]
    assert [r.levelno for r in records] == [logging.WARNING] * 2
    assert len(held) == 5


@pytest.mark.spec("G71")
def test_growth_is_measured_from_the_first_sample_after_the_start() -> None:
    sink = RecordingEventSink(strict=True)
    tracker = MemoryTracker(growth_warning_kb=1000, event_sink=sink)
    tracker.observe("base")
    tracker.stop()
    tracker.start()
    held = grow(tracker, [2000, 100])
    tracker.stop()

    assert sink.payloads("memory.growth_warning") == []
    assert len(held) == 2


@pytest.mark.spec("G71")
def test_without_a_threshold_nothing_is_warned_of() -> None:
    sink = RecordingEventSink(strict=True)
    tracker = MemoryTracker(growth_warning_kb=None, event_sink=sink)
    held = grow(tracker, [10, 20_000])
    tracker.stop()

    assert set(sink.types()) == {"memory.sample"}
    assert len(held) == 2


# Events


@pytest.mark.spec("G72", "E26")
def test_samples_go_to_the_sink_that_was_given() -> None:
    given, current = RecordingEventSink(strict=True), RecordingEventSink(strict=True)
    tracker = MemoryTracker(event_sink=given)
    with event_sink_scope(current), memory_tracker_scope(tracker):
        sample = tracker.observe("now")
    tracker.stop()

    told = {"label": "now", "current_kb": sample.current_kb, "peak_kb": sample.peak_kb}
    assert given.payloads("memory.sample") == [told]
    assert current.events == []


@pytest.mark.spec("G72")
def test_without_one_they_go_where_the_run_that_uses_the_tracker_reports(
    tracker: MemoryTracker,
) -> None:
    current = RecordingEventSink(strict=True)
    with event_sink_scope(current):
        tracker.observe("outside")
        with memory_tracker_scope(tracker):
            tracker.observe("inside")

    assert [it["label"] for it in current.payloads("memory.sample")] == ["inside"]


@pytest.mark.spec("G72")
def test_sample_is_taken_whatever_the_sink_does(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def emit(self, *, type: str, data: Any) -> None: ...

        def try_emit(self, *, type: str, data: Any) -> None:
            raise OSError("disk full")

    tracker = MemoryTracker(event_sink=Broken())
    tracker.observe("now")
    tracker.stop()

    assert labels(tracker) == ["now"]
    assert "event_emit_failed" in caplog.text


@pytest.mark.spec("G72")
def test_tracker_of_a_block_is_the_one_before_again(tracker: MemoryTracker) -> None:
    inner = MemoryTracker(auto_start=False)
    with memory_tracker_scope(tracker):
        with pytest.raises(LookupError), memory_tracker_scope(inner):
            assert current_memory_tracker() is inner
            raise LookupError
        assert current_memory_tracker() is tracker

    assert current_memory_tracker() is None


# Decorated functions


@pytest.mark.spec("G73")
async def test_every_kind_of_function_is_watched_and_stays_what_it_is(
    tracker: MemoryTracker,
) -> None:
    @track_memory(tracker=tracker)
    def plain(number: int, *, by: int = 1) -> int:
        """Say something."""
        return number + by

    @track_memory("other", tracker)
    async def waiting(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number

    @track_memory(tracker=tracker)
    def counting(end: int) -> Iterator[int]:
        yield from range(end)

    @track_memory(tracker=tracker)
    async def ticking(end: int) -> AsyncIterator[int]:  # noqa: ASYNC900 - the kind is the point
        for number in range(end):
            await trio.lowlevel.checkpoint()
            yield number

    assert plain(1, by=2) == 3
    assert await waiting(4) == 4
    assert labels(tracker) == ["plain:start", "plain:end", "other:start", "other:end"]
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Say something."
    assert str(inspect.signature(plain)) == "(number: 'int', *, by: 'int' = 1) -> 'int'"
    assert inspect.iscoroutinefunction(waiting)
    assert inspect.isgeneratorfunction(counting)
    assert inspect.isasyncgenfunction(ticking)

    items = counting(2)
    assert labels(tracker)[4:] == []
    assert next(items) == 0
    assert labels(tracker)[4:] == ["counting:start"]
    assert list(items) == [1]
    assert labels(tracker)[4:] == ["counting:start", "counting:end"]
    assert [number async for number in ticking(2)] == [0, 1]
    assert labels(tracker)[6:] == ["ticking:start", "ticking:end"]


@pytest.mark.spec("G73")
async def test_call_that_raises_or_is_cancelled_has_an_end(tracker: MemoryTracker) -> None:
    @track_memory(tracker=tracker)
    def broken() -> None:
        raise LookupError("gone")

    @track_memory(tracker=tracker)
    async def endless() -> None:
        await trio.sleep_forever()

    @track_memory(tracker=tracker)
    def abandoned() -> Iterator[int]:
        yield 1

    with pytest.raises(LookupError):
        broken()
    with trio.CancelScope() as scope:
        scope.cancel()
        await endless()
    items = abandoned()
    next(items)
    del items

    assert labels(tracker) == [
        f"{name}:{when}" for name in ("broken", "endless", "abandoned") for when in ("start", "end")
    ]


@pytest.mark.spec("G74")
def test_tracker_of_the_run_around_the_call_looks(tracker: MemoryTracker) -> None:
    @track_memory
    def bare() -> None: ...

    with memory_tracker_scope(tracker):
        bare()

    assert labels(tracker) == ["bare:start", "bare:end"]
    own: MemoryTracker = vars(bare)["memory_tracker"]
    assert own.samples == ()
    assert not own.is_active


@pytest.mark.spec("G74", "G116")
def test_outside_of_runs_a_function_has_a_tracker_of_its_own() -> None:
    @track_memory("named")
    def alone() -> None: ...

    own: MemoryTracker = vars(alone)["memory_tracker"]
    # Decorating a function costs nothing.
    assert not tracemalloc.is_tracing()
    alone()
    assert own.is_active
    assert labels(own) == ["named:start", "named:end"]

    own.stop()
    alone()
    assert len(own.samples) == 2


@pytest.mark.spec("G74")
def test_stopped_tracker_makes_no_difference_to_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "actorflow.diagnostics")
    tracker = MemoryTracker(auto_start=False)

    @track_memory(tracker=tracker)
    def watched() -> int:
        return 7

    assert watched() == 7
    assert tracker.samples == ()
    assert [r.levelno for r in caplog.records] == [logging.DEBUG] * 2


@pytest.mark.spec("G73")
def test_callable_without_a_name_is_called_after_its_class(tracker: MemoryTracker) -> None:
    class Job:
        def __call__(self) -> int:
            return 7

    assert track_memory(Job(), tracker)() == 7
    assert labels(tracker) == ["Job:start", "Job:end"]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"max_samples": 0}, "max_samples"),
        ({"min_interval": -1}, "min_interval"),
        ({"min_interval": float("nan")}, "min_interval"),
        ({"growth_warning_kb": -1}, "growth_warning_kb"),
        ({"listeners": ["print"]}, "listener"),
    ],
)
@pytest.mark.spec("G118")
def test_impossible_options_are_refused(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidDiagnosticsError) as refused:
        MemoryTracker(**options)

    assert refused.value.argument == argument
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, TypeError)


def test_smallest_options_are_fine() -> None:
    sink = RecordingEventSink(strict=True)
    tracker = MemoryTracker(max_samples=1, min_interval=0, growth_warning_kb=0, event_sink=sink)
    tracker.observe("a")
    held = grow(tracker, [1])
    tracker.stop()

    assert labels(tracker) == ["grown"]
    assert sink.types().count("memory.growth_warning") == len(held) == 1


def test_label_that_is_no_text_is_refused() -> None:
    label: Any = 7

    with pytest.raises(InvalidDiagnosticsError, match="label must be"):
        track_memory(label)
