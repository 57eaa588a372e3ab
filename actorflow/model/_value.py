"""What all values of this package have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import attrs

from actorflow.codec import make_converter
from actorflow.errors import InvalidArgumentError, InvalidTypeError

T = TypeVar("T")


# The package fills it from `_wire`, which has to know all values first.
converter: Final = make_converter()


class Value:
    """Can be written as JSON and read back, as `_wire` says."""

    __slots__ = ()

    def to_dict(self, *, default: Callable[[Any], object] | None = None) -> dict[str, Any]:
        """The fields as JSON, in field order.

        Raises:
          WireFormatError: if something in here is not JSON and `default`, which
            would turn it into JSON, is not given. It has the path.
        """
        written: dict[str, Any] = converter.unstructure(self, default=default)
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, strict: bool = False) -> Self:
        """The value that `data` describes, which `to_dict` may have written.

        Unknown keys are ignored unless `strict`.

        Raises:
          WireFormatError: with the path of what does not fit.
        """
        return converter.structure(data, cls, strict=strict)


# Converters and validators of fields


def as_uuid(value: UUID | str | None) -> UUID | None:
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            # `require_uuid` knows the name of the field and says so.
            return value  # type: ignore[return-value]
    return value


def require_uuid(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None or isinstance(value, UUID):
        return
    refusal = InvalidArgumentError if isinstance(value, str) else InvalidTypeError
    raise refusal(field.name, value, "a UUID, the text of one or None")


def require(kind: type) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """A validator of fields that hold a `kind`."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise InvalidTypeError(field.name, value, f"a {kind.__name__}")

    return check


def as_created_at(value: datetime) -> datetime:
    return as_utc("created_at", value)


def as_timestamp(value: datetime) -> datetime:
    return as_utc("timestamp", value)


def as_utc(name: str, value: datetime) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidTypeError(name, value, "a datetime")
    if value.tzinfo is timezone.utc:
        return value
    # The first and the last day have hours that UTC has no year for.
    with suppress(OverflowError):
        if value.utcoffset() is not None:
            return value.astimezone(timezone.utc)
    raise InvalidArgumentError(name, value, "a datetime with a time zone")


def items_of(name: str, kind: type[T], value: Iterable[T]) -> tuple[T, ...]:
    """`value` as a tuple, if it is a list or tuple of nothing but `kind`."""
    if not isinstance(value, (list, tuple)):
        raise InvalidTypeError(name, value, f"a list or tuple of {kind.__name__}")
    for index, item in enumerate(value):
        if not isinstance(item, kind):
            raise InvalidTypeError(f"{name}[{index}]", item, f"a {kind.__name__}")
    return tuple(value)
