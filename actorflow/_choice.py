"""Enums whose values people write by hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Never

from actorflow.errors import InvalidArgumentError


class Choice(StrEnum):
    """Subclass it for an enum that tells its values to who asked for another one."""

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise InvalidArgumentError(cls.__name__, value, "one of " + ", ".join(cls))
