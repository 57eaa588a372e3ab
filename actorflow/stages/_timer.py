"""How long a run has been going on."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import final

from actorflow import clock


@final
class PipelineTimer:
    """Started when it is made; one per run. All of it follows trio's clock."""

    __slots__ = ("_started", "_started_at")

    def __init__(self) -> None:
        self._started = clock.monotonic()
        self._started_at = clock.timestamp()

    @property
    def started_at(self) -> datetime:
        return datetime.fromtimestamp(self._started_at, timezone.utc)

    @property
    def pipeline_start_ms(self) -> float:
        """Unix time of the start, in milliseconds."""
        return self._started_at * 1000

    def now_ms(self) -> float:
        """Unix time of now, in milliseconds."""
        return clock.timestamp() * 1000

    def elapsed_ms(self) -> float:
        """Milliseconds since the start; setting the machine's clock does not change it."""
        return (clock.monotonic() - self._started) * 1000
