from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import attrs

from ._state import State


@final
@attrs.frozen
class ActorStatistics:
    """Counters and gauges of one actor at one moment."""

    handled: int = 0
    depth: int = 0
    peak_depth: int = 0
    capacity: int = 0
    blocked_senders: int = 0
    dropped: int = 0
    restarts: int = 0
    busy_since: float | None = None
    """Since when, on trio's clock, it handles its present message."""


@final
@attrs.frozen
class ActorInfo:
    """One actor of a tree at one moment, with everything below it."""

    name: str
    path: str
    state: State
    incarnation: int
    statistics: ActorStatistics
    waiting_on: str | None = None
    """The actor it waits for."""

    is_supervisor: bool = False
    children: tuple[ActorInfo, ...] = ()

    def walk(self) -> Iterator[tuple[int, ActorInfo]]:
        """Yield this actor and all below it with their depths, parents first."""
        stack = [(0, self)]
        while stack:
            level, info = stack.pop()
            yield level, info
            stack.extend((level + 1, child) for child in reversed(info.children))

    def __str__(self) -> str:
        return "\n".join("  " * level + info.line() for level, info in self.walk())

    def line(self) -> str:
        """The actor itself in one line, for people."""
        numbers = self.statistics
        parts = [self.name or "system", str(self.state)]
        if not self.is_supervisor:
            parts.append(f"queue {numbers.depth}/{numbers.capacity} peak {numbers.peak_depth}")
        if numbers.blocked_senders:
            parts.append(f"blocked senders {numbers.blocked_senders}")
        if numbers.restarts:
            parts.append(f"restarts {numbers.restarts}")
        if self.waiting_on is not None:
            parts.append(f"waiting on {self.waiting_on}")
        return "  ".join(parts)


@final
@attrs.frozen
class SystemStatistics:
    """Counters of a whole system at one moment."""

    actors: int
    """Actors and supervisors that have not ended."""

    restarts: int
    dead_letters: Mapping[str, int]
    """How many messages nobody handled, by reason."""

    late_answers: int
    """Answers to asks that were over."""

    rings: int
    """Waits that closed a ring in which somebody had a deadline."""
