"""How the calls of a run went, written down now and made into results when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final

from actorflow.model import FrozenDict
from actorflow.stages import StageResult

if TYPE_CHECKING:
    from actorflow.pipeline import StageSpec

    from ._run_state import Settle
    from ._stage_life import StageState

PIPELINE_CANCELED: Final = "Pipeline canceled"

_NO_STREAMS: Final[Mapping[str, Any]] = FrozenDict()


def result_of(
    settle: Settle, spec: StageSpec, unix_zero: float, streams: Mapping[str, Any] = _NO_STREAMS
) -> StageResult:
    """An attempt of a stage that is over, as people see it."""
    end, output = settle.end, settle.output
    more: dict[str, Any] = {
        "kind": spec.kind,
        "attempt": settle.attempt,
        "streams": streams,
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
    ended_at = unix_zero + settle.ended_at
    started_at = ended_at - more["duration_ms"] / 1000
    return StageResult.from_output(
        spec.name,
        output,
        started_at=datetime.fromtimestamp(started_at, timezone.utc),
        ended_at=datetime.fromtimestamp(ended_at, timezone.utc),
        **more,
    )


@final
class StageResults(Mapping[str, StageResult]):
    """The newest attempt of each stage, in the order in which they ended."""

    __slots__ = ("_made", "_settles", "_specs", "_streams", "_unix_zero")

    def __init__(
        self,
        settles: Mapping[str, Settle],
        specs: Sequence[StageSpec],
        *,
        unix_zero: float,
        streams: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Show `settles`; `unix_zero` is the Unix time at zero on trio's clock."""
        self._settles = dict(settles)
        self._specs = specs
        self._unix_zero = unix_zero
        self._streams = dict(streams)
        self._made: dict[str, StageResult] = {}

    def __getitem__(self, stage: str) -> StageResult:
        if stage not in self._made:
            settle = self._settles[stage]
            streams = self._streams.get(stage, _NO_STREAMS)
            spec = self._specs[settle.stage]
            self._made[stage] = result_of(settle, spec, self._unix_zero, streams)
        return self._made[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settles)

    def __len__(self) -> int:
        return len(self._settles)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # What the results are made of has the runners of all stages, and those may not travel.
        return dict, (dict(self),)

    def states(self) -> dict[str, StageState]:
        """How each stage ended, which costs no results."""
        return {name: settle.state for name, settle in self._settles.items()}
