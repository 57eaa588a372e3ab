"""What may stand as the runner of a stage, and what it says about itself."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from actorflow.errors import contract_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actorflow.errors import PipelineValidationError
    from actorflow.stages import StageContext


class Executes(Protocol):
    """An object that does the work of a stage."""

    def execute(self, ctx: StageContext, /) -> object:
        """Do the work, as a coroutine or at once."""


Runner: TypeAlias = "type[Any] | Executes | Callable[[StageContext], object]"
"""A class made anew for each try, an object shared by all, or a function."""


def declared_kind(runner: object) -> str | None:
    """The kind a runner gives itself; a descriptor of a class says nothing yet."""
    kind = getattr(runner, "kind", None)
    return kind if isinstance(kind, str) else None


def declared_name(runner: object) -> str | None:
    """The name a runner gives itself: its `name`, else what it is defined as."""
    name = getattr(runner, "name", None)
    if isinstance(name, str):
        return name
    name = getattr(runner, "__name__", None)
    return name if isinstance(name, str) and name != "<lambda>" else None


def check_runner(stage: str, runner: object, args: Mapping[str, Any]) -> None:
    """Find out before a run whether the runner can be called the way a run would."""
    if isinstance(runner, type):
        _check_class(stage, runner, args)
        return
    if args:
        raise contract_error(
            "OPTION",
            f"stage {stage!r}: args are for a class, found {described(runner)}",
            [stage],
            fix="Pass a class, or bind the arguments yourself with functools.partial.",
            stage=stage,
            field="args",
            found=described(runner),
        )
    call = getattr(runner, "execute", runner)
    if inspect.iscoroutine(runner):
        # Or Python would complain later that nobody awaited it, and hide what happened here.
        runner.close()
        fix = f"Pass the function itself: {runner.__name__}, without calling it."
        raise _no_runner(stage, runner, "which is over after one run", fix)
    if not callable(call):
        raise _no_runner(stage, runner, "which has no execute(ctx) and cannot be called")
    _check_call(stage, runner, call, 1)


def _check_class(stage: str, runner: type, args: Mapping[str, Any]) -> None:
    # `callable(runner)` would be about making instances; the question is what they can do.
    calls = ("execute", "__call__")
    defined = [name for name in calls if any(name in vars(base) for base in runner.__mro__)]
    if not defined:
        raise _no_runner(stage, runner, "which has no execute(ctx)")
    call = inspect.getattr_static(runner, defined[0])
    if isinstance(call, FunctionType):
        _check_call(stage, runner, call, 2)
    try:
        signature = inspect.signature(runner)
    except ValueError:
        # A class written in C that does not tell.
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        given = ", ".join(args) or "no arguments"
        raise _no_runner(
            stage,
            runner,
            f"which cannot be made with {given}: {error}",
            f"Make args fit the constructor: {runner.__name__}{_without_types(signature)}.",
        ) from None


def _check_call(stage: str, runner: object, call: Callable[..., object], arguments: int) -> None:
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise _no_runner(
            stage,
            runner,
            "which yields, and a stage returns",
            "Return a mapping; hand out parts with `await ctx.send(part)`.",
        )
    try:
        signature = inspect.signature(call)
    except ValueError:
        return
    try:
        signature.bind(*range(arguments))
    except TypeError:
        context = "(self, ctx)" if arguments > 1 else "(ctx)"
        raise _no_runner(
            stage,
            runner,
            "which cannot be called with the context alone: its signature is"
            f" {_without_types(signature)}",
            f"Let it take one argument: {context}.",
        ) from None


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    bare = [it.replace(annotation=it.empty) for it in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=signature.empty)


def _no_runner(stage: str, runner: object, why: str, fix: str = "") -> PipelineValidationError:
    found = described(runner)
    return contract_error(
        "RUNNER",
        f"stage {stage!r} cannot run {found}, {why}",
        [stage],
        fix=fix,
        stage=stage,
        field="runner",
        found=found,
    )


def described(runner: object) -> str:
    """What a person would call this thing."""
    if isinstance(runner, type):
        return f"the class {runner.__name__}"
    if inspect.iscoroutine(runner):
        return f"the coroutine of a call {runner.__name__}(...)"
    if inspect.isroutine(runner):
        return "a lambda" if runner.__name__ == "<lambda>" else f"the function {runner.__name__}"
    return f"the {type(runner).__name__} {reprlib.repr(runner)}"


def hook_of(runner: object, name: str) -> Callable[..., Any] | None:
    """A check that the runner brings along; of a class only what needs no instance."""
    hook = getattr(runner, name, None)
    if isinstance(runner, type):
        static = inspect.getattr_static(runner, name, None)
        hook = hook if isinstance(static, classmethod | staticmethod) else None
    return hook if callable(hook) else None
