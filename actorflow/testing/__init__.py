"""What tests of pipelines need: sinks that remember, doubles, probes and suites."""

from __future__ import annotations

from ._seeded import run_seeded as run_seeded
from ._sinks import (
    CatalogueViolation as CatalogueViolation,
    RecordedEvent as RecordedEvent,
    RecordingEventSink as RecordingEventSink,
)
