"""What contexts and outputs promise about runs, shown by runs."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from actorflow.errors import UnifiedStageExecutionError
from actorflow.interceptors import RetryInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import StageSpec
from actorflow.runtime import PipelineResults, UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext


@pytest.mark.spec("10.14.6")
async def test_what_a_stage_wrote_is_gone_when_it_is_tried_again(autojump_clock: MockClock) -> None:
    found: list[list[str]] = []

    async def write(ctx: StageContext) -> StageOutput:
        found.append(ctx.bag.keys())
        await ctx.bag.write(f"try {ctx.try_number}", 1, ctx.stage_name)
        return StageOutput.ok() if ctx.try_number == 2 else StageOutput.retry("busy")

    context = PipelineContext()
    graph = UnifiedStageGraph([StageSpec("a", write)], interceptors=[RetryInterceptor(2)])
    await graph.run(context)

    assert found == [[], []]
    assert context.bag.keys() == ["try 2"]


class MuteError(Exception):
    def __str__(self) -> str:
        raise ArithmeticError("has no text")


@pytest.mark.spec("10.3.3")
async def test_exception_without_text_fails_its_stage_like_any_other() -> None:
    async def mute(ctx: StageContext) -> None:
        raise MuteError

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph([StageSpec("a", mute)]).run()

    results = caught.value.results
    assert isinstance(results, PipelineResults)
    [failure] = results.failures
    assert (failure.stage, failure.error) == ("a", "MuteError")
