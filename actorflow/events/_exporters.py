"""Exporters to a file, to a terminal, and to several at once."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Final, TextIO, final

import trio

from ._analytics import AnalyticsEvent, AnalyticsExporter
from ._colours import BLUE, GREEN, RED, legible, painted
from ._event_lines import Encode, encode_json, to_line_bytes
from ._everyone import for_everyone

_PALETTE: Final = (
    ("error", RED),
    ("fail", RED),
    ("complete", GREEN),
    ("success", GREEN),
    ("start", BLUE),
)


@final
class JSONFileExporter:
    """Writes each event as one line of JSON.

    The file is opened with the first export. Writing happens in a worker thread,
    one call after the other, and a call that has begun is finished even if its
    task is cancelled, so lines are whole and never mixed. An event that JSON has
    no place for is written without its data. `read_events` reads the file.
    """

    def __init__(
        self,
        file_path: str | PathLike[str],
        *,
        append: bool = True,
        encode: Encode = encode_json,
    ) -> None:
        """Write to the file at `file_path`.

        Args:
          file_path: the file; missing directories are made.
          append: whether what is in the file stays there.
          encode: writes an object as JSON; `orjson.dumps` is several times as fast.
        """
        self.event_count = 0
        self._encode = encode
        self._path = Path(file_path)
        self._mode = "ab" if append else "wb"
        self._file: IO[bytes] | None = None
        self._turn = trio.StrictFIFOLock()

    async def export(self, event: AnalyticsEvent) -> None:
        """Write one event."""
        await self.export_batch([event])

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        """Write several events, in order."""
        batch = list(events)
        async with self._turn:
            await trio.to_thread.run_sync(self._write, batch)

    async def flush(self) -> None:
        """Hand everything written to the operating system."""
        async with self._turn:
            if self._file is not None:
                await trio.to_thread.run_sync(self._file.flush)

    async def close(self) -> None:
        """Close the file; a later export opens it again and goes on at its end."""
        async with self._turn:
            if self._file is not None:
                await trio.to_thread.run_sync(self._close)

    def _write(self, batch: Sequence[AnalyticsEvent]) -> None:
        lines = to_line_bytes(batch, self._encode)
        if self._file is None:
            self._file = self._open()
            if self._file.tell() and not self._ends_with_newline():
                # A killed process or a full disk left the beginning of a line. Ending
                # it here keeps it from swallowing our first event.
                lines = b"\n" + lines
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._close()
            raise
        self.event_count += len(batch)

    def _open(self) -> IO[bytes]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer of Python's: what a full disk has refused is not in there to come again.
        file = self._path.open(self._mode, buffering=0)
        self._mode = "ab"
        return file

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, io.SEEK_END)
            return file.read() == b"\n"

    def _close(self) -> None:
        file, self._file = self._file, None
        assert file is not None
        file.close()


@final
class ConsoleExporter:
    """Prints events for somebody who watches.

    Printing happens in a worker thread, because a terminal that is scrolled back
    and a pipe that nobody reads block whoever prints.
    """

    def __init__(
        self, *, colorize: bool = True, verbose: bool = False, stream: TextIO | None = None
    ) -> None:
        self.event_count = 0
        self._colorize = colorize
        self._verbose = verbose
        self._stream = stream
        self._turn = trio.StrictFIFOLock()

    async def export(self, event: AnalyticsEvent) -> None:
        """Print one event."""
        await self.export_batch([event])

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        """Print several events, in order."""
        batch = list(events)
        text = "".join(f"{self._format_event(event)}\n" for event in batch)
        async with self._turn:
            # The thread is left alone on cancel: there may be no end to its print.
            await trio.to_thread.run_sync(self._print, text, abandon_on_cancel=True)
        self.event_count += len(batch)

    async def flush(self) -> None:
        """Do nothing: what is exported is printed."""

    async def close(self) -> None:
        """Do nothing: the stream belongs to somebody else."""

    def _print(self, text: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(legible(text, stream))
        stream.flush()

    def _format_event(self, event: AnalyticsEvent) -> str:
        return format_event(event, colorize=self._colorize, verbose=self._verbose)


def format_event(event: AnalyticsEvent, *, colorize: bool = True, verbose: bool = False) -> str:
    """Write an event for people: time and type, and on further lines what is known."""
    return "\n".join(_lines(event, colorize, verbose))


def _lines(event: AnalyticsEvent, colorize: bool, verbose: bool) -> Iterator[str]:
    type = event.event_type
    first = f"[{event.timestamp:%H:%M:%S}.{event.timestamp.microsecond // 1000:03}] {type}"
    yield painted(first, type, _PALETTE) if colorize else first
    if event.stage_name:
        yield f"  stage: {event.stage_name}"
    if event.duration_ms is not None:
        yield f"  duration: {event.duration_ms:.1f}ms"
    if verbose and event.data:
        yield f"  data: {json.dumps(event.data, default=str)}"


@final
class CompositeExporter:
    """Exports to several exporters at once; what one does is nothing to the others."""

    def __init__(self, exporters: Iterable[AnalyticsExporter]) -> None:
        self._exporters = list(exporters)

    async def export(self, event: AnalyticsEvent) -> None:
        """Export one event everywhere."""
        await for_everyone(self._exporters, lambda it: it.export(event), "export failed")

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        """Export several events everywhere."""
        batch = list(events)
        await for_everyone(self._exporters, lambda it: it.export_batch(batch), "export failed")

    async def flush(self) -> None:
        """Flush everywhere."""
        await for_everyone(self._exporters, lambda it: it.flush(), "flush failed")

    async def close(self) -> None:
        """Close everywhere."""
        await for_everyone(self._exporters, lambda it: it.close(), "close failed")
