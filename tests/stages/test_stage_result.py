from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import attrs
import pytest

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MissingInputError,
    StageNotOkError,
    UndeclaredDependencyError,
)
from actorflow.model import ContextSnapshot, RunIdentity, StageKind, StageOutput
from actorflow.stages import (
    DependencyIssue,
    GuardFeedback,
    IssueSeverity,
    StageContext,
    StageInputs,
    StagePayloadResult,
    StageResult,
    SubpipelineResult,
    cancel_output,
    fail_output,
    ok_output,
    payload_from_inputs,
    payload_from_results,
    summary_from_output,
)

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
END = START + timedelta(milliseconds=1500)
SNAPSHOT = ContextSnapshot(RunIdentity())


def result_of(output: StageOutput | None, **more: Any) -> StageResult:
    return StageResult.from_output("stage", output, started_at=START, ended_at=END, **more)


@pytest.mark.spec("10.18.1")
@pytest.mark.parametrize(
    ("output", "status"),
    [
        (StageOutput.ok(), "completed"),
        (StageOutput.skip("why"), "skipped"),
        (StageOutput.cancel("why"), "canceled"),
        (None, "canceled"),
        (StageOutput.fail("why"), "failed"),
        (StageOutput.retry("why"), "failed"),
    ],
)
def test_status_follows_from_the_output(output: StageOutput | None, status: str) -> None:
    assert result_of(output).status == status


def test_result_takes_over_what_the_output_says() -> None:
    output = StageOutput.fail(ValueError("broken"), {"n": 1})

    result = result_of(output, kind=StageKind.WORK, tries=3, warnings=["slow cleanup"])

    assert result.output is output
    assert (result.error, result.error_type) == ("broken", "ValueError")
    assert result.data == {"n": 1}
    assert (result.kind, result.attempt, result.tries) == (StageKind.WORK, 1, 3)
    assert result.warnings == ("slow cleanup",)
    assert result.skipped_by is None


def test_stage_that_skips_itself_is_told_from_one_skipped_by_a_rule() -> None:
    skip = StageOutput.skip("why")

    assert result_of(skip).skipped_by == "stage"
    assert result_of(skip, skipped_by="when").skipped_by == "when"


def test_duration_is_the_distance_of_wall_times_unless_it_was_measured() -> None:
    assert result_of(None).duration_ms == 1500.0
    assert result_of(None, duration_ms=1499.5).duration_ms == 1499.5


def test_result_cannot_be_changed() -> None:
    result = StageResult("stage", "started", START, END, {"list": [1]})

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.status = "failed"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        result.data["list"].append(2)


def test_unknown_status_is_refused() -> None:
    status: Any = "done"

    with pytest.raises(InvalidArgumentError, match="status must be one of started, completed"):
        StageResult("stage", status, START, END)


# Payloads


@attrs.frozen
class Answer:
    text: str


@pytest.mark.spec("10.18.5")
def test_payload_and_summary_stand_in_the_data() -> None:
    answer = StagePayloadResult(Answer("hi"), {"length": 2})

    outputs = [
        ok_output(answer),
        cancel_output(answer, reason="enough"),
        fail_output(error="broken", payload=answer.payload, summary=answer.summary),
    ]

    assert [output.status for output in outputs] == ["ok", "cancel", "fail"]
    assert [output.reason for output in outputs] == ["", "enough", "broken"]
    for output in outputs:
        assert output.data["payload"] is answer.payload
        assert summary_from_output(output) == output.data["summary"] == {"length": 2}
    assert summary_from_output(StageOutput.ok()) == {}
    assert fail_output(error="broken").data == {"payload": None, "summary": {}}


def inputs_of(**outputs: StageOutput) -> StageInputs:
    return StageInputs(SNAPSHOT, outputs, declared_deps=["a", "b"])


@pytest.mark.spec("10.18.5")
def test_payload_comes_back_with_its_type() -> None:
    outputs = {"a": ok_output(StagePayloadResult(Answer("hi")))}
    inputs = inputs_of(**outputs)

    from_inputs = payload_from_inputs(inputs, "a", expected_type=Answer)
    from_context = payload_from_inputs(StageContext(SNAPSHOT, inputs, "stage"), "a")
    from_results = payload_from_results(outputs, "a", expected_type=Answer)

    assert from_inputs.text == "hi"
    assert from_inputs is from_context is from_results


@pytest.mark.parametrize("payload", [[1, [2]], {1, 2}])
def test_payload_expected_to_be_changeable_is_a_copy(payload: Any) -> None:
    output = ok_output(StagePayloadResult(payload))

    copy = payload_from_results({"a": output}, "a", expected_type=type(payload))

    assert copy == payload
    assert type(copy) is type(payload)


@pytest.mark.spec("10.18.5")
def test_payload_that_is_missing_not_ok_or_of_another_type_is_refused() -> None:
    outputs = {
        "a": ok_output(StagePayloadResult("text")),
        "b": fail_output(error="down", payload="text"),
    }
    inputs = inputs_of(**outputs)

    with pytest.raises(InvalidTypeError, match="the payload of stage 'a' must be int, found str"):
        payload_from_inputs(inputs, "a", expected_type=int)
    with pytest.raises(StageNotOkError, match="stage 'b' was required to be ok, found fail: down"):
        payload_from_inputs(inputs, "b")
    with pytest.raises(MissingInputError) as no_output:
        payload_from_results(outputs, "c")
    with pytest.raises(MissingInputError) as no_payload:
        payload_from_inputs(inputs_of(a=StageOutput.ok(x=1)), "a")
    with pytest.raises(UndeclaredDependencyError):
        payload_from_inputs(inputs, "c")

    assert no_output.value.available == ("a", "b")
    assert no_payload.value.available == ("x",)


# Values that runs and runners give


def test_subpipeline_result_tells_what_was_set() -> None:
    run_id = UUID(int=5)

    assert SubpipelineResult(True, run_id).to_dict() == {
        "success": True,
        "child_run_id": str(run_id),
        "duration_ms": 0.0,
    }
    assert SubpipelineResult(
        False,
        run_id,
        data={},
        error="broken",
        duration_ms=1.5,
        canceled=True,
        cancel_reason="enough",
        error_type="ValueError",
        results={"a": StageOutput.ok()},
    ).to_dict() == {
        "success": False,
        "child_run_id": str(run_id),
        "duration_ms": 1.5,
        "data": {},
        "error": "broken",
        "canceled": True,
        "cancel_reason": "enough",
    }


def test_guard_feedback_cannot_be_changed() -> None:
    feedback = GuardFeedback("guard", 1, "too long", {"words": ["a"]}, StageOutput.ok())

    with pytest.raises(AttributeError):
        feedback.data["words"].append("b")


def test_issue_is_told_as_json() -> None:
    issue = DependencyIssue("stage", "typo", IssueSeverity("warning"), line_number=3)

    assert issue.severity is IssueSeverity.WARNING
    assert issue.to_dict() == {
        "stage_name": "stage",
        "message": "typo",
        "severity": "warning",
        "accessed_stage": None,
        "suggestion": None,
        "line_number": 3,
        "code": None,
    }
    with pytest.raises(InvalidArgumentError, match="IssueSeverity must be one of error, warning"):
        IssueSeverity("fatal")
