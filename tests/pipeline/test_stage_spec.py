"""What may be declared about a stage, and what is refused at once."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from actorflow.errors import PipelineValidationError
from actorflow.model import FrozenDict, StageKind
from actorflow.pipeline import (
    PipelineSpec,
    StageSpec,
    UnifiedStageSpec,
    chosen,
    edge,
)


async def work(ctx: object) -> None:
    """A stage that does nothing."""


async def other_work(ctx: object) -> None:
    """Another one."""


class Fetch:
    def __init__(self, url: str = "", options: object = None) -> None:
        self.url = url

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""


def refused(make: Callable[..., object], *args: Any, **kwargs: Any) -> PipelineValidationError:
    with pytest.raises(PipelineValidationError) as caught:
        make(*args, **kwargs)
    return caught.value


def test_fields_and_defaults() -> None:
    spec = StageSpec("clean", work)

    assert [field.name for field in attrs.fields(StageSpec)] == [
        "name",
        "runner",
        "kind",
        "dependencies",
        "inputs",
        "outputs",
        "conditional",
        "args",
        "when",
        "edge_conditions",
        "join",
        "stream_from",
        "stream_buffer",
        "timeout",
        "stream_ms",
        "stream_policy",
    ]
    assert attrs.astuple(spec, recurse=False)[2:] == (
        StageKind.TRANSFORM, (), (), (), False, {}, None, {}, "any", (), 16, None, None, "wait",
    )  # fmt: skip


def test_one_class_has_three_names() -> None:
    assert PipelineSpec is StageSpec
    assert UnifiedStageSpec is StageSpec


@pytest.mark.spec("20.1.1")
def test_spec_cannot_be_changed() -> None:
    spec = StageSpec("clean", work)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]  # what the test is about


@pytest.mark.spec("20.1.1")
def test_equal_fields_make_equal_specs() -> None:
    def make(**changes: Any) -> StageSpec:
        given: dict[str, Any] = {"name": "a", "runner": Fetch, "args": {"url": "x"}, **changes}
        return StageSpec(**given)

    changes: list[dict[str, Any]] = [
        {"name": "b"},
        {"runner": work, "args": None},
        {"kind": "work"},
        {"dependencies": "z"},
        {"inputs": "k"},
        {"outputs": "k"},
        {"conditional": True},
        {"args": {"url": "y"}},
        {"when": "billing"},
        {"dependencies": edge("z", when="billing")},
        {"join": "all"},
        {"stream_from": "z"},
        {"stream_buffer": 1},
        {"stream_ms": 200},
        {"stream_policy": "drop_oldest"},
        {"timeout": 1.0},
    ]

    assert make() == make()
    assert hash(make()) == hash(make())
    for change in changes:
        assert make(**change) != make(), change


@pytest.mark.spec("20.1.1")
@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "b"}, False),
        ({"kind": "work"}, False),
        ({"dependencies": "z"}, False),
        ({"inputs": "k"}, False),
        ({"outputs": "k"}, False),
        ({"conditional": True}, False),
        ({"args": {"url": "y"}}, True),
        ({"timeout": 1.0}, True),
        ({"stream_from": "z"}, True),
        ({"when": "billing"}, True),
    ],
)
def test_hash_is_over_the_fields_that_can_always_be_hashed(
    change: dict[str, Any], same: bool
) -> None:
    spec = StageSpec("a", Fetch)

    assert (hash(spec.evolve(**change)) == hash(spec)) is same


@pytest.mark.spec("20.1.1")
def test_args_are_frozen_at_every_depth() -> None:
    options = {"tags": ["a"]}
    spec = StageSpec("fetch", Fetch, args={"options": options})

    options["tags"].append("b")

    assert isinstance(spec.args, FrozenDict)
    assert spec.args == {"options": {"tags": ["a"]}}
    assert spec.config is spec.args


@pytest.mark.spec("20.1.2")
@pytest.mark.parametrize(
    ("given", "names", "conditions"),
    [
        ("route", ("route",), {}),
        (edge("route"), ("route",), {}),
        (("b", "a", "b"), ("b", "a"), {}),
        (["a", edge("b", when="x"), "a"], ("a", "b"), {"b": "x"}),
        (iter(["b", "a"]), ("b", "a"), {}),
        ([edge("b", when="x"), "b"], ("b",), {"b": "x"}),
        ((), (), {}),
    ],
)
def test_dependencies_are_names_or_edges(
    given: Any, names: tuple[str, ...], conditions: dict[str, str]
) -> None:
    spec = StageSpec("a_stage", work, dependencies=given)

    assert spec.dependencies == names
    assert spec.edge_conditions == conditions


@pytest.mark.spec("20.1.2")
def test_stream_sources_are_written_like_dependencies() -> None:
    assert StageSpec("tts", work, stream_from="llm").stream_from == ("llm",)
    assert StageSpec("tts", work, stream_from=[edge("b"), "a", "b"]).stream_from == ("b", "a")


@pytest.mark.spec("20.1.3")
def test_evolve_gives_a_changed_copy() -> None:
    spec = StageSpec("a", Fetch, dependencies="z", args={"url": "x"})

    copy = spec.evolve(timeout=2.0, config={"url": "y"})

    assert (copy.timeout, copy.args) == (2.0, {"url": "y"})
    assert (spec.timeout, spec.args) == (None, {"url": "x"})
    assert copy.dependencies == ("z",)


@pytest.mark.spec("20.1.3")
def test_evolve_drops_the_conditions_of_edges_that_are_gone() -> None:
    spec = StageSpec("a", work, dependencies=[edge("x", when="one"), edge("y", when="two")])

    assert spec.evolve(dependencies="y").edge_conditions == {"y": "two"}
    assert spec.evolve(dependencies=edge("y", when="3")).edge_conditions == {"y": "3"}
    assert spec.evolve(join="all").edge_conditions == {"x": "one", "y": "two"}


@pytest.mark.spec("20.1.3")
def test_evolved_copy_is_validated() -> None:
    spec = StageSpec("a", work)

    assert refused(spec.evolve, dependencies=("a",)).code == "CONTRACT-004-SELF_DEP"


def test_spec_pickles() -> None:
    spec = StageSpec("a", Fetch, dependencies=edge("b", when="x"), args={"url": "x"})

    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "cannot be empty"),
        ("  ", "whitespace"),
        ("\t\n", "whitespace"),
        (" a", "blanks"),
        ("a ", "blanks"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("a\x85b", "control characters"),
        ("a" * 201, "longer than 200 characters"),
        (None, "must be text"),
        (work, "must be text"),
    ],
)
def test_unusable_name_is_refused(name: Any, says: str) -> None:
    error = refused(StageSpec, name, work)

    assert error.code == "CONTRACT-004-NAME"
    assert says in str(error)
    assert error.error_info is not None
    assert error.error_info.context == {"name": str(name)}
    assert error.stages == [str(name)]


@pytest.mark.parametrize("name", ["a", "a b", "tts:en", "Übersetzung", "a" * 200])
def test_usable_name_is_taken(name: str) -> None:
    assert StageSpec(name, work).name == name


@pytest.mark.parametrize("field", ["dependencies", "stream_from"])
def test_stage_cannot_depend_on_itself(field: str) -> None:
    error = refused(StageSpec, "a", work, **{field: ("b", "a")})

    assert error.code == "CONTRACT-004-SELF_DEP"
    assert "'a' cannot depend on itself" in str(error)
    assert error.stages == ["a"]


@pytest.mark.parametrize(
    ("options", "field", "found"),
    [
        ({"timeout": 0}, "timeout", "0"),
        ({"timeout": -1.5}, "timeout", "-1.5"),
        ({"timeout": math.nan}, "timeout", "nan"),
        ({"timeout": "2"}, "timeout", "'2'"),
        ({"timeout": True}, "timeout", "True"),
        ({"stream_buffer": 0}, "stream_buffer", "0"),
        ({"stream_buffer": 1.5}, "stream_buffer", "1.5"),
        ({"stream_buffer": True}, "stream_buffer", "True"),
        ({"stream_ms": 0}, "stream_ms", "0"),
        ({"stream_ms": "200"}, "stream_ms", "'200'"),
        ({"stream_policy": "drop"}, "stream_policy", "'drop'"),
        ({"join": "some"}, "join", "'some'"),
        ({"conditional": "yes"}, "conditional", "'yes'"),
        ({"inputs": ["text", ""]}, "inputs", "''"),
        ({"outputs": [1]}, "outputs", "1"),
        ({"inputs": 3}, "inputs", "3"),
        ({"dependencies": 3}, "dependencies", "3"),
        ({"dependencies": [""]}, "dependencies", "''"),
        ({"stream_from": [None]}, "stream_from", "None"),
        ({"args": ["url"]}, "args", "['url']"),
    ],
)
def test_impossible_option_is_refused(options: dict[str, Any], field: str, found: str) -> None:
    error = refused(StageSpec, "a", Fetch, **options)

    assert error.code == "CONTRACT-004-OPTION"
    assert field in str(error)
    assert found in str(error)
    assert error.error_info is not None
    assert error.error_info.context == {"stage": "a", "field": field, "found": found}


def test_function_as_dependency_is_answered_with_its_name() -> None:
    error = refused(StageSpec, "a", work, dependencies=[other_work])

    assert error.code == "CONTRACT-004-OPTION"
    assert error.fix_hint == "Write the name of the stage: 'other_work'."


@pytest.mark.parametrize("timeout", [None, 1, 0.1, math.inf])
def test_possible_timeout_is_taken(timeout: float | None) -> None:
    assert StageSpec("a", work, timeout=timeout).timeout == timeout


def test_args_and_config_exclude_each_other() -> None:
    error = refused(StageSpec, "a", Fetch, args={"url": "x"}, config={"url": "y"})

    assert error.code == "CONTRACT-004-OPTION"
    assert StageSpec("a", Fetch, config={"url": "y"}).args == {"url": "y"}


@pytest.mark.parametrize("runner", [work, Fetch("x")])
def test_args_are_for_classes(runner: Any) -> None:
    error = refused(StageSpec, "a", runner, args={"url": "x"})

    assert error.code == "CONTRACT-004-OPTION"
    assert "args are for a class" in str(error)


def test_unknown_kind_is_refused_with_the_known_ones() -> None:
    error = refused(StageSpec, "a", work, kind="filter")

    assert error.code == "CONTRACT-004-KIND"
    assert "'filter'" in str(error)
    assert "transform, enrich, route, guard, work, agent" in str(error)


@pytest.mark.parametrize(
    "when",
    [
        True,
        "",
        3,
        Fetch,
        other_work,
        [chosen("r", "x")],
    ],
)
def test_when_is_a_label_or_a_plain_function(when: Any) -> None:
    error = refused(StageSpec, "a", work, dependencies="r", when=when)

    assert error.code == "CONTRACT-004-BRANCH"
    assert "'a'" in str(error)


def test_stream_edge_takes_no_condition() -> None:
    error = refused(StageSpec, "tts", work, stream_from=edge("llm", when="spoken"))

    assert error.code == "CONTRACT-004-STREAM"
    assert error.stages == ["tts", "llm"]
