"""A stage that runs alone reports without waking the supervisor of its run: nobody may notice."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import trio
from hypothesis import given, settings, strategies as st

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.pipeline import Pipeline
from actorflow.runtime._lane import Lane
from actorflow.stages import PipelineContext
from actorflow.testing import RecordingEventSink, pipelines, run_seeded

TOLD = ("stage", "attempt", "status", "tries", "reason", "error", "duration_ms", "stage_counts")


async def story_of(pipeline: Pipeline, cancel_after: float | None) -> tuple[Any, ...]:
    """What a run reports, and what it leaves."""
    sink = RecordingEventSink(strict=True)
    context = PipelineContext()
    with trio.CancelScope() as scope:
        if cancel_after is not None:
            scope.relative_deadline = cancel_after
        with suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled):
            await pipeline.run(context, event_sink=sink, interceptors=())
    reported = [(event.type, *(event.data.get(key) for key in TOLD)) for event in sink.events]
    return reported, context.outputs.outputs()


# Without streams: how far a producer is when its consumer starts depends on the steps between.
@pytest.mark.spec("30.2.1", "30.3.1")
@settings(max_examples=60)
@given(pipelines(streams=False), st.sampled_from([None, 0.017, 0.117, 0.417]))
def test_report_that_does_not_wake_the_supervisor_changes_nothing(
    pipeline: Pipeline, cancel_after: float | None
) -> None:
    at_once = run_seeded(story_of, pipeline, cancel_after)
    with patch.object(Lane, "is_awaited", PropertyMock(return_value=False)):
        in_turn = run_seeded(story_of, pipeline, cancel_after)

    assert at_once == in_turn
