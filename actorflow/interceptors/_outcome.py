"""How a call ended, at some point on its way out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, final
from uuid import UUID

from actorflow.errors import (
    CriticalInterceptorError,
    InterceptorError,
    StageCancellationRequested,
    StageFailedError,
    StageRetryRequested,
)
from actorflow.model import StageOutput, StageStatus
from actorflow.stages import ResultStatus, StageResult

if TYPE_CHECKING:
    from ._base import InterceptorResult


# Both are made for each call of a stage, and tuples are filled in half the time of a
# frozen class.


@final
class Outcome(NamedTuple):
    """An output, and what stands behind it if it is a failure."""

    output: StageOutput
    error: Exception | None = None
    raised: bool = False
    """Whether `error` was raised; otherwise it says what the output says."""
    short_circuited_by: str | None = None
    replayed: bool = False
    original_run_id: UUID | None = None

    @property
    def status(self) -> ResultStatus:
        """In the words of a `StageResult`."""
        return StageResult.status_of(self.output)

    @property
    def is_final(self) -> bool:
        """Whether no interceptor may turn it into anything else."""
        return isinstance(self.error, CriticalInterceptorError)


def returned(stage: str, output: StageOutput) -> Outcome:
    """The outcome of a call that gave `output`."""
    match output.status:
        case StageStatus.FAIL:
            return Outcome(output, StageFailedError(stage, output.error or "", output))
        case StageStatus.RETRY:
            return Outcome(output, StageRetryRequested(stage, output.error or "", output))
        case _:
            return Outcome(output)


def raised(error: Exception) -> Outcome:
    """The outcome of a call that ended with `error`."""
    # A group of one is what a nursery makes of a single failure.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    if isinstance(error, StageCancellationRequested):
        return Outcome(StageOutput.cancel(error.reason))
    return Outcome(StageOutput.fail(error), error, raised=True)


def short_circuit(stage: str, answer: InterceptorResult, by: str) -> Outcome:
    """The outcome of a call that the interceptor `by` answered instead of the stage.

    Raises:
      InterceptorError: if the answer is none.
    """
    output = _output_of(answer, by)
    if output.status is StageStatus.RETRY:
        raise InterceptorError(by, "before", "a call that was not made cannot be RETRY")
    outcome = returned(stage, output)
    if outcome.error is not None and isinstance(answer.error, Exception):
        outcome = outcome._replace(error=answer.error, raised=True)
    return outcome._replace(
        short_circuited_by=by,
        replayed=answer.replayed,
        original_run_id=answer.original_run_id,
    )


def _output_of(answer: InterceptorResult, by: str) -> StageOutput:
    found = answer.result
    if isinstance(found, StageResult):
        found = _output_of_result(found)
    status = None if answer.status is None else StageStatus(answer.status)
    if status is None and answer.error is not None:
        status = StageStatus.FAIL
    if isinstance(found, StageOutput) and status in (None, found.status):
        return found
    if found is None and status is None:
        return StageOutput.skip(f"short-circuited by {by}")
    data = found.data if isinstance(found, StageOutput) else found
    if not (data is None or isinstance(data, Mapping)):
        kind = type(data).__name__
        raise InterceptorError(by, "before", f"a result must be an output or a mapping, not {kind}")
    match status:
        case None | StageStatus.OK:
            return StageOutput.ok(data)
        case StageStatus.SKIP:
            return StageOutput.skip(f"short-circuited by {by}", data)
        case StageStatus.CANCEL:
            return StageOutput.cancel(f"Cancelled by {by}", data)
        case StageStatus.FAIL:
            return StageOutput.fail(answer.error or f"short-circuited by {by}", data)
        case _:
            return StageOutput.retry(f"short-circuited by {by}", data)


def _output_of_result(result: StageResult) -> StageOutput:
    if result.output is not None:
        return result.output
    match result.status:
        case "failed":
            return StageOutput.fail(result.error, result.data)
        case "skipped":
            return StageOutput.skip(result.error or "", result.data)
        case "canceled":
            return StageOutput.cancel(result.error or "", result.data)
        case _:
            return StageOutput.ok(result.data)


@final
class CallEnd(NamedTuple):
    """What came out of the chain, and how it went inside."""

    outcome: Outcome
    tries: int
    """How often the stage was executed; 0 after a short circuit."""
    warnings: tuple[str, ...] = ()
    gave_up: str | None = None
    """Why a failure that could be tried again was not."""
