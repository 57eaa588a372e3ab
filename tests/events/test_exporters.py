from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import AnalyticsEventError, WireFormatError
from actorflow.events import (
    AnalyticsEvent,
    AnalyticsExporter,
    CompositeExporter,
    ConsoleExporter,
    EventLines,
    JSONFileExporter,
    read_events,
)
from actorflow.events._event_lines import to_lines

RUN = UUID("0197a000-0000-7000-8000-000000000001")
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=3)
EVENTS = st.builds(
    AnalyticsEvent,
    event_type=st.text(min_size=1),
    timestamp=st.datetimes(timezones=st.just(timezone.utc)),
    data=OBJECTS,
    pipeline_run_id=st.none() | st.uuids(),
    stage_name=st.none() | st.text(min_size=1),
    duration_ms=st.none() | st.floats(0, 1e9),
    metadata=OBJECTS,
)


def named(*types: str) -> list[AnalyticsEvent]:
    return [AnalyticsEvent(type, NOON) for type in types]


def types_in(path: Path) -> list[str]:
    return [event.event_type for event in read_events(path)]


class Exporter:
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def export(self, event: AnalyticsEvent) -> None:
        self.calls.append(event.event_type)

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        self.calls += [event.event_type for event in events]

    async def flush(self) -> None:
        self.calls.append("<flush>")

    async def close(self) -> None:
        self.calls.append("<close>")


class Broken(Exporter):
    async def export(self, event: AnalyticsEvent) -> None:
        raise OSError("export")

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        raise OSError("export_batch")

    async def flush(self) -> None:
        raise OSError("flush")

    async def close(self) -> None:
        raise OSError("close")


# AnalyticsEvent


@pytest.mark.spec("E87")
async def test_event_is_of_now_and_empty_unless_told(autojump_clock: MockClock) -> None:
    await trio.sleep(3600)

    event = AnalyticsEvent("a")

    assert event.timestamp == clock.now()
    assert event.timestamp.tzinfo is timezone.utc
    assert (event.data, event.metadata) == ({}, {})
    assert (event.pipeline_run_id, event.stage_name, event.duration_ms) == (None, None, None)


@pytest.mark.spec("E88")
def test_dict_has_what_is_known() -> None:
    assert AnalyticsEvent("a", NOON).to_dict() == {
        "event_type": "a",
        "timestamp": "2026-01-01T12:00:00.123456+00:00",
        "data": {},
    }
    assert AnalyticsEvent("a", NOON, {"x": 1}, RUN, "llm", 0.0, {"y": 2}).to_dict() == {
        "event_type": "a",
        "timestamp": "2026-01-01T12:00:00.123456+00:00",
        "data": {"x": 1},
        "pipeline_run_id": str(RUN),
        "stage_name": "llm",
        "duration_ms": 0.0,
        "metadata": {"y": 2},
    }


@pytest.mark.spec("E89")
@given(EVENTS)
@settings(max_examples=50)
def test_event_survives_being_written_and_read(event: AnalyticsEvent) -> None:
    assert AnalyticsEvent.from_dict(event.to_dict()) == event
    assert AnalyticsEvent.from_dict(json.loads(json.dumps(event.to_dict()))) == event


@pytest.mark.spec("E89")
def test_datetime_and_uuid_are_accepted_as_they_are() -> None:
    event = AnalyticsEvent.from_dict({"event_type": "a", "timestamp": NOON, "pipeline_run_id": RUN})

    assert (event.timestamp, event.pipeline_run_id) == (NOON, RUN)


@pytest.mark.spec("E89")
@pytest.mark.parametrize(
    ("data", "path", "found"),
    [
        (5, "", 5),
        ("event_type", "", "event_type"),
        ({"timestamp": NOON}, "event_type", attrs.NOTHING),
        ({"timestamp": NOON, "event_type": 5}, "event_type", 5),
        ({"event_type": "a"}, "timestamp", attrs.NOTHING),
        ({"event_type": "a", "timestamp": "soon"}, "timestamp", "soon"),
        ({"event_type": "a", "timestamp": 3}, "timestamp", 3),
        ({"event_type": "a", "timestamp": NOON, "pipeline_run_id": "x"}, "pipeline_run_id", "x"),
    ],
)
def test_what_is_no_event_is_refused_by_key(data: Any, path: str, found: object) -> None:
    with pytest.raises(AnalyticsEventError) as caught:
        AnalyticsEvent.from_dict(data)

    assert isinstance(caught.value, WireFormatError)
    assert (caught.value.path, caught.value.found) == (path, found)
    assert str(caught.value).startswith(path)


