"""Faults at chosen calls: of stages, sinks, interceptors, stores and whatever else has methods.

A fault says what goes wrong and at which calls. It is put around a method from
outside, so what is tested is not changed for it.
"""

from __future__ import annotations

import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast, final
from weakref import WeakKeyDictionary

import attrs
import trio

from actorflow.cancellation import CancellationToken
from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.pipeline import Pipeline
from actorflow.stages import StageContext

T = TypeVar("T")
F = TypeVar("F", bound="Fault")

Calls: TypeAlias = int | Collection[int] | None


def _as_calls(calls: Calls) -> Collection[int] | None:
    if calls is None:
        return None
    chosen = calls if isinstance(calls, Collection) else (calls,)
    if not (chosen and all(isinstance(call, int) and call >= 1 for call in chosen)):
        raise InvalidArgumentError("calls", calls, "numbers of calls from 1 on, or None for all")
    return chosen


def _check_error(_: object, __: object, error: Any) -> None:
    if not (isinstance(error, BaseException) or callable(error)):
        raise InvalidTypeError("error", error, "an exception, or a class or function that makes it")


def _check_seconds(_: object, __: object, seconds: Any) -> None:
    if not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
        raise InvalidArgumentError("seconds", seconds, "zero or more seconds")


@attrs.define(eq=False)
class Fault(ABC):
    """Subclass it for a fault of your own, with `around` to say what goes wrong."""

    calls: Collection[int] | None = attrs.field(default=None, converter=_as_calls, kw_only=True)
    """At which calls it happens, the first being 1: a number, several, or None for all."""
    happened: int = attrs.field(default=0, init=False, repr=False)
    """How often it has happened, so that a test can see that it did."""

    @abstractmethod
    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make the call, or do something else instead."""


Faults: TypeAlias = Fault | Iterable[Fault]


@final
@attrs.define(eq=False)
class Fails(Fault):
    """Raises instead of making the call; with `after`, the call is made and its answer lost."""

    error: BaseException | Callable[[], BaseException] = attrs.field(validator=_check_error)
    """What it raises, or a class or function that makes it."""
    after: bool = attrs.field(default=False, kw_only=True)

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        await trio.lowlevel.checkpoint()
        if self.after:
            await call()
        raise self._error()

    def at_once(self, call: Callable[[], Any]) -> Any:
        """The same around a method that cannot wait."""
        if self.after:
            call()
        raise self._error()

    def _error(self) -> BaseException:
        return self.error if isinstance(self.error, BaseException) else self.error()


@final
@attrs.define(eq=False)
class Hangs(Fault):
    """Never returns, but for a cancellation; the call is not made."""

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        await trio.sleep_forever()


@final
@attrs.define(eq=False)
class Lags(Fault):
    """Makes the call `seconds` later."""

    seconds: float = attrs.field(validator=_check_seconds)

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        await trio.sleep(self.seconds)
        return await call()


@final
@attrs.define(eq=False)
class SwallowsCancel(Fault):
    """Makes the call, and returns None as if nothing were the matter when that is cancelled.

    So do programs with a careless `except BaseException`. Only a checkpoint after
    it finds the cancellation again.
    """

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except trio.Cancelled:  # noqa: ASYNC103 - doing wrong is its purpose
            return None


def faulty(thing: T, /, **faults: Faults) -> T:
    """`thing` with faults in some of its methods; everything else about it is as before.

    The calls of each method are counted from here on. What wraps the thing into a
    block, `async with`, is left to the thing itself.

    Raises:
      InvalidArgumentError: if there is no such method, or one that cannot wait
        should.
    """
    methods = {name: _going_wrong(thing, name, _as_faults(its)) for name, its in faults.items()}
    return cast("T", Disguise(thing, methods))


def with_faults(pipeline: Pipeline, faults: Mapping[str, Faults]) -> Pipeline:
    """The pipeline with faults in some of its stages, by name.

    A repetition is a call as well. Each run counts the calls of its own, so a
    pipeline may be run many times.

    Raises:
      InvalidArgumentError: if there is no such stage.
    """
    unknown = [name for name in faults if name not in pipeline]
    if unknown:
        known = ", ".join(map(repr, pipeline))
        raise InvalidArgumentError("faults", unknown, f"of stages among {known}")
    wrong = (
        spec.evolve(runner=_runner_going_wrong(spec.runner, _as_faults(faults[spec.name])))
        for spec in pipeline.stages
        if spec.name in faults
    )
    return pipeline.with_stages(*wrong, replace=True)


def _as_faults(faults: Faults) -> tuple[Fault, ...]:
    found = tuple(faults) if isinstance(faults, Iterable) else (faults,)
    for fault in found:
        if not isinstance(fault, Fault):
            raise InvalidTypeError("faults", fault, "a Fault such as Fails(OSError), or several")
    return found


def _due(faults: Iterable[F], number: int) -> F | None:
    for fault in faults:
        if fault.calls is None or number in fault.calls:
            fault.happened += 1
            return fault
    return None


@final
class Disguise:
    """Passes for a thing that it replaces some methods of, also where its class is asked for."""

    def __init__(self, thing: object, methods: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(_thing=thing, _methods=methods)

    def __getattr__(self, name: str) -> Any:
        thing, methods = vars(self)["_thing"], vars(self)["_methods"]
        return methods.get(name) or getattr(thing, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["_thing"], name, value)

    def __repr__(self) -> str:
        return repr(vars(self)["_thing"])

    # To mypy the class of an object is something that can be assigned.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(vars(self)["_thing"])


def _going_wrong(thing: object, name: str, faults: tuple[Fault, ...]) -> Callable[..., Any]:
    method = getattr(thing, name, None)
    if not callable(method):
        raise InvalidArgumentError("faults", name, f"methods of a {type(thing).__name__}")
    numbers = itertools.count(1)
    if _waits(method):

        async def call(*args: Any, **options: Any) -> Any:
            made = partial(method, *args, **options)
            fault = _due(faults, next(numbers))
            return await (made() if fault is None else fault.around(made))

        return call

    failures = [fault for fault in faults if isinstance(fault, Fails)]
    if len(failures) < len(faults):
        raise InvalidArgumentError(name, faults, "Fails, because the method cannot wait")

    def call_at_once(*args: Any, **options: Any) -> Any:
        made = partial(method, *args, **options)
        failure = _due(failures, next(numbers))
        return made() if failure is None else failure.at_once(made)

    return call_at_once


def _waits(method: Callable[..., Any]) -> bool:
    # Hooks that nothing was made of are plain functions, for speed, and say what they return.
    returns = str(getattr(method, "__annotations__", {}).get("return"))
    return inspect.iscoroutinefunction(method) or "Awaitable" in returns or "Coroutine" in returns


_CallsByRun: TypeAlias = WeakKeyDictionary[CancellationToken, int]
"""By what there is once per run."""


def _runner_going_wrong(runner: Any, faults: tuple[Fault, ...]) -> Any:
    calls: _CallsByRun = WeakKeyDictionary()
    if not isinstance(runner, type):
        return _FaultyRunner(runner, faults, calls)

    def make(_: type, **args: Any) -> _FaultyRunner:
        return _FaultyRunner(runner(**args), faults, calls)

    # Still a class of this kind, so that interceptors and contexts find in it, and in the
    # arguments it is called with, what they look for.
    return type(runner.__name__, (runner,), {"__new__": make})


@final
class _FaultyRunner:
    """What runs in place of a stage's runner, and looks like it to interceptors."""

    def __init__(self, runner: Any, faults: tuple[Fault, ...], calls: _CallsByRun) -> None:
        self._runner = runner
        self._faults = faults
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    async def execute(self, ctx: StageContext) -> Any:
        number = self._calls[ctx.cancel_token] = self._calls.get(ctx.cancel_token, 0) + 1
        fault = _due(self._faults, number)
        call = partial(self._call, ctx)
        return await (call() if fault is None else fault.around(call))

    async def _call(self, ctx: StageContext) -> Any:
        returned = getattr(self._runner, "execute", self._runner)(ctx)
        return await returned if inspect.isawaitable(returned) else returned
