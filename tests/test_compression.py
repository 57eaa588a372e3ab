from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.compression import CompressionMetrics, apply_delta, compress, compute_delta
from actorflow.errors import InvalidDeltaError, WireFormatError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
# Few keys and values, so that mappings have something in common.
keys = st.sampled_from(["a", "b", "c", "d"])
values = st.sampled_from([0, False, 0.0, 1, True, "x", [1], [True], {"k": 1}, {"k": 1.0}])
mappings = st.dictionaries(keys, values | json_values)


@pytest.mark.spec("G56")
def test_a_delta_sets_what_is_new_or_changed_and_removes_the_rest() -> None:
    base = {"same": 1, "changed": 1, "z": 0, "gone": 0}
    current = {"new": 1, "same": 1, "changed": 2}

    assert compute_delta(base, current) == {
        "set": {"new": 1, "changed": 2},
        "remove": ["z", "gone"],
    }
    assert compute_delta({}, {"a": 1}) == {"set": {"a": 1}}
    assert compute_delta({"a": 1}, {}) == {"remove": ["a"]}


@pytest.mark.spec("G56")
@given(mappings)
def test_equal_mappings_have_an_empty_delta(mapping: dict[str, Any]) -> None:
    assert compute_delta(mapping, copy.deepcopy(mapping)) == {}


class Level(IntEnum):
    ONE = 1


class Incomparable:
    def __ne__(self, other: object) -> bool:
        raise RuntimeError


class Vague:
    """Compares item by item, like an array; this one has no items."""

    def __ne__(self, other: object) -> Any:
        return []


RING: list[object] = []
RING.append(RING)


@pytest.mark.spec("G57")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        (1, True),
        (1, 1.0),
        (False, 0),
        (0.0, -0.0),
        ([1], [True]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1.0}]}),
        ({"a": (0,)}, {"a": (False,)}),
        ({1: "x"}, {True: "x"}),
        (1, Decimal(1)),
        (Decimal(1), 1),
        (Incomparable(), Incomparable()),
        (Vague(), Vague()),
        (RING, RING),
        (float("nan"), float("nan")),
    ],
)
def test_what_is_written_differently_has_changed(before: object, after: object) -> None:
    delta = compute_delta({"key": before}, {"key": after})

    assert list(delta) == ["set"]
    assert delta["set"]["key"] is after


@pytest.mark.spec("G57")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 1),
        (Level.ONE, 1),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "x"}, {1: "x"}),
        ([1, "x", None], [1, "x", None]),
        (frozenset({1}), frozenset({1})),
    ],
)
def test_what_is_written_alike_has_not(before: object, after: object) -> None:
    assert compute_delta({"key": before}, {"key": after}) == {}


@pytest.mark.spec("G58")
def test_a_nested_change_replaces_the_whole_value() -> None:
    base = {"nested": {"a": 1, "b": [1, 2, 3]}, "other": {"c": 1}}
    current = {"nested": {"a": 1, "b": [1, 2, 4]}, "other": {"c": 1}}

    assert compute_delta(base, current) == {"set": {"nested": {"a": 1, "b": [1, 2, 4]}}}


@pytest.mark.spec("G59")
def test_applying_removes_and_sets_and_changes_neither_argument() -> None:
    base = {"a": 1, "b": 2}
    delta = {"remove": ["b", "missing"], "set": {"a": 3, "c": 4}}
    before = copy.deepcopy((base, delta))

    current = apply_delta(base, delta)

    assert current == {"a": 3, "c": 4}
    assert (base, delta) == before
    assert apply_delta(base, {}) == base
    assert apply_delta(base, {}) is not base
    assert type(apply_delta(MappingProxyType(base), {})) is dict


@pytest.mark.spec("G59")
def test_a_key_that_is_removed_and_set_is_set() -> None:
    assert apply_delta({"a": 1}, {"set": {"a": 2}, "remove": ["a"]}) == {"a": 2}


@pytest.mark.spec("G60")
@given(mappings, mappings)
def test_the_delta_of_two_mappings_turns_one_into_the_other(
    base: dict[str, Any], current: dict[str, Any]
) -> None:
    delta = compute_delta(base, current)

    assert apply_delta(base, delta) == current
    restored = apply_delta(base, json.loads(json.dumps(delta)))
    # As text, because 1 == True.
    assert json.dumps(restored, sort_keys=True) == json.dumps(current, sort_keys=True)


@pytest.mark.spec("G60")
@given(
    st.dictionaries(st.text(), st.binary() | st.tuples(st.integers()) | st.uuids()),
    st.dictionaries(st.text(), st.binary() | st.tuples(st.integers()) | st.uuids()),
)
def test_values_need_not_be_json(base: dict[str, Any], current: dict[str, Any]) -> None:
    assert apply_delta(base, compute_delta(base, current)) == current


