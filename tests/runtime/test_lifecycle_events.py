"""What a run reports, when and in which order (30.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import WideEventEmitter, event_sink_scope, get_event_sink
from actorflow.model import StageArtifact, StageEvent, StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import Fails, Hangs, RecordingEventSink, faulty

from .stages import forever, nothing, spec

RUN = "12345678-1234-5678-1234-567812345678"
COMMON = ("pipeline_run_id", "request_id", "execution_mode", "seq", "timestamp", "topology")


def told(sink: RecordingEventSink) -> list[str]:
    """Type and stage of each event, in order."""
    return [" ".join(filter(None, (e.type, e.data.get("stage")))) for e in sink.events]


def own(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload without what every event carries."""
    return {key: value for key, value in payload.items() if key not in COMMON}


@pytest.mark.spec("30.3.1", "30.3.2", "30.3.3", "E12", "E13", "E69")
async def test_run_tells_every_transition_once_and_in_order(sink: RecordingEventSink) -> None:
    async def noisy(ctx: StageContext) -> StageOutput:
        ctx.try_emit_event("app.thought", {"about": "x"})
        await trio.lowlevel.checkpoint()
        return StageOutput.ok(events=[StageEvent("app.found", {"n": 1})])

    context = PipelineContext()
    graph = UnifiedStageGraph([spec("a", noisy), spec("b", nothing, "a")])

    await graph.run(context, event_sink=sink)

    assert told(sink) == [
        "pipeline.started",
        "stage.started a",
        "app.thought a",
        "app.found a",
        "stage.completed a",
        "stage.started b",
        "stage.completed b",
        "pipeline.completed",
    ]
    assert [event.data["seq"] for event in sink.events] == list(range(1, 9))
    assert {event.data["pipeline_run_id"] for event in sink.events} == {
        str(context.pipeline_run_id)
    }


async def _retry(ctx: StageContext) -> StageOutput:
    return StageOutput.retry("busy")


async def _raise(ctx: StageContext) -> None:
    raise LookupError("no such key")


