from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("cyclopts")

from rich.console import Console

from actorflow import cli
from actorflow.cli import _reload, _run
from actorflow.cli._reload import run_again, stamps_of, this_command
from actorflow.cli._target import Target

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")

NOTES_AN_END = """
import pathlib, sys, time
log = pathlib.Path(sys.argv[1]).open("a", buffering=1)
log.write("begun\\n")
try:
    time.sleep(float(sys.argv[2]))
    log.write("done\\n")
except KeyboardInterrupt:
    log.write("interrupted\\n")
"""


async def until(holds: Callable[[], bool]) -> None:
    # What happens, happens in another process.
    while not holds():  # noqa: ASYNC110
        await trio.sleep(0.01)


class Watched:
    """A folder with code, and a command that notes what becomes of it."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code" / "voice.py"
        self.code.parent.mkdir()
        self.code.touch()
        self.log = folder / "log"
        self.log.touch()
        self.said = io.StringIO()

    async def run(self, seconds: float) -> int:
        command = [sys.executable, "-S", "-c", NOTES_AN_END, str(self.log), str(seconds)]
        return await run_again(command, self.code.parent, Console(file=self.said, width=500))

    async def change_after(self, *lines: str) -> None:
        """Change the code when the log ends with these lines."""
        await self.reach(*lines)
        self.code.write_text(f"# {len(lines)}")

    async def reach(self, *lines: str) -> None:
        await until(lambda: self.log.read_text().splitlines() == list(lines))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(_reload, "_PAUSE", 0.01)
    return Watched(tmp_path)


async def test_changed_code_runs_again_until_interrupted(watched: Watched) -> None:
    async def act() -> None:
        await until(lambda: watched.said.getvalue().count("Runs again when") == 1)
        await watched.change_after("begun", "done")
        await watched.reach("begun", "done", "begun", "done")
        signal.raise_signal(signal.SIGINT)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            assert await watched.run(0) == 130


async def test_command_that_still_runs_is_interrupted_by_a_change(watched: Watched) -> None:
    async def act() -> None:
        await watched.change_after("begun")
        await watched.reach("begun", "interrupted", "begun")
        signal.raise_signal(signal.SIGINT)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            assert await watched.run(60) == 130

    assert watched.log.read_text().splitlines() == ["begun", "interrupted"] * 2


async def test_command_is_not_left_behind(watched: Watched) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run, 60)
            await watched.reach("begun")
            nursery.cancel_scope.cancel()

    assert watched.log.read_text() == "begun\n"


def test_code_is_looked_at_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.py", "b.txt", "package/c.py", ".venv/d.py", "package/__pycache__/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # As an editor leaves it for a moment.
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")

    assert set(stamps_of(tmp_path)) == {tmp_path / "a.py", tmp_path / "package" / "c.py"}


def test_command_runs_itself_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["actorflow", "run", "a.py", "--reload", "-i", "hi"])

    assert this_command("--reload")[3:] == ["run", "a.py", "-i", "hi"]


def test_run_watches_the_folder_of_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def ask(*arguments: Any) -> int:
        asked.extend(arguments)
        return 130

    monkeypatch.setattr(_run, "run_again", ask)
    monkeypatch.setattr(sys, "argv", ["actorflow", "run", "some/where.py:voice", "--reload"])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 130
    assert asked[0][3:] == ["run", "some/where.py:voice"]
    assert asked[1] == Path("some")


@pytest.mark.parametrize(
    ("target", "folder"), [("a.py", "."), ("b/a.py:p", "b"), ("package.voice:p", ".")]
)
def test_target_knows_its_folder(target: str, folder: str) -> None:
    assert Target.parse(target).folder == Path(folder)
