from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    MissingInputError,
    UndeclaredDependencyError,
)
from actorflow.model import ContextSnapshot, RunIdentity, StageOutput
from actorflow.stages import StageInputs, create_stage_inputs

SNAPSHOT = ContextSnapshot(RunIdentity())

READS: list[Callable[[StageInputs, str], Any]] = [
    lambda inputs, stage: inputs.get_from(stage, "text"),
    lambda inputs, stage: inputs.require_from(stage, "text"),
    lambda inputs, stage: inputs.has_output(stage),
    lambda inputs, stage: inputs.get_output(stage),
]


def inputs_of(**outputs: StageOutput) -> StageInputs:
    return StageInputs(SNAPSHOT, outputs, None, ("stt", "llm"), "tts")


@pytest.mark.spec("10.16.1")
def test_inputs_cannot_be_changed() -> None:
    results = {"stt": StageOutput.ok(text="hi", words=["h", "i"])}
    inputs: Any = StageInputs(SNAPSHOT, results, None, ("stt", "llm"), "tts")

    results["llm"] = StageOutput.ok(text="later")
    results["stt"] = StageOutput.ok(text="other")

    assert not inputs.has_output("llm")
    assert inputs.get_from("stt", "text") == "hi"
    with pytest.raises(AttributeError):
        inputs.strict = False
    with pytest.raises(TypeError):
        inputs.prior_outputs["llm"] = StageOutput.ok()
    with pytest.raises(AttributeError):
        inputs.get_from("stt", "words").append("!")


@pytest.mark.spec("10.16.2")
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", ["vad", "no such stage"])
def test_reading_an_undeclared_stage_is_refused(
    read: Callable[[StageInputs, str], Any], name: str
) -> None:
    inputs = inputs_of(stt=StageOutput.ok(text="hi"), vad=StageOutput.ok(text="x"))

    with pytest.raises(UndeclaredDependencyError) as caught:
        read(inputs, name)

    error = caught.value
    assert error.stage_name == name
    assert error.declared_deps == ("stt", "llm")
    assert error.accessing_stage == "tts"
    assert str(error) == f"stage 'tts' cannot read stage '{name}': declared is 'llm', 'stt'"
    assert error.fix_hint == (f"Add '{name}' to the dependencies of the stage that reads it.")


@pytest.mark.spec("10.16.2")
@pytest.mark.parametrize("read", READS)
def test_reading_is_refused_when_nothing_is_declared(
    read: Callable[[StageInputs, str], Any],
) -> None:
    inputs = StageInputs(SNAPSHOT, {"stt": StageOutput.ok(text="hi")}, declared_deps=())

    with pytest.raises(UndeclaredDependencyError, match="declared is nothing"):
        read(inputs, "stt")


@pytest.mark.spec("10.16.3")
def test_inputs_made_by_hand_declare_the_outputs_they_have() -> None:
    outputs = {"b": StageOutput.ok(n=1), "a": StageOutput.ok(n=2)}

    inputs = create_stage_inputs(snapshot=SNAPSHOT, prior_outputs=outputs)

    assert inputs.stages == inputs.declared_deps == ("b", "a")
    assert inputs.prior_outputs == outputs
    assert inputs.get_from("a", "n") == 2
    with pytest.raises(UndeclaredDependencyError, match="inputs cannot read stage 'c'"):
        inputs.has_output("c")


def test_undeclared_outputs_cannot_be_reached_by_another_way() -> None:
    inputs = inputs_of(stt=StageOutput.ok(text="hi"), vad=StageOutput.ok(level=1))

    assert list(inputs.prior_outputs) == ["stt"]
    assert inputs.get("level") is None


@pytest.mark.spec("10.16.4")
def test_undeclared_reads_give_the_default_when_not_strict() -> None:
    outputs = {"stt": StageOutput.ok(text="hi"), "vad": StageOutput.ok(text="x")}
    inputs = StageInputs(SNAPSHOT, outputs, None, ["stt"], "tts", strict=False)

    assert inputs.get_from("vad", "text", "default") == "default"
    assert not inputs.has_output("vad")
    assert inputs.get_output("vad") is None
    with pytest.raises(MissingInputError):
        inputs.require_from("vad", "text")


@pytest.mark.spec("10.16.5")
def test_skipped_and_failed_dependencies_are_seen() -> None:
    inputs = inputs_of(stt=StageOutput.skip("silence"), llm=StageOutput.fail("down"))

    assert inputs.has_output("stt")
    assert inputs.get_from("stt", "reason") == "silence"
    assert inputs.has_output("llm")
    output = inputs.get_output("llm")
    assert output is not None
    assert output.error == "down"


