from __future__ import annotations

import json
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import (
    ContractSuggestion,
    InvalidArgumentError,
    InvalidTypeError,
    PipelineValidationError,
    get_contract_suggestion,
    register_suggestion,
)
from actorflow.pipeline import (
    DependencyIssue,
    DependencyLintResult,
    GuardRetryPolicy,
    GuardRetryStrategy,
    IssueSeverity,
    Pipeline,
    PipelineBuilder,
    StageSpec,
    chosen,
    edge,
    lint_pipeline,
    stage,
)


def declared(name: Any, after: object = (), **fields: Any) -> Any:
    """A stage as any library might declare it."""
    return SimpleNamespace(name=name, dependencies=after, **fields)


def foreign(*stages: Any, **fields: Any) -> Any:
    """A pipeline as any library might hold it, right or wrong."""
    return SimpleNamespace(stages=stages, **fields)


async def idle(ctx: Any) -> None:
    """Reads nothing."""


def spec(name: str, *after: Any, **options: Any) -> StageSpec:
    return stage(name, options.pop("runner", idle), after=after, **options)


def summary(result: DependencyLintResult) -> list[tuple[str, str, str | None]]:
    """What was found, as (severity, end of the code, stage)."""
    return [
        (str(it.severity), (it.code or "").removeprefix("CONTRACT-004-"), it.stage_name)
        for it in result.issues
    ]


@pytest.mark.spec("20.13.1", "20.13.2")
def test_sound_pipeline_has_no_issues_and_its_edges_are_counted() -> None:
    pipeline = Pipeline.from_stages(
        spec("stt"), spec("llm", "stt"), spec("tts", "stt", "llm"), spec("out", stream_from="tts")
    )

    result = pipeline.lint()

    assert result == DependencyLintResult(True, (), 4, 4)
    assert str(result) == "no problems in 4 stages with 4 edges"
    assert result == lint_pipeline(pipeline)


@pytest.mark.spec("20.13.1", "20.13.9")
def test_all_problems_are_reported_in_declaration_order_each_once() -> None:
    result = lint_pipeline(
        foreign(
            declared("d", ("nowhere", "d")),
            declared("a", "b"),
            declared("alone"),
            declared("b", ("c", "b2")),
            declared("c", "a"),
            declared("b2", "b"),
            declared("x", "y"),
            declared("y", "x"),
            declared("alone"),
            declared("streaming", stream_from=("zzz", "zzz")),
            declared(" "),
        )
    )

    assert summary(result) == [
        ("error", "SELF_DEP", "d"),
        ("error", "MISSING_DEP", "d"),
        ("error", "CYCLE", "a"),
        ("error", "CYCLE", "x"),
        ("error", "DUPLICATE", "alone"),
        ("warning", "ORPHAN", "alone"),
        ("error", "MISSING_DEP", "streaming"),
        ("error", "NAME", " "),
        ("warning", "ORPHAN", " "),
    ]
    assert not result.valid
    assert (result.stage_count, result.dependency_count) == (11, 10)


@pytest.mark.spec("20.13.9")
def test_unknown_dependency_comes_with_what_was_probably_meant() -> None:
    (issue,) = lint_pipeline(foreign(declared("memory"), declared("answer", "memry"))).issues

    assert issue == DependencyIssue(
        "answer",
        "stage 'answer' waits for 'memry', which is not in the pipeline; did you mean 'memory'?",
        IssueSeverity.ERROR,
        accessed_stage="memry",
        suggestion="Write 'memory', or add a stage named 'memry'.",
        code="CONTRACT-004-MISSING_DEP",
    )


@pytest.mark.spec("20.13.1")
def test_a_misspelled_dependency_is_one_issue() -> None:
    result = lint_pipeline(foreign(declared("stt"), declared("a", "sttt", runner=answer)))

    assert summary(result) == [("error", "MISSING_DEP", "a")]


@pytest.mark.spec("20.13.9")
def test_a_group_of_rings_is_one_issue_with_one_example() -> None:
    (issue,) = lint_pipeline(
        foreign(declared("a", ("b", "c")), declared("b", "a"), declared("c", ("b", "a")))
    ).issues

    assert issue.code == "CONTRACT-004-CYCLE"
    assert "a -> b -> a" in issue.message


