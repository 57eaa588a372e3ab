"""What a supervision tree is made of, before anything runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypedDict, TypeVar, final

import attrs

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MailboxDeadlockError,
    NameTakenError,
)

from ._actor import Actor
from ._policy import MailboxPolicy, Policy, to_policy
from ._supervision import Backoff, RestartBudget, RestartType, Strategy, blocking_ring, number

if TYPE_CHECKING:
    from ._inbox import Inbox

M = TypeVar("M")
E = TypeVar("E", bound=StrEnum)

Function: TypeAlias = Callable[["Inbox[M]"], Awaitable[None]]
Factory: TypeAlias = Callable[[], Actor[M]]
Behaviour: TypeAlias = "Function[M] | Factory[M] | Supervisor"

_BEHAVIOUR = (
    "an async function of one inbox, an Actor subclass, a function that makes one, or a Supervisor"
)


def _refuse_behaviour(found: object, why: str) -> InvalidTypeError:
    return InvalidTypeError("behaviour", found, f"{_BEHAVIOUR} ({why})")


def is_async(function: object) -> bool:
    """Tell whether calling `function` gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (whether it is async, not whether it is there)
    )


def _fits(function: Callable[..., Any], *args: object) -> bool:
    try:
        inspect.signature(function).bind(*args)
    except TypeError:
        return False
    return True


def _is_plain(function: FunctionType) -> bool:
    """Tell without `inspect`, which takes longer than a spawn, that this is ``async def f(inbox)``."""
    code = function.__code__
    is_async = code.co_flags & inspect.CO_COROUTINE
    return bool(is_async) and code.co_argcount == 1 and code.co_kwonlyargcount == 0


def _check_behaviour(_: object, __: object, behaviour: Any) -> None:
    if isinstance(behaviour, Supervisor):
        return
    if isinstance(behaviour, Actor):
        why = "an object has one life only; pass its class or a function that makes a fresh one"
        raise _refuse_behaviour(behaviour, why)
    if isinstance(behaviour, type):
        _check_class(behaviour)
    elif type(behaviour) is FunctionType and _is_plain(behaviour):
        return
    elif not callable(behaviour):
        raise _refuse_behaviour(behaviour, "this cannot be called")
    elif is_async(behaviour):
        if not _fits(behaviour, None):
            raise _refuse_behaviour(behaviour, "this takes other arguments than one inbox")
    elif not _fits(behaviour):
        raise _refuse_behaviour(behaviour, "this is not async")


def _check_class(behaviour: type) -> None:
    if not issubclass(behaviour, Actor):
        raise _refuse_behaviour(behaviour, "this class is no Actor")
    if behaviour.receive is Actor.receive and behaviour.run is Actor.run:
        raise _refuse_behaviour(behaviour, "this class has no receive")
    for name in ("receive", "run", "on_start", "on_stop"):
        if not inspect.iscoroutinefunction(getattr(behaviour, name)):
            raise _refuse_behaviour(behaviour, f"its {name} is not async")
    if not _fits(behaviour):
        why = "its __init__ needs arguments; wrap it in functools.partial or a lambda"
        raise _refuse_behaviour(behaviour, why)


