"""Entry points, order and readiness of runs (30.1, 30.2)."""

from __future__ import annotations

import gc
import random
import re
import threading
import uuid
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import open_system
from actorflow.errors import (
    ContextInUseError,
    DeadlockedGraphError,
    InvalidTypeError,
    PipelineValidationError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.events import event_sink_scope
from actorflow.interceptors import RetryInterceptor
from actorflow.model import ContextSnapshot, RunIdentity, StageOutput
from actorflow.pipeline import Pipeline
from actorflow.runtime import PipelineResults, RunPhase, StageState, UnifiedStageGraph
from actorflow.runtime._lane import Lane
from actorflow.runtime._run_state import RunState
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

from .stages import forever, nothing, spec


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


# Entry points


@pytest.mark.spec("30.1.1", "20.7.6")
async def test_run_returns_what_every_stage_put_out() -> None:
    async def upper(ctx: StageContext) -> dict[str, str]:
        return {"text": (ctx.snapshot.input_text or "").upper()}

    async def shout(ctx: StageContext) -> dict[str, str]:
        return {"text": ctx.inputs.require_from("upper", "text") + "!"}

    results = await Pipeline.from_stages(spec("upper", upper), spec("shout", shout, "upper")).run(
        "hello"
    )

    assert isinstance(results, PipelineResults)
    assert results.data("shout") == {"text": "HELLO!"}
    assert list(results) == ["upper", "shout"]


@pytest.mark.spec("20.7.6")
@pytest.mark.parametrize(
    "source",
    [
        "hi",
        ContextSnapshot(RunIdentity(), input_text="hi", topology="chat"),
        PipelineContext(input_text="hi", topology="chat"),
    ],
)
async def test_run_begins_with_a_text_a_snapshot_or_a_context(source: Any) -> None:
    async def look(ctx: StageContext) -> dict[str, Any]:
        return {"text": ctx.snapshot.input_text, "topology": ctx.topology}

    graph = UnifiedStageGraph([spec("look", look)], pipeline_name="chat")

    assert (await graph.run(source)).data("look") == {"text": "hi", "topology": "chat"}


@pytest.mark.spec("20.7.6")
async def test_fields_of_a_context_may_be_given_with_a_text() -> None:
    async def look(ctx: StageContext) -> dict[str, Any]:
        return {"user": str(ctx.user_id), "topology": ctx.topology, "x": ctx.data["x"]}

    user = "12345678-1234-5678-1234-567812345678"
    pipeline = Pipeline("voice", [spec("look", look)])

    results = await pipeline.run("hi", user_id=user, data={"x": 1})

    assert results.data("look") == {"user": user, "topology": "voice", "x": 1}


async def test_source_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="source must be"):
        await UnifiedStageGraph([spec("a", nothing)]).run(42)  # type: ignore[arg-type]  # the point


@pytest.mark.spec("10.11.11")
async def test_context_serves_one_run_at_a_time_and_then_another() -> None:
    context = PipelineContext()
    graph = UnifiedStageGraph([spec("a", nothing)])
    slow = UnifiedStageGraph([spec("slow", forever)])

    async with slow.start(context) as run:
        with pytest.raises(ContextInUseError):
            await graph.run(context)
        with pytest.raises(ContextInUseError):
            async with graph.start(context):
                pytest.fail("the context is taken")
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    await graph.run(PipelineContext())
    other = PipelineContext()
    await graph.run(other)
    first = other.outputs
    await graph.run(other)
    assert other.outputs is not first
    assert other.outputs.keys() == ["a"]


@pytest.mark.spec("30.2.8")
async def test_runs_with_one_id_do_not_mix(autojump_clock: MockClock) -> None:
    ended = []

    async def run(seconds: float) -> None:
        async def rest(ctx: StageContext) -> None:
            await trio.sleep(seconds)

        context = PipelineContext(pipeline_run_id=uuid.UUID(int=1))
        await UnifiedStageGraph([spec("a", rest)]).run(context)
        ended.append(seconds)

    for others in ((1, 2), (2, 1)):
        async with trio.open_nursery() as nursery:
            for seconds in others:
                nursery.start_soon(run, seconds)

    assert ended == [1, 2, 1, 2]


