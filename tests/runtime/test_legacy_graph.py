"""The stage graphs of old (30.18)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import PipelineValidationError
from actorflow.interceptors import BaseInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import PipelineBuilder, StageSpec, edge, with_conditional_branch
from actorflow.runtime import StageGraph
from actorflow.stages import PipelineContext
from actorflow.testing import RecordingEventSink

from .stages import nothing, spec


@pytest.mark.spec("30.18.1", "30.18.3", "20.5.6")
async def test_stages_run_in_order_and_get_the_context_of_the_run() -> None:
    seen: list[tuple[str, object]] = []

    async def first(ctx: PipelineContext) -> dict[str, int]:
        seen.append(("first", ctx))
        return {"n": 1}

    async def second(ctx: PipelineContext) -> dict[str, int]:
        seen.append(("second", ctx))
        return {"n": ctx.outputs.get_value("first", "n") + 1}

    sink = RecordingEventSink(strict=True)
    context = PipelineContext(event_sink=sink)
    builder = PipelineBuilder("old", [spec("second", second, "first"), spec("first", first)])

    results = await builder.build(legacy=True).run(context)

    assert seen == [("first", context), ("second", context)]
    assert results["second"].data == {"n": 2}
    assert sink.types()[0] == "pipeline.started"
    assert sink.types()[-1] == "pipeline.completed"


@pytest.mark.spec("30.18.1")
async def test_interceptors_are_around_the_stages() -> None:
    class Counting(BaseInterceptor):
        """Subclass of the tests: counts calls."""

        name = "counting"
        calls = 0

        async def before(self, stage_name: str, ctx: object) -> None:
            self.calls += 1

    counting = Counting()

    results = await StageGraph([spec("a", nothing)], [counting]).run(PipelineContext())

    assert results["a"].status == "completed"
    assert counting.calls == 1


@pytest.mark.spec("30.18.2")
async def test_conditional_stages_always_run() -> None:
    async def skip(ctx: object) -> dict[str, str]:
        return {"skip_reason": "cached", "branch": "left"}

    builder = with_conditional_branch(
        PipelineBuilder("old"),
        spec("route", skip),
        {key: spec(key, nothing) for key in ("left", "right")},
    )
    graph = StageGraph(builder.stages)

    results = await graph.run(PipelineContext())

    assert {name: result.status for name, result in results.items()} == dict.fromkeys(
        (one.name for one in graph.specs), "completed"
    )


@pytest.mark.spec("30.18.2", "30.18.6")
@pytest.mark.parametrize(
    "unfit",
    [
        spec("b", nothing, "a", when=lambda inputs: True),
        spec("b", nothing, edge("a", when="left")),
        spec("b", nothing, stream_from="a"),
        spec("b", nothing, "nowhere"),
    ],
)
def test_what_the_graph_could_not_honour_is_refused(unfit: StageSpec) -> None:
    with pytest.raises(PipelineValidationError):
        StageGraph([spec("a", nothing), unfit])


@pytest.mark.spec("30.18.4")
async def test_failed_stage_stops_nothing() -> None:
    async def fail(ctx: object) -> StageOutput:
        return StageOutput.fail("no")

    results = await StageGraph([spec("a", fail), spec("b", nothing, "a")]).run(PipelineContext())

    assert {name: result.status for name, result in results.items()} == {
        "a": "failed",
        "b": "completed",
    }


@pytest.mark.spec("30.18.5")
async def test_cancelled_run_returns_and_unfinished_stages_have_failed(
    autojump_clock: MockClock,
) -> None:
    async def cancel(ctx: object) -> StageOutput:
        await trio.sleep(1)
        return StageOutput.cancel("enough")

    async def slow(ctx: object) -> None:
        await trio.sleep(100)

    begun_at = trio.current_time()
    results = await StageGraph(
        [spec("a", nothing), spec("c", cancel), spec("s", slow), spec("t", nothing, "s")]
    ).run(PipelineContext())

    assert trio.current_time() - begun_at == 1
    told = {name: (result.status, result.error) for name, result in results.items()}
    assert told == {
        "a": ("completed", None),
        "c": ("canceled", None),
        "s": ("failed", "Pipeline canceled"),
        "t": ("failed", "Pipeline canceled"),
    }
