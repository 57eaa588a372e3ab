"""Events on their way out of the process, and those who take them there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, final, runtime_checkable
from uuid import UUID

import attrs

from actorflow import clock
from actorflow.errors import AnalyticsEventError


@final
@attrs.frozen
class AnalyticsEvent:
    """An event as exporters see it: what is asked for most has a field of its own."""

    event_type: str
    timestamp: datetime = attrs.field(factory=clock.now)
    data: Mapping[str, Any] = attrs.field(factory=dict)
    pipeline_run_id: UUID | str | None = None
    stage_name: str | None = None
    duration_ms: float | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)

    @classmethod
    def from_payload(cls, type: str, data: Mapping[str, Any] | None) -> AnalyticsEvent:
        """Make an event of what a sink is handed."""
        payload = data or {}
        return cls(
            event_type=type,
            timestamp=_iso_time(payload.get("timestamp")) or clock.now(),
            data=payload,
            pipeline_run_id=payload.get("pipeline_run_id"),
            stage_name=payload.get("stage"),
            duration_ms=payload.get("duration_ms"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON; what it does not know is left out."""
        written: dict[str, Any] = {
            "event_type": self.event_type,
            "timestamp": self.timestamp.isoformat(),
            "data": self.data,
        }
        if self.pipeline_run_id:
            written["pipeline_run_id"] = str(self.pipeline_run_id)
        if self.stage_name:
            written["stage_name"] = self.stage_name
        if self.duration_ms is not None:
            written["duration_ms"] = self.duration_ms
        if self.metadata:
            written["metadata"] = self.metadata
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AnalyticsEvent:
        """Read what `to_dict` wrote.

        Raises:
          AnalyticsEventError: naming the key that is missing or cannot be read.
        """
        if not isinstance(data, Mapping):
            raise AnalyticsEventError("", data, "an object")
        if not isinstance(data.get("event_type", attrs.NOTHING), str):
            found = data.get("event_type", attrs.NOTHING)
            raise AnalyticsEventError("event_type", found, "the type of the event")
        return cls(
            event_type=data["event_type"],
            timestamp=_timestamp(data.get("timestamp", attrs.NOTHING)),
            data=data.get("data", {}),
            pipeline_run_id=_run_id(data.get("pipeline_run_id")),
            stage_name=data.get("stage_name"),
            duration_ms=data.get("duration_ms"),
            metadata=data.get("metadata", {}),
        )


def _iso_time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _timestamp(value: object) -> datetime:
    time = value if isinstance(value, datetime) else _iso_time(value)
    if time is None:
        raise AnalyticsEventError("timestamp", value, "an ISO 8601 time")
    return time


def _run_id(value: object) -> UUID | None:
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        raise AnalyticsEventError("pipeline_run_id", value, "a UUID") from None


@runtime_checkable
class AnalyticsExporter(Protocol):
    """Takes events out of the process: to a file, a terminal, a service."""

    async def export(self, event: AnalyticsEvent) -> None:
        """Take one event."""
        ...

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        """Take several events, in order."""
        ...

    async def flush(self) -> None:
        """Return when everything taken so far is out."""
        ...

    async def close(self) -> None:
        """Let go of what the exporter holds."""
        ...
