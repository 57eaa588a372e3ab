"""What a run looks like: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from actorflow import clock
from actorflow.pipeline import RunResults
from actorflow.runtime import RunHandle, RunPhase, RunStatus, StageState
from actorflow.stages import StageResult

from ._screen import can_draw

LOOKS: Final[Mapping[StageState, tuple[str, str]]] = {
    StageState.WAITING: ("○", "dim"),
    StageState.QUEUED: ("○", "cyan"),
    StageState.RUNNING: ("◐", "yellow"),
    StageState.COMPLETED: ("●", "green"),
    StageState.SKIPPED: ("·", "dim"),
    StageState.FAILED: ("✗", "bold red"),
    StageState.CANCELED: ("✗", "magenta"),
    StageState.NOT_RUN: ("○", "dim"),
}
OVER: Final = frozenset(StageState) - {StageState.WAITING, StageState.QUEUED, StageState.RUNNING}
PHASES: Final[Mapping[RunPhase, str]] = {
    RunPhase.COMPLETED: "bold green",
    RunPhase.FAILED: "bold red",
    RunPhase.CANCELING: "bold magenta",
    RunPhase.CANCELED: "bold magenta",
}
STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "stage.started": ("{stage} started", ""),
    "stage.completed": ("{stage} completed in {duration_ms:.1f} ms", "green"),
    "stage.skipped": ("{stage} skipped: {reason}", "dim"),
    "stage.failed": ("{stage} failed after {duration_ms:.1f} ms: {error}", "red"),
    "canceled": ("{stage} canceled after {duration_ms:.1f} ms", "magenta"),
    "stage.retry_scheduled": ("{stage} failed, tried again in {delay_ms} ms: {error}", "yellow"),
    "guard_retry.scheduled": ("{guard} refused, so {retry_stage} runs again", "yellow"),
    "pipeline.spawned_child": ("{parent_stage_id} starts {pipeline_name}", ""),
}
"""What events say about the way of a run; the others go by their type.

