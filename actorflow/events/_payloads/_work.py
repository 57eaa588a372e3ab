"""Side effects that must be right, and the watch over memory and ids."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from .._spec import Delivery, Millis, event


class Operation(TypedDict):
    """Which operation of which stage."""

    stage: str
    operation: str


class KeyedOperation(Operation, TypedDict):
    """An operation with an idempotency key."""

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


@event("work.replay_rejected", Delivery.WAIT)
class WorkReplayRejected(Operation, TypedDict):
    """A request lay outside the replay window."""

    reason: str
    request_timestamp: str | None


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


class Saga(TypedDict):
    """What every transition of a saga says."""

    saga: str
    saga_id: str
    steps: int
    failed_step: NotRequired[str]
    error: NotRequired[str]
    not_compensated: NotRequired[list[str]]
    requires_manual_intervention: NotRequired[bool]


@event("work.saga_started", Delivery.WAIT)
class WorkSagaStarted(Saga, TypedDict):
    """A saga is about to run its first step."""


@event("work.saga_completed", Delivery.WAIT)
class WorkSagaCompleted(Saga, TypedDict):
    """Every step of a saga is done."""


@event("work.saga_compensated", Delivery.WAIT)
class WorkSagaCompensated(Saga, TypedDict):
    """A step failed and everything before it was undone."""


@event("work.saga_failed", Delivery.WAIT)
class WorkSagaFailed(Saga, TypedDict):
    """A step failed and something before it could not be undone."""


@event("work.compensation_executed", Delivery.WAIT)
class WorkCompensationExecuted(TypedDict):
    """A step was undone."""

    saga: str
    saga_id: str
    step: str
    order: Annotated[int, "1 was undone first"]
    attempt: int
    duration_ms: Millis
    in_doubt: bool


@event("work.compensation_failed", Delivery.WAIT)
class WorkCompensationFailed(TypedDict):
    """Undoing a step was given up."""

    saga: str
    saga_id: str
    step: str
    order: Annotated[int, "1 was undone first"]
    attempts: int
    duration_ms: Millis
    error: str
    error_type: str
    requires_manual_intervention: bool


class Checkpoint(TypedDict):
    """Which record, and how large."""

    stage: str | None
    checkpoint_id: str
    size_bytes: int


@event("work.checkpoint_saved", Delivery.TRY)
class WorkCheckpointSaved(Checkpoint, TypedDict):
    """A record was written."""


@event("work.checkpoint_deleted", Delivery.TRY)
class WorkCheckpointDeleted(Checkpoint, TypedDict):
    """A record was removed."""


@event("work.checkpoint_restored", Delivery.WAIT)
class WorkCheckpointRestored(Checkpoint, TypedDict):
    """A resumed run read a record back."""

    stages_restored: int
    stages_remaining: int


@event("work.sandbox_started", Delivery.WAIT)
class WorkSandboxStarted(TypedDict):
    """Code is about to run in a sandbox."""

    stage: str
    backend: str
    isolation: str
    guarantees: list[str]


@event("work.sandbox_finished", Delivery.WAIT)
class WorkSandboxFinished(TypedDict):
    """Code ended in a sandbox."""

    stage: str
    backend: str
    outcome: str
    cpu_seconds: float
    max_memory_bytes: int
    wall_seconds: float


@event("work.sandbox_refused", Delivery.WAIT)
class WorkSandboxRefused(TypedDict):
    """No sandbox gives the guarantees that were asked for."""

    stage: str
    backend: str | None
    missing: list[str]


@event("work.network_denied", Delivery.WAIT)
class WorkNetworkDenied(TypedDict):
    """A connection outwards was refused."""

    tool_name: str
    stage: str | None
    host: str
    port: int
    reason: str


class Quota(TypedDict):
    """How much of a resource is used up."""

    stage: str
    resource: str
    limit: float
    used: float
    approximate: bool


@event("work.quota_warning", Delivery.TRY)
class WorkQuotaWarning(Quota, TypedDict):
    """A quota is nearly used up."""


@event("work.quota_exceeded", Delivery.WAIT)
class WorkQuotaExceeded(Quota, TypedDict):
    """A quota is used up."""


@event("work.stage_unresponsive", Delivery.TRY)
class WorkStageUnresponsive(TypedDict):
    """A stage has not reached a checkpoint for too long."""

    stage: str
    seconds: float
    stack: list[str]


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
