"""Whether a stage may start: the rules, played through without a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import PipelineValidationError, PredicateError
from actorflow.model import ContextSnapshot, RunIdentity, StageOutput
from actorflow.pipeline import (
    Decision,
    Fail,
    FailureMode,
    Settled,
    Skip,
    StageSpec,
    Start,
    all_of,
    any_of,
    check_branch,
    check_outputs,
    chosen,
    decide,
    edge,
    key_is,
    key_true,
    not_,
    validated,
)
from actorflow.stages import SkippedBy, StageInputs

SNAPSHOT: Final = ContextSnapshot(RunIdentity())

OK: Final = Settled(StageOutput.ok())
FAILED: Final = Settled(StageOutput.fail("boom"))
RETURNED_SKIP: Final = Settled(StageOutput.skip("nothing to do"), "stage")


def ok(**data: Any) -> Settled:
    return Settled(StageOutput.ok(data))


def skipped(by: SkippedBy, reason: str = "no") -> Settled:
    return Settled(StageOutput.skip(reason), by)


async def work(ctx: object) -> None:
    """A stage that does nothing."""


def decision(
    settled: Mapping[str, Settled | None],
    mode: FailureMode = FailureMode.FAIL_FAST,
    **options: Any,
) -> Decision:
    """What becomes of a stage after the ones in `settled`; None stands for a running producer."""
    spec = StageSpec("it", work, **options)
    # Whatever the options do not mention goes unused, like other stages of a run.
    sources = [StageSpec(name, work) for name in settled]
    wiring = validated([*sources, spec])
    outputs = {name: ended.output for name, ended in settled.items() if ended is not None}

    def read_inputs() -> StageInputs:
        return StageInputs(SNAPSHOT, outputs, None, spec.dependencies, "it")

    return decide(wiring, wiring.index["it"], [*settled.values(), None], mode, read_inputs)


def after(*names: str) -> dict[str, Any]:
    return {"dependencies": names}


# Failure (a)


@pytest.mark.spec("20.8.2")
def test_nothing_runs_below_a_failure() -> None:
    found = decision({"a": OK, "b": FAILED}, FailureMode.CONTINUE_ON_FAILURE, **after("a", "b"))

    assert found == Skip("dependency 'b' failed", "failure")


@pytest.mark.spec("20.8.2")
def test_skip_further_down_names_the_stage_that_failed() -> None:
    below = Settled(StageOutput.skip("dependency 'b' failed"), "failure")

    found = decision({"c": below}, FailureMode.CONTINUE_ON_FAILURE, **after("c"))

    assert found == Skip("dependency 'b' failed", "failure")


@pytest.mark.spec("20.8.2")
def test_failure_decides_before_join_conditional_when_and_inputs() -> None:
    found = decision(
        {"a": FAILED, "b": skipped("when"), "c": ok(skip_reason="later")},
        FailureMode.CONTINUE_ON_FAILURE,
        dependencies=("a", "b", "c"),
        join="all",
        conditional=True,
        when=key_true("a", "k"),
        inputs=("c:k",),
    )

    assert found == Skip("dependency 'a' failed", "failure")


@pytest.mark.spec("20.8.2")
def test_join_always_runs_below_a_failure() -> None:
    found = decision({"a": FAILED}, FailureMode.CONTINUE_ON_FAILURE, join="always", **after("a"))

    assert found == Start()


@pytest.mark.spec("20.8.2")
@pytest.mark.parametrize("settled", [FAILED, skipped("failure")])
def test_best_effort_runs_below_a_failure(settled: Settled) -> None:
    assert decision({"a": settled}, FailureMode.BEST_EFFORT, **after("a")) == Start()


@pytest.mark.spec("20.8.2")
def test_best_effort_still_asks_the_other_rules() -> None:
    run = partial(decision, {"a": FAILED}, FailureMode.BEST_EFFORT, dependencies="a")

    assert run(when=key_true("a", "k")) == Skip("condition not met: a:k", "when")
    assert run(when="billing") == Skip("not taken from 'a'", "dependency")


def test_failed_producer_counts_like_a_failed_dependency() -> None:
    mode = FailureMode.CONTINUE_ON_FAILURE

    assert decision({"p": FAILED}, mode, stream_from="p") == Skip(
        "dependency 'p' failed", "failure"
    )
    assert decision({"p": FAILED}, mode, stream_from="p", join="always") == Start()


# Edges and joins (b)


@pytest.mark.spec("20.8.4")
def test_stage_without_edges_starts() -> None:
    assert decision({}) == Start()
    assert decision({}, join="all") == Start()


@pytest.mark.spec("20.8.3")
@pytest.mark.parametrize("by", ["when", "dependency", "conditional"])
def test_edge_from_a_stage_that_a_condition_skipped_is_dead(by: SkippedBy) -> None:
    found = decision({"a": skipped(by)}, **after("a"))

    assert found == Skip("not taken from 'a'", "dependency")


@pytest.mark.spec("20.8.3")
def test_stage_that_returned_skip_leaves_its_edges_live() -> None:
    assert decision({"a": RETURNED_SKIP}, join="all", **after("a")) == Start()


@pytest.mark.spec("20.8.3")
def test_condition_of_an_edge_sees_the_output_of_its_source() -> None:
    def is_long(output: StageOutput) -> bool:
        return bool(output.data["words"] > 10)

    run = partial(decision, dependencies=edge("a", when=is_long))

    assert run({"a": ok(words=11)}) == Start()
    assert run({"a": ok(words=10)}) == Skip("not taken from 'a'", "dependency")


@pytest.mark.spec("20.8.3")
def test_condition_of_an_edge_is_not_asked_about_a_skipped_source() -> None:
    def never(output: StageOutput) -> bool:
        raise AssertionError

    found = decision({"a": skipped("when")}, dependencies=edge("a", when=never))

    assert found == Skip("not taken from 'a'", "dependency")


@pytest.mark.spec("20.8.4")
@pytest.mark.parametrize(
    ("join", "live", "starts"),
    [
        ("any", (True, True), True),
        ("any", (False, True), True),
        ("any", (False, False), False),
        ("all", (True, True), True),
        ("all", (False, True), False),
        ("all", (False, False), False),
        ("always", (True, True), True),
        ("always", (False, True), True),
        ("always", (False, False), True),
    ],
)
def test_join_counts_live_edges(join: str, live: tuple[bool, bool], starts: bool) -> None:
    settled = {
        name: OK if lives else skipped("when") for name, lives in zip("ab", live, strict=True)
    }

    found = decision(settled, join=join, **after("a", "b"))

    assert isinstance(found, Start) is starts


@pytest.mark.spec("20.8.4")
def test_reason_names_the_dead_sources_only() -> None:
    settled = {"a": skipped("when"), "b": OK, "c": skipped("dependency")}

    found = decision(settled, join="all", **after("a", "b", "c"))

    assert found == Skip("not taken from 'a', 'c'", "dependency")


@given(
    join=st.sampled_from(["any", "all", "always"]),
    live=st.lists(st.booleans(), max_size=5),
)
@pytest.mark.spec("20.8.4")
def test_join_rule_is_any_all_or_always(join: str, live: list[bool]) -> None:
    names = [f"s{number}" for number in range(len(live))]
    settled = {
        name: OK if lives else skipped("when") for name, lives in zip(names, live, strict=True)
    }

    found = decision(settled, join=join, **after(*names))

    rule: Callable[[list[bool]], bool] = {
        "any": lambda edges: any(edges) or not edges,
        "all": all,
        "always": lambda _: True,
    }[join]
    assert isinstance(found, Start) is rule(live)


@pytest.mark.spec("20.9.4")
def test_edge_from_a_skipped_producer_is_dead() -> None:
    assert decision({"p": skipped("when")}, stream_from="p") == Skip(
        "not taken from 'p'", "dependency"
    )
    assert decision({"p": skipped("when"), "q": None}, stream_from=("p", "q")) == Start()
    assert decision({"p": skipped("when"), "q": None}, stream_from=("p", "q"), join="all") == Skip(
        "not taken from 'p'", "dependency"
    )
    assert decision({"p": skipped("when"), "q": OK}, stream_from="p", **after("q")) == Start()


def test_edge_from_a_running_or_ended_producer_is_live() -> None:
    assert decision({"p": None}, stream_from="p", join="all") == Start()
    assert decision({"p": OK}, stream_from="p", join="all") == Start()


# Branches


@pytest.mark.spec("20.8.1")
@pytest.mark.parametrize(
    ("settled", "lives"),
    [
        (ok(branch="billing"), True),
        (ok(branch="sales"), False),
        (ok(branch=["sales", "billing"]), True),
        (ok(branch=("billing",)), True),
        (ok(branch=[]), False),
        (ok(), False),
        (ok(branch=None), False),
        (Settled(StageOutput.fail("boom", {"branch": "billing"})), False),
        (Settled(StageOutput.skip("no", {"branch": "billing"}), "stage"), False),
    ],
)
def test_label_asks_what_the_router_chose(settled: Settled, lives: bool) -> None:
    expected = Start() if lives else Skip("not taken from 'route'", "dependency")
    run = partial(decision, {"route": settled}, FailureMode.BEST_EFFORT)

    assert run(dependencies=edge("route", when="billing")) == expected
    assert run(dependencies="route", when="billing") == expected


@pytest.mark.spec("20.8.9")
@pytest.mark.parametrize(
    ("settled", "starts"),
    [
        (ok(), True),
        (ok(branch=None), True),
        (RETURNED_SKIP, True),
        (ok(branch="billing"), True),
        (ok(branch=["sales", "billing"]), True),
        (ok(branch="sales"), False),
        (ok(branch=[]), False),
    ],
)
def test_default_branch_runs_when_nothing_was_chosen(settled: Settled, starts: bool) -> None:
    found = decision(
        {"route": settled}, when=chosen("route", "billing", default=True), **after("route")
    )

    assert found == (Start() if starts else Skip("condition not met: billing", "when"))


@pytest.mark.spec("20.8.9")
@pytest.mark.parametrize("settled", [ok(), ok(branch=None)])
def test_labelled_edges_are_dead_when_nothing_was_chosen(settled: Settled) -> None:
    assert decision({"route": settled}, when=chosen("route", "billing"), **after("route")) == Skip(
        "condition not met: billing", "when"
    )


def branching(*consumers: StageSpec) -> Any:
    return validated([StageSpec("route", work), StageSpec("clean", work), *consumers])


@pytest.mark.spec("20.8.10")
@pytest.mark.parametrize(
    ("branch", "unknown"),
    [
        ("billing", None),
        (["sales", "billing"], None),
        (None, None),
        ([], None),
        ("biling", "biling"),
        (["sales", "x", "y"], "x"),
        (3, 3),
    ],
)
def test_router_may_choose_only_labels_that_somebody_uses(branch: Any, unknown: Any) -> None:
    wiring = branching(
        StageSpec("a", work, dependencies=["clean", edge("route", when="sales")]),
        StageSpec("b", work, dependencies="route", when="billing"),
        StageSpec(
            "c",
            work,
            dependencies=("route", "clean"),
            when=any_of(key_true("clean", "k"), not_(chosen("route", "other"))),
        ),
    )

    error = check_branch(wiring, wiring.index["route"], StageOutput.ok(branch=branch))

    if unknown is None:
        assert error is None
    else:
        assert error is not None
        assert error.code == "RUN-007-BRANCH"
        assert (error.stage, error.branch) == ("route", unknown)
        assert error.known == ("sales", "billing", "other")
        assert "'route'" in str(error)
        assert "'sales', 'billing', 'other'" in str(error)


@pytest.mark.spec("20.8.10")
def test_stage_that_nobody_asks_for_a_branch_may_use_the_key_freely() -> None:
    wiring = branching(StageSpec("a", work, dependencies=edge("route", when="sales")))

    assert check_branch(wiring, wiring.index["clean"], StageOutput.ok(branch="main")) is None


@pytest.mark.spec("20.8.10")
def test_choice_of_a_router_that_did_not_end_ok_is_not_checked() -> None:
    wiring = branching(StageSpec("a", work, dependencies=edge("route", when="sales")))
    failed = StageOutput.fail("boom", {"branch": "x"})

    assert check_branch(wiring, wiring.index["route"], failed) is None


# conditional (c)


@pytest.mark.spec("20.8.5")
def test_conditional_stage_is_skipped_with_the_first_reason() -> None:
    settled = {"a": ok(), "b": ok(skip_reason="cached"), "c": ok(skip_reason="late")}

    found = decision(settled, conditional=True, **after("a", "b", "c"))

    assert found == Skip("cached", "conditional")


@pytest.mark.spec("20.8.5")
@pytest.mark.parametrize("data", [{}, {"skip_reason": None}, {"skip_reason": ""}])
def test_conditional_stage_without_a_reason_runs(data: dict[str, Any]) -> None:
    assert decision({"a": ok(**data)}, conditional=True, **after("a")) == Start()


@pytest.mark.spec("20.8.5")
def test_other_stages_do_not_look_for_a_reason() -> None:
    assert decision({"a": ok(skip_reason="cached")}, **after("a")) == Start()


@pytest.mark.spec("20.8.5")
def test_reason_need_not_be_text() -> None:
    assert decision({"a": ok(skip_reason=7)}, conditional=True, **after("a")) == Skip(
        "7", "conditional"
    )


@pytest.mark.spec("20.8.2")
def test_conditional_decides_before_when() -> None:
    found = decision(
        {"a": ok(skip_reason="cached")}, conditional=True, when=key_true("a", "k"), **after("a")
    )

    assert found == Skip("cached", "conditional")


# when (d)


@pytest.mark.spec("20.8.6")
def test_condition_that_is_not_met_skips_with_its_name() -> None:
    def is_question(inputs: StageInputs) -> bool:
        return bool(inputs.get("text", "").endswith("?"))

    run = partial(decision, when=is_question, dependencies="a")

    assert run({"a": ok(text="why?")}) == Start()
    assert run({"a": ok(text="so.")}) == Skip("condition not met: is_question", "when")


class Threshold:
    def __call__(self, inputs: StageInputs) -> bool:
        return bool(inputs.get("score", 0) > 5)

    def above(self, limit: int, inputs: StageInputs) -> bool:
        return bool(inputs.get("score", 0) > limit)


@pytest.mark.spec("20.8.6")
@pytest.mark.parametrize(
    ("condition", "label"),
    [
        (Threshold(), "Threshold"),
        (partial(Threshold().above, 5), "above"),
        (lambda _: False, "<lambda>"),
        (key_true("a", "ready"), "a:ready"),
        (key_is("a", "lang", "de"), "a:lang is 'de'"),
        (chosen("a", "billing"), "billing"),
        (not_(key_is("a", "score", 1)), "not a:score is 1"),
        (all_of(key_is("a", "score", 1), key_true("a", "x")), "a:score is 1 and a:x"),
        (any_of(Threshold(), key_true("a", "x")), "Threshold or a:x"),
    ],
)
def test_conditions_have_labels(condition: Any, label: str) -> None:
    found = decision({"a": ok(score=1)}, when=condition, **after("a"))

    assert found == Skip(f"condition not met: {label}", "when")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (key_true("a", "yes"), True),
        (key_true("a", "no"), False),
        (key_true("a", "absent"), False),
        (key_is("a", "lang", "de"), True),
        (key_is("a", "lang", "en"), False),
        (key_is("a", "absent", None), False),
        (key_is("a", "nothing", None), True),
        (all_of(key_true("a", "yes"), key_is("a", "lang", "de")), True),
        (all_of(key_true("a", "yes"), key_true("a", "no")), False),
        (any_of(key_true("a", "no"), key_true("a", "yes")), True),
        (any_of(key_true("a", "no"), key_true("a", "absent")), False),
        (not_(key_true("a", "no")), True),
        (not_(key_true("a", "yes")), False),
        (chosen("a", "left"), True),
        (chosen("a", "right"), False),
        (all_of(lambda inputs: inputs.get("yes") is True), True),
    ],
)
def test_predicates_read_what_they_name(condition: Any, holds: bool) -> None:
    left = ok(yes=True, no=0, lang="de", nothing=None, branch="left")

    assert isinstance(decision({"a": left}, when=condition, **after("a")), Start) is holds


@pytest.mark.spec("20.8.6")
def test_condition_about_a_dependency_that_was_skipped_sees_its_reason() -> None:
    found = decision(
        {"a": RETURNED_SKIP}, when=key_is("a", "reason", "nothing to do"), **after("a")
    )

    assert found == Start()


@pytest.mark.spec("20.8.7")
def test_skip_knows_the_output_of_the_stage() -> None:
    assert Skip("no", "when").output == StageOutput.skip("no")


@pytest.mark.spec("20.8.11")
def test_every_condition_is_asked_once() -> None:
    asked: list[str] = []

    def of_edge(output: StageOutput) -> bool:
        asked.append("edge")
        return True

    def of_stage(inputs: StageInputs) -> bool:
        asked.append("stage")
        return True

    decision({"a": OK}, dependencies=edge("a", when=of_edge), when=of_stage)

    assert asked == ["edge", "stage"]


@pytest.mark.spec("20.8.11")
def test_condition_sees_declared_dependencies_only() -> None:
    def reads_b(inputs: StageInputs) -> bool:
        return inputs.has_output("b")

    found = decision({"a": OK, "b": OK}, when=reads_b, **after("a"))

    assert isinstance(found, Fail)
    assert isinstance(found.error.__cause__, Exception)
    assert "UndeclaredDependencyError" in str(found.error)


def test_inputs_are_not_made_without_a_condition() -> None:
    wiring = validated([StageSpec("a", work), StageSpec("b", work, dependencies="a")])

    def read_inputs() -> StageInputs:
        raise AssertionError

    assert decide(wiring, 1, [OK, None], FailureMode.FAIL_FAST, read_inputs) == Start()


def raises(about: object) -> bool:
    raise ValueError("no such thing")


def is_no_answer(about: object) -> Any:
    return "secret payload"


@pytest.mark.parametrize(
    ("options", "predicate", "found"),
    [
        ({"when": raises}, "raises", "raised ValueError('no such thing')"),
        ({"when": is_no_answer}, "is_no_answer", "returned str where True or False"),
        ({"dependencies": edge("a", when=raises)}, "raises", "raised ValueError('no such thing')"),
        ({"dependencies": edge("a", when=is_no_answer)}, "is_no_answer", "returned str"),
        ({"when": not_(is_no_answer)}, "not is_no_answer", "is_no_answer returned str"),
        ({"when": all_of(is_no_answer)}, "is_no_answer", "returned str"),
        ({"when": any_of(is_no_answer)}, "is_no_answer", "returned str"),
        ({"when": lambda _: None}, "<lambda>", "returned NoneType"),
        ({"when": lambda _: 1}, "<lambda>", "returned int"),
    ],
)
def test_broken_condition_fails_the_stage(
    options: dict[str, Any], predicate: str, found: str
) -> None:
    result = decision({"a": OK}, **{"dependencies": "a", **options})

    assert isinstance(result, Fail)
    error = result.error
    assert isinstance(error, PredicateError)
    assert error.code == "RUN-006-PREDICATE"
    assert (error.stage, error.predicate) == ("it", predicate)
    assert found in error.found
    assert str(error) == f"condition {predicate!r} of stage 'it' {error.found}"
    assert "secret" not in str(error)


def test_exception_of_a_condition_is_the_cause() -> None:
    result = decision({"a": OK}, when=raises, **after("a"))

    assert isinstance(result, Fail)
    assert isinstance(result.error.__cause__, ValueError)


def test_what_is_no_exception_passes_through_a_condition() -> None:
    def interrupt(inputs: StageInputs) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decision({"a": OK}, when=interrupt, **after("a"))


# inputs (e)


@pytest.mark.spec("20.10.5")
@pytest.mark.parametrize(
    ("inputs", "missing"),
    [
        (("a:text",), []),
        (("a:locale",), ["a:locale"]),
        (("text", "locale"), []),
        (("text", "nowhere", "b:text"), ["nowhere", "b:text"]),
        ("tts:en:voice", []),
        ("tts:en:text", ["tts:en:text"]),
    ],
)
def test_declared_inputs_have_to_be_there(inputs: Any, missing: list[str]) -> None:
    settled = {"a": ok(text=""), "b": ok(locale="de"), "tts:en": ok(voice=None)}

    found = decision(settled, inputs=inputs, **after(*settled))

    if not missing:
        assert found == Start()
        return
    assert isinstance(found, Fail)
    error = found.error
    assert isinstance(error, PipelineValidationError)
    assert error.code == "CONTRACT-004-INPUT"
    assert error.stages == ["it"]
    assert error.error_info is not None
    assert error.error_info.context == {
        "stage": "it",
        "missing": missing,
        "available": ["a:text", "b:locale", "tts:en:voice"],
    }
    assert all(repr(key) in str(error) for key in missing)


@pytest.mark.spec("20.10.5")
@pytest.mark.parametrize("ended", [FAILED, RETURNED_SKIP, skipped("when")])
def test_dependency_that_did_not_end_ok_excuses_its_keys(ended: Settled) -> None:
    run = partial(decision, {"a": ended, "b": OK}, FailureMode.BEST_EFFORT, dependencies=("a", "b"))

    assert run(inputs="a:text") == Start()
    assert run(inputs="text") == Start()
    assert isinstance(run(inputs="b:text"), Fail)


@pytest.mark.spec("20.8.2")
def test_inputs_are_looked_at_last() -> None:
    found = decision({"a": OK}, when=key_true("a", "k"), inputs="text", **after("a"))

    assert found == Skip("condition not met: a:k", "when")


@pytest.mark.spec("20.10.4")
def test_declared_outputs_have_to_be_returned() -> None:
    spec = StageSpec("it", work, outputs=("text", "locale"))

    error = check_outputs(spec, StageOutput.ok(text="", words=3))

    assert error is not None
    assert error.code == "CONTRACT-004-OUTPUT"
    assert error.stages == ["it"]
    assert error.error_info is not None
    assert error.error_info.context == {
        "stage": "it",
        "missing": ["locale"],
        "available": ["text", "words"],
    }
    assert "'locale'" in str(error)
    assert "'text', 'words'" in str(error)
    nothing = check_outputs(spec, StageOutput.ok())
    assert nothing is not None
    assert str(nothing).endswith("it returned nothing")


@pytest.mark.spec("20.10.4")
@pytest.mark.parametrize(
    "output",
    [
        StageOutput.ok(text=None, locale="de"),
        StageOutput.ok(text="", locale="de", more=1),
        StageOutput.skip("no"),
        StageOutput.fail("boom"),
        StageOutput.cancel("enough"),
        StageOutput.retry("again"),
    ],
)
def test_other_statuses_and_extra_keys_are_fine(output: StageOutput) -> None:
    assert check_outputs(StageSpec("it", work, outputs=("text", "locale")), output) is None
