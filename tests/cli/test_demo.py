from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
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
from actorflow.cli._demo_view import line_of

ROOT = Path(__file__).parents[2]


async def shown(*, terminal: bool) -> str:
    """What the demo writes, without the codes that move and colour."""
    file = io.StringIO()
    await _demo.play(Console(file=file, force_terminal=terminal, width=100, height=40))
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())


async def test_demo_crashes_restarts_escalates_and_stops_in_order(
    autojump_clock: MockClock,
) -> None:
    out = await shown(terminal=False)

    places = [
        out.index(line)
        for line in (
            "voice/translator crashed: ValueError",
            "voice restarts voice/translator in 1.2 s",
            "voice/translator is up again, life 2",
            "weather restarts weather/link in 0.4 s",
            "weather restarts weather/link in 0.8 s",
            "weather gives up on weather/link",
            "system restarts weather at once",
            "weather is up again, life 2",
            "weather/link has stopped",
            "voice/microphone has stopped",
            "voice/translator has stopped",
            "voice/speaker has stopped",
            "system has stopped",
        )
    ]
    assert places == sorted(places)


async def test_demo_loses_the_word_that_crashed_and_no_other(autojump_clock: MockClock) -> None:
    sums = re.search(r"(\d+) words said, (\d+) heard, (\d+) lost", await shown(terminal=False))

    assert sums is not None
    said, heard, lost = map(int, sums.groups())
    assert (said - heard, lost) == (1, 1)
    assert heard > 50


async def test_demo_takes_less_than_fifteen_seconds(autojump_clock: MockClock) -> None:
    start = trio.current_time()

    await shown(terminal=False)

    assert trio.current_time() - start < 15


async def test_terminal_shows_states_and_full_mailboxes(autojump_clock: MockClock) -> None:
    out = await shown(terminal=True)

    assert re.search(r"✗ translator +down +█{4}·{12}  4/20", out)
    assert re.search(r"◑ translator +stopping +█", out)
    assert re.search(r"weather +running +1\b", out)
    # The last picture: everything has ended, every mailbox is empty.
    last = out[out.rindex("actor  ") :]
    assert re.findall(r"[○●✗◑◐] (\w+)", last) == [
        *("voice", "speaker", "translator", "microphone"),
        *("weather", "link"),
    ]
    assert last.count("ended") == 6


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
        (DeadLetter("hi", "a", DeadReason.STOPPED), "'hi' for a is a dead letter: stopped"),
    ],
)
def test_every_notice_is_one_line(notice: Notice, line: str) -> None:
    assert line_of(notice).plain == line


def test_command_plays_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_demo, "SECONDS", 0.1)

    _demo.demo()

    assert "0 lost with the crash; 0 restarts." in capsys.readouterr().out


def test_interrupted_demo_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play(console: Console) -> None:
        raise BaseExceptionGroup("from a task", [KeyboardInterrupt()])

    monkeypatch.setattr(_demo, "play", play)

    with pytest.raises(SystemExit) as caught:
        _demo.demo()

    assert caught.value.code == 130
    assert "stopped in order" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_stops_the_demo_in_order() -> None:
    program = "from actorflow.cli._demo import demo; demo()"
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

    assert "Words travel" in first
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert re.findall(r"(\S+) has stopped", rest) == [
        *("weather/link", "weather"),
        *("voice/microphone", "voice/translator", "voice/speaker", "voice"),
        "system",
    ]
