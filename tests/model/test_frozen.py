from __future__ import annotations

import copy
import json
import pickle
import sys
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.errors import FrozenValueError, InvalidArgumentError, InvalidTypeError
from actorflow.model import FrozenDict, FrozenList, freeze, thaw

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
containers = st.lists(json_values, max_size=4) | st.dictionaries(st.text(), json_values, max_size=4)


class Point(NamedTuple):
    x: int
    y: list[int]


# What freezing makes


@pytest.mark.spec("10.1.2")
def test_containers_become_frozen_at_every_depth() -> None:
    frozen = freeze({"list": [1, (2, [3])], "dict": {"set": {4}}, "tuple": ()})

    assert type(frozen) is FrozenDict
    assert type(frozen["list"]) is type(frozen["tuple"]) is FrozenList
    assert type(frozen["list"][1]) is type(frozen["list"][1][1]) is FrozenList
    assert type(frozen["dict"]) is FrozenDict
    assert type(frozen["dict"]["set"]) is frozenset
    assert frozen == {"list": [1, [2, [3]]], "dict": {"set": {4}}, "tuple": []}


@pytest.mark.spec("10.1.2")
@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        b"bytes",
        object(),
        bytearray(b"x"),
        Point(1, [2]),
        frozenset({1}),
        UserDict(a=[]),
        ChainMap({"a": 1}),
        MagicMock(),
        range(3),
    ],
)
def test_other_objects_stay_the_same_object(value: object) -> None:
    assert freeze(value) is value
    assert freeze([value])[0] is value
    assert freeze({"a": value})["a"] is value


@pytest.mark.spec("10.1.2")
@pytest.mark.parametrize("kind", [OrderedDict, MappingProxyType, FrozenDict])
def test_every_kind_of_dict_becomes_the_same(kind: Callable[[Any], Any]) -> None:
    frozen = freeze([kind({"a": [1]})])[0]

    assert type(frozen) is FrozenDict
    assert type(frozen["a"]) is FrozenList


@pytest.mark.spec("10.1.2")
def test_constructors_freeze_what_they_are_given() -> None:
    assert type(FrozenDict({"a": [1]}, b={})["a"]) is FrozenList
    assert type(FrozenDict([("a", [1])])["a"]) is FrozenList
    assert type(FrozenList([{"a": 1}])[0]) is FrozenDict
    assert FrozenDict() == {}
    assert FrozenList() == []


@pytest.mark.spec("10.1.3")
@given(containers)
def test_later_changes_of_what_was_passed_in_are_not_seen(value: Any) -> None:
    before = copy.deepcopy(value)

    frozen = freeze(value)
    for each in [value, *reachable(value)]:
        each.clear()

    assert frozen == before


def reachable(value: Any) -> list[Any]:
    """All dicts and lists inside of `value`."""
    items = value.values() if isinstance(value, dict) else value
    inside = [item for item in items if isinstance(item, (dict, list))]
    return [*inside, *(each for item in inside for each in reachable(item))]


# Frozen dicts


CHANGES: list[Callable[[Any], object]] = [
    lambda d: d.__setitem__("a", 2),
    lambda d: d.__setitem__("new", 2),
    lambda d: d.__delitem__("a"),
    lambda d: d.__ior__({"a": 2}),
    lambda d: d.clear(),
    lambda d: d.pop("a"),
    lambda d: d.pop("missing", None),
    lambda d: d.popitem(),
    lambda d: d.setdefault("a", 2),
    lambda d: d.setdefault("new", 2),
    lambda d: d.update(a=2),
    lambda d: d.update({"a": 2}),
    lambda d: setattr(d, "name", 2),
    lambda d: setattr(d, "_nesting", 0),
    lambda d: delattr(d, "_nesting"),
]


@pytest.mark.spec("10.1.4")
@pytest.mark.parametrize("change", CHANGES)
def test_dicts_refuse_to_be_changed(change: Callable[[Any], object]) -> None:
    frozen = FrozenDict(a=1)

    with pytest.raises(FrozenValueError) as refused:
        change(frozen)

    assert frozen == {"a": 1}
    assert "thaw(" in refused.value.fix_hint
    assert refused.value.code == "MODEL-001-FROZEN"
    assert refused.value.operation in str(refused.value)
    assert isinstance(refused.value, TypeError)


