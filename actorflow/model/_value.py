"""What all values of this package have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

import attrs

from actorflow.codec import JsonConverter
from actorflow.errors import InvalidArgumentError, InvalidTypeError

T = TypeVar("T")


class Value:
    """Can be written as JSON and read back, as `_wire` says."""

    __slots__ = ()

    converter: ClassVar[JsonConverter]

    def to_dict(self, *, default: Callable[[Any], object] | None = None) -> dict[str, Any]:
        """The fields as JSON, in field order.

        Raises:
          WireFormatError: if something in here is not JSON and `default`, which
            would turn it into JSON, is not given. It has the path.
        """
        written: dict[str, Any] = self.converter.unstructure(self, default=default)
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, strict: bool = False) -> Self:
        """The value that `data` describes, which `to_dict` may have written.

        Unknown keys are ignored unless `strict`.

        Raises:
          WireFormatError: with the path of what does not fit.
        """
        return cls.converter.structure(data, cls, strict=strict)


# Converters of fields


def as_utc(value: datetime, field: attrs.Attribute[Any]) -> datetime:
    """Converts a field that holds a point in time."""
    if not isinstance(value, datetime):
        raise InvalidTypeError(field.name, value, "a datetime")
    if value.tzinfo is timezone.utc:
        return value
    if value.utcoffset() is None:
        raise InvalidArgumentError(field.name, value, "a datetime with a time zone")
    return value.astimezone(timezone.utc)


def as_optional_utc(value: datetime | None, field: attrs.Attribute[Any]) -> datetime | None:
    """Converts a field that may hold a point in time."""
    return None if value is None else as_utc(value, field)


def as_uuid(value: UUID | str | None, field: attrs.Attribute[Any]) -> UUID | None:
    """Converts a field that may hold an id."""
    if value is None or isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise InvalidTypeError(field.name, value, "a UUID, its text or None")
    try:
        return UUID(value)
    except ValueError:
        raise InvalidArgumentError(field.name, value, "a UUID, its text or None") from None


def as_texts(value: Any, field: attrs.Attribute[Any]) -> tuple[str, ...]:
    """Converts a field that holds several texts."""
    return items_of(value, str, field.name)


def items_of(value: Any, kind: type[T], name: str) -> tuple[T, ...]:
    """`value` as a tuple, if it is a list or tuple of nothing but `kind`."""
    if value == ():
        return ()
    if not isinstance(value, (list, tuple)):
        raise InvalidTypeError(name, value, f"a list or tuple of {kind.__name__}")
    for index, item in enumerate(value):
        if not isinstance(item, kind):
            raise InvalidTypeError(f"{name}[{index}]", item, f"a {kind.__name__}")
    return tuple(value)
