"""Functions, classes and objects as stages."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs
import pytest

from actorflow.errors import InvalidTypeError, PipelineValidationError, UnknownKeywordError
from actorflow.model import StageKind
from actorflow.pipeline import Pipeline, StageSpec, edge, stage


async def work(ctx: object) -> None:
    """A stage that does nothing."""


def quick_work(ctx: object) -> None:
    """The same without waiting."""


class Fetch:
    def __init__(self, url: str = "") -> None:
        self.url = url

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""

    async def work(self, ctx: object) -> None:
        """As a method."""


class Callee:
    async def __call__(self, ctx: object) -> None:
        """A stage that does nothing."""


@attrs.define
class Named:
    name: str
    kind: StageKind | str = StageKind.ENRICH

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""


def only_spec(*stages: Any) -> StageSpec:
    [spec] = Pipeline.from_stages(*stages).stages
    return spec


def refused(make: Callable[..., object], *args: Any, **kwargs: Any) -> PipelineValidationError:
    with pytest.raises(PipelineValidationError) as caught:
        make(*args, **kwargs)
    return caught.value


# What may run


@pytest.mark.spec("20.2.1")
@pytest.mark.parametrize(
    "runner",
    [
        Fetch,
        Fetch(),
        work,
        quick_work,
        lambda ctx: None,
        functools.partial(lambda prefix, ctx: None, "x"),
        functools.partial(Fetch.work, Fetch()),
        Fetch().work,
        Callee,
        Callee(),
        Callee().__call__,
        print,
    ],
)
def test_classes_objects_and_functions_run(runner: Any) -> None:
    assert stage("it", runner).runner is runner


class Nothing:
    """Neither runs nor can be called."""


class Slow:
    async def execute(self) -> None:
        """Forgot the context."""


class Greedy:
    async def execute(self, ctx: object, more: object) -> None:
        """Wants more than it gets."""


class Streaming:
    # Not a generator anybody iterates: it is refused as a stage.
    async def execute(self, ctx: object) -> AsyncIterator[int]:  # noqa: ASYNC900
        yield 1


def yields(ctx: object) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        ("fetch", "the str 'fetch'"),
        (None, "the NoneType None"),
        (Nothing, "the class Nothing"),
        (Nothing(), "the Nothing "),
        (int, "the class int"),
        (lambda: None, "its signature is ()"),
        (lambda ctx, more: None, "its signature is (ctx, more)"),
        (functools.partial(work, object()), "its signature is ()"),
        (Slow, "its signature is (self)"),
        (Slow(), "its signature is ()"),
        (Greedy, "its signature is (self, ctx, more)"),
        (Greedy().execute, "its signature is (ctx, more)"),
        (Streaming, "which yields"),
        (Streaming(), "which yields"),
        (yields, "which yields"),
        (StageSpec("inner", work), "the StageSpec"),
    ],
)
def test_what_cannot_run_is_refused(runner: Any, says: str) -> None:
    error = refused(stage, "it", runner)

    assert error.code == "CONTRACT-004-RUNNER"
    assert str(error).startswith("stage 'it' cannot run ")
    assert says in str(error)
    assert error.stages == ["it"]
    assert error.error_info is not None
    assert error.error_info.context.keys() == {"stage", "field", "found"}


def test_called_function_is_told_apart() -> None:
    error = refused(stage, "it", work(object()))

    assert error.code == "CONTRACT-004-RUNNER"
    assert error.fix_hint == "Pass the function itself: work, without calling it."


class Strict:
    def __init__(self, url: str, *, timeout: float = 1.5) -> None:
        """Takes what it is given."""

    async def execute(self, ctx: object) -> None:
        """A stage that does nothing."""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "with no arguments: missing a required argument: 'url'"),
        ({"timeout": 2}, "with timeout: missing a required argument: 'url'"),
        ({"url": "x", "retries": 2}, "with url, retries: got an unexpected keyword argument"),
    ],
)
def test_args_have_to_fit_the_constructor(args: dict[str, Any], says: str) -> None:
    error = refused(stage, "it", Strict, config=args)

    assert error.code == "CONTRACT-004-RUNNER"
    assert f"the class Strict, which cannot be made {says}" in str(error)
    assert "Strict(url, *, timeout=1.5)." in error.fix_hint


def test_fitting_args_are_taken() -> None:
    assert stage("it", Strict, config={"url": "x"}).args == {"url": "x"}


@pytest.mark.spec("20.2.1")
@pytest.mark.parametrize("method", [staticmethod, classmethod])
def test_execute_need_not_be_a_plain_method(method: Any) -> None:
    holder = type("Holder", (), {"execute": method(lambda *ctx: None)})

    assert stage("it", holder).runner is holder


def test_things_without_a_signature_are_trusted() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, ctx: object) -> None:
            """A stage that does nothing."""

    def hide(*args: object) -> None:
        raise ValueError

    opaque = functools.partial(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inspect.signature", hide)

        assert stage("it", opaque).runner is opaque
        assert stage("it", Fetch).runner is Fetch


# stage() and @stage


@pytest.mark.spec("20.2.4")
def test_stage_makes_a_spec() -> None:
    spec = stage("fetch", Fetch, kind="enrich", after="route", timeout=2.0)

    assert spec == StageSpec(
        "fetch", Fetch, kind=StageKind.ENRICH, dependencies=("route",), timeout=2.0
    )


@pytest.mark.spec("20.2.4")
@pytest.mark.parametrize("keyword", ["after", "dependencies"])
def test_after_and_dependencies_mean_the_same(keyword: str) -> None:
    given: Any = {keyword: ("a", edge("b", when="x"))}

    spec = stage("it", work, **given)

    assert spec.dependencies == ("a", "b")
    assert spec.edge_conditions == {"b": "x"}


def test_after_excludes_dependencies() -> None:
    error = refused(stage, "it", work, after="a", dependencies="b")

    assert error.code == "CONTRACT-004-OPTION"
    assert "after" in str(error)


def test_all_keywords_reach_the_spec() -> None:
    def condition(inputs: object) -> bool:
        return True

    spec = stage(
        "it",
        Fetch,
        kind=StageKind.WORK,
        dependencies="a",
        conditional=True,
        config={"url": "x"},
        inputs="text",
        outputs=["text", "words"],
        when=condition,
        edge_conditions={"a": "left"},
        join="all",
        stream_from="b",
        stream_buffer=4,
        timeout=math.inf,
    )

    assert spec == StageSpec(
        "it", Fetch, StageKind.WORK, ("a",), ("text",), ("text", "words"), True, {"url": "x"},
        condition, {"a": "left"}, "all", ("b",), 4, math.inf,
    )  # fmt: skip


@pytest.mark.spec("20.2.2")
async def test_decorated_function_stays_what_it_is() -> None:
    @stage
    async def clean(ctx: object) -> str:
        return f"clean {ctx}"

    assert await clean("air") == "clean air"
    assert clean.__stage__ == StageSpec("clean", clean)  # type: ignore[attr-defined]  # see 20.2.2


@pytest.mark.spec("20.2.2")
def test_decorated_class_stays_what_it_is() -> None:
    @stage(kind="guard", after=("clean", edge("route", when="billing")), outputs=("ok",))
    class Check:
        async def execute(self, ctx: object) -> None:
            """A stage that does nothing."""

    class Stricter(Check):
        pass

    spec = StageSpec(
        "Check",
        Check,
        StageKind.GUARD,
        ("clean", "route"),
        outputs=("ok",),
        edge_conditions={"route": "billing"},
    )

    assert isinstance(Check(), Check)
    assert isinstance(Stricter(), Check)
    assert vars(Check)["__stage__"] == spec


@pytest.mark.spec("20.2.2")
def test_stage_may_decorate_with_and_without_a_call() -> None:
    assert only_spec(stage(quick_work)).name == "quick_work"
    assert only_spec(stage(name="other")(quick_work)).name == "other"
    assert only_spec(stage()(quick_work)).name == "quick_work"
    del quick_work.__stage__  # type: ignore[attr-defined]  # what `stage` left there


@pytest.mark.spec("20.2.3")
@pytest.mark.parametrize(
    ("runner", "given", "kind"),
    [
        (work, None, StageKind.TRANSFORM),
        (work, "work", StageKind.WORK),
        (Named("n"), None, StageKind.ENRICH),
        (Named("n", "guard"), None, StageKind.GUARD),
        (Named("n"), StageKind.AGENT, StageKind.AGENT),
        (type("Kinded", (Fetch,), {"kind": "route"}), None, StageKind.ROUTE),
        (type("Lazy", (Fetch,), {"kind": property(lambda self: "route")}), None, "transform"),
    ],
)
def test_kind_is_given_or_that_of_the_runner(runner: Any, given: Any, kind: str) -> None:
    assert stage("it", runner, kind=given).kind is StageKind(kind)


@pytest.mark.spec("20.2.3")
def test_name_is_given_or_that_of_the_runner_or_that_in_the_source() -> None:
    class Plain(Fetch):
        pass

    class WithName(Fetch):
        name = "its_name"

    assert only_spec(stage(name="given")(WithName)).name == "given"
    assert only_spec(stage(WithName)).name == "its_name"
    assert only_spec(stage(Plain)).name == "Plain"


@pytest.mark.parametrize("runner", [lambda ctx: None, functools.partial(work)])
def test_stage_without_a_name_is_refused(runner: Any) -> None:
    error = refused(stage, runner)

    assert error.code == "CONTRACT-004-NAME"
    assert error.fix_hint == "Write stage('name', runner)."


def test_empty_name_is_not_the_same_as_none() -> None:
    assert refused(stage(name=""), work).code == "CONTRACT-004-NAME"


@pytest.mark.parametrize("given", [("it",), ("it", work, work)])
def test_name_without_exactly_one_runner_is_refused(given: Any) -> None:
    error = refused(stage, *given)

    assert error.code == "CONTRACT-004-RUNNER"
    assert "@stage(name='name')" in error.fix_hint


def test_things_that_keep_no_attribute_cannot_be_decorated() -> None:
    error = refused(stage, Fetch().work)

    assert error.code == "CONTRACT-004-RUNNER"
    assert error.fix_hint == "Write stage('work', ...)."


def test_unknown_keyword_is_refused_with_the_closest_one() -> None:
    unknown: Any = {"time_out": 3}
    with pytest.raises(UnknownKeywordError) as caught:
        stage("it", work, **unknown)

    assert isinstance(caught.value, InvalidTypeError)
    assert str(caught.value) == "stage() has no keyword 'time_out'; did you mean 'timeout'?"
    assert caught.value.fix_hint == "Write timeout=..."


def test_keyword_like_no_other_is_refused_with_all_of_them() -> None:
    unknown: Any = {"xyzzy": 3}
    with pytest.raises(UnknownKeywordError) as caught:
        stage("it", work, **unknown)

    assert str(caught.value) == "stage() has no keyword 'xyzzy'"
    assert caught.value.fix_hint.startswith("Known are after, args, conditional,")


# Wherever a stage is expected


@pytest.mark.spec("20.2.5")
def test_specs_decorated_things_and_objects_are_stages() -> None:
    @stage(after="clean")
    async def route(ctx: object) -> None:
        """A stage that does nothing."""

    @stage
    class Check(Fetch):
        pass

    clean = stage("clean", work)
    named = Named("named")

    pipeline = Pipeline.from_stages(clean, route, Check, named)

    assert pipeline.stages == (
        clean,
        StageSpec("route", route, dependencies="clean"),
        StageSpec("Check", Check),
        StageSpec("named", named, kind=StageKind.ENRICH),
    )


@pytest.mark.spec("20.2.5")
def test_object_of_a_decorated_class_keeps_the_declaration() -> None:
    @stage(kind="guard", after="clean", config={"url": "x"})
    class Check(Fetch):
        pass

    check = Check("y")

    assert only_spec(check) == StageSpec("Check", check, StageKind.GUARD, ("clean",))


@pytest.mark.spec("20.2.5")
def test_object_of_a_decorated_class_may_have_a_name_of_its_own() -> None:
    @stage(after="clean")
    class Check(Fetch):
        def __init__(self, name: str = "Check") -> None:
            self.name = name

    both = Pipeline.from_stages(Check("one"), Check("two"))

    assert [(spec.name, spec.dependencies) for spec in both.stages] == [
        ("one", ("clean",)),
        ("two", ("clean",)),
    ]


@stage
async def declared(ctx: object) -> None:
    """A stage that does nothing."""


@functools.wraps(declared)
async def wrapper(ctx: object) -> None:
    await declared(ctx)


@stage
class Declared(Fetch):
    pass


class Derived(Declared):
    pass


class Titled(Fetch):
    name = "titled"


@pytest.mark.parametrize(
    ("found", "says", "fix"),
    [
        (
            work,
            "the function work",
            "Decorate the function with @stage, or write stage('work', work).",
        ),
        (lambda ctx: None, "a lambda", "Write stage('name', runner)."),
        (
            Titled,
            "the class Titled",
            "Decorate the class with @stage, or pass an instance, Titled(...)",
        ),
        (
            Fetch,
            "the class Fetch",
            "Decorate the class with @stage, or write stage('name', Fetch).",
        ),
        (Fetch(), "the Fetch", "Write stage('name', runner)."),
        ([declared, Declared], "the list", "Pass the stages one by one: from_stages(*stages)."),
        ("declared", "the str 'declared'", "one by one"),
        (3, "the int 3", "Write stage('name', runner)."),
        # The spec they inherited would run something else than what was passed.
        (wrapper, "the function declared", "@stage belongs above other decorators"),
        (Derived, "the class Derived", "@stage belongs above other decorators"),
    ],
)
def test_what_does_not_say_which_stage_it_is_is_refused(found: Any, says: str, fix: str) -> None:
    error = refused(Pipeline.from_stages, found)

    assert error.code == "CONTRACT-004-RUNNER"
    assert f"a pipeline was given {says}" in str(error)
    assert fix in error.fix_hint
