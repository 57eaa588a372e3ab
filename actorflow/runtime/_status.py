"""How a run is doing, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import final
from uuid import UUID

import attrs

from ._stage_life import StageState


class RunPhase(StrEnum):
    """Where a run is."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELING = "canceling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@final
@attrs.frozen
class RunStatus:
    """A run and all its stages at one moment."""

    run_id: UUID | None
    pipeline_name: str
    state: RunPhase
    stages: Mapping[str, StageState]
    """Every stage of the graph, in declaration order."""
    started_at: datetime | None
    ended_at: datetime | None
    seq: int
    """The number of the newest event; before the first, one less than it will have."""
