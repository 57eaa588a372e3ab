"""Runs by a runner: what comes back, who hears of them, and what is as before afterwards."""

from __future__ import annotations

import inspect
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow import clock
from actorflow.diagnostics import MemoryTracker, UuidCollisionMonitor
from actorflow.errors import (
    ContextInUseError,
    CycleDetectedError,
    InvalidArgumentError,
    InvalidTypeError,
    PipelineValidationError,
    UnifiedPipelineCancelled,
)
from actorflow.events import (
    NoOpEventSink,
    clear_event_sink,
    current_event_sink,
    event_sink_scope,
    set_event_sink,
)
from actorflow.interceptors import BaseInterceptor, ContextSizeInterceptor
from actorflow.model import ContextSnapshot, RunIdentity, StageOutput, StageStatus
from actorflow.pipeline import Pipeline, PipelineBuilder, StageSpec, stage
from actorflow.runtime import (
    PipelineRunner,
    RunResult,
    Runtime,
    StageGraph,
    UnifiedStageGraph,
    run_simple_pipeline,
)
from actorflow.stages import PipelineContext, StageContext
from actorflow.stores import InMemoryIdempotencyStore
from actorflow.testing import RecordingEventSink


@stage
async def clean(ctx: StageContext) -> dict[str, str]:
    return {"text": (ctx.snapshot.input_text or "").strip()}


@stage(after="clean")
async def shout(ctx: StageContext) -> dict[str, str]:
    return {"text": ctx.inputs.get("text").upper()}


@stage(after="clean")
async def broken(ctx: StageContext) -> None:
    raise LookupError("no such word")


@stage(after="broken")
async def after_broken(ctx: StageContext) -> dict[str, bool]:
    return {"ran": True}


@stage(after="clean")
async def enough(ctx: StageContext) -> StageOutput:
    return StageOutput.cancel("enough")


@stage
async def endless(ctx: StageContext) -> None:
    await trio.sleep_forever()


GREETING = Pipeline.from_stages(clean, shout, name="greeting")
# Without a circuit breaker, which would remember the failures of other tests.
FAILING = Pipeline.from_stages(clean, broken, after_broken, name="failing").build(interceptors=())
CANCELING = Pipeline.from_stages(clean, enough, name="canceling")
ENDLESS = Pipeline.from_stages(clean, endless, name="endless")


def types(result: RunResult) -> list[str]:
    return [event["type"] for event in result.events]


# What a run begins with


@pytest.mark.spec("30.17.1")
def test_snapshot_has_an_id_wherever_none_is_given() -> None:
    given = UUID(int=7)

    snapshot = PipelineRunner().create_snapshot(
        input_text="hi",
        user_id=given,
        request_id=str(given),
        metadata={"channel": "web", "lang": "en"},
    )

    identity = snapshot.run_id
    made = [
        identity.pipeline_run_id,
        identity.session_id,
        identity.org_id,
        identity.interaction_id,
    ]
    assert {it.version for it in made if it is not None} == {4}
    assert len(set(made)) == 4
    assert identity.user_id == identity.request_id == given
    assert snapshot.metadata == {"channel": "web", "lang": "en"}
    assert (snapshot.input_text, snapshot.execution_mode) == ("hi", "practice")
    assert snapshot.topology == "pipeline"


@pytest.mark.spec("30.17.1")
def test_ids_that_are_given_are_kept() -> None:
    given: dict[str, Any] = {
        name: UUID(int=number)
        for number, name in enumerate(
            (
                "pipeline_run_id",
                "request_id",
                "session_id",
                "user_id",
                "org_id",
                "interaction_id",
            ),
            start=1,
        )
    }

    identity = PipelineRunner().create_snapshot(**given).run_id
    made = PipelineRunner().create_snapshot().run_id

    assert {name: getattr(identity, name) for name in given} == given
    assert {getattr(made, name).version for name in given} == {4}
    assert len({getattr(made, name) for name in given}) == 6


