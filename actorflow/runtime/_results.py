"""What a run has produced: outputs by stage, and every failure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, final

import attrs

from actorflow.errors import StageNotFoundError, StageNotOkError
from actorflow.model import FrozenDict, StageOutput, StageStatus, freeze
from actorflow.stages import StageResult

from ._stage_results import StageResults

_ABSENT: Final = object()
_NOTHING: Final[Mapping[str, StageResult]] = MappingProxyType({})


@final
@attrs.frozen
class FailureRecord:
    """One failure of a run: which stage, what went wrong, whether trying again may help."""

    stage: str
    error: str
    error_type: str | None
    recoverable: bool
    timestamp: datetime
    context: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=freeze)
    """What is known beside the error, for whoever reads the record later."""
    exception: BaseException | None = attrs.field(default=None, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The record without the exception object."""
        return {
            "stage": self.stage,
            "error": self.error,
            "error_type": self.error_type,
            "recoverable": self.recoverable,
            "timestamp": self.timestamp.isoformat(),
            "context": dict(self.context),
        }


@final
class PipelineResults(Mapping[str, StageOutput]):
    """The output of each stage, in the order in which the stages completed.

    It reads like a dict and equals one; it cannot be changed. Stages that never
    started are not in it.
    """

    __slots__ = ("_outputs", "failures", "stage_results", "warnings")

    def __init__(
        self,
        outputs: Mapping[str, StageOutput],
        *,
        failures: Iterable[FailureRecord] = (),
        stage_results: Mapping[str, StageResult] = _NOTHING,
        warnings: Iterable[str] = (),
    ) -> None:
        self._outputs: Final = dict(outputs)
        self.failures: Final = tuple(failures)
        """Every failure of the run, in order."""
        self.stage_results: Final[Mapping[str, StageResult]] = (
            stage_results
            if isinstance(stage_results, StageResults)
            else MappingProxyType(dict(stage_results))
        )
        """How each call went, also of stages that left no output."""
        self.warnings: Final = tuple(warnings)
        """What went wrong beside the stages and changed nothing: cleanups that failed."""

    def __getitem__(self, stage: str) -> StageOutput:
        try:
            return self._outputs[stage]
        except KeyError:
            raise StageNotFoundError(stage, tuple(self._outputs)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        return f"PipelineResults({self._outputs!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The errors of a run carry its results, and errors travel between processes.
        return _restored, (
            self._outputs,
            self.failures,
            dict(self.stage_results),
            self.warnings,
        )

    def output(self, stage: str, default: StageOutput | None = None) -> StageOutput | None:
        """What a stage returned, or `default`."""
        return self._outputs.get(stage, default)

    def require(self, stage: str) -> StageOutput:
        """What a stage returned, whatever its status.

        Raises:
          StageNotFoundError: if there is nothing.
        """
        return self[stage]

    def require_ok(self, stage: str) -> StageOutput:
        """What a stage returned that ended OK.

        Raises:
          StageNotFoundError: if there is nothing.
          StageNotOkError: if it ended otherwise, with the reason it gave.
        """
        output = self[stage]
        if output.status is not StageStatus.OK:
            raise StageNotOkError(stage, output.status, output.reason)
        return output

    def data(self, stage: str, default: Any = _ABSENT) -> Any:
        """The data a stage returned; without it `default`, if that is given.

        Raises:
          StageNotFoundError: if there is neither.
        """
        if default is not _ABSENT and stage not in self._outputs:
            return default
        return self[stage].data

    def ok(self, stage: str) -> bool:
        """Whether a stage ended OK."""
        output = self._outputs.get(stage)
        return output is not None and output.status is StageStatus.OK

    def failed(self) -> list[str]:
        """The stages that failed."""
        return self._with(StageStatus.FAIL, StageStatus.RETRY)

    def skipped(self) -> list[str]:
        """The stages that were skipped, by themselves or by a rule."""
        return self._with(StageStatus.SKIP)

    def canceled(self) -> list[str]:
        """The stages that cancelled the run, then those that were interrupted."""
        interrupted = [
            stage
            for stage, result in self.stage_results.items()
            if result.status == "canceled" and stage not in self._outputs
        ]
        return self._with(StageStatus.CANCEL) + interrupted

    def _with(self, *statuses: StageStatus) -> list[str]:
        return [stage for stage, output in self._outputs.items() if output.status in statuses]

    def to_dict(self) -> dict[str, Any]:
        """Each stage's output as JSON."""
        return {stage: output.to_dict() for stage, output in self._outputs.items()}


def _restored(
    outputs: Mapping[str, StageOutput],
    failures: Iterable[FailureRecord],
    stage_results: Mapping[str, StageResult],
    warnings: Iterable[str],
) -> PipelineResults:
    return PipelineResults(
        outputs, failures=failures, stage_results=stage_results, warnings=warnings
    )
