"""`actorflow lint`: what is wrong with the pipelines of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from actorflow.errors import TargetError
from actorflow.pipeline import DependencyLintResult, IssueSeverity

from ._lint_file import lint_target, merged, result_of
from ._target import UNUSABLE, Target
from ._tell import tell

_STYLES: Final = {
    IssueSeverity.ERROR: "bold red",
    IssueSeverity.WARNING: "yellow",
    IssueSeverity.INFO: "cyan",
}


def lint(
    target: str | Path,
    /,
    *more: str | Path,
    call: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    verbose: Annotated[bool, Parameter(alias="-v", negative="")] = False,
    traceback: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Find mistakes in pipelines without running them.

    Args:
        target: `file.py`, `file.py:variable`, `package.module` or `package.module:variable`.
        more: Further targets.
        call: A function of the target that makes a pipeline. No other function is called.
        as_json: Print one JSON object.
        strict: Take warnings for errors.
        verbose: Also show what is merely worth knowing.
        traceback: If a target cannot be used, show where in full.
    """
    results: dict[str, DependencyLintResult] = {}
    unusable: dict[str, DependencyLintResult] = {}
    for name in map(str, (target, *more)):
        # A single target needs no name in front of its issues.
        prefix = name if more else ""
        try:
            results[prefix] = lint_target(Target.parse(name), call)
        except TargetError as error:
            tell(error, in_full=traceback)
            unusable[prefix] = result_of(error)
    if as_json:
        _print_json(merged(results | unusable, ":"), verbose=verbose)
    elif results:
        _print(merged(results, ":"), verbose=verbose)
    if unusable:
        return UNUSABLE
    return int(any(not it.valid or (strict and it.warnings) for it in results.values()))


def _print_json(result: DependencyLintResult, *, verbose: bool) -> None:
    print(json.dumps(_shown(result, verbose=verbose).to_dict(), indent=2))


def _print(result: DependencyLintResult, *, verbose: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    shown = _shown(result, verbose=verbose)
    for issue in shown.issues:
        severity = (str(issue.severity), _STYLES[issue.severity])
        code = (f" [{issue.code}]" if issue.code else "", "dim")
        console.print(Text.assemble(severity, f": {issue.stage_name}: {issue.message}", code))
        if issue.suggestion:
            console.print(Text(f"    fix: {issue.suggestion}"))
    hidden = len(result.issues) - len(shown.issues)
    console.print(f"{result.summary()}{f'; {hidden} more with -v' if hidden else ''}")


def _shown(result: DependencyLintResult, *, verbose: bool) -> DependencyLintResult:
    if verbose:
        return result
    kept = (issue for issue in result.issues if issue.severity is not IssueSeverity.INFO)
    return attrs.evolve(result, issues=tuple(kept))
