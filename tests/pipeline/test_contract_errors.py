"""What a person gets to read about a wiring mistake."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from pathlib import Path
from typing import Final

import attrs
import pytest

from actorflow import errors
from actorflow.errors import (
    DOC_BASE_URL,
    ActorflowError,
    CycleDetectedError,
    InvalidArgumentError,
    PipelineValidationError,
    PredicateError,
    UnknownBranchError,
    contract_error,
)
from actorflow.pipeline import (
    ContractErrorInfo,
    ContractSuggestion,
    Pipeline,
    contract_suggestion_codes,
    get_contract_suggestion,
    register_suggestion,
    stage,
)

CODES: Final = """
    EMPTY NAME SELF_DEP MISSING_DEP CYCLE CONFLICT DUPLICATE KIND RUNNER OPTION BRANCH STREAM
    STREAM_DEADLOCK INPUT OUTPUT GUARD_RETRY ORPHAN UNDECLARED_READ UNUSED_DEP RETRY_SIDE_EFFECT
    FACTORY
""".split()


async def work(ctx: object) -> None:
    """A stage that does nothing."""


@pytest.fixture
def own_suggestions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations that are gone after the test."""
    monkeypatch.setattr(errors, "_suggestions", dict(errors._suggestions))


@pytest.mark.spec("20.3.1")
def test_info_with_more_context_is_a_copy() -> None:
    info = ContractErrorInfo("C-1", "broken", context={"stage": "a", "line": 1})

    more = info.with_context(line=2, file="x.py")

    assert more.context == {"stage": "a", "line": 2, "file": "x.py"}
    assert info.context == {"stage": "a", "line": 1}
    assert (more.code, more.summary) == ("C-1", "broken")


