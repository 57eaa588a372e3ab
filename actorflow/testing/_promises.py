"""How a suite says which promise is not kept."""

from __future__ import annotations


def expect(promise: str, found: object, expected: object) -> None:
    """Raise an `AssertionError` that names the promise unless both are equal."""
    if found != expected:
        raise AssertionError(f"{promise}: expected {expected!r}, found {found!r}")