A `stage.failed` whose status is `cancel` goes by `canceled`.
"""

_INNER: Final = ("pipeline.", "stage.", "stream.")
"""Families of events of which only those above are worth a line."""

LATEST: Final = 8


def step_of(
    type: str, data: Mapping[str, Any], steps: Mapping[str, tuple[str, str]] = STEPS
) -> Text:
    """An event in one line."""
    if type == "stage.failed" and data.get("status") == "cancel":
        type = "canceled"
    template, style = steps.get(type, ("{stage}: " + type, "cyan"))
    # A run reports without a stage.
    fields = {"stage": "run"} | {name: it for name, it in data.items() if it is not None}
    return Text(template.format_map(defaultdict(str, fields)), style)


def lines_of(status: RunStatus, results: RunResults, *, full: bool = True) -> list[Text]:
    """The run in one line, and each of its stages in one; `full` with what came of them."""
    names = max(map(len, status.stages), default=0)
    lines = [_headline(status)]
    for name, state in status.stages.items():
        symbol, style = LOOKS[state]
        line = Text.assemble((f"{symbol} ", style), f"{name:<{names}}  ", (f"{state:<9}", style))
        if (result := results.stage_results.get(name)) is not None:
            line.append(f"  {_duration(result):>10}  ", "dim")
            if full:
                line.append(came_of(result), "" if result.status == "completed" else style)
        line.rstrip()
        lines.append(line)
    return lines


def _duration(result: StageResult) -> str:
    return "" if result.status == "skipped" else _time(result.duration_ms / 1000)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def came_of(result: StageResult) -> str:
    """The data of a stage that ended well, else the reason why it did not."""
    if result.output is None:
        return result.error or "interrupted"
    if result.status != "completed":
        kind = f"{result.error_type}: " if result.error_type else ""
        return kind + result.output.reason
    tries = f"(try {result.tries}) " if result.tries > 1 else ""
    tries += f"(attempt {result.attempt}) " if result.attempt > 1 else ""
    return tries + (as_json(result.data) if result.data else "")


def as_json(value: object, *, indent: int | None = None) -> str:
    """A value as JSON; what JSON has no place for goes by its text."""
    return json.dumps(value, ensure_ascii=False, default=str, indent=indent)


def _headline(status: RunStatus) -> Text:
    name = (status.pipeline_name, "bold")
    state = (str(status.state), PHASES.get(status.state, "bold yellow"))
    if status.started_at is None:
        return Text.assemble(name, " ", state)
    took = ((status.ended_at or clock.now()) - status.started_at).total_seconds()
    joined = "in" if status.ended_at else "for"
    return Text.assemble(name, " ", state, f" {joined} {_time(took)}")


@contextmanager
def open_view(console: Console, *, steps: bool, stages: bool) -> Iterator[View]:
    """Show a run: live in a terminal, line by line elsewhere.

    `steps` are what happens on the way, `stages` is what came of each.
    """
    if can_draw(console) and (stages or steps):
        with Live(console=console, auto_refresh=False) as live:
            yield LiveView(live, steps=steps)
    else:
        yield PlainView(console, steps=steps, stages=stages)


class View(ABC):
    """Where a run is shown. It is an event sink of the run, too."""

    def __init__(self, *, steps: bool) -> None:
        self._start = clock.monotonic()
        self._steps = steps
        self._children: dict[str, str] = {}

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        payload = data or {}
        if type == "pipeline.spawned_child":
            self._children[payload["child_run_id"]] = payload["pipeline_name"]
        if self.takes(type):
            self._show(self._stamped(step_of(type, payload), payload))

    def takes(self, type: str) -> bool:
        return self._steps and (type in STEPS or not type.startswith(_INNER))

    def _stamped(self, step: Text, payload: Mapping[str, Any]) -> Text:
        seconds = clock.monotonic() - self._start
        child = self._children.get(payload.get("pipeline_run_id", ""))
        return Text.assemble(
            (f"{seconds:6.2f} s  ", "dim"), (f"{child}: " if child else "", "dim"), step
        )

    def say(self, text: str) -> None:
        """Tell something about the run."""
        self._show(Text(text, "bold"))

    @abstractmethod
    def _show(self, line: Text) -> None: ...

    @abstractmethod
    def draw(self, run: RunHandle) -> None:
        """Show the run as it is now."""

    @abstractmethod
    def draw_end(self, run: RunHandle) -> None:
        """Show the run as it has ended."""


@final
class PlainView(View):
    """One line after another, for files and pipes. The stages come once, at the end."""

    def __init__(self, console: Console, *, steps: bool, stages: bool) -> None:
        super().__init__(steps=steps)
        self._console = console
        self._stages = stages

    def _show(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def draw(self, run: RunHandle) -> None:
        pass

    def draw_end(self, run: RunHandle) -> None:
        if self._stages:
            for line in lines_of(run.status(), run.results):
                self._show(line)


@final
class LiveView(View):
    """One picture that changes: the run, its stages, the latest steps."""

    def __init__(self, live: Live, *, steps: bool) -> None:
        super().__init__(steps=steps)
        self._live = live
        self._said: list[Text] = []
        self._lines: deque[Text] = deque(maxlen=LATEST)

    def say(self, text: str) -> None:
        self._said.append(Text(text, "bold"))

    def _show(self, line: Text) -> None:
        self._lines.append(line)

    def draw(self, run: RunHandle) -> None:
        # A terminal that is too low cuts the picture at its lower end.
        head, *stages = lines_of(run.status(), run.results)
        lines = [head, *self._said, *stages]
        if self._lines:
            lines += [Text(), *self._lines]
        # Cut, not wrapped: a picture that changes its height jumps.
        picture = Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
        self._live.update(picture, refresh=True)

    def draw_end(self, run: RunHandle) -> None:
        self.draw(run)
