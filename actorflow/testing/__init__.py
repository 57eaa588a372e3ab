"""What tests of pipelines need: sinks that remember, doubles, probes and suites."""

from __future__ import annotations

from ._sinks import (
    CatalogueViolation as CatalogueViolation,
    RecordedEvent as RecordedEvent,
    RecordingEventSink as RecordingEventSink,
)
