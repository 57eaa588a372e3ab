"""What kind of work a stage does, and how a call of it ended."""

from __future__ import annotations

from typing import final

from actorflow._choice import Choice


@final
class StageKind(Choice):
    """What a stage is for."""

    TRANSFORM = "transform"
    ENRICH = "enrich"
    ROUTE = "route"
    GUARD = "guard"
    WORK = "work"
    AGENT = "agent"


@final
class StageStatus(Choice):
    """What a stage says about its own call."""

    OK = "ok"
    SKIP = "skip"
    CANCEL = "cancel"
    FAIL = "fail"
    RETRY = "retry"
