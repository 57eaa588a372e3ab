"""How an event is described: a name, the keys of its payload, how it is delivered.

A payload class is a `TypedDict`: what an emitter writes is the JSON object
itself, checked by mypy and by nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import NoneType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    final,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs

Payload = TypeVar("Payload")

# `type` is the name of an event in the classes below.
PayloadClass = type[Any]


class Delivery(Enum):
    """What happens when a sink has no room."""

    WAIT = "A"
    """`await emit`: waits for room and is never dropped for lack of it."""

    TRY = "T"
    """`try_emit`: never waits; the sink counts and reports what it refused."""


@final
@attrs.frozen
class Rounded:
    """Marks a float that is written with at most this many decimals."""

    decimals: int


Millis = Annotated[float, Rounded(3)]
"""A duration in milliseconds."""


@final
@attrs.frozen
class PayloadKey:
    """One key of a payload."""

    name: str
    type: str
    """For readers: `str or null`, `list of StageSummary`."""
    required: bool
    note: str


@final
@attrs.frozen
class EventSpec:
    """One row of the catalogue."""

    type: str
    payload: PayloadClass
    """A `TypedDict`: the keys an emitter supplies, without those a bound sink adds."""
    delivery: Delivery

    @property
    def doc(self) -> str:
        """When the event is emitted."""
        return " ".join((self.payload.__doc__ or "").split())

    @property
    def keys(self) -> tuple[PayloadKey, ...]:
        """The keys an emitter supplies, in the order they are written down."""
        return payload_keys(self.payload)


declared: dict[str, EventSpec] = {}


def event(name: str, delivery: Delivery) -> Callable[[type[Payload]], type[Payload]]:
    """Declare that events called `name` carry the decorated payload."""

    def declare(payload: type[Payload]) -> type[Payload]:
        assert name not in declared, name
        declared[name] = EventSpec(name, payload, delivery)
        return payload

    return declare


def keys_of(payload: PayloadClass) -> dict[str, Any]:
    """The annotation of each key of a `TypedDict`, `NotRequired` and `Annotated` included.

    The class itself cannot be asked which keys are required: its annotations
    are strings until somebody resolves them, and it looks before that.
    """
    return get_type_hints(payload, include_extras=True)


def payload_keys(payload: PayloadClass) -> tuple[PayloadKey, ...]:
    """The keys of a payload class, or of a part of one, in the order they are written down."""
    return tuple(
        PayloadKey(
            name, described(annotation), is_required(annotation), "; ".join(_notes(annotation))
        )
        for name, annotation in keys_of(payload).items()
    )


def is_required(annotation: Any) -> bool:
    return get_origin(annotation) is not NotRequired


def _notes(annotation: Any) -> list[str]:
    if get_origin(annotation) is NotRequired:
        return _notes(get_args(annotation)[0])
    if get_origin(annotation) is Annotated:
        return [note for note in get_args(annotation)[1:] if isinstance(note, str)]
    return []


def described(annotation: Any) -> str:
    """Write an annotation the way documentation and complaints show it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, NotRequired):
        return described(arguments[0])
    if origin is Literal:
        return " or ".join(
            f'"{value}"' if isinstance(value, str) else repr(value).lower() for value in arguments
        )
    if origin is list:
        return f"list of {described(arguments[0])}"
    if origin is dict:
        return f"object of {described(arguments[1])}"
    if arguments:
        return " or ".join(map(described, arguments))
    if annotation is NoneType:
        return "null"
    return "JSON" if annotation is Any else str(annotation.__name__)
