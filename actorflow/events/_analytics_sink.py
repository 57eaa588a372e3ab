"""A sink that hands events to an exporter."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, Final, final

import attrs
import trio

from actorflow.actors import Inbox, System
from actorflow.errors import (
    ExportError,
    ForeignThreadError,
    InvalidArgumentError,
    SinkClosedError,
)

from ._analytics import AnalyticsEvent, AnalyticsExporter
from ._backlog import Backlog, work_begins, work_ends
from ._fan_out import TypeFilter
from ._log_budget import BudgetedLog
from ._worker import OwnedByBlock, Worker

_logger: Final = logging.getLogger("actorflow.events")

# How many events an exporter gets at a time. Each export of a file is a trip to a thread,
# which costs as much as writing a dozen events.
_BATCH: Final = 500
# How long the actor lets events come together. Waking it costs more than an event.
_LINGER: Final = 0.02


@final
@attrs.define(eq=False)
class _Entry:
    event: AnalyticsEvent
    error: Exception | None = None


@final
class AnalyticsSink(OwnedByBlock):
    """Turns events into `AnalyticsEvent` objects and exports them, in order.

    `emit` waits for the export. `try_emit` leaves the event in a queue, which is
    exported by an actor, of the `async with` block around the sink or of a system;
    without one, by the next `emit`, `flush` or `aclose`. Events of an export that
    fails are counted in `failed` and logged; a `BufferedExporter` would keep them.
    """

    def __init__(
        self,
        exporter: AnalyticsExporter,
        *,
        include_patterns: Collection[str] | None = None,
        exclude_patterns: Collection[str] | None = None,
        max_pending: int = 1000,
        stop_timeout: float = 5.0,
    ) -> None:
        if max_pending < 1:
            raise InvalidArgumentError("max_pending", max_pending, "at least 1")
        self.dropped = 0
        self.failed = 0
        self._exporter = exporter
        self._filter = TypeFilter(include_patterns, exclude_patterns or ())
        self._max_pending = max_pending
        self._stop_timeout = stop_timeout
        self._thread = threading.get_ident()
        self._pending: deque[_Entry] = deque()
        self._backlog = Backlog()
        self._exporting = trio.StrictFIFOLock()
        # Set when the actor shall not wait for more events to come.
        self._hurry = trio.Event()
        self._is_closed = False
        self._is_owned = False
        self._worker = Worker("analytics_sink", self._work, shutdown=stop_timeout)
        self._dropped_log = BudgetedLog(
            logging.getLogger("actorflow.events.backpressure"),
            logging.WARNING,
            "Event dropped due to backpressure",
        )
        self._failed_log = BudgetedLog(_logger, logging.ERROR, "analytics_export_failed")

    @property
    def pending(self) -> int:
        """How many events wait for their export."""
        return len(self._pending)

    def takes(self, type: str) -> bool:
        """Whether events of this type are exported."""
        return self._filter.passes(type)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Export an event, after those that came before it.

        Raises:
          ExportError: if the exporter failed.
          SinkClosedError: if the sink was closed.
        """
        self._check_thread()
        if self._is_closed:
            raise SinkClosedError("AnalyticsSink", type)
        if self._filter.passes(type):
            entry = self._accept(type, data)
            await self._export_pending()
            if entry.error is not None:
                raise ExportError(1, _name_of(self._exporter)) from entry.error

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Queue an event for export; drop it and answer False if the queue is full."""
        self._check_thread()
        if not self._filter.passes(type):
            return True
        if self._is_closed or len(self._pending) >= self._max_pending:
            self.dropped += 1
            self._dropped_log.write(
                event_type=type, queue_size=len(self._pending), dropped_total=self.dropped
            )
            return False
        self._accept(type, data)
        if len(self._pending) * 2 >= self._max_pending:
            self._hurry.set()
        self._worker.wake()
        return True

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Queue an event if there is an actor to export it, and room."""
        if not self._is_owned or self._is_closed or len(self._pending) >= self._max_pending:
            return False
        return self.try_emit(type=type, data=data)

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise ForeignThreadError("AnalyticsSink")

    def _accept(self, type: str, data: Mapping[str, Any] | None) -> _Entry:
        entry = _Entry(AnalyticsEvent.from_payload(type, data))
        self._pending.append(entry)
        self._backlog.accepted += 1
        return entry

    async def _export_pending(self) -> None:
        async with self._exporting:
            # Not what comes meanwhile: under load there would be no end to it, and each
            # batch would be the few events that come during the export before.
            left = len(self._pending)
            while left:
                batch = list(islice(self._pending, min(left, _BATCH)))
                left -= len(batch)
                error = await self._export([entry.event for entry in batch])
                # Only now: an export that was cancelled is repeated.
                for entry in batch:
                    entry.error = error
                    self._pending.popleft()
                self._backlog.settle(len(batch))

    async def _export(self, events: list[AnalyticsEvent]) -> Exception | None:
        try:
            await self._exporter.export_batch(events)
        except Exception as error:  # noqa: BLE001 - exporters are user code
            self.failed += len(events)
            self._failed_log.write(error, events=len(events), error=repr(error))
            return error
        return None

    async def _work(self, inbox: Inbox[None]) -> None:
        self._thread = threading.get_ident()
        self._is_owned = True
        work_begins(self)
        try:
            while not self._is_closed and await self._rest(inbox):
                await self._export_pending()
            while self._pending:
                await self._export_pending()
        finally:
            work_ends(self)
            self._is_owned = False

    async def _rest(self, inbox: Inbox[None]) -> bool:
        """Wait for events, and a little longer for more of them; False at the end."""
        if not self._pending and not await self._worker.rest(inbox):
            return False
        if len(self._pending) * 2 < self._max_pending and not self._is_closed:
            with inbox.ctx.until_stop(), trio.move_on_after(_LINGER):
                await self._hurry.wait()
        # Who sets it from here on has events that the next export leaves behind.
        self._hurry = trio.Event()
        return not inbox.ctx.is_stopping

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for its export."""
        return self._backlog.is_empty

    def everything_so_far(self) -> trio.Event:
        """Let the actor hurry, and return what will be set when all that is queued is exported."""
        self._hurry.set()
        return self._backlog.everything_so_far()

    async def flush(self) -> None:
        """Export what is queued and flush the exporter."""
        await self._export_pending()
        await self._exporter.flush()

    async def aclose(self) -> None:
        """Take no more events, export what is queued and close the exporter."""
        self._is_closed = True
        self._hurry.set()
        self._worker.wake()
        self._dropped_log.settle()
        try:
            await self._export_pending()
        finally:
            self._failed_log.settle()
            if self._pending:
                left = {"remaining": len(self._pending), "in_flight_type": None}
                _logger.error("event_sink_drain_timeout", extra=left)
            with trio.move_on_after(self._stop_timeout, shield=True):
                await self._exporter.close()

    async def start(self, system: System | None = None) -> None:
        """Let an actor of `system`, by default the one around the caller, export what is queued.

        Raises:
          SinkNotOwnedError: if there is no system.
        """
        if not self._is_owned:
            await self._worker.start(system)

    async def _finish(self) -> None:
        with trio.move_on_after(self._stop_timeout, shield=True):
            await self.aclose()


def _name_of(exporter: AnalyticsExporter) -> str:
    return type(exporter).__name__
