"""What a user's own log lines know of the run they were written in."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
import trio

from actorflow.errors import UnifiedStageExecutionError
from actorflow.pipeline import Pipeline, stage
from actorflow.stages import PipelineContext, StageContext

REQUEST = "0190b3a5-0000-7000-8000-000000000002"


def bound() -> dict[str, Any]:
    return dict(structlog.contextvars.get_contextvars())


@pytest.mark.spec("E106")
async def test_log_lines_of_a_stage_carry_its_ids() -> None:
    seen: dict[str, dict[str, Any]] = {}

    async def nested() -> None:
        seen["nested"] = bound()

    @stage
    async def first(ctx: StageContext) -> None:
        seen["first"] = bound()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nested)

    @stage
    async def second(ctx: StageContext) -> None:
        seen["second"] = bound()

    context = PipelineContext(request_id=REQUEST)
    with structlog.contextvars.bound_contextvars(mine="too"):
        await Pipeline.from_stages(first, second).run(context)
        after = bound()

    run = {
        "mine": "too",
        "pipeline_run_id": str(context.pipeline_run_id),
        "request_id": REQUEST,
        "attempt": 1,
    }
    assert seen["first"] == seen["nested"] == {**run, "stage": "first"}
    assert seen["second"] == {**run, "stage": "second"}
    assert after == {"mine": "too"}


@pytest.mark.spec("E106")
async def test_ids_are_gone_after_a_failed_run() -> None:
    @stage
    async def broken(ctx: StageContext) -> None:
        raise ValueError

    with pytest.raises(UnifiedStageExecutionError):
        await Pipeline.from_stages(broken).run()

    assert bound() == {}


@pytest.mark.spec("E106")
async def test_child_run_has_ids_of_its_own() -> None:
    seen: list[dict[str, Any]] = []

    @stage
    async def inner(ctx: StageContext) -> None:
        seen.append(bound())

    @stage
    async def outer(ctx: StageContext) -> None:
        before = bound()
        await ctx.spawn_subpipeline(Pipeline.from_stages(inner, name="child"))
        assert bound() == before
        seen.append(before)

    await Pipeline.from_stages(outer).run()

    child, parent = seen
    assert child["stage"] == "inner"
    assert parent["stage"] == "outer"
    assert child["pipeline_run_id"] != parent["pipeline_run_id"]
