"""How a run ended, as one value that raises nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final
from uuid import UUID

import attrs

from actorflow.model import FrozenDict, thaw

if TYPE_CHECKING:
    from actorflow.model import StageOutput

    from ._results import FailureRecord


@final
@attrs.frozen
class RunResult:
    """The end of a run of `PipelineRunner`, with everything that was done until then.

    A run that was cancelled did what it was asked to: `success` is true, and
    `cancelled` tells it from one that was left alone.
    """

    success: bool
    stages: Mapping[str, Mapping[str, Any]] = attrs.field(factory=FrozenDict)
    """The data of each stage that returned something, by its name."""
    duration_ms: float = 0.0
    error: str | None = None
    error_type: str | None = None
    """The class of what went wrong first."""
    cancelled: bool = False
    cancel_reason: str | None = None
    events: Sequence[Mapping[str, Any]] = attrs.field(default=(), repr=False)
    """What was captured: `{"type", "data", "timestamp", "elapsed_ms"}`, oldest first."""
    pipeline_run_id: UUID | None = None
    results: Mapping[str, StageOutput] | None = attrs.field(default=None, kw_only=True, repr=False)
    """The whole outputs, also of a run that failed or was cancelled."""
    failures: Sequence[FailureRecord] = attrs.field(default=(), kw_only=True, repr=False)
    """Every failure, in order."""
    not_run: Sequence[str] = attrs.field(default=(), kw_only=True)
    """Stages that were never reached."""
    warnings: Sequence[str] = attrs.field(default=(), kw_only=True)
    """What did not change the outcome and should be known."""
    metrics: Mapping[str, float] = attrs.field(factory=FrozenDict, kw_only=True, repr=False)
    """What stages and interceptors recorded with `record_metric`."""
    compensation_failures: Sequence[Any] = attrs.field(default=(), kw_only=True)
    """Undoings that failed. Empty as long as nothing registers any."""
    discarded_events: int = attrs.field(default=0, kw_only=True)
    """How many of the oldest events had to leave."""

    def get_stage_data(self, stage: str, key: str, default: Any = None) -> Any:
        """One value that a stage returned, or `default`."""
        return self.stages.get(stage, {}).get(key, default)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain values, without events; what does not apply is left out."""
        return dict(self._told())

    def _told(self) -> Iterator[tuple[str, Any]]:
        yield "success", self.success
        yield "stages", {name: thaw(data) for name, data in self.stages.items()}
        yield "duration_ms", self.duration_ms
        if self.error is not None:
            yield "error", self.error
            yield "error_type", self.error_type
        if self.cancelled:
            yield "cancelled", True
            yield "cancel_reason", self.cancel_reason
        if self.pipeline_run_id is not None:
            yield "pipeline_run_id", str(self.pipeline_run_id)
        for name in ("not_run", "warnings"):
            if found := getattr(self, name):
                yield name, list(found)
