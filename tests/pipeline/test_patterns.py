"""Chains, fans and branches, on builders and on pipelines, plain and fluent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import pytest

from actorflow.errors import InvalidTypeError, PipelineValidationError
from actorflow.model import ContextSnapshot, RunIdentity, StageOutput
from actorflow.pipeline import (
    FailureMode,
    FluentPipelineBuilder,
    Pipeline,
    PipelineBuilder,
    Settled,
    Skip,
    StageSpec,
    Start,
    all_of,
    chosen,
    decide,
    edge,
    key_true,
    stage,
    validated,
    with_conditional_branch,
    with_fan_out_fan_in,
    with_linear_chain,
    with_parallel_stages,
)
from actorflow.stages import StageInputs


async def work(ctx: object) -> None:
    """A stage that does nothing."""


@stage(kind="route", timeout=2.0)
async def route(ctx: object) -> None:
    """A stage that does nothing."""


def spec(name: str, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, work, dependencies=after, **options)


SNAPSHOT: Final = ContextSnapshot(RunIdentity())


def numbered(prefix: str) -> Callable[[int], tuple[str, Any]]:
    return lambda number: (f"{prefix}{number}", work)


def edges_of(grown: Any) -> dict[str, tuple[str, ...]]:
    return {it.name: it.dependencies for it in grown.stages}


# Both kinds of pipelines, with a stage to go on from
STARTS: Final[list[Any]] = [
    PipelineBuilder(stages=[spec("start")]),
    Pipeline(stages=[spec("start")]),
]
starts = pytest.mark.parametrize("start", STARTS, ids=["builder", "pipeline"])


@pytest.mark.spec("20.6.1")
@starts
def test_chain_goes_from_stage_to_stage(start: Any) -> None:
    grown = with_linear_chain(start, 3, numbered("s"), first_depends_on="start")

    assert type(grown) is type(start)
    assert edges_of(grown) == {"start": (), "s0": ("start",), "s1": ("s0",), "s2": ("s1",)}
    assert edges_of(with_linear_chain(start, 2, numbered("s")))["s0"] == ()
    assert edges_of(start) == {"start": ()}


@pytest.mark.spec("20.6.1", "20.6.2")
@starts
@pytest.mark.parametrize("count", [0, -1])
def test_no_stages_leave_everything_as_it_is(start: Any, count: int) -> None:
    def never(number: int) -> Any:
        raise AssertionError

    assert with_linear_chain(start, count, never, first_depends_on="start") is start
    assert with_parallel_stages(start, count, never, depends_on="start") is start


@pytest.mark.spec("20.6.2")
@starts
def test_parallel_stages_depend_on_the_same(start: Any) -> None:
    both = start.with_stages(spec("other"))

    grown = with_parallel_stages(both, 2, numbered("s"), depends_on=("start", "other"))

    assert edges_of(grown)["s0"] == edges_of(grown)["s1"] == ("start", "other")
    assert edges_of(with_parallel_stages(both, 2, numbered("s")))["s1"] == ()


@pytest.mark.spec("20.6.3")
@starts
def test_fan_in_waits_for_every_worker(start: Any) -> None:
    grown = with_fan_out_fan_in(
        start, ("split", work), 3, numbered("w"), ("join", work), fan_out_depends_on="start"
    )

    assert edges_of(grown) == {
        "start": (),
        "split": ("start",),
        "w0": ("split",),
        "w1": ("split",),
        "w2": ("split",),
        "join": ("w0", "w1", "w2"),
    }


@pytest.mark.spec("20.6.3")
@starts
def test_fan_without_workers_stays_connected(start: Any) -> None:
    grown = with_fan_out_fan_in(start, ("split", work), 0, numbered("w"), ("join", work))

    assert edges_of(grown) == {"start": (), "split": (), "join": ("split",)}


@pytest.mark.spec("20.6.4")
@starts
def test_branches_hang_on_their_router(start: Any) -> None:
    grown = with_conditional_branch(
        start,
        route,
        {"billing": ("pay", work), "sales": ("sell", work)},
        ("answer", work),
        router_depends_on="start",
    )

    assert edges_of(grown) == {
        "start": (),
        "route": ("start",),
        "pay": ("route",),
        "sell": ("route",),
        "answer": ("pay", "sell"),
    }
    conditions = {it.name: (it.conditional, it.when) for it in grown.stages}
    assert conditions == {
        "start": (False, None),
        "route": (False, None),
        "pay": (True, chosen("route", "billing", default=True)),
        "sell": (True, chosen("route", "sales", default=True)),
        "answer": (False, None),
    }


def play(grown: Any, **ended: StageOutput) -> dict[str, str]:
    """What would become of every stage, if those that start ended as given, or OK."""
    wiring = validated(grown.stages)
    settled: list[Settled | None] = [None] * len(wiring.specs)
    outputs: dict[str, StageOutput] = {}
    told: dict[str, str] = {}
    for number in wiring.topological_order:
        it = wiring.specs[number]
        read = partial(StageInputs, SNAPSHOT, dict(outputs), None, it.dependencies)
        found = decide(wiring, number, settled, FailureMode.FAIL_FAST, read)
        if isinstance(found, Skip):
            settled[number] = Settled(found.output, found.skipped_by)
            told[it.name] = found.skipped_by
        else:
            assert found == Start()
            settled[number] = Settled(ended.get(it.name, StageOutput.ok()))
            told[it.name] = "runs"
        ended_now = settled[number]
        assert ended_now is not None
        outputs[it.name] = ended_now.output
    return told


def branched() -> Any:
    grown = with_conditional_branch(
        PipelineBuilder(),
        route,
        {"billing": ("pay", work), "sales": ("sell", work)},
    )
    grown = grown.with_stages(spec("receipt", "pay"), spec("archive", "receipt"))
    return grown.with_stages(spec("answer", ("archive", "sell")))


@pytest.mark.spec("20.8.8", "20.6.4")
@pytest.mark.parametrize(
    ("data", "runs"),
    [
        ({"branch": "billing"}, {"pay", "receipt", "archive", "answer"}),
        ({"branch": "sales"}, {"sell", "answer"}),
        ({"branch": ["billing", "sales"]}, {"pay", "receipt", "archive", "sell", "answer"}),
        ({"branch": []}, set()),
        ({}, {"pay", "receipt", "archive", "sell", "answer"}),
        ({"branch": None}, {"pay", "receipt", "archive", "sell", "answer"}),
        ({"skip_reason": "no intent"}, set()),
    ],
)
def test_only_what_was_chosen_runs_down_to_the_merge(data: Any, runs: set[str]) -> None:
    told = play(branched(), route=StageOutput.ok(data))

    assert {name for name, what in told.items() if what == "runs"} == {"route", *runs}


@pytest.mark.spec("20.8.8")
def test_what_is_below_a_branch_not_taken_is_skipped_with_it() -> None:
    told = play(branched(), route=StageOutput.ok(branch="sales"))

    assert (told["pay"], told["receipt"], told["archive"]) == ("when", "dependency", "dependency")


@pytest.mark.spec("20.6.4")
def test_branch_keeps_conditions_of_its_own() -> None:
    def is_open(inputs: object) -> bool:
        return True

    grown = with_conditional_branch(
        PipelineBuilder(stages=[spec("load")]),
        ("r", work),
        {
            "a": spec("a_stage", when=is_open),
            "b": spec("b_stage", "load", when=key_true("load", "k"), timeout=3.0),
            "c": spec("c_stage", when="special"),
            "d": spec("d_stage", "load", when="loaded"),
            "e": spec("e_stage", edge("load", when="loaded")),
        },
    )

    def taken(key: str) -> Any:
        return chosen("r", key, default=True)

    found = {it.name: it for it in grown.stages}
    assert found["a_stage"].when == all_of(is_open, taken("a"))
    assert found["b_stage"].when == all_of(key_true("load", "k"), taken("b"))
    assert found["b_stage"].dependencies == ("load", "r")
    assert found["b_stage"].timeout == 3.0
    assert found["c_stage"].when == all_of(chosen("r", "special"), taken("c"))
    assert found["d_stage"].when == all_of(chosen("load", "loaded"), taken("d"))
    assert found["e_stage"].edge_conditions == {"load": "loaded"}
    assert found["e_stage"].when == taken("e")


def test_label_of_a_branch_with_several_dependencies_is_refused() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        with_conditional_branch(
            Pipeline(), ("r", work), {"a": spec("it", ("x", "y"), when="label")}
        )

    assert caught.value.code == "CONTRACT-004-BRANCH"


@pytest.mark.spec("20.6.5")
@pytest.mark.parametrize(
    "grow",
    [
        lambda factory: with_linear_chain(Pipeline(), 3, factory),
        lambda factory: with_parallel_stages(Pipeline(), 3, factory),
        lambda factory: with_fan_out_fan_in(Pipeline(), ("x", work), 3, factory, ("y", work)),
    ],
)
def test_factory_is_called_once_for_each_number(grow: Any) -> None:
    asked: list[int] = []

    def make(number: int) -> tuple[str, Any]:
        asked.append(number)
        return f"worker of {number}", work

    grown = grow(make)

    assert asked == [0, 1, 2]
    assert {"worker of 0", "worker of 1", "worker of 2"} <= set(grown.stage_names())


@pytest.mark.spec("20.6.5")
def test_factory_may_return_whatever_says_which_stage_it_is() -> None:
    @attrs.frozen
    class Named:
        name: str

        async def execute(self, ctx: object) -> None:
            """A stage that does nothing."""

    made: list[Any] = [spec("a", "zero", timeout=3.0), route, Named("c"), ("d", work)]

    grown = with_linear_chain(
        Pipeline(stages=[spec("zero")]), 4, made.__getitem__, first_depends_on=()
    )

    assert edges_of(grown) == {
        "zero": (),
        "a": ("zero",),
        "route": ("a",),
        "c": ("route",),
        "d": ("c",),
    }
    assert grown.get_stage("a") == spec("a", "zero", timeout=3.0)
    assert grown.get_stage("route") == route.__stage__.evolve(dependencies="a")  # type: ignore[attr-defined]  # see 20.2.2


def test_pattern_takes_conditions_on_its_edges() -> None:
    grown = with_parallel_stages(
        Pipeline(stages=[spec("r")]), 1, numbered("s"), depends_on=edge("r", when="x")
    )

    assert grown.stages[-1].edge_conditions == {"r": "x"}


@pytest.mark.spec("20.6.6", "20.15.3")
@starts
def test_chain_of_ten_thousand_is_added_in_one_step(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    with_stages = type(start).with_stages

    def counted(self: Any, *stages: Any, **options: Any) -> Any:
        steps.append(len(stages))
        return with_stages(self, *stages, **options)

    monkeypatch.setattr(type(start), "with_stages", counted)
    grown = with_linear_chain(start, 10_000, numbered("s"), first_depends_on="start")

    assert len(grown.stages) == 10_001
    assert set(steps) == {10_000}


@starts
@pytest.mark.parametrize("count", [1.5, "3", None, True])
def test_count_is_a_whole_number(start: Any, count: Any) -> None:
    with pytest.raises(InvalidTypeError, match="count"):
        with_linear_chain(start, count, numbered("s"))
    with pytest.raises(InvalidTypeError, match="count"):
        with_parallel_stages(start, count, numbered("s"))
    with pytest.raises(InvalidTypeError, match="count"):
        with_fan_out_fan_in(start, ("a", work), count, numbered("s"), ("b", work))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, "factory(2) returned the NoneType None"),
        (work, "factory(2) returned the function work"),
        (("a", work, 3), "factory(2) returned the tuple"),
        (("a", "b"), "stage 'a' cannot run the str 'b'"),
    ],
)
def test_factory_that_makes_no_stage_is_refused(made: Any, says: str) -> None:
    def make(number: int) -> Any:
        return made if number == 2 else (f"s{number}", work)

    with pytest.raises(PipelineValidationError) as caught:
        with_linear_chain(Pipeline(), 3, make)

    assert caught.value.code == "CONTRACT-004-RUNNER"
    assert says in str(caught.value)


def test_router_needs_branches() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        with_conditional_branch(Pipeline(), ("r", work), {})

    assert caught.value.code == "CONTRACT-004-OPTION"
    assert "'r'" in str(caught.value)


# Fluent


@pytest.mark.spec("20.6.7")
def test_last_stage_is_where_the_next_pattern_goes_on() -> None:
    fluent = FluentPipelineBuilder("voice")
    seen: list[str | None] = [fluent.last_stage]

    def note(_: object) -> None:
        seen.append(fluent.last_stage)
        assert fluent._last_stage == fluent.last_stage

    note(fluent.stage("a", work))
    note(fluent.linear_chain(2, numbered("b")))
    note(fluent.linear_chain(0, numbered("x")))
    note(fluent.parallel(0, numbered("x")))
    note(fluent.fan_out_fan_in(("c", work), 2, numbered("d"), ("e", work)))
    note(fluent.conditional_branch(("f", work), {"x": ("g", work)}, ("h", work)))
    note(fluent.conditional_branch(("i", work), {"x": ("j", work)}))
    note(fluent.stage("k", work))
    note(fluent.parallel(2, numbered("l")))
    note(fluent.linear_chain(-1, numbered("x")))

    assert seen == [None, "a", "b1", "b1", "b1", "e", "h", None, "k", None, None]
    assert fluent.builder.name == "voice"


@pytest.mark.spec("20.6.8")
def test_fluent_stage_depends_on_what_it_says_only() -> None:
    fluent = FluentPipelineBuilder().stage("a", work).stage("b", work)
    fluent.stage("c", work, depends_on="a", kind="work", when="x", conditional=True, timeout=2)

    assert edges_of(fluent.builder) == {"a": (), "b": (), "c": ("a",)}
    assert fluent.builder.get_stage("c") == spec(
        "c", "a", kind="work", when="x", conditional=True, timeout=2
    )


@pytest.mark.spec("20.6.9")
def test_fluent_patterns_go_on_from_the_last_stage() -> None:
    fluent = (
        FluentPipelineBuilder()
        .stage("a", work)
        .linear_chain(2, numbered("b"))
        .fan_out_fan_in(("c", work), 1, numbered("d"), ("e", work))
        .conditional_branch(("f", work), {"x": ("g", work)}, ("h", work))
        .parallel(1, numbered("i"))
        .linear_chain(1, numbered("j"))
    )

    assert edges_of(fluent.builder) == {
        "a": (),
        "b0": ("a",),
        "b1": ("b0",),
        "c": ("b1",),
        "d0": ("c",),
        "e": ("d0",),
        "f": ("e",),
        "g": ("f",),
        "h": ("g",),
        "i0": ("h",),
        "j0": (),
    }


@pytest.mark.spec("20.6.9")
def test_explicit_dependency_replaces_the_last_stage() -> None:
    fluent = (
        FluentPipelineBuilder()
        .stage("a", work)
        .linear_chain(1, numbered("b"), first_depends_on=())
        .parallel(1, numbered("c"), depends_on="a")
        .stage("z", work)
        .fan_out_fan_in(("d", work), 0, numbered("x"), ("e", work), fan_out_depends_on="a")
        .conditional_branch(("f", work), {"x": ("g", work)}, router_depends_on=())
    )

    assert edges_of(fluent.builder) == {
        "a": (),
        "b0": (),
        "c0": ("a",),
        "z": (),
        "d": ("a",),
        "e": ("d",),
        "f": (),
        "g": ("f",),
    }


@pytest.mark.spec("20.6.10")
def test_fluent_methods_return_the_object_itself() -> None:
    fluent = FluentPipelineBuilder()
    before = fluent.builder

    assert fluent.stage("a", work) is fluent
    assert fluent.linear_chain(1, numbered("b")) is fluent
    assert fluent.parallel(1, numbered("c")) is fluent
    assert fluent.fan_out_fan_in(("d", work), 1, numbered("e"), ("f", work)) is fluent
    assert fluent.conditional_branch(("g", work), {"x": ("h", work)}) is fluent
    assert before.stages == ()
    assert isinstance(fluent.builder, PipelineBuilder)
