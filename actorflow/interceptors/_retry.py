"""Trying again what may well work the next time."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable
from random import Random
from typing import TYPE_CHECKING, Any, Final, final

import trio

from actorflow.backoff import BackoffStrategy, JitterStrategy
from actorflow.errors import InvalidArgumentError
from actorflow.model import StageKind

from ._base import DONE, ErrorAction, PlainFacts
from ._context import InterceptorContext
from ._direct import context_for, forget
from ._retry_policy import NEVER_RETRY_ON, RETRY_ON, Again, GiveUp, RetryPolicy, decide

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext

_STATUSES: Final = frozenset({"retry"})


@final
class RetryInterceptor(PlainFacts):
    """Repeats a stage, and everything between it and this interceptor, after a delay.

    What is repeated: exceptions of the classes in `retry_on`, timeouts if
    `TimeoutError` is one of them, and outputs that ask for it (RETRY, and FAIL
    with `retryable=True`). A stage with a `retry_policy` of its own is treated by
    that one instead.
    """

    name = "retry"
    priority = 15

    def __init__(
        self,
        max_attempts: int = 3,
        base_delay_ms: int = 1000,
        max_delay_ms: int = 30_000,
        backoff_strategy: BackoffStrategy | str = BackoffStrategy.EXPONENTIAL,
        jitter_strategy: JitterStrategy | str = JitterStrategy.FULL,
        retry_on: Iterable[type[BaseException]] = RETRY_ON,
        *,
        never_retry_on: Iterable[type[BaseException]] = NEVER_RETRY_ON,
        retry_on_status: Collection[str] = ("retry",),
        max_elapsed_ms: float | None = None,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
        random: Random | None = None,
    ) -> None:
        """Repeat by these rules; `random` is the dice of the jitter."""
        super().__init__(stages=stages, kinds=kinds)
        self.policy = RetryPolicy(
            max_attempts,
            base_delay_ms,
            max_delay_ms,
            backoff_strategy,
            jitter_strategy,
            retry_on,
            never_retry_on,
            max_elapsed_ms,
        )
        unknown = sorted(set(map(str, retry_on_status)) - _STATUSES)
        if unknown:
            raise InvalidArgumentError("retry_on_status", unknown, "'retry' or nothing")
        self._statuses: Final = frozenset(map(str, retry_on_status))
        self._random = random

    async def on_error(self, stage_name: str, error: Exception, ctx: HookContext) -> ErrorAction:
        """Wait and answer RETRY; or FAIL, at once, if no further try follows."""
        own = context_for(ctx, self.name, stage_name)
        state = own.state
        now = trio.current_time()
        policy = getattr(own.runner, "retry_policy", None) or self.policy
        begun_at = state.setdefault("begun_at", own.first_try_at)
        failures = state["failures"] = state.get("failures", 0) + 1
        decision = decide(
            policy,
            error,
            failures=failures,
            elapsed_ms=(now - begun_at) * 1000,
            time_left_ms=(trio.current_effective_deadline() - now) * 1000,
            previous_ms=state.get("previous_ms"),
            has_sent=own.has_sent,
            statuses=self._statuses,
            random=self._random,
        )
        match decision:
            case Again(delay_ms):
                state["previous_ms"] = delay_ms
                await self._wait(own, stage_name, failures, delay_ms, _text(error), policy)
                return ErrorAction.RETRY
            case GiveUp(why):
                data = {"stage": stage_name, "attempts": failures, "error": _text(error)}
                own.try_emit_event("stage.retry_exhausted", data)
                seconds = now - begun_at
                own.give_up(f"gave up after {failures} tries in {seconds:.3g} s: {why}")
        forget(ctx, self.name, stage_name)
        return ErrorAction.FAIL

    async def _wait(
        self,
        ctx: InterceptorContext,
        stage_name: str,
        failures: int,
        delay_ms: int,
        error: str,
        policy: RetryPolicy,
    ) -> None:
        told: dict[str, Any] = {"stage": stage_name, "delay_ms": delay_ms, "error": error}
        strategy = str(policy.backoff_strategy)
        ctx.try_emit_event(
            "stage.retry_scheduled", {**told, "attempt": failures, "backoff_strategy": strategy}
        )
        await trio.sleep(delay_ms / 1000)
        if ctx.stage_kind is StageKind.WORK:
            ctx.try_emit_event("work.retry_attempt", {**told, "attempt": failures + 1})

    def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> Awaitable[StageOutput | None]:
        forget(ctx, self.name, stage_name)
        return DONE


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