@pytest.mark.spec("20.13.9")
def test_stream_edges_can_close_a_ring() -> None:
    result = lint_pipeline(foreign(declared("a", stream_from="b"), declared("b", "a")))

    assert summary(result) == [("error", "CYCLE", "a")]


@pytest.mark.spec("20.13.9")
def test_whatever_validate_raises_is_an_error() -> None:
    pipeline = Pipeline.from_stages(
        spec("route", kind="route"),
        spec("other", "route", outputs=("text",)),
        spec("lost", "other", when=chosen("route", "x")),
        spec("needs", "other", inputs=("other:audio",)),
        guard_retry_strategy=GuardRetryStrategy({"nobody": GuardRetryPolicy("route")}),
    )

    result = pipeline.lint()

    assert [code for _, code, _ in summary(result)] == ["GUARD_RETRY", "BRANCH", "INPUT"]
    with pytest.raises(PipelineValidationError, match="2 more"):
        pipeline.validate()


@pytest.mark.spec("20.13.1")
def test_an_empty_pipeline_is_no_valid_one() -> None:
    assert summary(Pipeline().lint()) == [("error", "EMPTY", "")]


@pytest.mark.spec("20.13.9")
def test_orphans_are_warned_about_only_among_others() -> None:
    assert summary(lint_pipeline(foreign(declared("a")))) == []
    assert summary(lint_pipeline(foreign(declared("a"), declared("b")))) == [
        ("warning", "ORPHAN", "a"),
        ("warning", "ORPHAN", "b"),
    ]
    assert summary(lint_pipeline(foreign(declared("a"), declared("b", stream_from="a")))) == []


@pytest.mark.spec("20.13.1")
def test_warnings_leave_a_pipeline_valid() -> None:
    result = lint_pipeline(foreign(declared("a"), declared("b")))

    assert result.valid
    assert len(result.warnings) == 2
    assert result.errors == ()


# What stages read


async def answer(ctx: Any) -> None:
    ctx.inputs.get_from("stt", "text")
    ctx.inputs.get_from("stt", "confidence")


class Answer:
    def __init__(self, *, option: int = 0) -> None:
        raise AssertionError("lint made an instance")

    async def execute(self, ctx: Any) -> None:
        self.history(ctx)

    def history(self, ctx: Any) -> object:
        return ctx.inputs.require_from("memory", "turns")


def line_of(function: Any, offset: int) -> int:
    line: int = function.__code__.co_firstlineno + offset
    return line


@pytest.mark.spec("20.13.9")
def test_read_of_an_undeclared_stage_is_an_error_with_its_line() -> None:
    line = line_of(answer, 1)

    (issue,) = (
        Pipeline.from_stages(
            spec("stt"), spec("route", "stt"), spec("answer", "route", runner=answer)
        )
        .lint()
        .errors
    )

    assert issue == DependencyIssue(
        "answer",
        f"stage 'answer' reads 'stt' (test_lint.py, line {line}), but does not depend on it",
        IssueSeverity.ERROR,
        accessed_stage="stt",
        suggestion="Add 'stt' to the dependencies of 'answer'.",
        line_number=line,
        code="CONTRACT-004-UNDECLARED_READ",
    )


@pytest.mark.spec("20.13.9")
def test_classes_are_read_without_making_one() -> None:
    result = Pipeline.from_stages(spec("memory"), spec("answer", "memory", runner=Answer)).lint()
    missing = Pipeline.from_stages(spec("memory"), spec("x", "memory"), spec("y", runner=Answer))

    assert result.issues == ()
    assert ("error", "UNDECLARED_READ", "y") in summary(missing.lint())


@pytest.mark.spec("20.13.9")
@pytest.mark.parametrize(
    ("name", "fields", "fix"),
    [
        ("stt", {}, "Keep the value in a variable: a stage has no output before it ends."),
        (
            "a",
            {"stream_from": ("stt",)},
            "Use `ctx.stream('stt')` or `await ctx.stream_output('stt')`.",
        ),
        ("a", {}, "Add a stage 'stt', and let 'a' depend on it."),
    ],
)
def test_fix_of_an_undeclared_read_fits_the_case(
    name: str, fields: dict[str, Any], fix: str
) -> None:
    result = lint_pipeline(foreign(declared(name, runner=answer, **fields)))
    (issue,) = (it for it in result.issues if it.code == "CONTRACT-004-UNDECLARED_READ")

    assert issue.suggestion == fix


