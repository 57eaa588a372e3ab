"""Refusing arguments that nobody could work with."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError


def check_name(argument: str, value: object) -> None:
    """Refuse what could not be the name of a stage or of a value.

    Raises:
      InvalidTypeError: if `value` is not a string.
      InvalidArgumentError: if it is empty.
    """
    if not isinstance(value, str):
        raise InvalidTypeError(argument, value, "a string")
    if not value:
        raise InvalidArgumentError(argument, value, "a name of at least one character")


def as_id(value: UUID | str | None, field: attrs.Attribute[Any]) -> UUID | None:
    """Converts a field that may hold an id."""
    if value is None or isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise InvalidTypeError(field.name, value, "a UUID, its text or None")
    try:
        return UUID(value)
    except ValueError:
        raise InvalidArgumentError(field.name, value, "a UUID, its text or None") from None
