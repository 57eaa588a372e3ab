"""Hooks and chains without a run: called by hand, on a context of a pipeline."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

import trio

from actorflow.errors import InvalidTypeError, StageTimeoutError, UnsupportedResultError
from actorflow.model import FrozenDict, StageKind, StageOutput
from actorflow.stages import PipelineContext, StageInputs, StageResult

from ._chain import StageChain, layers_of, result_of
from ._configuration import ordered
from ._context import InterceptorContext, Observations

if TYPE_CHECKING:
    from actorflow.model import ContextSnapshot
    from actorflow.stages import IdempotencyInfo

    from ._base import HookContext

_OBSERVATIONS: Final = "_interceptor_observations"


@final
class _DirectCall:
    """A call outside a run; also what a chain knows about it while it is made."""

    gave_up: str | None = None
    tries = 1
    runner: object = None
    config: Mapping[str, Any] = FrozenDict()
    attempt = 1
    has_sent = False
    cleanup_timeout = 10.0

    def __init__(
        self,
        context: PipelineContext,
        stage_name: str,
        stage_run: Callable[[], Any] | None = None,
        stage_kind: StageKind | None = None,
    ) -> None:
        self.context = context
        self.stage_name = stage_name
        self.stage_kind = stage_kind
        self.warnings: list[str] = []
        self.noted: list[tuple[InterceptorContext, str]] = []
        self.port = self
        self._stage_run = stage_run
        self.timeout_ms: float | None = None
        self.begun_at = self.first_try_at = trio.current_time()

    @property
    def pipeline_name(self) -> str:
        return self.context.topology or "pipeline"

    @property
    def snapshot(self) -> ContextSnapshot:
        return self.context.snapshot

    @property
    def inputs(self) -> StageInputs:
        return StageInputs(self.snapshot, self.context.outputs.outputs(), self.context.ports)

    @property
    def observations(self) -> Observations:
        observations: Observations = self.context.data.setdefault(_OBSERVATIONS, {})
        return observations

    def set_idempotency(self, info: IdempotencyInfo | None) -> None:
        """No context of a stage is there to say it to."""

    def new_state(self, name: str) -> dict[str, Any]:
        key = _state_key(name, self.stage_name)
        state: dict[str, Any] = self.context.data.setdefault(key, {})
        return state

    async def execute(self, try_number: int, timeout_ms: float | None) -> StageOutput:
        assert self._stage_run is not None, "only a chain executes"
        limit = math.inf if timeout_ms is None else timeout_ms / 1000
        with trio.move_on_after(limit):
            return await self._output_of(self._stage_run)
        raise StageTimeoutError(self.stage_name, limit, limit)

    async def _output_of(self, stage_run: Callable[[], Any]) -> StageOutput:
        found = stage_run()
        if inspect.isawaitable(found):
            found = await found
        if isinstance(found, StageResult) and found.output is not None:
            found = found.output
        try:
            return StageOutput.from_returned(found)
        except InvalidTypeError:
            raise UnsupportedResultError(self.stage_name, found) from None


async def run_with_interceptors(
    stage_name: str,
    stage_run: Callable[[], Any],
    ctx: PipelineContext,
    interceptors: Iterable[Any],
    *,
    kind: StageKind = StageKind.TRANSFORM,
) -> StageResult:
    """Call `stage_run` through a chain, without a run around it.

    It may be a function or an async one and returns what a stage may return. How
    it failed is in the result; only a cancellation is raised.
    """
    call = _DirectCall(ctx, stage_name, stage_run, kind)
    begun_at = trio.current_time()
    end = await StageChain(layers_of(ordered(interceptors), stage_name, kind)).call(call)
    return result_of(
        call,
        end.outcome,
        end.tries,
        begun_at,
        timed_out=isinstance(end.outcome.error, StageTimeoutError),
        warnings=end.warnings,
    )


def context_for(ctx: HookContext, name: str, stage_name: str) -> InterceptorContext:
    """The context of a hook: what the chain hands in, or one for a call by hand.

    The second keeps its state in the data of `ctx` until `forget` is called.
    """
    if isinstance(ctx, InterceptorContext):
        return ctx
    return InterceptorContext(_DirectCall(ctx, stage_name), name)


def forget(ctx: HookContext, name: str, stage_name: str) -> None:
    """Remove what `context_for` keeps; in a chain there is nothing to remove."""
    if not isinstance(ctx, InterceptorContext):
        ctx.data.pop(_state_key(name, stage_name), None)


def _state_key(name: str, stage_name: str) -> str:
    return f"_interceptor.{name}.{stage_name}"