async def _fail(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("rude")


async def _skip(ctx: StageContext) -> StageOutput:
    return StageOutput.skip()


async def _cancel(ctx: StageContext) -> StageOutput:
    return StageOutput.cancel("enough")


ABOUT = {"stage": "a", "kind": "transform", "attempt": 1, "tries": 1, "duration_ms": 0.0}


@pytest.mark.spec("30.3.2", "30.3.4", "30.3.5", "E69")
@pytest.mark.parametrize(
    ("runner", "type_", "payload"),
    [
        (nothing, "stage.completed", {**ABOUT, "status": "ok"}),
        (_cancel, "stage.completed", {**ABOUT, "status": "cancel"}),
        (
            _skip,
            "stage.skipped",
            {
                "stage": "a",
                "kind": "transform",
                "reason": "Stage returned skip",
                "duration_ms": 0.0,
            },
        ),
        (
            _fail,
            "stage.failed",
            {
                **ABOUT,
                "status": "fail",
                "error": "rude",
                "error_type": None,
                "code": "RUN-005-FAIL_OUTPUT",
            },
        ),
        (
            _retry,
            "stage.failed",
            {
                **ABOUT,
                "status": "retry",
                "error": "busy",
                "error_type": None,
                "code": "RUN-005-RETRY_OUTPUT",
            },
        ),
        (
            _raise,
            "stage.failed",
            {
                **ABOUT,
                "status": "fail",
                "error": "no such key",
                "error_type": "LookupError",
                "code": None,
            },
        ),
        (
            forever,
            "stage.failed",
            {
                **ABOUT,
                "duration_ms": 500.0,
                "status": "fail",
                "error": "Stage timed out after 500ms",
                "error_type": "StageTimeoutError",
                "code": "RUN-002-TIMEOUT",
            },
        ),
    ],
)
async def test_every_end_of_a_stage_has_its_event(
    runner: Any,
    type_: str,
    payload: dict[str, Any],
    sink: RecordingEventSink,
    autojump_clock: MockClock,
) -> None:
    graph = UnifiedStageGraph(
        [spec("a", runner)], stage_timeout=0.5, failure_mode="best_effort", interceptors=()
    )

    try:
        await graph.run(event_sink=sink)
    except UnifiedPipelineCancelled:
        assert runner is _cancel

    assert told(sink)[1:3] == ["stage.started a", f"{type_} a"]
    assert own(sink.payloads("stage.started")[0]) == {
        "stage": "a",
        "kind": "transform",
        "attempt": 1,
    }
    assert own(sink.payloads(type_)[0]) == payload


@pytest.mark.spec("30.3.2", "30.5.3", "20.8.7")
async def test_stage_skipped_by_a_rule_has_only_its_skip(sink: RecordingEventSink) -> None:
    graph = UnifiedStageGraph(
        [spec("a", nothing), spec("b", nothing, "a", when=lambda inputs: False, kind="work")]
    )

    results = await graph.run(event_sink=sink)

    assert told(sink)[-2:] == ["stage.skipped b", "pipeline.completed"]
    [payload] = sink.payloads("stage.skipped")
    assert own(payload)["duration_ms"] is None
    assert own(payload)["kind"] == "work"
    assert results.stage_results["b"].skipped_by == "when"
    assert results.stage_results["b"].status == "skipped"


@pytest.mark.spec("30.3.2", "E69")
async def test_stage_that_a_rule_fails_has_a_start_and_an_end(sink: RecordingEventSink) -> None:
    graph = UnifiedStageGraph([spec("a", nothing), spec("b", nothing, "a", inputs=("a:text",))])

    with pytest.raises(UnifiedStageExecutionError):
        await graph.run(event_sink=sink)

    assert told(sink)[3:5] == ["stage.started b", "stage.failed b"]
    sink.assert_emitted("stage.failed", code="CONTRACT-004-INPUT")


@pytest.mark.spec("30.3.1", "E12")
async def test_endings_of_a_run_have_their_payloads(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def slow(ctx: StageContext) -> None:
        await trio.sleep(2)

    parent = "aaaaaaaa-0000-0000-0000-000000000001"
    context = PipelineContext(pipeline_run_id=RUN, parent_run_id=parent, correlation_id="c-1")
    good = UnifiedStageGraph([spec("a", slow), spec("s", _skip)], pipeline_name="good")
    await good.run(context, event_sink=sink)
    assert own(sink.payloads("pipeline.started")[0]) == {
        "pipeline_name": "good",
        "stage_count": 2,
        "parent_run_id": parent,
        "correlation_id": "c-1",
    }
    assert own(sink.payloads("pipeline.completed")[0]) == {
        "pipeline_name": "good",
        "duration_ms": 2000.0,
        "stage_counts": {"completed": 1, "skipped": 1},
    }

    bad = UnifiedStageGraph(
        [spec("z", _fail), spec("a", _raise), spec("b", slow)], failure_mode="best_effort"
    )
    await bad.run(PipelineContext(topology="bad"), event_sink=sink)
    assert own(sink.payloads("pipeline.failed")[0]) == {
        "pipeline_name": "bad",
        "duration_ms": 2000.0,
        "stage_counts": {"completed": 1, "failed": 2},
        "error": "rude",
        "error_type": "StageFailedError",
        "code": "RUN-005-FAIL_OUTPUT",
        "failed_stages": ["a", "z"],
    }

    with pytest.raises(UnifiedPipelineCancelled):
        await UnifiedStageGraph([spec("a", nothing), spec("c", _cancel, "a")]).run(event_sink=sink)
    assert own(sink.payloads("pipeline.canceled")[0]) == {
        "pipeline_name": "pipeline",
        "parent_run_id": None,
        "reason": "enough",
        "cascade_depth": 0,
        "stage": "c",
        "stages_completed": 1,
        "duration_ms": 0.0,
    }
    for terminal in ("completed", "failed", "canceled"):
        assert len(sink.payloads(f"pipeline.{terminal}")) == 1


@pytest.mark.spec("20.7.2")
async def test_run_is_called_after_its_pipeline_else_its_topology(sink: RecordingEventSink) -> None:
    named = UnifiedStageGraph([spec("a", nothing)], pipeline_name="given")
    unnamed = UnifiedStageGraph([spec("a", nothing)])

    await named.run(PipelineContext(topology="chat_fast"), event_sink=sink)
    await unnamed.run(PipelineContext(topology="chat_fast"), event_sink=sink)
    await unnamed.run(PipelineContext(), event_sink=sink)

    names = [payload["pipeline_name"] for payload in sink.payloads("pipeline.started")]
    assert names == ["given", "chat_fast", "pipeline"]


@pytest.mark.spec("30.3.4", "30.9.8")
async def test_attempts_agree_everywhere(sink: RecordingEventSink) -> None:
    seen: list[tuple[int, int]] = []

    async def write(ctx: StageContext) -> None:
        seen.append((ctx.attempt, ctx.try_number))

    async def check(ctx: StageContext) -> StageOutput:
        return StageOutput.ok() if ctx.attempt > 1 else StageOutput.fail("again")

    context = PipelineContext()
    policies = {"check": GuardRetryPolicy("write")}
    graph = UnifiedStageGraph(
        [
            spec("write", write),
            spec("check", check, "write", kind="guard"),
            spec("slow", forever, "write"),
            spec("fast", nothing, "write"),
        ],
        guard_retry_strategy=GuardRetryStrategy(policies),
        stage_timeout=None,
    )

    async with graph.start(context, event_sink=sink) as run:
        await wait_all_tasks_blocked()
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled) as canceled:
            await run.wait()

    assert seen == [(1, 1), (2, 1)]
    assert {entry.attempt for entry in context.outputs.entries().values()} == {1, 2}
    assert context.outputs.get_attempt_count("write") == 2
    # The interrupted attempt counts, and so does its entry.
    assert [p["attempt"] for p in sink.payloads("stage.started") if p["stage"] == "slow"] == [1, 2]
    assert context.outputs.get_attempt_count("slow") == 1
    results = canceled.value.results.stage_results  # type: ignore[attr-defined]  # a PipelineResults
    assert {name: result.attempt for name, result in results.items()} == dict.fromkeys(
        ("write", "check", "slow", "fast"), 2
    )


@pytest.mark.spec("10.3.8", "10.4.3")
async def test_artifacts_and_events_of_an_output_are_collected(sink: RecordingEventSink) -> None:
    artifact = StageArtifact("audio", {"id": 1})
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)

    async def make(ctx: StageContext) -> StageOutput:
        return StageOutput.ok(
            artifacts=[artifact],
            events=[StageEvent("app.a", {}, at), StageEvent("app.b", {"stage": "me"})],
        )

    context = PipelineContext()
    await UnifiedStageGraph([spec("make", make)]).run(context, event_sink=sink)

    assert context.artifacts == [artifact]
    assert told(sink)[2:4] == ["app.a make", "app.b me"]
    assert sink.payloads("app.a")[0]["event_timestamp"] == at.isoformat()


