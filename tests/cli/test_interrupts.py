from __future__ import annotations

import io
import os
import signal

import pytest
import trio.testing

pytest.importorskip("rich")

from rich.console import Console

from actorflow.cli._interrupts import Interrupts, waiting_for
from actorflow.cli._screen import Screen


async def test_second_interrupt_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    stopped: list[str] = []
    monkeypatch.setattr(os, "_exit", left.append)
    before = signal.getsignal(signal.SIGINT)

    interrupts = Interrupts(lambda: stopped.append("in order"), Console(quiet=True))
    with interrupts.caught():
        assert not interrupts.came
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()
        assert (interrupts.came, stopped, left) == (True, ["in order"], [])

        signal.raise_signal(signal.SIGINT)

    assert left == [130]
    assert signal.getsignal(signal.SIGINT) is before


def test_screen_goes_quiet_when_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(os, "dup2", lambda *_: None)
    screen = Screen(file=Closed())

    screen.print("is anybody there?")

    assert screen.quiet


def test_waiting_says_for_whom() -> None:
    assert waiting_for(["a", "b"]).startswith("Interrupted; waiting for a, b.")
    assert "what has to be cleaned up" in waiting_for([])
