"""What a stage can say about a pipeline that it was put into."""

from __future__ import annotations

from typing import Any, final

import attrs

from actorflow._choice import Choice


@final
class IssueSeverity(Choice):
    """How much an issue matters; only errors make a pipeline invalid."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


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
