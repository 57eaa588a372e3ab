"""Noticing ids that come twice, and ids from machines whose clock is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, final
from uuid import UUID

import attrs

from actorflow import clock
from actorflow.errors import InvalidDiagnosticsError
from actorflow.events import EventSink, checked_sink, current_event_sink

from ._listeners import Listeners, at_least, emit, log
from ._window import IdWindow


@final
@attrs.frozen
class UuidEvent:
    """One observation of an id."""

    value: UUID
    collision: bool
    """Whether it had been seen within the window before."""
    category: str
    observed_at: datetime
    skew_ms: float | None = None
    """How far the time inside the id is off, if that is too far."""


@final
@attrs.frozen
class UuidStatistics:
    """What a monitor has seen."""

    observed: int
    collisions: int
    skewed: int
    in_window: int


@final
class ClockSkewDetector:
    """Compares the time inside UUIDs of version 7 with the time of this machine."""

    def __init__(self, max_skew_ms: float = 5000.0) -> None:
        at_least("max_skew_ms", max_skew_ms, 0)
        self.max_skew_ms: Final = max_skew_ms

    def check(self, uid: UUID) -> float | None:
        """By how many milliseconds an id is off, if that is more than allowed.

        Ids of other versions tell no time and are never off.
        """
        if uid.version != 7:
            return None
        skew_ms = round(abs((uid.int >> 80) - clock.timestamp() * 1000), 3)
        return skew_ms if skew_ms > self.max_skew_ms else None


@final
class UuidCollisionMonitor:
    """Remembers the ids of the last minutes and reports those that come again.

    What an observation costs does not depend on how many ids are remembered.
    Reports go to the log, to the listeners, and as events to `event_sink` or else
    to the current sink. A monitor belongs to one thread, and to all runs of trio there.
    """

    def __init__(
        self,
        *,
        ttl_seconds: float = 300.0,
        max_entries: int = 50_000,
        category: str = "default",
        listeners: Iterable[Callable[[UuidEvent], object]] = (),
        check_skew: bool = False,
        max_skew_ms: float = 5000.0,
        event_sink: EventSink | None = None,
    ) -> None:
        """Remember ids for `ttl_seconds`, at least one second and at least one id.

        With `check_skew`, ids of version 7 whose time is off are reported as well.
        """
        self.category: Final = category
        self._window: Final = IdWindow(ttl_seconds, max_entries)
        self._listeners: Final[Listeners[UuidEvent]] = Listeners(listeners)
        detector = ClockSkewDetector(max_skew_ms)
        self._detector: Final = detector if check_skew else None
        self._sink: Final = None if event_sink is None else checked_sink("event_sink", event_sink)
        self._observed = self._collisions = self._skewed = 0

    def __len__(self) -> int:
        return self._window.size(clock.timestamp())

    def add_listener(self, listener: Callable[[UuidEvent], object]) -> None:
        """Call `listener` with every observation from now on."""
        self._listeners.add(listener)

    def statistics(self) -> UuidStatistics:
        """What has been seen so far."""
        return UuidStatistics(self._observed, self._collisions, self._skewed, len(self))

    def observe(self, value: UUID | str) -> bool:
        """Note an id, and return whether it had been seen within the window.

        Raises:
          InvalidDiagnosticsError: for what is no id.
        """
        uid = _as_uuid(value)
        occurrences = self._window.observe(uid, clock.timestamp())
        collision = occurrences > 1
        skew_ms = None if self._detector is None else self._detector.check(uid)
        self._observed += 1
        if collision:
            self._report_collision(uid, occurrences)
        if skew_ms is not None:
            self._report_skew(uid, skew_ms)
        self._listeners.tell(UuidEvent(uid, collision, self.category, clock.now(), skew_ms))
        return collision

    def _report_collision(self, uid: UUID, occurrences: int) -> None:
        self._collisions += 1
        told = {"value": str(uid), "category": self.category, "occurrences": occurrences}
        log.warning("uuid_collision", extra=told)
        told["window_seconds"] = self._window.ttl_seconds
        self._emit("uuid.collision", told)

    def _report_skew(self, uid: UUID, skew_ms: float) -> None:
        assert self._detector is not None, "who found it"
        self._skewed += 1
        told = {
            "value": str(uid),
            "category": self.category,
            "skew_ms": skew_ms,
            "max_skew_ms": self._detector.max_skew_ms,
        }
        log.warning("uuid_clock_skew", extra=told)
        self._emit("uuid.clock_skew", told)

    def _emit(self, type: str, told: dict[str, Any]) -> None:
        emit(current_event_sink() if self._sink is None else self._sink, type, told)


def _as_uuid(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise InvalidDiagnosticsError("value", value, "a UUID or the text of one")
