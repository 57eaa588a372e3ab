"""Linting what a file or module holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from os import PathLike, fspath
from pathlib import PurePath
from typing import Final

import attrs

from actorflow.errors import TargetError
from actorflow.pipeline import DependencyIssue, DependencyLintResult, IssueSeverity, lint_pipeline

from ._target import PIPELINES, Found, Target, find_pipelines

# What a traceback calls the code at the top level of a file.
_MODULE: Final = "<module>"


def lint_pipeline_file(
    path: str | PathLike[str], *, attribute: str | None = None, call: Collection[str] = ()
) -> DependencyLintResult:
    """Lint the pipelines in a Python file, each issue under the name of its variable.

    The file is imported under a private name. Of its functions only those named
    in `call` are called; what they return is linted too. With `attribute`, of
    its variables only that one is.

    Raises:
      TargetError: if the file cannot be imported, or does not have what was named.
    """
    return lint_target(Target(fspath(path), attribute), call)


def lint_target(target: Target, call: Collection[str]) -> DependencyLintResult:
    """Lint every pipeline of a target.

    Raises:
      TargetError: if there is nothing to lint.
    """
    found = find_pipelines(target, call)
    results = {name: lint_pipeline(pipeline) for name, pipeline in found.pipelines.items()}
    together = merged(results, ".")
    return attrs.evolve(together, issues=(*together.issues, *_issues_of(target, found)))


def merged(results: Mapping[str, DependencyLintResult], separator: str) -> DependencyLintResult:
    """The results as one, each issue below the name of its result."""
    return DependencyLintResult(
        all(result.valid for result in results.values()),
        tuple(
            attrs.evolve(issue, stage_name=separator.join(filter(None, (name, issue.stage_name))))
            for name, result in results.items()
            for issue in result.issues
        ),
        sum(result.stage_count for result in results.values()),
        sum(result.dependency_count for result in results.values()),
    )


def result_of(error: TargetError) -> DependencyLintResult:
    """A target that cannot be used, as something lint found."""
    issue = DependencyIssue(
        _MODULE, str(error), IssueSeverity.ERROR, suggestion=error.fix_hint, code=error.code
    )
    return DependencyLintResult(False, (issue,), 0, 0)


def _issues_of(target: Target, found: Found) -> Iterator[DependencyIssue]:
    """What there is to say about the module itself."""
    if not found.pipelines:
        names = ", ".join(f"--call {factory.__name__}" for factory in found.uncalled)
        yield DependencyIssue(
            _MODULE,
            f"{PurePath(target.source).name} has no pipeline at the top level",
            IssueSeverity.WARNING,
            suggestion=f"Assign {PIPELINES} to a variable, or have a function make one"
            f" with {names or '--call NAME'}.",
        )
    for factory in found.uncalled:
        yield DependencyIssue(
            factory.__name__,
            f"{factory.__name__}() seems to make a pipeline and was not called",
            IssueSeverity.INFO,
            suggestion=f"Lint what it makes with --call {factory.__name__}.",
            line_number=factory.__code__.co_firstlineno,
            code="CONTRACT-004-FACTORY",
        )
