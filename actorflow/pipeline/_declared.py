"""Stages as they were declared, whatever class declared them and whether or not they can work.

Lint and drawing look at pipelines that would not pass validation, and at
definitions of other libraries, so they ask for attributes and not for classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from actorflow.errors import InvalidTypeError
from actorflow.model import FrozenDict, StageKind

if TYPE_CHECKING:
    from ._guard_retry import GuardRetryStrategy


def _names(found: object) -> tuple[str, ...]:
    items = found if isinstance(found, Iterable) and not isinstance(found, str) else (found,)
    return tuple(dict.fromkeys(str(getattr(item, "stage", item)) for item in items))


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else FrozenDict()


def _kind(found: Any) -> object:
    return StageKind(found) if found in tuple(StageKind) else found


@final
@attrs.frozen
class DeclaredStage:
    """The part of a `StageSpec` that pictures and checks look at; `spec` is where it is from."""

    spec: Any = attrs.field(eq=False)
    name: str = attrs.field(default="", converter=str)
    dependencies: tuple[str, ...] = attrs.field(default=(), converter=_names)
    stream_from: tuple[str, ...] = attrs.field(default=(), converter=_names)
    kind: object = attrs.field(default=StageKind.TRANSFORM, converter=_kind)
    runner: object = None
    conditional: object = False
    when: Any = None
    edge_conditions: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=_mapping)
    inputs: tuple[str, ...] = attrs.field(default=(), converter=_names)
    outputs: tuple[str, ...] = attrs.field(default=(), converter=_names)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every stage with an edge to this one."""
        return self.dependencies + self.stream_from


_READ: Final = tuple(field.name for field in attrs.fields(DeclaredStage) if field.name != "spec")


def declared_stages(pipeline: object) -> tuple[DeclaredStage, ...]:
    """The stages of a pipeline, builder or graph, in declaration order.

    Raises:
      InvalidTypeError: if the object has no `stages`, or a stage has no name.
    """
    stages = getattr(pipeline, "stages", getattr(pipeline, "specs", None))
    if isinstance(stages, Mapping):
        stages = stages.values()
    if not isinstance(stages, Iterable):
        raise InvalidTypeError("pipeline", pipeline, "a pipeline, or an object with `stages`")
    return tuple(map(_declared, stages))


def guard_retries(pipeline: object) -> GuardRetryStrategy | None:
    """The guard-retry strategy of a pipeline; a built graph has it among its options."""
    owners = (pipeline, getattr(pipeline, "options", None))
    return next(filter(None, (getattr(it, "guard_retry_strategy", None) for it in owners)), None)


def _declared(stage: object) -> DeclaredStage:
    if not hasattr(stage, "name"):
        raise InvalidTypeError("stages", stage, "objects with `name` and `dependencies`")
    found = {field: getattr(stage, field, None) for field in _READ}
    given = {field: value for field, value in found.items() if value is not None}
    return DeclaredStage(stage, **given)