@pytest.mark.spec("10.16.6")
def test_stream_source_is_no_dependency_and_the_fix_says_where_it_is_read() -> None:
    inputs = StageInputs(
        SNAPSHOT, {"mic": StageOutput.ok(text="x")}, None, (), "stt", stream_sources=["mic"]
    )

    with pytest.raises(UndeclaredDependencyError) as caught:
        inputs.get_from("mic", "text")

    assert caught.value.is_stream_source
    assert "ctx.stream('mic')" in caught.value.fix_hint
    assert "ctx.stream_output('mic')" in caught.value.fix_hint


def test_value_is_taken_from_the_first_declared_stage_that_has_it() -> None:
    # `llm` completed first; declared first is `stt`.
    inputs = inputs_of(llm=StageOutput.ok(text="b", tokens=3), stt=StageOutput.ok(text="a"))

    assert inputs.get("text") == "a"
    assert inputs.get("tokens") == 3
    assert inputs.get("nothing") is None
    assert inputs.get("nothing", 5) == 5


def test_a_value_that_is_none_is_found() -> None:
    inputs = inputs_of(stt=StageOutput.ok(text=None), llm=StageOutput.ok(text="b"))

    assert inputs.get("text", "default") is None
    assert inputs.get_from("stt", "text", "default") is None


def test_required_value_that_is_missing_is_named() -> None:
    inputs = inputs_of(stt=StageOutput.ok(text="hi", words=2))

    with pytest.raises(MissingInputError) as no_key:
        inputs.require_from("stt", "txt")
    with pytest.raises(MissingInputError) as no_output:
        inputs.require_from("llm", "text")

    assert inputs.require_from("stt", "text") == "hi"
    assert (no_key.value.stage_name, no_key.value.key) == ("stt", "txt")
    assert no_key.value.available == ("text", "words")
    assert str(no_key.value) == "'txt' of stage 'stt' is required, found 'text', 'words'"
    assert no_output.value.available == ("stt",)
    assert isinstance(no_key.value, KeyError)


@pytest.mark.parametrize(
    "read",
    [
        lambda inputs, name: inputs.get(name),
        lambda inputs, name: inputs.get_from("stt", name),
        lambda inputs, name: inputs.require_from("stt", name),
        lambda inputs, name: inputs.get_from(name, "key"),
        lambda inputs, name: inputs.require_from(name, "key"),
        lambda inputs, name: inputs.has_output(name),
        lambda inputs, name: inputs.get_output(name),
    ],
)
def test_keys_and_stages_must_be_names(read: Callable[[StageInputs, Any], Any]) -> None:
    inputs = inputs_of(stt=StageOutput.ok())

    with pytest.raises(InvalidTypeError):
        read(inputs, None)
    with pytest.raises(InvalidArgumentError):
        read(inputs, "")


def test_declared_dependencies_are_no_string() -> None:
    with pytest.raises(InvalidTypeError, match="declared_deps must be a collection"):
        StageInputs(SNAPSHOT, {}, declared_deps="stt")
    with pytest.raises(InvalidTypeError, match="stream_sources must be a collection"):
        StageInputs(SNAPSHOT, {}, stream_sources="stt")


def test_a_stage_declared_twice_counts_once() -> None:
    inputs = StageInputs(SNAPSHOT, {}, declared_deps=["a", "b", "a"])

    assert inputs.stages == ("a", "b")


STAGES = st.sampled_from(["a", "b", "c", "d"])
KEYS = st.sampled_from(["x", "y"])


@given(
    st.dictionaries(STAGES, st.dictionaries(KEYS, st.integers())),
    st.lists(STAGES, unique=True),
    KEYS,
)
@pytest.mark.spec("10.16.2")
def test_reads_agree_with_what_was_declared(
    data: dict[str, dict[str, int]], declared: list[str], key: str
) -> None:
    outputs = {stage: StageOutput.ok(values) for stage, values in data.items()}
    inputs = StageInputs(SNAPSHOT, outputs, declared_deps=declared)

    found = [data[stage][key] for stage in declared if key in data.get(stage, {})]
    assert inputs.get(key) == (found[0] if found else None)
    for stage in "abcd":
        if stage in declared:
            assert inputs.has_output(stage) == (stage in data)
            assert inputs.get_from(stage, key) == data.get(stage, {}).get(key)
        else:
            with pytest.raises(UndeclaredDependencyError):
                inputs.has_output(stage)