@attrs.frozen
class Thing:
    def __str__(self) -> str:
        return "thing"


@pytest.mark.spec("G61")
@pytest.mark.parametrize(
    ("current", "text"),
    [
        ({"a": "é€😀"}, '{"a": "é€😀"}'),
        ({"a": Thing(), "b": [Thing()]}, '{"a": "thing", "b": ["thing"]}'),
        ({"a": {"b": (1, Thing())}}, '{"a": {"b": [1, "thing"]}}'),
        ({"a": {(1, 2): Thing()}}, '{"a": {"(1, 2)": "thing"}}'),
        ({"a": [{Thing(): {1: None}}]}, '{"a": [{"thing": {"1": null}}]}'),
        ({"a": {1: True, None: 2}}, '{"a": {"1": true, "null": 2}}'),
    ],
)
def test_sizes_are_those_of_the_json(current: dict[str, Any], text: str) -> None:
    delta, metrics = compress({}, current)

    assert metrics.original_bytes == len(text.encode())
    assert metrics.delta_bytes == len(f'{{"set": {text}}}'.encode())
    assert delta["set"]["a"] is current["a"]


@pytest.mark.spec("G61")
def test_text_that_is_no_unicode_has_a_size_too() -> None:
    assert compress({}, {"a": "\ud800"})[1].original_bytes == len('{"a": ""}') + 3


@pytest.mark.spec("G62")
def test_metrics_say_what_was_saved() -> None:
    metrics = CompressionMetrics(200, 50, 1.5)

    assert metrics.reduction_bytes == 150
    assert metrics.ratio == metrics.compression_ratio == 0.25
    assert metrics.to_dict() == {
        "original_bytes": 200,
        "delta_bytes": 50,
        "reduction_bytes": 150,
        "ratio": 0.25,
        "compression_ratio": 0.25,
        "duration_ms": 1.5,
    }
    assert CompressionMetrics(50, 200).reduction_bytes == 0
    assert CompressionMetrics(0, 2).ratio == 1.0
    with pytest.raises(AttributeError):
        metrics.delta_bytes = 1  # type: ignore[misc]


@pytest.mark.spec("G62")
async def test_duration_is_the_time_it_took(mock_clock: MockClock) -> None:
    class Slow(str):
        __slots__ = ()

        def __ne__(self, other: object) -> bool:
            mock_clock.jump(0.25)
            return super().__ne__(other)

        __hash__ = str.__hash__

    _, metrics = compress({"a": Slow("x")}, {"a": "x"})

    assert metrics.duration_ms == pytest.approx(250)
    await trio.lowlevel.checkpoint()


@pytest.mark.spec("G63")
@given(st.integers(20, 60), st.randoms(use_true_random=False))
def test_a_fifth_changed_is_less_than_two_fifths_of_the_size(size: int, dice: Any) -> None:
    base = {f"key{n:03}": "x" * 100 for n in range(size)}
    changed = dice.sample(sorted(base), size // 5)

    _, metrics = compress(base, base | dict.fromkeys(changed, "y" * 100))

    assert 0 < metrics.ratio <= 0.4


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda: compute_delta([], {}), "base"),  # type: ignore[arg-type]
        (lambda: compute_delta({}, None), "current"),  # type: ignore[arg-type]
        (lambda: compress({}, 5), "current"),  # type: ignore[arg-type]
        (lambda: apply_delta([], {}), "base"),  # type: ignore[arg-type]
        (lambda: apply_delta({}, []), "delta"),  # type: ignore[arg-type]
        (lambda: apply_delta({}, {"unset": {}}), "delta"),
        (lambda: apply_delta({}, {"set": []}), "delta.set"),
        (lambda: apply_delta({}, {"remove": "ab"}), "delta.remove"),
        (lambda: apply_delta({}, {"remove": ["a", 1]}), "delta.remove"),
        (lambda: apply_delta({}, {"remove": {"a": 1}}), "delta.remove"),
    ],
)
def test_wrong_forms_are_refused(call: Any, path: str) -> None:
    with pytest.raises(InvalidDeltaError) as refused:
        call()

    assert refused.value.path == path
    assert refused.value.code == "DELTA-001-INVALID"
    assert isinstance(refused.value, WireFormatError)
    assert path in str(refused.value)


def test_any_mapping_has_a_delta() -> None:
    base: Mapping[str, int] = MappingProxyType({"a": 1})

    assert compute_delta(base, MappingProxyType({"a": 2})) == {"set": {"a": 2}}
    assert clock.monotonic() > 0
