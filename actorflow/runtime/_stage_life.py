"""The life of a stage within a run, as a table.

Code and diagram both come from `LIFE`: a change that is not listed cannot
happen, and asking for it is a mistake of the run supervisor.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class StageState(StrEnum):
    """Where a stage of a run is."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELED = "canceled"
    NOT_RUN = "not_run"


class StageChange(StrEnum):
    """What happens to a stage of a run."""

    READY = "ready"
    START = "start"
    COMPLETE = "complete"
    SKIP = "skip"
    FAIL = "fail"
    CANCEL = "cancel"
    REPEAT = "repeat"
    STOP = "stop"


LIFE: Final[Mapping[tuple[StageState, StageChange], StageState]] = MappingProxyType(
    {
        (StageState.WAITING, StageChange.READY): StageState.QUEUED,
        # Rules skip and fail stages that were never called.
        (StageState.WAITING, StageChange.SKIP): StageState.SKIPPED,
        (StageState.WAITING, StageChange.FAIL): StageState.FAILED,
        (StageState.WAITING, StageChange.STOP): StageState.NOT_RUN,
        (StageState.QUEUED, StageChange.START): StageState.RUNNING,
        (StageState.QUEUED, StageChange.REPEAT): StageState.WAITING,
        (StageState.QUEUED, StageChange.STOP): StageState.NOT_RUN,
        (StageState.RUNNING, StageChange.COMPLETE): StageState.COMPLETED,
        (StageState.RUNNING, StageChange.SKIP): StageState.SKIPPED,
        (StageState.RUNNING, StageChange.FAIL): StageState.FAILED,
        (StageState.RUNNING, StageChange.CANCEL): StageState.CANCELED,
        # Settled is final, except for a guard that has an earlier stage repeated.
        (StageState.COMPLETED, StageChange.REPEAT): StageState.WAITING,
        (StageState.SKIPPED, StageChange.REPEAT): StageState.WAITING,
        (StageState.FAILED, StageChange.REPEAT): StageState.WAITING,
        (StageState.CANCELED, StageChange.REPEAT): StageState.WAITING,
    }
)

SETTLED: Final = frozenset(
    {StageState.COMPLETED, StageState.SKIPPED, StageState.FAILED, StageState.CANCELED}
)
