"""`actorflow events` and `actorflow timeline`: what a file of events tells."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, final

import attrs
import trio
from cyclopts import Parameter

from actorflow import clock
from actorflow.errors import AnalyticsEventError, InvalidArgumentError, TargetError
from actorflow.events import (
    AnalyticsEvent,
    EventLines,
    format_event,
    timeline_of,
    timeline_svg,
    timeline_text,
    to_lines,
)

# How often a file is looked at that is being written.
_PAUSE: Final = 0.2
_RUN_ENDS: Final = frozenset({"pipeline.completed", "pipeline.failed", "pipeline.canceled"})
_CHUNK: Final = 1 << 16
# Letters of a stage's name in the summary.
_NAME: Final = 24
_HOW_TO_GET_ONE: Final = (
    "Such a file is written by `actorflow run --events FILE` and by a JSONFileExporter."
)
_STAGE_ENDS: Final = frozenset({"stage.completed", "stage.failed", "stage.skipped"})


@final
@attrs.frozen
class Choice:
    """Which events are wanted."""

    types: tuple[str, ...]
    stage: str | None
    run: str | None

    def includes(self, event: AnalyticsEvent) -> bool:
        if self.types and not any(part in event.event_type for part in self.types):
            return False
        if self.stage is not None and event.stage_name != self.stage:
            return False
        return self.run is None or _run_of(event).startswith(self.run)


def events(
    file: Path,
    /,
    *,
    type: Annotated[tuple[str, ...], Parameter(alias="-t", negative="")] = (),
    stage: str | None = None,
    run: str | None = None,
    follow: Annotated[bool, Parameter(alias="-f", negative="")] = False,
    summary: Annotated[bool, Parameter(alias="-s", negative="")] = False,
    verbose: Annotated[bool, Parameter(alias="-v", negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show the events of a file that a JSONFileExporter wrote.

    Args:
        file: The file.
        type: Only types that contain this; may be repeated.
        stage: Only events of this stage.
        run: Only events of the run whose id begins with this.
        follow: Go on showing what is added to the file, until interrupted.
        summary: Count instead of showing.
        verbose: Show payloads too.
        json: One JSON object per line, as in the file.
    """
    choice = Choice(type, stage, run)
    if summary and follow:
        raise InvalidArgumentError("--follow", follow, "used without --summary")

    def show(event: AnalyticsEvent) -> None:
        if choice.includes(event):
            colorize = sys.stdout.isatty()
            sys.stdout.write(
                to_lines([event])
                if json
                else format_event(event, colorize=colorize, verbose=verbose) + "\n"
            )

    with _quiet_end():
        if follow:
            trio.run(_follow, file, show)
        elif summary:
            lines = summary_of(filter(choice.includes, _read(file)))
            sys.stdout.writelines(f"{line}\n" for line in lines)
        else:
            for event in _read(file):
                show(event)


def _check_ending(_: object, output: Path | None) -> None:
    if output is not None and output.suffix != ".svg":
        raise ValueError("Its ending must be .svg.")


def timeline(
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o", validator=_check_ending)] = None,
    run: str | None = None,
    width: int | None = None,
) -> None:
    """Draw the runs of a file of events over time.

    Args:
        file: The file, written by a JSONFileExporter.
        output: Write an SVG picture to this file instead of printing text.
        run: Only the run whose id begins with this, and its child runs.
        width: Columns of the text; by default those of the terminal.
    """
    chosen = list(_read(file))
    if run is not None:
        family = family_of(run, chosen)
        if not family:
            expected = "what the id of a run in the file begins with"
            raise InvalidArgumentError("--run", run, expected)
        chosen = [event for event in chosen if _run_of(event) in family]
    picture = timeline_of(chosen)
    if output is None:
        with _quiet_end():
            columns = width or shutil.get_terminal_size().columns
            sys.stdout.write(timeline_text(picture, columns))
        return
    try:
        output.write_text(timeline_svg(picture), "utf-8")
    except OSError as error:
        expected = f"a file that can be written ({error.strerror})"
        raise InvalidArgumentError("--output", str(output), expected) from error
    print(f"wrote {output}, {len(picture.rows)} rows", file=sys.stderr)


