"""Watching a process while it works: memory use, ids that come twice, clocks that are off."""

from __future__ import annotations

from ._ids import (
    ClockSkewDetector as ClockSkewDetector,
    UuidCollisionMonitor as UuidCollisionMonitor,
    UuidEvent as UuidEvent,
    UuidStatistics as UuidStatistics,
)
from ._memory import (
    MemorySample as MemorySample,
    MemoryTracker as MemoryTracker,
    current_memory_tracker as current_memory_tracker,
    memory_tracker_scope as memory_tracker_scope,
)
from ._track import track_memory as track_memory
