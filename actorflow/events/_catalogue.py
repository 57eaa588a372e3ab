"""Every event actorflow emits, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Importing the payloads declares them.
from . import _payloads as _payloads
from ._spec import EventSpec, declared

CATALOGUE: Final[Mapping[str, EventSpec]] = MappingProxyType(declared)
"""The description of each event, by its type."""

FAMILIES: Final = frozenset(type.partition(".")[0] for type in CATALOGUE)
"""First parts of names that belong to actorflow: `pipeline`, `stage`, ..."""


def is_reserved(type: str) -> bool:
    """Whether a name looks like one of actorflow's events and is none."""
    family, dot, _ = type.partition(".")
    return bool(dot) and family in FAMILIES and type not in CATALOGUE
