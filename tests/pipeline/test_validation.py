"""What is wrong with a pipeline, found before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

from actorflow.errors import CycleDetectedError, PipelineValidationError
from actorflow.pipeline import (
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    StageSpec,
    all_of,
    any_of,
    chosen,
    edge,
    key_is,
    key_true,
    not_,
    stage,
    validated,
)
from actorflow.pipeline._validation import find_problems, rings


async def work(ctx: object) -> None:
    """A stage that does nothing."""


def spec(name: str, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, work, dependencies=after, **options)


def refused(*specs: StageSpec, **options: Any) -> PipelineValidationError:
    with pytest.raises(PipelineValidationError) as caught:
        validated(specs, **options)
    return caught.value


def context_of(error: PipelineValidationError) -> dict[str, Any]:
    assert error.error_info is not None
    return dict(error.error_info.context)


def codes(*specs: StageSpec, **options: Any) -> list[str]:
    return [error.code.removeprefix("CONTRACT-004-") for error in find_problems(specs, **options)]


@pytest.mark.spec("20.11.1")
def test_no_stages_are_no_pipeline() -> None:
    assert refused().code == "CONTRACT-004-EMPTY"
    assert refused().stages == []


@pytest.mark.spec("20.11.1")
def test_two_stages_of_one_name_are_refused() -> None:
    error = refused(spec("a"), spec("b"), spec("a"))

    assert error.code == "CONTRACT-004-DUPLICATE"
    assert error.stages == ["a"]
    assert "'a'" in str(error)


# Missing dependencies


@pytest.mark.spec("20.11.1")
@pytest.mark.parametrize("field", ["dependencies", "stream_from"])
def test_missing_stage_is_named_with_the_closest_one(field: str) -> None:
    options: dict[str, Any] = {field: "transcibe"}
    error = refused(StageSpec("reply", work, **options), spec("Transcribe"), spec("speak"))

    assert error.code == "CONTRACT-004-MISSING_DEP"
    assert error.stages == ["reply", "transcibe"]
    assert str(error) == (
        "stage 'reply' waits for 'transcibe', which is not in the pipeline;"
        " did you mean 'Transcribe'?"
    )
    assert error.fix_hint == "Write 'Transcribe', or add a stage named 'transcibe'."
    assert context_of(error) == {
        "stage": "reply",
        "dependency": "transcibe",
        "similar": "Transcribe",
        "problem_count": 1,
    }


def test_missing_stage_like_no_other_is_named_alone() -> None:
    error = refused(spec("reply", "xyzzy"))

    assert str(error) == "stage 'reply' waits for 'xyzzy', which is not in the pipeline"
    assert error.fix_hint == "Correct the name, or add a stage named 'xyzzy'."


def test_missing_stage_is_reported_to_everyone_who_waits_for_it() -> None:
    problems = find_problems([spec("clean"), spec("a", "claen"), spec("b", "claen")])

    assert [problem.stages for problem in problems] == [["a", "claen"], ["b", "claen"]]
    assert all("did you mean 'clean'" in str(problem) for problem in problems)


def test_search_for_the_closest_name_has_an_end() -> None:
    many = [spec(f"stage_{number}", f"stag_{number}") for number in range(2000)]

    problems = find_problems(many)

    hints = ["did you mean" in str(problem) for problem in problems]
    assert len(hints) == 2000
    assert hints == [True] * 50 + [False] * 1950


# Cycles


@pytest.mark.spec("20.3.5", "20.11.1")
def test_ring_is_shown_from_dependent_to_dependency() -> None:
    error = refused(spec("a", "b"), spec("b", "c"), spec("c", "a"))

    assert isinstance(error, CycleDetectedError)
    assert error.cycle_path == ["a", "b", "c", "a"]
    assert error.stages == ["a", "b", "c"]
    assert "cycle" in str(error)
    assert "a -> b -> c -> a" in str(error)


@pytest.mark.spec("20.3.6")
def test_first_ring_on_the_way_from_the_first_stage_is_reported() -> None:
    stages = [
        spec("start", ("x", "p")),
        spec("p", "q"),
        spec("q", "p"),
        spec("x", "y"),
        spec("y", ("z", "x")),
        spec("z", "y"),
    ]

    error = refused(*stages)

    assert isinstance(error, CycleDetectedError)
    # start -> x -> y -> z -> y closes first; x is on the way, but not in the ring.
    assert error.cycle_path == ["y", "z", "y"]
    assert all(str(refused(*stages)) == str(error) for _ in range(3))


@pytest.mark.spec("20.3.8")
def test_groups_of_rings_count_once_each() -> None:
    stages = [
        spec("a", ("b", "c")),
        spec("b", "a"),
        spec("c", "a"),
        spec("p", "q"),
        spec("q", "p"),
        spec("lone", "a"),
    ]

    assert codes(*stages) == ["CYCLE", "CYCLE"]


@pytest.mark.spec("20.9.2")
def test_stream_edges_close_rings_too() -> None:
    error = refused(spec("a", stream_from="b"), spec("b", "a"))

    assert isinstance(error, CycleDetectedError)
    assert error.cycle_path == ["a", "b", "a"]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    others = st.lists(st.sampled_from(names), max_size=4)
    return {name: [other for other in draw(others) if other != name] for name in names}


def reach(edges: dict[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = list(edges[start])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(edges[name])
    return found


@pytest.mark.spec("20.3.5", "20.3.6")
@settings(max_examples=200)
@given(graphs())
def test_rings_are_one_way_round_each_group(edges: dict[str, list[str]]) -> None:
    found = list(rings(edges))

    for ring in found:
        assert ring[0] == ring[-1]
        assert len(set(ring)) == len(ring) - 1 > 1
        assert all(there in edges[here] for here, there in itertools.pairwise(ring))
    groups = [
        frozenset(
            name
            for name in edges
            if name in reach(edges, ring[0]) and ring[0] in reach(edges, name)
        )
        for ring in found
    ]
    in_rings = {name for name in edges if name in reach(edges, name)}
    assert len(set(groups)) == len(groups)
    assert set().union(*groups) == in_rings


# Streams


@pytest.mark.spec("20.9.2")
def test_a_producer_is_no_dependency() -> None:
    error = refused(spec("p"), spec("c", "p", stream_from="p"))

    assert error.code == "CONTRACT-004-STREAM"
    assert error.stages == ["c", "p"]
    assert context_of(error) == {"stage": "c", "source": "p", "problem_count": 1}


@pytest.mark.spec("20.9.2")
def test_missing_producer_is_a_missing_dependency() -> None:
    assert codes(spec("c", stream_from="p")) == ["MISSING_DEP"]


@pytest.mark.parametrize(
    ("stages", "path"),
    [
        # The dependency waits for the producer.
        ([spec("p"), spec("d", "p"), spec("c", "d", stream_from="p")], ["c", "d", "p"]),
        # ... also when others stand between,
        (
            [spec("p"), spec("e", "p"), spec("d", "e"), spec("c", "d", stream_from="p")],
            ["c", "d", "e", "p"],
        ),
        # or when it reads the same stream: it ends after its producer.
        ([spec("p"), spec("d", stream_from="p"), spec("c", "d", stream_from="p")], ["c", "d", "p"]),
        # A second producer that cannot start before the first has ended.
        ([spec("p"), spec("q", "p"), spec("c", stream_from=("p", "q"))], ["c", "q", "p"]),
        (
            [
                spec("p"),
                spec("d", stream_from="p"),
                spec("q", "d"),
                spec("r", stream_from="q"),
                spec("c", stream_from=("p", "r")),
            ],
            ["c", "r", "q", "d", "p"],
        ),
    ],
)
def test_producer_must_not_wait_for_its_consumer(
    stages: Sequence[StageSpec], path: list[str]
) -> None:
    error = refused(*stages)

    assert error.code == "CONTRACT-004-STREAM_DEADLOCK"
    assert error.stages == path
    assert context_of(error) == {
        "stage": "c",
        "source": "p",
        "path": path,
        "problem_count": 1,
    }
    assert " -> ".join(path) in str(error)


@pytest.mark.spec("20.3.8")
def test_streams_are_not_looked_into_while_stages_wait_in_a_ring() -> None:
    assert codes(spec("p", "c"), spec("d", "p"), spec("c", "d", stream_from="p")) == ["CYCLE"]


@pytest.mark.spec("20.9.3")
@pytest.mark.parametrize(
    "stages",
    [
        [spec("p"), spec("c", stream_from="p")],
        [spec("p"), spec("d"), spec("c", "d", stream_from="p")],
        [spec("d"), spec("p", "d"), spec("c", "d", stream_from="p")],
        [spec("p"), spec("q", stream_from="p"), spec("c", stream_from="q")],
        [spec("p"), spec("q", stream_from="p"), spec("c", stream_from=("p", "q"))],
        [spec("p"), spec("q"), spec("c", stream_from=("p", "q")), spec("d", stream_from="p")],
        [spec("p"), spec("q", "p"), spec("c", "p", stream_from="q")],
    ],
)
def test_streams_may_be_joined_shared_and_chained(stages: Sequence[StageSpec]) -> None:
    validated(stages)


def test_missing_stages_hide_no_deadlock() -> None:
    stages = [spec("p"), spec("d", ("gone", "p")), spec("c", "d", stream_from="p")]

    assert codes(*stages) == ["MISSING_DEP", "STREAM_DEADLOCK"]


def retry(guard: str, retry_stage: str) -> GuardRetryStrategy:
    return GuardRetryStrategy({guard: GuardRetryPolicy(retry_stage)})


def guard(name: str, after: Any, **options: Any) -> StageSpec:
    return spec(name, after, kind="guard", **options)


@pytest.mark.parametrize(
    ("streaming", "involved"),
    [
        ([spec("tts", stream_from="llm")], ["tts", "llm"]),
        ([spec("tts", stream_from="check")], ["tts", "check"]),
        ([spec("mic"), spec("below", "llm", stream_from="mic")], ["below", "mic"]),
        ([spec("below", "llm"), spec("tts", stream_from="below")], ["tts", "below"]),
        ([spec("mic"), spec("end", ("llm", "check"), stream_from="mic")], ["end", "mic"]),
    ],
)
def test_streams_keep_away_from_what_a_guard_repeats(
    streaming: list[StageSpec], involved: list[str]
) -> None:
    stages = [spec("llm"), guard("check", "llm"), *streaming]

    validated(stages)
    error = refused(*stages, guard_retry_strategy=retry("check", "llm"))

    assert error.code == "CONTRACT-004-STREAM"
    assert error.fix_hint.startswith("Stream before the stage that the guard sends back")
    assert error.stages == involved
    assert context_of(error)["problem_count"] == 1


def test_streams_beside_a_guard_retry_are_fine() -> None:
    stages = [
        spec("mic"),
        spec("stt", stream_from="mic"),
        spec("llm", "stt"),
        guard("check", "llm"),
    ]

    validated(stages, guard_retry_strategy=retry("check", "llm"))


@pytest.mark.spec("20.10.7")
def test_guard_retries_are_validated() -> None:
    error = refused(spec("llm"), spec("check", "llm"), guard_retry_strategy=retry("check", "llm"))

    assert error.code == "CONTRACT-004-GUARD_RETRY"
    assert error.stages == ["check", "llm"]


# Branches

# Typed loosely: a type checker finds this mistake first.
ABOUT_INPUTS: Final[Any] = key_true("r", "k")


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"after": (), "when": "billing"}, []),
        ({"after": ("r", "s"), "when": "billing"}, []),
        ({"after": edge("r", when="sales"), "when": "billing"}, ["r"]),
        ({"after": "r", "when": chosen("s", "billing")}, ["s"]),
        ({"after": "r", "when": key_true("s", "k")}, ["s"]),
        ({"after": "r", "when": all_of(key_true("r", "k"), not_(key_is("s", "k", 1)))}, ["s"]),
        ({"after": "r", "when": key_true("it", "k")}, ["it"]),
        ({"after": "r", "edge_conditions": {"s": "billing"}}, ["s"]),
        ({"after": edge("r", when=ABOUT_INPUTS)}, ["r"]),
        ({"after": edge("r", when=chosen("s", "billing"))}, ["r"]),
        ({"after": "r", "stream_from": "s", "when": key_true("s", "k")}, ["s"]),
    ],
)
def test_condition_that_nobody_could_answer_is_refused(
    options: dict[str, Any], reads: list[str]
) -> None:
    it = spec("it", **options)
    error = refused(spec("r"), spec("s"), it)

    assert error.code == "CONTRACT-004-BRANCH"
    assert error.stages == ["it"]
    assert context_of(error) == {
        "stage": "it",
        "reads": reads,
        "declared": list(it.dependencies),
        "problem_count": 1,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"after": "r", "when": "billing"},
        {"after": edge("r", when="billing")},
        {"after": edge("r", when=chosen("r", "billing"))},
        {"after": ("r", "s"), "when": any_of(chosen("r", "x"), lambda _: True)},
    ],
)
def test_condition_about_declared_dependencies_is_fine(options: dict[str, Any]) -> None:
    validated([spec("r"), spec("s"), spec("it", **options)])


async def asks_later(about: object) -> bool:
    return True


class AsksLater:
    async def __call__(self, about: object) -> bool:
        return True


@pytest.mark.parametrize(
    "options",
    [
        {"when": asks_later},
        {"when": AsksLater()},
        {"when": all_of(key_true("r", "k"), not_(asks_later))},  # type: ignore[arg-type]  # the mistake
        {"after": edge("r", when=asks_later)},  # type: ignore[arg-type]  # the mistake
    ],
)
def test_async_condition_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PipelineValidationError) as caught:
        spec("it", **{"after": "r", **options})

    assert caught.value.code == "CONTRACT-004-BRANCH"
    assert "is async" in str(caught.value)


@pytest.mark.parametrize("combine", [all_of, any_of])
def test_combination_of_nothing_is_refused(combine: Any) -> None:
    with pytest.raises(ValueError, match="at least one condition"):
        combine()


# Inputs


@pytest.mark.spec("20.10.6")
@pytest.mark.parametrize(
    ("inputs", "missing"),
    [
        ("other:text", ["other:text"]),
        ("full:locale", ["full:locale"]),
        ("locale", ["locale"]),
        (("text", "locale", "full:words"), ["locale"]),
        (("nowhere:x", "full:text", "more:text"), ["nowhere:x", "more:text"]),
    ],
)
def test_input_that_no_dependency_declares_is_refused(inputs: Any, missing: list[str]) -> None:
    error = refused(
        spec("other"),
        spec("full", outputs=("text", "words")),
        spec("more", outputs="score"),
        spec("it", ("full", "more"), inputs=inputs),
    )

    assert error.code == "CONTRACT-004-INPUT"
    assert error.stages == ["it"]
    assert context_of(error) == {
        "stage": "it",
        "missing": missing,
        "available": ["full:text", "full:words", "more:score"],
        "problem_count": 1,
    }


@pytest.mark.spec("20.10.6")
def test_input_of_a_stage_without_dependencies_cannot_come() -> None:
    error = refused(spec("it", inputs="text"))

    assert error.code == "CONTRACT-004-INPUT"
    assert str(error) == ("stage 'it' declares the inputs 'text', its dependencies declare nothing")


@pytest.mark.spec("20.10.6")
@pytest.mark.parametrize("inputs", ["text", "full:text", "open:anything", "anything"])
def test_input_that_may_come_is_taken(inputs: str) -> None:
    validated(
        [spec("open"), spec("full", outputs="text"), spec("it", ("open", "full"), inputs=inputs)]
    )


def test_inputs_from_missing_stages_are_reported_once() -> None:
    assert codes(spec("it", "gone", inputs=("gone:text", "locale"))) == ["MISSING_DEP"]


# Several problems


@pytest.mark.spec("20.3.8")
def test_problems_come_by_kind_and_then_as_declared() -> None:
    stages = [
        spec("consumer", ("producer",), stream_from="producer"),
        spec("wants", inputs="text"),
        spec("label", when="x"),
        spec("lost", "gone"),
        spec("lost2", "gone2"),
        spec("producer"),
        spec("label"),
    ]

    assert codes(*stages, guard_retry_strategy=retry("lost", "wants")) == [
        "DUPLICATE",
        "MISSING_DEP",
        "MISSING_DEP",
        "STREAM",
        "BRANCH",
        "INPUT",
        "GUARD_RETRY",
    ]
    assert codes(*stages[1:4], spec("a", "b"), spec("b", "a")) == [
        "MISSING_DEP",
        "CYCLE",
        "BRANCH",
        "INPUT",
    ]


@pytest.mark.spec("20.3.8")
def test_first_of_several_problems_is_raised_with_their_number() -> None:
    error = refused(spec("a", "x"), spec("b", "y"), spec("c", inputs="text"))

    assert error.stages == ["a", "x"]
    assert context_of(error)["problem_count"] == 3
    assert str(error).endswith("(2 more: `actorflow lint` shows all)")


@pytest.mark.spec("20.3.8")
def test_only_problem_is_raised_without_further_ado() -> None:
    error = refused(spec("a", "x"))

    assert context_of(error)["problem_count"] == 1
    assert "more" not in str(error)


# Checks that runners bring along


class Picky:
    def __init__(self, *, problem: str = "") -> None:
        self.problem = problem
        self.asked: list[Any] = []

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""

    def check_spec(self, spec: StageSpec, pipeline: Any) -> None:
        self.asked.append((spec.name, [stage.name for stage in pipeline.stages]))
        if self.problem:
            raise LookupError(self.problem)


def test_runner_may_refuse_its_place() -> None:
    picky = Picky(problem="no sandbox here")

    with pytest.raises(LookupError, match="no sandbox here"):
        validated([spec("a"), StageSpec("b", picky, dependencies="a")])

    assert picky.asked == [("b", ["a", "b"])]


def test_runner_is_asked_when_everything_else_is_right() -> None:
    picky = Picky(problem="no sandbox here")

    with pytest.raises(PipelineValidationError):
        validated([StageSpec("b", picky, dependencies="gone")])

    assert picky.asked == []


def test_runner_gets_to_see_the_pipeline_it_is_in() -> None:
    seen: list[object] = []

    class Curious(Picky):
        def check_spec(self, spec: StageSpec, pipeline: Any) -> None:
            seen.append(pipeline)

    pipeline = Pipeline.from_stages(stage("a", Curious()))
    pipeline.validate()

    assert seen == [pipeline]


def test_class_is_asked_only_what_needs_no_instance() -> None:
    asked: list[str] = []

    class Open(Picky):
        @staticmethod
        def check_spec(spec: StageSpec, pipeline: Any) -> None:
            asked.append(spec.name)

    validated([StageSpec("a", Picky), StageSpec("b", Open)])

    assert asked == ["b"]
