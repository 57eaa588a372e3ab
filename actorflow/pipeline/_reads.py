"""What the source of a stage reads from its inputs, found without running it."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FunctionType

READERS: Final = frozenset({"get_from", "require_from", "get_output", "has_output"})
"""Methods of `StageInputs` whose first argument names a stage."""

_Place: TypeAlias = tuple[str, int]


def analyze_stage_source(source: str) -> list[tuple[str, int]]:
    """The stages that a piece of Python reads by a literal name, each with its line.

    What counts are calls of `get_from`, `require_from`, `get_output` and
    `has_output` on `inputs` of something, or on a variable. Reading `ctx.outputs`
    does not: it holds whatever the run has produced so far and asks for no
    declaration.

    Raises:
      InvalidArgumentError: if `source` is no Python.
    """
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError) as error:
        raise InvalidArgumentError("source", source, "Python source") from error
    return _reads_below(tree)


@final
@attrs.frozen
class SourceRead:
    """One place in a file where a stage reads what another stage left."""

    stage: str
    file: str
    line: int


@final
class RunnerSources:
    """The reads of runners. A file is parsed once, however many runners it holds."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[_Place, Sequence[SourceRead]]] = {}

    def reads_of(self, runner: object) -> list[SourceRead]:
        """What the runner's functions read by name; nothing where their source is unknown."""
        return [read for function in _functions_of(runner) for read in self._reads(function)]

    def _reads(self, function: FunctionType) -> Sequence[SourceRead]:
        code = function.__code__
        if code.co_filename not in self._files:
            self._files[code.co_filename] = _reads_in_file_of(function)
        return self._files[code.co_filename].get((code.co_name, code.co_firstlineno), ())


def _reads_in_file_of(function: FunctionType) -> Mapping[_Place, Sequence[SourceRead]]:
    """The reads of every function in the file of this one."""
    try:
        lines, _ = inspect.findsource(function)
        tree = ast.parse("".join(lines))
    except (OSError, SyntaxError):
        return {}
    file = function.__code__.co_filename
    found: dict[_Place, Sequence[SourceRead]] = {}
    for node in ast.walk(tree):
        place = _place(node)
        if place in found:
            # Two lambdas on one line cannot be told apart: better silent than wrong.
            found[place] = ()
        elif place:
            found[place] = [SourceRead(stage, file, line) for stage, line in _reads_below(node)]
    return found


def _place(node: ast.AST) -> _Place | None:
    """Name and first line as the code object of a function has them."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            # A decorated function begins at its first decorator.
            return node.name, min(part.lineno for part in (node, *node.decorator_list))
        case ast.Lambda():
            return "<lambda>", node.lineno
        case _:
            return None


def _functions_of(runner: object) -> Iterator[FunctionType]:
    """The functions that make up a runner, found without touching its descriptors."""
    while isinstance(runner, functools.partial):
        runner = runner.func
    if inspect.ismethod(runner) or inspect.isfunction(runner):
        candidates: Sequence[Any] = (runner,)
    else:
        owner = runner if isinstance(runner, type) else type(runner)
        # What an inherited class defines counts only as far as it is not overridden.
        members = {name: it for base in reversed(owner.__mro__) for name, it in vars(base).items()}
        candidates = tuple(members.values())
    for candidate in candidates:
        function = inspect.unwrap(getattr(candidate, "__func__", candidate))
        if inspect.isfunction(function):
            yield function


def _reads_below(tree: ast.AST) -> list[tuple[str, int]]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    reads = [
        (name.value, call.lineno)
        for call in calls
        if _is_read(call.func)
        and isinstance(name := _first_argument(call), ast.Constant)
        and isinstance(name.value, str)
    ]
    return sorted(reads, key=lambda read: read[1])


def _is_read(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Attribute(attr=owner), attr=method):
            # `self.client.get_output("x")` is somebody else's method.
            return method in READERS and owner.endswith("inputs")
        case ast.Attribute(value=ast.Name(id=owner), attr=method):
            return method in READERS and owner != "outputs"
        case _:
            return False


def _first_argument(call: ast.Call) -> ast.expr | None:
    named = (item.value for item in call.keywords if item.arg == "stage")
    return next(iter(call.args), None) or next(named, None)
