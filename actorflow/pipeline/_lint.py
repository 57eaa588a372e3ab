"""Everything that is wrong or suspicious about a pipeline, found without running any of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast, final

import attrs

from actorflow.errors import ActorflowError, PipelineValidationError, get_contract_suggestion
from actorflow.model import StageKind
from actorflow.stages import DependencyIssue, IssueSeverity

from ._components import components
from ._declared import DeclaredStage, declared_stages, guard_retries
from ._keywords import closest
from ._predicates import leaves
from ._reads import RunnerSources, SourceRead
from ._runners import hook_of
from ._spec import StageSpec, check_name, split_edges
from ._validation import find_problems

if TYPE_CHECKING:
    from ._guard_retry import GuardRetryPolicy


@final
@attrs.frozen
class DependencyLintResult:
    """What lint found: `valid` unless there are errors."""

    valid: bool
    issues: tuple[DependencyIssue, ...]
    """In declaration order of the stages they are about."""
    stage_count: int
    dependency_count: int
    """Edges between stages, stream edges included."""

    @property
    def errors(self) -> tuple[DependencyIssue, ...]:
        """What keeps the pipeline from working."""
        return self._of(IssueSeverity.ERROR)

    @property
    def warnings(self) -> tuple[DependencyIssue, ...]:
        """What works and is most likely not meant."""
        return self._of(IssueSeverity.WARNING)

    def to_dict(self) -> dict[str, Any]:
        """What `actorflow lint --json` prints."""
        return {
            "valid": self.valid,
            "stage_count": self.stage_count,
            "dependency_count": self.dependency_count,
            "issues": [issue.to_dict() for issue in self.issues],
        }

    def __str__(self) -> str:
        lines = (f"{it.severity}: {it.stage_name}: {it.message}" for it in self.issues)
        return "\n".join((*lines, self.summary()))

    def summary(self) -> str:
        """How many errors and warnings in how many stages."""
        found = (_counted(len(self.errors), "error"), _counted(len(self.warnings), "warning"))
        problems = ", ".join(it for it in found if not it.startswith("0 ")) or "no problems"
        stages = _counted(self.stage_count, "stage")
        return f"{problems} in {stages} with {_counted(self.dependency_count, 'edge')}"

    def _of(self, severity: IssueSeverity) -> tuple[DependencyIssue, ...]:
        return tuple(issue for issue in self.issues if issue.severity is severity)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def lint_pipeline(pipeline: object, *, analyze_source: bool = True) -> DependencyLintResult:
    """Look for everything that is wrong with a pipeline, and for what is probably not meant.

    Takes a pipeline, builder or graph, and any other object with `stages` whose
    items have `name` and `dependencies`. Bad wiring becomes issues, never an
    exception. With `analyze_source`, the source of the stages is searched for
    reads of stages that they do not declare.

    Raises:
      InvalidTypeError: if the object has no stages to look at.
    """
    stages = declared_stages(pipeline)
    strategy = guard_retries(pipeline)
    wired = list(map(_without_itself, stages))
    # DeclaredStage has what the checks of a spec look at, and they look at nothing else.
    specs = cast("list[StageSpec]", wired)
    problems = [*_refused(stages), *find_problems(specs, guard_retry_strategy=strategy)]
    meant = _meant(problems)
    issues = [
        *map(_issue_of, problems),
        *(_source_issues(wired, meant) if analyze_source else ()),
        *_orphans(stages, meant),
        *(_retry_side_effects(wired, strategy.policies) if strategy else ()),
        *_issues_of_runners(stages, pipeline),
    ]
    place = {stage.name: number for number, stage in enumerate(stages)}
    issues = sorted(dict.fromkeys(issues), key=lambda issue: place.get(issue.stage_name, -1))
    return DependencyLintResult(
        not any(issue.severity is IssueSeverity.ERROR for issue in issues),
        tuple(issues),
        len(stages),
        sum(len(stage.sources) for stage in stages),
    )


def _issue_of(problem: PipelineValidationError) -> DependencyIssue:
    context: Mapping[str, Any] = problem.error_info.context if problem.error_info else {}
    return DependencyIssue(
        problem.stages[0] if problem.stages else "",
        problem.message,
        IssueSeverity.ERROR,
        accessed_stage=context.get("dependency"),
        suggestion=problem.fix_hint,
        code=problem.code,
    )


def _refused(stages: Iterable[DeclaredStage]) -> Iterator[PipelineValidationError]:
    """What definitions of others hold that a `StageSpec` would not have taken."""
    for stage in stages:
        if isinstance(stage.spec, StageSpec):
            continue
        for check in (
            partial(check_name, stage.name),
            partial(split_edges, stage.name, "dependencies", stage.dependencies),
            partial(split_edges, stage.name, "stream_from", stage.stream_from),
        ):
            try:
                check()
            except PipelineValidationError as problem:
                yield problem


def _without_itself(stage: DeclaredStage) -> DeclaredStage:
    # Reported by `_refused`; left in, it would come back as a ring of one.
    if stage.name not in stage.sources:
        return stage
    others = {
        field: tuple(name for name in names if name != stage.name)
        for field, names in (
            ("dependencies", stage.dependencies),
            ("stream_from", stage.stream_from),
        )
    }
    return attrs.evolve(stage, **others)


def _meant(problems: Iterable[PipelineValidationError]) -> Mapping[str, Collection[str]]:
    """By stage, what its misspelled dependencies were meant to be: one mistake is one issue."""
    meant: defaultdict[str, set[str]] = defaultdict(set)
    for problem in problems:
        similar = problem.error_info and problem.error_info.context.get("similar")
        if isinstance(similar, str):
            meant[problem.stages[0]].add(similar)
    return meant


def _source_issues(
    stages: Sequence[DeclaredStage], meant: Mapping[str, Collection[str]]
) -> Iterator[DependencyIssue]:
    """Reads that are not declared, and dependencies that are not read."""
    sources = RunnerSources()
    names = frozenset(stage.name for stage in stages)
    for stage in stages:
        declared = {*stage.dependencies, *meant.get(stage.name, ())}
        reads: dict[str, SourceRead] = {}
        for read in sources.reads_of(stage.runner):
            reads.setdefault(read.stage, read)
        for name, read in reads.items():
            if name not in declared:
                yield _undeclared_read(stage, read, names)
        if reads:
            asked = {getattr(condition, "reads", None) for condition in leaves(stage.when)}
            used = reads.keys() | stage.edge_conditions.keys() | asked
            for name in stage.dependencies:
                if name in names and name not in used:
                    yield _issue(
                        stage.name,
                        "UNUSED_DEP",
                        IssueSeverity.INFO,
                        f"stage {stage.name!r} depends on {name!r} and does not read it",
                        accessed_stage=name,
                    )


def _undeclared_read(
    stage: DeclaredStage, read: SourceRead, names: Collection[str]
) -> DependencyIssue:
    similar = closest(read.stage, stage.dependencies)
    if read.stage == stage.name:
        fix = "Keep the value in a variable: a stage has no output before it ends."
    elif read.stage in stage.stream_from:
        fix = f"Use `ctx.stream({read.stage!r})` or `await ctx.stream_output({read.stage!r})`."
    elif read.stage in names:
        fix = f"Add {read.stage!r} to the dependencies of {stage.name!r}."
    elif similar:
        fix = f"Write {similar!r}: there is no stage {read.stage!r}."
    else:
        fix = f"Add a stage {read.stage!r}, and let {stage.name!r} depend on it."
    return _issue(
        stage.name,
        "UNDECLARED_READ",
        IssueSeverity.ERROR,
        f"stage {stage.name!r} reads {read.stage!r} ({PurePath(read.file).name}, line {read.line}),"
        " but does not depend on it",
        suggestion=fix,
        accessed_stage=read.stage,
        line_number=read.line,
    )


def _orphans(
    stages: Sequence[DeclaredStage], meant: Mapping[str, Collection[str]]
) -> Iterator[DependencyIssue]:
    if len(stages) < 2:
        return
    connected = {source for stage in stages for source in stage.sources}.union(*meant.values())
    for stage in stages:
        if not stage.sources and stage.name not in connected:
            yield _issue(
                stage.name,
                "ORPHAN",
                IssueSeverity.WARNING,
                f"stage {stage.name!r} has no edge to any other stage",
            )


def _retry_side_effects(
    stages: Sequence[DeclaredStage], policies: Mapping[str, GuardRetryPolicy]
) -> Iterator[DependencyIssue]:
    """Work that a guard retry repeats although it does not wait for the guard to agree."""
    by_name = {stage.name: stage for stage in stages}
    edges = {
        stage.name: [source for source in stage.sources if source in by_name] for stage in stages
    }
    groups = components(edges)
    if len(groups) < len(edges):
        # In a ring everything is below everything, so the answer would mean nothing.
        return
    working = [
        (guard, policy)
        for guard, policy in policies.items()
        if guard in by_name and by_name[guard].kind is StageKind.GUARD
    ]
    # A bit for each policy, so that one pass over the edges answers for all of
    # them: whether a stage is below the retry stage, and below the guard.
    begins, ends = Counter[str](), Counter[str]()
    for number, (guard, policy) in enumerate(working):
        begins[policy.retry_stage] |= 1 << number
        ends[guard] |= 1 << number
    repeated, approved = Counter[str](), Counter[str]()
    for (name,) in groups:
        for source in edges[name]:
            repeated[name] |= repeated[source] | begins[source]
            approved[name] |= approved[source] | ends[source]
        exposed = repeated[name] & ~approved[name]
        if not exposed or by_name[name].kind is not StageKind.WORK:
            continue
        for number, (guard, policy) in enumerate(working):
            if exposed >> number & 1:
                yield _issue(
                    name,
                    "RETRY_SIDE_EFFECT",
                    IssueSeverity.WARNING,
                    f"work stage {name!r} runs again whenever guard {guard!r} sends"
                    f" {policy.retry_stage!r} back: it does not wait for the guard",
                    suggestion=f"Add {guard!r} to the dependencies of {name!r}.",
                    accessed_stage=guard,
                )


def _issues_of_runners(
    stages: Iterable[DeclaredStage], pipeline: object
) -> Iterator[DependencyIssue]:
    """What the runners themselves have to say; they may fail in any way."""
    for stage, name in product(stages, ("lint", "check_spec")):
        hook = hook_of(stage.runner, name)
        if hook is None:
            continue
        try:
            # `lint` returns issues; `check_spec` returns nothing, or raises.
            yield from map(_with_suggestion, tuple(hook(stage.spec, pipeline) or ()))
        except ActorflowError as refusal:
            yield DependencyIssue(
                stage.name,
                str(refusal),
                IssueSeverity.ERROR,
                suggestion=refusal.fix_hint or None,
                code=refusal.code,
            )
        except Exception as error:  # noqa: BLE001 - what their authors write may raise anything
            yield DependencyIssue(
                stage.name,
                f"{name} of stage {stage.name!r} failed: {type(error).__name__}: {error}",
                IssueSeverity.ERROR,
                suggestion=f"Mend {name} of its runner.",
            )


def _issue(
    stage: str, kind: str, severity: IssueSeverity, message: str, **where: Any
) -> DependencyIssue:
    code = f"CONTRACT-004-{kind}"
    return _with_suggestion(DependencyIssue(stage, message, severity, code=code, **where))


def _with_suggestion(issue: DependencyIssue) -> DependencyIssue:
    suggestion = get_contract_suggestion(issue.code or "")
    if issue.suggestion or suggestion is None:
        return issue
    return attrs.evolve(issue, suggestion=suggestion.fix_steps[0])
