"""A wired pipeline as numbers: what a run looks at while it decides.

Stages are numbered in declaration order. Every question a run asks (who waits
for this stage, what does it wait for) is an index into a tuple that was
computed once, so a completion touches the neighbours of one stage only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, final

import attrs

from actorflow.model import FrozenDict

from ._predicates import Chosen, leaves

if TYPE_CHECKING:
    from actorflow.model import StageOutput

    from ._predicates import EdgeCondition
    from ._spec import StageSpec

Indexes: TypeAlias = tuple[int, ...]
EdgeRule: TypeAlias = "Chosen | Callable[[StageOutput], bool] | None"
"""When an edge counts: its branch is chosen, a function says so, or always."""


@final
@attrs.frozen(eq=False)
class Wiring:
    """Who waits for whom, by index in declaration order; immutable and without run state."""

    specs: tuple[StageSpec, ...]
    index: Mapping[str, int]
    """Number of each stage by name."""
    dependencies: tuple[Indexes, ...]
    """Stages that must be settled first."""
    edge_rules: tuple[tuple[EdgeRule, ...], ...]
    """One rule for each of `dependencies`, in the same order."""
    stream_sources: tuple[Indexes, ...]
    """Stages that must have started first."""
    dependents: tuple[Indexes, ...]
    """Stages that wait for this one to settle."""
    consumers: tuple[Indexes, ...]
    """Stages that wait for this one to start, to read its stream."""
    branch_labels: tuple[tuple[str, ...], ...]
    """What others ask this stage to choose from; empty if it is no router."""
    topological_order: Indexes
    """Every stage after what it waits for; among candidates the first declared."""
    roots: Indexes
    """Stages that wait for nothing."""


def wire(specs: Sequence[StageSpec]) -> Wiring:
    """Number the stages of a valid pipeline."""
    index = {spec.name: number for number, spec in enumerate(specs)}
    dependencies = tuple(tuple(index[name] for name in spec.dependencies) for spec in specs)
    sources = tuple(tuple(index[name] for name in spec.stream_from) for spec in specs)
    rules = tuple(map(_edge_rules, specs))
    dependents = _reversed(dependencies)
    consumers = _reversed(sources)
    waits = [len(spec.dependencies) + len(spec.stream_from) for spec in specs]
    roots = tuple(number for number, count in enumerate(waits) if count == 0)
    return Wiring(
        tuple(specs),
        FrozenDict(index),
        dependencies,
        rules,
        sources,
        dependents,
        consumers,
        _branch_labels(specs, index, rules),
        _topological_order(waits, roots, dependents, consumers),
        roots,
    )


def _edge_rules(spec: StageSpec) -> tuple[EdgeRule, ...]:
    conditions: Mapping[str, EdgeCondition] = spec.edge_conditions
    if isinstance(spec.when, str):
        # A valid spec with a label of its own has exactly one dependency.
        conditions = dict.fromkeys(spec.dependencies, spec.when)
    if not conditions:
        return (None,) * len(spec.dependencies)
    return tuple(_edge_rule(name, conditions.get(name)) for name in spec.dependencies)


def _edge_rule(source: str, condition: EdgeCondition | None) -> EdgeRule:
    return Chosen(source, condition) if isinstance(condition, str) else condition


def _branch_labels(
    specs: Sequence[StageSpec], index: Mapping[str, int], rules: Sequence[Sequence[EdgeRule]]
) -> tuple[tuple[str, ...], ...]:
    # Dicts, because a set would forget the order people declared the labels in.
    labels: list[dict[str, None]] = [{} for _ in specs]
    for spec, edge_rules in zip(specs, rules, strict=True):
        for asked in (*edge_rules, *leaves(spec.when)):
            if isinstance(asked, Chosen):
                labels[index[asked.router]][asked.branch] = None
    return tuple(map(tuple, labels))


def _reversed(edges: Sequence[Indexes]) -> tuple[Indexes, ...]:
    pointing_here: list[list[int]] = [[] for _ in edges]
    for number, needed in enumerate(edges):
        for other in needed:
            pointing_here[other].append(number)
    return tuple(map(tuple, pointing_here))


def _topological_order(
    waits: list[int], roots: Indexes, dependents: Sequence[Indexes], consumers: Sequence[Indexes]
) -> Indexes:
    candidates = list(roots)
    order: list[int] = []
    while candidates:
        number = heapq.heappop(candidates)
        order.append(number)
        for waiting in (*dependents[number], *consumers[number]):
            waits[waiting] -= 1
            if waits[waiting] == 0:
                heapq.heappush(candidates, waiting)
    return tuple(order)
