"""One event that says everything: about a stage, or about a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, cast, final

from actorflow import clock

from ._log_failure import log_failure
from ._payloads import PipelineWide, StageSummary, StageWide, WideContext


class StageRecord(Protocol):
    """What is known of a stage that ended: a stage result, by its attributes."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime: ...
    @property
    def duration_ms(self) -> float: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def error(self) -> object: ...


def stage_counts(statuses: Iterable[str]) -> dict[str, int]:
    """Count stages per status, in alphabetical order and without zeros."""
    return dict(sorted(Counter(map(str, statuses)).items()))


@final
class WideEventEmitter:
    """Builds wide events and emits them through the context they are about."""

    def __init__(
        self,
        stage_event_type: str = "stage.wide",
        pipeline_event_type: str = "pipeline.wide",
    ) -> None:
        self._stage_event_type = stage_event_type
        self._pipeline_event_type = pipeline_event_type

    def emit_stage_event(
        self, *, ctx: object, result: StageRecord, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Emit what is known about one stage that ended."""
        payload = self.build_stage_payload(ctx=ctx, result=result, extra=extra)
        _emit(ctx, self._stage_event_type, payload)

    def emit_pipeline_event(
        self,
        *,
        ctx: object,
        stage_results: Mapping[str, StageRecord],
        pipeline_name: str | None = None,
        status: str | None = None,
        duration_ms: float | None = None,
        started_at: datetime | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Emit what is known about a run and all stages that ended in it."""
        payload = self.build_pipeline_payload(
            ctx=ctx,
            stage_results=stage_results,
            pipeline_name=pipeline_name,
            status=status,
            duration_ms=duration_ms,
            started_at=started_at,
            extra=extra,
        )
        _emit(ctx, self._pipeline_event_type, payload)

    @staticmethod
    def build_stage_payload(
        *, ctx: object, result: StageRecord, extra: Mapping[str, Any] | None = None
    ) -> StageWide:
        """Return the payload of `stage.wide`."""
        payload = cast("StageWide", {**_context(ctx), **_summary(result)})
        if extra:
            payload["extra"] = dict(extra)
        return payload

    @staticmethod
    def build_pipeline_payload(
        *,
        ctx: object,
        stage_results: Mapping[str, StageRecord],
        pipeline_name: str | None = None,
        status: str | None = None,
        duration_ms: float | None = None,
        started_at: datetime | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> PipelineWide:
        """Return the payload of `pipeline.wide`.

        What is not given is taken from the context and the results: the name
        from the topology, the status from the stages, the duration from
        `started_at`.
        """
        counts = stage_counts(result.status for result in stage_results.values())
        if duration_ms is None and started_at is not None:
            duration_ms = (clock.now() - started_at).total_seconds() * 1000
        # Sorting is stable: stages that ended together stay as they were declared.
        ended = sorted(stage_results.values(), key=lambda result: result.ended_at)
        context = _context(ctx)
        own = {
            "pipeline_name": pipeline_name or context["topology"] or "pipeline",
            "status": status or ("failed" if "failed" in counts else "completed"),
            "duration_ms": None if duration_ms is None else round(duration_ms, 3),
            "stage_counts": counts,
            "stage_details": [_summary(result) for result in ended],
        }
        payload = cast("PipelineWide", {**context, **own})
        if extra:
            payload["extra"] = dict(extra)
        return payload


def emit_stage_wide_event(
    *,
    ctx: object,
    result: StageRecord,
    extra: Mapping[str, Any] | None = None,
    emitter: WideEventEmitter | None = None,
) -> None:
    """Emit `stage.wide`, or what `emitter` makes of it."""
    (emitter or WideEventEmitter()).emit_stage_event(ctx=ctx, result=result, extra=extra)


def emit_pipeline_wide_event(
    *,
    ctx: object,
    stage_results: Mapping[str, StageRecord],
    emitter: WideEventEmitter | None = None,
    pipeline_name: str | None = None,
    status: str | None = None,
    duration_ms: float | None = None,
    started_at: datetime | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Emit `pipeline.wide`, or what `emitter` makes of it."""
    (emitter or WideEventEmitter()).emit_pipeline_event(
        ctx=ctx,
        stage_results=stage_results,
        pipeline_name=pipeline_name,
        status=status,
        duration_ms=duration_ms,
        started_at=started_at,
        extra=extra,
    )


def _emit(ctx: Any, type: str, payload: Mapping[str, Any]) -> None:
    sink = getattr(ctx, "event_sink", None)
    try:
        if sink is not None:
            sink.try_emit(type=type, data=payload)
        else:
            ctx.try_emit_event(type, payload)
    except Exception as error:  # noqa: BLE001 - sinks are user code
        log_failure(type, error)


def _context(ctx: object) -> WideContext:
    return {
        "pipeline_run_id": _text(ctx, "pipeline_run_id"),
        "request_id": _text(ctx, "request_id"),
        "session_id": _text(ctx, "session_id"),
        "user_id": _text(ctx, "user_id"),
        "org_id": _text(ctx, "org_id"),
        "topology": _text(ctx, "topology"),
        "execution_mode": _text(ctx, "execution_mode"),
        "service": _text(ctx, "service"),
    }


def _text(ctx: object, name: str) -> str | None:
    value = getattr(ctx, name, None)
    return None if value is None else str(value)


def _summary(result: StageRecord) -> StageSummary:
    return {
        "stage": result.name,
        # Results know more statuses than those a stage can end with.
        "status": str(result.status),  # type: ignore[typeddict-item]
        "started_at": result.started_at.isoformat(),
        "ended_at": result.ended_at.isoformat(),
        "duration_ms": round(result.duration_ms, 3),
        "error": None if result.error is None else str(result.error),
        "data_keys": sorted(map(str, result.data)),
    }
