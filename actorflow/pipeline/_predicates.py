"""Conditions as values: what a stage or an edge asks before the stage may start."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.model import StageStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorflow.model import StageOutput
    from actorflow.stages import StageInputs

Condition: TypeAlias = "Callable[[StageInputs], bool]"
"""Asked about everything a stage would read."""

EdgeCondition: TypeAlias = "str | Chosen | Callable[[StageOutput], bool]"
"""A branch label, as text or as `chosen`, or a question about the output of the edge's source."""

_MISSING: Final = object()


@final
@attrs.frozen
class Edge:
    """A dependency, and the condition under which it counts."""

    stage: str
    when: EdgeCondition | None = None


def edge(stage: str, *, when: EdgeCondition | None = None) -> Edge:
    """Depend on `stage`; with `when`, the edge only counts if its output says so.

    A string is a branch label: the edge counts when `stage` ended OK and has the
    label under `data["branch"]`.
    """
    return Edge(stage, when)


class Predicate:
    """A condition that can be looked into, so that wiring can be checked."""

    __slots__ = ()

    @property
    @abstractmethod
    def label(self) -> str:
        """How the condition is called in skip reasons and diagrams."""

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The conditions this one is made of."""
        return ()

    @abstractmethod
    def __call__(self, inputs: StageInputs) -> bool:
        """Whether the condition holds."""


class PredicateOfStage(Predicate):
    """A condition about the output of one stage."""

    __slots__ = ()

    @property
    @abstractmethod
    def reads(self) -> str:
        """The stage it looks at."""


@final
@attrs.frozen
class Chosen(PredicateOfStage):
    """Whether a router took one branch."""

    router: str
    branch: str
    default: bool = False

    @property
    def label(self) -> str:
        return self.branch

    @property
    def reads(self) -> str:
        return self.router

    def __call__(self, inputs: StageInputs) -> bool:
        output = inputs.get_output(self.router)
        return output is not None and self.matches(output)

    def matches(self, output: StageOutput) -> bool:
        branches = chosen_branches(output)
        return self.default if branches is None else self.branch in branches


@final
@attrs.frozen
class _KeyTrue(PredicateOfStage):
    stage: str
    key: str

    @property
    def label(self) -> str:
        return f"{self.stage}:{self.key}"

    @property
    def reads(self) -> str:
        return self.stage

    def __call__(self, inputs: StageInputs) -> bool:
        return bool(inputs.get_from(self.stage, self.key))


@final
@attrs.frozen
class _KeyIs(PredicateOfStage):
    stage: str
    key: str
    value: object

    @property
    def label(self) -> str:
        return f"{self.stage}:{self.key} is {self.value!r}"

    @property
    def reads(self) -> str:
        return self.stage

    def __call__(self, inputs: StageInputs) -> bool:
        return bool(inputs.get_from(self.stage, self.key, _MISSING) == self.value)


@final
@attrs.frozen
class _AllOf(Predicate):
    parts: tuple[Condition, ...]

    @property
    def label(self) -> str:
        return " and ".join(map(label_of, self.parts))

    def __call__(self, inputs: StageInputs) -> bool:
        return all(_answer(part, inputs) for part in self.parts)


@final
@attrs.frozen
class _AnyOf(Predicate):
    parts: tuple[Condition, ...]

    @property
    def label(self) -> str:
        return " or ".join(map(label_of, self.parts))

    def __call__(self, inputs: StageInputs) -> bool:
        return any(_answer(part, inputs) for part in self.parts)


@final
@attrs.frozen
class _Not(Predicate):
    part: Condition

    @property
    def label(self) -> str:
        return f"not {label_of(self.part)}"

    @property
    def parts(self) -> tuple[Condition, ...]:
        return (self.part,)

    def __call__(self, inputs: StageInputs) -> bool:
        return not _answer(self.part, inputs)


def chosen(router: str, branch: str, *, default: bool = False) -> Chosen:
    """Holds when `router` chose `branch`; with `default`, also when it chose nothing."""
    return Chosen(router, branch, default)


def key_true(stage: str, key: str) -> Predicate:
    """Holds when the data of `stage` has a true value under `key`."""
    return _KeyTrue(stage, key)


def key_is(stage: str, key: str, value: object) -> Predicate:
    """Holds when the data of `stage` has exactly `value` under `key`."""
    return _KeyIs(stage, key, value)


def all_of(*conditions: Condition) -> Predicate:
    """Holds when every condition does; asks in order and stops at the first that does not."""
    return _AllOf(_at_least_one("all_of", conditions))


def any_of(*conditions: Condition) -> Predicate:
    """Holds when one condition does; asks in order and stops at the first that does."""
    return _AnyOf(_at_least_one("any_of", conditions))


def not_(condition: Condition) -> Predicate:
    """Holds when `condition` does not."""
    return _Not(condition)


def _at_least_one(what: str, conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    if not conditions:
        raise InvalidArgumentError(what, conditions, "given at least one condition")
    return conditions


def chosen_branches(output: StageOutput) -> tuple[object, ...] | None:
    """The branches a router took, or None if it chose nothing; an empty list takes none."""
    branch = output.data.get("branch") if output.status is StageStatus.OK else None
    if branch is None:
        return None
    return tuple(branch) if isinstance(branch, list | tuple) else (branch,)


def label_of(condition: object) -> str:
    """What a person calls this condition."""
    if isinstance(condition, str):
        return condition
    if isinstance(condition, Predicate):
        return condition.label
    while isinstance(condition, functools.partial):
        condition = condition.func
    return str(getattr(condition, "__name__", type(condition).__name__))


def _answer(condition: Condition, inputs: StageInputs) -> bool:
    answer: object = condition(inputs)
    if isinstance(answer, bool):
        return answer
    raise TypeError(f"{label_of(condition)} {not_a_bool(answer)}")


def not_a_bool(answer: object) -> str:
    # The type alone: what a stage returned may be nothing for a log.
    return f"returned {type(answer).__name__} where True or False was expected"


def leaves(condition: object) -> Iterator[object]:
    """The conditions that a composed one asks in the end, in order."""
    waiting = [condition]
    while waiting:
        found = waiting.pop()
        parts = found.parts if isinstance(found, Predicate) else ()
        if parts:
            waiting.extend(reversed(parts))
        else:
            yield found


def why_no_condition(found: object) -> str | None:
    """What keeps `found` from being asked as a condition of one argument."""
    if not callable(found) or isinstance(found, type):
        return f"is {type(found).__name__} {found!r}"
    if any(map(inspect.iscoroutinefunction, (found, type(found).__call__))):
        return "is async"
    return None
