"""What an interceptor is: hooks around the call of a stage."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final
from uuid import UUID

import attrs

from actorflow.model import StageKind, StageOutput, StageStatus

if TYPE_CHECKING:
    from actorflow.stages import PipelineContext, StageResult

    from ._context import InterceptorContext

# In a run a hook gets the first; who calls a hook by hand may pass the second.
HookContext: TypeAlias = "InterceptorContext | PipelineContext"

_Function = TypeVar("_Function")

BY_HAND: Final[set[object]] = set()
"""Hooks that only tidy up after calls by hand; a chain leaves them out."""


def only_by_hand(hook: _Function) -> _Function:
    """Mark a hook that a chain has no need of."""
    BY_HAND.add(hook)
    return hook


@final
class ErrorAction(StrEnum):
    """What becomes of a failure."""

    RETRY = "retry"
    """Everything inside runs again."""
    FALLBACK = "fallback"
    """The output of `fallback` takes its place."""
    FAIL = "fail"
    """It goes on outwards."""


@final
@attrs.frozen(kw_only=True)
class InterceptorResult:
    """What `before` answers to keep the stage from being called, and what comes out instead.

    The status is `status` if that is given; else FAIL with an `error`; else that
    of a `result` which has one; else OK for a mapping, and SKIP for nothing.
    """

    stage_ran: bool = True
    """False answers the call here: nothing further inside runs."""
    result: Any = None
    """An output, the result of a stage, or a mapping of data."""
    error: Exception | str | None = None
    status: StageStatus | str | None = None
    replayed: bool = False
    """Whether `result` is that of an earlier call."""
    original_run_id: UUID | None = None
    """The run of that call."""


class BaseInterceptor:
    """Subclass it and override the hooks you need; the others do nothing and cost nothing.

    An instance holds its configuration. What belongs to one call of a stage goes
    into `ctx.state`, so one instance serves any number of calls at the same time.
    """

    name: str = "base_interceptor"
    priority: int = 100
    """Lower is further out."""
    observer: bool = False
    """Whether it only watches: its errors, answers and short circuits change nothing."""

    def __init__(
        self,
        *,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        """Wrap the stages with these names and of these kinds; None for all."""
        self.stages = None if stages is None else frozenset(stages)
        self.kinds = None if kinds is None else frozenset(map(StageKind, kinds))

    def applies_to(self, stage_name: str, kind: StageKind) -> bool:
        """Whether it wraps this stage; asked once, when the graph is built."""
        return (self.stages is None or stage_name in self.stages) and (
            self.kinds is None or kind in self.kinds
        )

    async def before(self, stage_name: str, ctx: HookContext) -> InterceptorResult | None:
        """Called on the way in; what it raises fails the stage."""

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        """Called on the way out; an output that it returns takes the place of the outcome."""

    async def on_error(
        self, stage_name: str, error: Exception, ctx: HookContext
    ) -> ErrorAction | str:
        """Called when what is inside failed; raise to replace the error."""
        return ErrorAction.FAIL

    async def fallback(
        self, stage_name: str, error: Exception, ctx: HookContext
    ) -> StageOutput | None:
        """Gives what takes the place of a failure after `ErrorAction.FALLBACK`."""
        raise error

    async def release(self, stage_name: str, ctx: HookContext) -> None:
        """Called last, on every exit, cancellation included: give back what `before` took."""
