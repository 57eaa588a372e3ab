"""Thousands of random families of runs, and what holds for every one of them.

A program is made from its number alone, schedule included: to look at one that failed,
call `carry_out(number)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, Final
from uuid import UUID

import attrs
import pytest
import trio

from actorflow.cancellation import CancellationToken
from actorflow.errors import (
    StageCancellationRequested,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import FailureMode, Pipeline, StageSpec
from actorflow.runtime import PipelineResults, get_child_tracker, get_subpipeline_spawner
from actorflow.runtime._active_runs import _active
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink, run_seeded

PROGRAMS: Final = 2000
CHUNKS: Final = 10

ENDINGS: Final = ("pipeline.completed", "pipeline.failed", "pipeline.canceled")
# The five ways to cancel: from the stage, by mark, handle or spawner, by token, with the
# parent, and by the scope around the run. Those of stages and of parents are in STEPS.
WAYS: Final = ("nobody", "nobody", "handle", "mark", "spawner", "token", "scope")
STEPS: Final = (
    *("ok", "ok", "ok", "spawn", "spawn", "spawn"),
    *("skip", "fail", "raise", "retry", "group", "cancel", "request", "token", "family"),
)


@attrs.frozen
class World:
    """What really happened, run by run."""

    random: Random
    returned: dict[UUID, dict[str, StageOutput]] = attrs.field(factory=lambda: defaultdict(dict))
    raised: dict[UUID, list[Exception]] = attrs.field(factory=lambda: defaultdict(list))
    registered: dict[UUID, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    cleaned: dict[UUID, list[int]] = attrs.field(factory=lambda: defaultdict(list))
    endings: dict[UUID, PipelineResults] = attrs.field(factory=dict)

    def pipeline(self, depth: int) -> Pipeline:
        choose: Any = self.random.choice
        specs: list[StageSpec] = []
        for number in range(self.random.randint(1, 4)):
            before = [spec.name for spec in specs]
            needed = [name for name in before if self.random.random() < 0.4]
            stage = Stage(
                self,
                step=choose(STEPS if depth else [it for it in STEPS if it != "spawn"]),
                seconds=choose((0.0, 0.0, 0.1, 0.3)),
                when_cancelled=choose(("go", "go", "linger", "raise")),
                cleanup=choose(("none", "fine", "fine", "raise", "wait", "hang")),
                child=self.pipeline(depth - 1) if depth else None,
            )
            join = choose(("any", "all", "always"))
            specs.append(StageSpec(f"s{number}", stage, dependencies=needed, join=join))
        return Pipeline(
            f"depth{depth}",
            specs,
            failure_mode=choose(list(FailureMode)),
            max_concurrency=choose((None, None, 1, 2)),
            cleanup_timeout=1.0,
        )


@attrs.frozen
class Stage:
    world: World
    step: str
    seconds: float
    when_cancelled: str
    cleanup: str
    child: Pipeline | None

    async def execute(self, ctx: StageContext) -> StageOutput:
        run_id = ctx.snapshot.pipeline_run_id
        assert run_id is not None
        self._register(ctx, run_id)
        try:
            try:
                await trio.sleep(self.seconds)
                output = await self._carry_out(ctx, run_id)
            except trio.Cancelled:
                await self._be_cancelled()  # noqa: ASYNC102 - what it shields is the point
                raise
        except StageCancellationRequested:
            raise
        except Exception as error:
            self.world.raised[run_id].append(error)
            raise
        self.world.returned[run_id][ctx.stage_name] = output
        return output

    def _register(self, ctx: StageContext, run_id: UUID) -> None:
        if self.cleanup == "none":
            return
        number = len(self.world.registered[run_id])
        self.world.registered[run_id].append(number)

        async def clean() -> None:
            self.world.cleaned[run_id].append(number)
            match self.cleanup:
                case "raise":
                    raise OSError("untidy")
                case "wait":
                    await trio.sleep(0.01)
                case "hang":
                    await trio.sleep_forever()

        ctx.add_cleanup(clean)

    async def _carry_out(self, ctx: StageContext, run_id: UUID) -> StageOutput:
        match self.step:
            case "skip":
                return StageOutput.skip("no need")
            case "fail":
                return StageOutput.fail("no")
            case "raise":
                raise LookupError("broken")
            case "retry":
                return StageOutput.retry("busy")
            case "group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_raise_later, 0.1)
                    nursery.start_soon(trio.sleep_forever)
            case "cancel":
                return StageOutput.cancel("enough")
            case "request":
                raise StageCancellationRequested("enough")
            case "token":
                ctx.cancel_token.cancel("by token")
            case "family":
                await get_subpipeline_spawner().cancel_with_children(run_id, "by family")
            case "spawn":
                await self._spawn(ctx)
        return StageOutput.ok(done=True)

    async def _spawn(self, ctx: StageContext) -> None:
        born = await ctx.spawn_subpipeline(self.child)
        if isinstance(born.results, PipelineResults):
            self.world.endings[born.child_run_id] = born.results
        assert born.success + born.canceled + (born.error is not None) == 1

    async def _be_cancelled(self) -> None:
        if self.when_cancelled == "linger":
            with trio.CancelScope(shield=True):
                await trio.sleep(0.2)
        elif self.when_cancelled == "raise":
            raise OSError("while stopping")


async def _raise_later(seconds: float) -> None:
    await trio.sleep(seconds)
    raise KeyError("in a task of the stage")


async def run_program(
    number: int, look: Callable[[RecordingEventSink], object] = lambda sink: None
) -> None:
    world = World(Random(number))
    pipeline = world.pipeline(depth=world.random.choice((0, 1, 2)))
    way, after = world.random.choice(WAYS), world.random.choice((0.0, 0.05, 0.1, 0.25, 0.6))
    interceptors = world.random.choice(((), (), None))
    sink = RecordingEventSink()
    look(sink)
    context, token = PipelineContext(event_sink=sink), CancellationToken()
    before = trio.lowlevel.current_statistics().tasks_living
    graph = pipeline.build(interceptors=interceptors)
    results: Any = None
    runs: list[Any] = []

    with trio.CancelScope() as scope:
        try:
            async with graph.start(context, cancel_token=token) as run:
                runs.append(run)
                assert run.run_id is not None
                ways: dict[str, Callable[[], Awaitable[object] | None]] = {
                    "nobody": lambda: None,
                    "handle": partial(run.cancel, "by handle"),
                    "mark": partial(context.mark_canceled, "by mark"),
                    "spawner": partial(
                        get_subpipeline_spawner().cancel_with_children, run.run_id, "by spawner"
                    ),
                    "token": partial(token.cancel, "by given token"),
                    "scope": scope.cancel,
                }
                await trio.sleep(after)
                ended = ways[way]()
                if ended is not None:
                    await ended
            results = run.results
        except (UnifiedStageExecutionError, UnifiedPipelineCancelled) as error:
            results = error.results
    if results is None:
        assert scope.cancelled_caught
        results = runs[0].results

    # Nobody is left, in no task, no list and no tree.
    assert context.pipeline_run_id is not None
    world.endings[context.pipeline_run_id] = results
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert not _active
    assert (await get_child_tracker().get_metrics())["total_relationships"] == 0
    check_cleanups(world)
    check_results(world)
    check_events(sink, context.pipeline_run_id)


def check_cleanups(world: World) -> None:
    # Each once, the last registered first, in every run and on every path.
    for run_id, registered in world.registered.items():
        assert world.cleaned[run_id] == registered[::-1]


def check_results(world: World) -> None:
    # Who asked for another try has put out nothing yet.
    for run_id, results in world.endings.items():
        for name, output in world.returned[run_id].items():
            if output.status is not StageStatus.RETRY:
                assert results[name].status is output.status
        kept = [_innermost(failure.exception) for failure in results.failures]
        assert [e for e in world.raised[run_id] if _innermost(e) not in kept] == []
        assert set(results) <= set(results.stage_results)


def _innermost(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def check_events(sink: RecordingEventSink, root: UUID) -> None:
    by_run: dict[str, list[Any]] = defaultdict(list)
    for event in sink.events:
        by_run[event.data["pipeline_run_id"]].append(event)
    born = {it["child_run_id"] for it in sink.payloads("pipeline.spawned_child")}
    assert by_run.keys() == {str(root), *born}
    assert sink.events[-1].data["pipeline_run_id"] == str(root)
    for run_id, events in by_run.items():
        sink.assert_seq_contiguous(run_id)
        assert events[0].data["seq"] == 1
        assert [it.type for it in events if it.type in ENDINGS] == [events[-1].type]
        under_way: set[str] = set()
        for event in events:
            stage = event.data.get("stage")
            if event.type == "stage.started":
                assert stage not in under_way
                under_way.add(stage)
            elif event.type in ("stage.completed", "stage.failed"):
                under_way.remove(stage)
            elif event.type == "stage.skipped":
                under_way.discard(stage)
        assert under_way == set()


def carry_out(number: int) -> None:
    run_seeded(run_program, number, seed=number)


@pytest.mark.spec("30.1.1", "30.3.1", "30.3.2", "30.6.5", "30.7.3", "30.7.5", "30.16.5", "30.16.11")
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_family_of_runs_leaves_or_loses_anything(chunk: int) -> None:
    for number in range(chunk, PROGRAMS, CHUNKS):
        carry_out(number)
