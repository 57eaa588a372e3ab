"""Does a payload keep what the catalogue promises about its event?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)

from ._catalogue import CATALOGUE, is_reserved
from ._spec import Rounded, described, is_required, keys_of

# What a bound sink adds. All of it or nothing: a component that emits into a
# plain sink supplies only its own keys.
STAMPS: Final = frozenset({"pipeline_run_id", "request_id", "execution_mode", "seq", "timestamp"})

_KNOWN_ANYWHERE: Final[Mapping[str, Any]] = {
    "pipeline_run_id": NotRequired[str | None],
    "request_id": NotRequired[str | None],
    "execution_mode": NotRequired[str | None],
    "seq": NotRequired[int],
    "timestamp": NotRequired[str],
    "topology": NotRequired[str | None],
    "service": NotRequired[str | None],
    "stage": NotRequired[str | None],
}

# A check yields a sentence for everything it does not like about the value at a path.
Check = Callable[[str, object], Iterator[str]]


def validate_event(type: str, data: Mapping[str, Any] | None) -> list[str]:
    """Say what is wrong with a payload, one sentence each; an empty list means it is fine.

    An event that is not in the catalogue may carry whatever JSON can hold, unless
    its name looks like one of actorflow's own.
    """
    payload = data or {}
    if is_reserved(type):
        return [f"there is no {type}, and its first part belongs to actorflow"]
    if type not in CATALOGUE:
        return list(_json("", payload))
    return [*_stamping(payload), *_check_for(type)("", payload)]


def _stamping(payload: Mapping[str, Any]) -> Iterator[str]:
    # `stage.wide` brings ids of its own, so a number is what tells a stamped payload.
    if "seq" in payload:
        for key in sorted(STAMPS - payload.keys()):
            yield f"{key} is missing beside seq"


@cache
def _check_for(type: str) -> Check:
    return _object({**_KNOWN_ANYWHERE, **keys_of(CATALOGUE[type].payload)})


def _check(annotation: Any) -> Check:
    """Turn the annotation of a key into the check of its value."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is NotRequired:
        return _check(arguments[0])
    if origin is Annotated:
        decimals = [mark.decimals for mark in arguments[1:] if isinstance(mark, Rounded)]
        return _rounded(decimals[0]) if decimals else _check(arguments[0])
    if origin is Literal:
        return _one_of(arguments)
    if origin in (Union, UnionType):
        (something,) = (choice for choice in arguments if choice is not NoneType)
        return _or_null(_check(something))
    if origin is list:
        return _list(_check(arguments[0]))
    if origin is dict:
        return _mapping(_check(arguments[1]))
    if is_typeddict(annotation):
        return _object(keys_of(annotation))
    return _json if annotation is Any else _scalar(annotation)


def _object(keys: Mapping[str, Any]) -> Check:
    required = {key for key, annotation in keys.items() if is_required(annotation)}
    checks = {key: _check(annotation) for key, annotation in keys.items()}

    def check(path: str, value: object) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object, found {value!r}"
            return
        for key in sorted(required - value.keys()):
            yield f"{_join(path, key)} is missing"
        for key, item in value.items():
            if key in checks:
                yield from checks[key](_join(path, key), item)
            else:
                yield f"{_join(path, key)} is not a key of this event"

    return check


def _mapping(check_item: Check) -> Check:
    def check(path: str, value: object) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object, found {value!r}"
            return
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path or 'payload'} has the key {key!r}, which is not a string"
            yield from check_item(_join(path, key), item)

    return check


def _list(check_item: Check) -> Check:
    def check(path: str, value: object) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} must be a list, found {value!r}"
            return
        for position, item in enumerate(value):
            yield from check_item(f"{path}[{position}]", item)

    return check


def _or_null(check_item: Check) -> Check:
    def check(path: str, value: object) -> Iterator[str]:
        if value is not None:
            yield from check_item(path, value)

    return check


def _one_of(allowed: tuple[object, ...]) -> Check:
    def check(path: str, value: object) -> Iterator[str]:
        # By class too, because True == 1.
        if not any(value == item and value.__class__ is item.__class__ for item in allowed):
            yield f"{path} must be one of {', '.join(map(repr, allowed))}, found {value!r}"

    return check


def _rounded(decimals: int) -> Check:
    is_float = _scalar(float)

    def check(path: str, value: object) -> Iterator[str]:
        yield from is_float(path, value)
        if isinstance(value, float) and round(value, decimals) != value:
            yield f"{path} must be rounded to {decimals} decimals, found {value!r}"

    return check


def _scalar(kind: type) -> Check:
    def check(path: str, value: object) -> Iterator[str]:
        # A bool is no number, and a float may be written without its point.
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            yield f"{path} must be {described(kind)}, found {value!r}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{path} must be a finite number, found {value!r}"

    return check


def _json(path: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _mapping(_json)(path, value)
    elif isinstance(value, list):
        yield from _list(_json)(path, value)
    elif isinstance(value, float):
        yield from _scalar(float)(path, value)
    elif not isinstance(value, str | int | NoneType):
        yield f"{path} must be a JSON value, found {value!r}"


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
