"""Guards that have an earlier stage run again: what that concerns, and when it is enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from actorflow.pipeline import GuardRetryPolicy, Wiring

Exhaustion: TypeAlias = Literal["timeout", "stagnation", "max_attempts"]


def repeated_with(wiring: Wiring, retry_stage: int) -> tuple[int, ...]:
    """The stages that rest on a retry stage, directly or not, in declaration order."""
    below: set[int] = set()
    to_visit = [retry_stage]
    while to_visit:
        fresh = set(wiring.dependents[to_visit.pop()]) - below
        below |= fresh
        to_visit.extend(fresh)
    return tuple(sorted(below))


def interruptible(wiring: Wiring, policies: Iterable[GuardRetryPolicy]) -> frozenset[int]:
    """The stages that may have to be interrupted while their run goes on."""
    retry_stages = {wiring.index[policy.retry_stage] for policy in policies}
    return frozenset(stage for retry in retry_stages for stage in repeated_with(wiring, retry))


@final
@attrs.define
class GuardHistory:
    """The refusals of one guard, over a whole run."""

    policy: GuardRetryPolicy
    attempts: int = 0
    stagnation_hits: int = 0
    first_refusal: float | None = None
    last_digest: str | None = None
    is_recovering: bool = False
    """Whether the guard has refused and not passed since."""

    def refuse(self, digest: str | None, now: float) -> Exhaustion | None:
        """Count a refusal; return why the retry stage is not tried again, if so."""
        if self.first_refusal is None:
            self.first_refusal = now
        elif digest == self.last_digest:
            self.stagnation_hits += 1
        else:
            self.stagnation_hits = 0
        self.attempts += 1
        self.last_digest = digest
        self.is_recovering = True
        return self._exhaustion(now - self.first_refusal)

    def _exhaustion(self, elapsed: float) -> Exhaustion | None:
        policy = self.policy
        if policy.timeout_seconds is not None and elapsed >= policy.timeout_seconds:
            return "timeout"
        if self.stagnation_hits >= policy.stagnation_limit:
            return "stagnation"
        if self.attempts >= policy.max_attempts:
            return "max_attempts"
        return None