@pytest.mark.spec("20.13.9")
def test_read_of_a_misspelled_dependency_names_the_dependency() -> None:
    pipeline = Pipeline.from_stages(spec("sttt"), spec("a", "sttt", runner=answer))

    assert [it.suggestion for it in pipeline.lint().errors] == [
        "Write 'sttt': there is no stage 'stt'."
    ]


@pytest.mark.spec("20.13.9")
def test_dependency_that_is_never_read_is_worth_knowing_if_others_are() -> None:
    pipeline = Pipeline.from_stages(
        spec("stt"),
        spec("route", "stt"),
        spec("clock", "stt"),
        spec("silent", "stt", "route"),
        spec("all", "stt", "route", "clock", edge("silent", when="x"), runner=answer),
        spec("picky", "stt", "route", runner=answer, when=chosen("route", "x")),
    )

    result = pipeline.lint()

    assert [(it.severity, it.stage_name, it.accessed_stage) for it in result.issues] == [
        (IssueSeverity.INFO, "all", "route"),
        (IssueSeverity.INFO, "all", "clock"),
    ]
    assert {it.code for it in result.issues} == {"CONTRACT-004-UNUSED_DEP"}
    assert result.valid


@pytest.mark.spec("20.13.9")
def test_sources_are_left_alone_on_request() -> None:
    pipeline = Pipeline.from_stages(spec("answer", runner=answer))

    assert not pipeline.lint().valid
    assert pipeline.lint(analyze_source=False).issues == ()


# Guard retry and work


def retrying(*stages: StageSpec, **retries: str) -> Pipeline:
    policies = {guard: GuardRetryPolicy(retry) for guard, retry in retries.items()}
    return Pipeline.from_stages(*stages, guard_retry_strategy=GuardRetryStrategy(policies))


@pytest.mark.spec("20.13.9")
def test_work_below_a_retry_stage_must_wait_for_its_guard() -> None:
    pipeline = retrying(
        spec("draft"),
        spec("guard", "draft", kind="guard"),
        spec("note", "draft"),
        spec("mail", "note", kind="work"),
        spec("save", "note", "guard", kind="work"),
        spec("log", "save", kind="work"),
        spec("first", kind="work"),
        spec("second", "first"),
        guard="draft",
    )

    (issue,) = pipeline.lint().issues

    assert issue == DependencyIssue(
        "mail",
        "work stage 'mail' runs again whenever guard 'guard' sends 'draft' back:"
        " it does not wait for the guard",
        IssueSeverity.WARNING,
        accessed_stage="guard",
        suggestion="Add 'guard' to the dependencies of 'mail'.",
        code="CONTRACT-004-RETRY_SIDE_EFFECT",
    )


@pytest.mark.spec("20.13.9")
def test_work_must_wait_for_every_guard_of_the_retry_stage() -> None:
    pipeline = retrying(
        spec("draft", kind="work"),
        spec("facts", "draft", kind="guard"),
        spec("tone", "draft", kind="guard"),
        spec("mail", "tone", kind="work"),
        facts="draft",
        tone="draft",
    )

    assert [(it.stage_name, it.accessed_stage) for it in pipeline.lint().issues] == [
        ("mail", "facts")
    ]


@pytest.mark.spec("20.13.1")
def test_every_policy_that_cannot_work_is_reported() -> None:
    pipeline = retrying(
        spec("draft"),
        spec("mail", "draft", kind="work"),
        nobody="draft",
        mail="draft",
    )

    assert [(code, name) for _, code, name in summary(pipeline.lint())] == [
        ("GUARD_RETRY", "nobody"),
        ("GUARD_RETRY", "mail"),
    ]


@pytest.mark.spec("20.13.9")
def test_in_a_ring_nothing_is_said_about_side_effects() -> None:
    pipeline = retrying(
        spec("draft", "mail"),
        spec("guard", "draft", kind="guard"),
        spec("mail", "draft", kind="work"),
        guard="draft",
    )

    assert [code for _, code, _ in summary(pipeline.lint())] == ["CYCLE"]


