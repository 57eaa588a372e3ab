"""Events as lines of JSON: one line is one event, and a line ends with its newline.

A process that is killed while it writes leaves the beginning of a line behind.
Such a fragment has no newline, so it is no event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import attrs

from actorflow.errors import AnalyticsEventError

from ._analytics import AnalyticsEvent

_logger: Final = logging.getLogger("actorflow.events")

_CHUNK: Final = 1 << 16


Encode: TypeAlias = Callable[[dict[str, Any]], str | bytes]
"""Writes an object as JSON, without newlines: `json.dumps`, `orjson.dumps`."""

# What json.dumps does, without building an encoder for each event.
encode_json: Final[Encode] = json.JSONEncoder(default=str).encode


def to_lines(events: Iterable[AnalyticsEvent]) -> str:
    """Write events, one line each."""
    return to_line_bytes(events, encode_json).decode()


def to_line_bytes(events: Iterable[AnalyticsEvent], encode: Encode) -> bytes:
    """Write events with an encoder of choice, one line each."""
    return b"".join(_line(event, encode) + b"\n" for event in events)


def _line(event: AnalyticsEvent, encode: Encode) -> bytes:
    try:
        return _encoded(event, encode)
    except Exception as error:
        # Raising would lose the others of the batch, or bring all of them back for ever.
        extra = {"event_type": event.event_type, "error": repr(error)}
        _logger.exception("event_not_writable", extra=extra)
        bare = attrs.evolve(event, data={}, metadata={"not_writable": repr(error)})
        return _encoded(bare, encode)


def _encoded(event: AnalyticsEvent, encode: Encode) -> bytes:
    line = encode(event.to_dict())
    return line.encode() if isinstance(line, str) else line


def _warn(line: int) -> None:
    _logger.warning("event_line_skipped", extra={"line": line})


@final
class EventLines:
    """Turns bytes, in whatever pieces they come, into events.

    A line that is not JSON is skipped: a killed process left it, and the next one
    went on writing after it. `on_skip` is told its number, from 1; by default that
    is a warning in the log.
    """

    def __init__(self, on_skip: Callable[[int], object] = _warn) -> None:
        self._on_skip = on_skip
        # In pieces, because joining them with each chunk takes for ever where no line ends.
        self._rest: list[bytes] = []
        self.lines = 0
        """How many lines were complete so far."""

    def feed(self, chunk: bytes) -> Iterator[AnalyticsEvent]:
        """Yield the events whose lines are complete with `chunk`.

        Raises:
          AnalyticsEventError: if a line is JSON and describes no event.
        """
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join([*self._rest, complete[0]])
            self._rest.clear()
        if rest:
            self._rest.append(rest)
        for line in complete:
            self.lines += 1
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                self._on_skip(self.lines)
                continue
            try:
                event = AnalyticsEvent.from_dict(value)
            except AnalyticsEventError as error:
                error.add_note(f"in line {self.lines}")
                raise
            yield event


def read_events(path: str | PathLike[str]) -> Iterator[AnalyticsEvent]:
    """Yield the events of a file that a `JSONFileExporter` wrote.

    Reading blocks; inside a trio program, do it in a thread.

    Raises:
      AnalyticsEventError: if a line is JSON and describes no event.
    """
    lines = EventLines()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield from lines.feed(chunk)