def family_of(run: str, recorded: Iterable[AnalyticsEvent]) -> set[str]:
    """The runs whose id begins with `run`, and all runs below them."""
    children: dict[str, set[str]] = {}
    known = set()
    for event in recorded:
        known.add(_run_of(event))
        if event.event_type == "pipeline.spawned_child":
            child = str(event.data.get("child_run_id"))
            children.setdefault(_run_of(event), set()).add(child)
    family: set[str] = set()
    found = {id for id in known if id.startswith(run)}
    while found:
        family |= found
        found = set().union(*(children.get(id, set()) for id in found)) - family
    return family


def summary_of(recorded: Iterable[AnalyticsEvent]) -> Iterator[str]:
    """Lines that count runs, stages and types."""
    all_events = list(recorded)
    types = Counter(event.event_type for event in all_events)
    times = [event.timestamp for event in all_events] or [clock.now()]
    runs = {run: "open" for event in all_events if (run := _run_of(event))}
    stages: dict[str, list[AnalyticsEvent]] = {}
    for event in all_events:
        if event.event_type in _RUN_ENDS:
            runs[_run_of(event)] = event.event_type.removeprefix("pipeline.")
        if event.event_type in _STAGE_ENDS or event.event_type == "stage.retry_scheduled":
            stages.setdefault(str(event.stage_name), []).append(event)
    endings = sorted(Counter(runs.values()).items())
    yield f"{len(all_events)} events in {(max(times) - min(times)).total_seconds():.3f} s"
    yield f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {', '.join(f'{count} {ending}' for ending, count in endings)}"
    yield ""
    yield _stage_line(
        "stage", "ended", "failed", "canceled", "skipped", "retries", "mean ms", "max ms"
    )
    yield from (_about_stage(name, told) for name, told in stages.items())
    yield ""
    for type, count in sorted(types.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:>7} {type}"


def _about_stage(name: str, told: list[AnalyticsEvent]) -> str:
    kinds = Counter(event.event_type for event in told)
    canceled = sum(event.data.get("status") == "cancel" for event in told)
    stopped = sum(
        event.event_type == "stage.failed" and event.data.get("status") == "cancel"
        for event in told
    )
    ended = sum(kinds[type] for type in _STAGE_ENDS)
    took = [event.duration_ms for event in told if event.duration_ms is not None]
    times = (f"{sum(took) / len(took):.1f}", f"{max(took):.1f}") if took else ("", "")
    counts = (
        ended,
        kinds["stage.failed"] - stopped,
        canceled,
        kinds["stage.skipped"],
        kinds["stage.retry_scheduled"],
    )
    return _stage_line(name, *map(str, counts), *times)


def _stage_line(name: str, *columns: str) -> str:
    name = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    return f"{name:<{_NAME}}" + "".join(f" {column:>9}" for column in columns)


async def _follow(file: Path, show: Callable[[AnalyticsEvent], None]) -> None:
    lines = EventLines(lambda line: print(f"line {line} is no event", file=sys.stderr))
    with _readable(file):
        opened = await trio.open_file(file, "rb")
    async with opened as stream:
        while True:
            for event in lines.feed(await stream.read()):
                show(event)
            sys.stdout.flush()
            await trio.sleep(_PAUSE)


def _read(file: Path) -> Iterator[AnalyticsEvent]:
    skipped: list[int] = []
    lines = EventLines(skipped.append)
    with _readable(file), file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield from lines.feed(chunk)
    if skipped and len(skipped) == lines.lines:
        raise TargetError(str(file), "it holds no events", _HOW_TO_GET_ONE)
    if skipped:
        print(f"skipped lines that are no events: {len(skipped)}", file=sys.stderr)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = error.strerror or str(error)
        raise TargetError(str(file), problem, _HOW_TO_GET_ONE) from error
    except AnalyticsEventError as error:
        error.add_note(f"of {file}")
        raise


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Let somebody who has seen enough stop the output: by a key, or as the reader of a pipe.

    Raises:
      TargetError: if the output cannot be written for another reason.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        # Python flushes once more when it exits, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            problem = error.strerror or str(error)
            remedy = "Write to a place that has room, or to the terminal."
            raise TargetError("the output", problem, remedy) from error


def _run_of(event: AnalyticsEvent) -> str:
    return str(event.pipeline_run_id or "")
