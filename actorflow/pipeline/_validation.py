"""What can be wrong with the wiring of a pipeline, found before anything runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from actorflow.errors import CycleDetectedError, PipelineValidationError, contract_error

from ._components import components
from ._conditions import listed, split_input
from ._graph import wire
from ._keywords import closest
from ._predicates import Chosen, Predicate, PredicateOfStage, label_of, leaves
from ._runners import hook_of

if TYPE_CHECKING:
    from ._graph import Wiring
    from ._guard_retry import GuardRetryStrategy
    from ._spec import StageSpec

MAX_COMPARISONS: Final = 100_000
"""Where the search for what unknown names were meant to be ends; each looks at every stage."""


def validated(
    specs: Sequence[StageSpec],
    *,
    guard_retry_strategy: GuardRetryStrategy | None = None,
    pipeline: object = None,
) -> Wiring:
    """The wiring of these stages; `pipeline` is what checks of their own runners get to see.

    Raises:
      PipelineValidationError: the first problem in the order of `find_problems`.
    """
    problems = find_problems(specs, guard_retry_strategy=guard_retry_strategy)
    if problems:
        raise first_of(problems)
    for spec in specs:
        check = hook_of(spec.runner, "check_spec")
        if check is not None:
            check(spec, _Stages(specs) if pipeline is None else pipeline)
    return wire(specs)


@attrs.frozen
class _Stages:
    stages: Sequence[StageSpec]


def first_of(problems: Sequence[PipelineValidationError]) -> PipelineValidationError:
    """The first problem, which also says how many there are."""
    error = problems[0].with_context(problem_count=len(problems))
    if len(problems) > 1:
        error.message += f" ({len(problems) - 1} more: `actorflow lint` shows all)"
    return error


def find_problems(
    specs: Sequence[StageSpec],
    *,
    guard_retry_strategy: GuardRetryStrategy | None = None,
    within: Mapping[str, StageSpec] | None = None,
) -> list[PipelineValidationError]:
    """Everything that is wrong: by kind, and within a kind in declaration order.

    `within` are the stages that these were added to, which do not know them.
    """
    if not specs:
        return [contract_error("EMPTY", "the pipeline has no stages")]
    own = {spec.name: spec for spec in specs}
    by_name = own if within is None else within
    strategy = guard_retry_strategy
    cycles = _cycles(own)
    repeated_streams = [*_repeated_streams(specs, strategy)]
    return [
        *_duplicates(specs),
        *_missing(specs, by_name),
        *cycles,
        # What waits for what before it can start means little while stages wait in a ring.
        *(() if cycles else _stream_problems(specs, by_name)),
        *repeated_streams,
        *branch_problems(specs),
        *_input_problems(specs, by_name),
        # The strategy looks at streams as well, and would report the same once more.
        *(() if repeated_streams or strategy is None else strategy.problems(specs)),
    ]


def _duplicates(specs: Sequence[StageSpec]) -> Iterator[PipelineValidationError]:
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            yield duplicate(spec.name)
        seen.add(spec.name)


def duplicate(name: str, fix: str = "") -> PipelineValidationError:
    return contract_error(
        "DUPLICATE", f"there are two stages named {name!r}", [name], fix=fix, stage=name
    )


def _missing(
    specs: Sequence[StageSpec], by_name: Mapping[str, StageSpec]
) -> Iterator[PipelineValidationError]:
    similar: dict[str, str | None] = {}
    for spec in specs:
        for name in (*spec.dependencies, *spec.stream_from):
            if name in by_name:
                continue
            if name not in similar:
                affordable = len(similar) * len(by_name) < MAX_COMPARISONS
                similar[name] = closest(name, by_name) if affordable else None
            yield missing(spec.name, name, similar[name])


def missing(stage: str, dependency: str, similar: str | None) -> PipelineValidationError:
    hint = f"; did you mean {similar!r}?" if similar else ""
    return contract_error(
        "MISSING_DEP",
        f"stage {stage!r} waits for {dependency!r}, which is not in the pipeline{hint}",
        [stage, dependency],
        fix=f"{f'Write {similar!r}' if similar else 'Correct the name'},"
        f" or add a stage named {dependency!r}.",
        stage=stage,
        dependency=dependency,
        similar=similar,
    )


def _cycles(by_name: Mapping[str, StageSpec]) -> list[PipelineValidationError]:
    edges = {
        name: [needed for needed in (*spec.dependencies, *spec.stream_from) if needed in by_name]
        for name, spec in by_name.items()
    }
    return [CycleDetectedError(ring) for ring in rings(edges)]


def rings(edges: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """One ring for each group of stages that reach each other, as first met on the way.

    The way goes from stages in declaration order to what they wait for.
    """
    group_of: Mapping[str, int] = {}
    reported: set[int] = set()
    finished: set[str] = set()
    for start in edges:
        # A dict is a path that can be asked quickly what lies on it.
        way = {start: iter(edges[start])} if start not in finished else {}
        while way:
            for needed in way[next(reversed(way))]:
                if needed in way:
                    group_of = group_of or _group_numbers(edges)
                    if group_of[needed] not in reported:
                        reported.add(group_of[needed])
                        path = list(way)
                        yield [*path[path.index(needed) :], needed]
                elif needed not in finished:
                    way[needed] = iter(edges[needed])
                    break
            else:
                # popitem, not del: the end of a dict stays cheap to find only with this.
                finished.add(way.popitem()[0])


def _group_numbers(edges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return {name: number for number, group in enumerate(components(edges)) for name in group}


def _stream_problems(
    specs: Sequence[StageSpec], by_name: Mapping[str, StageSpec]
) -> Iterator[PipelineValidationError]:
    for spec in specs:
        both = [name for name in spec.stream_from if name in spec.dependencies]
        for source in both:
            yield _stream_problem(
                spec.name,
                source,
                f"stage {spec.name!r} waits for {source!r} to end and also reads its stream",
            )
        path = None if both else _blocked_path(spec, by_name)
        if path is not None:
            yield contract_error(
                "STREAM_DEADLOCK",
                f"stage {spec.name!r} streams from {path[-1]!r}, but cannot start before that has"
                f" ended: {' -> '.join(path)}",
                path,
                stage=spec.name,
                source=path[-1],
                path=path,
            )


def _repeated_streams(
    specs: Sequence[StageSpec], strategy: GuardRetryStrategy | None
) -> Iterator[PipelineValidationError]:
    repeated = _repeated_stages(specs, strategy)
    for spec in specs:
        for source in spec.stream_from:
            again = next((name for name in (spec.name, source) if name in repeated), None)
            if again is not None:
                yield _stream_problem(
                    spec.name,
                    source,
                    f"stage {spec.name!r} streams from {source!r},"
                    f" but a guard retry may run {again!r} again",
                    "Stream before the stage that the guard sends back, or read its result"
                    " with after=... instead.",
                )


def _stream_problem(
    stage: str, source: str, message: str, fix: str = ""
) -> PipelineValidationError:
    return contract_error("STREAM", message, [stage, source], fix=fix, stage=stage, source=source)


def _blocked_path(consumer: StageSpec, by_name: Mapping[str, StageSpec]) -> list[str] | None:
    """The way from a consumer to a producer of its own that must end before the consumer starts."""
    if not consumer.stream_from or len(consumer.stream_from) + len(consumer.dependencies) == 1:
        return None
    # To start, a stage needs its dependencies to end and its producers to start;
    # to end, it needs its producers to end too.
    first = (consumer.name, False)
    came_from = {first: first}
    to_visit = deque([first])
    while to_visit:
        reached = to_visit.popleft()
        name, must_end = reached
        if must_end and name in consumer.stream_from:
            path = [name]
            while reached != first:
                reached = came_from[reached]
                path.append(reached[0])
            return path[::-1]
        spec = by_name.get(name)
        if spec is None:
            continue
        ends = [(needed, True) for needed in spec.dependencies]
        starts = [(source, must_end) for source in spec.stream_from]
        for needed in (*ends, *starts):
            if needed not in came_from:
                came_from[needed] = reached
                to_visit.append(needed)
    return None


def _repeated_stages(
    specs: Sequence[StageSpec], strategy: GuardRetryStrategy | None
) -> Collection[str]:
    """What a guard retry may run again: the retry stages and everything below them."""
    if strategy is None or not any(spec.stream_from for spec in specs):
        return ()
    below: dict[str, list[str]] = {spec.name: [] for spec in specs}
    for spec in specs:
        for name in (*spec.dependencies, *spec.stream_from):
            below.setdefault(name, []).append(spec.name)
    repeated = dict.fromkeys(policy.retry_stage for policy in strategy.policies.values())
    to_visit = list(repeated)
    for name in to_visit:
        for dependent in below.get(name, ()):
            if dependent not in repeated:
                repeated[dependent] = None
                to_visit.append(dependent)
    return repeated


def branch_problems(specs: Sequence[StageSpec]) -> Iterator[PipelineValidationError]:
    for spec in specs:
        if spec.when is None and not spec.edge_conditions:
            continue
        for message, reads, fix in _unanswerable(spec):
            yield contract_error(
                "BRANCH",
                f"stage {spec.name!r} {message}",
                [spec.name],
                fix=fix,
                stage=spec.name,
                reads=reads,
                declared=list(spec.dependencies),
            )


def _unanswerable(spec: StageSpec) -> Iterator[tuple[str, list[str], str]]:
    """What is wrong with the conditions of a stage, which stages they read, and the remedy."""
    if isinstance(spec.when, str):
        if len(spec.dependencies) != 1:
            found = ", ".join(map(repr, spec.dependencies)) or "none"
            yield (
                f"runs when {spec.when!r} is chosen, which needs exactly one dependency, found {found}",
                [],
                f"Say whose choice it is: after=edge('router', when={spec.when!r}).",
            )
        elif spec.edge_conditions:
            yield (
                f"has the condition {spec.when!r} and another one on its only edge",
                list(spec.dependencies),
                "Keep one of the two.",
            )
    for leaf in leaves(spec.when):
        if isinstance(leaf, PredicateOfStage) and leaf.reads not in spec.dependencies:
            yield (
                f"has the condition {label_of(leaf)!r}, but does not depend on {leaf.reads!r}",
                [leaf.reads],
                f"Add {leaf.reads!r} to the dependencies of {spec.name!r}.",
            )
    for source, condition in spec.edge_conditions.items():
        if source not in spec.dependencies:
            yield (
                f"has a condition on an edge from {source!r}, a stage it does not depend on",
                [source],
                f"Add {source!r} to the dependencies of {spec.name!r}.",
            )
        elif isinstance(condition, Predicate) and not _is_choice_of(source, condition):
            yield (
                f"asks on its edge from {source!r} for {label_of(condition)!r} of other stages",
                [source],
                "Pass the condition as when=... of the stage.",
            )


def _is_choice_of(source: str, condition: object) -> bool:
    return isinstance(condition, Chosen) and condition.router == source


def _input_problems(
    specs: Sequence[StageSpec], by_name: Mapping[str, StageSpec]
) -> Iterator[PipelineValidationError]:
    for spec in specs:
        if not spec.inputs:
            continue
        known = {name: by_name[name].outputs for name in spec.dependencies if name in by_name}
        lacking = [declared for declared in spec.inputs if _cannot_come(declared, spec, known)]
        if lacking:
            available = [f"{name}:{key}" for name, keys in known.items() for key in keys]
            yield contract_error(
                "INPUT",
                f"stage {spec.name!r} declares the inputs {listed(lacking)},"
                f" its dependencies declare {listed(available)}",
                [spec.name],
                stage=spec.name,
                missing=lacking,
                available=available,
            )


def _cannot_come(declared: str, spec: StageSpec, known: Mapping[str, Sequence[str]]) -> bool:
    """Whether none of the dependencies can leave this input, going by what they declare."""
    name, key = split_input(declared)
    if name is not None and name not in spec.dependencies:
        return True
    # A stage that declares no outputs may leave anything, one that is missing likewise.
    candidates = spec.dependencies if name is None else (name,)
    return all(known.get(candidate) and key not in known[candidate] for candidate in candidates)
