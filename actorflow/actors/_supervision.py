"""What a supervisor decides: whom to restart, how often, and after how long.

Everything here is a value or a function of values. Time and chance come in as
arguments, so each rule is tested without a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, final

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError

from ._reasons import Crashed, Killed, Reason


@final
class RestartType(StrEnum):
    """After which ends a child is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


@final
class Strategy(StrEnum):
    """Who is restarted together with a child that ended."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


def should_restart(restart: RestartType, reason: Reason) -> bool:
    """Tell whether a child that ended for `reason` gets another life."""
    if restart is RestartType.TRANSIENT:
        return isinstance(reason, Crashed | Killed)
    return restart is RestartType.PERMANENT


def affected(
    strategy: Strategy,
    needs: Mapping[str, Sequence[str]],
    crashed: str,
) -> tuple[str, ...]:
    """Return the children that share the fate of `crashed`, in start order.

    `needs` maps every child, in start order, to the earlier ones it needs. As
    soon as one child says what it needs, `rest_for_one` follows needs instead
    of positions.
    """
    if strategy is Strategy.ONE_FOR_ONE:
        return (crashed,)
    names = tuple(needs)
    if strategy is Strategy.ONE_FOR_ALL:
        return names
    if not any(needs.values()):
        return names[names.index(crashed) :]
    group = {crashed}
    # A need names an earlier child, so one pass in start order closes the set.
    for name, needed in needs.items():
        if not group.isdisjoint(needed):
            group.add(name)
    return tuple(name for name in names if name in group)


def number(
    lowest: float, *, above: bool = False
) -> Callable[[object, attrs.Attribute[Any], float], None]:
    """Return an attrs validator for numbers from `lowest` on, or only those above it."""
    wording = f"a number {'above' if above else 'of at least'} {lowest:g}"

    def check(_: object, field: attrs.Attribute[Any], value: float) -> None:
        try:
            # NaN compares false with everything, so it fails either way.
            fits = value > lowest if above else value >= lowest
        except TypeError:
            raise InvalidTypeError(field.name, value, wording) from None
        if not fits:
            raise InvalidArgumentError(field.name, value, wording)

    return check


@final
@attrs.frozen
class RestartBudget:
    """How many restarts a supervisor forgives within a sliding window.

    Restarting forever would hide a broken child, so the budget runs out and
    the failure moves up to the parent.
    """

    max_restarts: int = attrs.field(default=3, validator=number(0))
    window: float = attrs.field(default=5.0, validator=number(0, above=True))
    spent: tuple[float, ...] = attrs.field(default=(), repr=False)

    def spend(self, now: float) -> RestartBudget | None:
        """Return what is left after one more restart at `now`, or None if it is one too many."""
        recent = (*(at for at in self.spent if now - at <= self.window), now)
        if len(recent) > self.max_restarts:
            return None
        return attrs.evolve(self, spent=recent)


@final
@attrs.frozen
class Backoff:
    """How long a child waits before its next life.

    The wait grows from `base` by `factor` with every failure in a row and never
    exceeds `cap`, both in seconds. Jitter takes away up to that fraction of it, so that children
    which failed together do not come back together. A life of `reset_after`
    seconds (default: `cap`) ends the row.
    """

    base: float = attrs.field(default=0.1, validator=number(0))
    cap: float = attrs.field(default=30.0, validator=number(0))
    factor: float = attrs.field(default=2.0, validator=number(1))
    jitter: float = attrs.field(default=0.0, validator=number(0))
    reset_after: float = attrs.field(validator=number(0))

    @reset_after.default
    def _lives_longer_than_any_wait(self) -> float:
        return self.cap

    def __attrs_post_init__(self) -> None:
        if self.jitter > 1:
            raise InvalidArgumentError("jitter", self.jitter, "a number from 0 to 1")

    def delay(self, failures: int, chance: float) -> float:
        """Return the wait after so many failures in a row; `chance` lies in [0, 1)."""
        try:
            grown = self.base * self.factor ** min(failures - 1, 64)
        except OverflowError:
            grown = self.cap
        return min(self.cap, grown) * (1 - self.jitter * chance)

    def failures_after(self, failures: int, lived: float) -> int:
        """Return the failures in a row, counting one more after a life of `lived` seconds."""
        return 1 if lived >= self.reset_after else failures + 1


def blocking_ring(edges: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the first ring of senders that can wait for each other, or nothing.

    The first name stands again at the end.
    """
    done: set[str] = set()
    for start in edges:
        path: dict[str, int] = {}
        stack = [(start, iter(edges[start]))]
        while stack:
            name, targets = stack[-1]
            path.setdefault(name, len(path))
            for target in targets:
                if target in path:
                    return (*tuple(path)[path[target] :], target)
                if target not in done:
                    stack.append((target, iter(edges[target])))
                    break
            else:
                stack.pop()
                del path[name]
                done.add(name)
    return ()
