"""What a picture of a run shows: rows over time, made from events alone.

Events go in, a `Timeline` comes out, and nothing here knows how it is drawn.
A recording may begin late or break off early: what was not seen to end is
drawn as unfinished up to the last event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, final

import attrs

from .._analytics import AnalyticsEvent


class Ending(StrEnum):
    """How a span ended."""

    OK = "ok"
    FAILED = "failed"
    RETRIED = "retried"
    """It failed and was tried again."""
    CANCELED = "canceled"
    SKIPPED = "skipped"
    UNFINISHED = "unfinished"
    WAITED = "waited"
    """Nothing ran: a delay before the next try, or somebody's approval."""


class RowKind(StrEnum):
    """What a row is about."""

    RUN = "run"
    STAGE = "stage"
    DETAIL = "detail"
    """Something inside a stage: calls of a tool, waits for an approval."""


# Errors quote whatever a program has printed. A picture is XML, and has no place for these.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")


def _in_one_line(text: str) -> str:
    return _CONTROLS.sub(" ", text)


@final
@attrs.frozen
class Span:
    """A stretch of time; seconds count from the beginning of the timeline."""

    start: float
    end: float
    ending: Ending
    note: str = attrs.field(default="", converter=_in_one_line)


@final
@attrs.frozen
class Row:
    """One line of the picture."""

    label: str = attrs.field(converter=_in_one_line)
    kind: RowKind
    depth: int
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """How long all spans of the row took together."""
        return sum(span.end - span.start for span in self.spans)


@final
@attrs.frozen
class Mark:
    """A moment that concerns everything: the run was cancelled."""

    at: float
    note: str = attrs.field(converter=_in_one_line)


@final
@attrs.frozen
class Timeline:
    """The picture as data."""

    start: datetime | None
    seconds: float
    rows: tuple[Row, ...] = ()
    marks: tuple[Mark, ...] = ()


def timeline_of(events: Iterable[AnalyticsEvent]) -> Timeline:
    """Arrange the events of any number of runs as rows over time."""
    # Runs count on their own, so between runs only the time tells what came first.
    ordered = sorted(events, key=lambda event: event.timestamp)
    if not ordered:
        return Timeline(None, 0.0)
    start = ordered[0].timestamp
    seconds = (ordered[-1].timestamp - start).total_seconds()
    recording = _Recording()
    for event in ordered:
        handle = _HANDLERS.get(event.event_type)
        if handle is not None:
            at = (event.timestamp - start).total_seconds()
            handle(recording, recording.run(event.data), event.data, at)
    return Timeline(start, seconds, tuple(_rows(recording, seconds)), tuple(recording.marks))


@attrs.define
class _Track:
    """The spans of one row while they are being collected."""

    label: str
    spans: list[Span] = attrs.field(factory=list)
    # What has begun and not ended, by what tells it from others on the same row.
    open: dict[str, Span] = attrs.field(factory=dict)
    details: dict[str, _Track] = attrs.field(factory=dict)

    def begin(self, at: float, note: str = "", key: str = "") -> None:
        self.open[key] = Span(at, at, Ending.UNFINISHED, note)

    def end(self, at: float, ending: Ending, note: str = "", key: str = "") -> None:
        """Close what is open; what ends without a beginning is a moment."""
        begun = self.open.pop(key, Span(at, at, ending))
        if begun.start > at:
            # It ended during the delay before its next try.
            self.spans[-1] = attrs.evolve(self.spans[-1], end=at)
        self.spans.append(Span(min(begun.start, at), at, ending, note or begun.note))

    def finished(self, seconds: float) -> tuple[Span, ...]:
        for key in list(self.open):
            self.end(seconds, Ending.UNFINISHED, key=key)
        return tuple(self.spans)


@attrs.define
class _Run:
    id: str | None
    track: _Track
    stages: dict[str, _Track] = attrs.field(factory=dict)
    parent_stage: tuple[str | None, str] | None = None

    def stage(self, data: Mapping[str, Any]) -> _Track:
        name = str(data.get("stage"))
        return self.stages.setdefault(name, _Track(name))


@attrs.define
class _Recording:
    runs: dict[str | None, _Run] = attrs.field(factory=dict)
    marks: list[Mark] = attrs.field(factory=list)

    def run(self, data: Mapping[str, Any]) -> _Run:
        id = data.get("pipeline_run_id")
        return self.runs.setdefault(id, _Run(id, _Track("run")))


_Handler = Callable[[_Recording, _Run, Mapping[str, Any], float], None]


