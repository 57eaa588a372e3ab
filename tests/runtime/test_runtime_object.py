"""What runs that are given the same runtime have in common, and what others have not."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime import (
    ChildRunTracker,
    PipelineRunner,
    Runtime,
    get_child_tracker,
)
from actorflow.stages import PipelineContext, StageContext
from actorflow.stores import InMemoryIdempotencyStore


class Charges:
    """Work that counts how often it is done."""

    def __init__(self) -> None:
        self.done = 0

    async def execute(self, ctx: StageContext) -> dict[str, int]:
        self.done += 1
        return {"number": self.done}


def shop(charges: Charges) -> Pipeline:
    return Pipeline.from_stages(StageSpec("charge", charges, kind="work"), name="shop")


ORDER: Any = {"idempotency_key": "order-1"}


@pytest.mark.spec("W8", "20.7.7")
async def test_work_is_done_once_for_all_runs_of_a_runtime() -> None:
    charges, runtime = Charges(), Runtime()

    # Pipelines of their own, as a handler makes them for each request.
    for _ in range(2):
        results = await shop(charges).run(data=ORDER, runtime=runtime)
        assert results.data("charge") == {"number": 1}
    # With options a graph is built for the call.
    await shop(charges).run(data=ORDER, runtime=runtime, max_concurrency=1)

    assert charges.done == 1


@pytest.mark.spec("W8", "20.7.7")
async def test_without_a_runtime_pipelines_know_nothing_of_each_other() -> None:
    charges = Charges()

    for _ in range(2):
        await shop(charges).run(data=ORDER)

    assert charges.done == 2


@pytest.mark.spec("30.17.2", "20.7.7")
async def test_all_runs_of_a_runner_share_a_runtime() -> None:
    charges, runner = Charges(), PipelineRunner()

    for _ in range(2):
        context = PipelineContext(data=dict(ORDER))
        result = await runner.run(shop(charges), pipeline_ctx=context)
        assert result.stages["charge"] == {"number": 1}
        assert context.runtime is runner.runtime
    await PipelineRunner().run(shop(charges), pipeline_ctx=PipelineContext(data=dict(ORDER)))

    assert charges.done == 2


@pytest.mark.spec("30.17.2")
async def test_runner_takes_a_store_or_a_runtime_and_a_context_may_have_its_own() -> None:
    store, given, own = InMemoryIdempotencyStore(), Runtime(), Runtime()
    seen: list[object] = []

    async def look(ctx: StageContext) -> None:
        seen.append(ctx.runtime)

    pipeline = Pipeline.from_stages(StageSpec("look", look))
    with_store = PipelineRunner(idempotency_store=store)
    await with_store.run(pipeline)
    runner = PipelineRunner(runtime=given)
    await runner.run(pipeline)
    await runner.run(pipeline, pipeline_ctx=PipelineContext(runtime=own))

    assert isinstance(with_store.runtime, Runtime)
    assert with_store.runtime.idempotency_store is store
    assert seen == [with_store.runtime, given, own]


@pytest.mark.spec("30.16.7")
async def test_child_runs_are_entered_in_the_tree_of_the_runtime() -> None:
    runtime = Runtime(child_tracker=ChildRunTracker())
    children: list[set[Any]] = []

    async def parent(ctx: StageContext) -> None:
        run_id = ctx.snapshot.pipeline_run_id
        assert run_id is not None

        async def look(ctx: StageContext) -> None:
            for tracker in (runtime.child_tracker, get_child_tracker()):
                children.append(await tracker.get_children(run_id))

        result = await ctx.spawn_subpipeline(Pipeline.from_stages(StageSpec("look", look)))
        assert result.success

    await Pipeline.from_stages(StageSpec("parent", parent)).run(runtime=runtime)

    of_runtime, of_all = children
    assert len(of_runtime) == 1
    assert of_all == set()
    assert (await runtime.child_tracker.get_metrics())["registration_count"] == 1


@pytest.mark.spec("30.12.9")
def test_runtime_has_the_tree_that_all_share_unless_told_otherwise() -> None:
    assert Runtime().child_tracker is get_child_tracker()
    assert Runtime().idempotency_store is not Runtime().idempotency_store
