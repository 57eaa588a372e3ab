"""Turning what people write into specs: calls of `stage`, decorators, objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, final, overload

from actorflow.errors import contract_error

from ._keywords import check_keywords
from ._runners import declared_name, described
from ._spec import StageSpec, bad_option

if TYPE_CHECKING:
    from typing import TypeAlias, Unpack

    from actorflow.errors import PipelineValidationError
    from actorflow.model import StageKind

    from ._predicates import Condition, EdgeCondition
    from ._runners import Runner
    from ._spec import Join, Names, StreamPolicy

    StageLike: TypeAlias = StageSpec | Runner

_R = TypeVar("_R", bound=Callable[..., object])


class FurtherOptions(TypedDict, total=False):
    """What can be said about a stage everywhere by keyword only."""

    after: Names | None
    config: Mapping[str, Any] | None
    when: Condition | str | None
    edge_conditions: Mapping[str, EdgeCondition] | None
    join: Join
    stream_from: Names
    stream_buffer: int
    stream_ms: float | None
    stream_policy: StreamPolicy
    timeout: float | None


@final
class StageOptions(FurtherOptions, total=False):
    """What can be said about a stage besides its name and runner."""

    kind: StageKind | str | None
    dependencies: Names | None
    inputs: str | Iterable[str] | None
    outputs: str | Iterable[str] | None
    conditional: bool
    args: Mapping[str, Any] | None


KEYWORDS: Final = StageOptions.__optional_keys__


@overload
def stage(name: str, runner: Runner, /, **options: Unpack[StageOptions]) -> StageSpec: ...


@overload
def stage(runner: _R, /) -> _R: ...


@overload
def stage(*, name: str | None = None, **options: Unpack[StageOptions]) -> Callable[[_R], _R]: ...


def stage(*declared: Any, **options: Any) -> Any:
    """Declare a stage: `stage("name", runner, ...)`, `@stage` or `@stage(...)`.

    A decorated function or class stays what it is and gains an attribute
    `__stage__`, its spec. The name is the given one, else the runner's `name`,
    else what it is called in the source. `timeout` is in seconds, for each try.
    """
    if not declared:
        return lambda runner: _decorated(runner, options)
    name, *rest = declared
    if not isinstance(name, str) and not rest:
        return _decorated(name, options)
    if len(rest) != 1:
        raise contract_error(
            "RUNNER",
            f"stage({name!r}) was given {len(rest)} runners",
            [str(name)],
            fix="Write stage('name', runner), or decorate a function with @stage(name='name').",
            stage=str(name),
            field="runner",
            found=repr(rest),
        )
    return new_spec("stage()", name, rest[0], options)


def _decorated(runner: Any, options: Mapping[str, Any]) -> Any:
    given = options.get("name")
    name = declared_name(runner) if given is None else given
    if name is None:
        raise contract_error(
            "NAME",
            f"a stage needs a name, and {described(runner)} has none",
            fix="Write stage('name', runner).",
            name="",
        )
    others = {field: value for field, value in options.items() if field != "name"}
    spec = new_spec("stage()", name, runner, others)
    try:
        runner.__stage__ = spec
    except AttributeError:
        raise _no_stage("@stage stands above", runner, f"Write stage({name!r}, ...).") from None
    return runner


def new_spec(call: str, name: str, runner: Runner, options: Mapping[str, Any]) -> StageSpec:
    """The spec that `call` asks for; an option that is None is left out."""
    check_keywords(call, options, KEYWORDS)
    given = {field: value for field, value in options.items() if value is not None}
    if "after" in given:
        if "dependencies" in given:
            raise bad_option(
                name,
                "after",
                given["after"],
                "left out when dependencies are given",
                fix="Name all of them in after=...; it means the same.",
            )
        given["dependencies"] = given.pop("after")
    return StageSpec(name, runner, **given)


def as_spec(found: StageLike, who: str) -> StageSpec:
    """The spec of whatever may stand for a stage; `who` begins the sentence that refuses it."""
    if isinstance(found, StageSpec):
        return found
    declared = getattr(found, "__stage__", None)
    if isinstance(declared, StageSpec):
        # Subclasses and wrappers inherit the attribute, and with it the runner of another.
        if declared.runner is found:
            return declared
        if declared.runner is type(found):
            return declared.evolve(name=_own_name(found) or declared.name, runner=found, args={})
    name = getattr(found, "name", None)
    if hasattr(found, "execute") and isinstance(name, str) and not isinstance(found, type):
        return StageSpec(name, found)
    if isinstance(declared, StageSpec):
        raise _no_stage(who, found, "Decorate it too: @stage belongs above other decorators.")
    raise _no_stage(who, found, _how_to_declare(found))


def _no_stage(who: str, found: object, fix: str) -> PipelineValidationError:
    name = declared_name(found)
    return contract_error(
        "RUNNER",
        f"{who} {described(found)}, which does not say what stage it is",
        [name] if name else [],
        fix=fix,
        stage=name,
        field="runner",
        found=described(found),
    )


def _own_name(instance: object) -> str | None:
    name = getattr(instance, "name", None)
    inherited = getattr(type(instance), "name", None)
    return name if isinstance(name, str) and name is not inherited else None


def _how_to_declare(found: object) -> str:
    name = declared_name(found)
    if isinstance(found, type):
        if isinstance(getattr(found, "name", None), str):
            return f"Decorate the class with @stage, or pass an instance, {found.__name__}(...)."
        return f"Decorate the class with @stage, or write stage('name', {found.__name__})."
    if inspect.isfunction(found) and name:
        return f"Decorate the function with @stage, or write stage({name!r}, {name})."
    if isinstance(found, Iterable):
        return "Pass the stages one by one: from_stages(*stages)."
    return "Write stage('name', runner)."
