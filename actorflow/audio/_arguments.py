"""Refusing settings and measures that nobody could work with."""

from __future__ import annotations

import math

from actorflow.errors import InvalidAudioError


def check_count(name: str, value: object, *, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
      InvalidAudioError: naming the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidAudioError(name, value, f"a whole number of at least {least}")


def check_milliseconds(name: str, value: float, *, is_zero_fine: bool) -> None:
    """Refuse what is not a finite time.

    Raises:
      InvalidAudioError: naming the argument.
    """
    if not (value >= 0 if is_zero_fine else value > 0) or math.isinf(value):
        least = "not below 0" if is_zero_fine else "above 0"
        raise InvalidAudioError(name, value, f"a number of milliseconds, {least}")
