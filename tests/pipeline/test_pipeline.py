"""The pipeline itself: declared, changed, composed, and handed to what runs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    PipelineValidationError,
    UnknownKeywordError,
)
from actorflow.model import ContextSnapshot, RunIdentity, StageKind
from actorflow.pipeline import (
    FailureMode,
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    PipelineBuilder,
    PipelineOptions,
    StageSpec,
    _engine,
    edge,
    install_engine,
    stage,
)
from actorflow.pipeline._engine import ContextKeywords, RunKeywords
from actorflow.stages import PipelineContext


async def work(ctx: object) -> None:
    """A stage that does nothing."""


async def other_work(ctx: object) -> None:
    """Another one."""


def spec(name: str, after: Any = (), **options: Any) -> StageSpec:
    return StageSpec(name, work, dependencies=after, **options)


def refused(make: Any, *args: Any, **kwargs: Any) -> PipelineValidationError:
    with pytest.raises(PipelineValidationError) as caught:
        make(*args, **kwargs)
    return caught.value


STRATEGY = GuardRetryStrategy({"check": GuardRetryPolicy("reply")})


@attrs.frozen(eq=False)
class Graph:
    """What the engine below builds: it knows what it was built from."""

    pipeline: Pipeline
    options: dict[str, Any]
    legacy: bool = False


class RecordingEngine:
    """Builds graphs that can be looked at, and reports what it was asked to run."""

    def __init__(self) -> None:
        self.built: list[Graph] = []
        self.asked: list[tuple[Any, Any, dict[str, Any]]] = []

    def build(self, pipeline: Pipeline, /, **options: Any) -> Any:
        pipeline.validate()
        self.built.append(Graph(pipeline, options))
        return self.built[-1]

    def build_legacy(self, pipeline: Pipeline, /, **options: Any) -> Any:
        return Graph(pipeline, options, legacy=True)

    async def run(self, graph: Any, source: Any, /, **options: Any) -> Any:
        self.asked.append((graph, source, options))
        return "results"

    @contextlib.asynccontextmanager
    async def start(self, graph: Any, source: Any, /, **options: Any) -> AsyncIterator[Any]:
        self.asked.append((graph, source, options))
        yield "handle"


@pytest.fixture
def engine() -> Iterator[RecordingEngine]:
    before = list(_engine._installed)
    engine = RecordingEngine()
    install_engine(engine)
    yield engine
    _engine._installed[:] = before


# Declaring


@pytest.mark.spec("20.7.1")
def test_pipeline_cannot_be_changed() -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        pipeline.options = PipelineOptions()  # type: ignore[misc]  # what the test is about


@pytest.mark.spec("20.7.1")
def test_every_change_is_a_new_pipeline() -> None:
    pipeline = Pipeline("voice", [spec("a"), spec("b", "a")], max_concurrency=2)

    changed = [
        pipeline.with_stage("c", work),
        pipeline.with_stages(spec("c")),
        pipeline.without_stage("b"),
        pipeline.with_name("other"),
        pipeline.with_options(max_concurrency=3),
        pipeline.compose(Pipeline.from_stages(spec("c"))),
    ]

    assert pipeline not in changed
    assert (pipeline.name, pipeline.stages) == ("voice", (spec("a"), spec("b", "a")))
    assert pipeline.max_concurrency == 2
    assert [[*it] for it in changed] == [
        ["a", "b", "c"],
        ["a", "b", "c"],
        ["a"],
        ["a", "b"],
        ["a", "b"],
        ["a", "b", "c"],
    ]
    assert [it.name for it in changed] == [
        "voice",
        "voice",
        "voice",
        "other",
        "voice",
        "voice+pipeline",
    ]
    assert [it.max_concurrency for it in changed] == [2, 2, 2, 2, 3, 2]


@pytest.mark.spec("20.7.2")
def test_name_is_optional() -> None:
    assert Pipeline().name == "pipeline"
    assert Pipeline().given_name is None
    assert Pipeline("voice").name == Pipeline("voice").given_name == "voice"
    assert Pipeline.from_stages(name="voice").name == "voice"


@pytest.mark.spec("20.7.3")
def test_stages_may_be_declared_in_any_order_and_are_checked_in_the_end() -> None:
    pipeline = Pipeline.from_stages(spec("b", "a"))

    error = refused(pipeline.validate)
    pipeline.with_stage("a", work).validate()

    assert error.code == "CONTRACT-004-MISSING_DEP"


@pytest.mark.spec("20.7.3")
async def test_whole_is_checked_before_anything_runs(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("b", "a"))

    with pytest.raises(PipelineValidationError):
        pipeline.build()
    with pytest.raises(PipelineValidationError):
        await pipeline.run()
    with pytest.raises(PipelineValidationError):
        pipeline.start()
    assert engine.asked == []


def test_with_stage_takes_everything_a_spec_has() -> None:
    class Fetch:
        def __init__(self, url: str) -> None:
            """Takes what it is given."""

        async def execute(self, ctx: object) -> None:
            """A stage that does nothing."""

    pipeline = Pipeline().with_stage(
        "it", Fetch, "work", after=("a", edge("b", when="x")), conditional=True,
        config={"url": "x"}, inputs="text", outputs="words", when="left", join="all",
        stream_from="p", stream_buffer=2, timeout=1.0,
    )  # fmt: skip

    assert pipeline.stages == (
        StageSpec(
            "it", Fetch, StageKind.WORK, ("a", edge("b", when="x")), ("text",), ("words",), True,
            {"url": "x"}, "left", None, "all", ("p",), 2, 1.0,
        ),
    )  # fmt: skip
    assert Pipeline().with_stage("it", work, None, ["a"]).stages[0].dependencies == ("a",)


def test_pipeline_tells_what_it_has() -> None:
    pipeline = Pipeline("voice", {"b": spec("b", "a"), "a": spec("a")})

    assert pipeline.get_stage("a") == spec("a")
    assert pipeline.get_stage("c") is None
    assert (pipeline.has_stage("a"), pipeline.has_stage("c")) == (True, False)
    assert ("a" in pipeline, "c" in pipeline) == (True, False)
    assert pipeline.stage_names() == [*pipeline] == ["b", "a"]
    assert len(pipeline) == 2
    assert repr(pipeline) == "<Pipeline 'voice' of 2 stages>"


def test_guard_retries_of_another_shape_are_refused_where_they_are_passed() -> None:
    wrong: Any = 5
    no_strategy: Any = {"check": GuardRetryPolicy("write")}

    with pytest.raises(InvalidTypeError, match=r"policies\['check'\]"):
        GuardRetryStrategy({"check": wrong})
    with pytest.raises(PipelineValidationError, match="a GuardRetryStrategy"):
        Pipeline(guard_retry_strategy=no_strategy)
    with pytest.raises(PipelineValidationError, match="a GuardRetryStrategy"):
        Pipeline().with_options(guard_retry_strategy=wrong)


def test_options_are_kept() -> None:
    pipeline = Pipeline(
        "voice",
        failure_mode="best_effort",
        max_concurrency=2,
        stage_timeout=1.5,
        cleanup_timeout=0,
        guard_retry_strategy=STRATEGY,
    )

    assert pipeline.failure_mode is FailureMode.BEST_EFFORT
    assert pipeline.max_concurrency == 2
    assert pipeline.stage_timeout == 1.5
    assert pipeline.cleanup_timeout == 0
    assert pipeline.guard_retry_strategy is STRATEGY
    assert Pipeline().options == PipelineOptions(
        failure_mode=FailureMode.FAIL_FAST,
        max_concurrency=None,
        stage_timeout=None,
        cleanup_timeout=10.0,
        guard_retry_strategy=None,
    )


@pytest.mark.spec("20.10.1")
@pytest.mark.parametrize("mode", list(FailureMode))
def test_failure_mode_may_be_a_string(mode: FailureMode) -> None:
    assert Pipeline(failure_mode=str(mode)).failure_mode is mode
    assert Pipeline(failure_mode=mode).failure_mode is mode


@pytest.mark.spec("20.10.1")
def test_failure_modes() -> None:
    assert {mode.name: mode.value for mode in FailureMode} == {
        "FAIL_FAST": "fail_fast",
        "CONTINUE_ON_FAILURE": "continue_on_failure",
        "BEST_EFFORT": "best_effort",
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"failure_mode": "fast"}, "'fast'"),
        ({"failure_mode": None}, "None"),
        ({"max_concurrency": 0}, "0"),
        ({"max_concurrency": 1.5}, "1.5"),
        ({"max_concurrency": True}, "True"),
        ({"stage_timeout": 0}, "0"),
        ({"stage_timeout": float("nan")}, "nan"),
        ({"cleanup_timeout": -1}, "-1"),
        ({"cleanup_timeout": None}, "None"),
        ({"cleanup_timeout": float("nan")}, "nan"),
    ],
)
def test_impossible_option_is_refused(options: dict[str, Any], found: str) -> None:
    for make in (Pipeline, Pipeline.from_stages, Pipeline().with_options):
        error = refused(make, **options)

        assert error.code == "CONTRACT-004-OPTION"
        [field] = options
        assert field in str(error)
        assert found in str(error)


@pytest.mark.parametrize(
    ("make", "call"),
    [(Pipeline, "Pipeline()"), (Pipeline().with_options, "with_options()")],
)
def test_unknown_option_is_refused_with_the_closest_one(make: Any, call: str) -> None:
    with pytest.raises(UnknownKeywordError) as caught:
        make(max_concurency=2)

    assert str(caught.value) == (
        f"{call} has no keyword 'max_concurency'; did you mean 'max_concurrency'?"
    )


@pytest.mark.parametrize(
    ("name", "says"), [("", "empty"), (" ", "whitespace"), ([spec("a")], "must be text")]
)
def test_unusable_name_is_refused(name: Any, says: str) -> None:
    assert refused(Pipeline, name).code == "CONTRACT-004-NAME"
    assert says in str(refused(Pipeline, name))
    assert refused(Pipeline().with_name, name).code == "CONTRACT-004-NAME"


def test_list_in_place_of_the_name_is_answered_with_the_way_to_write_it() -> None:
    assert refused(Pipeline, [spec("a")]).fix_hint == (
        "Write the name first: Pipeline('voice', stages)."
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pipeline.from_stages(spec("a"), spec("a", "b")),
        lambda: Pipeline("x", [spec("a"), spec("a")]),
        lambda: Pipeline().with_stages(spec("a"), spec("a"), replace=True),
        lambda: Pipeline.from_stages(spec("a")).with_stages(spec("a")),
        lambda: Pipeline.from_stages(spec("a")).with_stage("a", other_work),
    ],
)
def test_name_is_used_once(make: Any) -> None:
    assert refused(make).code == "CONTRACT-004-DUPLICATE"


def test_replaced_stage_keeps_its_place() -> None:
    pipeline = Pipeline.from_stages(spec("a"), spec("b"))

    assert pipeline.with_stage("a", other_work, replace=True).stages == (
        StageSpec("a", other_work),
        spec("b"),
    )


def test_stage_that_others_need_stays() -> None:
    pipeline = Pipeline.from_stages(spec("a"), spec("b", "a"), spec("c", stream_from="b"))

    for name, user in (("a", "b"), ("b", "c")):
        error = refused(pipeline.without_stage, name)

        assert error.code == "CONTRACT-004-MISSING_DEP"
        assert error.stages == [user, name]
    assert [*pipeline.without_stage("c")] == ["a", "b"]


def test_stage_that_is_not_there_cannot_be_taken_out() -> None:
    pipeline = Pipeline.from_stages(spec("clean"))

    with pytest.raises(InvalidArgumentError, match="perhaps 'clean'"):
        pipeline.without_stage("claen")
    with pytest.raises(InvalidArgumentError, match="a stage of the pipeline, found 'x'"):
        pipeline.without_stage("x")


# Composing


@pytest.mark.spec("20.7.4")
def test_halves_may_depend_on_each_other() -> None:
    left = Pipeline("hear", [spec("a"), spec("d", "c")])
    right = Pipeline(None, [spec("c", "a"), spec("a")])

    whole = left.compose(right)

    assert whole.name == whole.given_name == "hear+pipeline"
    assert whole.stages == (spec("a"), spec("d", "c"), spec("c", "a"))
    whole.validate()
    assert left.compose(left).name == "hear+hear"
    assert left.compose(PipelineBuilder("b", [spec("a")])).name == "hear+b"


@pytest.mark.spec("20.7.4")
def test_option_of_one_side_is_taken() -> None:
    left = Pipeline(failure_mode="best_effort", stage_timeout=2, max_concurrency=3)
    right = Pipeline(guard_retry_strategy=STRATEGY, max_concurrency=3)

    expected = PipelineOptions(
        failure_mode="best_effort",
        stage_timeout=2,
        guard_retry_strategy=STRATEGY,
        max_concurrency=3,
    )
    assert left.compose(right).options == expected
    assert right.compose(left).options == expected


@pytest.mark.spec("20.7.4")
@pytest.mark.parametrize(
    ("option", "left", "right"),
    [
        ("failure_mode", "best_effort", "continue_on_failure"),
        ("max_concurrency", 1, 2),
        ("stage_timeout", 1.0, 2.0),
        ("cleanup_timeout", 1.0, 2.0),
        ("guard_retry_strategy", STRATEGY, GuardRetryStrategy()),
    ],
)
def test_options_that_differ_conflict(option: str, left: Any, right: Any) -> None:
    error = refused(Pipeline(**{option: left}).compose, Pipeline(**{option: right}))

    assert error.code == "CONTRACT-004-CONFLICT"
    assert error.error_info is not None
    assert error.error_info.context == {"option": option}
    assert option in str(error)


@pytest.mark.parametrize("other", [None, "voice", spec("a")])
def test_only_pipelines_and_builders_compose(other: Any) -> None:
    with pytest.raises(InvalidTypeError, match="a Pipeline or PipelineBuilder"):
        Pipeline().compose(other)


# Building


@pytest.mark.spec("20.7.5")
def test_each_build_makes_a_graph_of_its_own(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    one: Any = pipeline.build(interceptors=["x"])
    two: Any = pipeline.build(interceptors=["x"])

    assert one is not two
    assert one.pipeline is two.pipeline is pipeline
    assert one.options == {"interceptors": ["x"]}


def test_build_may_change_options_of_the_pipeline(engine: RecordingEngine) -> None:
    pipeline = Pipeline("voice", [spec("a")], max_concurrency=2)

    graph: Any = pipeline.build(max_concurrency=3, failure_mode="best_effort", interceptors=())

    assert graph.pipeline.options == PipelineOptions(
        max_concurrency=3, failure_mode=FailureMode.BEST_EFFORT
    )
    assert (graph.pipeline.name, graph.pipeline.stages) == ("voice", pipeline.stages)
    assert graph.options == {"interceptors": ()}
    assert pipeline.max_concurrency == 2


@pytest.mark.spec("20.5.6")
def test_builder_builds_like_its_pipeline(engine: RecordingEngine) -> None:
    builder = PipelineBuilder("voice", [spec("a")])

    graph: Any = builder.build(interceptors=(), max_concurrency=1)
    legacy: Any = builder.build(legacy=True, interceptors=())

    assert (graph.pipeline.name, graph.pipeline.max_concurrency) == ("voice", 1)
    assert (graph.options, graph.legacy) == ({"interceptors": ()}, False)
    assert (legacy.options, legacy.legacy) == ({"interceptors": ()}, True)
    assert legacy.pipeline is builder.pipeline()
    assert refused(PipelineBuilder().build).code == "CONTRACT-004-EMPTY"


def test_fluent_builder_builds_like_its_builder(engine: RecordingEngine) -> None:
    from actorflow.pipeline import FluentPipelineBuilder

    fluent = FluentPipelineBuilder("voice").stage("a", work)

    graph: Any = fluent.build(max_concurrency=1)
    legacy: Any = fluent.build(legacy=True)

    assert (graph.pipeline.max_concurrency, graph.legacy) == (1, False)
    assert legacy.legacy


@pytest.mark.parametrize("call", ["build", "build_legacy"])
def test_unknown_build_option_is_refused(engine: RecordingEngine, call: str) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    with pytest.raises(UnknownKeywordError, match="did you mean 'interceptors'"):
        getattr(pipeline, call)(interceptor=[])
    # A field of a context belongs to a run.
    with pytest.raises(UnknownKeywordError):
        getattr(pipeline, call)(user_id="x")


def test_someone_has_to_run_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "_installed", [])

    with pytest.raises(AssertionError, match="importing actorflow"):
        Pipeline.from_stages(spec("a")).build()


# Running


@pytest.mark.spec("20.7.6")
@pytest.mark.parametrize(("source", "text"), [(None, None), ("hello", "hello"), ("", "")])
async def test_text_or_nothing_begins_a_context(
    engine: RecordingEngine, source: str | None, text: str | None
) -> None:
    results: Any = await Pipeline("voice", [spec("a")]).run(source, user_id=None, data={"k": 1})

    assert results == "results"
    [(graph, context, options)] = engine.asked
    assert isinstance(context, PipelineContext)
    assert (context.input_text, context.topology, context.data) == (text, "voice", {"k": 1})
    assert options == {}
    assert graph.options == {}


@pytest.mark.spec("20.7.6")
async def test_topology_is_the_name_unless_given(engine: RecordingEngine) -> None:
    await Pipeline("voice", [spec("a")]).run(topology="chat_fast")
    await Pipeline(None, [spec("a")]).run()

    assert [context.topology for _, context, _ in engine.asked] == ["chat_fast", "pipeline"]


@pytest.mark.spec("20.7.6")
@pytest.mark.parametrize("source", [ContextSnapshot(RunIdentity()), PipelineContext()])
async def test_snapshot_or_context_is_handed_on(engine: RecordingEngine, source: Any) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    await pipeline.run(source, event_sink="sink", cancel_token="token", runtime="runtime")

    [(_, begin, options)] = engine.asked
    assert begin is source
    assert options == {"event_sink": "sink", "cancel_token": "token", "runtime": "runtime"}


async def test_fields_do_not_go_with_a_source_that_brings_its_own(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    for source in (ContextSnapshot(RunIdentity()), PipelineContext()):
        with pytest.raises(InvalidArgumentError, match="data, user_id"):
            await pipeline.run(source, user_id=None, data={})
    with pytest.raises(InvalidArgumentError, match="input_text"):
        await pipeline.run("hello", input_text="hello")
    assert engine.asked == []


async def test_unknown_run_option_is_refused(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    with pytest.raises(UnknownKeywordError, match=r"run\(\) has no keyword .*'execution_mode'"):
        await pipeline.run("hello", execution_mod="x")  # type: ignore[call-arg]  # the mistake
    with pytest.raises(UnknownKeywordError, match=r"start\(\) has no keyword"):
        pipeline.start("hello", execution_mod="x")  # type: ignore[call-arg]  # the mistake


@pytest.mark.spec("20.7.6")
async def test_start_takes_what_run_takes(engine: RecordingEngine) -> None:
    async with Pipeline("voice", [spec("a")]).start(
        "hello", cancel_token="token", max_concurrency=1, metadata={"k": 1}
    ) as run:
        handle: Any = run

    assert handle == "handle"
    [(graph, context, options)] = engine.asked
    assert graph.pipeline.max_concurrency == 1
    assert (context.input_text, context.metadata) == ("hello", {"k": 1})
    assert options == {"cancel_token": "token"}


async def test_runs_without_build_options_share_one_graph(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("a"))

    await pipeline.run("one")
    await pipeline.run("two", event_sink="sink", user_id=None)
    async with pipeline.start("three"):
        pass
    await pipeline.run("four", interceptors=None)
    await pipeline.with_name("other").run("five")

    graphs = [graph for graph, _, _ in engine.asked]
    assert graphs[0] is graphs[1] is graphs[2]
    assert len({id(graph) for graph in graphs}) == 3


def test_threads_that_run_at_once_share_one_graph(engine: RecordingEngine) -> None:
    pipeline = Pipeline.from_stages(spec("a"))
    both_are_building = threading.Barrier(2)
    build = engine.build

    def slow_build(pipeline: Pipeline, /, **options: Any) -> Any:
        graph = build(pipeline, **options)
        both_are_building.wait(5)
        return graph

    engine.build = slow_build  # type: ignore[method-assign]  # to make both threads meet
    threads = [threading.Thread(target=pipeline.start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    kept: Any = pipeline.graph
    assert len(engine.built) == 2
    assert kept in engine.built
    assert pipeline.graph is kept


def test_context_keywords_are_the_fields_of_a_context() -> None:
    fields = {field.alias for field in attrs.fields(PipelineContext) if field.init}

    assert ContextKeywords.__optional_keys__ | RunKeywords.__optional_keys__ == fields | {
        "cancel_token",
        "first_seq",
    }


# Lint and pictures


def test_pipeline_can_be_linted_and_drawn() -> None:
    pipeline = Pipeline.from_stages(spec("a"), spec("b", "gone"), name="voice")

    assert not pipeline.lint().valid
    assert pipeline.to_mermaid().startswith("---\ntitle: ")
    assert pipeline.to_mermaid(direction="LR", title=False).startswith("flowchart LR\n")
    assert "classDef" in pipeline.to_mermaid(results={})


def test_decorated_functions_make_a_pipeline() -> None:
    @stage
    async def clean(ctx: object) -> None:
        """A stage that does nothing."""

    @stage(after="clean")
    async def reply(ctx: object) -> None:
        """A stage that does nothing."""

    pipeline = Pipeline.from_stages(reply, clean)

    pipeline.validate()
    assert pipeline.stage_names() == ["reply", "clean"]
