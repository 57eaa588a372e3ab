"""Refusing arguments that nobody could work with."""

from __future__ import annotations

from uuid import UUID

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


def as_id(argument: str, value: object) -> UUID | None:
    """Return what `value` identifies, if anything.

    Raises:
      InvalidTypeError: if `value` is neither a UUID, nor a string, nor None.
      InvalidArgumentError: if it is a string, but not a UUID's.
    """
    if value is None or isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise InvalidTypeError(argument, value, "a UUID, its text or None")
    try:
        return UUID(value)
    except ValueError:
        raise InvalidArgumentError(argument, value, "a UUID, its text or None") from None