@pytest.mark.spec("30.17.1")
def test_snapshot_says_through_which_channel_it_came() -> None:
    runner = PipelineRunner()

    assert runner.create_snapshot().metadata == {"channel": "cli"}
    assert runner.create_snapshot(channel="phone", metadata={"a": 1}).metadata == {
        "channel": "phone",
        "a": 1,
    }


@pytest.mark.spec("30.17.1")
def test_fields_of_a_snapshot_are_passed_on() -> None:
    moment = clock.now()

    snapshot = PipelineRunner().create_snapshot(
        created_at=moment, input_audio_duration_ms=12.5, topology="fast", execution_mode=None
    )

    assert snapshot.created_at == snapshot.run_id.created_at == moment
    assert snapshot.input_audio_duration_ms == 12.5
    assert (snapshot.topology, snapshot.execution_mode) == ("fast", None)


@pytest.mark.spec("30.17.2", "30.17.6")
@pytest.mark.parametrize(
    "pipeline",
    [
        GREETING,
        PipelineBuilder("greeting").with_stages(clean, shout),
        GREETING.build(),
    ],
    ids=["pipeline", "builder", "graph"],
)
async def test_pipeline_builder_and_graph_are_run(pipeline: Any) -> None:
    result = await PipelineRunner().run(pipeline, input_text=" hi ", metadata={"a": 1})

    assert result.success
    assert result.stages == {"clean": {"text": "hi"}, "shout": {"text": "HI"}}
    assert result.results is not None
    assert result.results["shout"].status is StageStatus.OK
    assert result.results["shout"].data == {"text": "HI"}
    assert result.get_stage_data("shout", "text") == "HI"
    assert result.get_stage_data("shout", "volume", 11) == 11
    assert result.get_stage_data("nobody", "text") is None
    assert not result.cancelled
    assert (result.error, result.error_type, result.failures, result.not_run) == (
        None,
        None,
        (),
        (),
    )


@pytest.mark.spec("30.17.2")
async def test_run_begins_with_a_snapshot_a_context_or_fields() -> None:
    seen: list[ContextSnapshot] = []

    async def look(ctx: StageContext) -> None:
        seen.append(ctx.snapshot)

    pipeline = Pipeline.from_stages(StageSpec("look", look), name="looking")
    runner = PipelineRunner()
    snapshot = runner.create_snapshot(input_text="from a snapshot")
    context = PipelineContext(input_text="from a context")
    await runner.run(pipeline, snapshot=snapshot)
    await runner.run(pipeline, pipeline_ctx=context)
    await runner.run(
        pipeline, input_text="from fields", execution_mode="strict", channel="web", session_id=None
    )

    assert seen[0] == snapshot
    assert seen[1] is context.snapshot
    assert seen[2].input_text == "from fields"
    assert (seen[2].execution_mode, seen[2].topology) == ("strict", "looking")
    assert seen[2].metadata == {"channel": "web"}
    assert seen[2].run_id.session_id is not None


@pytest.mark.spec("30.17.2")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"pipeline_ctx": PipelineContext(), "snapshot": ContextSnapshot(RunIdentity())},
            "snapshot",
        ),
        ({"pipeline_ctx": PipelineContext(), "input_text": "hi"}, "input_text"),
        ({"pipeline_ctx": PipelineContext(), "execution_mode": "strict"}, "execution_mode"),
        ({"pipeline_ctx": PipelineContext(), "user_id": None, "channel": "x"}, "channel, user_id"),
        ({"snapshot": ContextSnapshot(RunIdentity()), "metadata": {}}, "metadata"),
    ],
)
async def test_one_beginning_is_enough(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"arguments beside .* found '{named}'"):
        await PipelineRunner().run(GREETING, **options)


@pytest.mark.spec("30.17.2", "30.17.8")
@pytest.mark.parametrize("pipeline", [None, "greeting", StageGraph(GREETING.stages), object()])
async def test_what_is_no_pipeline_is_refused(pipeline: Any) -> None:
    with pytest.raises(InvalidTypeError, match="pipeline must be"):
        await PipelineRunner().run(pipeline)


