"""Runs, stages and the retries of both."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from .._spec import Delivery, Millis, event

_ABOUT_REPLIES: Final = "`to_otel_attributes()` of the LLM, STT and TTS responses in the output"


class WideContext(TypedDict):
    """What a wide event says about the run; null where the context does not know."""

    pipeline_run_id: str | None
    request_id: str | None
    session_id: str | None
    user_id: str | None
    org_id: str | None
    topology: str | None
    execution_mode: str | None
    service: str | None


class StageSummary(TypedDict):
    """What a wide event says about one stage."""

    stage: str
    status: Literal["completed", "skipped", "canceled", "failed"]
    started_at: str
    ended_at: str
    duration_ms: Millis
    error: str | None
    data_keys: Annotated[list[str], "sorted"]


@event("pipeline.started", Delivery.WAIT)
class PipelineStarted(TypedDict):
    """The run was accepted; no stage has started."""

    pipeline_name: str
    stage_count: int
    parent_run_id: str | None
    correlation_id: str | None
    traceparent: NotRequired[Annotated[str, "W3C trace in the metadata of the run"]]
    tracestate: NotRequired[str]


@event("pipeline.completed", Delivery.WAIT)
class PipelineCompleted(TypedDict):
    """All stages ended, none failed, and nobody cancelled."""

    pipeline_name: str
    duration_ms: Millis
    stage_counts: Annotated[dict[str, int], "stages per ending, zeros left out"]


@event("pipeline.failed", Delivery.WAIT)
class PipelineFailed(TypedDict):
    """The run ended by a failure."""

    pipeline_name: str
    duration_ms: Millis
    stage_counts: Annotated[dict[str, int], "stages per ending, zeros left out"]
    error: str
    error_type: str
    code: str | None
    failed_stages: Annotated[list[str], "sorted"]


@event("pipeline.canceled", Delivery.WAIT)
class PipelineCanceled(TypedDict):
    """The run was cancelled; in a cascade children come first and the root last."""

    pipeline_name: str | None
    parent_run_id: str | None
    reason: str
    cascade_depth: Annotated[int, "0 where the cancel began"]
    stage: Annotated[str | None, "the stage that returned CANCEL"]
    stages_completed: int
    duration_ms: Millis


@event("pipeline.spawned_child", Delivery.WAIT)
class PipelineSpawnedChild(TypedDict):
    """A child run was registered; its own `pipeline.started` follows."""

    parent_run_id: str
    child_run_id: str
    parent_stage_id: str
    pipeline_name: str
    correlation_id: str | None


@event("pipeline.child_completed", Delivery.WAIT)
class PipelineChildCompleted(TypedDict):
    """A child run ended well."""

    parent_run_id: str
    child_run_id: str
    pipeline_name: str
    duration_ms: Millis


@event("pipeline.child_failed", Delivery.WAIT)
class PipelineChildFailed(TypedDict):
    """A child run failed."""

    parent_run_id: str
    child_run_id: str
    pipeline_name: str
    error_message: str
    duration_ms: Millis


@event("pipeline.wide", Delivery.TRY)
class PipelineWide(WideContext, TypedDict):
    """Just before the terminal event of a run, where switched on: the whole run in one."""

    pipeline_name: str
    status: str
    duration_ms: Millis | None
    stage_counts: dict[str, int]
    stage_details: Annotated[list[StageSummary], "in the order the stages ended"]
    extra: NotRequired[dict[str, Any]]


@event("stage.started", Delivery.TRY)
class StageStarted(TypedDict):
    """The stage is about to be called for the first time in this attempt."""

    stage: str
    kind: str | None
    attempt: Annotated[int, "1, and one more per rerun a guard asked for"]


@event("stage.completed", Delivery.TRY)
class StageCompleted(TypedDict):
    """The stage returned OK, or CANCEL."""

    stage: str
    kind: str | None
    attempt: int
    status: Literal["ok", "cancel"]
    tries: Annotated[int, "calls within this attempt"]
    duration_ms: Millis
    telemetry: NotRequired[Annotated[dict[str, Any], _ABOUT_REPLIES]]


@event("stage.failed", Delivery.TRY)
class StageFailed(TypedDict):
    """The stage failed, raised, timed out, used up its retries or was interrupted."""

    stage: str
    kind: str | None
    attempt: int
    status: Annotated[Literal["fail", "retry", "cancel"], "`retry`: used up; `cancel`: interrupted"]
    tries: Annotated[int, "calls within this attempt"]
    duration_ms: Millis
    error: str
    error_type: str | None
    code: str | None
    telemetry: NotRequired[Annotated[dict[str, Any], _ABOUT_REPLIES]]


@event("stage.skipped", Delivery.TRY)
class StageSkipped(TypedDict):
    """The stage returned SKIP, or was not called because of a condition or of others."""

    stage: str
    kind: str | None
    reason: str
    duration_ms: Annotated[Millis | None, "null when it was never called"]


@event("stage.retry_scheduled", Delivery.TRY)
class StageRetryScheduled(TypedDict):
    """A try failed and another one follows after the delay."""

    stage: str
    attempt: Annotated[int, "number of the try that failed, from 1"]
    delay_ms: int
    error: str
    backoff_strategy: str


@event("stage.retry_exhausted", Delivery.TRY)
class StageRetryExhausted(TypedDict):
    """A try failed and no other follows."""

    stage: str
    attempts: int
    error: str


@event("stage.wide", Delivery.TRY)
class StageWide(WideContext, StageSummary, TypedDict):
    """Right after the end event of a stage, where switched on: everything about it in one."""

    extra: NotRequired[dict[str, Any]]


@event("guard_retry.attempt", Delivery.TRY)
class GuardRetryAttempt(TypedDict):
    """A guard with a retry policy failed."""

    guard: str
    attempt: int
    retry_stage: str
    max_attempts: int
    stagnation_hits: int
    timeout_seconds: float | None


@event("guard_retry.scheduled", Delivery.TRY)
class GuardRetryScheduled(TypedDict):
    """The stage that can do better is scheduled again."""

    guard: str
    attempt: int
    retry_stage: str
    stagnation_hits: int
    timeout_seconds: float | None


@event("guard_retry.exhausted", Delivery.TRY)
class GuardRetryExhausted(TypedDict):
    """A guard failed and no further attempt is made."""

    guard: str
    attempts: int
    stagnation_hits: int
    retry_stage: str
    timeout_seconds: float | None
    reason: Annotated[Literal["timeout", "stagnation", "max_attempts"], "the first that applies"]


@event("guard_retry.recovered", Delivery.TRY)
class GuardRetryRecovered(TypedDict):
    """A guard passed after it had failed at least once."""

    guard: str
    attempts: int


@event("context.size_warning", Delivery.TRY)
class ContextSizeWarning(TypedDict):
    """A context was larger than the limit before a stage."""

    stage: str
    size_bytes: int
    limit_bytes: int


@event("context.growth_warning", Delivery.TRY)
class ContextGrowthWarning(TypedDict):
    """A stage made the context grow beyond the limit."""

    stage: str
    size_bytes: int
    growth_bytes: int
    limit_bytes: int


@event("context.mutation_detected", Delivery.TRY)
class ContextMutationDetected(TypedDict):
    """A stage changed the snapshot it was given."""

    stage: str
    paths: list[str]