@pytest.mark.spec("30.3.6")
async def test_wide_events_follow_stages_and_precede_the_end(sink: RecordingEventSink) -> None:
    graph = UnifiedStageGraph(
        [spec("a", nothing), spec("b", _raise, "a")],
        emit_stage_wide_events=True,
        emit_pipeline_wide_event=True,
    )

    with pytest.raises(UnifiedStageExecutionError):
        await graph.run(event_sink=sink)

    assert told(sink)[1:] == [
        "stage.started a",
        "stage.completed a",
        "stage.wide a",
        "stage.started b",
        "stage.failed b",
        "stage.wide b",
        "pipeline.wide",
        "pipeline.failed",
    ]
    assert sink.payloads("pipeline.wide")[0]["status"] == "failed"


@pytest.mark.spec("30.3.6")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"emit_stage_wide_events": True}, ["stage.wide"]),
        ({"emit_pipeline_wide_event": True}, ["pipeline.wide"]),
        ({"wide_event_emitter": WideEventEmitter("my.stage", "my.run")}, ["my.stage", "my.run"]),
        (
            {"wide_event_emitter": WideEventEmitter(), "emit_stage_wide_events": False},
            ["pipeline.wide"],
        ),
    ],
)
async def test_wide_events_are_emitted_when_they_are_asked_for(
    options: dict[str, Any], expected: list[str]
) -> None:
    sink = RecordingEventSink()

    await UnifiedStageGraph([spec("a", nothing)], **options).run(event_sink=sink)

    assert [t for t in sink.types() if t.endswith("wide") or t.startswith("my")] == expected


