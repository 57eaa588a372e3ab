"""Runs that go on with the numbers of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from actorflow.errors import InvalidArgumentError, UnifiedPipelineCancelled
from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime import PipelineRunner
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink


async def fine(ctx: StageContext) -> None:
    ctx.try_emit_event("app.said", {})


async def failing(ctx: StageContext) -> None:
    raise LookupError("gone")


def of(stage: Any) -> Pipeline:
    return Pipeline.from_stages(StageSpec("only", stage), name="only")


@pytest.mark.spec("E13", "E19", "30.3.1")
@pytest.mark.parametrize("way", ["run", "start", "graph", "runner"])
async def test_resumed_run_goes_on_with_the_numbers(way: str, sink: RecordingEventSink) -> None:
    context = PipelineContext(event_sink=sink)
    with pytest.raises(Exception, match="gone"):
        await of(failing).run(context)
    last = sink.events[-1].data["seq"]
    first_seq = last + 1

    match way:
        case "run":
            await of(fine).run(context, first_seq=first_seq)
        case "start":
            async with of(fine).start(context, first_seq=first_seq) as run:
                assert run.status().seq == last
            assert run.status().seq == sink.events[-1].data["seq"]
        case "graph":
            await of(fine).build().run(context, first_seq=first_seq)
        case _:
            await PipelineRunner().run(of(fine), pipeline_ctx=context, first_seq=first_seq)

    again = sink.types().index("pipeline.started", 1)
    assert sink.events[again].data["seq"] == first_seq
    assert again == last
    # Together they are one gapless sequence of one run id.
    sink.assert_seq_contiguous(context.pipeline_run_id or "")
    assert sink.types()[-1] == "pipeline.completed"


@pytest.mark.spec("E13", "E19", "30.7.7")
async def test_resumed_run_that_is_cancelled_before_it_begins_has_that_number(
    sink: RecordingEventSink,
) -> None:
    context = PipelineContext(event_sink=sink)
    context.mark_canceled("enough")
    with pytest.raises(UnifiedPipelineCancelled):
        await of(fine).run(context, first_seq=41)

    assert [(event.type, event.data["seq"]) for event in sink.events] == [("pipeline.canceled", 41)]


@pytest.mark.spec("E13", "E18", "E19")
async def test_child_of_a_resumed_run_has_numbers_of_its_own(sink: RecordingEventSink) -> None:
    async def spawning(ctx: StageContext) -> None:
        await ctx.spawn_subpipeline(of(fine))

    await of(spawning).run(event_sink=sink, first_seq=100)

    first_of: dict[str, int] = {}
    for event in sink.events:
        first_of.setdefault(event.data["pipeline_run_id"], event.data["seq"])
    assert list(first_of.values()) == [100, 1]


@pytest.mark.spec("E13")
async def test_run_begins_with_one_unless_told_otherwise(sink: RecordingEventSink) -> None:
    for _ in range(2):
        await of(fine).run(PipelineContext(event_sink=sink))

    assert [it["seq"] for it in sink.payloads("pipeline.started")] == [1, 1]


@pytest.mark.spec("E19")
@pytest.mark.parametrize("first_seq", [0, -1, 1.5, "2", True, None])
async def test_impossible_number_is_refused(first_seq: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="first_seq must be a whole number from 1 on"):
        await of(fine).run(first_seq=first_seq)
    with pytest.raises(InvalidArgumentError, match="first_seq"):
        of(fine).start(first_seq=first_seq)
    await trio.lowlevel.checkpoint()
