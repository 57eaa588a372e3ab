"""Handing one typed value from stage to stage.

The value stands under `payload` in the data of an output; beside it, `summary`
holds what is worth reporting about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, final, overload

import attrs

from actorflow.errors import InvalidTypeError, MissingInputError, StageNotOkError
from actorflow.model import FrozenDict, StageOutput, StageStatus, freeze, thaw

from ._inputs import StageInputs
from ._stage_context import StageContext

_T = TypeVar("_T")

_PAYLOAD: Final = "payload"
_SUMMARY: Final = "summary"


@final
@attrs.frozen
class StagePayloadResult:
    """A value and what to report about it."""

    payload: Any
    summary: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=freeze)


def ok_output(result: StagePayloadResult) -> StageOutput:
    """An OK output that carries the value."""
    return StageOutput.ok(_data(result.payload, result.summary))


def cancel_output(result: StagePayloadResult, *, reason: str = "") -> StageOutput:
    """An output that cancels the run and carries the value."""
    return StageOutput.cancel(reason, _data(result.payload, result.summary))


def fail_output(
    *,
    error: str | BaseException,
    payload: Any = None,
    summary: Mapping[str, Any] | None = None,
) -> StageOutput:
    """A FAIL output that carries what there is of the value."""
    return StageOutput.fail(error, _data(payload, summary or {}))


def summary_from_output(output: StageOutput) -> Mapping[str, Any]:
    """What `output` says about its value; empty if it says nothing."""
    summary = output.data.get(_SUMMARY)
    return summary if isinstance(summary, Mapping) else FrozenDict()


@overload
def payload_from_inputs(
    source: StageContext | StageInputs, stage: str, *, expected_type: type[_T]
) -> _T: ...
@overload
def payload_from_inputs(
    source: StageContext | StageInputs, stage: str, *, expected_type: None = None
) -> Any: ...
def payload_from_inputs(
    source: StageContext | StageInputs, stage: str, *, expected_type: type[Any] | None = None
) -> Any:
    """The value that a dependency left.

    Raises:
      UndeclaredDependencyError: if `stage` is not declared.
      MissingInputError: if it left no output, or no value in it.
      StageNotOkError: if it did not end OK.
      InvalidTypeError: if the value is of another type than expected.
    """
    inputs = source.inputs if isinstance(source, StageContext) else source
    output = inputs.get_output(stage)
    return _payload(stage, output, tuple(inputs.prior_outputs), expected_type)


@overload
def payload_from_results(
    results: Mapping[str, StageOutput], stage: str, *, expected_type: type[_T]
) -> _T: ...
@overload
def payload_from_results(
    results: Mapping[str, StageOutput], stage: str, *, expected_type: None = None
) -> Any: ...
def payload_from_results(
    results: Mapping[str, StageOutput], stage: str, *, expected_type: type[Any] | None = None
) -> Any:
    """The value that a stage left in the results of a run.

    Raises:
      MissingInputError: if it left no output, or no value in it.
      StageNotOkError: if it did not end OK.
      InvalidTypeError: if the value is of another type than expected.
    """
    return _payload(stage, results.get(stage), tuple(results), expected_type)


def _payload(
    stage: str, output: StageOutput | None, stages: tuple[str, ...], expected: type[Any] | None
) -> Any:
    if output is None:
        raise MissingInputError(stage, _PAYLOAD, stages)
    if output.status is not StageStatus.OK:
        raise StageNotOkError(stage, output.status, output.reason)
    if _PAYLOAD not in output.data:
        raise MissingInputError(stage, _PAYLOAD, tuple(output.data))
    payload = output.data[_PAYLOAD]
    if expected is None or isinstance(payload, expected):
        return payload
    # Lists and sets were frozen on their way; whoever expects one gets a copy.
    payload = thaw(payload)
    if not isinstance(payload, expected):
        raise InvalidTypeError(f"the payload of stage {stage!r}", payload, expected.__name__)
    return payload


def _data(payload: Any, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {_PAYLOAD: payload, _SUMMARY: summary}
