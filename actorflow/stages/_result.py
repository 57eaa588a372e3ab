"""How the supervisor saw the call of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self, TypeAlias, final, get_args
from uuid import UUID

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.model import FrozenDict, StageKind, StageOutput, StageStatus, freeze

ResultStatus: TypeAlias = Literal["started", "completed", "failed", "skipped", "canceled"]
SkippedBy: TypeAlias = Literal["stage", "conditional", "when", "dependency", "failure"]

_NOTHING: Final = FrozenDict()
_STATUSES: Final = get_args(ResultStatus)

_STATUS_OF: Final[Mapping[StageStatus, ResultStatus]] = {
    StageStatus.OK: "completed",
    StageStatus.SKIP: "skipped",
    StageStatus.CANCEL: "canceled",
    StageStatus.FAIL: "failed",
    # A RETRY that is still there at the end is one that nobody retried.
    StageStatus.RETRY: "failed",
}


def _check_status(_: object, __: object, value: str) -> None:
    if value not in _STATUSES:
        raise InvalidArgumentError("status", value, "one of " + ", ".join(_STATUSES))


@final
@attrs.frozen
class StageResult:
    """The outcome of one supervised call: what the stage returned, and how it went."""

    name: str
    status: ResultStatus = attrs.field(validator=_check_status)
    started_at: datetime
    ended_at: datetime
    data: Mapping[str, Any] = attrs.field(default=_NOTHING, converter=freeze)
    error: str | None = None
    kind: StageKind | None = attrs.field(default=None, kw_only=True)
    attempt: int = attrs.field(default=1, kw_only=True)
    """How often the supervisor has run the stage; a guard retry adds one."""
    tries: int = attrs.field(default=1, kw_only=True)
    """How often it was executed inside this call."""
    error_type: str | None = attrs.field(default=None, kw_only=True)
    output: StageOutput | None = attrs.field(default=None, kw_only=True)
    skipped_by: SkippedBy | None = attrs.field(default=None, kw_only=True)
    """Which rule skipped the stage; `stage` is its own decision."""
    timed_out: bool = attrs.field(default=False, kw_only=True)
    short_circuited_by: str | None = attrs.field(default=None, kw_only=True)
    """The interceptor that answered instead of the stage."""
    replayed: bool = attrs.field(default=False, kw_only=True)
    original_run_id: UUID | None = attrs.field(default=None, kw_only=True)
    """The run whose result this is, if it was replayed."""
    streams: Mapping[str, Any] = attrs.field(default=_NOTHING, converter=freeze, kw_only=True)
    warnings: tuple[str, ...] = attrs.field(default=(), converter=tuple, kw_only=True)
    """What went wrong beside the stage: in an interceptor."""
    duration_ms: float = attrs.field(kw_only=True)
    """By the monotonic clock; without that, the distance of the two wall times."""

    @duration_ms.default
    def _wall_duration(self) -> float:
        return (self.ended_at - self.started_at) / timedelta(milliseconds=1)

    @staticmethod
    def status_of(output: StageOutput) -> ResultStatus:
        """How a call ended that gave `output`."""
        return _STATUS_OF[output.status]

    @classmethod
    def from_output(
        cls,
        name: str,
        output: StageOutput | None,
        *,
        started_at: datetime,
        ended_at: datetime,
        **more: Any,
    ) -> Self:
        """The result of a call that gave `output`; None if the call was interrupted."""
        if output is None:
            return cls(name, "canceled", started_at, ended_at, **more)
        known = {"output": output, "error_type": output.error_type}
        if output.status is StageStatus.SKIP:
            known["skipped_by"] = "stage"
        return cls(
            name,
            cls.status_of(output),
            started_at,
            ended_at,
            output.data,
            output.error,
            **(known | more),
        )