@pytest.mark.spec("E101")
async def test_payload_becomes_an_event(autojump_clock: MockClock) -> None:
    data = {
        "pipeline_run_id": "not a uuid",
        "stage": "llm",
        "duration_ms": 1.5,
        "timestamp": NOON.isoformat(),
    }

    event = AnalyticsEvent.from_payload("stage.completed", data)

    assert event == AnalyticsEvent("stage.completed", NOON, data, "not a uuid", "llm", 1.5)
    for timestamp in (None, 3, "soon"):
        stamped = AnalyticsEvent.from_payload("a", {"timestamp": timestamp})
        assert stamped.timestamp == clock.now()
    assert AnalyticsEvent.from_payload("a", None).data == {}


# Files


@pytest.mark.spec("E90", "E91")
async def test_file_is_opened_by_the_first_export(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "events.jsonl"
    exporter = JSONFileExporter(path)
    await exporter.flush()
    await exporter.close()
    assert not path.parent.exists()

    event = AnalyticsEvent("ä", NOON, {"at": NOON})
    await exporter.export(event)
    await exporter.flush()

    assert path.read_bytes() == (json.dumps(event.to_dict(), default=str) + "\n").encode()
    assert exporter.event_count == 1
    await exporter.close()
    await exporter.close()


@pytest.mark.spec("E90")
async def test_file_is_appended_to_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for append, type in ((True, "first"), (True, "second"), (False, "third")):
        exporter = JSONFileExporter(path, append=append)
        await exporter.export_batch(named(type, type))
        await exporter.close()
        await exporter.export(*named("reopened"))
        await exporter.close()
        assert exporter.event_count == 3
        if type == "second":
            assert types_in(path) == [
                *("first", "first", "reopened"),
                *("second", "second", "reopened"),
            ]

    assert types_in(path) == ["third", "third", "reopened"]


@pytest.mark.parametrize(
    "encode",
    [lambda value: json.dumps(value, sort_keys=True), lambda value: json.dumps(value).encode()],
)
async def test_encoder_may_be_chosen(encode: Any, tmp_path: Path) -> None:
    exporter = JSONFileExporter(tmp_path / "events.jsonl", encode=encode)

    await exporter.export_batch(named("a", "b"))
    await exporter.close()

    assert types_in(tmp_path / "events.jsonl") == ["a", "b"]


@pytest.mark.spec("E92")
async def test_cancelled_export_leaves_whole_lines(tmp_path: Path) -> None:
    exporter = JSONFileExporter(tmp_path / "events.jsonl")
    batch = [AnalyticsEvent("a", NOON, {"text": "x" * 10_000})] * 50

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(exporter.export_batch, batch)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await exporter.close()

    content = (tmp_path / "events.jsonl").read_text()
    assert content.endswith("\n")
    assert len([json.loads(line) for line in content.splitlines()]) == exporter.event_count
    assert exporter.event_count % 50 == 0
    assert exporter.event_count < 200


@pytest.mark.spec("E92")
async def test_concurrent_exports_do_not_mix_and_leave_the_loop_alone(tmp_path: Path) -> None:
    exporter = JSONFileExporter(tmp_path / "events.jsonl")
    writing_threads = set()
    original = exporter._write

    def spying(batch: Any) -> None:
        writing_threads.add(threading.get_ident())
        original(batch)

    exporter._write = spying  # type: ignore[method-assign] # to see who calls it
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(exporter.export_batch, named(*[str(number)] * 3))
    await exporter.close()

    found = types_in(tmp_path / "events.jsonl")
    assert sorted(found) == sorted("000111222333444")
    assert all(found[place : place + 3] == [found[place]] * 3 for place in range(0, 15, 3))
    assert threading.get_ident() not in writing_threads


@given(st.lists(EVENTS, max_size=5), st.integers(1, 40))
@settings(max_examples=50)
def test_lines_are_read_in_whatever_pieces_they_come(
    events: list[AnalyticsEvent], size: int
) -> None:
    content = to_lines(events).encode()
    lines = EventLines()

    read = [
        event
        for start in range(0, len(content), size)
        for event in lines.feed(content[start : start + size])
    ]

    assert read == events
    assert lines.lines == len(events)


@given(st.lists(EVENTS, min_size=1, max_size=3), st.data())
@settings(max_examples=50)
def test_torn_line_is_no_event(events: list[AnalyticsEvent], data: st.DataObject) -> None:
    content = to_lines(events).encode()
    cut = data.draw(st.integers(0, len(content) - 1))

    read = list(EventLines().feed(content[:cut]))

    assert read == events[: content[:cut].count(b"\n")]


async def test_writing_goes_on_after_a_torn_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(to_lines(named("whole", "torn"))[:-20])

    for type in ("after", "and on"):
        exporter = JSONFileExporter(path)
        await exporter.export(*named(type))
        await exporter.close()

    assert types_in(path) == ["whole", "after", "and on"]
    assert [(r.message, r.__dict__["line"]) for r in caplog.records] == [("event_line_skipped", 2)]


@pytest.mark.spec("E90")
async def test_full_disk_takes_no_event_but_those_it_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    exporter = JSONFileExporter(path)
    first, second = named("first"), named("second", "third")
    await exporter.export_batch(first)
    # The file may grow by the beginning of a line.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            await exporter.export_batch(second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    await exporter.export_batch(second)
    await exporter.close()

    assert list(read_events(path)) == first + second
    assert exporter.event_count == 3


def test_line_that_is_json_and_no_event_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('oops\n{"message": "not ours"}\n')

    with pytest.raises(AnalyticsEventError, match="event_type") as caught:
        list(read_events(path))
    assert "in line 2" in caught.value.__notes__


@pytest.mark.spec("E90")
def test_line_without_an_end_takes_time_as_it_is_long() -> None:
    lines, began = EventLines(), time.process_time()

    assert [event for _ in range(400) for event in lines.feed(b"x" * 65536)] == []

    # Joining all there is with each piece takes several seconds.
    assert time.process_time() - began < 1


def test_line_that_is_nested_too_deeply_to_read_is_skipped() -> None:
    deep = b"[" * 100_000

    assert list(
        EventLines().feed(deep + b"\n" + b'{"event_type": "a", "timestamp": "2026-01-01"}\n')
    )


class Mute:
    def __str__(self) -> str:
        raise ArithmeticError("has no text")


@pytest.mark.spec("E90")
@pytest.mark.parametrize("data", [{("a", "key"): 1}, {"mute": Mute()}])
async def test_event_that_json_cannot_hold_takes_no_other_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: dict[Any, Any]
) -> None:
    path = tmp_path / "events.jsonl"
    exporter = JSONFileExporter(path)

    await exporter.export_batch([*named("before"), AnalyticsEvent("odd", NOON, data, RUN)])
    await exporter.export_batch(named("after"))
    await exporter.close()

    before, odd, after = read_events(path)
    assert [before.event_type, after.event_type] == ["before", "after"]
    assert (odd.event_type, odd.pipeline_run_id, odd.data) == ("odd", RUN, {})
    assert "Error" in odd.metadata["not_writable"]
    assert [(r.message, r.__dict__["event_type"]) for r in caplog.records] == [
        ("event_not_writable", "odd")
    ]


