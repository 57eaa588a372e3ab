"""What child runs cost, told by the stages of child runs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ._base import DONE, PlainFacts
from ._direct import context_for

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import PipelineContext, StageResult

    from ._base import HookContext
    from ._context import InterceptorContext, StageCallPort
    from ._outcome import Outcome

_log: Final = logging.getLogger("actorflow.interceptors")


class ChildTracker(Protocol):
    """What knows which runs are children of which."""

    async def get_metrics(self) -> Mapping[str, Any]: ...


@final
class ChildTrackerMetricsInterceptor(PlainFacts):
    """In child runs, logs `child_tracker_metrics` with the tracker's numbers after each stage."""

    name = "child_tracker_metrics"
    priority = 45
    observer = True

    def __init__(self, tracker: ChildTracker | None = None) -> None:
        """Ask `tracker`; None for the one that the run's `runtime` has."""
        super().__init__()
        self._tracker = tracker

    def is_needed(self, call: StageCallPort) -> bool:
        return _is_told(call.context)

    def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> Awaitable[StageOutput | None]:
        return self._tell(stage_name, context_for(ctx, self.name, stage_name).context)

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        return self._tell(stage_name, ctx.context)

    def _tell(self, stage_name: str, run: PipelineContext) -> Awaitable[None]:
        if not _is_told(run):
            return DONE
        tracker = self._tracker or getattr(run.runtime, "child_tracker", None)
        return DONE if tracker is None else _log_numbers(tracker, stage_name, run)


def _is_told(run: PipelineContext) -> bool:
    return run.is_child_run and _log.isEnabledFor(logging.INFO)


async def _log_numbers(tracker: ChildTracker, stage_name: str, run: PipelineContext) -> None:
    numbers = await tracker.get_metrics()
    ids = {"stage": stage_name, "pipeline_run_id": str(run.pipeline_run_id)}
    _log.info("child_tracker_metrics", extra={**ids, **numbers})
