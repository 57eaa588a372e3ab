"""Reports: what happened, in order, for whoever wants to know."""

from __future__ import annotations

from ._analytics import AnalyticsEvent as AnalyticsEvent, AnalyticsExporter as AnalyticsExporter
from ._analytics_sink import AnalyticsSink as AnalyticsSink
from ._backlog import wait_for_event_sink_tasks as wait_for_event_sink_tasks
from ._backpressure import (
    BackpressureAwareEventSink as BackpressureAwareEventSink,
    DrainReport as DrainReport,
    SinkStatistics as SinkStatistics,
)
from ._bound import (
    BoundEventSink as BoundEventSink,
    EventCounter as EventCounter,
    bound_sink as bound_sink,
    report as report,
)
from ._buffered import BufferedExporter as BufferedExporter
from ._catalogue import CATALOGUE as CATALOGUE
from ._current import (
    clear_event_sink as clear_event_sink,
    current_event_sink as current_event_sink,
    emit_event as emit_event,
    event_sink_scope as event_sink_scope,
    get_event_sink as get_event_sink,
    set_event_sink as set_event_sink,
)
from ._event_lines import (
    EventLines as EventLines,
    read_events as read_events,
    to_lines as to_lines,
)
from ._exporters import (
    CompositeExporter as CompositeExporter,
    ConsoleExporter as ConsoleExporter,
    JSONFileExporter as JSONFileExporter,
    format_event as format_event,
)
from ._fan_out import FilterEventSink as FilterEventSink, TeeEventSink as TeeEventSink
from ._log_output import JsonLogFormatter as JsonLogFormatter, setup_logging as setup_logging
from ._logging_sink import LoggingEventSink as LoggingEventSink
from ._metrics import BackpressureMetrics as BackpressureMetrics
from ._observable import ObservableEventSink as ObservableEventSink
from ._payloads import (
    ContextGrowthWarning as ContextGrowthWarning,
    ContextMutationDetected as ContextMutationDetected,
    ContextSizeWarning as ContextSizeWarning,
    GuardRetryAttempt as GuardRetryAttempt,
    GuardRetryExhausted as GuardRetryExhausted,
    GuardRetryRecovered as GuardRetryRecovered,
    GuardRetryScheduled as GuardRetryScheduled,
    MemoryGrowthWarning as MemoryGrowthWarning,
    MemorySample as MemorySample,
    PipelineCanceled as PipelineCanceled,
    PipelineChildCompleted as PipelineChildCompleted,
    PipelineChildFailed as PipelineChildFailed,
    PipelineCompleted as PipelineCompleted,
    PipelineFailed as PipelineFailed,
    PipelineSpawnedChild as PipelineSpawnedChild,
    PipelineStarted as PipelineStarted,
    PipelineWide as PipelineWide,
    SessionClosed as SessionClosed,
    SessionDetached as SessionDetached,
    SessionHearingRestarted as SessionHearingRestarted,
    SessionInterrupted as SessionInterrupted,
    SessionOpened as SessionOpened,
    SessionOverloaded as SessionOverloaded,
    SessionRejected as SessionRejected,
    SessionResumed as SessionResumed,
    SessionSpeechEnded as SessionSpeechEnded,
    SessionSpeechStarted as SessionSpeechStarted,
    StageCompleted as StageCompleted,
    StageFailed as StageFailed,
    StageRetryExhausted as StageRetryExhausted,
    StageRetryScheduled as StageRetryScheduled,
    StageSkipped as StageSkipped,
    StageStarted as StageStarted,
    StageSummary as StageSummary,
    StageWide as StageWide,
    StreamBufferOverflow as StreamBufferOverflow,
    StreamBufferRecovered as StreamBufferRecovered,
    StreamBufferUnderrun as StreamBufferUnderrun,
    StreamChunkDropped as StreamChunkDropped,
    StreamProducerBlocked as StreamProducerBlocked,
    StreamQueueClosed as StreamQueueClosed,
    StreamThrottleEnded as StreamThrottleEnded,
    StreamThrottleStarted as StreamThrottleStarted,
    UuidClockSkew as UuidClockSkew,
    UuidCollision as UuidCollision,
    WorkCircuitClosed as WorkCircuitClosed,
    WorkCircuitHalfOpen as WorkCircuitHalfOpen,
    WorkCircuitOpened as WorkCircuitOpened,
    WorkCircuitRejected as WorkCircuitRejected,
    WorkIdempotencyConflict as WorkIdempotencyConflict,
    WorkIdempotencyHit as WorkIdempotencyHit,
    WorkInDoubt as WorkInDoubt,
    WorkLeaseLost as WorkLeaseLost,
    WorkRetryAttempt as WorkRetryAttempt,
)
from ._sink import (
    AmbientSink as AmbientSink,
    ClosableSink as ClosableSink,
    EnterStage as EnterStage,
    EventSink as EventSink,
    FlushableSink as FlushableSink,
    NoOpEventSink as NoOpEventSink,
    OfferableSink as OfferableSink,
    SelectiveSink as SelectiveSink,
    checked_sink as checked_sink,
)
from ._spec import (
    Delivery as Delivery,
    EventSpec as EventSpec,
    PayloadKey as PayloadKey,
    payload_keys as payload_keys,
)
from ._structlog_sink import StructlogEventSink as StructlogEventSink
from ._timeline import (
    Timeline as Timeline,
    timeline_of as timeline_of,
    timeline_svg as timeline_svg,
    timeline_text as timeline_text,
)
from ._validation import validate_event as validate_event
from ._wide import (
    StageRecord as StageRecord,
    WideEventEmitter as WideEventEmitter,
    emit_pipeline_wide_event as emit_pipeline_wide_event,
    emit_stage_wide_event as emit_stage_wide_event,
    stage_counts as stage_counts,
)
