"""What a picture of a pipeline shows, before it is written in any language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError

from ._declared import declared_stages, guard_retries
from ._predicates import label_of, leaves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._declared import DeclaredStage

ArrowStyle: TypeAlias = Literal["dependency", "conditional", "stream", "retry"]
Ending: TypeAlias = Literal["ok", "skip", "fail", "cancel", "none"]

DIRECTIONS: Final = ("TD", "TB", "BT", "LR", "RL")

_LONGEST_LABEL: Final = 60

_ENDINGS: Final[Mapping[str, Ending]] = {
    "ok": "ok",
    "skip": "skip",
    "fail": "fail",
    "retry": "fail",
    "cancel": "cancel",
}

COLOURS: Final[Mapping[Ending, tuple[str, str]]] = {
    "ok": ("#d4edda", "#28a745"),
    "skip": ("#e9ecef", "#6c757d"),
    "fail": ("#f8d7da", "#dc3545"),
    "cancel": ("#fff3cd", "#d39e00"),
    "none": ("#ffffff", "#adb5bd"),
}
"""Fill and line of a stage by how it ended."""


@final
@attrs.frozen
class Node:
    """A stage in a picture; `ending` is None in a picture without results."""

    id: str
    label: str
    kind: str
    ending: Ending | None = None


@final
@attrs.frozen
class Arrow:
    """An edge in a picture, from node id to node id."""

    source: str
    target: str
    style: ArrowStyle
    label: str


@final
@attrs.frozen
class Drawing:
    """Nodes and arrows in declaration order."""

    title: str
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]


def check_direction(direction: object) -> None:
    """Refuse what is not a direction of a picture.

    Raises:
      InvalidArgumentError: naming the directions there are.
    """
    if direction not in DIRECTIONS:
        raise InvalidArgumentError("direction", direction, f"one of {', '.join(DIRECTIONS)}")


def drawing_of(pipeline: object, results: Any = None) -> Drawing:
    """Draw a pipeline, builder or graph, which need not be valid.

    A stage that others wait for and nobody declared appears as missing.
    `results` is a mapping of outputs by stage, or anything that has one under
    `results`.
    """
    stages = declared_stages(pipeline)
    outputs: Mapping[str, Any] | None = getattr(results, "results", results)
    nodes = [
        Node(
            f"s{number}",
            stage.name,
            str(stage.kind),
            _ending(stage.name, outputs),
        )
        for number, stage in enumerate(stages)
    ]
    ids: dict[str, str] = {}
    for node in nodes:
        ids.setdefault(node.label, node.id)
    for name in (name for stage in stages for name in stage.sources):
        if name not in ids:
            ids[name] = f"s{len(nodes)}"
            nodes.append(Node(ids[name], f"{name} (missing)", "transform"))
    arrows = [
        Arrow(ids[source], node.id, _style(stage, source), _label(stage, source))
        for node, stage in zip(nodes, stages, strict=False)
        for source in stage.sources
    ]
    strategy = guard_retries(pipeline)
    arrows += [
        Arrow(ids[guard], ids[policy.retry_stage], "retry", "retry")
        for guard, policy in (strategy.policies.items() if strategy else ())
        if guard in ids and policy.retry_stage in ids
    ]
    return Drawing(_title(pipeline), tuple(nodes), tuple(arrows))


def _title(pipeline: object) -> str:
    name = getattr(pipeline, "name", None) or getattr(pipeline, "pipeline_name", None)
    return str(name or "pipeline")


def _ending(stage: str, outputs: Mapping[str, Any] | None) -> Ending | None:
    if outputs is None:
        return None
    # A stage that has not ended has no output.
    return _ENDINGS.get(str(getattr(outputs.get(stage), "status", None)), "none")


def _style(stage: DeclaredStage, source: str) -> ArrowStyle:
    if source in stage.stream_from:
        return "stream"
    return "conditional" if stage.conditional else "dependency"


def _label(stage: DeclaredStage, source: str) -> str:
    """The condition of an edge, or that of its stage where it is about this source."""
    condition = stage.edge_conditions.get(source)
    if condition is None and _is_about(stage.when, source, stage.sources):
        condition = stage.when
    label = "" if condition is None else label_of(condition)
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _is_about(when: object, source: str, sources: tuple[str, ...]) -> bool:
    return (source,) == sources or any(
        getattr(condition, "reads", None) == source for condition in leaves(when)
    )
