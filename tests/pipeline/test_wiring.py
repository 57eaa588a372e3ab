"""The compiled graph: numbers, neighbours and order."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from actorflow.model import StageOutput
from actorflow.pipeline import StageSpec, Wiring, chosen, edge, validated


async def work(ctx: object) -> None:
    """A stage that does nothing."""


def spec(name: str, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, work, dependencies=after, **options)


def order_of(wiring: Wiring) -> list[str]:
    return [wiring.specs[number].name for number in wiring.topological_order]


def is_long(output: StageOutput) -> bool:
    return True


def test_stages_are_numbered_as_declared() -> None:
    wiring = validated(
        [
            spec("speak", ("reply", "check"), stream_from="hear"),
            spec("reply", ["route", edge("tune", when=is_long)]),
            spec("check", "reply", when="risky"),
            spec("route"),
            spec("hear"),
            spec("log", ("route", "hear"), when=chosen("route", "x")),
            spec("tune"),
        ]
    )

    assert [wiring.index[it.name] for it in wiring.specs] == [0, 1, 2, 3, 4, 5, 6]
    assert wiring.dependencies == ((1, 2), (3, 6), (1,), (), (), (3, 4), ())
    assert wiring.edge_rules == (
        (None, None),
        (None, is_long),
        (chosen("reply", "risky"),),
        (),
        (),
        (None, None),
        (),
    )
    assert wiring.stream_sources == ((4,), (), (), (), (), (), ())
    assert wiring.dependents == ((), (0, 2), (0,), (1, 5), (5,), (), (1,))
    assert wiring.consumers == ((), (), (), (), (0,), (), ())
    assert wiring.branch_labels == ((), ("risky",), (), ("x",), (), (), ())
    assert wiring.roots == (3, 4, 6)
    assert order_of(wiring) == ["route", "hear", "log", "tune", "reply", "check", "speak"]


@pytest.mark.spec("20.11.4")
def test_dependents_are_at_hand_for_every_stage() -> None:
    wiring = validated([spec("a"), spec("b", "a"), spec("c", "a"), spec("d", ("b", "c"))])

    assert wiring.dependents == ((1, 2), (3,), (3,), ())


@pytest.mark.spec("20.8.9")
def test_labels_of_a_router_are_listed_once_in_declaration_order() -> None:
    wiring = validated(
        [
            spec("r"),
            spec("a", edge("r", when="z")),
            spec("b", edge("r", when="a")),
            spec("c", edge("r", when="z")),
        ]
    )

    assert wiring.branch_labels[0] == ("z", "a")


@pytest.mark.spec("20.11.3")
def test_wiring_cannot_be_changed() -> None:
    wiring = validated([spec("a")])

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        wiring.roots = ()  # type: ignore[misc]  # what the test is about
    with pytest.raises(TypeError):
        wiring.index["b"] = 1  # type: ignore[index]  # what the test is about


@st.composite
def acyclic(draw: st.DrawFn) -> list[StageSpec]:
    """Stages in any order of declaration, each waiting for some that come before in another."""
    count = draw(st.integers(1, 9))
    declared: list[StageSpec] = []
    for number in range(count):
        before = [f"s{other}" for other in range(number)]
        waits = draw(st.lists(st.sampled_from(before), max_size=3)) if before else []
        # One source only, and nothing else: streams have rules of their own.
        streams = draw(st.booleans()) and bool(waits)
        declared.append(
            spec(f"s{number}", stream_from=waits[0]) if streams else spec(f"s{number}", waits)
        )
    return draw(st.permutations(declared))


@pytest.mark.spec("20.11.2", "20.9.2")
@settings(max_examples=200)
@given(acyclic())
def test_order_takes_the_first_declared_candidate_each_time(specs: list[StageSpec]) -> None:
    wiring = validated(specs)

    done: list[str] = []
    while len(done) < len(specs):
        done.append(
            next(
                it.name
                for it in specs
                if it.name not in done and {*it.dependencies, *it.stream_from} <= set(done)
            )
        )
    assert order_of(wiring) == done


@pytest.mark.spec("20.15.1")
def test_chain_of_ten_thousand_declared_last_to_first() -> None:
    specs = [
        spec(f"s{number}", f"s{number - 1}" if number else ()) for number in reversed(range(10_000))
    ]

    wiring = validated(specs)

    assert order_of(wiring) == [f"s{number}" for number in range(10_000)]


@pytest.mark.spec("20.15.1")
def test_hundred_layers_of_a_hundred() -> None:
    specs = [
        spec(
            f"s{layer}.{number}", [f"s{layer - 1}.{other}" for other in range(100)] if layer else ()
        )
        for layer in range(100)
        for number in range(100)
    ]

    wiring = validated(specs)

    assert wiring.topological_order == tuple(range(10_000))
    assert len(wiring.dependents[0]) == 100


@pytest.mark.spec("20.15.1")
def test_ring_of_ten_thousand_is_found_without_recursion() -> None:
    specs = [spec(f"s{number}", f"s{(number + 1) % 10_000}") for number in range(10_000)]

    with pytest.raises(ValueError, match="cycle: s0 -> s1 -> "):
        validated(specs)


@pytest.mark.spec("20.15.2")
def test_stream_deadlock_is_searched_only_where_both_kinds_of_edges_meet() -> None:
    # With a traversal per stage, the chain of streams alone would take minutes.
    specs = [
        spec(f"s{number}", stream_from=f"s{number - 1}" if number else ())
        for number in range(10_000)
    ]

    validated([*specs, spec("dep"), spec("both", "dep", stream_from="s9999")])
