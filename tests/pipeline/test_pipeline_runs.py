"""What was declared takes effect when a pipeline runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import (
    PipelineValidationError,
    PredicateError,
    StageTimeoutError,
    UnifiedStageExecutionError,
    UnknownBranchError,
)
from actorflow.model import StageOutput
from actorflow.pipeline import (
    Pipeline,
    PipelineBuilder,
    StageSpec,
    chosen,
    edge,
    key_true,
    stage,
    with_conditional_branch,
)
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import StageContext, StageInputs
from actorflow.testing import RecordingEventSink


@pytest.fixture
def sink() -> RecordingEventSink:
    """Remembers the events of a run."""
    return RecordingEventSink(strict=True)


async def work(ctx: StageContext) -> None:
    """A stage that does nothing."""


def returns(output: Any) -> Callable[[StageContext], Any]:
    return lambda ctx: output


def spec(name: str, runner: Any = work, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, runner, dependencies=after, **options)


async def failure_of(*specs: StageSpec, **options: Any) -> Exception:
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await Pipeline("voice", specs).run(**options)
    return caught.value.original


@pytest.mark.spec("20.2.1")
async def test_every_kind_of_runner_runs() -> None:
    class Shared:
        def __init__(self) -> None:
            self.calls = 0

        async def execute(self, ctx: StageContext) -> dict[str, int]:
            self.calls += 1
            return {"calls": self.calls}

    class Fresh(Shared):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.calls = start

    class Callee:
        async def __call__(self, ctx: StageContext) -> dict[str, int]:
            return {"calls": 1}

    async def asynchronous(ctx: StageContext) -> dict[str, int]:
        return {"calls": 1}

    def synchronous(ctx: StageContext) -> dict[str, int]:
        return {"calls": 1}

    def bound(calls: int, ctx: StageContext) -> dict[str, int]:
        return {"calls": calls}

    pipeline = Pipeline.from_stages(
        stage("shared", Shared()),
        stage("fresh", Fresh, config={"start": 10}),
        stage("callee", Callee()),
        stage("asynchronous", asynchronous),
        stage("synchronous", synchronous),
        stage("bound", functools.partial(bound, 5)),
    )

    runs = [await pipeline.run(), await pipeline.run()]

    calls = [{name: run.data(name)["calls"] for name in pipeline} for run in runs]
    ones = {"callee": 1, "asynchronous": 1, "synchronous": 1, "bound": 5}
    assert calls == [{"shared": 1, "fresh": 11, **ones}, {"shared": 2, "fresh": 11, **ones}]


@pytest.mark.spec("20.5.6")
async def test_builder_builds_an_executable_graph() -> None:
    builder = PipelineBuilder("voice").with_stage("a", returns({"k": 1}))

    graph = builder.build()

    assert isinstance(graph, UnifiedStageGraph)
    assert (await graph.run(None))["a"].data == {"k": 1}
    with pytest.raises(PipelineValidationError) as caught:
        PipelineBuilder().build()
    assert caught.value.code == "CONTRACT-004-EMPTY"


@pytest.mark.spec("20.7.2")
@pytest.mark.parametrize(
    ("name", "topology", "called"),
    [
        ("voice", None, "voice"),
        ("voice", "chat", "voice"),
        (None, "chat", "chat"),
        (None, None, "pipeline"),
    ],
)
async def test_run_is_called_after_the_pipeline_or_its_topology(
    name: str | None, topology: str | None, called: str
) -> None:
    fields: Any = {} if topology is None else {"topology": topology}

    async with Pipeline(name, [spec("a")]).start(**fields) as run:
        assert run.status().pipeline_name == called


@pytest.mark.spec("20.7.5")
async def test_graphs_of_one_pipeline_are_independent() -> None:
    pipeline = Pipeline("voice", [spec("a")])

    one, two = pipeline.build(), pipeline.build(max_concurrency=1)

    assert one is not two
    assert [[*await graph.run(None)] for graph in (one, two)] == [["a"], ["a"]]


# Conditions


def ran(results: Any) -> set[str]:
    return {name for name in results if results.ok(name)}


@pytest.mark.spec("20.8.1", "20.8.4", "20.8.8", "20.8.9")
@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        ("billing", {"pay", "receipt", "answer"}),
        ("sales", {"sell", "answer"}),
        (["billing", "sales"], {"pay", "receipt", "sell", "answer"}),
        (None, set()),
    ],
)
async def test_only_chosen_branches_run(branch: Any, expected: set[str]) -> None:
    results = await Pipeline.from_stages(
        spec("route", returns({"branch": branch})),
        spec("pay", after=edge("route", when="billing")),
        spec("receipt", after="pay"),
        spec("sell", after="route", when="sales"),
        spec("answer", after=("receipt", "sell")),
    ).run()

    assert ran(results) == {"route", *expected}


@pytest.mark.spec("20.6.4", "20.8.5")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"branch": "billing"}, {"pay", "answer"}),
        ({}, {"pay", "sell", "answer"}),
        ({"skip_reason": "no intent"}, set()),
    ],
)
async def test_conditional_branch_runs_what_was_chosen(data: Any, expected: set[str]) -> None:
    pipeline = with_conditional_branch(
        Pipeline(),
        ("route", returns(data)),
        {"billing": ("pay", work), "sales": ("sell", work)},
        ("answer", work),
    )

    assert ran(await pipeline.run()) == {"route", *expected}


@pytest.mark.spec("20.8.5", "20.8.6", "20.8.7")
async def test_skipped_stage_is_not_started_and_says_why(sink: RecordingEventSink) -> None:
    def called(ctx: StageContext) -> None:
        raise AssertionError

    results = await Pipeline.from_stages(
        spec("a", returns({"skip_reason": "cached", "ready": False})),
        spec("conditional", called, "a", conditional=True),
        spec("when", called, "a", when=key_true("a", "ready")),
        spec("below", called, "when"),
        spec("always", work, ("conditional", "when"), join="always"),
    ).run(event_sink=sink)

    skipped = {
        name: (results[name].reason, result.skipped_by)
        for name, result in results.stage_results.items()
        if result.skipped_by
    }
    assert skipped == {
        "conditional": ("cached", "conditional"),
        "when": ("condition not met: a:ready", "when"),
        "below": ("not taken from 'when'", "dependency"),
    }
    assert results["when"] == StageOutput.skip("condition not met: a:ready")
    assert ran(results) == {"a", "always"}
    told = [(it.type, it.data["stage"]) for it in sink.events if it.type.startswith("stage.")]
    assert {it for it in told if it[1] in skipped} == {("stage.skipped", name) for name in skipped}


@pytest.mark.spec("20.8.10")
async def test_unknown_branch_fails_the_router() -> None:
    error = await failure_of(
        spec("route", returns({"branch": "biling"})),
        spec("pay", after=edge("route", when="billing")),
    )

    assert isinstance(error, UnknownBranchError)
    assert (error.stage, error.branch, error.known) == ("route", "biling", ("billing",))


async def test_broken_predicate_fails_its_stage() -> None:
    def broken(inputs: StageInputs) -> bool:
        raise KeyError("k")

    error = await failure_of(spec("a"), spec("b", after="a", when=broken))

    assert isinstance(error, PredicateError)
    assert error.stage == "b"


@pytest.mark.spec("20.8.11")
async def test_condition_is_asked_once_and_sees_declared_dependencies_only() -> None:
    asked: list[tuple[str, ...]] = []

    def look(inputs: StageInputs) -> bool:
        asked.append(inputs.stages)
        return True

    await Pipeline.from_stages(spec("a"), spec("b"), spec("c", after="b", when=look)).run()

    assert asked == [("b",)]


# Streams


@pytest.mark.spec("20.9.1", "20.9.3")
async def test_consumers_start_with_their_producers_and_get_every_chunk() -> None:
    async def count(ctx: StageContext) -> None:
        for number in range(5):
            await ctx.send(number)

    async def collect(ctx: StageContext) -> dict[str, list[int]]:
        return {"got": [item async for item in ctx.stream("count")]}

    async def collect_both(ctx: StageContext) -> dict[str, list[int]]:
        return {
            "got": [item async for item in ctx.stream("count")],
            "more": [item async for item in ctx.stream("count_too")],
        }

    # With room for one chunk only, a consumer that waited for its producer to end would hang.
    results = await Pipeline.from_stages(
        spec("count", count),
        spec("count_too", count),
        spec("one", collect, stream_from="count", stream_buffer=1),
        spec("two", collect_both, stream_from=("count", "count_too"), stream_buffer=5),
    ).run()

    expected = [0, 1, 2, 3, 4]
    assert results.data("one") == {"got": expected}
    assert results.data("two") == {"got": expected, "more": expected}


@pytest.mark.spec("20.9.1")
async def test_consumer_waits_for_its_dependencies_and_conditions_too() -> None:
    order: list[str] = []

    async def produce(ctx: StageContext) -> None:
        order.append("producer")
        await ctx.send(1)

    async def prepare(ctx: StageContext) -> dict[str, bool]:
        await trio.lowlevel.checkpoint()
        order.append("dependency")
        return {"ready": True}

    async def consume(ctx: StageContext) -> None:
        order.append("consumer")

    def called(ctx: StageContext) -> None:
        raise AssertionError

    results = await Pipeline.from_stages(
        spec("consumer", consume, "prepare", stream_from="producer"),
        spec("producer", produce),
        spec("prepare", prepare),
        spec("other", called, "prepare", stream_from="producer", when=chosen("prepare", "x")),
    ).run()

    assert order[-1] == "consumer"
    assert set(order) == {"producer", "dependency", "consumer"}
    assert results["other"].reason == "condition not met: x"


@pytest.mark.spec("20.9.4")
async def test_consumer_of_a_skipped_producer_is_skipped_with_it() -> None:
    results = await Pipeline.from_stages(
        spec("a", returns({})),
        spec("producer", work, "a", when=key_true("a", "ready")),
        spec("consumer", stream_from="producer"),
    ).run()

    assert results["consumer"].reason == "not taken from 'producer'"


# Policies


@pytest.mark.spec("20.10.2")
async def test_timeout_of_a_stage_goes_before_that_of_the_pipeline(
    autojump_clock: MockClock,
) -> None:
    async def slow(ctx: StageContext) -> None:
        await trio.sleep(5)

    async def times_out(stage_timeout: float | None, timeout: float | None) -> bool:
        pipeline = Pipeline("x", [spec("a", slow, timeout=timeout)], stage_timeout=stage_timeout)
        try:
            await pipeline.run()
        except UnifiedStageExecutionError as error:
            return isinstance(error.original, StageTimeoutError)
        return False

    assert not await times_out(None, None)
    assert await times_out(None, 1)
    assert await times_out(1, None)
    assert not await times_out(1, 10)
    assert await times_out(10, 1)
    assert not await times_out(1, math.inf)


@pytest.mark.spec("20.10.3")
@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 2), (None, 4)])
async def test_at_most_so_many_stages_execute_at_a_time(limit: int | None, most: int) -> None:
    running = 0
    peak = 0

    async def busy(ctx: StageContext) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await trio.testing.wait_all_tasks_blocked()
        running -= 1

    stages = [spec(f"s{number}", busy) for number in range(4)]
    await Pipeline("x", stages, max_concurrency=limit).run()

    assert peak == most


@pytest.mark.spec("20.10.4")
async def test_missing_output_fails_the_stage_that_declared_it() -> None:
    error = await failure_of(spec("a", returns({"words": 2}), outputs=("text", "words")))

    assert isinstance(error, PipelineValidationError)
    assert error.code == "CONTRACT-004-OUTPUT"


@pytest.mark.spec("20.10.5")
async def test_missing_input_fails_the_stage_without_calling_it() -> None:
    def called(ctx: StageContext) -> None:
        raise AssertionError

    error = await failure_of(spec("a", returns({})), spec("b", called, "a", inputs="a:text"))

    assert isinstance(error, PipelineValidationError)
    assert error.code == "CONTRACT-004-INPUT"
