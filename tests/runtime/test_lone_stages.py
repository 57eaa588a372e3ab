"""A stage that runs alone reports without waking the supervisor of its run: nobody may notice."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import trio
from hypothesis import given, settings, strategies as st

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.interceptors import BaseInterceptor
from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime._lane import Lane
from actorflow.runtime._run import Run
from actorflow.runtime._run_state import RunState
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import (
    CatalogueViolation,
    Fails,
    RecordingEventSink,
    faulty,
    pipelines,
    run_seeded,
)

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


async def rest(ctx: StageContext) -> None:
    await trio.sleep(0.1)


LONE = Pipeline("lone", [StageSpec("first", rest), StageSpec("second", rest, dependencies="first")])


# Of the events of this run: the end of the first stage, the start and the end of the second.
@pytest.mark.spec("30.4.2", "30.1.4")
@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("is_awaited", [True, False])
@pytest.mark.parametrize("stopper", [KeyboardInterrupt, SystemExit, CatalogueViolation])
def test_sink_may_stop_the_whole_program(
    stopper: type[BaseException], is_awaited: bool, number: int
) -> None:
    events = RecordingEventSink()
    sink = faulty(events, try_emit=Fails(stopper, calls=number))

    async def run() -> None:
        await LONE.run(event_sink=sink)

    at_once_or_in_turn = nullcontext() if is_awaited else patch.object(Lane, "is_awaited", False)
    with at_once_or_in_turn, pytest.raises(stopper):
        run_seeded(run)

    assert events.types()[-1] == "pipeline.canceled"


@pytest.mark.spec("30.4.2")
def test_ctrl_c_between_a_decision_and_its_order_stops_the_program() -> None:
    take = RunState._take_commands

    def decide(self: RunState) -> Any:
        self._take_commands = partial(take, self)  # type: ignore[method-assign]
        raise KeyboardInterrupt

    with (
        patch.object(RunState, "_take_commands", decide),
        pytest.raises(KeyboardInterrupt),
    ):
        run_seeded(LONE.run)


class Watched(BaseInterceptor):
    """Notes where Ctrl-C would have to wait for the next checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.is_kept_out: dict[str, bool] = {}

    def look(self, where: str) -> None:
        self.is_kept_out[where] = trio.lowlevel.currently_ki_protected()

    async def before(self, stage_name: str, ctx: object) -> None:
        self.look("hook")

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.look(type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        self.look(type)
        return True


# Elsewhere it would leave a run that waits for a report that never comes.
@pytest.mark.spec("30.4.2")
async def test_ctrl_c_comes_anywhere_but_between_a_call_and_its_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched()

    async def stage(ctx: StageContext) -> None:
        watched.look("stage")

    def watch(thing: object, name: str) -> None:
        def looked_at(*args: Any) -> Any:
            watched.look(name)
            return method(*args)

        method = getattr(thing, name)
        monkeypatch.setattr(thing, name, looked_at)

    watch(Run, "report_end")
    watch(trio.lowlevel, "wait_task_rescheduled")
    await Pipeline("watched", [StageSpec("stage", stage)]).run(
        event_sink=watched, interceptors=[watched]
    )

    kept_out = {where for where, is_kept_out in watched.is_kept_out.items() if is_kept_out}
    assert kept_out == {"wait_task_rescheduled", "stage.started", "report_end"}
    assert watched.is_kept_out.keys() - kept_out == {
        *("pipeline.started", "hook", "stage", "stage.completed", "pipeline.completed"),
    }
