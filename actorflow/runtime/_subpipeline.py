"""Runs started by stages: children that end before the stage that started them does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeAlias, final
from uuid import UUID

import attrs
import trio

from actorflow import ids
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MaxDepthExceededError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.pipeline import PipelineBuilder, pipeline_registry
from actorflow.stages import PipelineContext, StageContext, SubpipelineResult

from ._active_runs import find_run
from ._children import ChildRunTracker
from ._results import PipelineResults
from ._runtime import tracker_of

DEFAULT_MAX_SUBPIPELINE_DEPTH: Final = 5
_REMEMBERED: Final = 10_000
# For trackers that keep their tree elsewhere; ours never waits.
_UNREGISTER_TIMEOUT: Final = 5.0

Runner: TypeAlias = Callable[[PipelineContext], Awaitable[Any]]
"""Runs a child on the context made for it; its results or a mapping become the data."""


@final
class SubpipelineSpawner:
    """Starts child runs, watches how deep they nest, and cancels families."""

    def __init__(
        self,
        child_tracker: ChildRunTracker | None = None,
        *,
        emit_events: bool = True,
        max_depth: int = DEFAULT_MAX_SUBPIPELINE_DEPTH,
    ) -> None:
        if max_depth < 1:
            raise InvalidArgumentError("max_depth", max_depth, "at least 1")
        self._tracker = child_tracker
        self._emit_events = emit_events
        self.max_depth: Final = max_depth
        self._canceled: OrderedDict[UUID, None] = OrderedDict()

    async def spawn(
        self,
        pipeline_name: str,
        ctx: PipelineContext | StageContext,
        correlation_id: UUID | str | None,
        parent_stage_id: str,
        runner: Runner,
        *,
        topology: str | None = None,
        execution_mode: str | None = None,
        inherit_data: bool | Collection[str] = False,
        data_overrides: Mapping[str, Any] | None = None,
    ) -> SubpipelineResult:
        """Run a child of the run of `ctx` here, in the calling task.

        Its failure or cancellation is in the result and raises nothing.

        Raises:
          MaxDepthExceededError: before anything has happened.
        """
        parent = _context_of(ctx)
        if parent.depth >= self.max_depth:
            raise MaxDepthExceededError(parent.depth, self.max_depth, parent.pipeline_run_id)
        if parent.pipeline_run_id is None:
            parent.pipeline_run_id = ids.uuid7()
        child = parent.fork_for_subpipeline(
            None,
            parent_stage_id,
            correlation_id,
            topology=topology,
            execution_mode=execution_mode,
            inherit_data=inherit_data,
            data_overrides=data_overrides,
        )
        birth = _Birth(parent, child, pipeline_name, self._emit_events)
        tracker = self._tracker or tracker_of(parent.runtime)
        await tracker.register_child(birth.parent_id, birth.child_id)
        try:
            await birth.report(
                "spawned_child",
                parent_stage_id=parent_stage_id,
                correlation_id=None if correlation_id is None else str(correlation_id),
            )
            result = await birth.carry_out(runner)
            if result.canceled:
                self._remember(birth.child_id)
            return result
        except trio.Cancelled:
            self._remember(birth.child_id)
            raise
        finally:
            with trio.move_on_after(_UNREGISTER_TIMEOUT, shield=True):
                await tracker.unregister_child(birth.parent_id, birth.child_id)

    async def cancel_with_children(
        self, run_id: UUID, reason: str = "user_requested"
    ) -> list[UUID]:
        """Cancel a run with everything below it, and return their ids in the order they ended.

        A run that is unknown or has ended gives an empty list.
        """
        run = find_run(run_id)
        if run is None:
            return []
        tracker = self._tracker or tracker_of(run.context.runtime)
        family = {run_id, *await tracker.get_all_descendants(run_id)}
        ended: list[UUID] = []
        gone = trio.Event()
        for member_id in family:
            member = find_run(member_id)
            if member is not None:
                member.when_ended(partial(ended.append, member_id))
        run.when_ended(gone.set)
        run.request_cancel(reason)
        await gone.wait()
        for member_id in ended:
            self._remember(member_id)
        return ended

    def is_canceled(self, run_id: UUID) -> bool:
        """Whether a run was canceled through this spawner; the last 10,000 are remembered."""
        return run_id in self._canceled

    def _remember(self, run_id: UUID) -> None:
        self._canceled[run_id] = None
        if len(self._canceled) > _REMEMBERED:
            self._canceled.popitem(last=False)


def runnable(pipeline: object) -> tuple[str, Runner]:
    """The name of something that can be run, or of a registered pipeline, and how to run it.

    Raises:
      PipelineNotFoundError: if there is no pipeline of that name.
      InvalidTypeError: for anything that cannot be run.
    """
    if isinstance(pipeline, str):
        return pipeline, pipeline_registry.get(pipeline).run
    if isinstance(pipeline, PipelineBuilder):
        pipeline = pipeline.pipeline()
    run = getattr(pipeline, "run", None)
    if not callable(run):
        raise InvalidTypeError("pipeline", pipeline, "a pipeline, a graph or a registered name")
    name = getattr(pipeline, "name", None) or getattr(pipeline, "pipeline_name", None)
    return name or "pipeline", run


def _context_of(ctx: object) -> PipelineContext:
    if isinstance(ctx, StageContext):
        # What a stage holds passes requests on to its run, which knows the context.
        run = ctx._run
        if run is not None:
            return run.context
    if isinstance(ctx, PipelineContext):
        return ctx
    raise InvalidTypeError("ctx", ctx, "a PipelineContext, or the StageContext of a run")


@attrs.frozen
class _Birth:
    """One child run, as its parent sees it."""

    parent: PipelineContext
    child: PipelineContext
    pipeline_name: str
    reports: bool

    @property
    def parent_id(self) -> UUID:
        assert self.parent.pipeline_run_id is not None
        return self.parent.pipeline_run_id

    @property
    def child_id(self) -> UUID:
        assert self.child.pipeline_run_id is not None
        return self.child.pipeline_run_id

    async def report(self, what: str, **more: Any) -> None:
        sink = self.parent.event_sink
        if not self.reports or sink is None:
            return
        data = {
            "parent_run_id": str(self.parent_id),
            "child_run_id": str(self.child_id),
            "pipeline_name": self.pipeline_name,
            **more,
        }
        await sink.emit(type=f"pipeline.{what}", data=data)

    async def carry_out(self, runner: Runner) -> SubpipelineResult:
        begun_at = trio.current_time()

        def duration_ms() -> float:
            return round((trio.current_time() - begun_at) * 1000, 3)

        try:
            returned = await runner(self.child)
        except UnifiedPipelineCancelled as canceled:
            return SubpipelineResult(
                success=False,
                child_run_id=self.child_id,
                duration_ms=duration_ms(),
                canceled=True,
                cancel_reason=canceled.reason,
                results=canceled.results,
            )
        except Exception as error:  # noqa: BLE001 - pipelines are user code
            original, results = error, None
            if isinstance(error, UnifiedStageExecutionError):
                original, results = error.original, error.results
            failed = SubpipelineResult(
                success=False,
                child_run_id=self.child_id,
                error=str(error) or type(error).__name__,
                error_type=type(original).__name__,
                duration_ms=duration_ms(),
                results=results,
            )
            await self.report(
                "child_failed", error_message=failed.error, duration_ms=failed.duration_ms
            )
            return failed
        done = SubpipelineResult(
            success=True,
            child_run_id=self.child_id,
            data=_data_of(returned),
            duration_ms=duration_ms(),
            results=returned if isinstance(returned, PipelineResults) else None,
        )
        await self.report("child_completed", duration_ms=done.duration_ms)
        return done


def _data_of(returned: Any) -> Mapping[str, Any]:
    if isinstance(returned, PipelineResults):
        return {stage: output.data for stage, output in returned.items()}
    return returned if isinstance(returned, Mapping) else {"result": returned}


_default: Final = SubpipelineSpawner()
_current: Final[ContextVar[SubpipelineSpawner | None]] = ContextVar(
    "actorflow_subpipeline_spawner", default=None
)


def get_subpipeline_spawner() -> SubpipelineSpawner:
    """The spawner that was set, or the one all others share."""
    return _current.get() or _default


def set_subpipeline_spawner(spawner: SubpipelineSpawner) -> None:
    """Use `spawner` here and in tasks started from now on."""
    _current.set(spawner)


def clear_subpipeline_spawner() -> None:
    """Go back to the one all others share."""
    _current.set(None)
