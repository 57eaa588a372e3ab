"""Not calling what keeps failing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from actorflow.errors import (
    CircuitOpenError,
    InvalidArgumentError,
    StageFailedError,
    StageRetryRequested,
)
from actorflow.model import StageKind, StageStatus

from ._base import DONE, ErrorAction, InterceptorResult, PlainFacts
from ._circuit import Circuit, Ended, Phase, Rules
from ._direct import context_for, forget

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext
    from ._context import InterceptorContext
    from ._outcome import Outcome

_Key: TypeAlias = tuple[str, str]

_UNTROUBLED: Final = Circuit()
_EVENT_OF: Final = {
    Phase.CLOSED: "work.circuit_closed",
    Phase.OPEN: "work.circuit_opened",
    Phase.HALF_OPEN: "work.circuit_half_open",
}


@final
class CircuitBreakerState:
    """What breakers know, by pipeline and stage; pass one object to share it.

    It has an entry for troubled stages only. Beyond `max_keys` the closed one
    that was used least recently leaves first.
    """

    def __init__(self, max_keys: int = 10_000) -> None:
        if not max_keys >= 1:
            raise InvalidArgumentError("max_keys", max_keys, "1 or more")
        self._max_keys: Final = max_keys
        self._circuits: Final[OrderedDict[_Key, Circuit]] = OrderedDict()

    def get(self, pipeline: str, stage: str) -> Phase:
        """`"closed"`, `"open"` or `"half_open"`, as the last call left it."""
        return self.circuit(pipeline, stage).phase

    def circuit(self, pipeline: str, stage: str) -> Circuit:
        return self._circuits.get((pipeline, stage), _UNTROUBLED)

    def put(self, pipeline: str, stage: str, circuit: Circuit) -> None:
        """Keep a circuit, and let go of another if there is one too many."""
        key = (pipeline, stage)
        self._circuits[key] = circuit
        self._circuits.move_to_end(key)
        if len(self._circuits) > self._max_keys:
            closed = (k for k, c in self._circuits.items() if c.phase is Phase.CLOSED)
            del self._circuits[next(closed, next(iter(self._circuits)))]

    def __len__(self) -> int:
        return len(self._circuits)


@final
class CircuitBreakerInterceptor(PlainFacts):
    """Refuses calls of a stage for `reset_timeout` seconds after several failures in a row.

    A whole call counts once, all its tries together. What counts as a failure are
    exceptions, timeouts and outputs that could be tried again; with
    `count_fail_outputs` every FAIL. A refused call fails with `CircuitOpenError`.
    """

    name = "circuit_breaker"
    priority = 10

    def __init__(
        self,
        failure_threshold: int = 5,
        reset_timeout: float = 30.0,
        *,
        half_open_max_calls: int = 1,
        count_fail_outputs: bool = False,
        state: CircuitBreakerState | None = None,
        max_keys: int = 10_000,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        for argument, found in (
            ("failure_threshold", failure_threshold),
            ("reset_timeout", reset_timeout),
            ("half_open_max_calls", half_open_max_calls),
        ):
            if not found > 0:
                raise InvalidArgumentError(argument, found, "more than 0")
        self.state: Final = CircuitBreakerState(max_keys) if state is None else state
        self._rules: Final = Rules(failure_threshold, reset_timeout, half_open_max_calls)
        self._count_fail_outputs = count_fail_outputs

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        # Most stages are never in trouble; for them there is nothing to remember.
        if not self.state:
            return DONE
        own = context_for(ctx, self.name, stage_name)
        found = self.state.circuit(own.pipeline_name, stage_name)
        return DONE if found is _UNTROUBLED else self._ask(stage_name, own, found)

    async def _ask(
        self, stage_name: str, ctx: InterceptorContext, found: Circuit
    ) -> InterceptorResult | None:
        now = trio.current_time()
        circuit, is_admitted = found.admitted(now, self._rules)
        self.state.put(ctx.pipeline_name, stage_name, circuit)
        if is_admitted:
            ctx.state["era"] = circuit.era
            # The state comes first: whoever asks while this event waits sees it.
            await self._report_change(ctx, stage_name, found, circuit)
            return None
        ctx.try_emit_event("work.circuit_rejected", self._told(ctx, stage_name, circuit))
        error = CircuitOpenError(
            f"{ctx.pipeline_name}/{stage_name}",
            ctx.pipeline_name,
            stage_name,
            circuit.failures,
            circuit.seconds_left(now, self._rules),
        )
        return InterceptorResult(stage_ran=False, error=error)

    async def on_error(self, stage_name: str, error: Exception, ctx: HookContext) -> ErrorAction:
        if self._counts(error):
            context_for(ctx, self.name, stage_name).state["failed"] = True
        return ErrorAction.FAIL

    def _counts(self, error: Exception) -> bool:
        if isinstance(error, StageFailedError):
            return bool(error.output.retryable) or self._count_fail_outputs
        return not isinstance(error, StageRetryRequested) or bool(error.output.retryable)

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        own = context_for(ctx, self.name, stage_name)
        await self._judge(stage_name, result.output, result.short_circuited_by, own)
        forget(ctx, self.name, stage_name)
        return None

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        if not self.state and not ctx.has_state:
            return DONE
        return self._judge(stage_name, outcome.output, outcome.short_circuited_by, ctx)

    def _judge(
        self, stage_name: str, output: StageOutput | None, by: str | None, ctx: InterceptorContext
    ) -> Awaitable[None]:
        state = ctx.state
        has_failed = "failed" in state
        era = state.pop("era", None)
        found = self.state.circuit(ctx.pipeline_name, stage_name)
        if found is _UNTROUBLED and not has_failed:
            return DONE
        how = Ended.WITHOUT_VERDICT
        if by is None:
            if has_failed:
                how = Ended.BADLY
            elif output is not None and output.status is StageStatus.OK:
                how = Ended.WELL
        return self._settle(ctx, stage_name, found, how, _UNTROUBLED.era if era is None else era)

    def release(self, stage_name: str, ctx: HookContext) -> Awaitable[None]:
        # There is something to give back only if the call was interrupted.
        own = context_for(ctx, self.name, stage_name)
        if own is ctx and not own.has_state:
            return DONE
        era = own.state.pop("era", None)
        if era is not None:
            circuit = self.state.circuit(own.pipeline_name, stage_name)
            now = trio.current_time()
            without = circuit.settled(Ended.WITHOUT_VERDICT, era, now, self._rules)
            self.state.put(own.pipeline_name, stage_name, without)
        forget(ctx, self.name, stage_name)
        return DONE

    async def _settle(
        self, ctx: InterceptorContext, stage_name: str, found: Circuit, how: Ended, era: int
    ) -> None:
        circuit = found.settled(how, era, trio.current_time(), self._rules)
        self.state.put(ctx.pipeline_name, stage_name, circuit)
        await self._report_change(ctx, stage_name, found, circuit)

    async def _report_change(
        self, ctx: InterceptorContext, stage_name: str, before: Circuit, after: Circuit
    ) -> None:
        if before.phase is not after.phase:
            await ctx.emit(_EVENT_OF[after.phase], self._told(ctx, stage_name, after))

    def _told(
        self, ctx: InterceptorContext, stage_name: str, circuit: Circuit
    ) -> dict[str, object]:
        return {
            "circuit": f"{ctx.pipeline_name}/{stage_name}",
            "stage": stage_name,
            "failures": circuit.failures,
            "reset_after_seconds": circuit.seconds_left(trio.current_time(), self._rules),
        }
