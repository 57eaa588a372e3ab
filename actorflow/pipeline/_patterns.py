"""Shapes that pipelines often have, each added in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from actorflow.errors import InvalidTypeError, contract_error

from ._builder import PipelineBuilder
from ._pipeline import Pipeline
from ._predicates import all_of, chosen
from ._spec import StageSpec, split_edges
from ._stage import as_spec
from ._validation import branch_problems

if TYPE_CHECKING:
    from ._predicates import Condition
    from ._runners import Runner
    from ._spec import Names
    from ._stage import StageLike

Grown = TypeVar("Grown", PipelineBuilder, Pipeline)

Made: TypeAlias = "tuple[str, Runner] | StageLike"
"""What stands for a stage in a pattern: a name with a runner, or anything that says both."""

StageFactory: TypeAlias = Callable[[int], Made]
"""Called once for each number from 0."""


def with_linear_chain(
    builder: Grown,
    count: int,
    stage_factory: StageFactory,
    *,
    first_depends_on: Names | None = None,
) -> Grown:
    """Add `count` stages, each depending on the one before."""
    before = first_depends_on
    chain: list[StageSpec] = []
    for spec in _made(stage_factory, count):
        chain.append(_after(spec, before))
        before = spec.name
    return builder.with_stages(*chain) if chain else builder


def with_parallel_stages(
    builder: Grown,
    count: int,
    stage_factory: StageFactory,
    *,
    depends_on: Names | None = None,
) -> Grown:
    """Add `count` stages that depend on the same ones."""
    stages = [_after(spec, depends_on) for spec in _made(stage_factory, count)]
    return builder.with_stages(*stages) if stages else builder


def with_fan_out_fan_in(
    builder: Grown,
    fan_out_stage: Made,
    parallel_count: int,
    parallel_factory: StageFactory,
    fan_in_stage: Made,
    *,
    fan_out_depends_on: Names | None = None,
) -> Grown:
    """Add a stage, workers that depend on it, and a stage that depends on every worker."""
    fan_out = _after(_spec_of(fan_out_stage, "fan_out_stage is"), fan_out_depends_on)
    workers = [_after(spec, fan_out.name) for spec in _made(parallel_factory, parallel_count)]
    ends = [worker.name for worker in workers] or fan_out.name
    fan_in = _after(_spec_of(fan_in_stage, "fan_in_stage is"), ends)
    return builder.with_stages(fan_out, *workers, fan_in)


def with_conditional_branch(
    builder: Grown,
    router_stage: Made,
    branches: Mapping[str, Made],
    merge_stage: Made | None = None,
    *,
    router_depends_on: Names | None = None,
) -> Grown:
    """Add a router, a stage for each branch it may choose, and a stage that joins them.

    The router chooses by the key or keys under `data["branch"]`; when it chooses
    nothing, every branch runs. The merge runs if one of the branches did.
    """
    router = _after(_spec_of(router_stage, "router_stage is"), router_depends_on)
    if not branches:
        raise contract_error(
            "OPTION",
            f"router {router.name!r} has no branches to choose from",
            [router.name],
            stage=router.name,
            field="branches",
            found=repr(branches),
        )
    arms: list[StageSpec] = [
        _branch(_spec_of(made, f"branch {key!r} is"), router.name, key)
        for key, made in branches.items()
    ]
    stages = [router, *arms]
    if merge_stage is not None:
        merge = _spec_of(merge_stage, "merge_stage is")
        stages.append(_after(merge, [arm.name for arm in arms]))
    return builder.with_stages(*stages)


def _branch(spec: StageSpec, router: str, key: str) -> StageSpec:
    taken = chosen(router, key, default=True)
    own = _own_condition(spec, router)
    when = taken if own is None else all_of(own, taken)
    return _after(spec, router).evolve(conditional=True, when=when)


def _own_condition(spec: StageSpec, router: str) -> Condition | None:
    if not isinstance(spec.when, str):
        return spec.when
    if not spec.dependencies:
        return chosen(router, spec.when)
    # Said before there was a router, a label is about the only edge the stage had then.
    for problem in branch_problems([spec]):
        raise problem
    return chosen(spec.dependencies[0], spec.when)


def _after(spec: StageSpec, more: Names | None) -> StageSpec:
    """The spec with these dependencies behind its own."""
    if more is None:
        return spec
    names, conditions = split_edges(spec.name, "dependencies", more)
    return spec.evolve(
        dependencies=(*spec.dependencies, *names),
        edge_conditions={**spec.edge_conditions, **conditions},
    )


def _made(factory: StageFactory, count: int) -> list[StageSpec]:
    if not isinstance(count, int) or isinstance(count, bool):
        raise InvalidTypeError("count", count, "a whole number")
    return [_spec_of(factory(number), f"factory({number}) returned") for number in range(count)]


def _spec_of(made: Made, who: str) -> StageSpec:
    if isinstance(made, tuple) and len(made) == 2:
        return StageSpec(*made)
    return as_spec(made, who)
