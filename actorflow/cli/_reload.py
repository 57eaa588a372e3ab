"""`--reload`: a command that is run again whenever the code has changed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from rich.console import Console

from ._interrupts import INTERRUPTED, Interrupts

# How often files are looked at.
_PAUSE: Final = 0.2
_FOREIGN: Final = frozenset({"__pycache__", "node_modules", "site-packages"})
_MAIN: Final = "from actorflow.cli import main; main()"


def this_command(option: str) -> list[str]:
    """The command line of this process without an option, as a process of its own."""
    return [sys.executable, "-c", _MAIN, *(it for it in sys.argv[1:] if it != option)]


def stamps_of(folder: Path) -> Mapping[Path, int]:
    """When each Python file below a folder was changed; what others wrote is left out."""
    stamps = {}
    for directory, folders, files in os.walk(folder):
        folders[:] = [it for it in folders if it not in _FOREIGN and not it.startswith(".")]
        for path in (Path(directory, it) for it in files if it.endswith(".py")):
            # An editor may be about to replace it.
            with suppress(OSError):
                stamps[path] = path.stat().st_mtime_ns
    return stamps


async def run_again(command: Sequence[str], folder: Path, console: Console) -> int:
    """Run a command, and again after each change below `folder`, until interrupted.

    A command that still runs is stopped as Ctrl-C would stop it. It gets a process of its own,
    because a module that was imported once cannot be taken back.
    """
    interrupts = Interrupts(lambda: None, console)
    with interrupts.caught():
        while not interrupts.came:
            seen = stamps_of(folder)
            # Ctrl-C of the terminal comes here and is passed on, once.
            process = await trio.lowlevel.open_process(command, process_group=0)
            try:
                await _until_changed(process, folder, seen, interrupts, console)
                process.send_signal(signal.SIGINT)
                await process.wait()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    return INTERRUPTED


async def _until_changed(
    process: trio.Process,
    folder: Path,
    seen: Mapping[Path, int],
    interrupts: Interrupts,
    console: Console,
) -> None:
    is_over = False
    while not interrupts.came and stamps_of(folder) == seen:
        if not is_over and process.poll() is not None:
            is_over = True
            console.print(f"Runs again when something below {folder} changes; Ctrl-C ends.")
        await trio.sleep(_PAUSE)
