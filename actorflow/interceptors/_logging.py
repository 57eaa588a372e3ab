"""A record when a stage starts, and one when it has finished."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, final

from ._base import DONE, PlainFacts
from ._direct import context_for

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext, InterceptorResult
    from ._context import InterceptorContext, StageCallPort
    from ._outcome import Outcome

_log: Final = logging.getLogger("actorflow.interceptors")


@final
class LoggingInterceptor(PlainFacts):
    """Logs `stage_starting` and `stage_finished` for each try; never what a stage is given or gives."""

    name = "logging"
    priority = 50
    observer = True

    def is_needed(self, call: StageCallPort) -> bool:
        return _log.isEnabledFor(logging.INFO)

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        if _log.isEnabledFor(logging.INFO):
            own = context_for(ctx, self.name, stage_name)
            run_id, topology = str(own.pipeline_run_id), own.context.topology
            about = {"stage": stage_name, "pipeline_run_id": run_id, "topology": topology}
            _log.info("stage_starting", extra=about)
        return DONE

    def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> Awaitable[StageOutput | None]:
        own = context_for(ctx, self.name, stage_name)
        _finished(stage_name, result.status, result.duration_ms, own)
        return DONE

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        _finished(stage_name, outcome.status, duration_ms, ctx)
        return DONE


def _finished(stage_name: str, status: str, duration_ms: float, ctx: InterceptorContext) -> None:
    if _log.isEnabledFor(logging.INFO):
        _log.info(
            "stage_finished",
            extra={
                "stage": stage_name,
                "status": status,
                "duration_ms": duration_ms,
                "pipeline_run_id": str(ctx.pipeline_run_id),
            },
        )
