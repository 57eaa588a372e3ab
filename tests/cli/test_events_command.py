from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from actorflow import cli
from actorflow.events import AnalyticsEvent, to_lines
from tests.events.story import CHILD, RUN, story

pytest.importorskip("cyclopts")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run `actorflow` in a directory with a file run.jsonl."""
    monkeypatch.chdir(tmp_path)
    # The last line is torn, as a killed process leaves it.
    Path("run.jsonl").write_text(to_lines(story()) + '{"event_type": "to')

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return (int(caught.value.code or 0), *capsys.readouterr())

    return run


def test_events_are_shown_one_after_the_other(command: Command) -> None:
    code, out, _ = command("events", "run.jsonl")

    first, *rest = out.splitlines()
    assert code == 0
    assert first.endswith("] pipeline.started")
    assert "  stage: vad" in rest
    assert "\x1b" not in out


def test_events_are_chosen_by_type_stage_and_run(command: Command) -> None:
    _, by_type, _ = command("events", "run.jsonl", "--json", "-t", "tool.", "-t", "approval.")
    _, by_stage, _ = command("events", "run.jsonl", "--json", "--stage", "vad")
    _, by_run, _ = command("events", "run.jsonl", "--json", "--run", CHILD)

    def types(out: str) -> list[str]:
        return [json.loads(line)["event_type"] for line in out.splitlines()]

    assert types(by_type) == [
        *("approval.requested", "approval.decided", "tool.started", "tool.completed")
    ]
    assert types(by_stage) == ["stage.started", "stage.completed"]
    assert types(by_run)[0] == "pipeline.started"
    assert types(by_run)[-1] == "pipeline.failed"


def test_payloads_are_shown_on_demand(command: Command) -> None:
    _, out, _ = command("events", "run.jsonl", "-v", "-t", "stage.skipped")

    assert '"reason": "same language"' in out


def test_summary_counts_runs_stages_and_types(command: Command) -> None:
    code, out, _ = command("events", "run.jsonl", "--summary")

    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("events in 4.510 s")
    assert lines[1] == "2 runs: 1 canceled, 1 failed"
    stages = {line.split()[0]: line.split()[1:] for line in lines[4 : lines.index("", 4)]}
    assert stages["output-guard"] == ["2", "1", "0", "0", "0", "175.0", "200.0"]
    assert stages["translate"] == ["1", "0", "0", "1", "0"]
    assert stages["speak"] == ["1", "0", "1", "0", "0", "1100.0", "1100.0"]
    assert stages["remember"] == ["1", "0", "0", "0", "2", "660.0", "660.0"]
    assert lines[-1].split() == ["1", "tool.started"]


def test_summary_of_nothing_is_all_zeros(command: Command) -> None:
    code, out, _ = command("events", "run.jsonl", "--summary", "--stage", "nobody")

    assert code == 0
    assert out.splitlines()[:2] == ["0 events in 0.000 s", "0 runs: "]


def test_run_that_is_not_over_is_open(command: Command) -> None:
    events = [
        AnalyticsEvent(type, stage_name="a", data={"stage": "a"}, pipeline_run_id=UUID(RUN))
        for type in ("pipeline.started", "stage.started", "stage.completed")
    ]
    Path("open.jsonl").write_text(to_lines(events))

    _, out, _ = command("events", "open.jsonl", "--summary")

    assert out.splitlines()[1] == "1 run: 1 open"


def test_timeline_is_drawn_as_text(command: Command) -> None:
    code, out, _ = command("timeline", "run.jsonl", "--width", "100")

    assert code == 0
    assert out.splitlines()[1].startswith("voice-turn  ")
    assert all(len(line) <= 100 for line in out.splitlines())


def test_timeline_is_drawn_as_a_picture(command: Command) -> None:
    code, out, err = command("timeline", "run.jsonl", "-o", "run.svg")

    assert (code, out) == (0, "")
    assert err == "wrote run.svg, 15 rows\n"
    assert ET.parse("run.svg").getroot().tag.endswith("svg")


def test_timeline_of_one_run_has_its_children(command: Command) -> None:
    _, whole, _ = command("timeline", "run.jsonl", "--run", RUN)
    _, child, _ = command("timeline", "run.jsonl", "--run", CHILD)

    assert "web-search" in whole
    assert "fetch" in child
    assert "voice-turn" not in child


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "lost.jsonl"],
        ["events", "lost.jsonl", "--follow"],
        ["timeline", "lost.jsonl"],
        ["timeline", "run.jsonl", "-o", "lost/run.svg"],
    ],
)
def test_file_that_is_not_there_is_named(arguments: list[str], command: Command) -> None:
    code, _, err = command(*arguments)

    assert code == 1
    assert "No such file or directory" in err
    assert "Traceback" not in err


def test_picture_is_an_svg(command: Command) -> None:
    code, _, err = command("timeline", "run.jsonl", "-o", "run.png")

    assert code == 2
    assert "Its ending must be .svg." in err
    assert not Path("run.png").exists()


@pytest.mark.parametrize("arguments", [["events"], ["events", "-s"], ["timeline"]])
def test_file_that_holds_no_events_is_refused(arguments: list[str], command: Command) -> None:
    Path("support.py").write_text("import trio\nprint(1 +\n")

    code, out, err = command(*arguments, "support.py")

    assert (code, out) == (1, "")
    assert "support.py cannot be used: it holds no events" in err
    assert "actorflow run --events" in err
    assert "event_line_skipped" not in err


def test_lines_that_are_no_events_are_counted(command: Command) -> None:
    Path("mixed.jsonl").write_text("oops\n" + to_lines([AnalyticsEvent("first")]) + "{\n")

    code, out, err = command("events", "mixed.jsonl", "--json")

    assert code == 0
    assert [json.loads(line)["event_type"] for line in out.splitlines()] == ["first"]
    assert err == "skipped lines that are no events: 2\n"


def test_line_that_is_json_and_no_event_is_named(command: Command) -> None:
    Path("theirs.jsonl").write_text('{"message": "not ours"}\n')

    code, out, err = command("events", "theirs.jsonl")

    assert (code, out) == (1, "")
    assert "event_type" in err
    assert "in line 1\nof theirs.jsonl\n" in err


def test_long_names_do_not_break_the_summary(command: Command) -> None:
    ended = AnalyticsEvent("stage.completed", stage_name="a" * 60, duration_ms=1.0)
    Path("long.jsonl").write_text(to_lines([ended]))

    _, out, _ = command("events", "long.jsonl", "--summary")

    header, line = out.splitlines()[3:5]
    assert line.startswith("a" * 23 + "…  ")
    assert len(line) == len(header)


def test_run_that_is_not_in_the_file_is_told(command: Command) -> None:
    code, out, err = command("timeline", "run.jsonl", "--run", "nobody")

    assert (code, out) == (1, "")
    assert "--run must be what the id of a run in the file begins with, found 'nobody'" in err


def test_following_and_counting_exclude_each_other(command: Command) -> None:
    code, _, err = command("events", "run.jsonl", "-f", "-s")

    assert code == 1
    assert "--follow must be used without --summary" in err


async def test_following_shows_what_is_added(tmp_path: Path, mock_clock: MockClock) -> None:
    from actorflow.cli._events import _follow

    path = tmp_path / "run.jsonl"
    path.write_text(to_lines([AnalyticsEvent("first")]) + '{"event_ty')
    shown: list[str] = []
    seen = trio.Event()

    def show(event: AnalyticsEvent) -> None:
        shown.append(event.event_type)
        if event.event_type == "last":
            seen.set()

    mock_clock.rate = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, path, show)
        await trio.sleep(1)
        assert shown == ["first"]
        with path.open("a") as file:
            rest = to_lines([AnalyticsEvent("second"), AnalyticsEvent("last")])
            file.write(rest.removeprefix('{"event_ty'))
        await seen.wait()
        nursery.cancel_scope.cancel()

    assert shown == ["first", "second", "last"]


def test_interrupted_following_ends_quietly(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupted)

    assert command("events", "run.jsonl", "--follow") == (0, "", "")


@pytest.mark.parametrize("arguments", [[], ["--follow"]])
def test_reader_who_has_seen_enough_gets_no_traceback(
    arguments: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("long.jsonl").write_text(to_lines([AnalyticsEvent("a")] * 5000))
    reading, writing = os.pipe()
    os.close(reading)

    # Closing flushes what is left, which must not fail either.
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert command("events", "long.jsonl", *arguments) == (0, "", "")


@pytest.mark.parametrize("arguments", [["events"], ["events", "--follow"], ["timeline"]])
def test_disk_that_is_full_is_told_without_a_traceback(
    arguments: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        code, _, told = command(*arguments, "run.jsonl")

    assert code == 1
    assert told.startswith("actorflow: the output cannot be used: No space left on device\nfix:")
