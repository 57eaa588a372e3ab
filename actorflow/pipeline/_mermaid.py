"""Pipelines as Mermaid flowcharts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from ._drawing import COLOURS, check_direction, drawing_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._drawing import Arrow, ArrowStyle, Drawing

_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "transform": ("[", "]"),
    "enrich": ("([", "])"),
    "route": ("{", "}"),
    "guard": ("{{", "}}"),
    "work": ("[[", "]]"),
    "agent": ("(", ")"),
}

_ARROWS: Final[Mapping[ArrowStyle, str]] = {
    "dependency": "-->",
    "conditional": "-.->",
    "stream": "==>",
    "retry": "-. retry .->",
}

_ESCAPES: Final = {
    '"': "#quot;",
    "\n": "<br/>",
    "<": "#lt;",
    "#": "#35;",
    "&": "#amp;",
    "`": "#96;",
    "\\": "#92;",
}


def to_mermaid(
    pipeline: object, *, direction: str = "TD", results: object = None, title: bool = True
) -> str:
    """Write a pipeline, builder or graph, valid or not, as a Mermaid flowchart.

    `results` (outputs by stage, or a `RunResult`) colours each stage by how it ended.

    Raises:
      InvalidArgumentError: if `direction` is not one of TD, TB, BT, LR, RL.
    """
    check_direction(direction)
    drawing = drawing_of(pipeline, results)
    heading = ["---", f"title: {_yaml(drawing.title)}", "---"] if title else []
    lines = [*heading, f"flowchart {direction}", *(f"    {line}" for line in _body(drawing))]
    return "\n".join(lines) + "\n"


def _body(drawing: Drawing) -> Iterator[str]:
    for node in drawing.nodes:
        opening, closing = _SHAPES.get(node.kind, _SHAPES["transform"])
        yield f'{node.id}{opening}"{_escaped(node.label)}"{closing}'
    for arrow in drawing.arrows:
        yield f"{arrow.source} {_ARROWS[arrow.style]}{_on_arrow(arrow)} {arrow.target}"
    coloured = [node for node in drawing.nodes if node.ending]
    for node in coloured:
        yield f"class {node.id} {node.ending}"
    if coloured:
        for ending, (fill, line) in COLOURS.items():
            yield f"classDef {ending} fill:{fill},stroke:{line},color:#000"


def _on_arrow(arrow: Arrow) -> str:
    if not arrow.label or arrow.style == "retry":
        return ""
    # Outside quotes Mermaid takes brackets and bars for the shape of a node.
    plain = re.fullmatch(r"\w[\w .-]*", arrow.label)
    return f"|{arrow.label}|" if plain else f'|"{_escaped(arrow.label)}"|'


def _escaped(text: str) -> str:
    # `#` and `&` mean themselves unless a name and a semicolon follow.
    return re.sub(r'["\n<`\\]|[#&](?=#?\w+;)', lambda found: _ESCAPES[found[0]], text)


def _yaml(title: str) -> str:
    plain = re.fullmatch(r"[A-Za-z]([\w .+-]*\w)?", title)
    quoted = not plain or title in {"true", "false", "null"}
    return json.dumps(title, ensure_ascii=False) if quoted else title
