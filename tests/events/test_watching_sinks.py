from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import InvalidArgumentError, InvalidEventSinkError
from actorflow.events import (
    BackpressureMetrics,
    LoggingEventSink,
    NoOpEventSink,
    ObservableEventSink,
)
from actorflow.events._log_budget import BudgetedLog, LogBudget
from actorflow.testing import RecordingEventSink

# LoggingEventSink


@pytest.mark.spec("E29", "E1")
@pytest.mark.parametrize("data", [{"x": 1}, None])
async def test_event_becomes_a_log_record(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    sink = LoggingEventSink()

    with caplog.at_level(logging.INFO, "actorflow.events"):
        await sink.emit(type="a", data=data)
        sink.try_emit(type="a", data=data)

    assert len(caplog.records) == 2
    for record in caplog.records:
        assert (record.name, record.levelno) == ("actorflow.events", logging.INFO)
        assert (record.msg, record.args) == ("Event: %s", ("a",))
        assert record.__dict__.items() >= {"event_type": "a", "event_data": data}.items()


@pytest.mark.spec("E30")
def test_no_record_is_built_when_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("actorflow.events")
    monkeypatch.setattr(logger, "makeRecord", lambda *_, **__: pytest.fail("a record was built"))

    with caplog.at_level(logging.WARNING, "actorflow.events"):
        LoggingEventSink().try_emit(type="a", data=None)
        assert not LoggingEventSink().takes("a")
        assert LoggingEventSink(level=logging.WARNING).takes("a")


@pytest.mark.spec("E31")
def test_level_is_a_number_or_a_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "actorflow.events"):
        LoggingEventSink(level="debug").try_emit(type="a", data=None)
        LoggingEventSink(level=35).try_emit(type="a", data=None)

    assert [record.levelno for record in caplog.records] == [logging.DEBUG, 35]


@pytest.mark.spec("E31")
@pytest.mark.parametrize("level", ["loud", None, 1.5, True])
def test_level_that_is_none_is_refused(level: Any) -> None:
    with pytest.raises(InvalidEventSinkError, match="level must be"):
        LoggingEventSink(level=level)


@pytest.mark.spec("E7")
async def test_sinks_without_a_buffer_may_be_used_from_any_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def in_a_thread() -> None:
        for sink in (NoOpEventSink(), LoggingEventSink(level="warning")):
            sink.try_emit(type="a", data=None)

    await trio.to_thread.run_sync(in_a_thread)

    assert len(caplog.records) == 1


# ObservableEventSink


@pytest.mark.spec("E63")
async def test_events_are_kept_with_their_time(autojump_clock: MockClock) -> None:
    behind = RecordingEventSink()
    sink = ObservableEventSink(downstream=behind)

    sink.try_emit(type="a", data=None)
    await trio.sleep(0.25)
    await sink.emit(type="b", data={"x": 1})

    first, second = sink.events
    assert (first["type"], first["data"], first["elapsed_ms"]) == ("a", {}, 0.0)
    assert (second["type"], second["data"], second["elapsed_ms"]) == ("b", {"x": 1}, 250.0)
    assert second["timestamp"] == clock.now()
    assert behind.types() == ["a", "b"]
    assert behind.payloads("b") == [{"x": 1}]


@pytest.mark.spec("E63")
async def test_oldest_events_make_room() -> None:
    sink = ObservableEventSink(max_events=2)

    assert [sink.try_emit(type=type, data=None) for type in "abcd"] == [True] * 4

    assert [event["type"] for event in sink.events] == ["c", "d"]
    assert sink.discarded == 2
    silent = ObservableEventSink(capture=False)
    await silent.emit(type="a", data=None)
    assert (silent.events, silent.discarded) == ([], 0)
    with pytest.raises(InvalidArgumentError, match="max_events"):
        ObservableEventSink(max_events=0)


@pytest.mark.spec("E64")
async def test_verbose_sink_prints_what_matters(autojump_clock: MockClock) -> None:
    stream = io.StringIO()
    sink = ObservableEventSink(verbose=True, colorize=False, stream=stream)

    await trio.sleep(0.0125)
    sink.try_emit(type="a", data={"error": "x" * 81, "reason": None, "stage": "llm", "other": 1})
    sink.try_emit(type="b", data={"reason": "y" * 80})

    assert stream.getvalue().splitlines() == [
        "[   12.50ms] a",
        "    stage: llm",
        "    error: " + "x" * 77 + "...",
        "[   12.50ms] b",
        "    reason: " + "y" * 80,
    ]


@pytest.mark.spec("E64")
@pytest.mark.parametrize(
    ("type", "colour"),
    [
        ("stage.failed", 91),
        ("an.error", 91),
        ("stage.completed", 92),
        ("it.success", 92),
        ("tool.started", 94),
        ("tool.invoked", 93),
        ("stage.skipped", 90),
        ("order.placed", 96),
    ],
)
def test_colour_tells_the_kind_of_event(type: str, colour: int) -> None:
    stream = io.StringIO()

    ObservableEventSink(verbose=True, stream=stream).try_emit(type=type, data=None)

    assert re.fullmatch(rf"\x1b\[{colour}m\[ *[\d.]+ms\] {type}\x1b\[0m\n", stream.getvalue())


@pytest.mark.spec("E64")
def test_stream_is_the_standard_output_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    ObservableEventSink(verbose=True, colorize=False).try_emit(type="a", data=None)

    assert capsys.readouterr().out.endswith("] a\n")


