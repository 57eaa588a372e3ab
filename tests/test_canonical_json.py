from __future__ import annotations

import hashlib
import hmac
import json
import math
import random
import struct
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import example, given, strategies as st

from actorflow.codec import canonical_json, checksum, parse_json
from actorflow.errors import CanonicalizationError, TrackingError

LARGEST = 2**53 - 1

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.spec("K4")
def test_the_example_of_the_rfc() -> None:
    source = r"""
      {
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
      }"""
    expected = (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )

    assert canonical_json(json.loads(source)) == expected.encode()


@pytest.mark.spec("K4")
def test_keys_are_sorted_by_utf16_as_in_the_rfc() -> None:
    names = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }

    assert list(json.loads(canonical_json({"nested": [names]}))["nested"][0].values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


@pytest.mark.spec("K4")
@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_of_the_rfc(bits: str, expected: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical_json(number) == expected.encode()


def ecmascript(number: float) -> str:
    """Number::toString as the standard words it, searching for its n, k and s."""
    if number == 0:
        return "0"
    if number < 0:
        return "-" + ecmascript(-number)
    scientific = next(text for k in range(17) if float(text := f"{number:.{k}e}") == number)
    mantissa, exponent = scientific.split("e")
    s, n = mantissa.replace(".", ""), int(exponent) + 1
    k = len(s)
    if k <= n <= 21:
        return s + "0" * (n - k)
    if 0 < n <= 21:
        return s[:n] + "." + s[n:]
    if -6 < n <= 0:
        return "0." + "0" * -n + s
    sign = "+" if n > 0 else "-"
    return (s if k == 1 else f"{s[0]}.{s[1:]}") + f"e{sign}{abs(n - 1)}"


def random_number(dice: random.Random) -> float:
    match dice.randrange(3):
        case 0:
            (number,) = struct.unpack(">d", dice.randbytes(8))
            return number if math.isfinite(number) else 0.0
        case 1:
            return dice.uniform(-1, 1) * 10.0 ** dice.randint(-12, 25)
        case _:
            return round(dice.uniform(-1e6, 1e6), 3)


@pytest.mark.spec("K6")
def test_a_hundred_thousand_numbers_are_written_as_ecmascript_does() -> None:
    dice = random.Random(8785)
    numbers = [random_number(dice) for _ in range(100_000)]

    written = canonical_json(numbers).decode().strip("[]").split(",")

    assert written == [ecmascript(number) for number in numbers]


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(item, dice) for item in value]
    if isinstance(value, dict):
        keys = list(value)
        dice.shuffle(keys)
        return {key: shuffled(value[key], dice) for key in keys}
    return value


@pytest.mark.spec("K5")
@given(json_values, st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_matter(value: object, dice: random.Random) -> None:
    assert canonical_json(shuffled(value, dice)) == canonical_json(value)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in `value` with each of its keys or indexes."""
    keys = range(len(value)) if isinstance(value, list) else value
    if not isinstance(value, (list, dict)):
        return []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@pytest.mark.spec("K5")
@given(st.lists(json_values, min_size=1), json_values, st.data())
def test_any_change_of_a_nested_value_changes_the_bytes(
    value: list[Any], other: object, data: st.DataObject
) -> None:
    before = canonical_json(value)
    container, key = data.draw(st.sampled_from(places(value)))
    is_change = canonical_json(container[key]) != canonical_json(other)

    container[key] = other

    assert (canonical_json(value) != before) is is_change


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Pair(Enum):
    ONE = (1, "x")


@attrs.frozen
class Inner:
    z: int
    a: tuple[int, ...]


@dataclass
class Plain:
    inner: Inner


@attrs.frozen
class Own:
    x: int

    def to_dict(self) -> dict[str, int]:
        return {"written": self.x}


@pytest.mark.spec("K6")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (datetime(2024, 5, 1, tzinfo=timezone.utc), '"2024-05-01T00:00:00+00:00"'),
        (Colour.RED, '"red"'),
        ({Colour.RED: Level.HIGH}, '{"red":3}'),
        (Pair.ONE, '[1,"x"]'),
        (b"\x00", '"AA=="'),
        ((1, 2.0), "[1,2]"),
        (Inner(1, (2,)), '{"a":[2],"z":1}'),
        (Plain(Inner(1, ())), '{"inner":{"a":[],"z":1}}'),
        (Own(1), '{"written":1}'),
        ([LARGEST, -LARGEST, True], f"[{LARGEST},-{LARGEST},true]"),
        ("e\u0301 \u00e9 \x7f \u2028", '"e\u0301 \u00e9 \x7f \u2028"'),
    ],
)
def test_values_are_taken_as_the_codec_writes_them(value: object, expected: str) -> None:
    assert canonical_json(value) == expected.encode()


@pytest.mark.spec("K6")
@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (math.nan, ""),
        ({"a": [1, math.inf]}, "/a/1"),
        ({"a": -math.inf}, "/a"),
        ({"big": LARGEST + 1}, "/big"),
        ({"big": -LARGEST - 1}, "/big"),
        ({"a/b": {"~": "\ud800"}}, "/a~1b/~0"),
        ({"\ud800": 1}, "/\ud800"),
        ({"a": {1: 2}}, "/a"),
        ([{1, 2}], "/0"),
        (Inner(1, frozenset({1})), "/a"),  # type: ignore[arg-type]
        ([object()], "/0"),
        ([Inner], "/0"),
        ([datetime(2024, 5, 1)], "/0"),  # noqa: DTZ001
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_pointer(value: object, pointer: str) -> None:
    with pytest.raises(CanonicalizationError) as refused:
        canonical_json(value)

    assert refused.value.pointer == pointer
    assert isinstance(refused.value, TrackingError)
    assert (pointer or "the value") in str(refused.value)
    assert "as a string" in refused.value.fix_hint


@pytest.mark.spec("K6")
def test_what_contains_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append(ring)

    with pytest.raises(CanonicalizationError):
        canonical_json(ring)


@pytest.mark.spec("K6")
def test_absent_and_null_differ() -> None:
    assert canonical_json({"a": None}) != canonical_json({})


@pytest.mark.spec("K6")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "b": {"x": 1, "y": 2, "x": 1}}', "x"),
        ("[NaN]", "NaN"),
        ("1e999", "1e999"),
        (f"[{LARGEST + 2}]", LARGEST + 2),
        ("1" * 400, "1" * 400),
        ("-Infinity", "-Infinity"),
        ("{", "{"),
        (b"\xff", b"\xff"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_ambiguous_text_is_not_parsed(text: str | bytes, found: object) -> None:
    with pytest.raises(CanonicalizationError) as refused:
        parse_json(text)

    assert refused.value.found == found


@pytest.mark.spec("K6")
def test_a_key_that_comes_twice_among_many_is_found_at_once() -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))

    with pytest.raises(CanonicalizationError) as refused:
        parse_json(f'{{{keys}, "last": 1, "last": 2}}')

    assert refused.value.found == "last"


@pytest.mark.spec("K6")
@given(json_values)
@example(1e17)
@example([-0.0, 9007199254740992.0])
def test_what_was_written_is_parsed_and_written_the_same_again(value: object) -> None:
    data = canonical_json(value)

    assert parse_json(data) == value
    assert canonical_json(parse_json(data)) == data


@pytest.mark.spec("K7")
@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (
            {"amount": 1200, "currency": "EUR"},
            "cc4d9f720c2753fb36eb4c6fc4d5b44d9ea4845d71cf1fbfe2cd4da669f98555",
        ),
        ({"ok": True}, "4062edaf750fb8074e7e83e0c9028c94e32468a8b6f1614774328ef045150f93"),
        (None, "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"),
    ],
)
def test_checksums_are_what_they_have_always_been(value: object, digest: str) -> None:
    assert checksum(value) == digest


@pytest.mark.spec("K7")
@given(json_values, st.binary())
def test_checksums_are_of_the_canonical_json(value: object, key: bytes) -> None:
    data = canonical_json(value)

    assert checksum(value) == hashlib.sha256(data).hexdigest()
    assert checksum(value, key=key) == hmac.new(key, data, "sha256").hexdigest()
