"""What the demo looks like: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, assert_never, final

from rich.console import Console, Group
from rich.live import Live
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

LOOKS: Final[Mapping[State, tuple[str, str]]] = {
    State.NEW: ("○", "dim"),
    State.STARTING: ("◐", "yellow"),
    State.RUNNING: ("●", "green"),
    State.STOPPING: ("◑", "cyan"),
    State.DOWN: ("✗", "red"),
    State.ENDED: ("○", "dim"),
}
BAR: Final = 16


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
            return Text(f"{message!r} for {actor} is a dead letter: {reason}", "magenta")
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


def picture_of(tree: ActorInfo) -> Table:
    """The tree with the state, the mailbox and the restarts of every actor."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("actor")
    table.add_column("state", min_width=max(map(len, State)))
    table.add_column("mailbox")
    table.add_column("handled", justify="right")
    table.add_column("restarts", justify="right")
    for guides, info in _branches(tree):
        symbol, style = LOOKS[info.state]
        numbers = info.statistics
        table.add_row(
            Text.assemble((guides, "dim"), (f"{symbol} ", style), info.name),
            Text(info.state, style),
            Text() if info.is_supervisor else _bar(numbers.depth, numbers.capacity),
            Text() if info.is_supervisor else Text(str(numbers.handled)),
            Text(str(numbers.restarts or ""), "yellow"),
        )
    return table


def _branches(tree: ActorInfo, indent: str = "") -> Iterator[tuple[str, ActorInfo]]:
    for info in tree.children:
        is_last = info is tree.children[-1]
        yield indent + ("└─ " if is_last else "├─ "), info
        yield from _branches(info, indent + ("   " if is_last else "│  "))


def _bar(depth: int, capacity: int) -> Text:
    full = -(-depth * BAR // capacity)
    bar = ("█" * full, "yellow"), ("·" * (BAR - full), "dim")
    return Text.assemble(*bar, f" {depth:2}/{capacity}")


@contextmanager
def open_view(console: Console) -> Iterator[View]:
    """Show a demo: live in a terminal, line by line elsewhere. Opened inside trio."""
    if console.is_terminal:
        # Drawn by trio's own thread, whenever `draw` is called.
        with Live(console=console, auto_refresh=False) as live:
            yield LiveView(live)
    else:
        yield PlainView(console)


class View(ABC):
    """Where a demo is shown, with the seconds since its start."""

    def __init__(self) -> None:
        self._start = monotonic()

    @abstractmethod
    def caption(self, text: str) -> None:
        """Say what is going on."""

    @abstractmethod
    def note(self, notice: Notice) -> None:
        """Show one thing that happened."""

    @abstractmethod
    def draw(self, tree: ActorInfo) -> None:
        """Show the tree as it is now."""

    def _stamped(self, line: Text) -> Text:
        return Text.assemble((f"{monotonic() - self._start:5.1f} s  ", "dim"), line)


@final
class PlainView(View):
    """One line after another, for files and pipes. The tree comes once, at the start."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._has_drawn = False

    def caption(self, text: str) -> None:
        self._print(self._stamped(Text(f"-- {text}")))

    def note(self, notice: Notice) -> None:
        self._print(self._stamped(line_of(notice)))

    def draw(self, tree: ActorInfo) -> None:
        if not self._has_drawn:
            self._has_drawn = True
            self._print(Text(f"{tree}\n"))

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


@final
class LiveView(View):
    """One picture that changes: what is going on, the tree, the latest notices."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._caption = ""
        self._lines: deque[Text] = deque(maxlen=11)

    def caption(self, text: str) -> None:
        self._caption = text

    def note(self, notice: Notice) -> None:
        self._lines.append(self._stamped(line_of(notice)))

    def draw(self, tree: ActorInfo) -> None:
        # Cut, not wrapped: a picture that changes its height jumps.
        lines = Text("\n", no_wrap=True, overflow="ellipsis").join(self._lines)
        head = self._stamped(Text(self._caption, "bold"))
        picture = Group("", head, "", picture_of(tree), "", lines)
        self._live.update(picture, refresh=True)