@pytest.mark.spec("30.17.2")
@pytest.mark.parametrize("argument", ["pipeline_ctx", "snapshot"])
async def test_beginning_of_another_type_is_refused(argument: str) -> None:
    source: Any = {argument: "hello"}

    with pytest.raises(InvalidTypeError, match=f"{argument} must be"):
        await PipelineRunner().run(GREETING, **source)


@pytest.mark.spec("30.17.8")
async def test_pipeline_that_cannot_run_is_no_result() -> None:
    tracker = MemoryTracker()
    ring = Pipeline(
        stages=[StageSpec(a, lambda ctx: None, dependencies=(b,)) for a, b in ("ab", "ba")]
    )
    try:
        with pytest.raises(CycleDetectedError):
            await PipelineRunner(memory_tracker=tracker).run(ring)
        twice = [ContextSizeInterceptor(), ContextSizeInterceptor()]
        with pytest.raises(PipelineValidationError, match="context_size"):
            await PipelineRunner(interceptors=twice).run(GREETING)
        with pytest.raises(InvalidArgumentError, match="first_seq"):
            await PipelineRunner().run(GREETING, first_seq=0)
        assert tracker.samples == ()
    finally:
        tracker.stop()


@pytest.mark.parametrize(
    "options",
    [{"max_events": 0}, {"runtime": Runtime(), "idempotency_store": InMemoryIdempotencyStore()}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        PipelineRunner(**options)


@pytest.mark.parametrize("argument", ["uuid_monitor", "memory_tracker"])
def test_switch_in_the_place_of_a_watcher_is_refused(argument: str) -> None:
    options: dict[str, Any] = {argument: True}

    with pytest.raises(InvalidTypeError, match=argument):
        PipelineRunner(**options)


def test_metadata_is_a_mapping() -> None:
    pairs: Any = [("lang", "en")]

    with pytest.raises(InvalidTypeError, match="metadata must be a mapping"):
        PipelineRunner().create_snapshot(metadata=pairs)


@pytest.mark.spec("30.17.10", "G85")
def test_nothing_is_switched_on_by_itself() -> None:
    options = inspect.signature(PipelineRunner).parameters
    defaults = {name: option.default for name, option in options.items()}

    switches = {name: value for name, value in defaults.items() if isinstance(value, bool)}
    assert {name for name, is_on in switches.items() if is_on} == {
        "colorize",
        "capture_events",
        "memory_tracker_auto_start",
    }
    assert defaults["uuid_monitor_ttl_seconds"] == 300
    assert defaults["max_events"] == 10_000
    assert not inspect.signature(run_simple_pipeline).parameters["colorize"].default


# How it ended


@pytest.mark.spec("30.17.7")
@pytest.mark.parametrize("way", ["stage", "context", "token"])
async def test_cancelled_run_is_a_success_with_what_was_done(way: str) -> None:
    context = PipelineContext(input_text="hi")
    pipeline = CANCELING

    async def mark(ctx: StageContext) -> None:
        if way == "context":
            context.mark_canceled("enough")
        else:
            ctx.cancel_token.cancel("enough")
        await trio.sleep_forever()

    if way != "stage":
        pipeline = Pipeline.from_stages(clean, StageSpec("mark", mark, dependencies=("clean",)))
    result = await PipelineRunner().run(pipeline, pipeline_ctx=context)

    assert (result.success, result.cancelled, result.cancel_reason) == (True, True, "enough")
    assert (result.error, result.error_type) == (None, None)
    assert result.stages["clean"] == {"text": "hi"}
    # What was interrupted has run.
    assert result.not_run == ()
    assert types(result)[-1] == "pipeline.canceled"


@pytest.mark.spec("30.17.2", "30.17.7", "E27")
async def test_cancellation_from_outside_goes_on() -> None:
    before = RecordingEventSink(strict=True)
    with event_sink_scope(before), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await PipelineRunner().run(ENDLESS)
                raise AssertionError

            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught
    assert before.types()[-1] == "pipeline.canceled"


@pytest.mark.spec("30.17.8")
async def test_failed_run_tells_the_first_failure_and_what_was_done() -> None:
    result = await PipelineRunner().run(FAILING, input_text="hi")

    assert not result.success
    assert result.error == "stage 'broken' failed: LookupError: no such word"
    assert result.error_type == "LookupError"
    assert result.stages["clean"] == {"text": "hi"}
    assert [failure.stage for failure in result.failures] == ["broken"]
    assert result.not_run == ("after_broken",)
    assert not result.cancelled
    assert types(result)[-1] == "pipeline.failed"


@pytest.mark.spec("30.17.8")
async def test_failed_output_is_told_as_what_stands_for_it() -> None:
    async def refusing(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("not today")

    result = await PipelineRunner().run(Pipeline.from_stages(StageSpec("refusing", refusing)))

    assert result.error_type == "StageFailedError"
    assert "not today" in (result.error or "")


@pytest.mark.spec("30.17.8")
async def test_best_effort_with_failures_is_no_success_and_has_all_stages() -> None:
    pipeline = Pipeline.from_stages(clean, broken, after_broken, failure_mode="best_effort")

    result = await PipelineRunner().run(pipeline, input_text="hi")

    assert not result.success
    assert result.error == "stage 'broken' failed: LookupError: no such word"
    assert result.error_type == "LookupError"
    assert list(result.stages) == ["clean", "broken", "after_broken"]
    assert result.stages["after_broken"] == {"ran": True}
    assert result.not_run == ()


@pytest.mark.spec("30.17.8", "30.1.4")
async def test_mistake_of_the_runtime_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*args: Any) -> None:
        raise RuntimeError("a bug")

    tracker = MemoryTracker()
    monkeypatch.setattr("actorflow.runtime._lifecycle.Lifecycle.stage_settled", mistaken)
    before = current_event_sink()
    with pytest.raises(RuntimeError, match="a bug"):
        await PipelineRunner(memory_tracker=tracker).run(GREETING)
    tracker.stop()

    assert current_event_sink() is before
    assert [it.label for it in tracker.samples] == ["pipeline:start", "pipeline:error"]


@pytest.mark.spec("30.17.9")
def test_result_is_written_without_what_does_not_apply() -> None:
    run_id = UUID(int=7)
    stages = {"a": StageOutput.ok(words=["x"]).data}
    bare = RunResult(True, stages, 1.5)

    assert bare.to_dict() == {
        "success": True,
        "stages": {"a": {"words": ["x"]}},
        "duration_ms": 1.5,
    }
    assert type(bare.to_dict()["stages"]["a"]) is dict
    assert type(bare.to_dict()["stages"]["a"]["words"]) is list
    full = attrs.evolve(
        bare,
        success=False,
        error="gone",
        error_type="LookupError",
        cancelled=True,
        cancel_reason="enough",
        events=({"type": "x"},),
        pipeline_run_id=run_id,
        not_run=("b",),
        warnings=("careful",),
    )
    assert full.to_dict() == {
        "success": False,
        "stages": {"a": {"words": ["x"]}},
        "duration_ms": 1.5,
        "error": "gone",
        "error_type": "LookupError",
        "cancelled": True,
        "cancel_reason": "enough",
        "pipeline_run_id": str(run_id),
        "not_run": ["b"],
        "warnings": ["careful"],
    }


@pytest.mark.spec("30.17.9")
def test_nine_fields_of_a_result_may_go_without_their_names() -> None:
    kinds = {it.name: it.kind for it in inspect.signature(RunResult).parameters.values()}

    named = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    assert list(kinds)[:9] == [
        "success",
        "stages",
        "duration_ms",
        "error",
        "error_type",
        "cancelled",
        "cancel_reason",
        "events",
        "pipeline_run_id",
    ]
    assert list(kinds)[9:] == named
    assert RunResult(True).discarded_events == 0


@pytest.mark.spec("30.17.6", "30.6.9")
async def test_result_has_times_metrics_warnings_and_no_compensations(
    autojump_clock: MockClock,
) -> None:
    context = PipelineContext()

    async def busy(ctx: StageContext) -> None:
        await trio.sleep(2)
        context.record_metric("tokens", 7)

        def untidy() -> None:
            raise OSError("disk full")

        ctx.add_cleanup(untidy)

    class Forgetful(BaseInterceptor):
        """Subclass of the tests that cannot give back what it took."""

        name = "forgetful"

        async def release(self, stage_name: str, ctx: object) -> None:
            raise KeyError("lost")

    runner = PipelineRunner(interceptors=[Forgetful()])
    await trio.sleep(100)
    result = await runner.run(Pipeline.from_stages(StageSpec("busy", busy)), pipeline_ctx=context)

    assert result.success
    assert result.duration_ms == 2000
    assert result.metrics == {"tokens": 7}
    of_stage, of_cleanup = result.warnings
    assert of_stage.startswith("stage 'busy': ")
    assert "forgetful" in of_stage
    assert of_cleanup == "cleanup 'untidy' failed: OSError('disk full')"
    assert result.compensation_failures == ()


# Events


@pytest.mark.spec("30.17.2", "E27", "E63")
@pytest.mark.parametrize("pipeline", [GREETING, FAILING, CANCELING])
async def test_sink_of_before_is_back_and_heard_everything(pipeline: Any) -> None:
    before, of_context = RecordingEventSink(strict=True), RecordingEventSink(strict=True)
    set_event_sink(before)
    context = PipelineContext(event_sink=of_context)

    result = await PipelineRunner().run(pipeline, pipeline_ctx=context)

    assert current_event_sink() is before
    assert context.event_sink is of_context
    assert before.types() == of_context.types() == types(result)
    assert [dict(e.data) for e in before.events] == [event["data"] for event in result.events]
    assert types(result)[0] == "pipeline.started"
    before.assert_seq_contiguous(context.pipeline_run_id or "")
    clear_event_sink()


@pytest.mark.spec("30.17.2", "E27")
async def test_sink_that_is_there_twice_hears_everything_once() -> None:
    before = RecordingEventSink(strict=True)

    with event_sink_scope(before):
        result = await PipelineRunner().run(GREETING, pipeline_ctx=PipelineContext())

    assert before.types() == types(result)


@pytest.mark.spec("E27")
async def test_without_a_sink_before_there_is_none_afterwards() -> None:
    inside: list[object] = []

    async def look(ctx: StageContext) -> None:
        inside.append(current_event_sink())

    result = await PipelineRunner().run(Pipeline.from_stages(StageSpec("look", look)))

    assert current_event_sink() is None
    assert inside[0] is not None
    assert types(result)[-1] == "pipeline.completed"


@pytest.mark.spec("E27")
async def test_context_that_cannot_be_used_leaves_the_sink_as_it_was() -> None:
    before = NoOpEventSink()
    context = PipelineContext()
    with event_sink_scope(before):
        async with ENDLESS.start(context) as run:
            with pytest.raises(ContextInUseError):
                await PipelineRunner().run(GREETING, pipeline_ctx=context)
            assert current_event_sink() is before
            run.cancel()
            with pytest.raises(UnifiedPipelineCancelled):
                await run.wait()


@pytest.mark.spec("30.17.2", "E27")
async def test_run_inside_a_run_has_events_and_numbers_of_its_own(
    sink: RecordingEventSink,
) -> None:
    inner: list[RunResult] = []

    async def nest(ctx: StageContext) -> None:
        before = current_event_sink()
        inner.append(await PipelineRunner().run(GREETING))
        assert current_event_sink() is before

    outer = await PipelineRunner().run(
        Pipeline.from_stages(StageSpec("nest", nest)),
        pipeline_ctx=PipelineContext(event_sink=sink),
    )

    (inside,) = inner
    assert {event["data"]["pipeline_run_id"] for event in inside.events} == {
        str(inside.pipeline_run_id)
    }
    assert [event["data"]["seq"] for event in inside.events] == list(range(1, 7))
    assert all("payload_seq" not in event["data"] for event in outer.events)
    for run in (inside, outer):
        sink.assert_seq_contiguous(run.pipeline_run_id or "")


@pytest.mark.spec("30.17.10", "30.19.1", "E63")
async def test_captured_events_are_bounded_and_counted() -> None:
    result = await PipelineRunner(max_events=2).run(GREETING)
    last = await PipelineRunner(max_events=1).run(GREETING)
    nothing = await PipelineRunner(capture_events=False).run(GREETING)

    assert types(result) == ["stage.completed", "pipeline.completed"]
    assert result.discarded_events == 4
    assert types(last) == ["pipeline.completed"]
    assert (nothing.events, nothing.discarded_events) == ((), 0)


@pytest.mark.spec("30.17.11", "30.2.8", "E27")
async def test_runs_at_the_same_time_do_not_hear_of_each_other(
    autojump_clock: MockClock,
) -> None:
    runner = PipelineRunner(enable_uuid_monitor=True, enable_context_size_monitor=True)
    results: dict[int, RunResult] = {}

    async def wait(ctx: StageContext) -> dict[str, str | None]:
        await trio.sleep(int(ctx.snapshot.input_text or 0) % 3)
        ctx.try_emit_event("app.said", {"text": ctx.snapshot.input_text})
        return {"text": ctx.snapshot.input_text}

    waiting = Pipeline.from_stages(StageSpec("wait", wait), name="waiting")

    async def run(number: int) -> None:
        pipeline: Any = (waiting, GREETING, FAILING)[number % 3]
        results[number] = await runner.run(pipeline, input_text=str(number))

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(run, number)

    assert len({result.pipeline_run_id for result in results.values()}) == 60
    for number, result in results.items():
        assert {event["data"]["pipeline_run_id"] for event in result.events} == {
            str(result.pipeline_run_id)
        }
        assert [event["data"]["seq"] for event in result.events] == list(
            range(1, len(result.events) + 1)
        )
        first = "wait" if number % 3 == 0 else "clean"
        assert result.stages[first] == {"text": str(number)}


# What is switched on


class Marking(BaseInterceptor):
    """Subclass of the tests: says that it was there."""

    name = "marking"

    def __init__(self, called: list[str]) -> None:
        super().__init__()
        self.called = called

    async def before(self, stage_name: str, ctx: object) -> None:
        self.called.append(stage_name)


@pytest.mark.spec("30.17.5", "G93")
@pytest.mark.parametrize("built", [False, True])
async def test_watching_interceptors_are_there_for_the_runs_of_the_runner_alone(
    built: bool,
) -> None:
    pipeline: Any = GREETING.build() if built else GREETING
    graph = pipeline if built else pipeline.graph
    before = graph.interceptors
    runner = PipelineRunner(enable_immutability_check=True, enable_context_size_monitor=True)

    for _ in range(100):
        result = await runner.run(pipeline, input_text="hi")

        # One per stage: each is there once.
        assert set(result.metrics) == {
            'context_size_bytes{stage="clean"}',
            'context_size_bytes{stage="shout"}',
        }
    assert (pipeline if built else pipeline.graph) is graph
    assert graph.interceptors == before
    assert not (await PipelineRunner().run(pipeline)).metrics


@pytest.mark.spec("30.17.5")
async def test_immutability_check_finds_what_a_stage_changed() -> None:
    @attrs.define
    class Profile:
        name: str

    async def spoil(ctx: StageContext) -> None:
        extensions: Any = ctx.snapshot.extensions
        extensions["profile"].name = "somebody else"

    pipeline = Pipeline.from_stages(StageSpec("spoil", spoil))
    unseen, seen = [
        await PipelineRunner(enable_immutability_check=is_on).run(
            pipeline, extensions={"profile": Profile("Ada")}
        )
        for is_on in (False, True)
    ]

    assert unseen.success
    assert seen.error_type == "ImmutabilityViolationError"


@pytest.mark.spec("30.17.5", "G93", "G94")
@pytest.mark.parametrize("place", ["runner", "graph"])
async def test_interceptor_with_limits_of_its_own_is_kept(place: str) -> None:
    own = ContextSizeInterceptor(max_size_bytes=1)
    pipeline: Any = GREETING if place == "runner" else GREETING.build(interceptors=[own])
    runner = PipelineRunner(
        enable_context_size_monitor=True, interceptors=[own] if place == "runner" else None
    )

    result = await runner.run(pipeline)

    assert types(result).count("context.size_warning") == 2


@pytest.mark.spec("30.17.5")
async def test_given_interceptors_take_the_place_of_those_of_the_graph() -> None:
    called: list[str] = []
    graph = GREETING.build(interceptors=[Marking([])])

    await PipelineRunner(interceptors=[Marking(called)]).run(graph)
    await PipelineRunner(interceptors=()).run(graph)

    assert called == ["clean", "shout"]


@pytest.mark.spec("30.17.3", "G83", "G85")
async def test_id_that_comes_again_is_reported_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture, sink: RecordingEventSink
) -> None:
    runner = PipelineRunner(enable_uuid_monitor=True, uuid_monitor_ttl_seconds=60)
    run_id = UUID(int=7, version=4)

    with event_sink_scope(sink):
        first, again = [
            await runner.run(GREETING, pipeline_run_id=run_id, input_text="hi") for _ in range(2)
        ]

    assert runner.uuid_monitor is not None
    assert runner.uuid_monitor.statistics().observed == 2
    assert (first.warnings, again.warnings) == (
        (),
        (f"a run with the id {run_id} was seen before",),
    )
    assert again.success
    assert again.stages["shout"] == {"text": "HI"}
    # Before the run has an event of its own, so it has no number.
    assert types(again)[:2] == ["uuid.collision", "pipeline.started"]
    told = sink.assert_emitted("uuid.collision", value=str(run_id), category="pipeline")
    assert told["window_seconds"] == 60
    assert "uuid_collision" in caplog.text


@pytest.mark.spec("30.17.3", "G85")
@pytest.mark.parametrize("second_takes", [1, 3])
async def test_runs_with_one_id_may_overlap(second_takes: float, autojump_clock: MockClock) -> None:
    runner = PipelineRunner(enable_uuid_monitor=True)
    snapshot = runner.create_snapshot(input_text="2")
    results: list[RunResult] = []

    async def below(ctx: StageContext) -> None:
        await trio.sleep(0.1)

    async def work(ctx: StageContext) -> None:
        await trio.sleep(2 if len(started) == 1 else second_takes)
        child = await ctx.spawn_subpipeline(Pipeline.from_stages(StageSpec("below", below)))
        assert child.success

    started: list[int] = []

    async def run() -> None:
        started.append(1)
        pipeline = Pipeline.from_stages(StageSpec("work", work))
        results.append(await runner.run(pipeline, snapshot=snapshot))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(0.5)
        nursery.start_soon(run)

    assert all(result.success for result in results)
    assert sorted(len(result.warnings) for result in results) == [0, 1]


@pytest.mark.spec("30.17.3", "G85")
async def test_every_run_is_looked_at_once_whatever_it_begins_with() -> None:
    monitor = UuidCollisionMonitor()
    runner = PipelineRunner(uuid_monitor=monitor)
    context = PipelineContext()

    result = await runner.run(GREETING, pipeline_ctx=context)
    await runner.run(GREETING, snapshot=runner.create_snapshot())
    # A run that goes on has the id of the one before, and that is as it should be.
    resumed = await runner.run(GREETING, pipeline_run_id=result.pipeline_run_id, first_seq=7)

    assert context.pipeline_run_id == result.pipeline_run_id
    assert monitor.statistics().observed == 2
    assert resumed.warnings == ()


@pytest.mark.spec("G116", "30.19.2")
async def test_what_is_not_switched_on_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nobody asked for it")

    for name in ("start", "get_traced_memory"):
        monkeypatch.setattr(tracemalloc, name, refuse)
    monkeypatch.setattr("actorflow.diagnostics._window.IdWindow.observe", refuse)
    monkeypatch.setattr("actorflow.interceptors._context_size.json_size", refuse)
    monkeypatch.setattr("actorflow.interceptors._immutability.described", refuse)

    assert (await GREETING.run("hi")).ok("shout")
    assert (await PipelineRunner().run(GREETING, input_text="hi")).success
    runner = PipelineRunner()
    assert (runner.uuid_monitor, runner.memory_tracker) == (None, None)


# Printing


@pytest.mark.spec("30.17.10", "E64")
async def test_nothing_is_printed_unless_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    await PipelineRunner().run(GREETING)
    await run_simple_pipeline(GREETING, "hi")

    assert capsys.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.level) == (handlers, level)
    await PipelineRunner(verbose=True, colorize=False).run(GREETING)
    lines = capsys.readouterr().out.splitlines()
    assert "pipeline.started" in lines[0]
    assert "    stage: clean" in lines
    assert "\x1b" not in "".join(lines)


