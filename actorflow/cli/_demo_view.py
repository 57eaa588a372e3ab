"""What the demo looks like: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, assert_never, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actorflow.actors import (
    ActorEnded,
    ActorInfo,
    ActorStarted,
    Crashed,
    DeadLetter,
    Notice,
    Reason,
    RestartPlanned,
    Shutdown,
    State,
    SupervisorGaveUp,
)
from actorflow.clock import monotonic
from actorflow.pipeline import Run

from . import _run_view
from ._screen import can_draw

LOOKS: Final[Mapping[State, tuple[str, str]]] = {
    State.NEW: ("○", "dim"),
    State.STARTING: ("◐", "yellow"),
    State.RUNNING: ("●", "green"),
    State.STOPPING: ("◑", "cyan"),
    State.DOWN: ("✗", "red"),
    State.ENDED: ("○", "dim"),
}

CAPTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("pipeline.started", "answer"): "A streaming edge: `hear` reads what `listen` still sends.",
    ("stage.completed", "hear"): "Stages that do not wait for each other run at the same time.",
    ("crashed", "services/archive"): "An actor crashed. Whoever asked it is told and asks again.",
    ("again", "services/archive"): "Its supervisor started it again, and its mail was kept.",
    ("stage.started", "write"): "What it found is written down, and a guard looks at it.",
    ("guard_retry.scheduled", "modest"): "The guard refused: `write` runs again and can read why.",
    (
        "pipeline.spawned_child",
        "translation",
    ): "Pipelines in a pipeline: they end with their stage.",
    ("pipeline.started", "call"): "A run that waits, with another one below it.",
    ("stage.started", "sing"): "Soon somebody hangs up.",
    ("pipeline.canceled", "music"): "Cancelled: children first, and clean-ups are waited for.",
}
"""What things mean for someone who sees them for the first time."""

TREES: Final = frozenset(
    CAPTIONS[moment]
    for moment in (
        ("crashed", "services/archive"),
        ("pipeline.spawned_child", "translation"),
        ("stage.started", "sing"),
    )
)
"""When the tree is worth a look where it cannot be shown all the time."""

STEPS: Final[Mapping[str, tuple[str, str]]] = {
    **_run_view.STEPS,
    "pipeline.started": ("{pipeline_name} started", "bold"),
    "pipeline.completed": ("{pipeline_name} completed in {duration_ms:.0f} ms", "bold green"),
    "pipeline.canceled": ("{pipeline_name} canceled: {reason}", "bold magenta"),
    "demo.heard": ("{stage} reads {word!r}", "cyan"),
}

NARROW: Final = 72
"""Where a run and the tree no longer stand side by side."""
WIDE: Final = 100


def line_of(notice: Notice) -> Text:
    """A notice in one line."""
    match notice:
        case ActorStarted(actor, 1):
            return Text(f"{actor or 'system'} is up", "green")
        case ActorStarted(actor, incarnation):
            return Text(f"{actor or 'system'} is up again, life {incarnation}", "green")
        case ActorEnded(actor, _, reason):
            return _ending(actor or "system", reason)
        case RestartPlanned(supervisor, actors, delay):
            when = f"in {delay:.1f} s" if delay else "at once"
            return Text(f"{supervisor or 'system'} restarts {', '.join(actors)} {when}", "yellow")
        case SupervisorGaveUp(supervisor, actor):
            return Text(f"{supervisor} gives up on {actor}", "bold red")
        case DeadLetter(message, actor, reason):
            return Text(
                f"{type(message).__name__} for {actor} is a dead letter: {reason}", "magenta"
            )
        case _:
            assert_never(notice)


def _ending(actor: str, reason: Reason) -> Text:
    match reason:
        case Crashed(error):
            return Text(f"{actor} crashed: {type(error).__name__}: {error}", "red")
        case Shutdown():
            return Text(f"{actor} has stopped", "cyan")
        case _:
            return Text(f"{actor} ended: {reason}", "cyan")


def _moment_of(notice: Notice) -> tuple[str, str]:
    match notice:
        case ActorEnded(actor, _, Crashed()):
            return "crashed", actor
        case ActorStarted(actor, incarnation) if incarnation > 1:
            return "again", actor
        case _:
            return "", ""


def tree_of(tree: ActorInfo) -> Text:
    """The supervision tree: a line per actor, with its state, its life and its mail."""
    lines = [Text("system", "bold")]
    for guides, info in _branches(tree):
        symbol, style = LOOKS[info.state]
        # A run is called after its id too, which no one reads here.
        name = " ".join(info.name.split()[:2])
        line = Text.assemble((guides, "dim"), (f"{symbol} ", style), name)
        if info.state is not State.RUNNING:
            line.append(f"  {info.state}", style)
        if info.incarnation > 1:
            line.append(f"  life {info.incarnation}", "yellow")
        if info.statistics.depth:
            line.append(f"  {info.statistics.depth} in its mailbox", "magenta")
        lines.append(line)
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _branches(tree: ActorInfo, indent: str = "") -> Iterator[tuple[str, ActorInfo]]:
    for info in tree.children:
        is_last = info is tree.children[-1]
        yield indent + ("└ " if is_last else "├ "), info
        yield from _branches(info, indent + ("  " if is_last else "│ "))


def progress_of(run: Run) -> RenderableType:
    """A run: how far it is, and each of its stages in one line."""
    status = run.status()
    over = sum(state in _run_view.OVER for state in status.stages.values())
    head, *stages = _run_view.lines_of(status, run.results, full=False)
    head.no_wrap = True
    bar = ProgressBar(
        total=len(stages), completed=over, width=24, complete_style="green", finished_style="green"
    )
    counted = Text(f" {over}/{len(stages)}", "dim")
    row = Table.grid()
    row.add_row(bar, counted)
    return Group(head, row, Text("\n", no_wrap=True, overflow="ellipsis").join(stages))


@contextmanager
def open_view(console: Console) -> Iterator[View]:
    """Show a demo: live in a terminal, line by line elsewhere. Opened inside trio."""
    if can_draw(console):
        # Drawn by trio's own thread, whenever `draw` is called.
        with Live(console=console, auto_refresh=False) as live:
            yield LiveView(live)
    else:
        yield PlainView(console)


class View(ABC):
    """Where a demo is shown, with the seconds since its start. It is an event sink, too."""

    def __init__(self) -> None:
        self._start = monotonic()
        self._children: dict[str, str] = {}
        # Each is shown once.
        self._captions = dict(CAPTIONS)
        self._run: Run | None = None

    # What happens

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        payload = data or {}
        if type == "pipeline.spawned_child":
            self._children[payload["child_run_id"]] = payload["pipeline_name"]
        # The start of a child was told by who spawned it.
        is_told = type == "pipeline.started" and payload["pipeline_run_id"] in self._children
        if type in STEPS and not is_told:
            about = "pipeline_name" if type.startswith("pipeline.") else "stage"
            self._tell(
                self._line_of(type, payload),
                (type, str(payload.get("guard") or payload.get(about))),
            )

    def _line_of(self, type: str, payload: Mapping[str, Any]) -> Text:
        step = _run_view.step_of(type, payload, STEPS)
        child = self._children.get(payload.get("pipeline_run_id", ""))
        if child is None or type.startswith("pipeline."):
            return step
        return Text.assemble((f"{child}: ", "dim"), step)

    def note(self, notice: Notice) -> None:
        """Something has happened in the system."""
        self._tell(line_of(notice), _moment_of(notice))

    def _tell(self, line: Text, moment: tuple[str, str]) -> None:
        self._show(self._stamped(line))
        if caption := self._captions.pop(moment, None):
            self.caption(caption)

    def _stamped(self, line: Text) -> Text:
        return Text.assemble((f"{monotonic() - self._start:5.1f} s  ", "dim"), line)

    # The run that is shown

    def follow(self, run: Run) -> None:
        """Show this run from now on."""
        self._run = run

    def busy(self) -> list[str]:
        """The stages that run."""
        states = {} if self._run is None else self._run.status().stages
        return [name for name, state in states.items() if state == "running"]

    def cancel_run(self, reason: str) -> None:
        """End the run that is shown."""
        if self._run is not None:
            self._run.cancel(reason)

    # How it is shown

    @abstractmethod
    def caption(self, text: str) -> None:
        """Say what is going on."""

    @abstractmethod
    def _show(self, line: Text) -> None: ...

    @abstractmethod
    def draw(self, tree: ActorInfo) -> None:
        """Show the tree and the run as they are now."""


@final
class PlainView(View):
    """One line after another, for files and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._wants_tree = False

    def caption(self, text: str) -> None:
        self._show(self._stamped(Text(f"-- {text}")))
        self._wants_tree = text in TREES

    def _show(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def draw(self, tree: ActorInfo) -> None:
        if self._wants_tree:
            self._wants_tree = False
            self._show(Text("\n") + tree_of(tree) + Text("\n"))


@final
class LiveView(View):
    """One picture that changes: what is going on, the run, the tree, the latest lines."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._caption = Text()
        self._lines: deque[Text] = deque(maxlen=60)

    def caption(self, text: str) -> None:
        self._caption = self._stamped(Text(text, "bold"))

    def _show(self, line: Text) -> None:
        self._lines.append(line)

    def draw(self, tree: ActorInfo) -> None:
        console = self._live.console
        run = Text() if self._run is None else progress_of(self._run)
        if console.width < NARROW:
            parts: RenderableType = Group(run, "", tree_of(tree))
        else:
            columns = Table.grid(padding=(0, 2, 0, 0))
            columns.width = min(console.width, WIDE)
            columns.add_column(ratio=1)
            columns.add_column(ratio=1)
            columns.add_row(run, tree_of(tree))
            parts = columns
        self._caption.no_wrap, self._caption.overflow = True, "ellipsis"
        top = Group(self._caption, "", parts, "")
        room = console.height - len(console.render_lines(top)) - 1
        # Cut, not wrapped: a picture that changes its height jumps.
        latest = list(self._lines)[-room:] if room > 0 else []
        lines = Text("\n", no_wrap=True, overflow="ellipsis").join(latest)
        self._live.update(Group(top, lines), refresh=True)
