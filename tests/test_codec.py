from __future__ import annotations

import base64
import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence, Set as AbstractSet
from datetime import datetime, timedelta, timezone
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import cattrs
import pytest
from hypothesis import given, strategies as st

from actorflow.codec import JsonConverter, join_path, make_converter
from actorflow.errors import InvalidArgumentError, InvalidTypeError, WireFormatError

UID = UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
CET = timezone(timedelta(hours=1))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Corner(Enum):
    ORIGIN = (0, 0)


class Point(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Inner:
    label: str
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    uid: UUID | None = None
    others: tuple[Inner, ...] = ()


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def to_dict(self) -> dict[str, Any]:
        return {"degrees": self.degrees, "at": NOON}


converter = make_converter()


# Writing


@pytest.mark.spec("10.1.7")
@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("text", "text"),
        (UID, "12345678-1234-5678-1234-567812345678"),
        (NOON, "2024-05-01T12:00:00+00:00"),
        (NOON.astimezone(CET), "2024-05-01T12:00:00+00:00"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Corner.ORIGIN, [0, 0]),
        (b"\x00\xff", "AP8="),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        ({3, 10, 2}, [2, 3, 10]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"a", 1, None}, ["a", 1, None]),
        ({"z": 1, "a": [{"m": UID}]}, {"z": 1, "a": [{"m": str(UID)}]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Inner("x"), {"label": "x", "size": 0}),
        (
            Outer(Inner("x", 1), UID),
            {"inner": {"label": "x", "size": 1}, "uid": str(UID), "others": []},
        ),
        (Celsius(3), {"degrees": 3, "at": "2024-05-01T12:00:00+00:00"}),
        ([Celsius(3)], [{"degrees": 3, "at": "2024-05-01T12:00:00+00:00"}]),
    ],
)
def test_values_are_written_as_json(value: object, written: object) -> None:
    result = converter.unstructure(value)

    assert result == written
    assert type(result) is type(written)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.spec("10.1.7")
def test_keys_of_objects_are_in_field_order() -> None:
    assert list(converter.unstructure(Outer(Inner("x")))) == ["inner", "uid", "others"]
    assert list(converter.unstructure({"b": 1, "a": 2})) == ["b", "a"]