async def described(pipeline: Any, capsys: pytest.CaptureFixture[str], **options: Any) -> list[str]:
    runner = PipelineRunner(**options)
    runner.print_result(await runner.run(pipeline, input_text="hi"))
    return capsys.readouterr().out.splitlines()


@pytest.mark.spec("30.17.10")
async def test_result_can_be_printed(
    capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    assert await described(GREETING, capsys, colorize=False) == [
        "completed after 0.0 ms",
        "  clean: ok {'text': 'hi'}",
        "  shout: ok {'text': 'HI'}",
    ]
    failed = await described(FAILING, capsys, colorize=False)
    assert failed[0].startswith("failed after")
    assert failed[-2:] == [
        "  after_broken: not run",
        "error: stage 'broken' failed: LookupError: no such word",
    ]
    for pipeline, colour in ((GREETING, 92), (FAILING, 91)):
        assert (await described(pipeline, capsys))[0].startswith(f"\x1b[{colour}m")
    canceled = await described(CANCELING, capsys)
    assert canceled[0].startswith("\x1b[93mcancelled after")
    assert canceled[0].endswith("ms\x1b[0m")
    assert canceled[-1] == "reason: enough"


@pytest.mark.spec("30.17.10")
def test_bare_result_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    PipelineRunner(colorize=False).print_result(RunResult(True, warnings=("careful",)))

    assert capsys.readouterr().out == "completed after 0.0 ms\nwarning: careful\n"


# In one line


@pytest.mark.spec("30.17.2", "30.17.6")
async def test_pipeline_is_run_on_a_text_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    async def look(ctx: StageContext) -> None:
        seen.append((ctx.snapshot.execution_mode, dict(ctx.snapshot.metadata)))

    pipeline = GREETING.with_stage("look", look)
    result = await run_simple_pipeline(
        pipeline, "hi", execution_mode="strict", metadata={"lang": "en"}, verbose=True
    )

    assert result.get_stage_data("shout", "text") == "HI"
    assert seen == [("strict", {"channel": "cli", "lang": "en"})]
    assert "pipeline.completed" in capsys.readouterr().out


# Not an engine of its own


@pytest.mark.spec("30.17.2")
async def test_runner_runs_what_the_pipeline_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    run: Callable[..., Any] = UnifiedStageGraph.run

    async def counted(self: UnifiedStageGraph, *args: Any, **kwargs: Any) -> Any:
        runs.append(self)
        return await run(self, *args, **kwargs)

    monkeypatch.setattr(UnifiedStageGraph, "run", counted)
    await PipelineRunner().run(GREETING)
    await GREETING.run()

    # The same graph, so what interceptors remember is remembered for both.
    assert runs == [GREETING.graph] * 2
