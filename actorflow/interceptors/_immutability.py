"""Noticing stages that change the snapshot they share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Final, final

from actorflow.errors import ImmutabilityViolationError
from actorflow.model import StageKind

from ._base import DONE, BaseInterceptor
from ._description import described, differences
from ._direct import context_for, forget

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext, InterceptorResult

_log: Final = logging.getLogger("actorflow.hardening")


@final
class ImmutabilityInterceptor(BaseInterceptor):
    """Compares the snapshot before and after each stage, with everything inside of it.

    A snapshot is frozen, but an extension or a value in its metadata may be an
    object that is not. A stage that changes one fails with
    `ImmutabilityViolationError`, or is reported with `crash_on_violation=False`.

    This walks through the whole snapshot twice per stage: it is for tests and for
    the search for a fault, not for every day.
    """

    name = "immutability_check"
    priority = 10

    def __init__(
        self,
        crash_on_violation: bool = True,
        *,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        self._crash_on_violation = crash_on_violation

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        own = context_for(ctx, self.name, stage_name)
        running: dict[str, set[str]] | None = own.get_observation("running")
        if running is None:
            running = {}
            own.add_observation("running", running)
        for others in running.values():
            others.add(stage_name)
        running[stage_name] = set(running)
        own.state["running"] = running
        own.state["before"] = described(own.snapshot)
        return DONE

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        own = context_for(ctx, self.name, stage_name)
        changed = tuple(differences(own.state["before"], described(own.snapshot)))
        if not changed:
            return None
        own.try_emit_event(
            "context.mutation_detected", {"stage": stage_name, "paths": list(changed)}
        )
        suspects = own.state["running"].get(stage_name, ())
        violation = ImmutabilityViolationError(stage_name, changed, tuple(sorted(suspects)))
        if self._crash_on_violation:
            raise violation
        own.add_warning(str(violation))
        _log.error(str(violation), extra={"stage": stage_name, "paths": list(changed)})
        return None

    def release(self, stage_name: str, ctx: HookContext) -> Awaitable[None]:
        own = context_for(ctx, self.name, stage_name)
        own.state.get("running", {}).pop(stage_name, None)
        forget(ctx, self.name, stage_name)
        return DONE
