"""What a run says about itself: an event for every transition, and log records beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import trio

from actorflow.errors import ActorflowError
from actorflow.events import WideEventEmitter, stage_counts
from actorflow.model import StageStatus
from actorflow.providers import LLMResponse, STTResponse, TTSResponse

from ._run_state import Ending
from ._stage_life import StageState
from ._stage_results import PIPELINE_CANCELED

if TYPE_CHECKING:
    from actorflow.cancellation import CleanupReport
    from actorflow.events import BoundEventSink
    from actorflow.model import StageOutput
    from actorflow.pipeline import StageSpec
    from actorflow.stages import PipelineContext

    from ._results import FailureRecord
    from ._run_state import Cancellation, Settle, StageEnd
    from ._stage_results import StageResults
    from ._streams import StreamEdge

_log: Final = logging.getLogger("actorflow.runtime")

_REPLIES: Final = (LLMResponse, STTResponse, TTSResponse)

STAGE_SKIPPED: Final = "Stage returned skip"


@final
class Lifecycle:
    """Reports on one run; decides nothing."""

    def __init__(
        self,
        context: PipelineContext,
        sink: BoundEventSink,
        run_id: str,
        pipeline_name: str,
        pipeline_wide: WideEventEmitter | None,
    ) -> None:
        self._context = context
        self._sink = sink
        self._pipeline_name = pipeline_name
        self._pipeline_wide = pipeline_wide
        self._begun_at = trio.current_time()
        self._run_id = run_id

    # The run

    async def run_started(self, stage_count: int) -> None:
        context = self._context
        self._record(logging.INFO, "run_started", stage_count=stage_count)
        if self._sink.wants("pipeline.started"):
            data = {
                "pipeline_name": self._pipeline_name,
                "stage_count": stage_count,
                "parent_run_id": _text(context.parent_run_id),
                "correlation_id": _text(context.correlation_id),
                **_trace_of(context),
            }
            await self._sink.emit(type="pipeline.started", data=data)

    async def run_completed(self, results: StageResults) -> None:
        duration_ms = self._duration_ms()
        self._report_wide(Ending.COMPLETED, results, duration_ms)
        if self._sink.wants("pipeline.completed"):
            data = self._summary(results, duration_ms)
            await self._sink.emit(type="pipeline.completed", data=data)
        self._run_ended(Ending.COMPLETED)

    async def run_failed(self, results: StageResults, error: str, cause: BaseException) -> None:
        states, duration_ms = results.states(), self._duration_ms()
        data = {
            **self._summary(results, duration_ms),
            "error": error,
            "error_type": type(cause).__name__,
            "code": _code_of(cause),
            "failed_stages": sorted(n for n, s in states.items() if s is StageState.FAILED),
        }
        self._report_wide(Ending.FAILED, results, duration_ms)
        await self._sink.emit(type="pipeline.failed", data=data)
        self._run_ended(Ending.FAILED)

    async def run_canceled(
        self, results: StageResults, cancellation: Cancellation, cascade_depth: int
    ) -> None:
        completed = list(results.states().values()).count(StageState.COMPLETED)
        duration_ms = self._duration_ms()
        data = {
            "pipeline_name": self._pipeline_name,
            "parent_run_id": _text(self._context.parent_run_id),
            "reason": cancellation.reason,
            "cascade_depth": cascade_depth,
            "stage": cancellation.stage,
            "stages_completed": completed,
            "duration_ms": duration_ms,
        }
        self._report_wide(Ending.CANCELED, results, duration_ms)
        await self._sink.emit(type="pipeline.canceled", data=data)
        self._record(
            logging.INFO,
            "pipeline_cancelled",
            event="pipeline.canceled",
            stage=cancellation.stage,
            reason=cancellation.reason,
            stages_completed=completed,
        )
        self._run_ended(Ending.CANCELED)

    def _summary(self, results: StageResults, duration_ms: float) -> dict[str, Any]:
        return {
            "pipeline_name": self._pipeline_name,
            "duration_ms": duration_ms,
            "stage_counts": stage_counts(results.states().values()),
        }

    def _report_wide(self, ending: Ending, results: StageResults, duration_ms: float) -> None:
        if self._pipeline_wide is not None:
            self._pipeline_wide.emit_pipeline_event(
                ctx=self._context,
                stage_results=results,
                pipeline_name=self._pipeline_name,
                status=str(ending),
                duration_ms=duration_ms,
            )

    def _run_ended(self, ending: Ending) -> None:
        self._record(logging.INFO, "run_completed", status=str(ending))

    def _duration_ms(self) -> float:
        return round((trio.current_time() - self._begun_at) * 1000, 3)

    # Its stages

    def stage_started(self, spec: StageSpec, attempt: int) -> None:
        if self._sink.wants("stage.started"):
            data = {"stage": spec.name, "kind": str(spec.kind), "attempt": attempt}
            self._sink.try_emit(type="stage.started", data=data)
        if _log.isEnabledFor(logging.DEBUG):
            self._record(logging.DEBUG, "stage_started", stage=spec.name, attempt=attempt)

    def stage_settled(self, spec: StageSpec, settle: Settle) -> None:
        """Report the end of an attempt."""
        end, output = settle.end, settle.output
        if end is None:
            self._stage_skipped(spec, output, None)
        elif end.output is None:
            # With an output, the stage will be repeated; otherwise the run is stopped.
            error = output.reason if output else PIPELINE_CANCELED
            self._stage_failed(spec, settle.attempt, end, "cancel", error)
        else:
            self._stage_ended(spec, settle.attempt, end, end.output)

    def _stage_ended(
        self, spec: StageSpec, attempt: int, end: StageEnd, output: StageOutput
    ) -> None:
        match output.status:
            case StageStatus.SKIP:
                self._stage_skipped(spec, output, end.duration_ms)
            case StageStatus.FAIL:
                if not end.was_called:
                    self.stage_started(spec, attempt)
                status = "retry" if end.wanted_retry else "fail"
                self._stage_failed(spec, attempt, end, status, output.error or "", end.failure)
            case status:
                self._stage_completed(spec, attempt, end, status)

    def _stage_completed(
        self, spec: StageSpec, attempt: int, end: StageEnd, status: StageStatus
    ) -> None:
        if self._sink.wants("stage.completed"):
            data = _about_call(spec, attempt, end, str(status))
            self._sink.try_emit(type="stage.completed", data=data)
        if _log.isEnabledFor(logging.DEBUG):
            self._record(logging.DEBUG, "stage_completed", stage=spec.name, status=str(status))

    def _stage_failed(
        self,
        spec: StageSpec,
        attempt: int,
        end: StageEnd,
        status: str,
        error: str,
        failure: FailureRecord | None = None,
    ) -> None:
        cause = None if failure is None else failure.exception
        if self._sink.wants("stage.failed"):
            data = {
                **_about_call(spec, attempt, end, status),
                "error": error,
                "error_type": None if end.output is None else end.output.error_type,
                "code": _code_of(cause),
            }
            self._sink.try_emit(type="stage.failed", data=data)
        self._record(logging.INFO, "stage_failed", stage=spec.name, status=status, error=error)

    def _stage_skipped(
        self, spec: StageSpec, output: StageOutput | None, duration_ms: float | None
    ) -> None:
        reason = (output and output.reason) or STAGE_SKIPPED
        if self._sink.wants("stage.skipped"):
            data = {
                "stage": spec.name,
                "kind": str(spec.kind),
                "reason": reason,
                "duration_ms": duration_ms,
            }
            self._sink.try_emit(type="stage.skipped", data=data)
        self._record(logging.DEBUG, "stage_skipped", stage=spec.name, reason=reason)

    def stages_do_not_respond(self, stages: list[str], seconds: float) -> None:
        for stage in stages:
            self._record(logging.WARNING, "stage_not_responding", stage=stage, seconds=seconds)

    # What happens beside them

    def guard_retry(self, type: str, data: Mapping[str, Any]) -> None:
        self._sink.try_emit(type=type, data=data)

    def stream_closed(self, edge: StreamEdge) -> None:
        data = {"stage": edge.source, **edge.statistics()}
        self._sink.try_emit(type="stream.queue_closed", data=data)

    def cleaned_up(self, report: CleanupReport) -> None:
        failed = {name: repr(error) for name, error in report.failed}
        level = logging.WARNING if failed else logging.DEBUG
        self._record(level, "cleanup_completed", completed=report.completed, failed=failed)

    def _record(self, level: int, message: str, **about: object) -> None:
        if _log.isEnabledFor(level):
            ids = {"pipeline_run_id": self._run_id, "pipeline_name": self._pipeline_name}
            _log.log(level, message, extra={**ids, **about})


def _about_call(spec: StageSpec, attempt: int, end: StageEnd, status: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "stage": spec.name,
        "kind": str(spec.kind),
        "attempt": attempt,
        "status": status,
        "tries": end.tries,
        "duration_ms": end.duration_ms,
    }
    if end.output is not None:
        for value in end.output.data.values():
            if isinstance(value, _REPLIES):
                about["telemetry"] = about.get("telemetry", {}) | value.to_otel_attributes()
    return about


def _trace_of(context: PipelineContext) -> dict[str, str]:
    """The W3C trace that the run is part of, if whoever started it said so."""
    found = {key: context.metadata.get(key) for key in ("traceparent", "tracestate")}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _code_of(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, ActorflowError) else None
