"""What child runs cost, told by the stages of child runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ._base import BaseInterceptor
from ._direct import context_for

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext

_log: Final = logging.getLogger("actorflow.interceptors")


class ChildTracker(Protocol):
    """What knows which runs are children of which."""

    async def get_metrics(self) -> Mapping[str, Any]: ...


@final
class ChildTrackerMetricsInterceptor(BaseInterceptor):
    """In child runs, logs `child_tracker_metrics` with the tracker's numbers after each stage."""

    name = "child_tracker_metrics"
    priority = 45
    observer = True

    def __init__(self, tracker: ChildTracker | None = None) -> None:
        """Ask `tracker`; None for the one that the run's `runtime` has."""
        super().__init__()
        self._tracker = tracker

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        own = context_for(ctx, self.name, stage_name)
        if not own.context.is_child_run or not _log.isEnabledFor(logging.INFO):
            return None
        tracker = self._tracker or getattr(own.context.runtime, "child_tracker", None)
        if tracker is not None:
            numbers = await tracker.get_metrics()
            ids = {"stage": stage_name, "pipeline_run_id": str(own.pipeline_run_id)}
            _log.info("child_tracker_metrics", extra={**ids, **numbers})
        return None
