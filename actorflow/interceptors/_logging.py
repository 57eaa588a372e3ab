"""A record when a stage starts, and one when it has finished."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

from ._base import BaseInterceptor
from ._direct import context_for

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext, InterceptorResult

_log: Final = logging.getLogger("actorflow.interceptors")


@final
class LoggingInterceptor(BaseInterceptor):
    """Logs `stage_starting` and `stage_finished` for each try; never what a stage is given or gives."""

    name = "logging"
    priority = 50
    observer = True

    async def before(self, stage_name: str, ctx: HookContext) -> InterceptorResult | None:
        if _log.isEnabledFor(logging.INFO):
            own = context_for(ctx, self.name, stage_name)
            _log.info(
                "stage_starting",
                extra={
                    "stage": stage_name,
                    "pipeline_run_id": str(own.pipeline_run_id),
                    "topology": own.topology,
                },
            )
        return None

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        if _log.isEnabledFor(logging.INFO):
            own = context_for(ctx, self.name, stage_name)
            _log.info(
                "stage_finished",
                extra={
                    "stage": stage_name,
                    "status": result.status,
                    "duration_ms": result.duration_ms,
                    "pipeline_run_id": str(own.pipeline_run_id),
                },
            )
        return None
