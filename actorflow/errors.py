"""Every exception actorflow raises: one tree, one page.

Each class has a stable `code`, typed fields and a `fix_hint`. `str(error)` is
one sentence: what was attempted and what was found. What to do about it and
where to read on are notes of the exception, so a traceback shows them too.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Final

import attrs

DOC_BASE_URL: Final = "https://actorflow.readthedocs.io/en/latest/reference"


@attrs.define(slots=False, eq=False)
class ActorflowError(Exception):
    """What everything that actorflow raises on purpose has in common."""

    code: ClassVar[str] = "ACTORFLOW-000"
    fix_hint: ClassVar[str] = ""

    @property
    def doc_url(self) -> str:
        """Where the documentation explains this code."""
        return f"{DOC_BASE_URL}/errors#{self.code.lower()}"

    # Made when somebody looks (a traceback, `add_note`), because some of these
    # errors are answers on a hot path and most of them are caught. mypy takes a
    # cached_property for read-only; it is not, and `add_note` relies on that.
    @cached_property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        fix = [f"fix: {self.fix_hint}"] if self.fix_hint else []
        return [*fix, f"see: {self.doc_url}"]


# Arguments


@attrs.define(slots=False, eq=False)
class InvalidArgumentError(ActorflowError, ValueError):
    """An argument has the right type and an impossible value."""

    argument: str
    found: object
    expected: str

    code: ClassVar[str] = "ARG-001-VALUE"
    fix_hint: ClassVar[str] = "Pass one of the values the message allows."

    def __str__(self) -> str:
        return f"{self.argument} must be {self.expected}, found {self.found!r}"


@attrs.define(slots=False, eq=False)
class InvalidTypeError(ActorflowError, TypeError):
    """An argument has a type nobody can work with."""

    argument: str
    found: object
    expected: str

    code: ClassVar[str] = "ARG-002-TYPE"
    fix_hint: ClassVar[str] = "Pass a value of the type the message names."

    def __str__(self) -> str:
        kind = type(self.found).__name__
        return f"{self.argument} must be {self.expected}, found {kind}: {self.found!r}"


@attrs.define(slots=False, eq=False)
class MissingExtraError(ActorflowError, ImportError):
    """A feature needs a package that the extra named here would bring."""

    feature: str
    extra: str

    code: ClassVar[str] = "ARG-003-EXTRA"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the extra is part of the hint.
        return f"pip install 'actorflow[{self.extra}]'"

    def __str__(self) -> str:
        return f"{self.feature} needs packages that are not installed"
