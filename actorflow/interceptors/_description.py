"""What a value looks like at this moment, to be compared with what it looks like later. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Any, Final

import attrs

_DEEPEST: Final = 200
_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


def described(value: object, _depth: int = 0) -> Any:
    """`value` as dicts, lists and texts that share nothing with it.

    Objects are described by their fields, and by their `repr` if they have none.
    """
    if type(value) in _LEAVES:
        return value
    if _depth >= _DEEPEST:
        return repr(value)
    deeper = _depth + 1
    if isinstance(value, Mapping):
        return {str(key): described(item, deeper) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [described(item, deeper) for item in value]
    if isinstance(value, AbstractSet):
        return sorted(map(repr, value))
    fields = _fields_of(value)
    if fields is None:
        return repr(value)
    return {name: described(item, deeper) for name, item in fields.items()}


def _fields_of(value: Any) -> dict[str, Any] | None:
    if attrs.has(type(value)):
        names = [field.name for field in attrs.fields(type(value))]
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        own: dict[str, Any] | None = getattr(value, "__dict__", None)
        return own
    return {name: getattr(value, name, None) for name in names}


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """JSON pointers of what differs between two descriptions."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before | after:
            below = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in before and key in after:
                yield from differences(before[key], after[key], below)
            else:
                yield below
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{path}/{index}")
    # By their texts, because a NaN differs from itself and 1 does not differ from True.
    elif repr(before) != repr(after):
        yield path
