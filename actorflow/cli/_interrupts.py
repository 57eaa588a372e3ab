"""What Ctrl-C does to a command that runs something."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, final

import trio
from rich.console import Console

INTERRUPTED: Final = 130
"""Exit code of a command that was interrupted."""


@final
class Interrupts:
    """The first one asks for an orderly stop, the second one leaves at once."""

    def __init__(self, stop: Callable[[], object], console: Console) -> None:
        """`stop` is called in trio's thread, between two steps of the loop."""
        self.came = False
        self._stop = stop
        self._console = console

    @contextmanager
    def caught(self, *numbers: signal.Signals) -> Iterator[None]:
        """Handle interrupts for the length of the block, and other signals like them."""
        loop = trio.lowlevel.current_trio_token()

        def handle(*_: object) -> None:
            if self.came:
                leave(self._console)
            self.came = True
            # Code of a signal handler runs between any two instructions.
            loop.run_sync_soon(self._stop)

        before = {it: signal.signal(it, handle) for it in (signal.SIGINT, *numbers)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def waiting_for(names: Iterable[str]) -> str:
    """What to say while an orderly stop goes on."""
    what = ", ".join(names) or "what has to be cleaned up"
    return f"Interrupted; waiting for {what}. Ctrl-C again leaves at once."


def leave(console: Console) -> None:
    """End the process without waiting for anything."""
    # A live view has hidden it.
    console.show_cursor()
    os._exit(INTERRUPTED)
