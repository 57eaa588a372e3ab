from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from actorflow.errors import StageNotFoundError, StageNotOkError
from actorflow.model import StageOutput
from actorflow.runtime import FailureRecord, PipelineResults
from actorflow.stages import StageResult

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
OUTPUTS = {
    "stt": StageOutput.ok(text="hi"),
    "vad": StageOutput.skip("silence"),
    "llm": StageOutput.fail("down"),
    "guard": StageOutput.retry("again"),
    "stop": StageOutput.cancel("enough"),
}


def test_results_read_like_the_dict_they_were_made_from() -> None:
    outputs = dict(OUTPUTS)
    results = PipelineResults(outputs)

    outputs.clear()

    assert results == OUTPUTS
    assert OUTPUTS == results  # noqa: SIM300 - with either operand first
    assert list(results) == list(OUTPUTS)
    assert len(results) == 5
    assert results["stt"] is OUTPUTS["stt"]
    assert (results.get("x"), "x" in results, "stt" in results) == (None, False, True)
    assert repr(results) == f"PipelineResults({OUTPUTS!r})"


def test_results_cannot_be_changed() -> None:
    results: Any = PipelineResults(OUTPUTS)

    changes: list[Callable[[], object]] = [
        lambda: results.__setitem__("x", StageOutput.ok()),
        lambda: results.update(x=StageOutput.ok()),
        lambda: results.stage_results.update(x=1),
        lambda: setattr(results, "anything", 1),
    ]
    for change in changes:
        with pytest.raises((TypeError, AttributeError)):
            change()


@pytest.mark.spec("10.19.1")
def test_missing_stage_is_named_with_those_that_are_there() -> None:
    results = PipelineResults({"stt": StageOutput.ok(), "llm": StageOutput.ok()})

    reads: list[Callable[[str], object]] = [
        results.require,
        results.require_ok,
        results.data,
        lambda stage: results[stage],
    ]
    for read in reads:
        with pytest.raises(StageNotFoundError) as caught:
            read("tts")
        assert (caught.value.stage, caught.value.available) == ("tts", ("stt", "llm"))
        assert str(caught.value) == "there is no result of stage 'tts', found 'stt', 'llm'"
        assert isinstance(caught.value, KeyError)
    assert str(StageNotFoundError("a", ())).endswith("found nothing")


@pytest.mark.spec("10.19.1")
def test_stages_are_read_with_or_without_a_default() -> None:
    results = PipelineResults(OUTPUTS)

    assert results.require("llm") is OUTPUTS["llm"]
    assert results.data("stt") == {"text": "hi"}
    assert (results.data("x", None), results.data("x", {"a": 1})) == (None, {"a": 1})
    assert results.data("stt", None) == {"text": "hi"}
    assert results.output("stt") is OUTPUTS["stt"]
    assert results.output("x") is None
    assert results.output("x", OUTPUTS["stt"]) is OUTPUTS["stt"]


@pytest.mark.spec("10.19.2")
@pytest.mark.parametrize(
    ("stage", "status", "detail"),
    [
        ("vad", "skip", "silence"),
        ("llm", "fail", "down"),
        ("guard", "retry", "again"),
        ("stop", "cancel", "enough"),
    ],
)
def test_required_stage_must_have_ended_ok(stage: str, status: str, detail: str) -> None:
    results = PipelineResults(OUTPUTS)

    with pytest.raises(StageNotOkError) as caught:
        results.require_ok(stage)

    error = caught.value
    assert (error.stage, error.status, error.detail) == (stage, status, detail)
    assert str(error) == f"stage {stage!r} was required to be ok, found {status}: {detail}"
    assert results.require_ok("stt") is OUTPUTS["stt"]


def test_missing_reason_leaves_no_colon() -> None:
    results = PipelineResults({"vad": StageOutput.skip()})

    with pytest.raises(StageNotOkError) as caught:
        results.require_ok("vad")

    assert str(caught.value) == "stage 'vad' was required to be ok, found skip"


def test_stages_are_listed_by_how_they_ended() -> None:
    interrupted = StageResult("tts", "canceled", AT, AT)
    stopped = StageResult("stop", "canceled", AT, AT)
    results = PipelineResults(OUTPUTS, stage_results={"tts": interrupted, "stop": stopped})

    assert results.ok("stt")
    assert not results.ok("llm")
    assert not results.ok("x")
    assert results.failed() == ["llm", "guard"]
    assert results.skipped() == ["vad"]
    assert results.canceled() == ["stop", "tts"]
    assert results.stage_results["tts"] is interrupted


@pytest.mark.spec("10.19.5")
def test_results_are_told_as_json() -> None:
    results = PipelineResults(OUTPUTS)

    assert results.to_dict() == {stage: output.to_dict() for stage, output in OUTPUTS.items()}


def test_failures_are_kept_in_order_and_told_without_their_exceptions() -> None:
    failures = [
        FailureRecord("llm", "down", "OSError", True, AT, {"tries": [1]}, OSError("down")),
        FailureRecord("tts", "late", None, False, AT),
    ]

    results = PipelineResults({}, failures=iter(failures))

    assert results.failures == tuple(failures)
    assert failures[0].to_dict() == {
        "stage": "llm",
        "error": "down",
        "error_type": "OSError",
        "recoverable": True,
        "timestamp": AT.isoformat(),
        "context": {"tries": [1]},
    }
    with pytest.raises(AttributeError):
        failures[0].context["tries"].append(2)
