"""Pipelines in the language of Graphviz, for pictures in files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ._drawing import COLOURS, check_direction, drawing_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._drawing import Arrow, ArrowStyle, Drawing, Node

_SHAPES: Final[Mapping[str, str]] = {
    "transform": "shape=box",
    "enrich": "shape=ellipse",
    "route": "shape=diamond",
    "guard": "shape=hexagon",
    "work": "shape=box, peripheries=2",
    "agent": 'shape=box, style="filled,rounded"',
}

_ARROWS: Final[Mapping[ArrowStyle, str]] = {
    "dependency": "style=solid",
    "conditional": "style=dashed",
    "stream": "style=bold",
    # A retry leads back: it must not turn the order of the stages around.
    "retry": "style=dotted, constraint=false",
}

_ESCAPES: Final = {'"': r"\"", "\\": r"\\", "\n": r"\n", "&": "&amp;"}


def to_dot(
    pipeline: object, *, direction: str = "TD", results: object = None, title: bool = True
) -> str:
    """Write what `to_mermaid` shows for the `dot` program of Graphviz."""
    check_direction(direction)
    drawing = drawing_of(pipeline, results)
    layout = f"rankdir={'TB' if direction == 'TD' else direction}"
    if title:
        layout += f", label={_quoted(drawing.title)}, labelloc=t"
    lines = ["digraph {", *(f"    {line}" for line in _body(drawing, layout)), "}"]
    return "\n".join(lines) + "\n"


def _body(drawing: Drawing, layout: str) -> Iterator[str]:
    yield f'graph [fontname="sans-serif", {layout}]'
    yield 'node [fontname="sans-serif", style=filled, fillcolor="#f4f4f8"]'
    yield 'edge [fontname="sans-serif", fontsize=10]'
    yield from map(_node, drawing.nodes)
    yield from map(_arrow, drawing.arrows)


def _node(node: Node) -> str:
    colours = ""
    if node.ending:
        fill, line = COLOURS[node.ending]
        colours = f', fillcolor="{fill}", color="{line}"'
    shape = _SHAPES.get(node.kind, _SHAPES["transform"])
    return f"{node.id} [label={_quoted(node.label)}, {shape}{colours}]"


def _arrow(arrow: Arrow) -> str:
    label = f"label={_quoted(arrow.label)}, " if arrow.label else ""
    return f"{arrow.source} -> {arrow.target} [{label}{_ARROWS[arrow.style]}]"


def _quoted(text: str) -> str:
    return '"' + re.sub(r'["\\\n&]', lambda found: _ESCAPES[found[0]], text) + '"'
