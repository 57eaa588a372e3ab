"""Exporting in batches, without losing what could not be exported yet."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, final

import trio

from actorflow import clock
from actorflow.actors import Inbox, System
from actorflow.errors import ExporterClosedError, ExportError, InvalidExporterError

from ._analytics import AnalyticsEvent, AnalyticsExporter
from ._backlog import work_begins, work_ends
from ._worker import OwnedByBlock, Worker

_logger: Final = logging.getLogger("actorflow.events")

OnOverflow = Callable[[int, int], object]


@final
class BufferedExporter(OwnedByBlock):
    """Collects events and exports them in batches.

    A batch leaves when it is full, when it is asked for, and `flush_interval_seconds`
    after its first event. That time is kept by an actor, of the `async with` block
    around the exporter or of a system; without one, the next export looks at the
    clock. A batch that could not be exported stays first in the buffer. When the
    buffer is full the oldest event is dropped and `on_overflow` is told.
    """

    def __init__(
        self,
        exporter: AnalyticsExporter | None = None,
        *,
        sink: AnalyticsExporter | None = None,
        batch_size: int = 100,
        flush_interval_seconds: float = 10.0,
        flush_interval: float | None = None,
        max_buffer_size: int = 10_000,
        on_overflow: OnOverflow | None = None,
        high_water_mark: float = 0.8,
        close_timeout: float = 5.0,
    ) -> None:
        """Put a buffer before `exporter`.

        Args:
          exporter: where batches go.
          sink: another name for `exporter`.
          batch_size: how many events make a batch leave.
          flush_interval_seconds: how long an event waits at most.
          flush_interval: another name for `flush_interval_seconds`.
          max_buffer_size: how many events are held at most.
          on_overflow: called with the number of dropped events, or -1 when the
            buffer fills up to `high_water_mark`, and the size of the buffer.
          high_water_mark: share of the buffer that is worth a warning.
          close_timeout: how long leaving the block may wait for the last batch.
        """
        if (exporter is None) == (sink is None):
            raise InvalidExporterError("exporter", exporter, "given once, as exporter or as sink")
        interval = flush_interval_seconds if flush_interval is None else flush_interval
        _check("batch_size", batch_size, "at least 1", batch_size >= 1)
        _check("max_buffer_size", max_buffer_size, "at least 1", max_buffer_size >= 1)
        fits = f"at most max_buffer_size, which is {max_buffer_size}"
        _check("batch_size", batch_size, fits, batch_size <= max_buffer_size)
        _check("flush_interval_seconds", interval, "more than 0", interval > 0)
        _check("high_water_mark", high_water_mark, "in (0, 1]", 0 < high_water_mark <= 1)
        _check("close_timeout", close_timeout, "zero or more seconds", close_timeout >= 0)
        target = sink if exporter is None else exporter
        assert target is not None
        self._exporter: AnalyticsExporter = target
        self._batch_size = batch_size
        self._interval = interval
        self._max_buffer_size = max_buffer_size
        self._on_overflow = on_overflow
        self._high_water_mark = high_water_mark
        self._close_timeout = close_timeout
        self._buffer: deque[AnalyticsEvent] = deque()
        self._dropped_count = 0
        self._high_water_warned = False
        self._is_closed = False
        # Counted from the last attempt, so that an exporter which fails is asked
        # again with every further batch, not with every event.
        self._appended = 0
        # How many events are being exported; they come back if that fails.
        self._in_hand = 0
        # One batch at a time, so that they arrive in order.
        self._writing = trio.StrictFIFOLock()
        # When the buffer must have been flushed, and whether a tick will see to it.
        self._due: float | None = None
        self._is_timed = False
        # Those who wait for the next attempt.
        self._waiting: list[trio.Event] = []
        self._is_owned = False
        self._worker = Worker("event_exporter", self._keep_time, shutdown=close_timeout)

    @property
    def buffer_size(self) -> int:
        """How many events wait for the next batch."""
        return len(self._buffer)

    @property
    def dropped_count(self) -> int:
        """How many events were dropped because the buffer was full."""
        return self._dropped_count

    @property
    def stats(self) -> dict[str, int | float | bool]:
        """The state of the buffer."""
        return {
            "buffer_size": len(self._buffer),
            "max_buffer_size": self._max_buffer_size,
            "fill_ratio": self._fill_ratio,
            "dropped_count": self._dropped_count,
            "high_water_warned": self._high_water_warned,
        }

    @property
    def _fill_ratio(self) -> float:
        return len(self._buffer) / self._max_buffer_size

    # Taking events in

    async def export(self, event: AnalyticsEvent) -> None:
        """Buffer an event, and export a batch if it is time for one.

        Raises:
          ExporterClosedError: if the exporter was closed.
        """
        await self.export_batch([event])

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        """Buffer events, and export a batch if it is time for one.

        Raises:
          ExporterClosedError: if the exporter was closed.
        """
        if self._is_closed:
            raise ExporterClosedError(type(self).__name__)
        for event in events:
            self._append(event)
        self._set_time()
        is_full = self._appended >= self._batch_size
        is_late = not self._is_timed and self._due is not None and clock.monotonic() >= self._due
        if (is_full or is_late) and not self._writing.locked():
            await self._flush_quietly()

    def _append(self, event: AnalyticsEvent) -> None:
        self._buffer.append(event)
        self._appended += 1
        self._drop_oldest()
        if self._fill_ratio >= self._high_water_mark and not self._high_water_warned:
            self._high_water_warned = True
            self._tell(-1)

    def _drop_oldest(self) -> None:
        while len(self._buffer) > self._max_buffer_size:
            self._buffer.popleft()
            self._dropped_count += 1
            self._tell(self._dropped_count)

    def _tell(self, count: int) -> None:
        if self._on_overflow is not None:
            try:
                self._on_overflow(count, len(self._buffer))
            except Exception:
                _logger.exception("event_sink_callback_failed")

    def _set_time(self) -> None:
        """See to it that the buffer is flushed in time."""
        if self._buffer and self._due is None:
            self._due = clock.monotonic() + self._interval
        if self._due is not None and self._is_owned and not self._is_timed:
            assert self._worker.ctx is not None
            delay = max(self._due - clock.monotonic(), 0)
            self._worker.ctx.send_after(delay, None)
            self._is_timed = True

    # Letting batches out

    async def _keep_time(self, inbox: Inbox[None]) -> None:
        self._is_owned = True
        self._set_time()
        work_begins(self)
        try:
            is_wanted = True
            while is_wanted and not self._is_closed:
                is_wanted = bool(self._waiting) or await self._worker.rest(inbox)
                # Whoever closed the exporter sees to the last batch.
                if not self._is_closed:
                    self._is_timed = False
                    await self._flush_quietly()
        finally:
            work_ends(self)
            self._is_owned = self._is_timed = False
            self._release(self._waiting)

    async def _flush_quietly(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            error = await self._write()
        finally:
            self._release(waiting)
        if error is not None:
            _logger.error(
                "analytics_export_failed",
                extra={"events": len(self._buffer), "error": repr(error)},
                exc_info=error,
            )

    def _release(self, waiting: Iterable[trio.Event]) -> None:
        for each in waiting:
            each.set()

    async def _write(self) -> Exception | None:
        """Export what is buffered; on failure put it back and return the error."""
        async with self._writing:
            batch, self._buffer = self._buffer, deque()
            self._due = None
            self._appended = 0
            if not batch:
                return None
            self._in_hand = len(batch)
            try:
                await self._exporter.export_batch(list(batch))
            except Exception as error:  # noqa: BLE001 - exporters are user code
                self._put_back(batch)
                return error
            except BaseException:
                self._put_back(batch)
                raise
            finally:
                self._in_hand = 0
                if self._fill_ratio < self._high_water_mark * 0.5:
                    self._high_water_warned = False
            return None

    def _put_back(self, batch: deque[AnalyticsEvent]) -> None:
        batch.extend(self._buffer)
        self._buffer = batch
        self._drop_oldest()
        self._set_time()

    async def flush(self) -> None:
        """Export everything that is buffered, and flush the exporter.

        Raises:
          ExportError: if that failed; the events are kept for the next time.
        """
        error = await self._write()
        if error is None:
            try:
                await self._exporter.flush()
            except Exception as failure:  # noqa: BLE001 - exporters are user code
                error = failure
        if error is not None:
            raise self._export_error() from error

    def _export_error(self) -> ExportError:
        return ExportError(len(self._buffer) + self._in_hand, type(self._exporter).__name__)

    async def close(self) -> None:
        """Export everything that is buffered and close the exporter, whether that worked or not.

        Raises:
          ExportError: if events remain.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._worker.wake()
        try:
            error = await self._write()
        finally:
            # A last batch that took too long does not leave a file open.
            with trio.move_on_after(self._close_timeout, shield=True):
                await self._exporter.close()
        if not self.is_empty:
            raise self._export_error() from error

    # Owners, and those who wait

    @property
    def is_empty(self) -> bool:
        """Whether nothing is buffered or being written."""
        return not self._buffer and not self._in_hand

    def everything_so_far(self) -> trio.Event:
        """Let the buffer be flushed, and return what will be set after that."""
        done = trio.Event()
        self._waiting.append(done)
        self._worker.wake()
        return done

    async def start(self, system: System | None = None) -> None:
        """Let an actor of `system`, by default the one around the caller, keep the time.

        Raises:
          SinkNotOwnedError: if there is no system.
        """
        if not self._is_owned:
            await self._worker.start(system)

    async def _finish(self) -> None:
        with trio.move_on_after(self._close_timeout, shield=True):
            await self.close()
        if not self.is_empty:
            raise self._export_error()


def _check(argument: str, found: object, expected: str, is_fine: bool) -> None:
    if not is_fine:
        raise InvalidExporterError(argument, found, expected)
