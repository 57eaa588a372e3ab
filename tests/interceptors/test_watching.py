"""Interceptors that watch, the default limit, and the default set (30.12)."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import InvalidArgumentError
from actorflow.interceptors import (
    ChildTrackerMetricsInterceptor,
    InterceptorResult,
    LoggingInterceptor,
    MetricsInterceptor,
    RetryInterceptor,
    TimeoutInterceptor,
    TracingInterceptor,
    get_default_interceptors,
    run_with_interceptors,
)
from actorflow.model import StageKind, StageOutput
from actorflow.stages import PipelineContext, StageResult
from actorflow.stores import InMemoryIdempotencyStore

from .recording import Recorder, Stage, answering, for_ever

RUN_ID = UUID(int=1)


async def call(
    stage: Any, *interceptors: Any, ctx: PipelineContext | None = None, name: str = "stage"
) -> StageResult:
    ctx = ctx or PipelineContext(topology="chat", pipeline_run_id=RUN_ID)
    return await run_with_interceptors(name, stage, ctx, interceptors)


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == message]


# The default set


@pytest.mark.spec("30.12.1", "W8")
def test_default_set_is_new_sorted_and_complete() -> None:
    first, second = get_default_interceptors(), get_default_interceptors()

    assert [(it.priority, it.name, it.observer) for it in first] == [
        (4, "idempotency", False),
        (5, "timeout", False),
        (10, "circuit_breaker", False),
        (15, "retry", False),
        (20, "tracing", True),
        (40, "metrics", True),
        (45, "child_tracker_metrics", True),
        (50, "logging", True),
    ]
    assert {id(it) for it in first}.isdisjoint(id(it) for it in second)


@pytest.mark.spec("30.12.1", "W8")
@pytest.mark.parametrize(
    ("option", "name"), [("include_idempotency", "idempotency"), ("include_retry", "retry")]
)
def test_each_option_removes_exactly_its_interceptor(option: str, name: str) -> None:
    options: dict[str, Any] = {option: False}

    left = {it.name for it in get_default_interceptors(**options)}

    assert {it.name for it in get_default_interceptors()} - left == {name}


@pytest.mark.spec("30.12.1", "30.12.3")
async def test_default_set_takes_a_limit_and_a_store(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    interceptors = get_default_interceptors(default_timeout_ms=100, idempotency_store=store)
    ctx = PipelineContext(data={"idempotency_key": "k"})

    result = await call(for_ever, *interceptors)
    await run_with_interceptors("charge", Stage(None), ctx, interceptors, kind=StageKind.WORK)

    assert result.timed_out
    assert len(store) == 1


# Timeout


@pytest.mark.spec("30.12.3")
async def test_default_limit_holds_where_no_other_is_set(autojump_clock: MockClock) -> None:
    limits: list[float | None] = []
    ctx = PipelineContext()
    look = Recorder("look", priority=6, before=lambda c: limits.append(c.timeout_ms))

    def set_limit(c: Any) -> None:
        c.timeout_ms = 7

    await call(Stage(None), TimeoutInterceptor(5), look, ctx=ctx)
    await call(
        Stage(None), Recorder("limit", priority=1, before=set_limit), TimeoutInterceptor(5), look
    )

    assert limits == [5, 7]
    assert ctx.data == {}


@pytest.mark.spec("30.12.3", "30.11.12")
async def test_timeout_by_hand_leaves_nothing() -> None:
    ctx = PipelineContext()

    assert await TimeoutInterceptor(5).before("stage", ctx) is None

    assert ctx.data == {}


@pytest.mark.spec("30.12.3")
async def test_retry_sees_an_expired_limit(autojump_clock: MockClock) -> None:
    result = await call(for_ever, TimeoutInterceptor(5), RetryInterceptor(3))

    assert (result.timed_out, result.tries) == (True, 3)


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_impossible_limit_is_refused(limit: float) -> None:
    with pytest.raises(InvalidArgumentError, match="default_timeout_ms"):
        TimeoutInterceptor(limit)


# Tracing


class Span:
    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.name = name
        self.attributes = attributes
        self.errors: list[BaseException] = []
        self.ended = 0

    def record_exception(self, exception: BaseException) -> None:
        self.errors.append(exception)

    def end(self) -> None:
        self.ended += 1


class Tracer:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def start_span(self, name: str, *, attributes: Any) -> Span:
        self.spans.append(Span(name, attributes))
        return self.spans[-1]


@pytest.mark.spec("30.12.7")
async def test_span_around_each_try(autojump_clock: MockClock) -> None:
    tracer = Tracer()
    error = TimeoutError("slow")

    await call(Stage(error, None), TracingInterceptor(tracer), RetryInterceptor())

    assert [span.name for span in tracer.spans] == ["stage.stage"] * 2
    assert [span.ended for span in tracer.spans] == [1, 1]
    assert [span.errors for span in tracer.spans] == [[error], []]
    assert [span.attributes["stage.try"] for span in tracer.spans] == [1, 2]
    assert tracer.spans[0].attributes == {
        "pipeline.name": "chat",
        "pipeline.run_id": str(RUN_ID),
        "stage.name": "stage",
        "stage.kind": "transform",
        "stage.attempt": 1,
        "stage.try": 1,
    }


@pytest.mark.spec("30.12.7", "W2")
async def test_cancelled_try_closes_its_span(autojump_clock: MockClock) -> None:
    tracer = Tracer()

    with trio.move_on_after(1):
        await call(for_ever, TracingInterceptor(tracer))

    assert [span.ended for span in tracer.spans] == [1]


@pytest.mark.spec("30.12.7")
async def test_stages_at_the_same_time_have_a_span_each(autojump_clock: MockClock) -> None:
    tracer = Tracer()
    tracing = TracingInterceptor(tracer)

    async def stage() -> None:
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(lambda name: call(stage, tracing, name=name), name)

    assert sorted(span.name for span in tracer.spans) == ["stage.a", "stage.b"]
    assert [span.ended for span in tracer.spans] == [1, 1]


@pytest.mark.spec("30.12.7")
async def test_without_a_tracer_nothing_is_traced() -> None:
    tracing = TracingInterceptor()
    ctx = PipelineContext()

    assert not tracing.applies_to("stage", StageKind.WORK)
    await tracing.before("stage", ctx)
    assert await tracing.on_error("stage", LookupError(), ctx) == "fail"
    await tracing.release("stage", ctx)

    assert ctx.data == {}


@pytest.mark.spec("30.11.12")
async def test_span_can_be_opened_by_hand() -> None:
    tracer = Tracer()
    tracing = TracingInterceptor(tracer)
    ctx = PipelineContext()

    await tracing.before("stage", ctx)
    await tracing.release("stage", ctx)

    assert tracer.spans[0].ended == 1
    assert tracer.spans[0].attributes["stage.kind"] == ""
    assert ctx.data == {}


# Metrics


@pytest.mark.spec("30.12.8")
async def test_metrics_per_pipeline_and_stage(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    metrics = MetricsInterceptor()

    async def slow() -> None:
        await trio.sleep(2)

    async def fast() -> Any:
        await trio.sleep(1)
        return StageOutput.fail("no")

    await call(slow, metrics)
    await call(fast, metrics)
    await call(slow, metrics, name="other")

    found = metrics.snapshot()
    assert set(found) == {("chat", "stage"), ("chat", "other")}
    mine = found["chat", "stage"]
    assert mine.counts == {"completed": 1, "failed": 1}
    assert (mine.count, mine.total_ms, mine.min_ms, mine.max_ms) == (2, 3000, 1000, 2000)
    [record, *_] = told(caplog, "stage_metrics")
    assert (record["stage"], record["status"], record["duration_ms"]) == (
        "stage",
        "completed",
        2000,
    )
    assert record["pipeline_run_id"] == str(RUN_ID)


@pytest.mark.spec("30.12.8")
async def test_metrics_count_tries(autojump_clock: MockClock) -> None:
    metrics = MetricsInterceptor()

    await call(Stage(TimeoutError(), None), metrics, RetryInterceptor())

    assert metrics.snapshot()["chat", "stage"].counts == {"failed": 1, "completed": 1}


@pytest.mark.spec("30.12.8", "W6")
async def test_metrics_forget_what_was_tried_least_recently() -> None:
    metrics = MetricsInterceptor(max_keys=2)

    for name in "abac":
        await call(Stage(None), metrics, name=name)

    assert [stage for _, stage in metrics.snapshot()] == ["a", "c"]


def test_impossible_number_of_keys_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="max_keys"):
        MetricsInterceptor(max_keys=0)


# Logging


@pytest.mark.spec("30.12.10")
async def test_start_and_finish_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await call(Stage({"secret": "s3cret"}), LoggingInterceptor())

    [start], [end] = told(caplog, "stage_starting"), told(caplog, "stage_finished")
    assert (start["stage"], start["pipeline_run_id"], start["topology"]) == (
        *("stage", str(RUN_ID), "chat"),
    )
    assert (end["stage"], end["status"], end["duration_ms"] >= 0) == ("stage", "completed", True)
    assert "s3cret" not in repr([start, end])


@pytest.mark.spec("30.12.10")
async def test_nothing_is_logged_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    await call(Stage(None), LoggingInterceptor(), MetricsInterceptor())

    assert caplog.records == []


# Child runs


class Tracker:
    async def get_metrics(self) -> dict[str, int]:
        return {"active_children": 3}


@pytest.mark.spec("30.12.9")
@pytest.mark.parametrize("from_runtime", [False, True])
async def test_stages_of_child_runs_log_the_numbers_of_the_tracker(
    from_runtime: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runtime = SimpleNamespace(child_tracker=Tracker()) if from_runtime else None
    given = None if from_runtime else Tracker()
    parent = PipelineContext(pipeline_run_id=RUN_ID, runtime=runtime)

    await call(
        Stage(None),
        ChildTrackerMetricsInterceptor(given),
        ctx=parent.fork_for_subpipeline(parent_stage_id="a"),
    )

    [record] = told(caplog, "child_tracker_metrics")
    assert (record["stage"], record["active_children"]) == ("stage", 3)


@pytest.mark.spec("30.12.9")
async def test_other_runs_log_no_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    orphan = PipelineContext(depth=1)

    await call(Stage(None), ChildTrackerMetricsInterceptor(Tracker()))
    await call(Stage(None), ChildTrackerMetricsInterceptor(), ctx=orphan)

    assert told(caplog, "child_tracker_metrics") == []


async def test_watchers_see_short_circuits_inside() -> None:
    metrics = MetricsInterceptor()
    answer = InterceptorResult(stage_ran=False, result={})

    await call(Stage(None), metrics, Recorder("cache", before=answering(answer)))

    assert metrics.snapshot()["chat", "stage"].counts == {"completed": 1}


@pytest.mark.spec("30.11.12")
async def test_watchers_can_be_called_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ctx = PipelineContext(topology="chat", depth=1)
    result = await call(Stage(None))
    metrics = MetricsInterceptor()
    watchers = (metrics, LoggingInterceptor(), ChildTrackerMetricsInterceptor(Tracker()))

    for watcher in watchers:
        await watcher.before("stage", ctx)
        await watcher.after("stage", result, ctx)
        await watcher.release("stage", ctx)

    assert metrics.snapshot()["chat", "stage"].count == 1
    assert [record.getMessage() for record in caplog.records] == [
        *("stage_metrics", "stage_starting", "stage_finished", "child_tracker_metrics")
    ]
    assert ctx.data == {}


@pytest.mark.spec("30.11.8", "30.12.9")
async def test_tracker_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Tracker):
        async def get_metrics(self) -> dict[str, int]:
            raise LookupError("lost count")

    caplog.set_level(logging.INFO)
    watcher = ChildTrackerMetricsInterceptor(Broken())

    result = await call(Stage({"n": 1}), watcher, ctx=PipelineContext(depth=1))

    assert result.data == {"n": 1}
    assert result.warnings == (
        "interceptor 'child_tracker_metrics' failed in after: LookupError: lost count",
    )


@pytest.mark.spec("30.12.8", "30.12.10")
async def test_watchers_outside_of_a_repetition_see_all_tries_as_one(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps = Stage(TimeoutError(), None)
    metrics = MetricsInterceptor()

    async def slow() -> None:
        await trio.sleep(1)
        await steps()

    await call(
        slow,
        metrics,
        Recorder("again", priority=45, on_error=answering("retry")),
        LoggingInterceptor(),
    )

    assert [record["duration_ms"] for record in told(caplog, "stage_finished")] == [1000, 1000]
    assert metrics.snapshot()["chat", "stage"].total_ms == 2000
