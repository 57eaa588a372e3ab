"""A circuit breaker as a table. Pure: the time comes in as an argument.

closed ──too many failures──► open ──time is up──► half open
  ▲                            ▲                       │
  │                            └────a probe failed─────┤
  └──────────────────a probe succeeded─────────────────┘
"""

from __future__ import annotations

from enum import StrEnum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
class Phase(StrEnum):
    """Whether calls are let through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@final
class Signal(StrEnum):
    """What changes that."""

    TRIPPED = auto()
    RESTED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


TABLE: Final[Mapping[tuple[Phase, Signal], Phase]] = MappingProxyType(
    {
        (Phase.CLOSED, Signal.TRIPPED): Phase.OPEN,
        (Phase.OPEN, Signal.RESTED): Phase.HALF_OPEN,
        (Phase.HALF_OPEN, Signal.SUCCEEDED): Phase.CLOSED,
        (Phase.HALF_OPEN, Signal.FAILED): Phase.OPEN,
    }
)
"""Every change there is; signals that are not here change nothing."""


@final
class Ended(StrEnum):
    """How a call that was let through counts."""

    WELL = auto()
    BADLY = auto()
    WITHOUT_VERDICT = auto()
    """It was cancelled, skipped or answered by somebody else."""


@final
@attrs.frozen
class Rules:
    """When a circuit opens, for how long, and how it is tried."""

    failure_threshold: int
    reset_timeout: float
    half_open_max_calls: int


@final
@attrs.frozen
class Circuit:
    """What is known about one stage of one pipeline."""

    phase: Phase = Phase.CLOSED
    failures: int = 0
    """In a row."""
    changed_at: float = 0.0
    probes: int = 0
    """Calls on their way while it is half open."""
    era: int = 0
    """Grows with each change of phase, so that a call knows whether it is out of date."""

    def admitted(self, now: float, rules: Rules) -> tuple[Circuit, bool]:
        """The circuit after a call asked to be let through, and whether it is."""
        circuit = self
        if self.phase is Phase.OPEN and self.seconds_left(now, rules) <= 0:
            circuit = self._after(Signal.RESTED, now)
        match circuit.phase:
            case Phase.CLOSED:
                return circuit, True
            case Phase.OPEN:
                return circuit, False
        if circuit.probes >= rules.half_open_max_calls:
            return circuit, False
        return attrs.evolve(circuit, probes=circuit.probes + 1), True

    def settled(self, how: Ended, era: int, now: float, rules: Rules) -> Circuit:
        """The circuit after a call ended that had been let through in `era`."""
        if era != self.era:
            return self
        if self.phase is Phase.HALF_OPEN:
            return self._probed(how, now)
        match how:
            case Ended.WITHOUT_VERDICT:
                return self
            case Ended.WELL:
                return attrs.evolve(self, failures=0)
            case _:
                counted = attrs.evolve(self, failures=self.failures + 1)
                if counted.failures >= rules.failure_threshold:
                    return counted._after(Signal.TRIPPED, now)
                return counted

    def _probed(self, how: Ended, now: float) -> Circuit:
        match how:
            case Ended.WITHOUT_VERDICT:
                return attrs.evolve(self, probes=self.probes - 1)
            case Ended.WELL:
                return attrs.evolve(self, failures=0)._after(Signal.SUCCEEDED, now)
            case _:
                return attrs.evolve(self, failures=self.failures + 1)._after(Signal.FAILED, now)

    def _after(self, signal: Signal, now: float) -> Circuit:
        phase = TABLE.get((self.phase, signal), self.phase)
        return attrs.evolve(self, phase=phase, changed_at=now, probes=0, era=self.era + 1)

    def seconds_left(self, now: float, rules: Rules) -> float:
        """Until an open circuit lets a call through to see how it goes."""
        return max(0.0, self.changed_at + rules.reset_timeout - now)
