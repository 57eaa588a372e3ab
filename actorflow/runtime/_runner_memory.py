"""Samples of memory around runs and their stages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

import trio

from actorflow.diagnostics import MemoryTracker, memory_tracker_scope
from actorflow.interceptors import BaseInterceptor, InterceptorResult

if TYPE_CHECKING:
    from ._run_result import RunResult


@final
class MemoryWatch:
    """Takes a sample before and after each run, and makes the tracker that of the run."""

    def __init__(self, tracker: MemoryTracker, *, auto_start: bool) -> None:
        self.tracker: Final = tracker
        self._is_to_start = auto_start

    async def around(self, run: Callable[[], Awaitable[RunResult]]) -> RunResult:
        # Not when the runner is made: tracing slows the process down. And not for each
        # run alone: what leaks shows only over many.
        if self._is_to_start:
            self._is_to_start = False
            self.tracker.start()
        observe(self.tracker, "pipeline:start")
        ending = "error"
        try:
            with memory_tracker_scope(self.tracker):
                result = await run()
            ending = _ending_of(result)
            return result
        except trio.Cancelled:
            ending = "cancelled"
            raise
        finally:
            observe(self.tracker, f"pipeline:{ending}")


@final
class StageMemory(BaseInterceptor):
    """Takes a sample before and after each call of a stage."""

    name = "memory_samples"
    priority = 0
    observer = True

    def __init__(self, tracker: MemoryTracker) -> None:
        super().__init__()
        self._tracker = tracker

    async def before(self, stage_name: str, ctx: object) -> InterceptorResult | None:
        observe(self._tracker, f"stage:{stage_name}:start")
        return None

    async def release(self, stage_name: str, ctx: object) -> None:
        observe(self._tracker, f"stage:{stage_name}:end")


def observe(tracker: MemoryTracker, label: str) -> None:
    """Take a sample, unless somebody has stopped the tracker."""
    if tracker.is_active:
        tracker.observe(label)


def _ending_of(result: RunResult) -> str:
    if result.cancelled:
        return "cancelled"
    return "end" if result.success else "error"