@pytest.mark.spec("30.3.7", "E16")
async def test_failing_sink_fails_no_run() -> None:
    full = Fails(OSError("full"))
    broken = faulty(RecordingEventSink(), emit=full, try_emit=full)

    results = await UnifiedStageGraph([spec("a", nothing)]).run(event_sink=broken)

    assert list(results) == ["a"]
    assert full.happened == 4


@pytest.mark.spec("30.3.7", "E14")
async def test_sink_without_room_delays_a_run_only_so_long(autojump_clock: MockClock) -> None:
    full = faulty(RecordingEventSink(), emit=Hangs())

    begun_at = trio.current_time()
    await UnifiedStageGraph([spec("a", nothing)]).run(event_sink=full)

    # `pipeline.started` and `pipeline.completed`; those of stages do not wait.
    assert trio.current_time() - begun_at == 10


@pytest.mark.spec("30.3.7", "E17")
async def test_sink_is_the_given_one_else_that_of_the_context_else_the_current_one() -> None:
    graph = UnifiedStageGraph([spec("a", nothing)])
    sinks = [RecordingEventSink(strict=True) for _ in range(3)]
    current, of_context, given = sinks

    with event_sink_scope(current):
        await graph.run()
        await graph.run(PipelineContext(event_sink=of_context))
        await graph.run(PipelineContext(event_sink=of_context), event_sink=given)

    assert [len(one.events) for one in sinks] == [4, 4, 4]


@pytest.mark.spec("E17")
async def test_stages_see_the_sink_of_their_run_as_the_current_one(
    sink: RecordingEventSink,
) -> None:
    seen = []

    async def look(ctx: StageContext) -> None:
        get_event_sink().try_emit(type="app.found", data={})
        seen.append(get_event_sink())

    context = PipelineContext()
    before = get_event_sink()
    async with UnifiedStageGraph([spec("a", look)]).start(context, event_sink=sink):
        assert type(get_event_sink()) is type(before)

    assert sink.payloads("app.found")[0]["seq"] == 3
    assert context.event_sink is None


@pytest.mark.spec("30.3.8", "E71")
async def test_cancellation_leaves_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "actorflow.runtime")
    context = PipelineContext(pipeline_run_id=RUN)

    with pytest.raises(UnifiedPipelineCancelled):
        await UnifiedStageGraph([spec("a", nothing), spec("c", _cancel, "a")]).run(context)

    [record] = [r for r in caplog.records if r.message == "pipeline_cancelled"]
    assert (record.name, record.levelname) == ("actorflow.runtime", "INFO")
    about = {
        "event": "pipeline.canceled",
        "stage": "c",
        "reason": "enough",
        "stages_completed": 1,
        "pipeline_run_id": RUN,
    }
    assert about.items() <= vars(record).items()


@pytest.mark.spec("30.3.8")
async def test_records_are_constant_messages_with_ids_and_no_payload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "actorflow.runtime")

    async def secret(ctx: StageContext) -> dict[str, str]:
        ctx.add_cleanup(lambda: None, name="tidy")
        return {"password": "hunter2"}

    graph = UnifiedStageGraph(
        [spec("a", secret), spec("s", _skip), spec("f", _fail)], failure_mode="best_effort"
    )
    await graph.run(PipelineContext(pipeline_run_id=RUN))

    records = [r for r in caplog.records if r.name == "actorflow.runtime"]
    assert {r.message for r in records} == {
        "run_started",
        "stage_started",
        "stage_completed",
        "stage_skipped",
        "stage_failed",
        "cleanup_completed",
        "run_completed",
    }
    assert all(vars(r)["pipeline_run_id"] == RUN for r in records)
    assert "hunter2" not in repr([vars(r) for r in records])
