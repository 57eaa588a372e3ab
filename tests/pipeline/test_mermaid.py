from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.pipeline._dot import to_dot
from actorflow.pipeline._mermaid import to_mermaid


def declared(name: str, after: object = (), **fields: Any) -> Any:
    """A stage as any library might declare it."""
    return SimpleNamespace(name=name, dependencies=after, **fields)


def pipeline(*stages: Any, **fields: Any) -> Any:
    return SimpleNamespace(stages=stages, **fields)


def body(text: str) -> list[str]:
    """Lines below the flowchart line."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("flowchart"))
    return [line.strip() for line in lines[start + 1 :]]


@pytest.mark.spec("20.14.1")
def test_title_then_stages_then_edges_in_declaration_order() -> None:
    drawn = pipeline(
        declared("answer", ("route", "stt")),
        declared("stt"),
        declared("route", "stt"),
        name="voice",
    )

    assert to_mermaid(drawn) == (
        "---\n"
        "title: voice\n"
        "---\n"
        "flowchart TD\n"
        '    s0["answer"]\n'
        '    s1["stt"]\n'
        '    s2["route"]\n'
        "    s2 --> s0\n"
        "    s1 --> s0\n"
        "    s1 --> s2\n"
    )
    assert to_mermaid(drawn) == to_mermaid(drawn)


@pytest.mark.spec("20.14.1")
def test_title_can_be_left_out() -> None:
    text = to_mermaid(pipeline(declared("a"), name="voice"), title=False)

    assert text == 'flowchart TD\n    s0["a"]\n'


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("voice", "title: voice"),
        ("a", "title: a"),
        ("left+right 2", "title: left+right 2"),
        ("a: b", 'title: "a: b"'),
        ("true", 'title: "true"'),
        ("# 7", 'title: "# 7"'),
        ('said "no"', r'title: "said \"no\""'),
        ("größe", "title: größe"),
        (None, "title: pipeline"),
    ],
)
def test_title_is_yaml(name: str | None, line: str) -> None:
    assert to_mermaid(pipeline(declared("a"), name=name)).splitlines()[1] == line


def test_a_graph_is_drawn_by_its_specs() -> None:
    graph = SimpleNamespace(specs=[declared("a")], pipeline_name="voice")

    assert to_mermaid(graph).splitlines()[1] == "title: voice"
    assert body(to_mermaid(graph)) == ['s0["a"]']


def test_stages_may_come_as_a_mapping() -> None:
    drawn = SimpleNamespace(stages={"a": declared("a"), "b": declared("b", "a")})

    assert body(to_mermaid(drawn)) == ['s0["a"]', 's1["b"]', "s0 --> s1"]


@pytest.mark.spec("20.14.2")
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("transform", '["x"]'),
        ("enrich", '(["x"])'),
        ("route", '{"x"}'),
        ("guard", '{{"x"}}'),
        ("work", '[["x"]]'),
        ("agent", '("x")'),
        ("unheard of", '["x"]'),
    ],
)
def test_the_kind_gives_the_shape(kind: str, shape: str) -> None:
    assert body(to_mermaid(pipeline(declared("x", kind=kind)))) == [f"s0{shape}"]


@pytest.mark.spec("20.14.2")
def test_names_are_shown_as_they_are() -> None:
    names = [
        'say "hi"',
        "two\nlines",
        "a<b>",
        "#35;",
        "&lt;",
        "stage #1 & more",
        "(x) [y] {z} |",
        r"`C:\n`",
    ]

    drawn = body(to_mermaid(pipeline(*map(declared, names))))

    assert [re.sub(r"^s\d+", "", line) for line in drawn] == [
        '["say #quot;hi#quot;"]',
        '["two<br/>lines"]',
        '["a#lt;b>"]',
        '["#35;35;"]',
        '["#amp;lt;"]',
        '["stage #1 & more"]',
        '["(x) [y] {z} |"]',
        '["#96;C:#92;n#96;"]',
    ]


def yes(_: object) -> bool:
    return True


@pytest.mark.spec("20.14.3")
def test_edges_show_what_they_are() -> None:
    drawn = pipeline(
        declared("source"),
        declared("plain", "source"),
        declared("labelled", "source", edge_conditions={"source": "billing"}),
        declared("asked", "source", edge_conditions={"source": yes}),
        declared("optional", "source", conditional=True),
        declared("branch", "source", conditional=True, edge_conditions={"source": "b"}),
        declared("reader", stream_from=("source",)),
        declared("both", "plain", stream_from=("source",), conditional=True),
    )

    assert body(to_mermaid(drawn))[8:] == [
        "s0 --> s1",
        "s0 -->|billing| s2",
        "s0 -->|yes| s3",
        "s0 -.-> s4",
        "s0 -.->|b| s5",
        "s0 ==> s6",
        "s1 -.-> s7",
        "s0 ==> s7",
    ]


@pytest.mark.spec("20.14.3")
def test_a_condition_of_a_stage_stands_on_the_edges_it_is_about() -> None:
    from actorflow.pipeline._predicates import all_of, chosen, key_true

    drawn = pipeline(
        declared("route"),
        declared("stt"),
        declared("only", "route", when="billing"),
        declared("function", "route", when=yes),
        declared("chosen", ("route", "stt"), when=chosen("route", "sales")),
        declared(
            "both", ("route", "stt"), when=all_of(chosen("route", "x"), key_true("stt", "ok"))
        ),
        declared("unclear", ("route", "stt"), when=yes),
    )

    assert body(to_mermaid(drawn))[7:] == [
        "s0 -->|billing| s2",
        "s0 -->|yes| s3",
        "s0 -->|sales| s4",
        "s1 --> s4",
        's0 -->|"x and stt:ok"| s5',
        's1 -->|"x and stt:ok"| s5',
        "s0 --> s6",
        "s1 --> s6",
    ]


@pytest.mark.spec("20.14.3")
def test_a_guard_points_back_at_what_it_repeats() -> None:
    policies = {
        "guard": SimpleNamespace(retry_stage="llm"),
        "unknown": SimpleNamespace(retry_stage="llm"),
        "llm": SimpleNamespace(retry_stage="unknown"),
    }
    drawn = pipeline(
        declared("llm", kind="agent"),
        declared("guard", "llm", kind="guard"),
        guard_retry_strategy=SimpleNamespace(policies=policies),
    )

    assert body(to_mermaid(drawn))[2:] == ["s0 --> s1", "s1 -. retry .-> s0"]

    options = SimpleNamespace(guard_retry_strategy=drawn.guard_retry_strategy)
    graph = SimpleNamespace(specs=drawn.stages, options=options)

    assert to_mermaid(graph) == to_mermaid(drawn)


@pytest.mark.spec("20.14.3")
def test_labels_are_escaped_and_cut_at_sixty_characters() -> None:
    drawn = pipeline(
        declared("a"),
        declared("b", "a", edge_conditions={"a": 'is "it"'}),
        declared("c", "a", edge_conditions={"a": "x" * 60}),
        declared("d", "a", edge_conditions={"a": '"' * 61}),
    )

    assert body(to_mermaid(drawn))[4:] == [
        's0 -->|"is #quot;it#quot;"| s1',
        f"s0 -->|{'x' * 60}| s2",
        f's0 -->|"{"#quot;" * 59}…"| s3',
    ]


@pytest.mark.spec("20.14.4")
def test_results_colour_the_stages() -> None:
    outputs = {
        name: SimpleNamespace(status=name) for name in ("ok", "skip", "fail", "cancel", "retry")
    }
    drawn = pipeline(*map(declared, outputs), declared("not reached"), declared("x", "y"))

    lines = body(to_mermaid(drawn, results=outputs))

    assert lines[9:16] == [
        "class s0 ok",
        "class s1 skip",
        "class s2 fail",
        "class s3 cancel",
        "class s4 fail",
        "class s5 none",
        "class s6 none",
    ]
    assert [line.split()[:2] for line in lines[16:]] == [
        ["classDef", ending] for ending in ("ok", "skip", "fail", "cancel", "none")
    ]
    assert lines == body(to_mermaid(drawn, results=SimpleNamespace(results=outputs)))


@pytest.mark.spec("20.14.4")
def test_results_of_nothing_colour_every_stage_as_not_reached() -> None:
    assert "class s0 none" in body(to_mermaid(pipeline(declared("a")), results={}))
    assert not any("class" in line for line in body(to_mermaid(pipeline(declared("a")))))


@pytest.mark.spec("20.14.5")
def test_what_does_not_validate_is_drawn() -> None:
    drawn = pipeline(
        declared("a", ("b", "z")), declared("b", ("a", "b", "y")), declared("b", "z"), name="ring"
    )

    assert body(to_mermaid(drawn)) == [
        's0["a"]',
        's1["b"]',
        's2["b"]',
        's3["z (missing)"]',
        's4["y (missing)"]',
        "s1 --> s0",
        "s3 --> s0",
        "s0 --> s1",
        "s1 --> s1",
        "s4 --> s1",
        "s3 --> s2",
    ]
    assert body(to_mermaid(pipeline())) == []


@pytest.mark.spec("20.14.6")
@pytest.mark.parametrize("draw", [to_mermaid, to_dot])
def test_only_directions_there_are_are_taken(draw: Any) -> None:
    for direction in ("TD", "TB", "BT", "LR", "RL"):
        assert draw(pipeline(declared("a")), direction=direction)

    with pytest.raises(InvalidArgumentError, match="direction must be one of TD, TB, BT, LR, RL"):
        draw(pipeline(declared("a")), direction="down")


@pytest.mark.parametrize("found", [None, 7, SimpleNamespace(stages=3), pipeline(object())])
def test_what_is_no_pipeline_is_refused(found: object) -> None:
    with pytest.raises(InvalidTypeError):
        to_mermaid(found)


def test_dot_shows_the_same_picture() -> None:
    drawn = pipeline(
        declared("stt"),
        declared("llm", "stt", kind="agent", conditional=True),
        declared("guard", "llm", kind="guard", edge_conditions={"llm": 'not "ok"'}),
        declared("tts", "lost", stream_from=("llm",), kind="work"),
        name="voice & more",
        guard_retry_strategy=SimpleNamespace(
            policies={"guard": SimpleNamespace(retry_stage="llm")}
        ),
    )
    results: Mapping[str, Any] = {"stt": SimpleNamespace(status="ok")}

    assert (
        to_dot(drawn, direction="LR", results=results)
        == r"""digraph {
    graph [fontname="sans-serif", rankdir=LR, label="voice &amp; more", labelloc=t]
    node [fontname="sans-serif", style=filled, fillcolor="#f4f4f8"]
    edge [fontname="sans-serif", fontsize=10]
    s0 [label="stt", shape=box, fillcolor="#d4edda", color="#28a745"]
    s1 [label="llm", shape=box, style="filled,rounded", fillcolor="#ffffff", color="#adb5bd"]
    s2 [label="guard", shape=hexagon, fillcolor="#ffffff", color="#adb5bd"]
    s3 [label="tts", shape=box, peripheries=2, fillcolor="#ffffff", color="#adb5bd"]
    s4 [label="lost (missing)", shape=box]
    s0 -> s1 [style=dashed]
    s1 -> s2 [label="not \"ok\"", style=solid]
    s4 -> s3 [style=solid]
    s1 -> s3 [style=bold]
    s2 -> s1 [label="retry", style=dotted, constraint=false]
}
"""
    )
    assert "rankdir=TB, label" in to_dot(drawn)
    assert "labelloc" not in to_dot(drawn, title=False)


@given(st.text(), st.text())
def test_no_name_breaks_out_of_its_line(name: str, label: str) -> None:
    drawn = pipeline(declared(name), declared("b", name, edge_conditions={name: label}))

    lines = to_mermaid(drawn, title=False).split("\n")[1:-1]
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(r'    s\d(\["[^"\n]*"\]| -->(\|[^"|\n]*\||\|"[^"\n]*"\|)? s\d)', line)


@pytest.mark.spec("20.15.1")
def test_ten_thousand_stages_are_drawn() -> None:
    layers = [[f"{layer}.{n}" for n in range(100)] for layer in range(100)]
    stages = [declared(name) for name in layers[0]]
    for above, layer in pairwise(layers):
        stages += [declared(name, above[:3]) for name in layer]

    drawn = body(to_mermaid(pipeline(*stages)))

    assert len(drawn) == 10_000 + 9_900 * 3