# What runners have to say


class Opinionated:
    def __init__(self, *opinions: Any) -> None:
        self.opinions = opinions

    async def execute(self, ctx: Any) -> None: ...

    def lint(self, spec: StageSpec, pipeline: Pipeline) -> list[DependencyIssue]:
        for opinion in self.opinions:
            if isinstance(opinion, Exception):
                raise opinion
        return [
            DependencyIssue(spec.name, f"{opinion} of {len(pipeline)}", "warning", code="OWN-001")
            for opinion in self.opinions
        ]


class Strict:
    async def execute(self, ctx: Any) -> None: ...

    @classmethod
    def check_spec(cls, spec: StageSpec, pipeline: Pipeline) -> None:
        raise InvalidArgumentError("memory", 3, "more")


@pytest.mark.spec("20.13.5")
def test_runners_add_their_own_issues() -> None:
    pipeline = Pipeline.from_stages(spec("a"), spec("b", "a", runner=Opinionated("one", "two")))

    result = pipeline.lint()

    assert result.issues == (
        DependencyIssue("b", "one of 2", IssueSeverity.WARNING, code="OWN-001"),
        DependencyIssue("b", "two of 2", IssueSeverity.WARNING, code="OWN-001"),
    )


@pytest.mark.spec("20.13.5", "20.13.9")
def test_what_a_runner_refuses_is_an_error_with_its_code() -> None:
    pipeline = Pipeline.from_stages(spec("a", runner=Strict))

    assert pipeline.lint().issues == (
        DependencyIssue(
            "a",
            "memory must be more, found 3",
            IssueSeverity.ERROR,
            suggestion="Pass what the message asks for.",
            code="ARG-001-VALUE",
        ),
    )
    with pytest.raises(InvalidArgumentError):
        pipeline.validate()


@pytest.mark.spec("20.13.1")
def test_checks_of_runners_that_fail_are_issues_too() -> None:
    class Broken(Opinionated):
        def check_spec(self, spec: StageSpec, pipeline: Pipeline) -> None:
            raise ZeroDivisionError

    pipeline = Pipeline.from_stages(spec("a", runner=Broken(KeyError("x"))))

    assert [it.message for it in pipeline.lint().errors] == [
        "lint of stage 'a' failed: KeyError: 'x'",
        "check_spec of stage 'a' failed: ZeroDivisionError: ",
    ]


@pytest.mark.spec("20.4.3")
def test_suggestions_come_from_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow.errors._suggestions", {})
    register_suggestion(ContractSuggestion("OWN-001", "t", "s", ("Do this.", "Or that.")))
    pipeline = Pipeline.from_stages(spec("b", runner=Opinionated("one")))

    assert [it.suggestion for it in pipeline.lint().issues] == ["Do this."]


# Any object, never an exception


@pytest.mark.spec("20.13.1")
def test_builders_and_graphs_are_linted_like_pipelines() -> None:
    builder = PipelineBuilder("p", [spec("a"), spec("b")])
    graph = SimpleNamespace(specs=builder.stages)

    assert lint_pipeline(builder) == lint_pipeline(graph) == lint_pipeline(builder.pipeline())


@pytest.mark.spec("20.13.1")
@pytest.mark.parametrize("found", [None, "text", 7, SimpleNamespace(stages=7), foreign(object())])
def test_only_what_has_no_stages_is_refused(found: object) -> None:
    with pytest.raises(InvalidTypeError):
        lint_pipeline(found)


names = st.sampled_from(["a", "b", "c", "", " x", "\n", "y" * 300]) | st.text(max_size=3)
anything = st.none() | st.integers() | names | st.lists(names | st.integers(), max_size=3)
stages = st.builds(
    SimpleNamespace,
    name=names | st.none() | st.integers(),
    dependencies=anything,
    stream_from=anything,
    kind=st.sampled_from(["guard", "work", "unheard of", None, 3, []]),
    runner=st.sampled_from([None, answer, Answer, len, 3, Opinionated("x")]),
    when=st.sampled_from([None, "label", 3, chosen("a", "x"), idle]),
    edge_conditions=st.sampled_from([None, {}, {"a": "label"}, {"a": idle}, 3]),
    inputs=anything,
    outputs=anything,
    conditional=st.sampled_from([None, True, "yes"]),
)
strategies = st.none() | st.dictionaries(names, names.map(GuardRetryPolicy), max_size=3).map(
    GuardRetryStrategy
)


