from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from actorflow.pipeline._components import components


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"s{i}" for i in range(draw(st.integers(0, 9)))]
    some = st.lists(st.sampled_from(names), max_size=4) if names else st.just([])
    return {name: draw(some) for name in names}


def reach(edges: dict[str, list[str]], start: str) -> set[str]:
    """Everything that can be reached in one step or more."""
    found: set[str] = set()
    todo = list(edges[start])
    while todo:
        stage = todo.pop()
        if stage not in found:
            found.add(stage)
            todo.extend(edges[stage])
    return found


@pytest.mark.spec("20.13.6")
@settings(max_examples=200)
@given(graphs())
def test_a_group_is_what_reaches_each_other(edges: dict[str, list[str]]) -> None:
    reached = {stage: reach(edges, stage) | {stage} for stage in edges}

    groups = components(edges)

    assert sorted(stage for group in groups for stage in group) == sorted(edges)
    for group in groups:
        for stage in group:
            mutual = {other for other in reached[stage] if stage in reached[other]}
            assert mutual == set(group)


@given(graphs())
def test_groups_come_after_what_they_need(edges: dict[str, list[str]]) -> None:
    seen: set[str] = set()
    for group in components(edges):
        seen.update(group)
        assert all(set(edges[stage]) <= seen for stage in group)
    assert seen == edges.keys()


def test_ring_of_ten_thousand_is_one_group() -> None:
    size = 10_000
    edges = {f"s{i}": [f"s{(i + 1) % size}"] for i in range(size)}

    (group,) = components(edges)

    assert len(group) == size