def test_info_is_frozen_and_keeps_its_own_context() -> None:
    given = {"stage": "a"}
    info = ContractErrorInfo("C-1", "broken", context=given)
    given["stage"] = "b"

    assert info.context == {"stage": "a"}
    assert hash(info) == hash(ContractErrorInfo("C-1", "broken"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        info.code = "C-2"  # type: ignore[misc]  # what the test is about


@pytest.mark.spec("20.3.2")
def test_info_as_json() -> None:
    info = ContractErrorInfo("C-1", "broken", context={"path": ("a", "b"), "found": Path("x")})

    told = info.to_dict()

    assert list(told) == ["code", "summary", "fix_hint", "doc_url", "context"]
    assert told == {
        "code": "C-1",
        "summary": "broken",
        "fix_hint": None,
        "doc_url": None,
        "context": {"path": ["a", "b"], "found": "x"},
    }
    assert json.loads(json.dumps(told)) == told


@pytest.mark.spec("20.3.3")
def test_validation_error_carries_message_stages_and_info() -> None:
    info = ContractErrorInfo("C-1", "broken", "repair it", "https://example.org/c-1")

    error = PipelineValidationError("it is broken", ("a", "b"), error_info=info)

    assert (str(error), error.message) == ("it is broken", "it is broken")
    assert error.stages == ["a", "b"]
    assert error.error_info is info
    assert (error.code, error.fix_hint) == ("C-1", "repair it")
    assert error.doc_url == "https://example.org/c-1"
    assert error.to_dict() == {
        "message": "it is broken",
        "stages": ["a", "b"],
        "error_info": info.to_dict(),
    }
    assert isinstance(error, ActorflowError)
    assert isinstance(error, ValueError)


@pytest.mark.spec("20.3.3")
def test_validation_error_without_info() -> None:
    error = PipelineValidationError("it is broken")

    assert error.to_dict() == {"message": "it is broken", "stages": [], "error_info": None}
    assert error.code == "CONTRACT-004"
    assert error.fix_hint == ""
    assert error.doc_url == f"{DOC_BASE_URL}/errors#contract-004"
    assert error.suggestion is None


@pytest.mark.spec("20.3.4")
def test_validation_error_with_context_is_the_same_error() -> None:
    error = contract_error("EMPTY", "nothing there", pipeline="voice")

    assert error.with_context(file="x.py") is error
    assert error.error_info is not None
    assert error.error_info.context == {"pipeline": "voice", "file": "x.py"}


@pytest.mark.spec("20.3.4")
def test_context_needs_an_info_to_be_kept_in() -> None:
    with pytest.raises(InvalidArgumentError, match="error_info"):
        PipelineValidationError("it is broken").with_context(file="x.py")


@pytest.mark.spec("20.3.5")
def test_cycle_error_shows_the_way_round() -> None:
    error = CycleDetectedError(["a", "b", "a"])

    assert error.cycle_path == ["a", "b", "a"]
    assert error.stages == ["a", "b"]
    assert "cycle" in str(error)
    assert "a -> b -> a" in str(error)
    assert error.code == "CONTRACT-004-CYCLE"
    assert error.error_info is not None
    assert error.error_info.context == {"cycle_path": ["a", "b", "a"]}
    assert CycleDetectedError(["a", "b", "a"], ["b"]).stages == ["b"]


@pytest.mark.spec("20.3.5")
def test_message_of_a_long_cycle_stays_readable() -> None:
    path = [f"s{number}" for number in range(10_000)] + ["s0"]

    error = CycleDetectedError(path)

    assert error.cycle_path == path
    assert str(error).endswith(
        "s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> (9990 more) -> s9996 -> s9997 -> s9998 -> s9999 -> s0"
    )


@pytest.mark.spec("20.3.7")
@pytest.mark.parametrize("code", CODES)
def test_every_contract_error_says_what_to_do_and_where_to_read(code: str) -> None:
    error = contract_error(code, "it is broken", ["a"], stage="a")

    info = error.error_info
    assert info is not None
    assert info.code == error.code == f"CONTRACT-004-{code}"
    assert info.summary
    assert info.fix_hint == error.fix_hint != ""
    assert info.doc_url == error.doc_url == f"{DOC_BASE_URL}/errors#{error.code.lower()}"
    assert json.dumps(error.to_dict())


@pytest.mark.spec("20.3.7")
def test_fix_of_the_case_at_hand_goes_before_the_general_one() -> None:
    assert contract_error("EMPTY", "nothing", fix="Do this.").fix_hint == "Do this."


@pytest.mark.spec("20.3.9")
@pytest.mark.parametrize(
    "error",
    [
        contract_error("INPUT", "it is broken", ["a"], stage="a", missing=["x"]),
        contract_error("EMPTY", "nothing").with_context(problem_count=2),
        CycleDetectedError(["a", "b", "a"]),
        CycleDetectedError(["a", "b", "a"], ["x"]).with_context(file="x.py"),
        PipelineValidationError("it is broken"),
        PredicateError("a", "is_long", "returned int"),
        UnknownBranchError("route", "x", ("a", "b")),
    ],
)
def test_errors_survive_pickling_and_copying(error: ActorflowError) -> None:
    error.add_note("seen in x.py")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.code == error.code
        assert twin.__notes__ == error.__notes__
        if isinstance(error, PipelineValidationError):
            assert isinstance(twin, PipelineValidationError)
            assert twin.to_dict() == error.to_dict()


@pytest.mark.spec("20.3.9")
def test_notes_and_causes_are_shown() -> None:
    error = contract_error("EMPTY", "the pipeline has no stages")
    error.add_note("while loading x.py")
    try:
        raise error from KeyError("x")
    except PipelineValidationError as caught:
        shown = "".join(traceback.format_exception(caught))

    assert isinstance(error.__cause__, KeyError)
    assert "the pipeline has no stages\nfix: Add a stage" in shown
    assert "errors#contract-004-empty\nwhile loading x.py" in shown


# Suggestions


@pytest.mark.spec("20.4.1")
def test_suggestion_is_found_by_its_exact_code() -> None:
    found = get_contract_suggestion("CONTRACT-004-CYCLE")

    assert found is not None
    assert found.code == "CONTRACT-004-CYCLE"
    assert get_contract_suggestion("CONTRACT-004") is None
    assert get_contract_suggestion("contract-004-cycle") is None


@pytest.mark.spec("20.4.2")
def test_every_contract_code_has_a_suggestion() -> None:
    assert contract_suggestion_codes() == sorted(f"CONTRACT-004-{code}" for code in CODES)
    for code in contract_suggestion_codes():
        suggestion = get_contract_suggestion(code)
        assert suggestion is not None
        assert suggestion.title
        assert suggestion.summary
        assert suggestion.fix_steps
        assert all(suggestion.fix_steps)


@pytest.mark.spec("20.4.3")
def test_error_brings_the_suggestion_for_its_code() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline.from_stages(stage("a", work, after="b")).validate()

    suggestion = caught.value.suggestion
    assert suggestion is not None
    assert suggestion.code == "CONTRACT-004-MISSING_DEP"


@pytest.mark.spec("20.4.3")
@pytest.mark.usefixtures("own_suggestions")
def test_registered_suggestion_appears_at_errors_with_its_code() -> None:
    own = ContractSuggestion("ACME-1", "No budget", "It costs too much.", ["Ask somebody."])

    register_suggestion(own)

    error = PipelineValidationError("too much", error_info=ContractErrorInfo("ACME-1", "costs"))
    assert error.suggestion is own
    assert own.fix_steps == ("Ask somebody.",)
    assert "ACME-1" in contract_suggestion_codes()


@pytest.mark.usefixtures("own_suggestions")
def test_taken_code_is_replaced_on_request_only() -> None:
    own = ContractSuggestion("CONTRACT-004-EMPTY", "Title", "Summary.", ["Step."])

    with pytest.raises(InvalidArgumentError, match="CONTRACT-004-EMPTY"):
        register_suggestion(own)
    register_suggestion(own, replace=True)

    assert get_contract_suggestion("CONTRACT-004-EMPTY") is own


@pytest.mark.usefixtures("own_suggestions")
@pytest.mark.parametrize(
    ("suggestion", "field"),
    [
        (ContractSuggestion("", "Title", "", ["Step."]), "code"),
        (ContractSuggestion("ACME-1", "", "", ["Step."]), "title"),
        (ContractSuggestion("ACME-1", "Title", "", []), "fix_steps"),
    ],
)
def test_suggestion_that_says_nothing_is_refused(
    suggestion: ContractSuggestion, field: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        register_suggestion(suggestion)
