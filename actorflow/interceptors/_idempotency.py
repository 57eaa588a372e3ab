"""Work that is done once, however often it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, final
from uuid import UUID

import attrs
import trio

from actorflow import clock, ids
from actorflow.codec import checksum
from actorflow.errors import (
    ActorflowError,
    CriticalInterceptorError,
    IdempotencyKeyMissing,
    IdempotencyLeaseLost,
    IdempotencyParamMismatch,
    IdempotencyReentryError,
    IdempotencyResultUnavailable,
    IdempotencyStoreError,
    IdempotencyWaitTimeout,
    InvalidArgumentError,
    WorkInDoubtError,
)
from actorflow.model import StageKind, StageOutput, StageStatus
from actorflow.stores import InMemoryIdempotencyStore, WatchableStore

from ._base import DONE, BaseInterceptor, InterceptorResult
from ._direct import context_for, forget
from ._idempotency_rules import (
    DoubtAnswer,
    IdempotencyKey,
    Step,
    answer_to_doubt,
    checked_key,
    operation_of,
    step_for,
)

if TYPE_CHECKING:
    from actorflow.stages import StageResult
    from actorflow.stores import IdempotencyRecord, IdempotencyStore

    from ._base import HookContext
    from ._context import InterceptorContext

_T = TypeVar("_T")
Extractor = Callable[[Any], Any]

_log: Final = logging.getLogger("actorflow.interceptors")

# The keys that the work around this task is carrying out.
_held: ContextVar[frozenset[str]] = ContextVar("actorflow_idempotency_held", default=frozenset())

_FIRST_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.25
_GIVE_BACK_WITHIN: Final = 1.0


@final
@attrs.frozen
class WorkKey:
    """Under which key the work of a stage counts as done: `ctx.idempotency`."""

    key: str
    fence: int
    attempt: int


@final
@attrs.frozen
class _Wish:
    """What a call asks for."""

    key: IdempotencyKey
    params_hash: str | None
    owner: str
    store: IdempotencyStore

    @property
    def told(self) -> dict[str, str]:
        return {"operation": self.key.operation, "key_hash": self.key.digest[:16]}


@final
class IdempotencyInterceptor(BaseInterceptor):
    """Lets work with the same key run once; whoever asks again gets the first result.

    The key is the caller's (`data={"idempotency_key": ...}`), within one client, one
    pipeline and one stage. Of requests at the same time one runs and the others wait
    for it. Work that failed or was cancelled does not count as done. Without a key
    the stage simply runs.

    Without a store it uses the one of the run's `runtime`, and where there is none a
    memory store of its own.
    """

    name = "idempotency"
    priority = 4

    def __init__(
        self,
        store: IdempotencyStore | None = None,
        key_extractor: Extractor | None = None,
        ttl_seconds: float | None = 86_400,
        validate_params: bool = True,
        *,
        params_extractor: Extractor | None = None,
        client_extractor: Extractor | None = None,
        kinds: Collection[StageKind | str] | None = (StageKind.WORK,),
        stages: Collection[str] | None = None,
        require_key: bool = False,
        cache_failures: bool = False,
        wait_timeout_seconds: float = 60.0,
        lease_seconds: float = 30.0,
        in_doubt: Literal["auto", "rerun", "fail"] = "auto",
        on_cancel: Literal["release", "in_doubt"] = "release",
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        if ttl_seconds is None:
            if store is None or isinstance(store, InMemoryIdempotencyStore):
                expected = "a time, unless a durable store is given"
                raise InvalidArgumentError("ttl_seconds", ttl_seconds, expected)
        elif not ttl_seconds > 0:
            raise InvalidArgumentError("ttl_seconds", ttl_seconds, "more than 0 seconds")
        for argument, seconds in (
            ("wait_timeout_seconds", wait_timeout_seconds),
            ("lease_seconds", lease_seconds),
        ):
            if not seconds > 0:
                raise InvalidArgumentError(argument, seconds, "more than 0 seconds")
        if in_doubt not in ("auto", "rerun", "fail"):
            raise InvalidArgumentError("in_doubt", in_doubt, "'auto', 'rerun' or 'fail'")
        if on_cancel not in ("release", "in_doubt"):
            raise InvalidArgumentError("on_cancel", on_cancel, "'release' or 'in_doubt'")
        self._store = store
        self._own_store: Final = InMemoryIdempotencyStore()
        self._key_extractor = key_extractor
        self._params_extractor = params_extractor
        self._client_extractor = client_extractor
        self._ttl_seconds = ttl_seconds
        self._validate_params = validate_params
        self._require_key = require_key
        self._cache_failures = cache_failures
        self._wait_timeout = wait_timeout_seconds
        self._lease_seconds = lease_seconds
        self._in_doubt = in_doubt
        self._on_cancel = on_cancel

    # On the way in

    async def before(self, stage_name: str, ctx: HookContext) -> InterceptorResult | None:
        own = context_for(ctx, self.name, stage_name)
        try:
            wish = self._wish(own, stage_name)
            return None if wish is None else await self._claim(own, stage_name, wish)
        except CriticalInterceptorError:
            raise
        except ActorflowError as error:
            return InterceptorResult(stage_ran=False, error=error)

    def _wish(self, ctx: InterceptorContext, stage: str) -> _Wish | None:
        data = ctx.context.data
        extract = self._key_extractor
        found = data.get("idempotency_key") if extract is None else extract(ctx)
        if found is None:
            if self._require_key:
                raise IdempotencyKeyMissing(stage)
            return None
        operation = operation_of(ctx.pipeline_name, stage, ctx.attempt)
        key = IdempotencyKey(self._client(ctx), operation, checked_key(found, stage))
        if key.storage_key in _held.get():
            raise IdempotencyReentryError(key.key, operation)
        extract = self._params_extractor
        params = data.get("idempotency_params") if extract is None else extract(ctx)
        params_hash = None if params is None else checksum(params)
        return _Wish(key, params_hash, ids.new_id().hex, self._store_of(ctx))

    def _store_of(self, ctx: InterceptorContext) -> IdempotencyStore:
        if self._store is not None:
            return self._store
        of_runtime: IdempotencyStore | None = getattr(
            ctx.context.runtime, "idempotency_store", None
        )
        return self._own_store if of_runtime is None else of_runtime

    def _client(self, ctx: InterceptorContext) -> str:
        found = None if self._client_extractor is None else self._client_extractor(ctx)
        context = ctx.context
        for candidate in (found, context.data.get("client_id"), context.user_id, context.org_id):
            if candidate is not None:
                return str(candidate)
        return "anonymous"

    async def _claim(
        self, ctx: InterceptorContext, stage: str, wish: _Wish
    ) -> InterceptorResult | None:
        key, store = wish.key, wish.store
        began_at = trio.current_time()
        poll = _FIRST_POLL
        # From here on `release` looks whether the claim went through: whoever is
        # cancelled while a store answers does not get to know.
        ctx.state["wish"] = wish
        while True:
            claim = await _asked(
                "claim",
                store.claim(
                    key.storage_key,
                    owner=wish.owner,
                    params_hash=wish.params_hash,
                    lease_seconds=self._lease_seconds,
                    run_id=None if ctx.pipeline_run_id is None else str(ctx.pipeline_run_id),
                ),
            )
            record = claim.record
            if claim.acquired:
                self._own(ctx, wish, record)
                return None
            waited = trio.current_time() - began_at
            match step_for(record, wish.params_hash, validate=self._validate_params):
                case Step.REPLAY:
                    return await self._replay(ctx, stage, wish, record, waited)
                case Step.REFUSE:
                    await self._refuse(ctx, stage, wish, record)
                case Step.WITHOUT_RESULT:
                    raise IdempotencyResultUnavailable(key.key, key.operation)
                case Step.DOUBT:
                    await self._end_doubt(ctx, stage, wish, record)
                case _:
                    if waited >= self._wait_timeout:
                        raise IdempotencyWaitTimeout(key.key, key.operation, waited)
                    await self._wait(wish, record, self._wait_timeout - waited, poll)
                    poll = min(poll * 2, _LONGEST_POLL)

    def _own(self, ctx: InterceptorContext, wish: _Wish, record: IdempotencyRecord) -> None:
        ctx.state["fence"] = record.fence
        _held.set(_held.get() | {wish.key.storage_key})
        ctx.set_idempotency(WorkKey(wish.key.digest, record.fence, ctx.attempt))
        ctx.run_beside(partial(self._keep, ctx, wish, record.fence))

    async def _wait(
        self, wish: _Wish, record: IdempotencyRecord, patience: float, poll: float
    ) -> None:
        lease_left = (record.lease_expires_at - clock.now()).total_seconds()
        with trio.move_on_after(max(0.0, min(patience, lease_left))):
            if isinstance(wish.store, WatchableStore):
                await wish.store.wait_for_change(wish.key.storage_key)
            else:
                await trio.sleep(poll)

    async def _replay(
        self,
        ctx: InterceptorContext,
        stage: str,
        wish: _Wish,
        record: IdempotencyRecord,
        waited: float,
    ) -> InterceptorResult:
        assert record.output is not None, "a record without a result is not replayed"
        completed_at = record.completed_at or record.created_at
        await ctx.emit(
            "work.idempotency_hit",
            {
                "stage": stage,
                **wish.told,
                "source": "in_flight" if waited else "stored",
                "age_seconds": max(0.0, (clock.now() - completed_at).total_seconds()),
                "waited_ms": round(waited * 1000, 3),
                "status": str(record.output.status),
                "original_run_id": record.run_id,
            },
        )
        return InterceptorResult(
            stage_ran=False,
            result=record.output,
            replayed=True,
            original_run_id=_as_uuid(record.run_id),
        )

    async def _refuse(
        self, ctx: InterceptorContext, stage: str, wish: _Wish, record: IdempotencyRecord
    ) -> NoReturn:
        expected, actual = record.params_hash or "none", wish.params_hash or "none"
        await ctx.emit(
            "work.idempotency_conflict",
            {
                "stage": stage,
                **wish.told,
                "expected_params_hash": expected,
                "actual_params_hash": actual,
            },
        )
        raise IdempotencyParamMismatch(wish.key.key, expected, actual, wish.key.operation)

    async def _end_doubt(
        self, ctx: InterceptorContext, stage: str, wish: _Wish, record: IdempotencyRecord
    ) -> None:
        """Find out about work that was left unfinished, so that the next claim of its key tells more."""
        runner: Any = ctx.runner
        if isinstance(runner, type) and hasattr(runner, "reconcile"):
            runner = runner(**ctx.config)
        reconcile = getattr(runner, "reconcile", None)
        answer = answer_to_doubt(
            self._in_doubt,
            has_reconcile=reconcile is not None,
            is_idempotent=bool(getattr(runner, "idempotent", False)),
        )
        output: StageOutput | None = None
        action = "rerun"
        if answer is DoubtAnswer.ASK_STAGE:
            assert reconcile is not None, "it is what was asked for"
            output = await reconcile(ctx, record)
            action = "rerun" if output is None else "reconciled"
        elif answer is DoubtAnswer.FAIL:
            action = "failed"
        since = record.created_at.isoformat()
        told = {"stage": stage, **wish.told, "since": since, "policy": self._in_doubt}
        await ctx.emit("work.in_doubt", {**told, "action": action})
        if action == "failed":
            raise WorkInDoubtError(wish.key.key, wish.key.operation, since)
        try:
            await wish.store.resolve(
                wish.key.storage_key,
                outcome="not_executed" if output is None else "completed",
                output=output,
                by=f"run {ctx.pipeline_run_id}",
            )
        except IdempotencyStoreError:
            # Somebody else has ended the doubt meanwhile; the next claim tells how.
            _log.debug("idempotency_doubt_ended_by_other", extra=wish.told)

    # While it runs

    async def _keep(self, ctx: InterceptorContext, wish: _Wish, fence: int) -> None:
        """Renew the claim until it is over, or is found to be somebody else's."""
        while True:
            await trio.sleep(self._lease_seconds / 3)
            if not await self._renewed(wish, fence):
                raise await self._lost(ctx, wish, fence)

    async def _renewed(self, wish: _Wish, fence: int) -> bool:
        try:
            return await wish.store.renew(
                wish.key.storage_key,
                owner=wish.owner,
                fence=fence,
                lease_seconds=self._lease_seconds,
            )
        except Exception as error:  # noqa: BLE001 - stores are user code
            # It may answer the next time; if the lease runs out before, that is found out then.
            _log.warning("idempotency_renewal_failed", extra={**wish.told, "error": repr(error)})
            return True

    async def _lost(self, ctx: InterceptorContext, wish: _Wish, fence: int) -> IdempotencyLeaseLost:
        await ctx.emit("work.lease_lost", {"stage": ctx.stage_name, **wish.told, "fence": fence})
        return IdempotencyLeaseLost(wish.key.key, wish.key.operation, fence)

    # On the way out

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        own = context_for(ctx, self.name, stage_name)
        fence = own.state.get("fence")
        output = result.output
        if fence is None or output is None:
            return None
        own.state["has_ended"] = True
        if output.metadata.get("effect") == "unknown":
            own.state["is_in_doubt"] = True
        elif self._is_kept(output):
            wish: _Wish = own.state["wish"]
            # Who is cancelled while it is being stored stores it in `release`: the work is done.
            own.state["result"] = output
            if not await self._stored(wish, fence, output):
                return StageOutput.fail(await self._lost(own, wish, fence))
            own.state["is_stored"] = True
        return None

    def _is_kept(self, output: StageOutput) -> bool:
        if output.status is StageStatus.FAIL:
            return self._cache_failures and not output.retryable and output.error_type is None
        return output.status in (StageStatus.OK, StageStatus.SKIP)

    async def _stored(self, wish: _Wish, fence: int, output: StageOutput) -> bool:
        """Keep an output; False if the claim is somebody else's by now."""
        patience = trio.current_time() + self._lease_seconds
        delay = _FIRST_POLL
        while True:
            try:
                return await self._complete(wish, fence, output)
            except Exception as error:  # noqa: BLE001 - stores are user code
                if trio.current_time() + delay > patience:
                    # The work was done, so its key must not become free: without a
                    # renewal the record falls into doubt by itself.
                    _log.error(
                        "idempotency_result_not_stored", extra={**wish.told, "error": repr(error)}
                    )
                    return True
            await trio.sleep(delay)
            delay = min(delay * 2, 1.0)

    async def _complete(self, wish: _Wish, fence: int, output: StageOutput) -> bool:
        return await wish.store.complete(
            wish.key.storage_key,
            owner=wish.owner,
            fence=fence,
            output=output,
            ttl_seconds=self._ttl_seconds,
        )

    def release(self, stage_name: str, ctx: HookContext) -> Awaitable[None]:
        state = context_for(ctx, self.name, stage_name).state
        forget(ctx, self.name, stage_name)
        wish: _Wish | None = state.get("wish")
        if wish is None:
            return DONE
        _held.set(_held.get() - {wish.key.storage_key})
        return DONE if state.get("is_stored") else self._give_back_in_time(state, wish)

    async def _give_back_in_time(self, state: Mapping[str, Any], wish: _Wish) -> None:
        with trio.move_on_after(_GIVE_BACK_WITHIN):
            await self._give_back(state, wish)

    async def _give_back(self, state: Mapping[str, Any], wish: _Wish) -> None:
        key, fence = wish.key.storage_key, state.get("fence")
        is_in_doubt = state.get("is_in_doubt", False)
        if fence is None:
            # The work was not begun; whether its key was claimed only the store knows.
            record = await wish.store.get(key)
            if record is None:
                return
            fence = record.fence
        elif "result" in state:
            await self._complete(wish, fence, state["result"])
            return
        elif not state.get("has_ended"):
            is_in_doubt = self._on_cancel == "in_doubt"
        give_up = wish.store.doubt if is_in_doubt else wish.store.release
        await give_up(key, owner=wish.owner, fence=fence)


async def _asked(operation: str, answer: Awaitable[_T]) -> _T:
    """What a store answers.

    Raises:
      IdempotencyStoreError: if it does not.
    """
    try:
        return await answer
    except ActorflowError:
        raise
    except Exception as error:
        raise IdempotencyStoreError(operation, repr(error)) from error


def _as_uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)
