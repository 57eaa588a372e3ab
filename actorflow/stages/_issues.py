"""What a stage can say about a pipeline that it was put into."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Never, final

import attrs

from actorflow.errors import InvalidArgumentError


@final
class IssueSeverity(StrEnum):
    """How much an issue matters; only errors make a pipeline invalid."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise InvalidArgumentError("severity", value, "one of " + ", ".join(cls))


@final
@attrs.frozen
class DependencyIssue:
    """Something about the wiring of a stage that somebody should look at.

    The `lint` method of a stage returns these.
    """

    stage_name: str
    message: str
    severity: IssueSeverity = attrs.field(converter=IssueSeverity)
    accessed_stage: str | None = None
    suggestion: str | None = None
    line_number: int | None = None
    code: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON."""
        return attrs.asdict(self, value_serializer=lambda *it: it[2])
