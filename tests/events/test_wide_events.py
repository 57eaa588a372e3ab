from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from trio.testing import MockClock

from actorflow import clock
from actorflow.events import (
    BoundEventSink,
    EventSink,
    WideEventEmitter,
    emit_pipeline_wide_event,
    emit_stage_wide_event,
    stage_counts,
    validate_event,
)
from actorflow.testing import RecordingEventSink

RUN = UUID("0197a000-0000-7000-8000-000000000001")
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@attrs.frozen
class Result:
    name: str
    status: str = "completed"
    seconds: float = 1.0
    began: float = 0.0
    data: Mapping[str, Any] = {}
    error: object = None

    @property
    def started_at(self) -> datetime:
        return START + timedelta(seconds=self.began)

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.seconds)

    @property
    def duration_ms(self) -> float:
        return self.seconds * 1000


@attrs.define
class Context:
    event_sink: EventSink | None = None
    pipeline_run_id: UUID | None = RUN
    topology: str | None = "chat_fast"
    reported: list[tuple[str, Any]] = attrs.field(factory=list)

    def try_emit_event(self, type: str, data: Any) -> None:
        self.reported.append((type, data))


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    async def emit(self, **_: Any) -> None: ...

    def try_emit(self, **_: Any) -> None:
        self.calls += 1
        raise OSError("disk full")


def by_name(*results: Result) -> dict[str, Result]:
    return {result.name: result for result in results}


@pytest.mark.spec("E77", "E76")
def test_stage_event_says_everything_about_the_stage() -> None:
    recorded = RecordingEventSink(strict=True)
    result = Result("llm", "failed", 0.0123456, data={"b": 1, "a": 2}, error=ValueError("no"))

    emit_stage_wide_event(ctx=Context(recorded), result=result)

    assert recorded.payloads("stage.wide") == [
        {
            "pipeline_run_id": str(RUN),
            "request_id": None,
            "session_id": None,
            "user_id": None,
            "org_id": None,
            "topology": "chat_fast",
            "execution_mode": None,
            "service": None,
            "stage": "llm",
            "status": "failed",
            "started_at": "2026-01-01T00:00:00+00:00",
            "ended_at": "2026-01-01T00:00:00.012346+00:00",
            "duration_ms": 12.346,
            "error": "no",
            "data_keys": ["a", "b"],
        }
    ]


@pytest.mark.spec("E78", "E81", "E82", "E83")
def test_pipeline_event_lists_stages_in_the_order_they_ended() -> None:
    recorded = RecordingEventSink(strict=True)
    results = by_name(
        Result("late", "canceled", 3),
        Result("tied", "completed", 2),
        Result("early", "skipped", 1),
        Result("also tied", "failed", 1, began=1),
    )

    emit_pipeline_wide_event(ctx=Context(recorded), stage_results=results, duration_ms=3)

    payload = recorded.assert_emitted("pipeline.wide", pipeline_name="chat_fast", duration_ms=3)
    assert set(payload) == {
        *("pipeline_run_id", "request_id", "session_id", "user_id", "org_id"),
        *("topology", "execution_mode", "service"),
        *("pipeline_name", "status", "duration_ms", "stage_counts", "stage_details"),
    }
    assert [each["stage"] for each in payload["stage_details"]] == [
        "early",
        "tied",
        "also tied",
        "late",
    ]
    assert [each["status"] for each in payload["stage_details"]] == [
        "skipped",
        "completed",
        "failed",
        "canceled",
    ]
    assert set(payload["stage_details"][0]) == {
        *("stage", "status", "started_at", "ended_at", "duration_ms", "error", "data_keys")
    }
    assert payload["stage_counts"] == {"canceled": 1, "completed": 1, "failed": 1, "skipped": 1}


@pytest.mark.spec("E79")
@pytest.mark.parametrize(
    ("given", "topology", "name"),
    [("mine", "chat", "mine"), (None, "chat", "chat"), (None, None, "pipeline")],
)
def test_name_of_the_pipeline_is_the_best_known(
    given: str | None, topology: str | None, name: str
) -> None:
    payload = WideEventEmitter.build_pipeline_payload(
        ctx=Context(topology=topology), stage_results={}, pipeline_name=given
    )

    assert payload["pipeline_name"] == name


