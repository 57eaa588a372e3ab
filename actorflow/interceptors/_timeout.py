"""A limit for stages that nobody gave one."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, final

from actorflow.errors import InvalidArgumentError
from actorflow.model import StageKind

from ._base import DONE, BaseInterceptor
from ._direct import context_for

if TYPE_CHECKING:
    from ._base import HookContext, InterceptorResult


@final
class TimeoutInterceptor(BaseInterceptor):
    """Limits each try of a stage that has no other limit; with None it does nothing.

    The limit holds for the try alone, inside all interceptors: they see an
    expired one as a failure with a `StageTimeoutError`.
    """

    name = "timeout"
    priority = 5

    def __init__(
        self,
        default_timeout_ms: float | None = None,
        *,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        if default_timeout_ms is not None and not default_timeout_ms > 0:
            raise InvalidArgumentError(
                "default_timeout_ms", default_timeout_ms, "more than 0 milliseconds, or None"
            )
        self.default_timeout_ms = default_timeout_ms

    def applies_to(self, stage_name: str, kind: StageKind) -> bool:
        return self.default_timeout_ms is not None and super().applies_to(stage_name, kind)

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        own = context_for(ctx, self.name, stage_name)
        if own.timeout_ms is None:
            own.timeout_ms = self.default_timeout_ms
        return DONE
