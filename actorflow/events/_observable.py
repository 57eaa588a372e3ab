"""A sink to watch a pipeline with while developing it."""

from __future__ import annotations

import logging
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TextIO, final

from actorflow import clock
from actorflow.errors import InvalidArgumentError

from ._colours import BLUE, GREEN, GREY, RED, YELLOW, legible, painted
from ._sink import EventSink, checked_sink, close_sink, entry_of, flush_sink

_logger: Final = logging.getLogger("actorflow.events")

_PALETTE: Final = (
    ("error", RED),
    ("failed", RED),
    ("completed", GREEN),
    ("success", GREEN),
    ("started", BLUE),
    ("tool", YELLOW),
    ("skip", GREY),
)

_SHOWN_KEYS: Final = (
    "stage",
    "action_type",
    "tool_name",
    "error",
    "result",
    "duration_ms",
    "execution_mode",
    "behavior",
    "reason",
)


@final
class ObservableEventSink:
    """Keeps the latest events, prints them if asked to, and hands them on.

    Each event is kept as `{"type", "data", "timestamp", "elapsed_ms"}`, where
    the time counts from the sink's birth or its last `clear`.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        colorize: bool = True,
        capture: bool = True,
        max_events: int = 10_000,
        stream: TextIO | None = None,
        downstream: EventSink | None = None,
    ) -> None:
        if max_events < 1:
            raise InvalidArgumentError("max_events", max_events, "at least 1")
        self._verbose = verbose
        self._colorize = colorize
        self._capture = capture
        self._stream = stream
        self._downstream = None if downstream is None else checked_sink("downstream", downstream)
        self.enter_stage = None if downstream is None else entry_of(downstream)
        self._events: deque[dict[str, Any]] = deque(maxlen=max_events)
        self.discarded = 0
        self._born = clock.timestamp()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was kept, in order of arrival."""
        return list(self._events)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Record an event and wait until whatever is behind has room for it."""
        self._record(type, data)
        if self._downstream is not None:
            await self._downstream.emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        """Record an event and try to hand it on."""
        self._record(type, data)
        if self._downstream is None:
            return True
        return self._downstream.try_emit(type=type, data=data)

    def _record(self, type: str, data: Mapping[str, Any] | None) -> None:
        elapsed_ms = (clock.timestamp() - self._born) * 1000
        if self._capture:
            self.discarded += len(self._events) == self._events.maxlen
            self._events.append({
                "type": type,
                "data": data if data is not None else {},
                "timestamp": clock.now(),
                "elapsed_ms": elapsed_ms,
            })  # fmt: skip
        if self._verbose:
            try:
                self._print([f"[{elapsed_ms:8.2f}ms] {type}", *_shown(data or {})], type)
            except Exception as error:  # noqa: BLE001 - payloads and streams are user code
                # Who watched has gone; that is nothing to whoever else hears of the run.
                self._verbose = False
                _logger.warning("event_not_printed", extra={"error": repr(error)})

    def _print(self, lines: Iterable[str], type: str) -> None:
        stream = self._stream or sys.stdout
        for text in lines:
            line = painted(text, type, _PALETTE) if self._colorize else text
            print(legible(line, stream), file=stream)

    def print_summary(self) -> None:
        """Print how many events of which family there were, and the latest."""
        for line in self._summary():
            print(line, file=self._stream or sys.stdout)

    def _summary(self) -> Iterator[str]:
        events = self.events
        families = Counter(event["type"].partition(".")[0] for event in events)
        yield f"{len(events)} events in {(clock.timestamp() - self._born) * 1000:.2f}ms"
        yield from (f"  {family}: {count}" for family, count in sorted(families.items()))
        yield "Latest:"
        yield from (f"  [{event['elapsed_ms']:8.2f}ms] {event['type']}" for event in events[-10:])

    def clear(self) -> None:
        """Forget everything and start the elapsed time anew."""
        self._events.clear()
        self.discarded = 0
        self._born = clock.timestamp()

    def get_events_by_type(self, part: str) -> list[dict[str, Any]]:
        """The events whose type contains `part`."""
        return [event for event in self._events if part in event["type"]]

    def get_stage_events(self, stage: str) -> list[dict[str, Any]]:
        """The events of one stage."""
        return [event for event in self._events if event["data"].get("stage") == stage]

    async def flush(self) -> None:
        """Flush the sink behind."""
        if self._downstream is not None:
            await flush_sink(self._downstream)

    async def aclose(self) -> None:
        """Close the sink behind."""
        if self._downstream is not None:
            await close_sink(self._downstream)


def _shown(data: Mapping[str, Any]) -> Iterator[str]:
    for key in _SHOWN_KEYS:
        if data.get(key) is not None:
            text = str(data[key])
            yield f"    {key}: {text if len(text) <= 80 else text[:77] + '...'}"
