"""What somebody holds of a run that is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from uuid import UUID

import trio

if TYPE_CHECKING:
    from actorflow.stages import PipelineContext

    from ._results import PipelineResults
    from ._run import Run
    from ._status import RunStatus


@final
class RunHandle:
    """A run in progress: look at it, stop it, wait for it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended = trio.Event()
        self.was_told = False

    async def supervise(self) -> None:
        """Carry the run out. For whoever made the handle."""
        try:
            await self._run.supervise()
        finally:
            self._ended.set()

    def __repr__(self) -> str:
        return f"<run {self.pipeline_name} {self.run_id} {self.status().state}>"

    @property
    def run_id(self) -> UUID | None:
        return self._run.context.pipeline_run_id

    @property
    def pipeline_name(self) -> str:
        return self._run.pipeline_name

    @property
    def context(self) -> PipelineContext:
        """The run's context."""
        return self._run.context

    @property
    def results(self) -> PipelineResults:
        """What there is so far; a copy, so look again for more."""
        return self._run.results

    def status(self) -> RunStatus:
        """Where the run and each of its stages are at this moment."""
        return self._run.status

    def cancel(self, reason: str = "user_requested") -> None:
        """Ask for the end; the first reason counts. Works from any thread."""
        self._run.request_cancel(reason)

    async def wait(self) -> PipelineResults:
        """Return the results when the run has ended.

        Being cancelled while waiting does not stop the run.

        Raises:
          UnifiedStageExecutionError: if it failed.
          UnifiedPipelineCancelled: if it was cancelled.
        """
        await self._ended.wait()
        self.was_told = True
        return self._run.outcome()