def _one_of(kind: type[E], argument: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidArgumentError(argument, value, f"one of {', '.join(kind)}") from None


def _to_restart(value: str) -> RestartType:
    return _one_of(RestartType, "restart", value)


def _to_strategy(value: str) -> Strategy:
    return _one_of(Strategy, "strategy", value)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def check_name(name: object) -> None:
    """Refuse what could not be a part of a path."""
    if not isinstance(name, str):
        raise InvalidTypeError("name", name, "a string")
    if not name or "/" in name:
        raise InvalidArgumentError("name", name, "a non-empty string without '/'")


@final
@attrs.frozen(eq=False)
class Child(Generic[M]):
    """One child of a supervisor: what it does and how it is looked after."""

    name: str = attrs.field(validator=lambda _, __, value: check_name(value))
    behaviour: Behaviour[M] = attrs.field(validator=_check_behaviour)
    restart: RestartType = attrs.field(
        default=RestartType.PERMANENT, converter=_to_restart, kw_only=True
    )
    """After which ends it is started again."""

    shutdown: float = attrs.field(validator=number(0), kw_only=True)
    """Seconds that an orderly stop may take before it becomes a kill."""

    drain: bool = attrs.field(default=True, kw_only=True)
    """Whether an orderly stop handles what is queued; else it becomes dead letters."""

    capacity: int = attrs.field(default=64, kw_only=True)
    policy: MailboxPolicy = attrs.field(default=Policy.BLOCK, converter=to_policy, kw_only=True)
    backoff: Backoff | None = attrs.field(default=None, kw_only=True)
    start_timeout: float = attrs.field(
        default=math.inf, validator=number(0, above=True), kw_only=True
    )
    """Seconds until a start that is not ready counts as failed."""

    needs: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Earlier siblings it cannot do without (see `Strategy.REST_FOR_ONE`)."""

    sends_to: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    """Siblings it waits for when their mailboxes are full; rings of them are refused."""

    @shutdown.default
    def _supervisors_take_their_time(self) -> float:
        return math.inf if isinstance(self.behaviour, Supervisor) else 5.0

    @capacity.validator
    def _check_capacity(self, _: object, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidTypeError("capacity", value, "a whole number")
        if value < 1:
            raise InvalidArgumentError("capacity", value, "at least 1")

    @backoff.validator
    def _check_backoff(self, _: object, value: object) -> None:
        # It is looked at when the child has crashed, and an error there ends its supervisor.
        if value is not None and not isinstance(value, Backoff):
            raise InvalidTypeError("backoff", value, "a Backoff or None")


class SpawnOptions(TypedDict, total=False):
    """Those options of `Child` that make sense without siblings."""

    restart: str
    shutdown: float
    drain: bool
    capacity: int
    policy: str | MailboxPolicy
    backoff: Backoff | None
    start_timeout: float


@final
@attrs.frozen(eq=False, init=False)
class Supervisor:
    """A supervisor and its children, started in order and stopped in reverse.

    Put sinks first and sources last: nothing is produced before its consumer is
    ready, and a stop drains the line from its source.
    """

    children: tuple[Child[Any], ...]
    strategy: Strategy = attrs.field(converter=_to_strategy)
    budget: RestartBudget
    max_children: float = attrs.field(validator=number(0))

    def __init__(
        self,
        *children: Child[Any],
        strategy: str | Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        window: float = 5.0,
        max_children: float = math.inf,
    ) -> None:
        """Describe a supervisor.

        Args:
          children: what it starts, in this order.
          strategy: who is restarted together.
          max_restarts: how many restarts within `window` seconds it forgives.
          window: see `max_restarts`.
          max_children: how many more may be spawned under it at a time.
        """
        self.__attrs_init__(children, strategy, RestartBudget(max_restarts, window), max_children)
        _check_family(children)


def _check_family(children: Sequence[Child[Any]]) -> None:
    names: list[str] = []
    for child in children:
        if not isinstance(child, Child):
            raise InvalidTypeError("children", child, "Child objects")
        if child.name in names:
            raise NameTakenError(child.name)
        for needed in child.needs:
            if needed not in names:
                allowed = f"names of siblings before {child.name!r}: {names}"
                raise InvalidArgumentError("needs", needed, allowed)
        names.append(child.name)
    for child in children:
        for target in child.sends_to:
            if target not in names:
                raise InvalidArgumentError("sends_to", target, f"names of siblings: {names}")
    blocking = {child.name for child in children if child.policy is Policy.BLOCK}
    ring = blocking_ring(
        {child.name: [to for to in child.sends_to if to in blocking] for child in children}
    )
    if ring:
        raise MailboxDeadlockError(ring[0], ring)