@attrs.frozen
class Node:
    name: str
    children: tuple[Node, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        written: dict[str, Any] = converter.unstructure(self)
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Node:
        return converter.structure(data, cls)


@pytest.mark.spec("10.1.7", "10.1.8")
def test_to_dict_and_from_dict_may_be_calls_of_the_converter() -> None:
    tree = Node("a", (Node("b", (Node("c"),)), Node("d")))

    assert tree.to_dict() == {
        "name": "a",
        "children": [
            {"name": "b", "children": [{"name": "c", "children": []}]},
            {"name": "d", "children": []},
        ],
    }
    assert Node.from_dict(tree.to_dict()) == tree


def test_what_is_written_is_new() -> None:
    value: dict[str, Any] = {"a": [1]}

    written = converter.unstructure(value)

    assert written is not value
    assert written["a"] is not value["a"]


@pytest.mark.spec("10.1.9")
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ""),
        ([1, object()], "[1]"),
        ({"frames": [0, 1, 2, object()]}, "frames[3]"),
        ({"odd key": {"it's": object()}}, """['odd key']["it's"]"""),
        (Outer(Inner(object())), "inner.label"),  # type: ignore[arg-type]
        (Outer(Inner("x"), others=(Inner("y"), Inner(object()))), "others[1].label"),  # type: ignore[arg-type]
        (Node("x", (Node({"a": object()}),)), "children[0].name.a"),  # type: ignore[arg-type]
        ({"file": PurePosixPath("/tmp")}, "file"),
        ({"when": datetime(2024, 1, 1)}, "when"),  # noqa: DTZ001
        ({"when": datetime(1, 1, 1, tzinfo=CET)}, "when"),
        ({"a": {1: 2}}, "a"),
        ({"type": Inner}, "type"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.unstructure(value)

    assert refused.value.path == path
    assert (path or "the value") in str(refused.value)


@pytest.mark.spec("10.1.9")
def test_default_is_written_instead() -> None:
    value = {"a": [PurePosixPath("/tmp")], "node": Node(PurePosixPath("x"))}  # type: ignore[arg-type]

    written = converter.unstructure(value, default=str)

    assert written == {"a": ["/tmp"], "node": {"name": "x", "children": []}}


def test_what_default_gives_is_written_like_anything_else() -> None:
    assert converter.unstructure([object()], default=lambda _: {"at": NOON}) == [
        {"at": "2024-05-01T12:00:00+00:00"}
    ]


def test_default_ends_with_its_call() -> None:
    converter.unstructure(object(), default=str)
    with pytest.raises(ZeroDivisionError):
        converter.unstructure(object(), default=lambda _: 1 / 0)

    with pytest.raises(WireFormatError):
        converter.unstructure(object())


def test_what_contains_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append({"ring": ring})

    with pytest.raises(WireFormatError, match="contain itself"):
        converter.unstructure(ring)


# Reading


@attrs.frozen
class Everything:
    text: str
    number: float
    count: int
    flag: bool
    uid: UUID
    at: datetime
    data: bytes
    colour: Colour
    level: Level
    corner: Corner
    inner: Inner
    maybe: Outer | None
    free: Any
    items: list[Inner]
    pair: tuple[int, str]
    row: tuple[int, ...]
    sequence: Sequence[str]
    labels: set[str]
    frozen: frozenset[int]
    some: AbstractSet[int]
    table: dict[str, Inner]
    view: Mapping[str, int]
    bare: list  # type: ignore[type-arg]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
times = st.datetimes(timezones=st.just(timezone.utc))
inners = st.builds(Inner, st.text(), st.integers())
outers = st.builds(Outer, inners, st.none() | st.uuids(), st.lists(inners, max_size=2).map(tuple))
everything = st.builds(
    Everything,
    text=st.text(),
    number=st.floats(allow_nan=False),
    count=st.integers(),
    flag=st.booleans(),
    uid=st.uuids(),
    at=times,
    data=st.binary(),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(Level),
    corner=st.just(Corner.ORIGIN),
    inner=inners,
    maybe=st.none() | outers,
    free=json_values,
    items=st.lists(inners, max_size=2),
    pair=st.tuples(st.integers(), st.text()),
    row=st.lists(st.integers(), max_size=3).map(tuple),
    sequence=st.lists(st.text(), max_size=3).map(tuple),
    labels=st.sets(st.text(), max_size=3),
    frozen=st.frozensets(st.integers(), max_size=3),
    some=st.frozensets(st.integers(), max_size=3),
    table=st.dictionaries(st.text(), inners, max_size=2),
    view=st.dictionaries(st.text(), st.integers(), max_size=2),
    bare=st.lists(json_values, max_size=2),
)

lenient_about_corner = make_converter(
    lambda conv: conv.register_structure_hook(Corner, lambda data, cls: cls(tuple(data)))
)


@pytest.mark.spec("10.1.8")
@given(everything)
def test_what_was_written_is_read_back(value: Everything) -> None:
    data = json.loads(json.dumps(lenient_about_corner.unstructure(value)))

    assert lenient_about_corner.structure(data, Everything) == value
    assert lenient_about_corner.structure(data, Everything, strict=True) == value


def test_objects_are_read_as_they_are_too() -> None:
    assert converter.structure(UID, UUID) is UID
    assert converter.structure(b"x", bytes) == b"x"
    assert converter.structure(NOON.astimezone(CET), datetime).tzinfo is timezone.utc
    assert converter.structure(3, float) == 3.0
    assert converter.structure("2024-05-01T13:00:00+01:00", datetime) == NOON


@pytest.mark.parametrize(
    ("data", "type_"),
    [
        (5, str),
        ("5", int),
        (True, int),
        (1.0, int),
        ("5", float),
        (True, float),
        (1, bool),
        ("nonsense", UUID),
        (5, UUID),
        ([], UUID),
        ("yesterday", datetime),
        ("2024-05-01T12:00:00", datetime),
        (datetime(2024, 5, 1), datetime),  # noqa: DTZ001
        (1714564800, datetime),
        ("0001-01-01T00:00:00+01:00", datetime),
        ("a", bytes),
        (5, bytes),
        ("abc", tuple[str, ...]),
        ({"a": 1}, list[str]),
        ("abc", list),
        (5, Inner),
        ([], dict[str, int]),
        ("blue", Colour),
    ],
)
def test_the_wrong_type_is_refused(data: object, type_: Any) -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.structure(data, type_)

    assert (refused.value.path, refused.value.found) == ("", data)


GOOD: dict[str, Any] = {
    "inner": {"label": "x"},
    "uid": str(UID),
    "others": [{"label": "y", "size": 1}],
}


@pytest.mark.parametrize(
    ("change", "path", "found", "expected"),
    [
        ({"inner": 5}, "inner", 5, "a mapping of the fields of Inner"),
        ({"inner": {"label": 5}}, "inner.label", 5, "a string"),
        ({"inner": {}}, "inner.label", attrs.NOTHING, "given"),
        ({"uid": "x"}, "uid", "x", "a UUID"),
        ({"others": [{"label": "y"}, {"label": None}]}, "others[1].label", None, "a string"),
        ({"others": [{"label": "y"}, {}]}, "others[1].label", attrs.NOTHING, "given"),
    ],
)
def test_what_does_not_fit_is_located(
    change: dict[str, Any], path: str, found: object, expected: str
) -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.structure(GOOD | change, Outer)

    error = refused.value
    assert (error.path, error.found, error.expected) == (path, found, expected)
    assert str(error).startswith(f"{path} must be {expected}, found ")


def test_places_in_mappings_are_located_by_key() -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.structure({"a": {"b c": "x"}}, dict[str, dict[str, int]])

    assert refused.value.path == "a['b c']"


@pytest.mark.spec("10.1.10")
def test_unknown_keys_are_ignored_unless_strict() -> None:
    data = {"inner": {"label": "x", "z": 1, "y": 2}}

    assert converter.structure(data, Outer) == Outer(Inner("x"))
    with pytest.raises(WireFormatError) as refused:
        converter.structure(data, Outer, strict=True)

    assert (refused.value.path, refused.value.found) == ("inner", ["y", "z"])
    assert "['y', 'z']" in str(refused.value)


@attrs.frozen
class Positive:
    number: int = attrs.field()

    @number.validator
    def _check(self, _: object, value: int) -> None:
        if value == 0:
            raise InvalidArgumentError("number", value, "above 0")
        if value == -1:
            raise InvalidTypeError("number.sign", value, "above 0")
        if value < 0:
            raise ValueError("negative")


@attrs.frozen
class Holder:
    positive: Positive


@pytest.mark.parametrize(
    ("number", "path", "found", "expected"),
    [
        (0, "positive.number", 0, "above 0"),
        (-1, "positive.number.sign", -1, "above 0"),
        (-2, "positive", {"number": -2}, "readable (ValueError: negative)"),
    ],
)
def test_what_a_constructor_refuses_is_located(
    number: int, path: str, found: object, expected: str
) -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.structure({"positive": {"number": number}}, Holder)

    error = refused.value
    assert (error.path, error.found, error.expected) == (path, found, expected)


class Amount:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def to_dict(self) -> dict[str, int]:
        return {"cents": self.cents}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Amount:
        return cls(data["cents"])


@attrs.frozen
class Bill:
    amount: Amount


def test_types_that_read_themselves_are_asked() -> None:
    bill = converter.structure({"amount": {"cents": 5}}, Bill)

    assert converter.unstructure(bill) == {"amount": {"cents": 5}}


def test_what_a_type_cannot_read_is_located() -> None:
    with pytest.raises(WireFormatError) as refused:
        converter.structure({"amount": {"euros": 5}}, Bill)

    assert refused.value.path == "amount"
    assert refused.value.expected == "readable (KeyError: 'cents')"


def test_hooks_of_a_package_win() -> None:
    def hooks(conv: cattrs.Converter) -> None:
        conv.register_unstructure_hook(Inner, lambda inner: inner.label)
        conv.register_structure_hook(Inner, lambda data, _: Inner(data))

    special = make_converter(hooks)

    assert special.unstructure(Outer(Inner("x")))["inner"] == "x"
    assert special.structure({"inner": "x"}, Outer, strict=True) == Outer(Inner("x"))
    assert converter.unstructure(Inner("x")) == {"label": "x", "size": 0}


def test_a_converter_can_be_configured_later() -> None:
    late = JsonConverter()
    assert late.structure(late.unstructure(Inner("x")), Inner) == Inner("x")

    late.configure(lambda conv: conv.register_unstructure_hook(Inner, lambda _: "later"))
    late.configure(lambda conv: conv.register_structure_hook(Inner, lambda *_: Inner("later")))

    assert late.unstructure([Inner("x")]) == ["later"]
    assert late.unstructure(Inner("x")) == "later"
    assert late.structure("anything", Inner) == Inner("later")


def test_subclasses_of_json_types_are_written_as_json() -> None:
    counted = collections.Counter("aab")

    assert converter.unstructure(counted) == {"a": 2, "b": 1}
    assert type(converter.unstructure(counted)) is dict


@given(st.binary())
def test_bytes_are_base64(data: bytes) -> None:
    assert base64.b64decode(converter.unstructure(data)) == data


@pytest.mark.parametrize(
    ("step", "rest", "path"),
    [
        ("data", "", "data"),
        ("data", "frames", "data.frames"),
        ("data", "[3]", "data[3]"),
        (3, "x", "[3].x"),
        ("a b", "c", "['a b'].c"),
    ],
)
def test_paths_read_like_python(step: str | int, rest: str, path: str) -> None:
    assert join_path(step, rest) == path