@pytest.mark.spec("20.13.1")
@given(st.lists(stages, max_size=6), strategies)
def test_lint_never_raises_on_a_bad_pipeline(found: list[Any], strategy: Any) -> None:
    result = lint_pipeline(foreign(*found, guard_retry_strategy=strategy))

    assert result.valid == (not result.errors)
    assert len(set(result.issues)) == len(result.issues)
    assert json.loads(json.dumps(result.to_dict()))["stage_count"] == len(found)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sets(st.sampled_from("abcdef"))), max_size=5)
)
def test_lint_finds_no_error_where_validate_raises_none(found: list[Any]) -> None:
    unique = {name: spec(name, *sorted(after - {name})) for name, after in found}
    pipeline = Pipeline.from_stages(*unique.values())

    try:
        pipeline.validate()
        refused = None
    except PipelineValidationError as error:
        refused = error.code

    assert pipeline.lint().valid == (refused is None)
    assert refused is None or refused in {it.code for it in pipeline.lint().errors}


# The result


@pytest.mark.spec("20.13.8")
def test_result_as_json() -> None:
    result = lint_pipeline(foreign(declared("a"), declared("b")))

    assert json.loads(json.dumps(result.to_dict())) == {
        "valid": True,
        "stage_count": 2,
        "dependency_count": 0,
        "issues": [
            {
                "stage_name": name,
                "message": f"stage {name!r} has no edge to any other stage",
                "severity": "warning",
                "accessed_stage": None,
                "suggestion": "Connect it with after=..., or move it to a pipeline of its own.",
                "line_number": None,
                "code": "CONTRACT-004-ORPHAN",
            }
            for name in "ab"
        ],
    }


@pytest.mark.spec("20.13.9")
def test_result_as_text() -> None:
    result = lint_pipeline(foreign(declared("a", "x"), declared("b")))

    assert str(result) == (
        "error: a: stage 'a' waits for 'x', which is not in the pipeline\n"
        "warning: b: stage 'b' has no edge to any other stage\n"
        "1 error, 1 warning in 2 stages with 1 edge"
    )


@pytest.mark.spec("20.4.2")
def test_every_code_of_lint_has_a_suggestion() -> None:
    for kind in ("ORPHAN", "UNDECLARED_READ", "UNUSED_DEP", "RETRY_SIDE_EFFECT", "FACTORY"):
        assert get_contract_suggestion(f"CONTRACT-004-{kind}")


# Size


def layered(layers: int, width: int, edges: int) -> list[Any]:
    """Layers of stages, each stage with edges to some of the layer above."""
    rows = [[f"{layer}.{number}" for number in range(width)] for layer in range(layers)]
    found = [declared(name) for name in rows[0]]
    for above, row in pairwise(rows):
        found += [
            declared(name, [above[(number + step) % width] for step in range(edges)])
            for number, name in enumerate(row)
        ]
    return found


@pytest.mark.spec("20.13.6", "20.15.1")
def test_ten_thousand_stages_in_layers_are_linted() -> None:
    stages = layered(100, 100, 3)

    assert lint_pipeline(foreign(*stages)) == DependencyLintResult(True, (), 10_000, 29_700)


@pytest.mark.spec("20.13.6", "20.15.1")
def test_chain_declared_last_to_first_needs_no_recursion() -> None:
    length = 10 * sys.getrecursionlimit()
    chain = [declared(f"s{i}", f"s{i - 1}" if i else ()) for i in reversed(range(length))]

    assert lint_pipeline(foreign(*chain)).issues == ()


@pytest.mark.spec("20.13.6")
def test_rings_by_the_thousand_are_one_issue_each() -> None:
    rings = [
        declared(f"{side}{i}", f"{other}{i}") for i in range(2_000) for side, other in ("ab", "ba")
    ]

    result = lint_pipeline(foreign(*rings))

    assert len(result.errors) == 2_000
