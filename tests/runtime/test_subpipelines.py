"""Runs started by stages (30.16)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MaxDepthExceededError,
    PipelineNotFoundError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.model import StageOutput
from actorflow.pipeline import Pipeline, PipelineBuilder, StageSpec, pipeline_registry
from actorflow.runtime import (
    ChildRunTracker,
    SubpipelineSpawner,
    UnifiedStageGraph,
    clear_subpipeline_spawner,
    get_child_tracker,
    get_subpipeline_spawner,
    set_subpipeline_spawner,
)
from actorflow.stages import PipelineContext, StageContext, SubpipelineResult
from actorflow.testing import RecordingEventSink

from .stages import nothing, spec


async def fail(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("no")


def told(sink: RecordingEventSink) -> list[tuple[str, str | None]]:
    """Type of each event, and whose it is: the pipeline's name or the stage's."""
    return [(e.type, e.data.get("stage") or e.data.get("pipeline_name")) for e in sink.events]


def spawning(child: Any, into: list[SubpipelineResult] | None = None, **options: Any) -> Any:
    """A stage that runs a child and keeps how that ended."""

    async def spawn(ctx: StageContext) -> None:
        result = await ctx.spawn_subpipeline(child, **options)
        if into is not None:
            into.append(result)

    return spawn


# Spawning


@pytest.mark.spec("30.16.5", "30.16.7", "30.16.8", "30.16.10", "E18", "E70")
async def test_child_runs_in_its_parent_with_events_and_data_of_its_own(
    sink: RecordingEventSink,
) -> None:
    async def greet(ctx: StageContext) -> dict[str, Any]:
        return {"text": f"hi {ctx.snapshot.input_text}", "user": str(ctx.user_id)}

    results: list[SubpipelineResult] = []
    child = Pipeline("child", [spec("greet", greet)])
    parent = UnifiedStageGraph(
        [spec("ask", spawning(child, results, correlation_id="c-1"))], pipeline_name="parent"
    )
    user = uuid4()
    context = PipelineContext(input_text="ann", user_id=user)

    await parent.run(context, event_sink=sink)

    [result] = results
    assert result.success
    assert result.data == {"greet": {"text": "hi ann", "user": str(user)}}
    assert result.results is not None
    assert told(sink) == [
        ("pipeline.started", "parent"),
        ("stage.started", "ask"),
        ("pipeline.spawned_child", "child"),
        ("pipeline.started", "child"),
        ("stage.started", "greet"),
        ("stage.completed", "greet"),
        ("pipeline.completed", "child"),
        ("pipeline.child_completed", "child"),
        ("stage.completed", "ask"),
        ("pipeline.completed", "parent"),
    ]
    sink.assert_seq_contiguous(str(context.pipeline_run_id))
    sink.assert_seq_contiguous(str(result.child_run_id))
    family = {
        "parent_run_id": str(context.pipeline_run_id),
        "child_run_id": str(result.child_run_id),
        "pipeline_name": "child",
    }
    sink.assert_emitted(
        "pipeline.spawned_child", **family, parent_stage_id="ask", correlation_id="c-1"
    )
    sink.assert_emitted("pipeline.child_completed", **family)
    sink.assert_emitted(
        "pipeline.started",
        pipeline_run_id=str(result.child_run_id),
        parent_run_id=str(context.pipeline_run_id),
    )
    assert await get_child_tracker().get_children(context.pipeline_run_id or uuid4()) == set()


async def test_child_may_be_given_a_text_and_data_of_its_own() -> None:
    async def look(ctx: StageContext) -> dict[str, Any]:
        return {"text": ctx.snapshot.input_text, "data": dict(ctx.data), "mode": ctx.execution_mode}

    results: list[SubpipelineResult] = []

    async def spawn(ctx: StageContext) -> None:
        results.append(
            await ctx.spawn_subpipeline(
                UnifiedStageGraph([spec("look", look)]),
                "other text",
                execution_mode="test",
                inherit_data=["k"],
                data_overrides={"o": 2},
            )
        )

    await UnifiedStageGraph([spec("spawn", spawn)]).run(
        PipelineContext(input_text="text", data={"k": 1, "other": 0})
    )

    assert results[0].data == {
        "look": {"text": "other text", "data": {"k": 1, "o": 2}, "mode": "test"}
    }


async def test_child_is_a_pipeline_a_builder_a_graph_or_a_registered_name() -> None:
    pipeline = Pipeline("made", [spec("a", nothing)])
    pipeline_registry.register("by-name", pipeline)
    results: list[SubpipelineResult] = []
    children = [pipeline, PipelineBuilder("b", pipeline.stages), pipeline.build(), "by-name"]
    try:
        await UnifiedStageGraph(
            [spec(f"s{i}", spawning(child, results)) for i, child in enumerate(children)]
        ).run()
    finally:
        pipeline_registry.unregister("by-name")

    assert [result.data for result in results] == [{"a": {}}] * 4


@pytest.mark.spec("30.16.8")
async def test_failure_of_a_child_is_a_result(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def boom(ctx: StageContext) -> None:
        await trio.sleep(1)
        raise LookupError("gone")

    results: list[SubpipelineResult] = []
    child = Pipeline("child", [spec("done", nothing), spec("boom", boom, "done")])

    await UnifiedStageGraph([spec("ask", spawning(child, results))]).run(event_sink=sink)

    [result] = results
    assert (result.success, result.canceled, result.error_type) == (False, False, "LookupError")
    assert result.error == "stage 'boom' failed: LookupError: gone"
    assert result.results is not None
    assert list(result.results) == ["done", "boom"]
    assert result.duration_ms == 1000.0
    assert sink.types()[-3:] == ["pipeline.child_failed", "stage.completed", "pipeline.completed"]
    sink.assert_emitted("pipeline.child_failed", error_message=result.error, duration_ms=1000.0)


@pytest.mark.spec("30.16.8")
async def test_cancellation_of_a_child_alone_is_a_result(sink: RecordingEventSink) -> None:
    async def enough(ctx: StageContext) -> StageOutput:
        return StageOutput.cancel("enough")

    results: list[SubpipelineResult] = []
    child = Pipeline("child", [spec("done", nothing), spec("enough", enough, "done")])

    await UnifiedStageGraph([spec("ask", spawning(child, results))]).run(event_sink=sink)

    [result] = results
    assert (result.success, result.canceled, result.cancel_reason) == (False, True, "enough")
    assert result.results is not None
    assert "done" in result.results
    assert "pipeline.child_failed" not in sink.types()
    assert get_subpipeline_spawner().is_canceled(result.child_run_id)
    sink.assert_emitted("pipeline.canceled", reason="enough", cascade_depth=0)


@pytest.mark.spec("30.16.9")
def test_result_is_written_without_what_was_not_set() -> None:
    run_id = uuid4()

    assert SubpipelineResult(success=True, child_run_id=run_id).to_dict() == {
        "success": True,
        "child_run_id": str(run_id),
        "duration_ms": 0.0,
    }


@pytest.mark.spec("30.16.6")
@pytest.mark.parametrize("max_depth", [1, 5])
async def test_depth_is_limited_whichever_spawner_is_used(
    max_depth: int, sink: RecordingEventSink
) -> None:
    depths: list[int] = []
    results: list[SubpipelineResult] = []
    pipeline = Pipeline("recursive")

    async def deeper(ctx: StageContext) -> None:
        depths.append(len(depths))
        # A new spawner knows as well as the last one how deep this is.
        set_subpipeline_spawner(SubpipelineSpawner(max_depth=max_depth))
        results.append(await ctx.spawn_subpipeline(endless))

    endless = pipeline.with_stage("deeper", deeper)
    with pytest.raises(MaxDepthExceededError) as caught:
        if max_depth == 5:
            clear_subpipeline_spawner()
        await spawn_to_the_end(endless, results, sink)
    clear_subpipeline_spawner()

    assert len(depths) == max_depth + 1
    assert (caught.value.current_depth, caught.value.max_depth) == (max_depth, max_depth)
    assert sink.types().count("pipeline.spawned_child") == max_depth


async def spawn_to_the_end(
    pipeline: Pipeline, results: list[SubpipelineResult], sink: RecordingEventSink
) -> None:
    await pipeline.run(event_sink=sink, failure_mode="best_effort")
    deepest = results[0]
    assert deepest.error_type == "MaxDepthExceededError"
    assert deepest.results is not None
    failures = deepest.results.failures  # type: ignore[attr-defined]  # a PipelineResults
    raise failures[0].exception


async def test_what_cannot_be_run_is_refused(sink: RecordingEventSink) -> None:
    async def tries(ctx: StageContext) -> None:
        with pytest.raises(PipelineNotFoundError):
            await ctx.spawn_subpipeline("no-such-pipeline")
        with pytest.raises(InvalidTypeError, match="pipeline must be"):
            await ctx.spawn_subpipeline(42)
        with pytest.raises(InvalidTypeError, match="source must be"):
            await ctx.spawn_subpipeline(Pipeline("p", [spec("a", nothing)]), 42)

    await UnifiedStageGraph([spec("tries", tries)]).run(event_sink=sink)

    assert "pipeline.spawned_child" not in sink.types()
    with pytest.raises(InvalidArgumentError, match="max_depth"):
        SubpipelineSpawner(max_depth=0)


# The spawner by itself


@pytest.mark.spec("30.16.8", "30.16.10")
async def test_spawner_runs_any_function_on_a_forked_context(sink: RecordingEventSink) -> None:
    spawner = SubpipelineSpawner(ChildRunTracker())
    context = PipelineContext(event_sink=sink)

    async def mapping(child: PipelineContext) -> dict[str, int]:
        assert child.parent_run_id == context.pipeline_run_id
        return {"n": 1}

    async def other(child: PipelineContext) -> int:
        return 42

    async def broken(child: PipelineContext) -> None:
        raise LookupError

    assert (await spawner.spawn("m", context, None, "s", mapping)).data == {"n": 1}
    assert (await spawner.spawn("o", context, None, "s", other)).data == {"result": 42}
    failed = await spawner.spawn("b", context, None, "s", broken)
    assert (failed.error, failed.error_type) == ("LookupError", "LookupError")
    assert context.pipeline_run_id is not None
    assert sink.types()[:2] == ["pipeline.spawned_child", "pipeline.child_completed"]


async def test_spawner_may_be_told_to_report_nothing(sink: RecordingEventSink) -> None:
    spawner = SubpipelineSpawner(emit_events=False)

    async def run(child: PipelineContext) -> None: ...

    await spawner.spawn("quiet", PipelineContext(event_sink=sink), None, "s", run)

    assert sink.events == []


async def test_spawner_takes_the_context_of_a_stage_in_a_run_and_nothing_else() -> None:
    spawner = SubpipelineSpawner()
    results = []

    async def run(child: PipelineContext) -> dict[str, Any]:
        return {"depth": child.depth}

    async def stage(ctx: StageContext) -> None:
        results.append(await spawner.spawn("p", ctx, None, ctx.stage_name, run))

    await UnifiedStageGraph([spec("a", stage)]).run()
    assert results[0].data == {"depth": 1}

    snapshot = PipelineContext().snapshot
    by_hand: Any = PipelineContext().derive_for_stage("a", snapshot=snapshot)
    nonsense: Any = {}
    for ctx in (by_hand, nonsense):
        with pytest.raises(InvalidTypeError, match="ctx must be"):
            await spawner.spawn("p", ctx, None, "s", run)


# Cascades


def nested(depth: int) -> Pipeline:
    """A pipeline whose stage runs one like it, down to one that waits."""
    if depth == 0:
        return Pipeline("level0", [spec("wait", cleaning)])
    inner = nested(depth - 1)
    return Pipeline(f"level{depth}", [spec("spawn", spawning(inner)), spec("side", cleaning)])


async def cleaning(ctx: StageContext) -> None:
    ctx.add_cleanup(lambda: ctx.try_emit_event("app.cleaned", {"level": ctx.pipeline_name}))
    await trio.sleep_forever()


@pytest.mark.spec("30.16.11", "30.7.1", "E12")
@pytest.mark.parametrize("way", ["handle", "context", "family"])
async def test_cancelling_reaches_all_descendants_deepest_first(
    way: str, sink: RecordingEventSink
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    spawner = get_subpipeline_spawner()
    ended: list[UUID] = []

    async with nested(3).start(event_sink=sink) as run:
        await wait_all_tasks_blocked()
        root = run.context.pipeline_run_id
        assert root is not None
        assert len(await get_child_tracker().get_all_descendants(root)) == 3
        match way:
            case "handle":
                run.cancel("hung up")
            case "context":
                run.context.mark_canceled("hung up")
            case "family":
                ended = await spawner.cancel_with_children(root, "hung up")
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    assert trio.lowlevel.current_statistics().tasks_living == before
    payloads = sink.payloads("pipeline.canceled")
    told = [(p["pipeline_name"], p["cascade_depth"], p["reason"]) for p in payloads]
    assert told == [(f"level{3 - depth}", depth, "hung up") for depth in (3, 2, 1, 0)]
    assert len(sink.payloads("app.cleaned")) == 4
    for payload in payloads:
        sink.assert_seq_contiguous(payload["pipeline_run_id"])
    assert await get_child_tracker().get_all_descendants(root) == set()
    if way == "family":
        assert [str(run_id) for run_id in ended] == [p["pipeline_run_id"] for p in payloads]
        assert all(map(spawner.is_canceled, ended))


@pytest.mark.spec("30.16.11", "30.7.6")
async def test_cancelled_scope_around_the_root_reaches_all_descendants(
    sink: RecordingEventSink,
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_blocked, scope)
            await nested(2).run(event_sink=sink)

    told = [(p["pipeline_name"], p["cascade_depth"]) for p in sink.payloads("pipeline.canceled")]
    assert told == [("level0", 2), ("level1", 1), ("level2", 0)]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


@pytest.mark.spec("30.16.11")
async def test_cancelling_in_the_middle_leaves_the_parent_going(sink: RecordingEventSink) -> None:
    results: list[SubpipelineResult] = []
    middle = nested(1)

    async with Pipeline("root", [spec("ask", spawning(middle, results))]).start(
        event_sink=sink
    ) as run:
        await wait_all_tasks_blocked()
        [child] = await get_child_tracker().get_children(run.context.pipeline_run_id or uuid4())
        ended = await get_subpipeline_spawner().cancel_with_children(child, "skip it")
        assert list(await run.wait()) == ["ask"]

    assert ended[-1] == child
    assert (results[0].canceled, results[0].cancel_reason) == (True, "skip it")
    told = [(p["pipeline_name"], p["cascade_depth"]) for p in sink.payloads("pipeline.canceled")]
    assert told == [("level0", 1), ("level1", 0)]


@pytest.mark.spec("30.16.12")
async def test_family_of_a_run_that_is_unknown_or_over_is_empty() -> None:
    spawner = SubpipelineSpawner()
    context = PipelineContext()
    await UnifiedStageGraph([spec("a", nothing)]).run(context)

    assert await spawner.cancel_with_children(uuid4()) == []
    assert await spawner.cancel_with_children(context.pipeline_run_id or uuid4()) == []


@pytest.mark.spec("30.16.12")
async def test_family_may_have_members_that_are_no_runs() -> None:
    spawner = get_subpipeline_spawner()

    async def wait(child: PipelineContext) -> None:
        await trio.sleep_forever()

    async def stage(ctx: StageContext) -> None:
        await spawner.spawn("p", ctx, None, ctx.stage_name, wait)

    async with UnifiedStageGraph([spec("a", stage)]).start() as run:
        await wait_all_tasks_blocked()
        root = run.context.pipeline_run_id
        assert root is not None
        [child] = await get_child_tracker().get_children(root)
        assert await spawner.cancel_with_children(root) == [root]
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    assert spawner.is_canceled(child)


@pytest.mark.spec("30.16.13")
async def test_only_so_many_canceled_runs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow.runtime._subpipeline._REMEMBERED", 2)
    spawner = SubpipelineSpawner()
    canceled = []

    async def run(child: PipelineContext) -> None:
        canceled.append(child.pipeline_run_id)
        raise UnifiedPipelineCancelled("a", "no", {}, (), "p", child.pipeline_run_id)

    for _ in range(3):
        await spawner.spawn("p", PipelineContext(), None, "s", run)

    assert [spawner.is_canceled(run_id) for run_id in canceled if run_id] == [False, True, True]


@pytest.mark.spec("30.16.14")
async def test_timeout_of_the_spawning_stage_cancels_the_child(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    child = Pipeline("child", [spec("wait", cleaning)])
    graph = UnifiedStageGraph([spec("ask", spawning(child), timeout=1)], failure_mode="best_effort")

    results = await graph.run(event_sink=sink)

    assert results.failures[0].error_type == "StageTimeoutError"
    sink.assert_emitted("pipeline.canceled", pipeline_name="child", cascade_depth=0)
    assert len(sink.payloads("app.cleaned")) == 1


@pytest.mark.spec("30.16.14")
async def test_failure_of_a_sibling_cancels_the_child(sink: RecordingEventSink) -> None:
    async def fail_later(ctx: StageContext) -> StageOutput:
        await wait_all_tasks_blocked()
        return StageOutput.fail("no")

    child = Pipeline("child", [spec("wait", cleaning)])
    with pytest.raises(UnifiedStageExecutionError):
        await UnifiedStageGraph([spec("ask", spawning(child)), spec("fail", fail_later)]).run(
            event_sink=sink
        )

    sink.assert_emitted(
        "pipeline.canceled", pipeline_name="child", reason="stage 'fail' failed", cascade_depth=1
    )
    assert sink.types()[-1] == "pipeline.failed"


@pytest.mark.spec("30.8.6")
async def test_child_has_a_limit_of_its_own(autojump_clock: MockClock) -> None:
    async def one(ctx: StageContext) -> None:
        await trio.sleep(1)

    child = Pipeline("child", [spec(f"c{i}", one) for i in range(4)], max_concurrency=2)
    begun_at = trio.current_time()

    await UnifiedStageGraph([spec("ask", spawning(child))], max_concurrency=1).run()

    assert trio.current_time() - begun_at == 2


def test_one_spawner_is_shared_until_another_is_set() -> None:
    shared = get_subpipeline_spawner()
    mine = SubpipelineSpawner()

    set_subpipeline_spawner(mine)
    assert get_subpipeline_spawner() is mine
    clear_subpipeline_spawner()
    assert get_subpipeline_spawner() is shared


# Random families


@st.composite
def families(draw: st.DrawFn, depth: int = 3) -> Pipeline:
    """A pipeline of stages that sleep, fail, cancel, or run pipelines like it."""
    specs: list[StageSpec] = []
    for number in range(draw(st.integers(1, 3))):
        kinds = ["sleep", "sleep", "fail", "cancel"] + (["spawn", "spawn"] if depth else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "spawn":
            runner = spawning(draw(families(depth=depth - 1)))
        else:
            runner = sleeper(draw(st.sampled_from([0.0, 0.1, 0.5])), kind)
        before = [one.name for one in specs]
        needed = draw(st.lists(st.sampled_from(before), unique=True, max_size=1)) if before else []
        specs.append(spec(f"s{number}", runner, *needed))
    mode = draw(st.sampled_from(["fail_fast", "continue_on_failure", "best_effort"]))
    return Pipeline(f"depth{depth}", specs, failure_mode=mode)


def sleeper(seconds: float, end: str) -> Any:
    async def sleep(ctx: StageContext) -> StageOutput:
        await trio.sleep(seconds)
        match end:
            case "fail":
                return StageOutput.fail("no")
            case "cancel":
                return StageOutput.cancel("enough")
        return StageOutput.ok()

    return sleep


@pytest.mark.spec("30.1.1", "30.16.5", "30.16.7", "E70")
@settings(max_examples=80)
@given(pipeline=families(), cancel_after=st.sampled_from([None, 0.0, 0.05, 0.3]))
def test_no_child_outlives_its_parent(pipeline: Pipeline, cancel_after: float | None) -> None:
    async def main() -> None:
        sink = RecordingEventSink(strict=True)
        before = trio.lowlevel.current_statistics().tasks_living
        context = PipelineContext()
        try:
            with trio.move_on_after(60 if cancel_after is None else cancel_after):
                await pipeline.run(context, event_sink=sink)
        except (UnifiedStageExecutionError, UnifiedPipelineCancelled):
            pass
        assert trio.lowlevel.current_statistics().tasks_living == before
        check_family(sink, str(context.pipeline_run_id))
        metrics = await get_child_tracker().get_metrics()
        assert metrics["total_relationships"] == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


def check_family(sink: RecordingEventSink, root: str) -> None:
    endings = ("pipeline.completed", "pipeline.failed", "pipeline.canceled")
    ended: list[str] = []
    parents = {
        p["child_run_id"]: p["parent_run_id"] for p in sink.payloads("pipeline.spawned_child")
    }
    for event in sink.events:
        run_id = event.data["pipeline_run_id"]
        assert run_id not in ended
        if event.type in endings:
            # Whoever is above is still there.
            assert parents.get(run_id) not in ended
            ended.append(run_id)
    assert sorted(ended) == sorted([root, *parents])
    for run_id in ended:
        sink.assert_seq_contiguous(run_id)
    for child in parents:
        fates = [
            e.type
            for e in sink.events
            if e.data.get("child_run_id") == child and e.type != "pipeline.spawned_child"
        ]
        canceled = any(
            e.type == "pipeline.canceled" and e.data["pipeline_run_id"] == child
            for e in sink.events
        )
        assert len(fates) == (0 if canceled else 1)
