"""Side effects that must be right, and the watch over memory and ids."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from .._spec import Delivery, event


class KeyedOperation(TypedDict):
    """Which operation of which stage, under which idempotency key."""

    stage: str
    operation: str
    key_hash: Annotated[str, "16 hex digits"]


@event("work.idempotency_hit", Delivery.WAIT)
class WorkIdempotencyHit(KeyedOperation, TypedDict):
    """A duplicate got the recorded result."""

    source: Literal["stored", "in_flight"]
    age_seconds: float
    waited_ms: float
    status: str
    original_run_id: str | None


@event("work.idempotency_conflict", Delivery.WAIT)
class WorkIdempotencyConflict(KeyedOperation, TypedDict):
    """A key came back with other parameters."""

    expected_params_hash: str
    actual_params_hash: str


@event("work.in_doubt", Delivery.WAIT)
class WorkInDoubt(KeyedOperation, TypedDict):
    """A claim without an outcome was found."""

    since: str
    policy: str
    action: Literal["failed", "rerun", "reconciled"]


@event("work.lease_lost", Delivery.WAIT)
class WorkLeaseLost(KeyedOperation, TypedDict):
    """The owner of a claim lost it."""

    fence: int


@event("work.retry_attempt", Delivery.TRY)
class WorkRetryAttempt(TypedDict):
    """A work stage is tried again, after the delay."""

    stage: str
    attempt: Annotated[int, "number of the try that starts now, from 2"]
    delay_ms: Annotated[int, "waited"]
    error: Annotated[str, "of the previous try"]


class Circuit(TypedDict):
    """Which circuit breaker, and why."""

    circuit: str
    stage: str | None
    failures: int
    reset_after_seconds: float


@event("work.circuit_opened", Delivery.WAIT)
class WorkCircuitOpened(Circuit, TypedDict):
    """A circuit breaker opened: calls are refused from now on."""


@event("work.circuit_half_open", Delivery.WAIT)
class WorkCircuitHalfOpen(Circuit, TypedDict):
    """A circuit breaker lets a call through to see how it goes."""


@event("work.circuit_closed", Delivery.WAIT)
class WorkCircuitClosed(Circuit, TypedDict):
    """A circuit breaker closed: calls go through again."""


@event("work.circuit_rejected", Delivery.TRY)
class WorkCircuitRejected(Circuit, TypedDict):
    """An open circuit breaker refused a call."""


@event("memory.sample", Delivery.TRY)
class MemorySample(TypedDict):
    """A memory tracker looked, inside a run."""

    label: str | None
    current_kb: int
    peak_kb: int


@event("memory.growth_warning", Delivery.TRY)
class MemoryGrowthWarning(TypedDict):
    """Memory grew across the threshold."""

    label: str | None
    current_kb: int
    baseline_kb: int
    growth_kb: int
    threshold_kb: int


@event("uuid.collision", Delivery.TRY)
class UuidCollision(TypedDict):
    """An id was seen again within the window."""

    value: str
    category: str
    occurrences: int
    window_seconds: float


@event("uuid.clock_skew", Delivery.TRY)
class UuidClockSkew(TypedDict):
    """The time inside a UUIDv7 is off."""

    value: str
    category: str
    skew_ms: float
    max_skew_ms: float
