"""The builder that checks at every step."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest

from actorflow.errors import CycleDetectedError, InvalidTypeError, PipelineValidationError
from actorflow.model import StageKind
from actorflow.pipeline import Pipeline, PipelineBuilder, StageSpec, edge, stage


async def work(ctx: object) -> None:
    """A stage that does nothing."""


async def other_work(ctx: object) -> None:
    """Another one."""


class Fetch:
    def __init__(self, url: str = "") -> None:
        self.url = url

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""


def spec(name: str, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, work, dependencies=after, **options)


def code(caught: pytest.ExceptionInfo[PipelineValidationError]) -> str:
    return caught.value.code.removeprefix("CONTRACT-004-")


@pytest.mark.spec("20.5.1")
@pytest.mark.parametrize(
    "stages",
    [
        [spec("b", "a"), spec("a")],
        {"b": spec("b", "a"), "a": spec("a")},
        {"b": spec("x", "a"), "a": spec("y")},
        iter([spec("b", "a"), spec("a")]),
    ],
)
def test_given_stages_may_come_in_any_order(stages: Any) -> None:
    builder = PipelineBuilder("voice", stages)

    assert builder.name == "voice"
    assert builder.stages == (spec("b", "a"), spec("a"))


@pytest.mark.spec("20.5.1")
def test_given_stages_are_checked_as_a_whole() -> None:
    with pytest.raises(PipelineValidationError) as missing:
        PipelineBuilder(stages=[spec("b", "a")])
    with pytest.raises(CycleDetectedError) as cycle:
        PipelineBuilder(stages=[spec("b", "a"), spec("a", "b")])

    assert code(missing) == "MISSING_DEP"
    assert code(cycle) == "CYCLE"
    assert cycle.value.cycle_path == ["b", "a", "b"]


@pytest.mark.spec("20.5.1")
def test_empty_builder_is_valid() -> None:
    assert PipelineBuilder().stages == ()
    assert PipelineBuilder().name == "pipeline"


@pytest.mark.spec("20.5.2")
def test_added_stage_may_depend_on_what_is_there() -> None:
    before = PipelineBuilder().with_stage("a", work)

    after = before.with_stage("b", work, ("a",))

    assert after.stage_names() == ["a", "b"]
    assert before.stage_names() == ["a"]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before._pipeline = after.pipeline()  # type: ignore[misc]


@pytest.mark.spec("20.5.2")
def test_added_stage_is_checked_at_once() -> None:
    builder = PipelineBuilder().with_stage("a", work)

    with pytest.raises(PipelineValidationError) as caught:
        builder.with_stage("c", work, "b")

    assert code(caught) == "MISSING_DEP"


@pytest.mark.spec("20.5.2")
def test_stages_added_together_may_depend_on_each_other() -> None:
    builder = PipelineBuilder().with_stage("a", work)

    assert builder.with_stages(spec("c", "b"), spec("b", "a")).stage_names() == ["a", "b", "c"]
    with pytest.raises(CycleDetectedError):
        builder.with_stages(spec("c", ("b", "a")), spec("b", "c"))


@pytest.mark.spec("20.5.2")
@pytest.mark.parametrize(
    ("added", "problem"),
    [
        (spec("b", "a", stream_from="a"), "STREAM"),
        (spec("b", when="x"), "BRANCH"),
        (spec("b", "a", inputs="words"), "INPUT"),
    ],
)
def test_everything_about_an_added_stage_is_checked(added: StageSpec, problem: str) -> None:
    builder = PipelineBuilder(stages=[spec("a", outputs="text")])

    with pytest.raises(PipelineValidationError) as caught:
        builder.with_stages(added)

    assert code(caught) == problem


def test_with_stage_takes_everything_a_spec_has() -> None:
    builder = PipelineBuilder(stages=[spec("a"), spec("p")]).with_stage(
        "it", Fetch, ["a"], ["a:text"], ["words"], True, {"url": "x"},
        kind="work", when="left", join="all", stream_from="p", stream_buffer=2, timeout=1.0,
    )  # fmt: skip

    assert builder.get_stage("it") == StageSpec(
        "it", Fetch, StageKind.WORK, ("a",), ("a:text",), ("words",), True, {"url": "x"},
        "left", None, "all", ("p",), 2, 1.0,
    )  # fmt: skip


def test_builder_tells_what_it_has() -> None:
    builder = PipelineBuilder(stages=[spec("a")])

    assert builder.get_stage("a") == spec("a")
    assert builder.get_stage("b") is None
    assert builder.has_stage("a")
    assert not builder.has_stage("b")
    assert isinstance(builder.pipeline(), Pipeline)
    assert builder.pipeline().stages == builder.stages


def test_existing_name_needs_replace() -> None:
    builder = PipelineBuilder(stages=[spec("a"), spec("b", "a")])

    with pytest.raises(PipelineValidationError) as caught:
        builder.with_stage("a", other_work)
    replaced = builder.with_stage("a", other_work, replace=True)

    assert code(caught) == "DUPLICATE"
    assert "replace=True" in caught.value.fix_hint
    assert replaced.stages == (StageSpec("a", other_work), spec("b", "a"))


def test_replaced_stage_may_break_others_and_is_refused() -> None:
    builder = PipelineBuilder(stages=[spec("a", outputs="text"), spec("b", "a", inputs="text")])

    with pytest.raises(PipelineValidationError) as cycle:
        builder.with_stage("a", work, "b", replace=True)
    with pytest.raises(PipelineValidationError) as contract:
        builder.with_stage("a", work, outputs="words", replace=True)

    assert code(cycle) == "CYCLE"
    assert code(contract) == "INPUT"
    assert contract.value.stages == ["b"]


# Compose


@pytest.mark.spec("20.5.3")
def test_composed_builder_has_both_names_and_both_stages_in_order() -> None:
    left = PipelineBuilder("hear", [spec("b"), spec("a")])
    right = PipelineBuilder("say", [spec("d"), spec("a"), spec("c")])

    whole = left.compose(right)

    assert isinstance(whole, PipelineBuilder)
    assert whole.name == "hear+say"
    assert [it.name for it in whole.stages] == ["b", "a", "d", "c"]
    assert left.compose(left).name == "hear+hear"
    assert left.compose(Pipeline("say", [spec("c", "b")])).stage_names() == ["b", "a", "c"]


@pytest.mark.spec("20.5.4")
def test_equal_specs_are_merged() -> None:
    left = PipelineBuilder("l", [StageSpec("a", Fetch, args={"url": "x"})])
    right = PipelineBuilder("r", [StageSpec("a", Fetch, args={"url": "x"})])

    assert left.compose(right).stages == left.stages


@pytest.mark.spec("20.5.4")
@pytest.mark.parametrize(
    ("theirs", "fields"),
    [
        (StageSpec("it", other_work), ["runner"]),
        (StageSpec("it", work, "work"), ["kind"]),
        (StageSpec("it", work, dependencies="a"), ["dependencies"]),
        (StageSpec("it", work, conditional=True), ["conditional"]),
        (StageSpec("it", work, timeout=1, stream_buffer=2), ["stream_buffer", "timeout"]),
        (
            StageSpec("it", work, dependencies=edge("a", when="x")),
            ["dependencies", "edge_conditions"],
        ),
    ],
)
def test_different_specs_of_one_name_conflict(theirs: StageSpec, fields: list[str]) -> None:
    left = PipelineBuilder(stages=[spec("a"), StageSpec("it", work)])
    right = PipelineBuilder(stages=[spec("a"), theirs])

    with pytest.raises(PipelineValidationError) as caught:
        left.compose(right)

    assert code(caught) == "CONFLICT"
    assert caught.value.stages == ["it"]
    assert caught.value.error_info is not None
    assert caught.value.error_info.context == {"stage": "it", "fields": fields}
    assert ", ".join(fields) in str(caught.value)


@pytest.mark.spec("20.5.5")
def test_composed_whole_is_validated() -> None:
    left = PipelineBuilder(stages=[spec("a"), spec("b", "a")])
    right = Pipeline(stages=[spec("x", "y")])

    with pytest.raises(PipelineValidationError) as caught:
        left.compose(right)

    assert code(caught) == "MISSING_DEP"


@pytest.mark.spec("20.5.5")
def test_cycle_across_the_halves_is_found() -> None:
    left = Pipeline(stages=[spec("a", "b")])
    right = PipelineBuilder(stages=[spec("c")]).pipeline().with_stages(spec("b", "a"))

    with pytest.raises(CycleDetectedError):
        PipelineBuilder().compose(left.compose(right))


@pytest.mark.parametrize("other", [None, "voice", [spec("a")]])
def test_only_pipelines_and_builders_compose(other: Any) -> None:
    with pytest.raises(InvalidTypeError, match="a Pipeline or PipelineBuilder"):
        PipelineBuilder().compose(other)


@pytest.mark.spec("20.5.7")
def test_names_come_in_topological_order() -> None:
    builder = PipelineBuilder(
        stages=[spec("e", "d"), spec("c"), spec("d", ("c", "a")), spec("a"), spec("b")]
    )

    assert builder.stage_names() == ["c", "a", "d", "e", "b"]


@pytest.mark.spec("20.5.8", "20.15.3")
def test_ten_thousand_single_additions_take_seconds() -> None:
    builder = PipelineBuilder()
    started = time.process_time()

    for number in range(10_000):
        builder = builder.with_stage(f"s{number}", work, f"s{number - 1}" if number else ())

    assert len(builder.pipeline()) == 10_000
    # Half a second where this was written; a check of the whole each time takes minutes.
    assert time.process_time() - started < 10


@pytest.mark.spec("20.5.8")
def test_addition_looks_at_its_own_stages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = PipelineBuilder(stages=[spec(f"s{number}") for number in range(100)])
    looked_at: list[int] = []

    def find_problems(specs: Any, **others: Any) -> list[PipelineValidationError]:
        looked_at.append(len(specs))
        return []

    monkeypatch.setattr("actorflow.pipeline._builder.find_problems", find_problems)
    builder.with_stage("a", work, "s1")
    builder.with_stages(spec("a"), spec("b"))

    assert looked_at == [1, 2]


def test_bad_name_of_a_builder_is_refused() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        PipelineBuilder("")

    assert code(caught) == "NAME"


def test_decorated_stages_can_be_added() -> None:
    @stage
    async def clean(ctx: object) -> None:
        """A stage that does nothing."""

    assert PipelineBuilder().with_stages(clean).stages == (StageSpec("clean", clean),)
