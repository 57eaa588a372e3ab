"""How the calls of a run went, written down now and made into results when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from actorflow.stages import StageResult

if TYPE_CHECKING:
    from actorflow.model import StageKind

    from ._run_state import Settle
    from ._stage_life import StageState

PIPELINE_CANCELED: Final = "Pipeline canceled"


@final
@attrs.frozen
class Attempt:
    """An attempt of a stage that is over; times are Unix times."""

    name: str
    kind: StageKind
    settle: Settle
    ended_at: float
    streams: Mapping[str, Any]

    def result(self) -> StageResult:
        """The attempt as people see it."""
        settle, end, output = self.settle, self.settle.end, self.settle.output
        ended_at = datetime.fromtimestamp(self.ended_at, timezone.utc)
        more: dict[str, Any] = {
            "kind": self.kind,
            "attempt": settle.attempt,
            "streams": self.streams,
        }
        if settle.skipped_by is not None:
            more["skipped_by"] = settle.skipped_by
        if output is None:
            more["error"] = PIPELINE_CANCELED
        if end is None:
            more["duration_ms"] = 0.0
        else:
            more["duration_ms"] = end.duration_ms
            more["tries"] = end.tries
            more["timed_out"] = end.timed_out
            more["warnings"] = end.warnings
            more["short_circuited_by"] = end.short_circuited_by
            more["replayed"] = end.replayed
            more["original_run_id"] = end.original_run_id
        started_at = datetime.fromtimestamp(
            self.ended_at - more["duration_ms"] / 1000, timezone.utc
        )
        return StageResult.from_output(
            self.name, output, started_at=started_at, ended_at=ended_at, **more
        )


@final
class StageResults(Mapping[str, StageResult]):
    """The newest attempt of each stage, in the order in which they ended."""

    __slots__ = ("_attempts", "_made")

    def __init__(self, attempts: Mapping[str, Attempt]) -> None:
        self._attempts = dict(attempts)
        self._made: dict[str, StageResult] = {}

    def __getitem__(self, stage: str) -> StageResult:
        if stage not in self._made:
            self._made[stage] = self._attempts[stage].result()
        return self._made[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._attempts)

    def __len__(self) -> int:
        return len(self._attempts)

    def __repr__(self) -> str:
        return repr(dict(self))

    def states(self) -> dict[str, StageState]:
        """How each stage ended, which costs no results."""
        return {name: attempt.settle.state for name, attempt in self._attempts.items()}
