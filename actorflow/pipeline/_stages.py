"""The stages of a pipeline by name: adding, exchanging and merging them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import attrs

from actorflow.errors import contract_error

from ._spec import StageSpec
from ._stage import as_spec
from ._validation import duplicate

if TYPE_CHECKING:
    from ._stage import StageLike

Stages: TypeAlias = Mapping[str, StageSpec]
StagesLike: TypeAlias = "Mapping[str, StageLike] | Iterable[StageLike]"


def collect(stages: StagesLike, who: str) -> dict[str, StageSpec]:
    """The given stages by name; a mapping's keys are the names."""
    if isinstance(stages, Mapping):
        specs = {name: as_spec(found, who) for name, found in stages.items()}
        return {
            name: spec if spec.name == name else spec.evolve(name=name)
            for name, spec in specs.items()
        }
    return added({}, stages, who, replace=False)


def added(
    stages: Stages, more: Iterable[StageLike], who: str, *, replace: bool
) -> dict[str, StageSpec]:
    """A copy with `more` at its end; `replace` exchanges stages where they stand."""
    grown = dict(stages)
    names: set[str] = set()
    for found in more:
        spec = as_spec(found, who)
        if spec.name in names:
            raise duplicate(spec.name)
        if spec.name in stages and not replace:
            raise duplicate(spec.name, "Rename it, or pass replace=True to exchange the first.")
        names.add(spec.name)
        grown[spec.name] = spec
    return grown


def merged(left: Stages, right: Stages) -> dict[str, StageSpec]:
    """Left's stages and then right's new ones; equal specs under one name are one stage."""
    for name, theirs in right.items():
        ours = left.get(name, theirs)
        if ours is not theirs and ours != theirs:
            fields = [
                field.name
                for field in attrs.fields(StageSpec)
                if getattr(ours, field.name) != getattr(theirs, field.name)
            ]
            raise contract_error(
                "CONFLICT",
                f"both pipelines have a stage {name!r}, with different {', '.join(fields)}",
                [name],
                stage=name,
                fields=fields,
            )
    return {**left, **right}