@pytest.mark.spec("E79")
@pytest.mark.parametrize(
    ("given", "statuses", "status"),
    [
        (None, ["completed", "skipped"], "completed"),
        (None, ["completed", "failed"], "failed"),
        ("canceled", ["failed"], "canceled"),
        (None, [], "completed"),
    ],
)
def test_status_of_the_pipeline_follows_from_its_stages(
    given: str | None, statuses: list[str], status: str
) -> None:
    payload = WideEventEmitter.build_pipeline_payload(
        ctx=Context(),
        stage_results=by_name(*(Result(str(n), each) for n, each in enumerate(statuses))),
        status=given,
    )

    assert payload["status"] == status


@pytest.mark.spec("E80")
async def test_duration_is_measured_when_it_is_not_given(autojump_clock: MockClock) -> None:
    started_at = clock.now()
    await trio.sleep(1.5)

    build = WideEventEmitter.build_pipeline_payload
    measured = build(ctx=Context(), stage_results={}, started_at=started_at)
    given = build(ctx=Context(), stage_results={}, started_at=started_at, duration_ms=7.12345)
    unknown = build(ctx=Context(), stage_results={})

    assert measured["duration_ms"] == 1500.0
    assert given["duration_ms"] == 7.123
    assert unknown["duration_ms"] is None


@pytest.mark.spec("E76")
def test_failing_sink_is_called_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()

    emit_stage_wide_event(ctx=Context(broken), result=Result("a"))
    emit_pipeline_wide_event(ctx=Context(broken), stage_results={})

    assert broken.calls == 2
    assert [record.message for record in caplog.records] == ["event_emit_failed"] * 2


@pytest.mark.spec("E76")
def test_context_without_a_sink_reports_itself() -> None:
    context = Context(event_sink=None)

    emit_stage_wide_event(ctx=context, result=Result("a"))

    ((type, data),) = context.reported
    assert type == "stage.wide"
    assert data["stage"] == "a"


@pytest.mark.spec("E77", "E86")
def test_extra_is_copied_and_overwrites_nothing() -> None:
    recorded = RecordingEventSink(strict=True)
    extra = {"stage": "mine", "status": "fine"}

    emit_stage_wide_event(ctx=Context(recorded), result=Result("a"), extra=extra)
    emit_pipeline_wide_event(ctx=Context(recorded), stage_results={}, extra=extra)
    emit_stage_wide_event(ctx=Context(recorded), result=Result("b"), extra={})
    extra["stage"] = "changed"

    assert recorded.assert_emitted("stage.wide", stage="a")["extra"]["stage"] == "mine"
    assert recorded.assert_emitted("pipeline.wide", status="completed")["extra"]["stage"] == "mine"
    assert "extra" not in recorded.assert_emitted("stage.wide", stage="b")


def test_emitter_of_ones_own_names_the_events() -> None:
    recorded = RecordingEventSink()
    emitter = WideEventEmitter("my.stage", "my.pipeline")

    emit_stage_wide_event(ctx=Context(recorded), result=Result("a"), emitter=emitter)
    emit_pipeline_wide_event(ctx=Context(recorded), stage_results={}, emitter=emitter)

    assert recorded.types() == ["my.stage", "my.pipeline"]


def test_wide_event_through_the_sink_of_a_run_is_as_the_catalogue_says() -> None:
    recorded = RecordingEventSink(strict=True)
    sink = BoundEventSink(recorded, pipeline_run_id=RUN, topology="chat")

    emit_stage_wide_event(ctx=Context(sink), result=Result("a"))

    assert not validate_event("stage.wide", recorded.assert_emitted("stage.wide", seq=1))


@pytest.mark.spec("E72")
def test_counts_are_sorted_and_without_zeros() -> None:
    assert list(stage_counts(["skipped", "completed", "skipped"]).items()) == [
        ("completed", 1),
        ("skipped", 2),
    ]
