"""The pipelines that a command line names: `file.py`, `file.py:variable`, `package.module`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial, reduce
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar, final

import attrs

from actorflow.errors import TargetError
from actorflow.pipeline import FluentPipelineBuilder, Pipeline, PipelineBuilder
from actorflow.runtime import StageGraph, UnifiedStageGraph

_T = TypeVar("_T")
UNUSABLE: Final = 2
"""Exit code for a target that cannot be used."""

PIPELINES: Final = "a Pipeline, a PipelineBuilder or a built graph"
_WITH_STAGES: Final = (Pipeline, PipelineBuilder, UnifiedStageGraph, StageGraph)
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@final
@attrs.frozen
class Target:
    """A Python file or module, and the variable in it that is meant, if it is one."""

    source: str
    variable: str | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `file.py`, `file.py:variable`, `package.module` or `package.module:variable`."""
        source, _, variable = text.rpartition(":")
        # The colon in C:\voice.py separates nothing.
        return cls(source, variable) if source and _DOTTED.fullmatch(variable) else cls(text)

    @property
    def folder(self) -> Path:
        """Where its code is: beside the file, or for a module where we are."""
        return Path(self.source).parent if self.source.endswith(".py") else Path()

    def __str__(self) -> str:
        return self.source if self.variable is None else f"{self.source}:{self.variable}"


@final
@attrs.frozen
class Found:
    """What a target holds: pipelines by name, and functions that might make more."""

    pipelines: Mapping[str, Any]
    uncalled: tuple[FunctionType, ...] = ()


def find_pipelines(target: Target, call: Collection[str] = ()) -> Found:
    """Import a target and collect its pipelines. Of its functions only those in `call` are run.

    Raises:
      TargetError: if it cannot be imported, or does not have what was asked for.
    """
    module = _guarded(target, partial(_load, target.source))
    made = {f"{name}()": _made_by(target, module, name) for name in call}
    if target.variable is not None:
        return Found({target.variable: _pipeline_at(target, module, target.variable)} | made)
    return Found(
        _pipelines_of(module) | made,
        tuple(
            value
            for value in vars(module).values()
            if _is_factory(value, module) and value.__name__ not in call
        ),
    )


def find_pipeline(target: Target, call: str | None = None) -> Any:
    """The only pipeline of a target, or the one that its function `call` makes.

    Raises:
      TargetError: also if there are several and none was named.
    """
    found = find_pipelines(target, () if call is None else (call,))
    pipelines = found.pipelines
    if call is not None:
        return pipelines[f"{call}()"]
    if len(pipelines) == 1:
        return next(iter(pipelines.values()))
    if not pipelines:
        maker = found.uncalled[0].__name__ if found.uncalled else "NAME"
        raise TargetError(
            str(target),
            "it has no pipeline at the top level",
            f"Have a function make one with --call {maker}.",
        )
    names = ", ".join(pipelines)
    raise TargetError(
        str(target),
        f"it has several pipelines: {names}",
        f"Name one, as in {target}:{min(pipelines)}.",
    )


def _pipelines_of(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for name, value in vars(module).items():
        pipeline = _as_pipeline(value)
        # An object that goes by two names is one pipeline and keeps the first.
        if pipeline is not None and names.setdefault(id(value), name) == name:
            found[name] = pipeline
    return found


def _pipeline_at(target: Target, module: ModuleType, path: str) -> Any:
    try:
        value = reduce(getattr, path.split("."), module)
    except AttributeError:
        known = ", ".join(_pipelines_of(module)) or "none"
        raise TargetError(
            str(target), f"there is no {path}; pipelines there: {known}", "Name one of them."
        ) from None
    pipeline = _as_pipeline(value)
    if pipeline is None:
        call = f"If it makes one, call it: {target.source} --call {path}."
        raise TargetError(
            str(target),
            f"{path} is no pipeline, found {type(value).__name__}",
            call if inspect.isfunction(value) else f"Name {PIPELINES}.",
        )
    return pipeline


def _made_by(target: Target, module: ModuleType, name: str) -> Any:
    make = getattr(module, name, None)
    if not callable(make):
        raise TargetError(
            str(target), f"there is no function {name} to call", "Name a function at the top level."
        )
    made = _guarded(target, make)
    pipeline = _as_pipeline(made)
    if pipeline is None:
        raise TargetError(
            str(target),
            f"{name}() returned no pipeline, found {type(made).__name__}",
            f"Let it return {PIPELINES}.",
        )
    return pipeline


def _as_pipeline(value: object) -> Any:
    """The value as something with stages, or None."""
    if isinstance(value, FluentPipelineBuilder):
        return value.builder
    return value if isinstance(value, _WITH_STAGES) else None


def _is_factory(value: object, module: ModuleType) -> bool:
    """Whether a function of the module can be called with nothing and seems to make a pipeline."""
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    try:
        inspect.signature(value).bind()
    except TypeError:
        return False
    returned = value.__annotations__.get("return", "")
    words = re.findall(r"\w+", str(getattr(returned, "__name__", returned)))
    promises = any(made.__name__ in words for made in (*_WITH_STAGES, FluentPipelineBuilder))
    return (promises or "pipeline" in value.__name__) and not hasattr(value, "__stage__")


def _guarded(target: Target, run: Callable[[], _T]) -> _T:
    """Run code of the target; whatever it raises becomes the reason it cannot be used."""
    try:
        # What a module prints is no part of our output, which may be JSON.
        with contextlib.redirect_stdout(sys.stderr):
            return run()
    except TargetError:
        raise
    except SystemExit as error:
        raise TargetError(
            str(target),
            f"it calls sys.exit({error.code!r})",
            "Put what it does as a program below `if __name__ == '__main__':`.",
        ) from error
    except Exception as error:
        problem = f"{type(error).__name__}: {error}{_place(target, error)}"
        remedy = getattr(error, "fix_hint", "") or "Mend the file: it has to import."
        raise TargetError(str(target), problem, remedy) from error


def _place(target: Target, error: Exception) -> str:
    """The last line of the target's own file on the way to the error."""
    if isinstance(error, SyntaxError):
        return ""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == Path(target.source).absolute()
    ]
    return f" (line {lines[-1]})" if lines else ""


def _load(source: str) -> ModuleType:
    path = Path(source).absolute()
    if _DOTTED.fullmatch(source) and not source.endswith(".py"):
        with _importable(Path.cwd()):
            return _imported(source)
    if not path.is_file():
        raise TargetError(source, "there is no such file", "Name a file.py or a package.module.")
    # Not as __main__, or it would run as a program; nor under its own name,
    # which may be that of a module already imported.
    module = ModuleType("_actorflow_target_" + re.sub(r"\W", "_", path.stem))
    module.__file__ = str(path)
    # Classes look for the module they were defined in as long as they live.
    sys.modules[module.__name__] = module
    code = compile(path.read_bytes(), str(path), "exec")
    with _importable(path.parent):
        exec(code, vars(module))  # noqa: S102 - importing the file is what was asked for
    return module


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # What the module itself misses is another matter.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        problem = f"there is no module {error.name}"
        raise TargetError(
            name, problem, "Name a file.py, or a module below this folder."
        ) from error


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Find modules the way `python file.py` and `python -m module` would."""
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(directory))
