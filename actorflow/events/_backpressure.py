"""A sink with a bounded queue and a worker of its own before a slow sink."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, TypeAlias, final

import attrs
import trio

from actorflow.actors import Inbox, System, current_system
from actorflow.errors import (
    ActorStoppedError,
    ForeignThreadError,
    InvalidEventSinkError,
    SinkClosedError,
    SinkNotRunningError,
)

from ._backlog import Backlog, work_begins, work_ends
from ._bounded_queue import BoundedQueue
from ._log_budget import BudgetedLog
from ._logging_sink import LoggingEventSink
from ._metrics import BackpressureMetrics
from ._sink import EventSink, checked_sink, close_sink, flush_sink, takes_of
from ._worker import OwnedByBlock, Worker

_logger: Final = logging.getLogger("actorflow.events.backpressure")

# A worker that finds a full queue lets the others run after so many events.
_FAIR_SHARE: Final = 100

_Event: TypeAlias = tuple[str, Mapping[str, Any] | None]
OnDrop: TypeAlias = Callable[[str, Mapping[str, Any] | None], object]
OnError: TypeAlias = Callable[[str, Mapping[str, Any] | None, Exception], object]

# The sink whose downstream is being served by the current task or its children.
_served: Final[ContextVar[object]] = ContextVar("actorflow_served_sink", default=None)


class _State(Enum):
    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@final
@attrs.frozen
class DrainReport:
    """What became of the events a sink still held when it was told to stop."""

    delivered: int = 0
    failed: int = 0
    abandoned: tuple[_Event, ...] = ()
    timed_out: bool = False


@final
@attrs.frozen
class SinkStatistics:
    """What became of every event a sink has seen.

    At every moment ``accepted == delivered + failed + abandoned + pending + in_flight``.
    """

    accepted: int
    delivered: int
    failed: int
    dropped: int
    abandoned: int
    pending: int
    in_flight: int


@final
class BackpressureAwareEventSink(OwnedByBlock):
    """Takes events at once and hands them to a slow sink in its own time.

    A worker delivers one event after the other, in the order of acceptance. It
    is an actor: of the `async with` block around the sink, or of a system. When
    the queue is full `emit` waits and `try_emit` drops, which is counted, logged
    and told to `on_drop`. Leaving the block, or the system, delivers what was
    accepted, for at most `stop_timeout` seconds; what is left then is told to
    `on_drop` too.
    """

    def __init__(
        self,
        downstream: EventSink | None = None,
        *,
        max_queue_size: int = 1000,
        on_drop: OnDrop | None = None,
        on_error: OnError | None = None,
        stop_timeout: float = 5.0,
    ) -> None:
        if not isinstance(max_queue_size, int) or max_queue_size < 1:
            raise InvalidEventSinkError("max_queue_size", max_queue_size, "at least 1")
        for name, callback in (("on_drop", on_drop), ("on_error", on_error)):
            if callback is not None and not callable(callback):
                raise InvalidEventSinkError(name, callback, "a function")
        _check_timeout("stop_timeout", stop_timeout)
        self._queue: BoundedQueue[_Event] = BoundedQueue(max_queue_size, self._accept)
        self._downstream = (
            LoggingEventSink() if downstream is None else checked_sink("downstream", downstream)
        )
        self._takes = takes_of(self._downstream)
        self._on_drop = on_drop
        self._on_error = on_error
        self._stop_timeout = stop_timeout
        self.metrics = BackpressureMetrics()
        self._dropped_log = BudgetedLog(
            _logger, logging.WARNING, "Event dropped due to backpressure"
        )
        self._failed_log = BudgetedLog(_logger, logging.ERROR, "event_sink_downstream_failed")
        self._thread = threading.get_ident()
        self._backlog = Backlog()
        self._delivered = self._failed = self._abandoned = 0
        self._in_flight: _Event | None = None
        self._state = _State.NEW
        # Starting and stopping one at a time: each waits for the worker.
        self._change = trio.Lock()
        self._worker = Worker("event_sink", self._work, shutdown=stop_timeout)
        # Whether the worker, told to stop, delivers what is left.
        self._drains = True
        self._is_telling = False
        self._left: tuple[_Event, ...] = ()
        self._report = DrainReport()

    def __repr__(self) -> str:
        return f"<BackpressureAwareEventSink {self._state.value}, {len(self._queue)} queued>"

    def __del__(self) -> None:
        # The constructor may have refused its arguments.
        queue = getattr(self, "_queue", ())
        if len(queue):
            warnings.warn(
                f"an event sink is gone with {len(queue)} undelivered events",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    # Taking events in

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Hand over an event; wait for room when the queue is full.

        A sink that is not started yet is started, if a system surrounds the caller.
        Called from the downstream that is being served, it does not wait: it would
        wait for itself.

        Raises:
          SinkClosedError: if the sink is stopping or stopped.
          SinkNotRunningError: if the queue is full and nobody will ever empty it.
        """
        self._check_thread()
        self._check_open(type)
        if _served.get() is self:
            self.try_emit(type=type, data=data)
            return
        event = (type, data)
        place = None if self._queue.offer(event) else self._queue.line_up(event)
        try:
            if self._state is _State.NEW:
                await self._start_if_owned(place)
            self._worker.wake()
            if place is not None:
                await place.wait()
        finally:
            if place is not None:
                place.leave()
        if place is not None and not place.is_accepted:
            raise SinkClosedError(repr(self), type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Hand over an event if there is room; drop it and answer False if there is none."""
        self._check_thread()
        is_open = self._state is _State.RUNNING or self._state is _State.NEW
        if is_open and self._queue.offer((type, data)):
            self._worker.wake()
            return True
        self._drop(type, data)
        return False

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Take an event if the worker runs and there is room; else it comes through `emit`."""
        self._check_thread()
        if self._state is _State.RUNNING and self._queue.offer((type, data)):
            self._worker.wake()
            return True
        return False

    def takes(self, type: str) -> bool:
        """Whether the downstream takes events of this type."""
        return self._takes(type)

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise ForeignThreadError(repr(self))

    def _check_open(self, type: str) -> None:
        if self._state is _State.DRAINING or self._state is _State.STOPPED:
            raise SinkClosedError(repr(self), type)

    async def _start_if_owned(self, place: object | None) -> None:
        system = current_system()
        if system is not None:
            # A system that closes starts nothing any more; then it is as if there were none.
            with suppress(ActorStoppedError):
                await self.start(system)
                return
        if place is not None and self._state is _State.NEW:
            raise SinkNotRunningError(repr(self), len(self._queue), self._queue.max_size)

    def _accept(self) -> None:
        self._backlog.accepted += 1
        self.metrics.record_emit()

    def _drop(self, type: str, data: Mapping[str, Any] | None) -> None:
        self.metrics.record_drop()
        self._dropped_log.write(
            event_type=type, queue_size=len(self._queue), dropped_total=self.metrics.dropped
        )
        self._tell(self._on_drop, type, data)

    def _tell(self, callback: Callable[..., object] | None, *arguments: object) -> None:
        # A callback that emits into its full sink would be called for that, and so on.
        if callback is not None and not self._is_telling:
            self._is_telling = True
            try:
                callback(*arguments)
            except Exception:
                _logger.exception("event_sink_callback_failed")
            finally:
                self._is_telling = False

    # The worker

    async def _work(self, inbox: Inbox[None]) -> None:
        _served.set(self)
        self._state = _State.RUNNING
        work_begins(self._backlog)
        try:
            while self._state is _State.RUNNING:
                await self._deliver_queue()
                if self._state is _State.RUNNING and not await self._worker.rest(inbox):
                    self._state = _State.DRAINING
            await self._deliver_queue()
            if self._drains:
                await self._flush_downstream()
        finally:
            work_ends(self._backlog)
            self._end()

    async def _deliver_queue(self) -> None:
        served = 0
        while len(self._queue) and (self._state is _State.RUNNING or self._drains):
            self._in_flight = self._queue.take()
            await self._deliver(*self._in_flight)
            served += 1
            if served % _FAIR_SHARE == 0:
                await trio.lowlevel.checkpoint()

    async def _deliver(self, type: str, data: Mapping[str, Any] | None) -> None:
        try:
            await self._downstream.emit(type=type, data=data)
        except Exception as error:  # noqa: BLE001 - sinks are user code
            self._failed += 1
            self._settle_in_flight()
            self._failed_log.write(error, event_type=type, error=repr(error))
            self._tell(self._on_error, type, data, error)
        else:
            self._delivered += 1
            self._settle_in_flight()

    def _settle_in_flight(self) -> None:
        self._in_flight = None
        self._backlog.settle()

    async def _flush_downstream(self) -> None:
        try:
            await flush_sink(self._downstream)
        except Exception as error:  # noqa: BLE001 - sinks are user code
            self._failed_log.write(error, event_type=None, error=repr(error))

    def _end(self) -> None:
        """Account for what the worker leaves behind, whatever ended it."""
        self._state = _State.STOPPED
        in_flight, self._in_flight = self._in_flight, None
        left = [*([in_flight] if in_flight else []), *self._queue.clear()]
        self._left = tuple(left)
        self._abandoned += len(left)
        self._backlog.settle(len(left))
        self._dropped_log.settle()
        self._failed_log.settle()
        if left and self._drains:
            _logger.error(
                "event_sink_drain_timeout",
                extra={
                    "remaining": len(left),
                    "in_flight_type": in_flight[0] if in_flight else None,
                },
            )
        for type, data in left:
            self._tell(self._on_drop, type, data)

    # Starting and stopping

    @property
    def is_running(self) -> bool:
        """Whether a worker delivers and the sink takes events."""
        return self._state is _State.RUNNING

    @property
    def queue_size(self) -> int:
        """How many events are queued, without the one that is being delivered."""
        return len(self._queue)

    def statistics(self) -> SinkStatistics:
        """Return what became of all events so far."""
        return SinkStatistics(
            accepted=self._backlog.accepted,
            delivered=self._delivered,
            failed=self._failed,
            dropped=self.metrics.dropped,
            abandoned=self._abandoned,
            pending=len(self._queue),
            in_flight=int(self._in_flight is not None),
        )

    async def start(self, system: System | None = None) -> None:
        """Start the worker as an actor of `system`, by default the one around the caller.

        Raises:
          SinkNotOwnedError: if there is no system.
        """
        async with self._change:
            ctx = self._worker.ctx
            if ctx is not None and ctx.is_stopping:
                # The last system closes, and the worker is not done yet.
                await self._worker.wait_stopped()
            if self._state is not _State.RUNNING:
                self._thread = threading.get_ident()
                self._drains = True
                await self._worker.start(system)

    async def stop(self, *, drain: bool = True, timeout: float = 5.0) -> DrainReport:
        """Take no more events, deliver what was accepted, and say what became of it.

        Emissions that already wait for room are still accepted. Without `drain`
        only the event that is being delivered is finished. When `timeout` is over,
        or the caller is cancelled, the delivery is cancelled, and what is left
        stands in the report as abandoned. Stopping again returns the same report.
        """
        _check_timeout("timeout", timeout)
        async with self._change:
            if self._state is _State.NEW:
                self._drains = False
                self._end()
                self._report = DrainReport(abandoned=self._left)
            elif self._state is not _State.STOPPED:
                self._report = await self._stop_worker(drain=drain, timeout=timeout)
            return self._report

    async def _stop_worker(self, *, drain: bool, timeout: float) -> DrainReport:
        delivered, failed = self._delivered, self._failed
        self._state = _State.DRAINING
        self._drains = drain
        self._worker.wake()
        try:
            with trio.move_on_after(timeout) as patience:
                await self._worker.wait_stopped()
        finally:
            if self._state is not _State.STOPPED:
                self._worker.kill("its sink was stopped and did not get done in time")
                with trio.CancelScope(shield=True):
                    await self._worker.wait_stopped()
        return DrainReport(
            delivered=self._delivered - delivered,
            failed=self._failed - failed,
            abandoned=self._left,
            timed_out=patience.cancelled_caught,
        )

    async def flush(self) -> None:
        """Return when everything accepted so far is delivered and the downstream is flushed.

        Raises:
          SinkNotRunningError: if something is queued and no worker was started.
        """
        if self._state is _State.NEW and len(self._queue):
            raise SinkNotRunningError(repr(self), len(self._queue), self._queue.max_size)
        await self._backlog.everything_so_far().wait()
        await self._flush_downstream()

    async def aclose(self) -> None:
        """Stop the sink, then close the downstream."""
        await self.stop(drain=True, timeout=self._stop_timeout)
        await close_sink(self._downstream)

    async def _finish(self) -> None:
        # Also when the block was cancelled: what was accepted is delivered.
        with trio.CancelScope(shield=True):
            await self.stop(drain=True, timeout=self._stop_timeout)


def _check_timeout(name: str, seconds: float) -> None:
    if not isinstance(seconds, int | float) or not seconds >= 0:
        raise InvalidEventSinkError(name, seconds, "zero or more seconds")
