"""Failures of a run: collected in order, and what they mean for the stages below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import attrs

from actorflow.model import FrozenDict
from actorflow.pipeline import FailureMode

if TYPE_CHECKING:
    from actorflow.model import StageOutput

    from ._results import FailureRecord


@final
@attrs.frozen
class FailureSummary:
    """How much of a run worked."""

    total_stages: int
    completed_stages: int
    failed_stages: tuple[str, ...]
    failures: tuple[FailureRecord, ...]
    partial_results: Mapping[str, StageOutput] = attrs.field(factory=FrozenDict, repr=False)

    @property
    def success_rate(self) -> float:
        """The share of stages that completed, from 0.0 to 1.0."""
        return self.completed_stages / self.total_stages if self.total_stages else 0.0

    @property
    def has_failures(self) -> bool:
        """Whether anything failed."""
        return bool(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON."""
        return {
            "total_stages": self.total_stages,
            "completed_stages": self.completed_stages,
            "failed_stages": list(self.failed_stages),
            "failures": [failure.to_dict() for failure in self.failures],
            "partial_results": {
                name: output.to_dict() for name, output in self.partial_results.items()
            },
            "success_rate": self.success_rate,
        }


@final
class FailureCollector:
    """Keeps the failures of one run in order, and says who may go on in spite of them."""

    def __init__(self, mode: FailureMode | str = FailureMode.FAIL_FAST) -> None:
        self._mode = FailureMode(mode)
        self._failures: dict[str, FailureRecord] = {}
        self._completed: set[str] = set()

    @property
    def failures(self) -> tuple[FailureRecord, ...]:
        """The failures so far, in order."""
        return tuple(self._failures.values())

    @property
    def has_failures(self) -> bool:
        """Whether anything failed."""
        return bool(self._failures)

    @property
    def failed_stages(self) -> tuple[str, ...]:
        """The stages that failed, in order."""
        return tuple(self._failures)

    def record_failure(self, failure: FailureRecord) -> None:
        """A stage failed."""
        self._failures[failure.stage] = failure

    def record_completion(self, stage: str) -> None:
        """A stage completed."""
        self._completed.add(stage)

    def forget(self, stage: str) -> None:
        """A stage will be run again, so what became of it does not count."""
        self._failures.pop(stage, None)
        self._completed.discard(stage)

    def should_continue(self, stage: str, dependent_on: Iterable[str] = ()) -> bool:
        """Whether `stage`, which depends on `dependent_on`, may still start.

        What follows from a failure further up has to be said by naming the failed
        stage itself; a stage that has failed does not continue in any mode.
        """
        if stage in self._failures:
            return False
        if self._mode is FailureMode.FAIL_FAST:
            return not self._failures
        return self._mode is FailureMode.BEST_EFFORT or self._failures.keys().isdisjoint(
            dependent_on
        )

    def get_summary(
        self, total_stages: int, partial_results: Mapping[str, StageOutput] = FrozenDict()
    ) -> FailureSummary:
        """What to report about a run of `total_stages` stages."""
        return FailureSummary(
            total_stages,
            len(self._completed),
            self.failed_stages,
            self.failures,
            partial_results,
        )
