"""Canonical JSON: equal values have equal bytes, and so equal checksums (RFC 8785)."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, Never
from uuid import UUID

from actorflow.errors import CanonicalizationError, WireFormatError

from ._convert import field_names, has_fields, make_converter, writes_itself


def canonical_json(value: object) -> bytes:
    """The one way to write `value` as JSON, so that equal values have equal bytes.

    Takes JSON, UUIDs, times, enum members, bytes, tuples, and attrs and
    dataclass objects. Nothing is rounded or guessed: what JSON has no exact
    place for is refused.

    Raises:
      CanonicalizationError: with the JSON pointer of what is refused.
    """
    try:
        return _canonical(value).encode()
    except RecursionError:
        raise CanonicalizationError("", value, "nested less deeply") from None


def checksum(value: object, *, key: bytes | None = None) -> str:
    """SHA-256 of the canonical JSON of `value` in hex; with a `key` the HMAC."""
    data = canonical_json(value)
    if key is None:
        return hashlib.sha256(data).hexdigest()
    return hmac.digest(key, data, "sha256").hex()


def parse_json(text: str | bytes) -> Any:
    """What `text` says, if every reader reads the same in it.

    `json.loads` takes the last of several equal keys, numbers that JSON does
    not have, and integers that other readers would round.

    Raises:
      CanonicalizationError: if it is no JSON, or could be read in two ways.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_int=_exact_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except CanonicalizationError:
        raise
    except ValueError as error:
        raise CanonicalizationError("", text, f"JSON ({error})") from None
    except RecursionError:
        raise CanonicalizationError("", text, "nested less deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise CanonicalizationError("", twice, "an object with each key once")
    return parsed


def _exact_integer(text: str) -> int | float:
    number = int(text)
    if abs(number) <= _LARGEST_INTEGER:
        return number
    # Canonical JSON writes 1e17 as an integer, and that is read as what it was.
    double = _finite(text)
    return double if _canonical_number(double) == text else _too_large(number)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise CanonicalizationError("", text, "a finite number")
    return number


_LARGEST_INTEGER: Final = 2**53 - 1

# UUIDs, times and bytes are written here as they are everywhere else.
_plain: Final = make_converter()


def _canonical(value: Any) -> str:
    if isinstance(value, Enum):
        return _canonical(value.value)
    if isinstance(value, str):
        return _canonical_text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _canonical_integer(value)
    if isinstance(value, float):
        return _canonical_number(value)
    if isinstance(value, Mapping):
        return _canonical_object(value)
    if isinstance(value, (list, tuple)):
        return _canonical_array(value)
    if isinstance(value, (UUID, datetime, bytes)):
        return _canonical_scalar(value)
    if not has_fields(type(value)):
        raise CanonicalizationError("", value, "something that JSON has a place for")
    if writes_itself(type(value)):
        return _canonical(value.to_dict())
    return _canonical_object({name: getattr(value, name) for name in field_names(type(value))})


def _canonical_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CanonicalizationError("", text, "text without lone surrogates") from None
    return json.dumps(text, ensure_ascii=False)


def _canonical_integer(number: int) -> str:
    return str(int(number)) if abs(number) <= _LARGEST_INTEGER else _too_large(number)


def _too_large(number: int) -> Never:
    raise CanonicalizationError("", number, "an integer of at most 53 bits")


def _canonical_number(number: float) -> str:
    """What ECMAScript's Number::toString gives.

    Python finds the same shortest digits, but places the point by other rules.
    """
    if not math.isfinite(number):
        raise CanonicalizationError("", number, "a finite number")
    if number == 0:
        return "0"
    text = float.__repr__(number)
    if "e" not in text:
        return text.removesuffix(".0")
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    digits = mantissa.replace(".", "")
    # Number of digits before the point; Python has one there.
    before = int(exponent) + 1
    if 0 < before <= 21:
        return sign + digits.ljust(before, "0")
    if -6 < before <= 0:
        return f"{sign}0.{'0' * -before}{digits}"
    point = "." if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{point}{digits[1:]}e{before - 1:+d}"


def _canonical_object(value: Mapping[Any, Any]) -> str:
    written = []
    for key in sorted(value, key=_utf16):
        try:
            written.append(f"{_canonical_text(key)}:{_canonical(value[key])}")
        except CanonicalizationError as error:
            step = key.replace("~", "~0").replace("/", "~1")
            error.pointer = f"/{step}{error.pointer}"
            raise
    return "{" + ",".join(written) + "}"


def _utf16(key: Any) -> bytes:
    if not isinstance(key, str):
        raise CanonicalizationError("", key, "an object whose keys are strings")
    # Big-endian, so that bytes compare like code units. What cannot be encoded
    # is refused when it is written.
    return key.encode("utf-16-be", "surrogatepass")


def _canonical_array(value: Sequence[Any]) -> str:
    written: list[str] = []
    try:
        for item in value:
            written.append(_canonical(item))  # noqa: PERF401
    except CanonicalizationError as error:
        # As many as were written stand before the one that could not be.
        error.pointer = f"/{len(written)}{error.pointer}"
        raise
    return "[" + ",".join(written) + "]"


def _canonical_scalar(value: UUID | datetime | bytes) -> str:
    try:
        return _canonical_text(_plain.unstructure(value))
    except WireFormatError as error:
        raise CanonicalizationError("", value, error.expected) from None
