"""What kind of work a stage does, and how a call of it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Never, final

from actorflow.errors import InvalidArgumentError


class _Choice(StrEnum):
    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise InvalidArgumentError(cls.__name__, value, "one of " + ", ".join(cls))


@final
class StageKind(_Choice):
    """What a stage is for."""

    TRANSFORM = "transform"
    ENRICH = "enrich"
    ROUTE = "route"
    GUARD = "guard"
    WORK = "work"
    AGENT = "agent"


@final
class StageStatus(_Choice):
    """What a stage says about its own call."""

    OK = "ok"
    SKIP = "skip"
    CANCEL = "cancel"
    FAIL = "fail"
    RETRY = "retry"
