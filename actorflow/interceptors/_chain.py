"""The way of a call through the interceptors around its stage, inwards and out again.

The hooks around a stage are looked up once, when the graph is built: what an
interceptor does not override is not called, and an interceptor that has nothing
to do for a stage is not there. A call then keeps a stack of the layers it is
inside of. Going in pushes; going out asks the top layer about a failure, shows
it the outcome, and pops it. A repetition goes in again from wherever the stack
stands. So exceptions, timeouts and outputs that ask for another try take one
path, and what is still on the stack when a cancellation passes is what has to
be released.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import (
    CriticalInterceptorError,
    InterceptorError,
    InvalidTypeError,
    StageCancellationRequested,
)
from actorflow.model import StageOutput
from actorflow.stages import StageResult

from ._base import DONE, ErrorAction, InterceptorResult, PlainFacts
from ._context import InterceptorContext, StageCallPort
from ._outcome import CallEnd, Outcome, raised, returned, short_circuit

if TYPE_CHECKING:
    from actorflow.model import StageKind

_log: Final = logging.getLogger("actorflow.interceptors")

_Hook: TypeAlias = Callable[..., Awaitable[Any]]


@final
@attrs.frozen
class Layer:
    """The hooks of one interceptor; None for those that would do nothing."""

    name: str
    is_observer: bool
    takes_facts: bool
    """Whether it is a `PlainFacts`."""
    is_needed: Callable[[StageCallPort], bool] | None
    before: _Hook | None
    after: _Hook | None
    ended: _Hook | None
    on_error: _Hook | None
    fallback: _Hook | None
    release: _Hook | None

    @property
    def does_nothing(self) -> bool:
        hooks = (self.before, self.after, self.ended, self.on_error, self.release)
        return not any(hooks)


def layer_of(interceptor: Any) -> Layer:
    """The hooks that an interceptor has of its own."""

    def own(hook: str) -> Any:
        found = getattr(interceptor, hook, None)
        inherited = getattr(PlainFacts, hook)
        return None if getattr(found, "__func__", None) is inherited else found

    takes_facts = isinstance(interceptor, PlainFacts)
    return Layer(
        interceptor.name,
        getattr(interceptor, "observer", False),
        takes_facts,
        own("is_needed") if takes_facts else None,
        own("before"),
        None if takes_facts else own("after"),
        own("ended") if takes_facts else None,
        own("on_error"),
        own("fallback"),
        own("release"),
    )


@final
class StageChain:
    """The interceptors around one stage; serves any number of calls at the same time."""

    __slots__ = ("_layers", "_may_be_passed_by", "_share")

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = tuple(layers)
        self._may_be_passed_by = any(layer.is_needed is not None for layer in self._layers)
        # Of the time for clean-up, so that one that hangs leaves time for the others.
        self._share = 1 / max(1, sum(layer.release is not None for layer in self._layers))

    async def call(self, port: StageCallPort) -> CallEnd:
        """Call the stage through the chain; whatever fails is in the outcome."""
        layers = self._layers
        if self._may_be_passed_by:
            layers = tuple([it for it in layers if it.is_needed is None or it.is_needed(port)])
        passage = _Passage(layers, port, port.cleanup_timeout * self._share)
        outcome = await passage.go()
        return CallEnd(outcome, passage.tries, tuple(passage.warnings), passage.gave_up)


def chain_of(interceptors: Iterable[Any], stage_name: str, kind: StageKind) -> StageChain | None:
    """What wraps a stage; None if nothing does.

    `interceptors` are in the order of `ordered`.
    """
    layers = layers_of(interceptors, stage_name, kind)
    return StageChain(layers) if layers else None


def layers_of(interceptors: Iterable[Any], stage_name: str, kind: StageKind) -> list[Layer]:
    """The layers around a stage, from the outermost to the innermost."""
    layers = (
        layer_of(interceptor)
        for interceptor in interceptors
        if not hasattr(interceptor, "applies_to") or interceptor.applies_to(stage_name, kind)
    )
    return [layer for layer in layers if not layer.does_nothing]


@final
class _Passage:
    """One call on its way."""

    __slots__ = (
        "_begun_at",
        "_entered",
        "_layers",
        "_patience",
        "_result",
        "_result_for",
        "_since",
        "_stage",
        "_taken_for",
        "_taken_ms",
        "first_try_at",
        "gave_up",
        "noted",
        "port",
        "timeout_ms",
        "tries",
        "warnings",
    )

    def __init__(self, layers: tuple[Layer, ...], port: StageCallPort, patience: float) -> None:
        self.port = port
        self.tries = 0
        self.timeout_ms = port.timeout_ms
        self.warnings: list[str] = []
        self.noted: list[tuple[InterceptorContext, str]] = []
        self.gave_up: str | None = None
        self._layers = layers
        self._stage = port.stage_name
        self._patience = patience
        self._entered: list[tuple[Layer, InterceptorContext]] = []
        self._begun_at = self._since = self.first_try_at = port.begun_at
        self._result_for: Outcome | None = None
        self._result: StageResult | None = None
        self._taken_for: Outcome | None = None
        self._taken_ms = 0.0

    async def go(self, base: int = 0) -> Outcome:
        """Go in from here to the stage, and out again until `base` layers are left."""
        entered = self._entered
        try:
            outcome = await self._inwards()
            while len(entered) > base:
                layer, ctx = entered[-1]
                if ctx._is_in and not (outcome.error is not None and _is_cancelled()):
                    if outcome.error is not None and layer.on_error and not outcome.is_final:
                        outcome, repeats = await self._on_error(layer, ctx, outcome.error, outcome)
                        if repeats:
                            ctx._has_repeated = True
                            self._forget_try()
                            # Who repeats without end can be cancelled at least.
                            await trio.lowlevel.checkpoint()
                            outcome = await self._inside(ctx)
                            continue
                    if ctx._has_repeated:
                        # From here outwards all tries together count as one.
                        self._since = self._begun_at
                        self._taken_for = self._result = None
                    if layer.ended is not None:
                        waiting = self._ended(layer, layer.ended, ctx, outcome)
                        if waiting is not DONE:
                            await self._isolated(layer, "after", waiting)
                    elif layer.after is not None:
                        outcome = await self._after(layer, layer.after, ctx, outcome)
                entered.pop()
                if layer.release is not None and (ctx._state is not None or not layer.takes_facts):
                    waiting = self._release(layer, layer.release, ctx)
                    if waiting is not DONE:
                        await self._patiently(layer, waiting)
            return outcome
        finally:
            # Only what is no outcome, a cancellation above all, leaves layers behind.
            if len(entered) > base:
                await self._leave_down_to(base)  # noqa: ASYNC102 - leaving shields itself

    async def _leave_down_to(self, base: int) -> None:
        entered = self._entered
        try:
            while len(entered) > base:
                layer, ctx = entered.pop()
                if layer.release is not None:
                    await self._patiently(layer, self._release(layer, layer.release, ctx))
        finally:
            # What stops the whole program may come out of a `release`, too.
            if len(entered) > base:
                await self._leave_down_to(base)  # noqa: ASYNC102 - leaving shields itself

    async def _inwards(self) -> Outcome:
        for layer in self._layers[len(self._entered) :]:
            ctx = InterceptorContext(self, layer.name)
            self._entered.append((layer, ctx))
            if layer.before is None:
                ctx._is_in = True
                continue
            try:
                answering = layer.before(self._stage, ctx)
            except Exception as error:  # noqa: BLE001 - interceptors are user code
                outcome = self._kept_out(layer, error)
            else:
                ctx._is_in = answering is DONE
                outcome = None if ctx._is_in else await self._answered(layer, ctx, answering)
            if outcome is not None:
                return outcome
            if ctx._companion is not None:
                return await self._inside(ctx)
        # Not in a coroutine of its own: each costs, and this one would be in every call.
        self.tries += 1
        self._since = trio.current_time()
        if self.tries == 1:
            self.first_try_at = self._since
        try:
            output = await self.port.execute(self.tries, self.timeout_ms)
        except Exception as error:  # noqa: BLE001 - stages are user code
            return raised(error)
        return returned(self._stage, output)

    async def _inside(self, ctx: InterceptorContext) -> Outcome:
        """Everything further in than the layer of `ctx`, which was entered last."""
        if ctx._companion is None:
            return await self._inwards()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ctx._companion)
                outcome = await self.go(len(self._entered))
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            return raised(group)
        return outcome

    # The hooks. Those that had nothing to wait for are not waited for: most calls go all
    # the way in and out again without a coroutine of an interceptor.

    async def _answered(
        self, layer: Layer, ctx: InterceptorContext, answering: Awaitable[Any]
    ) -> Outcome | None:
        """Wait to be let into a layer; the outcome if it did not let the call in."""
        try:
            answer = await answering
            if answer is None or layer.is_observer:
                ctx._is_in = True
                return None
            _check_answer(layer, answer)
            if answer.stage_ran:
                ctx._is_in = True
                return None
            outcome = short_circuit(self._stage, answer, layer.name)
        except Exception as error:  # noqa: BLE001 - interceptors are user code
            return self._kept_out(layer, error)
        self._entered.pop()
        return outcome

    def _kept_out(self, layer: Layer, error: Exception) -> Outcome | None:
        if layer.is_observer and not isinstance(error, CriticalInterceptorError):
            self._isolate(layer, "before", error)
            return None
        return raised(_own_error(layer, "before", error))

    async def _on_error(
        self, layer: Layer, ctx: InterceptorContext, error: Exception, outcome: Outcome
    ) -> tuple[Outcome, bool]:
        """What becomes of a failure, and whether everything inside runs again."""
        assert layer.on_error is not None, "the layer was asked"
        try:
            answer = await layer.on_error(self.port.stage_name, error, ctx)
            if layer.is_observer:
                return outcome, False
            match _action(layer, answer):
                case ErrorAction.FAIL:
                    return outcome, False
                case ErrorAction.RETRY:
                    return outcome, True
                case _:
                    return await self._fallback(layer, ctx, error, outcome), False
        except Exception as own:  # noqa: BLE001 - interceptors are user code
            if layer.is_observer and not isinstance(own, CriticalInterceptorError):
                self._isolate(layer, "on_error", own)
                return outcome, False
            if own is error:
                return outcome, False
            own.__cause__ = own.__cause__ or error
            return raised(own), False

    async def _fallback(
        self, layer: Layer, ctx: InterceptorContext, error: Exception, outcome: Outcome
    ) -> Outcome:
        if layer.fallback is None:
            return outcome
        given = await layer.fallback(self.port.stage_name, error, ctx)
        return returned(self.port.stage_name, _output(layer, "fallback", given))

    def _ended(
        self, layer: Layer, ended: _Hook, ctx: InterceptorContext, outcome: Outcome
    ) -> Awaitable[object]:
        if self._taken_for is not outcome:
            self._taken_for = outcome
            self._taken_ms = round((trio.current_time() - self._since) * 1000, 3)
        try:
            return ended(self._stage, outcome, self._taken_ms, ctx)
        except Exception as error:  # noqa: BLE001 - what they call is user code
            self._isolate(layer, "after", error)
            return DONE

    async def _isolated(self, layer: Layer, hook: str, waiting: Awaitable[object]) -> None:
        try:
            await waiting
        except Exception as error:  # noqa: BLE001 - what they call is user code
            self._isolate(layer, hook, error)

    async def _after(
        self, layer: Layer, after: _Hook, ctx: InterceptorContext, outcome: Outcome
    ) -> Outcome:
        stage = self.port.stage_name
        try:
            given = await after(stage, self._as_result(outcome), ctx)
            if given is None or layer.is_observer or outcome.is_final:
                return outcome
            replaced = returned(stage, _output(layer, "after", given))
        except CriticalInterceptorError as error:
            return raised(error)
        except Exception as error:  # noqa: BLE001 - interceptors are user code
            self._isolate(layer, "after", error)
            return outcome
        return replaced._replace(short_circuited_by=outcome.short_circuited_by)

    def _release(self, layer: Layer, release: _Hook, ctx: InterceptorContext) -> Awaitable[object]:
        try:
            return release(self._stage, ctx)
        except Exception as error:  # noqa: BLE001 - interceptors are user code
            self._isolate(layer, "release", error)
            return DONE

    async def _patiently(self, layer: Layer, waiting: Awaitable[object]) -> None:
        if waiting is DONE:
            return
        with trio.move_on_after(self._patience, shield=True) as patience:
            await self._isolated(layer, "release", waiting)
        if patience.cancelled_caught:
            self._isolate(layer, "release", TimeoutError(f"not done after {self._patience:.3g} s"))

    # What is known about the call

    def _forget_try(self) -> None:
        # Whatever has been left by now lies inside of the layer that repeats.
        inside = [ctx for _, ctx in self._entered]
        for ctx, key in self.noted:
            if ctx not in inside:
                self.port.observations.pop((ctx._name, key), None)
        self.noted = [(ctx, key) for ctx, key in self.noted if ctx in inside]

    def _as_result(self, outcome: Outcome) -> StageResult:
        # Made for whoever looks first, and the same for all until the outcome changes.
        if self._result is None or self._result_for is not outcome:
            self._result_for = outcome
            self._result = result_of(self.port, outcome, self.tries, self._since)
        return self._result

    def new_state(self, name: str) -> dict[str, Any]:
        return {}

    def _isolate(self, layer: Layer, hook: str, error: Exception) -> None:
        """Let an error go no further than a record and a warning."""
        told = InterceptorError(layer.name, hook, _text(error))
        self.warnings.append(str(told))
        _log.warning(
            "interceptor_failed",
            extra={
                "interceptor": layer.name,
                "hook": hook,
                "stage": self.port.stage_name,
                "error": repr(error),
            },
        )


def _is_cancelled() -> bool:
    # What a stage raises while it is being cancelled is its own affair: nobody is asked
    # about it, because whoever waits now would lose it to the cancellation.
    return trio.current_effective_deadline() == -math.inf


def result_of(
    port: StageCallPort, outcome: Outcome, tries: int, since: float, **more: Any
) -> StageResult:
    """The outcome at this moment of what began at `since` on trio's clock."""
    taken = trio.current_time() - since
    ended_at = clock.now()
    return StageResult.from_output(
        port.stage_name,
        outcome.output,
        started_at=ended_at - timedelta(seconds=taken),
        ended_at=ended_at,
        duration_ms=round(taken * 1000, 3),
        kind=port.stage_kind,
        attempt=port.attempt,
        tries=tries,
        short_circuited_by=outcome.short_circuited_by,
        replayed=outcome.replayed,
        original_run_id=outcome.original_run_id,
        **more,
    )


def _check_answer(layer: Layer, answer: object) -> None:
    if not isinstance(answer, InterceptorResult):
        kind = type(answer).__name__
        raise InterceptorError(
            layer.name, "before", f"the answer is a {kind}, no InterceptorResult"
        )


def _action(layer: Layer, answer: Any) -> ErrorAction:
    try:
        return ErrorAction(answer)
    except ValueError:
        raise InterceptorError(
            layer.name, "on_error", f"the answer is {answer!r}, no ErrorAction"
        ) from None


def _output(layer: Layer, hook: str, given: object) -> StageOutput:
    try:
        return StageOutput.from_returned(given)
    except InvalidTypeError as error:
        raise InterceptorError(layer.name, hook, str(error)) from None


def _own_error(layer: Layer, hook: str, error: Exception) -> Exception:
    if isinstance(error, InterceptorError | StageCancellationRequested):
        return error
    own = InterceptorError(layer.name, hook, _text(error))
    own.__cause__ = error
    return own


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
