"""What an interceptor is: hooks around the call of a stage."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Generator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final
from uuid import UUID

import attrs

from actorflow.model import StageKind, StageOutput, StageStatus

if TYPE_CHECKING:
    from actorflow.stages import PipelineContext, StageResult

    from ._context import InterceptorContext, StageCallPort
    from ._outcome import Outcome

# In a run a hook gets the first; who calls a hook by hand may pass the second.
HookContext: TypeAlias = "InterceptorContext | PipelineContext"


@final
class _Done:
    """An awaitable that has nothing to wait for, and gives None."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


DONE: Final = _Done()
"""What a hook returns that is no async function and has nothing to say.

The chain knows it and does not wait: no coroutine is made, and for `release`
no cancel scope, which would cost more than the rest of the chain.
"""


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
    # Defaults of the class, because a subclass may have an `__init__` that leaves this one out.
    stages: frozenset[str] | None = None
    kinds: frozenset[StageKind] | None = None

    def __init__(
        self,
        *,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        """Wrap the stages with these names and of these kinds; None for all."""
        if stages is not None:
            self.stages = frozenset(stages)
        if kinds is not None:
            self.kinds = frozenset(map(StageKind, kinds))

    def applies_to(self, stage_name: str, kind: StageKind) -> bool:
        """Whether it wraps this stage; asked once, when the graph is built."""
        return (self.stages is None or stage_name in self.stages) and (
            self.kinds is None or kind in self.kinds
        )

    # Plain functions, so that a hook which nobody overrides costs no coroutine. Those of
    # a subclass are usually async; what they may return is the same.

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        """Called on the way in; what it raises fails the stage."""
        return DONE

    def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> Awaitable[StageOutput | None]:
        """Called on the way out; an output that it returns takes the place of the outcome."""
        return DONE

    async def on_error(
        self, stage_name: str, error: Exception, ctx: HookContext
    ) -> ErrorAction | str:
        """Called when what is inside failed; raise to replace the error.

        Count your own RETRY answers, in `ctx.state`: `ctx.try_number` counts
        executions of the stage, and what is inside may fail before it gets there.
        """
        return ErrorAction.FAIL

    async def fallback(
        self, stage_name: str, error: Exception, ctx: HookContext
    ) -> StageOutput | None:
        """Gives what takes the place of a failure after `ErrorAction.FALLBACK`."""
        raise error

    def release(self, stage_name: str, ctx: HookContext) -> Awaitable[None]:
        """Called last, on every exit, cancellation included: give back what `before` took."""
        return DONE


class PlainFacts(BaseInterceptor):
    """What interceptors of this package subclass to be told endings as plain facts.

    A `StageResult` costs as much as the rest of the chain. In a chain `ended` is
    called instead of `after`, which is there for calls by hand. A call that comes to
    its end without `state` has nothing that `release` could give back.
    """

    def is_needed(self, call: StageCallPort) -> bool:
        """Asked when a call begins; who is not needed is passed by."""
        return True

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        """Called on the way out; what it raises is isolated."""
        return DONE
