from __future__ import annotations

from enum import StrEnum
from typing import final


@final
class State(StrEnum):
    """Where an actor stands between its first start and its end for good."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DOWN = "down"
    """The last life is over and another one will follow."""

    ENDED = "ended"

    @property
    def is_alive(self) -> bool:
        """Whether a task runs for it."""
        return self in _ALIVE


_ALIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
