from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

pytest.importorskip("rich")

from rich.console import Console

from actorflow.actors import (
    ActorEnded,
    ActorStarted,
    Crashed,
    DeadLetter,
    DeadReason,
    Killed,
    Normal,
    Notice,
    RestartPlanned,
    Shutdown,
    SupervisorGaveUp,
)
from actorflow.cli import _demo
from actorflow.cli._demo_view import CAPTIONS, line_of
from actorflow.events import read_events
from tests.test_layers import ROOT


def screen(*, width: int = 80, height: int = 24, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=width, height=height, highlight=False
    )


def written(console: Console) -> str:
    """What was written, without the codes that move and colour."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


async def shown(console: Console, folder: Path) -> str:
    assert not await _demo.play(console, _demo.Files(folder))
    return written(console)


def in_order(text: str, *lines: str) -> bool:
    places = [text.index(line) for line in lines]
    return places == sorted(places)


async def test_demo_shows_everything_that_may_happen_to_a_run(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    out = await shown(screen(terminal=False), tmp_path)

    assert in_order(
        out,
        "hear reads 'Why'",
        "listen completed",
        "services/archive crashed: OSError",
        "services restarts services/archive in 1.6 s",
        "services/archive is up again, life 2",
        "look_up completed",
        "modest failed after 500.0 ms: nothing is obvious",
        "modest refused, so write runs again",
        "translate starts translation",
        "translation: words started",
        "translation completed",
        "answer completed in ",
        "hold starts music",
        "music: sing canceled",
        "music canceled: the caller hung up",
        "call canceled: the caller hung up",
        "services/memory has stopped",
        "system has stopped",
    )
    assert {caption for caption in CAPTIONS.values() if out.count(f"-- {caption}\n") != 1} == set()


async def test_tree_is_shown_now_and_then_where_it_cannot_stay(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    out = await shown(screen(terminal=False), tmp_path)

    assert out.count("\nsystem\n├ ● services\n") == 3
    assert "└ ✗ archive  down\n" in out
    assert re.search(r"├ ● translate\n.*├ ● run translation\n.*└ ● words\n", out)
    assert re.search(r"└ ● hold\n.*└ ● run music\n.*└ ● sing\n", out)


async def test_stages_that_wait_for_the_same_begin_together(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    out = await shown(screen(terminal=False), tmp_path)

    begun = re.findall(r"(\d+\.\d) s  (?:remember|feel|look_up) started", out)
    assert len(begun) == 3
    assert len(set(begun)) == 1


async def test_words_arrive_while_they_are_still_sent(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    out = await shown(screen(terminal=False), tmp_path)

    assert in_order(out, "hear started", "hear reads 'trees'", "listen completed")


async def test_demo_takes_less_than_thirty_seconds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    start = trio.current_time()

    await shown(screen(terminal=False), tmp_path)

    assert 5 < trio.current_time() - start < 30


async def test_terminal_shows_progress_tree_and_mail(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    out = await shown(screen(), tmp_path)

    assert re.search(r"◐ look_up +running", out)
    assert re.search(r"━ 2/9 ", out)
    assert "✗ archive  down  1 in its mailbox" in out
    assert "● archive  life 2" in out
    assert re.search(r"├ ● run translation *\n.*│ └ ● words", out)
    # The last picture: everything has ended.
    last = out[out.rindex(" system  ") :]
    assert len(re.findall(r"○ \w+ +ended", last)) == 3


@pytest.mark.parametrize(("width", "height"), [(40, 50), (80, 24), (80, 10), (200, 60)])
async def test_picture_never_leaves_the_terminal(
    autojump_clock: MockClock, tmp_path: Path, width: int, height: int
) -> None:
    console = screen(width=width, height=height)

    lines = (await shown(console, tmp_path)).splitlines()

    assert max(len(line.rpartition("\r")[2]) for line in lines) <= width


async def test_terminal_that_cannot_go_back_gets_lines(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")

    out = await shown(screen(), tmp_path)

    assert re.search(r"^ +\d\.\d s  answer completed in", out, re.MULTILINE)
    assert "━" not in out


def test_captions_fit_into_a_terminal() -> None:
    assert max(map(len, CAPTIONS.values())) <= 80 - len("  0.0 s  ")


@pytest.mark.parametrize(
    ("notice", "line"),
    [
        (ActorStarted("a", 1), "a is up"),
        (ActorStarted("a", 2), "a is up again, life 2"),
        (ActorEnded("", 1, Shutdown()), "system has stopped"),
        (ActorEnded("a", 1, Crashed(ValueError("no"))), "a crashed: ValueError: no"),
        (ActorEnded("a", 1, Killed("too slow")), "a ended: it was killed: too slow"),
        (ActorEnded("a", 1, Normal()), "a ended: it returned"),
        (RestartPlanned("s", ("s/a", "s/b"), 0), "s restarts s/a, s/b at once"),
        (RestartPlanned("", ("a",), 0.25), "system restarts a in 0.2 s"),
        (SupervisorGaveUp("s", "s/a", Normal()), "s gives up on s/a"),
        (DeadLetter("hi", "a", DeadReason.STOPPED), "str for a is a dead letter: stopped"),
    ],
)
def test_every_notice_is_one_line(notice: Notice, line: str) -> None:
    assert line_of(notice).plain == line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command leaves its files; its time is virtual."""
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(trio, "run", partial(trio.run, clock=MockClock(autojump_threshold=0)))
    return tmp_path


def test_command_ends_with_a_picture_and_the_events(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _demo.demo() == 0

    out = capsys.readouterr().out
    picture, events = folder / "timeline.svg", folder / "events.jsonl"
    assert re.search(r"^answer +─+", out, re.MULTILINE)
    assert re.search(r"^call +─+⊘ .* canceled", out, re.MULTILINE)
    assert f"picture  {picture}\n" in out
    assert f"events   {events}\n" in out
    assert picture.read_text("utf-8").startswith("<svg")
    types = [event.event_type for event in read_events(events)]
    assert types.count("pipeline.started") == 5
    assert types.count("pipeline.canceled") == 2


def test_interrupt_ends_a_demo_in_order(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*arguments: object) -> None:
        await trio.sleep(2)
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(_demo, "_redraw", interrupted)
    before = signal.getsignal(signal.SIGINT)

    assert _demo.demo() == 130

    out = capsys.readouterr().out
    assert in_order(
        out,
        "Interrupted; waiting for remember, feel, look_up. Ctrl-C again",
        "answer canceled: interrupted",
        "services has stopped",
        "Interrupted, and stopped in order.",
    )
    assert "call" not in out
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_before_the_first_run_ends_a_demo(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(_demo, "_runs", interrupted)

    assert _demo.demo() == 130
    assert "waiting for what has to be cleaned up" in capsys.readouterr().out


async def test_demo_ends_when_its_console_has_gone_quiet(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    console = screen(terminal=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_demo.play, console, _demo.Files(tmp_path))
        await trio.sleep(1.95)
        console.quiet = True

    types = [event.event_type for event in read_events(tmp_path / "events.jsonl")]
    assert types[-1] == "pipeline.canceled"
    # The second run never began.
    assert types.count("pipeline.started") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_demo_ends_in_order_when_nobody_reads_it() -> None:
    program = "import sys; from actorflow.cli._demo import demo; sys.exit(demo())"
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()

    assert (process.returncode, told) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_stops_the_demo_in_order() -> None:
    program = "import sys; from actorflow.cli._demo import demo; sys.exit(demo())"
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)

    assert "answer started" in first
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert in_order(rest, "answer canceled: interrupted", "system has stopped", "picture  ")