class Kept(list[str]):
    """A sink that is false until it has something."""

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.append(type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        self.append(type)
        return True


async def test_sink_may_be_empty() -> None:
    given, of_context, current = Kept(), Kept(), Kept()
    graph = UnifiedStageGraph([spec("a", nothing)])

    await graph.run(event_sink=given)
    await graph.run(PipelineContext(event_sink=of_context))
    with event_sink_scope(current):
        await graph.run()

    assert given == of_context == current
    assert given[-1] == "pipeline.completed"


@pytest.mark.spec("30.1.1")
async def test_nothing_outlives_a_run(autojump_clock: MockClock) -> None:
    async def helper(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)

    before = tasks()
    graph = UnifiedStageGraph([spec("a", helper), spec("b", nothing, "a")])

    await graph.run()

    assert tasks() == before


@pytest.mark.spec("30.1.2")
async def test_block_waits_for_the_run_and_raises_as_run_would() -> None:
    async def fail(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no")

    ended = []

    async def work(ctx: StageContext) -> None:
        await trio.testing.wait_all_tasks_blocked()
        ended.append("work")

    async with UnifiedStageGraph([spec("work", work)]).start() as run:
        assert ended == []
    assert ended == ["work"]
    assert run.status().state is RunPhase.COMPLETED
    assert list(run.results) == ["work"]
    assert "StageResult(name='work'" in repr(run.results.stage_results)

    with pytest.raises(UnifiedStageExecutionError):
        async with UnifiedStageGraph([spec("fail", fail)]).start():
            pass


@pytest.mark.spec("30.1.2")
async def test_block_does_not_raise_again_what_wait_has_raised() -> None:
    async def fail(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no")

    async with UnifiedStageGraph([spec("fail", fail)]).start() as run:
        with pytest.raises(UnifiedStageExecutionError):
            await run.wait()

    async with UnifiedStageGraph([spec("fine", nothing)]).start() as run:
        assert list(await run.wait()) == ["fine"]


@pytest.mark.spec("30.1.2")
async def test_exception_in_the_block_cancels_the_run_and_goes_on(
    sink: RecordingEventSink,
) -> None:
    cleaned = []

    async def work(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append("cleaned"))
        await trio.sleep_forever()

    before = tasks()
    boom = LookupError("boom")

    with pytest.raises(LookupError) as caught:
        async with UnifiedStageGraph([spec("work", work)]).start(event_sink=sink):
            await wait_all_tasks_blocked()
            raise boom

    assert caught.value is boom
    assert cleaned == ["cleaned"]
    assert tasks() == before
    sink.assert_emitted("pipeline.canceled", reason="block left by LookupError", stage=None)


async def test_cancelled_block_cancels_the_run_and_is_cancelled(sink: RecordingEventSink) -> None:
    with trio.CancelScope() as scope:
        async with UnifiedStageGraph([spec("work", forever)]).start(event_sink=sink):
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    sink.assert_emitted("pipeline.canceled", reason="Cancelled by enclosing scope")


async def test_block_left_while_it_is_cancelled_loses_no_exception() -> None:
    with trio.CancelScope() as scope, pytest.raises(LookupError):
        async with UnifiedStageGraph([spec("work", forever)]).start():
            await wait_all_tasks_blocked()
            scope.cancel()
            raise LookupError


async def test_waiting_at_the_end_of_a_block_can_be_cancelled() -> None:
    with trio.move_on_after(0) as scope:
        async with UnifiedStageGraph([spec("work", forever)]).start():
            pass

    assert scope.cancelled_caught


@pytest.mark.spec("30.1.3", "30.8.7")
async def test_status_shows_every_stage_at_any_time(autojump_clock: MockClock) -> None:
    async def one(ctx: StageContext) -> None:
        await trio.sleep(1)

    graph = UnifiedStageGraph(
        [spec("a", one), spec("b", one, "a"), spec("c", one, "b"), spec("q", one, "a")],
        pipeline_name="p",
        max_concurrency=1,
    )

    async with graph.start() as run:
        pending = run.status()
        await trio.sleep(1.5)
        midway = run.status()

    assert (pending.state, pending.started_at) == (RunPhase.PENDING, None)
    assert set(pending.stages.values()) == {StageState.WAITING}
    assert (midway.state, midway.ended_at, midway.pipeline_name) == (RunPhase.RUNNING, None, "p")
    assert midway.stages == {"a": "completed", "b": "running", "c": "waiting", "q": "queued"}
    ended = run.status()
    assert ended.state is RunPhase.COMPLETED
    assert ended.run_id == run.run_id == run.context.pipeline_run_id
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert (ended.ended_at - ended.started_at).total_seconds() == 4
    assert "completed" in repr(run)
    assert run.pipeline_name == "p"


@pytest.mark.spec("30.1.3")
async def test_results_of_a_running_run_are_partial(autojump_clock: MockClock) -> None:
    graph = UnifiedStageGraph([spec("a", nothing), spec("b", forever, "a")])

    async with graph.start() as run:
        await wait_all_tasks_blocked()
        assert list(run.results) == ["a"]
        assert run.context.outputs.keys() == ["a"]
        run.cancel()
        assert run.status().state is RunPhase.CANCELING
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()
    assert run.status().state is RunPhase.CANCELED


@pytest.mark.spec("30.1.4")
async def test_mistake_of_the_supervisor_stops_stages_cleans_up_and_comes_out(
    monkeypatch: pytest.MonkeyPatch, sink: RecordingEventSink
) -> None:
    cleaned = []

    async def work(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append("cleaned"))
        await trio.sleep_forever()

    async def late(ctx: StageContext) -> None:
        await wait_all_tasks_blocked()

    def ended(self: object, *args: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(RunState, "ended", ended)
    before = tasks()

    graph = UnifiedStageGraph([spec("work", work), spec("late", late)])
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await graph.run(event_sink=sink)

    assert cleaned == ["cleaned"]
    assert tasks() == before
    assert sink.types()[-1] == "pipeline.failed"
    sink.assert_emitted("pipeline.failed", error="a mistake", error_type="ZeroDivisionError")


@pytest.mark.spec("30.1.4")
async def test_mistake_about_the_only_stage_that_runs_comes_out(
    monkeypatch: pytest.MonkeyPatch, sink: RecordingEventSink
) -> None:
    def called(self: object, stage: object) -> None:
        raise ZeroDivisionError("a mistake")

    graph = UnifiedStageGraph([spec("a", nothing), spec("b", nothing, "a")])
    monkeypatch.setattr(RunState, "_let_dependents_know", called)

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await graph.run(event_sink=sink)

    sink.assert_emitted("pipeline.failed", error="a mistake", error_type="ZeroDivisionError")


async def test_failed_supervisor_shows_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: object, now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RunState, "begin", begin)

    with pytest.raises(ZeroDivisionError):
        async with UnifiedStageGraph([spec("a", nothing)]).start() as run:
            pass

    assert run.status().state is RunPhase.FAILED


@pytest.mark.spec("30.2.5")
async def test_run_that_cannot_go_on_raises_instead_of_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunState, "_let_dependents_know", lambda self, stage: None)

    with pytest.raises(DeadlockedGraphError) as caught:
        await UnifiedStageGraph([spec("a", nothing), spec("b", nothing, "a")]).run()

    assert caught.value.remaining == ("b",)


@pytest.mark.spec("30.1.5")
async def test_run_works_in_a_task_of_a_nursery_and_in_an_open_system() -> None:
    graph = UnifiedStageGraph([spec("a", nothing)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(graph.run)
        nursery.start_soon(graph.run)
    async with open_system():
        assert list(await graph.run()) == ["a"]


@pytest.mark.spec("30.1.4")
async def test_run_and_its_stages_show_in_the_tree_of_the_system() -> None:
    graph = UnifiedStageGraph(
        [spec("mic", forever), spec("next", nothing, "mic")], pipeline_name="voice"
    )

    async with open_system() as system:
        async with graph.start() as run:
            await wait_all_tasks_blocked()
            shown = str(system.tree())
            run.cancel()
            with pytest.raises(UnifiedPipelineCancelled):
                await run.wait()
        afterwards = str(system.tree())

    assert f"run voice {run.run_id}" in shown
    assert "    mic" in shown
    assert "next" not in shown
    assert "voice" not in afterwards


@pytest.mark.spec("30.1.4", "30.16.5")
async def test_tree_shows_tries_and_children_where_they_belong(autojump_clock: MockClock) -> None:
    async def flaky(ctx: StageContext) -> StageOutput:
        await trio.sleep(1)
        return StageOutput.ok() if ctx.try_number > 2 else StageOutput.retry("busy")

    async def spawning(ctx: StageContext) -> None:
        await ctx.spawn_subpipeline(
            UnifiedStageGraph([spec("search", spawned)], pipeline_name="inner")
        )

    async def spawned(ctx: StageContext) -> None:
        await ctx.spawn_subpipeline(
            UnifiedStageGraph([spec("deep", forever)], pipeline_name="innermost")
        )

    graph = UnifiedStageGraph(
        [spec("flaky", flaky), spec("spawning", spawning)],
        pipeline_name="outer",
        interceptors=[RetryInterceptor(base_delay_ms=1000, jitter_strategy="none")],
    )

    async def beside(context: PipelineContext) -> None:
        # A run may name its parent without being started by one of its stages.
        await UnifiedStageGraph([spec("aside", forever)], pipeline_name="beside").run(context)

    async with open_system() as system, trio.open_nursery() as nursery, graph.start() as run:
        # A run is shown below its parent if that is shown already.
        await wait_all_tasks_blocked()
        nursery.start_soon(beside, PipelineContext(parent_run_id=run.run_id))
        await trio.sleep(2.5)
        shown = str(system.tree())
        paths = [info.path for _, info in system.tree().walk()]
        nursery.cancel_scope.cancel()

    lines = [re.sub(r" [0-9a-f-]{36}", "", line) for line in shown.splitlines()]
    assert lines == [
        "system  running",
        "  run outer  running",
        "    flaky  running  restarts 1",
        "    spawning  running",
        "      run inner  running",
        "        search  running",
        "          run innermost  running",
        "            deep  running",
        "    run beside  running",
        "      aside  running",
    ]
    assert len(set(paths)) == len(paths)


# Order and readiness


@pytest.mark.spec("30.2.2")
def test_same_timings_give_the_same_events_whatever_the_scheduler_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sleeper(seconds: float) -> Any:
        async def sleep(ctx: StageContext) -> None:
            await trio.sleep(seconds)

        return sleep

    graph = UnifiedStageGraph(
        [
            spec("e", nothing, "c", "a"),
            spec("a", sleeper(3)),
            spec("b", sleeper(1)),
            spec("c", sleeper(2), "b"),
            spec("d", sleeper(2), "b"),
        ]
    )

    def told(seed: int) -> list[tuple[str, Any]]:
        # trio shuffles tasks that are due together; the run must not care.
        monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))
        sink = RecordingEventSink(strict=True)

        async def run() -> None:
            await graph.run(event_sink=sink)

        trio.run(run, clock=MockClock(autojump_threshold=0))
        return [(event.type, event.data.get("stage")) for event in sink.events]

    first = told(0)

    assert [stage for type_, stage in first if type_ == "stage.started"] == [
        "a",
        "b",
        "c",
        "d",
        "e",
    ]
    assert [stage for type_, stage in first if type_ == "stage.completed"] == [
        "b",
        "a",
        "c",
        "d",
        "e",
    ]
    assert all(told(seed) == first for seed in range(1, 20))


@pytest.mark.spec("30.2.3")
async def test_independent_stages_wait_at_the_same_time(autojump_clock: MockClock) -> None:
    async def one(ctx: StageContext) -> None:
        await trio.sleep(1)

    begun = trio.current_time()
    await UnifiedStageGraph([spec(f"s{i}", one) for i in range(100)]).run()

    assert trio.current_time() - begun == 1


@pytest.mark.spec("30.2.4", "20.15.1")
async def test_chain_of_ten_thousand_stages_declared_last_to_first_runs() -> None:
    specs = [spec(f"s{i}", nothing, *([f"s{i - 1}"] if i else [])) for i in range(10_000)]

    results = await UnifiedStageGraph(reversed(specs)).run()

    assert len(results) == 10_000


@pytest.mark.spec("30.2.7", "10.15.6")
async def test_dependents_read_what_was_recorded_and_so_does_the_context() -> None:
    context = PipelineContext()
    seen = []

    async def first(ctx: StageContext) -> dict[str, int]:
        return {"n": 1}

    async def second(ctx: StageContext) -> None:
        seen.append(ctx.outputs.get_output("first") is ctx.inputs.get_output("first"))

    results = await UnifiedStageGraph([spec("first", first), spec("second", second, "first")]).run(
        context
    )

    assert seen == [True]
    assert context.outputs.outputs() == results


@pytest.mark.spec("30.2.8", "20.7.8")
async def test_overlapping_runs_of_one_graph_do_not_mix(autojump_clock: MockClock) -> None:
    cleaned: list[str] = []

    async def work(ctx: StageContext) -> dict[str, Any]:
        text = ctx.snapshot.input_text or ""
        ctx.add_cleanup(lambda: cleaned.append(text))
        await trio.sleep(int(text) % 7)
        match int(text) % 5:
            case 0:
                raise ValueError(text)
            case 1:
                ctx.cancel_token.cancel(text)
                await trio.sleep_forever()
        return {"text": text}

    async def check(ctx: StageContext) -> dict[str, Any]:
        assert ctx.inputs.get("text") == ctx.snapshot.input_text
        return {"again": ctx.inputs.get("text")}

    graph = UnifiedStageGraph([spec("work", work), spec("check", check, "work")])
    outcomes: dict[str, Any] = {}

    async def one(text: str) -> None:
        sink = RecordingEventSink(strict=True)
        context = PipelineContext(input_text=text)
        try:
            await graph.run(context, event_sink=sink)
            outcomes[text] = "ok"
        except UnifiedStageExecutionError as error:
            outcomes[text] = str(error.original)
        except UnifiedPipelineCancelled as canceled:
            outcomes[text] = canceled.reason
        assert {e.data["pipeline_run_id"] for e in sink.events} == {str(context.pipeline_run_id)}
        sink.assert_seq_contiguous(str(context.pipeline_run_id))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, str(number))

    assert outcomes == {str(n): "ok" if n % 5 > 1 else str(n) for n in range(200)}
    assert sorted(cleaned) == sorted(outcomes)


@pytest.mark.spec("20.7.8")
def test_one_graph_runs_in_several_threads_at_the_same_time() -> None:
    graph = UnifiedStageGraph([spec("a", nothing), spec("b", nothing, "a")])
    results: list[list[str]] = []

    def in_thread() -> None:
        results.append(list(trio.run(graph.run)))

    threads = [threading.Thread(target=in_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [["a", "b"]] * 4


@pytest.mark.spec("20.7.7")
async def test_pipeline_keeps_one_graph_for_runs_without_options() -> None:
    pipeline = Pipeline.from_stages(spec("a", nothing))

    await pipeline.run()
    async with pipeline.start() as run:
        pass

    assert list(run.results) == ["a"]
    assert pipeline.build() is not pipeline.build()


# The graph


@pytest.mark.spec("20.11.1", "20.11.2", "20.11.4")
def test_graph_answers_questions_about_its_wiring() -> None:
    graph = UnifiedStageGraph(
        [spec("c", nothing, "a", "b"), spec("b", nothing, "a"), spec("a", nothing)],
        pipeline_name="p",
    )

    assert graph.stage_names == ("c", "b", "a")
    assert graph.topological_order == ("a", "b", "c")
    assert graph.roots == ("a",)
    assert graph.dependents_of("a") == ("c", "b")
    assert graph.dependencies_of("c") == ("a", "b")
    assert [one.name for one in graph.specs] == ["c", "b", "a"]
    assert "<3 stages>" in repr(graph)
    assert graph.to_mermaid() == Pipeline("p", graph.specs).to_mermaid()
    assert graph.guard_retry_strategy is None


@pytest.mark.spec("20.11.1")
def test_graph_of_stages_that_cannot_work_is_not_made() -> None:
    for _ in range(2):
        with pytest.raises(PipelineValidationError, match="nowhere"):
            UnifiedStageGraph([spec("a", nothing, "nowhere")])


@pytest.mark.spec("20.11.3")
async def test_graph_is_immutable_and_keeps_nothing_of_a_run() -> None:
    graph = UnifiedStageGraph([spec("a", nothing)])
    before = {field.name: getattr(graph, field.name) for field in attrs.fields(type(graph))}

    await graph.run()

    assert {name: getattr(graph, name) for name in before} == before
    with pytest.raises(AttributeError):
        graph.pipeline_name = "other"  # type: ignore[misc]  # the point


SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


@pytest.mark.spec("30.2.1")
async def test_context_variables_of_a_stage_reach_neither_the_next_one_nor_the_caller() -> None:
    seen = []

    async def change(ctx: StageContext) -> None:
        seen.append(SEEN.get())
        SEEN.set(ctx.stage_name)

    SEEN.set("caller")

    # One at a time, and two of them at the same time.
    await UnifiedStageGraph(
        [spec("a", change), spec("b", change, "a"), spec("c", change, "b"), spec("d", change, "b")]
    ).run()

    assert seen == ["caller"] * 4
    assert SEEN.get() == "caller"


async def test_run_that_is_over_needs_no_garbage_collection() -> None:
    graph = UnifiedStageGraph([spec("a", nothing), spec("b", nothing, "a")])
    gc.collect()
    gc.disable()
    try:
        results = await graph.run()
        output = weakref.ref(results["a"])
        del results

        assert output() is None
    finally:
        gc.enable()


async def test_handle_that_is_kept_holds_on_to_no_context_variable() -> None:
    class Value:
        pass

    value = Value()
    dropped = weakref.ref(value)
    token = SEEN.set(value)  # type: ignore[arg-type]
    async with UnifiedStageGraph([spec("a", nothing)]).start() as run:
        pass
    SEEN.reset(token)
    del value, token
    gc.collect()

    assert dropped() is None
    assert run.status().state == "completed"


# Limits


@pytest.mark.spec("30.19.1")
async def test_lane_of_the_supervisor_is_never_longer_than_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = 0
    put = Lane.put

    def measured(self: Lane[Any], report: Any) -> None:
        nonlocal longest
        put(self, report)
        longest = max(longest, len(self._reports))

    monkeypatch.setattr(Lane, "put", measured)
    chains = [
        spec(f"s{chain}-{i}", nothing, *([f"s{chain}-{i - 1}"] if i else []))
        for chain in range(10)
        for i in range(20)
    ]

    await UnifiedStageGraph(chains).run()

    assert 1 <= longest <= 10


@pytest.mark.spec("30.19.2")
def test_nothing_is_started_before_a_run_and_nothing_is_left_after_it() -> None:
    threads = threading.active_count()
    graph = UnifiedStageGraph([spec("a", nothing)])
    pipeline = Pipeline("p", [spec("a", nothing)])

    async def main() -> int:
        before = tasks()
        await graph.run()
        await pipeline.run()
        return tasks() - before

    assert trio.run(main) == 0
    assert threading.active_count() == threads