@pytest.mark.spec("E90", "E92")
@pytest.mark.parametrize("attempt", range(3))
def test_file_of_a_killed_process_reads_up_to_its_last_flush(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "events.jsonl"
    program = textwrap.dedent(
        """
        import itertools, sys, trio
        from actorflow.events import AnalyticsEvent, JSONFileExporter

        async def main():
            exporter = JSONFileExporter(sys.argv[1])
            for number in itertools.count():
                data = {"number": number, "text": "x" * 300_000}
                await exporter.export(AnalyticsEvent("written", data=data))
                if number % 2:
                    await exporter.flush()
                    print(number, flush=True)

        trio.run(main)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, os.fspath(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(3 + attempt):
            process.stdout.readline()
        # In the middle of its work, wherever that is.
        process.send_signal(signal.SIGKILL)
        flushed = [*map(int, process.stdout.read().split())]
    assert process.returncode == -signal.SIGKILL

    found = [(event.data["number"], len(event.data["text"])) for event in read_events(path)]
    assert found == [(number, 300_000) for number in range(len(found))]
    assert len(found) > max([5 + 2 * attempt, *flushed])
    trio.run(_append, path)
    assert [*read_events(path)][-1].event_type == "after"
    assert len([*read_events(path)]) == len(found) + 1


async def _append(path: Path) -> None:
    exporter = JSONFileExporter(path)
    await exporter.export(AnalyticsEvent("after"))
    await exporter.close()


# The console


@pytest.mark.spec("E93")
@pytest.mark.parametrize(
    ("type", "colour"),
    [
        ("an.error", 91),
        ("stage.failed", 91),
        ("stage.completed", 92),
        ("success", 92),
        ("stage.started", 94),
        ("order.placed", 96),
    ],
)
def test_first_line_is_coloured_by_type(type: str, colour: int) -> None:
    assert ConsoleExporter()._format_event(AnalyticsEvent(type, NOON)) == (
        f"\x1b[{colour}m[12:00:00.123] {type}\x1b[0m"
    )


@pytest.mark.spec("E93")
def test_lines_say_what_is_known() -> None:
    event = AnalyticsEvent("a", NOON, {"x": NOON}, stage_name="llm", duration_ms=0.06)
    plain = ConsoleExporter(colorize=False)
    verbose = ConsoleExporter(colorize=False, verbose=True)

    lines = ["[12:00:00.123] a", "  stage: llm", "  duration: 0.1ms"]
    assert plain._format_event(event).split("\n") == lines
    assert verbose._format_event(event).split("\n") == [
        *lines,
        '  data: {"x": "2026-01-01 12:00:00.123456+00:00"}',
    ]
    assert verbose._format_event(AnalyticsEvent("a", NOON)) == "[12:00:00.123] a"


@pytest.mark.spec("E94")
async def test_console_prints_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    here, there = ConsoleExporter(colorize=False, stream=stream), ConsoleExporter(colorize=False)

    await here.export_batch(named("a", "b"))
    await there.export(*named("c"))
    for exporter in (here, there):
        await exporter.flush()
        await exporter.close()

    assert stream.getvalue() == "[12:00:00.123] a\n[12:00:00.123] b\n"
    assert capsys.readouterr().out == "[12:00:00.123] c\n"
    assert (here.event_count, there.event_count) == (2, 1)


@pytest.mark.spec("E94")
async def test_sign_that_the_terminal_does_not_know_is_a_question_mark() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    await ConsoleExporter(colorize=False, stream=stream).export(AnalyticsEvent("grüezi", NOON))

    assert raw.getvalue().endswith(b"gr?ezi\n")


async def test_terminal_that_is_stuck_does_not_hold_anybody_up() -> None:
    release = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            release.wait()
            return len(text)

    exporter = ConsoleExporter(stream=Stuck())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.export_batch, named("a"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    release.set()

    assert exporter.event_count == 0


# Several


@pytest.mark.spec("E99")
async def test_composite_calls_everyone_and_tells_all_errors() -> None:
    first, last = Exporter(), Exporter()
    composite = CompositeExporter([first, Broken(), last, Broken()])
    assert isinstance(composite, AnalyticsExporter)

    for call in (
        composite.export(*named("a")),
        composite.export_batch(iter(named("b", "c"))),
        composite.flush(),
        composite.close(),
    ):
        with pytest.raises(ExceptionGroup) as caught:
            await call
        assert [type(error) for error in caught.value.exceptions] == [OSError, OSError]

    assert first.calls == last.calls == ["a", "b", "c", "<flush>", "<close>"]


@pytest.mark.spec("E99")
async def test_composite_calls_everyone_at_once(autojump_clock: MockClock) -> None:
    class Slow(Exporter):
        async def export(self, event: AnalyticsEvent) -> None:
            await trio.sleep(1)

    start = trio.current_time()

    await CompositeExporter([Slow(), Slow()]).export(*named("a"))

    assert trio.current_time() - start == 1
