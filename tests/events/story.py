"""The events of one eventful run: what a picture of it should be able to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from trio.testing import MockClock

from actorflow import clock
from actorflow.events import AnalyticsEvent, BoundEventSink
from actorflow.testing import RecordingEventSink

RUN = "0197a000-0000-7000-8000-000000000001"
NEW_YEAR = 1_767_225_600.0
CHILD = "0197a000-0000-7000-8000-000000000002"


def story() -> list[AnalyticsEvent]:
    """A voice turn: retries, a guard's rerun, a tool with approval, a child run, a cancel."""
    recorded = RecordingEventSink(strict=True)
    run = BoundEventSink(recorded, pipeline_run_id=RUN)
    with clock.starting_at(NEW_YEAR):
        trio.run(_play, run, recorded, clock=MockClock(autojump_threshold=0))
    return [AnalyticsEvent.from_payload(it.type, it.data) for it in recorded.events]


async def _play(run: BoundEventSink, recorded: RecordingEventSink) -> None:
    async def stage(
        name: str, seconds: float, status: str = "ok", attempt: int = 1, **more: Any
    ) -> None:
        started(run, name, attempt)
        await trio.sleep(seconds)
        ended(run, name, status, attempt, seconds, **more)

    run.try_emit(
        type="pipeline.started",
        data={
            "pipeline_name": "voice-turn",
            "stage_count": 8,
            "parent_run_id": None,
            "correlation_id": None,
        },
    )
    await stage("vad", 0.18)
    await stage("transcribe", 0.62)
    run.try_emit(
        type="stage.skipped",
        data={
            "stage": "translate",
            "kind": "transform",
            "reason": "same language",
            "duration_ms": None,
        },
    )
    # What begins at one moment is told here: tasks of one moment run in any order.
    started(run, "input-guard", 1)
    started(run, "remember", 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_remember, run)
        await trio.sleep(0.25)
        ended(run, "input-guard", "ok", 1, 0.25)
    await _answer(run)
    await stage("output-guard", 0.2, "fail", error="unkind wording")
    started(run, "answer", 2)
    await trio.sleep(0.5)
    ended(run, "answer", "ok", 2, 0.5)
    await stage("output-guard", 0.15, attempt=2)
    child = BoundEventSink(recorded, pipeline_run_id=CHILD)
    started(run, "speak", 1)
    _spawn(run, child)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_research, run, child)
        await trio.sleep(1.1)
    ended(run, "speak", "cancel", 1, 1.1, error="Pipeline canceled")
    run.try_emit(
        type="pipeline.canceled",
        data={
            "pipeline_name": "voice-turn",
            "parent_run_id": None,
            "reason": "barge_in",
            "cascade_depth": 0,
            "stage": None,
            "stages_completed": 6,
            "duration_ms": 1.0,
        },
    )


def started(sink: BoundEventSink, name: str, attempt: int) -> None:
    sink.try_emit(type="stage.started", data={"stage": name, "kind": None, "attempt": attempt})


def ended(
    sink: BoundEventSink,
    name: str,
    status: str,
    attempt: int,
    seconds: float,
    *,
    tries: int = 1,
    error: str | None = None,
) -> None:
    data: dict[str, Any] = {
        "stage": name,
        "kind": None,
        "attempt": attempt,
        "status": status,
        "tries": tries,
        "duration_ms": round(seconds * 1000, 3),
    }
    if error is None:
        sink.try_emit(type="stage.completed", data=data)
    else:
        failure: Mapping[str, Any] = {"error": error, "error_type": None, "code": None}
        sink.try_emit(type="stage.failed", data={**data, **failure})


async def _remember(run: BoundEventSink) -> None:
    for attempt, seconds, delay_ms in ((1, 0.12, 100), (2, 0.1, 200)):
        await trio.sleep(seconds)
        run.try_emit(
            type="stage.retry_scheduled",
            data={
                "stage": "remember",
                "attempt": attempt,
                "delay_ms": delay_ms,
                "error": "connection reset",
                "backoff_strategy": "exponential",
            },
        )
        await trio.sleep(delay_ms / 1000)
    await trio.sleep(0.14)
    ended(run, "remember", "ok", 1, 0.66, tries=3)


async def _answer(run: BoundEventSink) -> None:
    sink = run.for_stage("answer")
    started(run, "answer", 1)
    await trio.sleep(0.3)
    call = {"tool_name": "calendar", "action_id": "a-1", "action_type": "book"}
    approval = {**call, "approval_id": "p-1"}
    sink.try_emit(
        type="approval.requested",
        data={
            **approval,
            "approval_message": "book it?",
            "payload_summary": {},
            "expires_at": None,
        },
    )
    await trio.sleep(0.45)
    sink.try_emit(
        type="approval.decided",
        data={**approval, "decision": "granted", "decided_by": "user", "reason": None},
    )
    sink.try_emit(type="tool.started", data={**call, "timeout_seconds": None, "sandboxed": False})
    await trio.sleep(0.2)
    sink.try_emit(
        type="tool.completed",
        data={
            **call,
            "duration_ms": 200.0,
            "output_summary": dict.fromkeys(
                ("success", "has_data", "has_error", "has_artifacts", "has_undo_metadata"), True
            ),
            "artifacts_count": 0,
            "undo_available": True,
            "replayed": False,
        },
    )
    await trio.sleep(0.15)
    ended(run, "answer", "ok", 1, 1.1)


def _spawn(run: BoundEventSink, child: BoundEventSink) -> None:
    started(run, "research", 1)
    run.try_emit(
        type="pipeline.spawned_child",
        data={
            "parent_run_id": RUN,
            "child_run_id": CHILD,
            "parent_stage_id": "research",
            "pipeline_name": "web-search",
            "correlation_id": None,
        },
    )
    child.try_emit(
        type="pipeline.started",
        data={
            "pipeline_name": "web-search",
            "stage_count": 2,
            "parent_run_id": RUN,
            "correlation_id": None,
        },
    )
    started(child, "query", 1)


async def _research(run: BoundEventSink, child: BoundEventSink) -> None:
    await trio.sleep(0.3)
    ended(child, "query", "ok", 1, 0.3)
    started(child, "fetch", 1)
    await trio.sleep(0.4)
    ended(child, "fetch", "fail", 1, 0.4, error="HTTP 503 from example.org")
    failed = {"stage_counts": {"completed": 1, "failed": 1}, "error": "HTTP 503", "error_type": "X"}
    child.try_emit(
        type="pipeline.failed",
        data={
            "pipeline_name": "web-search",
            "duration_ms": 700.0,
            "code": None,
            "failed_stages": ["fetch"],
            **failed,
        },
    )
    run.try_emit(
        type="pipeline.child_failed",
        data={
            "parent_run_id": RUN,
            "child_run_id": CHILD,
            "pipeline_name": "web-search",
            "error_message": "HTTP 503",
            "duration_ms": 700.0,
        },
    )
    ended(run, "research", "ok", 1, 0.7)
