"""What a sink with a bounded queue says about its intake."""

from __future__ import annotations

from typing import final

import attrs

from actorflow import clock


@final
@attrs.define
class BackpressureMetrics:
    """How many events found room and how many did not."""

    emitted: int = 0
    dropped: int = 0
    queue_full_count: int = 0
    last_emit_time: float = 0.0
    last_drop_time: float = 0.0

    def record_emit(self) -> None:
        """Count an event that found room."""
        self.emitted += 1
        self.last_emit_time = clock.monotonic()

    def record_drop(self) -> None:
        """Count an event that found none."""
        self.dropped += 1
        self.queue_full_count += 1
        self.last_drop_time = clock.monotonic()

    @property
    def drop_rate(self) -> float:
        """Dropped events in percent of all."""
        attempted = self.emitted + self.dropped
        return self.dropped / attempted * 100 if attempted else 0.0

    def to_dict(self) -> dict[str, int | float]:
        """Everything as JSON."""
        return {
            "emitted": self.emitted,
            "dropped": self.dropped,
            "queue_full_count": self.queue_full_count,
            "drop_rate_percent": round(self.drop_rate, 2),
            "last_emit_time": self.last_emit_time,
            "last_drop_time": self.last_drop_time,
        }