@pytest.mark.spec("10.1.4")
def test_the_list_of_changes_is_complete() -> None:
    changing = set(dir(dict)) - set(dir(MappingProxyType)) - {"fromkeys"}

    # What is left besides has nothing to do with content.
    assert changing - {"__getattribute__", "__setattr__", "__delattr__"} == {
        "__setitem__",
        "__delitem__",
        "clear",
        "pop",
        "popitem",
        "setdefault",
        "update",
    }
    assert all(getattr(FrozenDict, name) is not getattr(dict, name) for name in changing)
    assert FrozenDict.__ior__ is not dict.__ior__


@pytest.mark.spec("10.1.4")
def test_a_dict_cannot_be_filled_again() -> None:
    frozen = FrozenDict(a=1)

    frozen.__init__(b=2)

    assert frozen == {"a": 1}


@pytest.mark.spec("10.1.4")
def test_a_frozen_dict_reads_like_a_dict() -> None:
    frozen = FrozenDict(a=1, b=[2])

    assert isinstance(frozen, dict)
    assert frozen == {"a": 1, "b": [2]}
    assert {"a": 1, "b": [2]} == frozen  # noqa: SIM300 - either side may be frozen
    assert frozen != {"a": 1}
    assert dict(**frozen) == frozen
    assert list(frozen) == ["a", "b"]
    assert frozen.get("c", 3) == 3
    assert json.dumps(frozen) == '{"a": 1, "b": [2]}'
    assert repr(FrozenDict(a=1)) == "{'a': 1}"


@pytest.mark.spec("10.1.4")
def test_the_union_with_a_frozen_dict_is_a_plain_one() -> None:
    for union in (FrozenDict(a=1) | {"b": 2}, {"a": 1} | FrozenDict(b=2)):
        assert union == {"a": 1, "b": 2}
        assert type(union) is dict
    assert type(FrozenDict(a=1).copy()) is dict


# Frozen lists


@pytest.mark.spec("10.1.5")
@given(st.lists(json_values), st.lists(json_values))
def test_a_frozen_list_equals_lists_and_tuples_of_equal_items(
    value: list[Any], other: list[Any]
) -> None:
    frozen = FrozenList(value)

    assert isinstance(frozen, tuple)
    assert frozen == value
    assert value == frozen
    assert frozen == tuple(value)
    assert tuple(value) == frozen
    assert (frozen == other) is (other == frozen) is (value == other)
    assert (frozen != other) is (other != frozen) is (value != other)
    assert json.dumps(frozen) == json.dumps(value)


def test_a_frozen_list_equals_nothing_else() -> None:
    assert FrozenList([1]) != {1}
    assert FrozenList() != ""


@pytest.mark.spec("10.1.5")
@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.__setitem__(0, 2),
        lambda items: items.append(2),
        lambda items: setattr(items, "name", 2),
        lambda items: setattr(items, "_nesting", 0),
        lambda items: delattr(items, "_nesting"),
    ],
)
def test_lists_refuse_to_be_changed(change: Callable[[Any], object]) -> None:
    frozen = FrozenList([1, [2]])

    with pytest.raises((AttributeError, TypeError)):
        change(frozen)

    assert frozen == [1, [2]]


def test_frozen_values_can_be_keys() -> None:
    assert hash(freeze({"a": [1], "b": {}})) == hash(freeze({"b": {}, "a": (1,)}))
    assert hash(FrozenList([1])) == hash((1,))
    with pytest.raises(TypeError):
        hash(freeze({"a": bytearray()}))


# Again and back


@pytest.mark.spec("10.1.6")
@given(containers)
def test_what_is_frozen_stays_the_same_object(value: Any) -> None:
    frozen = freeze(value)

    assert freeze(frozen) is frozen
    assert freeze([frozen])[0] is frozen
    assert freeze({"a": frozen})["a"] is frozen


def calls(function: Callable[[], object]) -> int:
    """How many Python and C functions a call of `function` calls."""
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.spec("10.1.6")
def test_freezing_again_takes_constant_time() -> None:
    small, large = freeze([[1]]), freeze([[1]] * 10_000)

    assert calls(lambda: freeze(large)) == calls(lambda: freeze(small))
    assert calls(lambda: freeze({"a": large})) == calls(lambda: freeze({"a": small}))