def _run_started(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    run.track.label = str(data.get("pipeline_name") or "run")
    run.track.begin(at)


def _run_completed(_: _Recording, run: _Run, __: Mapping[str, Any], at: float) -> None:
    run.track.end(at, Ending.OK)


def _run_failed(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    run.track.end(at, Ending.FAILED, str(data.get("error", "")))


def _run_canceled(recording: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    reason = str(data.get("reason", ""))
    run.track.end(at, Ending.CANCELED, reason)
    if not data.get("cascade_depth"):
        recording.marks.append(Mark(at, f"canceled: {reason}"))


def _child_spawned(recording: _Recording, run: _Run, data: Mapping[str, Any], _: float) -> None:
    child = recording.run({"pipeline_run_id": data.get("child_run_id")})
    child.parent_stage = (run.id, str(data.get("parent_stage_id")))
    child.track.label = str(data.get("pipeline_name") or "run")


def _stage_started(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    attempt = data.get("attempt", 1)
    run.stage(data).begin(at, f"attempt {attempt}" if attempt != 1 else "")


def _stage_completed(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    ending = Ending.CANCELED if data.get("status") == "cancel" else Ending.OK
    run.stage(data).end(at, ending)


def _stage_failed(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    ending = Ending.CANCELED if data.get("status") == "cancel" else Ending.FAILED
    run.stage(data).end(at, ending, str(data.get("error", "")))


def _stage_skipped(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    run.stage(data).end(at, Ending.SKIPPED, str(data.get("reason", "")))


def _retry_scheduled(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track = run.stage(data)
    again = at + data.get("delay_ms", 0) / 1000
    track.end(at, Ending.RETRIED, str(data.get("error", "")))
    track.spans.append(Span(at, again, Ending.WAITED, "before the next try"))
    track.begin(again, f"try {data.get('attempt', 1) + 1}")


def _detail(run: _Run, data: Mapping[str, Any], label: str) -> _Track:
    track = run.stage(data) if data.get("stage") else run.track
    return track.details.setdefault(label, _Track(label))


def _tool(run: _Run, data: Mapping[str, Any]) -> tuple[_Track, str]:
    return _detail(run, data, str(data.get("tool_name"))), str(data.get("action_id"))


def _tool_started(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track, key = _tool(run, data)
    track.begin(at, key=key)


def _tool_completed(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track, key = _tool(run, data)
    track.end(at, Ending.OK, key=key)


def _tool_failed(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track, key = _tool(run, data)
    track.end(at, Ending.FAILED, str(data.get("error_message", "")), key)


def _approval(run: _Run, data: Mapping[str, Any]) -> tuple[_Track, str]:
    label = f"approval of {data.get('tool_name')}"
    return _detail(run, data, label), str(data.get("approval_id"))


def _approval_requested(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track, key = _approval(run, data)
    track.begin(at, key=key)


def _approval_ended(_: _Recording, run: _Run, data: Mapping[str, Any], at: float) -> None:
    track, key = _approval(run, data)
    note = data.get("decision") or data.get("reason") or ""
    track.end(at, Ending.WAITED, str(note), key)


_HANDLERS: Final[Mapping[str, _Handler]] = {
    "pipeline.started": _run_started,
    "pipeline.completed": _run_completed,
    "pipeline.failed": _run_failed,
    "pipeline.canceled": _run_canceled,
    "pipeline.spawned_child": _child_spawned,
    "stage.started": _stage_started,
    "stage.completed": _stage_completed,
    "stage.failed": _stage_failed,
    "stage.skipped": _stage_skipped,
    "stage.retry_scheduled": _retry_scheduled,
    "tool.started": _tool_started,
    "tool.completed": _tool_completed,
    "tool.failed": _tool_failed,
    "approval.requested": _approval_requested,
    "approval.decided": _approval_ended,
    "approval.expired": _approval_ended,
    "approval.cancelled": _approval_ended,
}


def _rows(recording: _Recording, seconds: float) -> Iterator[Row]:
    """Rows in reading order: a run, its stages, and under each what happened inside it."""
    roots: list[_Run] = []
    children: dict[tuple[str | None, str], list[_Run]] = {}
    for run in recording.runs.values():
        parent = run.parent_stage
        if parent is not None and parent[1] in recording.runs[parent[0]].stages:
            children.setdefault(parent, []).append(run)
        else:
            roots.append(run)
    # What no root leads to comes last: a broken recording may know rings of parents.
    drawn: set[str | None] = set()
    for root in [*roots, *recording.runs.values()]:
        # A stack of rows to come instead of recursion: children may nest deeply.
        stack: list[tuple[int, RowKind, _Track, _Run]] = [(0, RowKind.RUN, root.track, root)]
        while stack:
            depth, kind, track, run = stack.pop()
            if kind is RowKind.RUN and run.id in drawn:
                continue
            yield Row(track.label, kind, depth, track.finished(seconds))
            below = [(depth + 1, RowKind.DETAIL, it, run) for it in track.details.values()]
            if kind is RowKind.RUN:
                drawn.add(run.id)
                below += [(depth + 1, RowKind.STAGE, it, run) for it in run.stages.values()]
            elif kind is RowKind.STAGE:
                spawned = children.get((run.id, track.label), [])
                below += [(depth + 1, RowKind.RUN, it.track, it) for it in spawned]
            stack += reversed(below)