@pytest.mark.spec("E63")
@pytest.mark.parametrize(
    "problem",
    [BrokenPipeError(), ValueError("I/O operation on closed file"), RuntimeError("no such thing")],
)
async def test_reader_that_goes_away_takes_no_event_along(
    problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise problem

    behind = RecordingEventSink()
    sink = ObservableEventSink(verbose=True, stream=Gone(), downstream=behind)

    sink.try_emit(type="a", data=None)
    await sink.emit(type="b", data=None)

    assert behind.types() == [event["type"] for event in sink.events] == ["a", "b"]
    assert [record.msg for record in caplog.records] == ["event_not_printed"]


@pytest.mark.spec("E64")
def test_sign_that_the_terminal_does_not_know_is_a_question_mark() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    sink = ObservableEventSink(verbose=True, colorize=False, stream=stream)

    sink.try_emit(type="grüezi", data=None)

    assert raw.getvalue().endswith(b"gr?ezi\n")


@pytest.mark.spec("E63")
def test_time_of_an_event_counts_from_a_birth_outside_of_trio() -> None:
    async def emit() -> None:
        sink.try_emit(type="a", data=None)

    trio_clock = MockClock()
    trio_clock.jump(1e6)
    with clock.starting_at(0):
        sink = ObservableEventSink()
        trio.run(emit, clock=trio_clock)

    assert sink.events[0]["elapsed_ms"] == 0


@pytest.mark.spec("E65")
async def test_summary_counts_families(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = ObservableEventSink()
    for number in range(9):
        sink.try_emit(type=f"tool.t{number}", data=None)
    await trio.sleep(1.5)
    sink.try_emit(type="stage.started", data={"stage": "llm"})
    sink.try_emit(type="stage.completed", data={"stage": "llm"})

    sink.print_summary()

    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["11 events in 1500.00ms", "  stage: 2", "  tool: 9", "Latest:"]
    assert len(lines[4:]) == 10
    assert lines[-1] == "  [ 1500.00ms] stage.completed"


@pytest.mark.spec("E65")
async def test_events_are_found_by_type_and_stage(autojump_clock: MockClock) -> None:
    sink = ObservableEventSink(max_events=3)
    for type, stage in (("x", None), ("stage.started", "a"), ("stage.failed", "b"), ("t", "a")):
        sink.try_emit(type=type, data={"stage": stage} if stage else None)

    assert [event["type"] for event in sink.get_events_by_type("stage.")] == [
        "stage.started",
        "stage.failed",
    ]
    assert [event["type"] for event in sink.get_stage_events("a")] == ["stage.started", "t"]

    await trio.sleep(1)
    sink.clear()
    assert (sink.events, sink.discarded) == ([], 0)
    sink.try_emit(type="x", data=None)
    assert sink.events[0]["elapsed_ms"] == 0.0


async def test_observable_sink_flushes_and_closes_what_is_behind() -> None:
    calls: list[str] = []

    class Behind:
        async def emit(self, **_: Any) -> None: ...

        def try_emit(self, **_: Any) -> bool:
            return False

        async def flush(self) -> None:
            calls.append("flush")

        async def aclose(self) -> None:
            calls.append("aclose")

    sink = ObservableEventSink(downstream=Behind())
    assert sink.try_emit(type="a", data=None) is False
    await sink.flush()
    await sink.aclose()
    await ObservableEventSink().flush()
    await ObservableEventSink().aclose()

    assert calls == ["flush", "aclose"]


# Metrics and log budgets


@pytest.mark.spec("E32", "E34")
async def test_metrics_count_and_note_the_time(autojump_clock: MockClock) -> None:
    metrics = BackpressureMetrics()

    await trio.sleep(1)
    metrics.record_emit()
    metrics.record_emit()
    emitted_at = clock.monotonic()
    await trio.sleep(1)
    metrics.record_drop()

    assert metrics.to_dict() == {
        "emitted": 2,
        "dropped": 1,
        "queue_full_count": 1,
        "drop_rate_percent": 33.33,
        "last_emit_time": emitted_at,
        "last_drop_time": emitted_at + 1,
    }


@pytest.mark.spec("E33")
@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=50)
def test_drop_rate_is_a_share_in_percent(emitted: int, dropped: int) -> None:
    rate = BackpressureMetrics(emitted, dropped).drop_rate

    assert 0.0 <= rate <= 100.0
    assert rate * (emitted + dropped) == pytest.approx(dropped * 100)


@pytest.mark.spec("E41")
@given(st.lists(st.floats(0, 0.3), max_size=80))
@settings(max_examples=50)
def test_log_budget_leaves_nothing_untold(pauses: list[float]) -> None:
    budget = LogBudget()
    written: list[float] = []
    told = now = 0.0

    for pause in pauses:
        now += pause
        suppressed = budget.spend(now)
        if suppressed is not None:
            written.append(now)
            told += 1 + suppressed

    assert told + budget.suppressed == len(pauses)
    # Windows follow each other, so two of them may touch within one second.
    for start in written:
        assert sum(start <= at < start + budget.window for at in written) <= 2 * budget.limit


@pytest.mark.spec("E41")
async def test_records_beyond_ten_a_second_are_summed_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = BudgetedLog(logging.getLogger("actorflow.test"), logging.WARNING, "went wrong")

    for number in range(25):
        log.write(number=number)
    await trio.sleep(1)
    log.write(number=25)
    for number in range(26, 40):
        log.write(number=number)
    log.settle()
    log.settle()

    told = [(r.__dict__.get("number"), r.__dict__["suppressed"]) for r in caplog.records]
    assert told[:10] == [(number, 0) for number in range(10)]
    assert told[10] == (25, 15)
    assert told[11:] == [*((number, 0) for number in range(26, 35)), (None, 5)]