@pytest.mark.spec("10.20.1")
@pytest.mark.parametrize("function", [freeze, lambda value: thaw(freeze(value))])
def test_freezing_and_thawing_are_linear(function: Callable[[Any], Any]) -> None:
    def wide(size: int) -> list[Any]:
        return [{"a": [n]} for n in range(size)]

    assert calls(lambda: function(wide(2_000))) <= 2.1 * calls(lambda: function(wide(1_000)))


@pytest.mark.spec("10.20.1")
def test_what_is_shared_is_frozen_once() -> None:
    value: Any = []
    for _ in range(150):
        # As a tree this would have 2**150 leaves.
        value = [value, value]

    frozen = freeze({"a": value})["a"]

    assert frozen[0] is frozen[1]


def test_containers_made_on_the_fly_are_not_mixed_up() -> None:
    class Fleeting(list[Any]):
        def __iter__(self) -> Any:
            # Each item is gone before the next is made, and the next often
            # gets its address.
            return ([n] for n in range(100))

    assert freeze(Fleeting()) == [[n] for n in range(100)]


@pytest.mark.spec("10.1.6")
@given(containers)
def test_thawed_values_are_plain_and_independent(value: Any) -> None:
    frozen = freeze(value)

    thawed = thaw(frozen)

    assert thawed == value
    for each in [thawed, *reachable(thawed)]:
        assert type(each) in (dict, list)
        each.clear()
    assert frozen == value


@pytest.mark.spec("10.1.6")
def test_sets_are_thawed_too_and_records_stay() -> None:
    point = Point(1, [2])

    thawed = thaw(freeze({"set": {1}, "point": point}))

    assert type(thawed["set"]) is set
    assert thawed["point"] is point


@given(containers)
def test_frozen_values_can_be_pickled_and_copied(value: Any) -> None:
    frozen = freeze(value)

    for clone in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy(frozen), copy.copy(frozen)):
        assert clone == frozen
        assert type(clone) is type(frozen)
        assert freeze({"a": clone})["a"] is clone


@attrs.define
class Mutable:
    items: list[int]


def test_deep_copies_have_objects_of_their_own() -> None:
    frozen = freeze({"a": [Mutable([1])]})

    copy.deepcopy(frozen)["a"][0].items.append(2)

    assert frozen["a"][0] == Mutable([1])


# What cannot be frozen


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_two_hundred_levels_are_fine() -> None:
    value = nested(200)

    frozen = freeze(value)

    assert frozen == value
    assert thaw(frozen) == value
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert copy.deepcopy(frozen) == frozen
    assert json.loads(json.dumps(frozen)) == value


@pytest.mark.spec("10.1.2")
@pytest.mark.parametrize(
    "value",
    [
        {"a": nested(200)},
        {"a": freeze(nested(200))},
        [{"b": freeze({"c": nested(199)})}],
        nested(100_000),
    ],
)
def test_more_levels_are_refused_with_the_path(value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        freeze(value)

    # Up to the container that is too much.
    steps = refused.value.argument.removeprefix("value").replace(".", "[").count("[")
    assert 1 <= steps <= 200
    assert "at most 200 levels" in str(refused.value)


def test_depth_counts_across_what_is_shared() -> None:
    shared = nested(150)
    deep: list[Any] = [shared]
    for _ in range(60):
        deep = [deep]

    with pytest.raises(InvalidArgumentError, match="200 levels"):
        freeze([shared, deep])


@pytest.mark.parametrize("levels", [2, 5])
def test_frozen_values_cannot_grow_beyond_the_limit_step_by_step(levels: int) -> None:
    def grow() -> None:
        value: Any = freeze([])
        for _ in range(500):
            value = freeze([value]) if levels == 2 else freeze({"a": [[{"b": value}]]})

    with pytest.raises(InvalidArgumentError, match="200 levels"):
        grow()


RING: dict[str, Any] = {"a": [1]}
RING["a"].append({"b": RING})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (RING, "value.a[1].b"),
        ({"x": RING["a"]}, "value.x[1].b.a"),
    ],
)
def test_containers_that_contain_themselves_are_refused_with_the_path(
    value: Any, path: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="contain itself") as refused:
        freeze(value)

    assert refused.value.argument == path


@pytest.mark.parametrize("key", [1, None, (1, 2), b"a"])
def test_keys_that_are_no_strings_are_refused_with_the_path(key: object) -> None:
    with pytest.raises(InvalidTypeError) as refused:
        freeze({"list": [0, {"odd key": {key: 1}}]})

    assert refused.value.argument == "value.list[1]['odd key']"
    assert refused.value.found is key
