"""How much memory Python has in use, sample by sample."""

from __future__ import annotations

import tracemalloc
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, final

import attrs

from actorflow import clock
from actorflow.errors import MemoryTrackerInactiveError
from actorflow.events import EventSink, checked_sink, current_event_sink

from ._listeners import Listeners, at_least, emit, log
from ._tracing import tracing


@final
@attrs.frozen
class MemorySample:
    """Memory that Python objects take, at one moment."""

    timestamp: datetime
    current_kb: int
    peak_kb: int
    """The most since tracing began, or since `reset_peak`."""
    label: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The sample as plain values."""
        return {
            "timestamp": self.timestamp.isoformat(),
            "current_kb": self.current_kb,
            "peak_kb": self.peak_kb,
            "label": self.label,
        }


@final
class MemoryTracker:
    """Takes samples of the memory in use and warns when it grows.

    It measures with `tracemalloc`, which makes every allocation of the process
    slower while it is on: it is for the search for a leak, not for every day. A
    sample itself costs microseconds and never waits. Samples become events of
    `event_sink`, or else of the run that uses the tracker.
    """

    def __init__(
        self,
        auto_start: bool = True,
        listeners: Iterable[Callable[[MemorySample], object]] = (),
        *,
        max_samples: int = 1000,
        min_interval: float = 0.0,
        growth_warning_kb: int | None = 10_240,
        event_sink: EventSink | None = None,
    ) -> None:
        """Keep the newest `max_samples`, of each label at most one per `min_interval` seconds.

        `growth_warning_kb` None means that growth is nothing to warn of.
        """
        at_least("max_samples", max_samples, 1)
        at_least("min_interval", min_interval, 0)
        if growth_warning_kb is not None:
            at_least("growth_warning_kb", growth_warning_kb, 0)
        self._listeners: Final[Listeners[MemorySample]] = Listeners(listeners)
        self._samples: Final[deque[MemorySample]] = deque(maxlen=max_samples)
        self._min_interval: Final = min_interval
        self._growth_warning_kb: Final = growth_warning_kb
        self._sink: Final = None if event_sink is None else checked_sink("event_sink", event_sink)
        self._latest: OrderedDict[str | None, tuple[float, MemorySample]] = OrderedDict()
        self._baseline_kb: int | None = None
        # Ends the tracing of a tracker that nobody holds any more, too.
        self._end: weakref.finalize[..., MemoryTracker] | None = None
        self._was_started = False
        if auto_start:
            self.start()

    @property
    def is_active(self) -> bool:
        """Whether it may be asked to observe."""
        return self._end is not None

    @property
    def samples(self) -> tuple[MemorySample, ...]:
        """The newest samples, oldest first; they stay after `stop`."""
        return tuple(self._samples)

    def start(self) -> None:
        """Begin to trace; the first sample from here on is what growth is measured from."""
        if self._end is None:
            tracing.begin()
            self._end = weakref.finalize(self, tracing.end)
            self._end.atexit = False
            self._was_started = True
            self._baseline_kb = None

    def stop(self) -> None:
        """End tracing, unless others still need it."""
        if self._end is not None:
            self._end()
            self._end = None

    def add_listener(self, listener: Callable[[MemorySample], object]) -> None:
        """Call `listener` with every sample from now on."""
        self._listeners.add(listener)

    def extend_listeners(self, listeners: Iterable[Callable[[MemorySample], object]]) -> None:
        """Call all of these with every sample from now on."""
        for listener in listeners:
            self._listeners.add(listener)

    def reset_peak(self) -> None:
        """Let peaks count from now on, for everybody in the process who looks at them."""
        tracemalloc.reset_peak()

    def observe(self, label: str | None = None) -> MemorySample:
        """Take a sample, or return the last one of this label if it is new enough.

        Raises:
          MemoryTrackerInactiveError: before `start` and after `stop`.
        """
        if not self.is_active:
            raise MemoryTrackerInactiveError(label)
        # A tracker outlives the run of trio it is in, and the clock of the next begins elsewhere.
        now = clock.timestamp()
        taken_at, latest = self._latest.get(label, (0.0, None))
        if latest is not None and now - taken_at < self._min_interval:
            return latest
        current, peak = tracemalloc.get_traced_memory()
        sample = MemorySample(clock.now(), current // 1024, peak // 1024, label)
        self._samples.append(sample)
        if self._min_interval:
            self._note(label, now, sample)
        self._report(sample)
        self._listeners.tell(sample)
        return sample

    def _note(self, label: str | None, now: float, sample: MemorySample) -> None:
        self._latest[label] = (now, sample)
        self._latest.move_to_end(label)
        # As many labels as samples are enough, and both are bounded.
        if len(self._latest) > (self._samples.maxlen or 1):
            self._latest.popitem(last=False)

    def _report(self, sample: MemorySample) -> None:
        sink = self._sink
        if sink is None and current_memory_tracker() is self:
            sink = current_event_sink()
        told = {
            "label": sample.label,
            "current_kb": sample.current_kb,
            "peak_kb": sample.peak_kb,
        }
        emit(sink, "memory.sample", told)
        baseline_kb, threshold_kb = self._baseline_kb, self._growth_warning_kb
        if baseline_kb is None:
            self._baseline_kb = sample.current_kb
            return
        growth_kb = sample.current_kb - baseline_kb
        if threshold_kb is None or growth_kb < threshold_kb:
            return
        self._baseline_kb = sample.current_kb
        grown = {
            "label": sample.label,
            "current_kb": sample.current_kb,
            "baseline_kb": baseline_kb,
            "growth_kb": growth_kb,
            "threshold_kb": threshold_kb,
        }
        log.warning("memory_growth_warning", extra=grown)
        emit(sink, "memory.growth_warning", grown)


_current: Final[ContextVar[MemoryTracker | None]] = ContextVar(
    "actorflow_memory_tracker", default=None
)


def current_memory_tracker() -> MemoryTracker | None:
    """The tracker of the run around the caller, if that run has one."""
    return _current.get()


@contextmanager
def memory_tracker_scope(tracker: MemoryTracker) -> Iterator[MemoryTracker]:
    """Make `tracker` the one of the runs inside the block, however the block is left."""
    before = _current.get()
    _current.set(tracker)
    try:
        yield tracker
    finally:
        _current.set(before)
