"""Interceptors that look for mistakes: mutations and growth (30.14, 60 section 12)."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import (
    ContextSizeExceededError,
    ImmutabilityViolationError,
    InvalidArgumentError,
)
from actorflow.interceptors import (
    ContextSizeInterceptor,
    ImmutabilityInterceptor,
    get_default_interceptors,
    run_with_interceptors,
)
from actorflow.interceptors._description import described, differences
from actorflow.model import StageOutput
from actorflow.stages import PipelineContext, StageResult
from actorflow.testing import RecordingEventSink

from .recording import Recorder, Stage, for_ever


@attrs.define
class Profile:
    """An extension that somebody forgot to freeze."""

    name: str
    tags: list[str] = attrs.field(factory=list)


@dataclasses.dataclass
class Settings:
    volume: int


class Plain:
    def __init__(self) -> None:
        self.count = 0


def context(**fields: Any) -> PipelineContext:
    return PipelineContext(event_sink=RecordingEventSink(strict=True), **fields)


async def call(
    stage: Any, ctx: PipelineContext, *interceptors: Any, name: str = "stage"
) -> StageResult:
    return await run_with_interceptors(name, stage, ctx, interceptors)


def sink_of(ctx: PipelineContext) -> RecordingEventSink:
    assert isinstance(ctx.event_sink, RecordingEventSink)
    return ctx.event_sink


# Immutability


@pytest.mark.spec("30.12.1", "30.14.5")
def test_who_looks_at_what_is_not_in_the_default_set_but_has_its_place() -> None:
    watching = [ImmutabilityInterceptor(), ContextSizeInterceptor()]

    assert [(it.priority, it.name) for it in watching] == [
        (10, "immutability_check"),
        (42, "context_size"),
    ]
    assert not {it.name for it in watching} & {it.name for it in get_default_interceptors()}


@pytest.mark.spec("30.14.1", "30.14.2")
async def test_mutation_fails_the_stage(autojump_clock: MockClock) -> None:
    profile = Profile("Ada")
    ctx = context(extensions=profile)
    outer = Recorder("outer", priority=1)

    def stage() -> None:
        profile.tags.append("seen")

    result = await call(stage, ctx, outer, ImmutabilityInterceptor())

    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith(
        "Immutability violation: Stage 'stage' mutated the input ContextSnapshot."
    )
    assert result.error.endswith("Changed: /extensions/tags")
    assert result.error_type == "ImmutabilityViolationError"
    # It is critical, so nobody was asked.
    assert outer.errors == []
    sink_of(ctx).assert_emitted(
        "context.mutation_detected", stage="stage", paths=["/extensions/tags"]
    )


@pytest.mark.spec("30.14.1")
async def test_mutation_may_be_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings_ = Settings(1)
    ctx = context(metadata={"settings": settings_})

    def stage() -> None:
        settings_.volume = 11

    result = await call(stage, ctx, ImmutabilityInterceptor(crash_on_violation=False))

    assert result.status == "completed"
    [record] = caplog.records
    assert (record.name, record.levelno) == ("actorflow.hardening", logging.ERROR)
    assert result.warnings == (record.getMessage(),)
    assert "/metadata/settings/volume" in record.getMessage()


@pytest.mark.spec("30.14.2")
async def test_assignment_around_the_frozen_class_is_seen() -> None:
    ctx = context(input_text="hello")

    def stage() -> None:
        object.__setattr__(ctx.snapshot, "input_text", "bye")

    result = await call(stage, ctx, ImmutabilityInterceptor())

    assert (result.error or "").endswith("Changed: /input_text")


@pytest.mark.spec("30.14.2")
async def test_what_only_looks_changes_nothing() -> None:
    odd = {"nan": float("nan"), "object": object(), "plain": Plain(), "set": {1, 2}}
    ctx = context(metadata=odd, extensions=Profile("Ada"), input_text="hello")

    result = await call(
        lambda: dict(ctx.snapshot.metadata), ctx, ImmutabilityInterceptor(), name="stage"
    )

    assert result.status == "completed"


@pytest.mark.spec("30.14.3")
async def test_stages_that_ran_at_the_same_time_are_suspects(autojump_clock: MockClock) -> None:
    profile = Profile("Ada")
    ctx = context(extensions=profile)
    check = ImmutabilityInterceptor()
    errors = Recorder("errors", priority=11)
    results: dict[str, StageResult] = {}

    async def run(name: str, begin: float, takes: float, mutates: bool) -> None:
        async def stage() -> None:
            await trio.sleep(takes)
            if mutates:
                profile.name = "Bob"

        await trio.sleep(begin)
        results[name] = await call(stage, ctx, check, errors, name=name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "before", 0, 1, False)
        nursery.start_soon(run, "beside", 1.5, 2, False)
        nursery.start_soon(run, "guilty", 2, 1, True)
        nursery.start_soon(run, "later", 4, 1, False)

    assert {name: it.status for name, it in results.items()} == {
        "before": "completed",
        "beside": "failed",
        "guilty": "failed",
        "later": "completed",
    }
    assert "at the same time ran guilty" in (results["beside"].error or "")
    assert "at the same time ran beside" in (results["guilty"].error or "")


@pytest.mark.spec("30.14.3")
def test_every_part_is_compared() -> None:
    class Odd:
        __slots__ = ("text",)

        def __init__(self) -> None:
            self.text = "a"

        def __repr__(self) -> str:
            return self.text

    odd, plain = Odd(), Plain()
    before = described({"odd": odd, "plain": plain})

    odd.text, plain.count = "b", 1

    assert list(differences(before, described({"odd": odd, "plain": plain}))) == [
        *("/odd", "/plain/count")
    ]


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        ({"a": 1}, {"a": True}, ["/a"]),
        ({"a": 1}, {"b": 1}, ["/a", "/b"]),
        ({"a/b": 1, "~": 1}, {"a/b": 2, "~": 2}, ["/a~1b", "/~0"]),
        ([1, [2]], [1, [3]], ["/1/0"]),
        ([1], [1, 2], [""]),
        ({1: "x"}, {1: "y"}, ["/1"]),
        ({"a": {1}}, {"a": {2}}, ["/a/0"]),
    ],
)
def test_differences_are_pointed_at(before: Any, after: Any, paths: list[str]) -> None:
    assert list(differences(described(before), described(after))) == paths


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@pytest.mark.spec("30.14.2")
@given(VALUES)
@settings(max_examples=50)
def test_what_stays_as_it_is_has_no_differences(value: Any) -> None:
    assert list(differences(described(value), described(value))) == []


def test_endless_values_come_to_an_end() -> None:
    ring: list[Any] = []
    ring.append(ring)

    assert list(differences(described(ring), described(ring))) == []


@pytest.mark.spec("30.14.5", "30.11.12")
async def test_check_can_be_made_by_hand() -> None:
    profile = Profile("Ada")
    ctx = context(extensions=profile)
    check = ImmutabilityInterceptor()
    result = await call(Stage(None), ctx)

    await check.before("stage", ctx)
    profile.name = "Bob"
    with pytest.raises(ImmutabilityViolationError) as caught:
        await check.after("stage", result, ctx)
    await check.release("stage", ctx)

    assert isinstance(caught.value, RuntimeError)
    assert (caught.value.stage, caught.value.changed) == ("stage", ("/extensions/name",))
    assert "_interceptor.immutability_check.stage" not in ctx.data


async def test_cancelled_stage_is_no_suspect_afterwards(autojump_clock: MockClock) -> None:
    profile = Profile("Ada")
    ctx = context(extensions=profile)
    check = ImmutabilityInterceptor()
    with trio.move_on_after(1):
        await call(for_ever, ctx, check, name="gone")

    def stage() -> None:
        profile.name = "Bob"

    assert "gone" not in ((await call(stage, ctx, check)).error or "")


# Size


@pytest.mark.spec("30.14.4", "G87", "G88", "G90")
async def test_large_context_is_reported_before_the_stage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ctx = context(data={"text": "x" * 3000, "_framework": "y" * 9000})

    result = await call(Stage(None), ctx, ContextSizeInterceptor(2048))

    assert result.status == "completed"
    [record] = caplog.records
    assert (record.name, record.levelno) == ("actorflow.hardening", logging.WARNING)
    told = sink_of(ctx).assert_emitted("context.size_warning", stage="stage", limit_bytes=2048)
    size = told["size_bytes"]
    assert 3000 < size < 5000
    assert record.getMessage() == f"Context size warning: {size // 1024}KB exceeds limit 2KB"
    assert ctx.metrics == {'context_size_bytes{stage="stage"}': size + 2}


@pytest.mark.spec("G87")
async def test_size_counts_snapshot_and_data_as_json() -> None:
    async def measured(**fields: Any) -> float:
        ctx = context(**fields)
        await ContextSizeInterceptor().before("stage", ctx)
        [size] = ctx.metrics.values()
        return size

    base = await measured(created_at=(moment := context().created_at))
    assert await measured(created_at=moment, data={"k": "é"}) - base == len('"k": "é"'.encode())
    assert await measured(created_at=moment, data={"_k": "x"}) == base
    assert await measured(created_at=moment, metadata={"k": "x"}) - base == len('"k": "x"')


@pytest.mark.spec("G87")
async def test_outputs_that_the_stage_may_read_count() -> None:
    small = context()
    large = context(created_at=small.created_at)
    large.outputs.write_sync("before", StageOutput.ok(text="x" * 100))

    for ctx in (small, large):
        await ContextSizeInterceptor().before("stage", ctx)

    [least], [most] = small.metrics.values(), large.metrics.values()
    assert most - least == len('"before": {"text": "' + "x" * 100 + '"}')


@pytest.mark.spec("30.14.4", "G89", "G90")
async def test_growth_is_reported_after_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context()

    def stage() -> Any:
        ctx.data["notes"] = "x" * 3000
        return {"answer": "y" * 3000}

    await call(stage, ctx, ContextSizeInterceptor(warn_on_growth_bytes=6000))

    told = sink_of(ctx).assert_emitted("context.growth_warning", stage="stage", limit_bytes=6000)
    assert told["growth_bytes"] == len('"notes": ""' + '{"answer": ""}') + 6000
    [record] = caplog.records
    assert record.getMessage() == "Significant context growth: Stage 'stage' added 5KB"
    assert ctx.metrics['context_size_bytes{stage="stage"}'] == told["size_bytes"]


@pytest.mark.spec("30.14.4", "G88", "G89")
async def test_exactly_the_limit_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context()
    await ContextSizeInterceptor().before("stage", ctx)
    [size] = ctx.metrics.values()

    for limit, warnings in ((size, 0), (size - 1, 1)):
        again = context(created_at=ctx.created_at)
        await call(Stage(None), again, ContextSizeInterceptor(int(limit), 2))
        assert len(sink_of(again).payloads("context.size_warning")) == warnings
        assert sink_of(again).payloads("context.growth_warning") == []


@pytest.mark.spec("G91", "30.14.5", "W4")
async def test_stages_at_the_same_time_are_measured_apart(autojump_clock: MockClock) -> None:
    size = ContextSizeInterceptor(warn_on_growth_bytes=50)
    ctxs = [context(), context()]

    def stage(ctx: PipelineContext, grows: bool) -> Any:
        async def run() -> Any:
            await trio.sleep(1)
            return {"text": "x" * 100} if grows else None

        return run

    async with trio.open_nursery() as nursery:
        for ctx, grows in zip(ctxs, (True, False), strict=True):
            for name in "ab":
                nursery.start_soon(
                    lambda c, s, n: call(s, c, size, name=n), ctx, stage(ctx, grows), name
                )

    assert [len(sink_of(ctx).payloads("context.growth_warning")) for ctx in ctxs] == [2, 0]


@pytest.mark.spec("G91")
async def test_snapshot_is_measured_once_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context()
    looks: list[int] = []
    original = type(ctx.snapshot).to_dict

    def to_dict(self: Any, *args: Any, **options: Any) -> Any:
        looks.append(1)
        return original(self, *args, **options)

    monkeypatch.setattr(type(ctx.snapshot), "to_dict", to_dict)
    size = ContextSizeInterceptor()

    for name in "abc":
        await call(Stage(None), ctx, size, name=name)

    assert len(looks) == 1


class Unspeakable:
    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.spec("G92")
async def test_failure_to_measure_is_logged_once_and_touches_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ctx = context(data={"bad": Unspeakable()})
    size = ContextSizeInterceptor()

    for _ in range(2):
        result = await call(Stage({"n": 1}), ctx, size)
        assert result.data == {"n": 1}
        assert result.warnings == ()

    assert [record.getMessage() for record in caplog.records] == ["context_size_not_measured"]


@pytest.mark.spec("G92")
async def test_failure_to_measure_afterwards_touches_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ctx = context()

    result = await call(Stage({"bad": Unspeakable()}), ctx, ContextSizeInterceptor())

    assert result.status == "completed"
    assert [record.getMessage() for record in caplog.records] == ["context_size_not_measured"]


@pytest.mark.spec("G92")
async def test_too_large_a_context_may_fail_the_stage() -> None:
    stage = Stage(None)
    ctx = context(data={"text": "x" * 100})
    outer = Recorder("outer", priority=1)

    result = await call(stage, ctx, outer, ContextSizeInterceptor(50, fail_on_exceed=True))

    assert stage.calls == 0
    [error] = outer.errors
    assert isinstance(error, ContextSizeExceededError)
    assert error.limit_bytes == 50
    assert result.error == str(error)


@pytest.mark.spec("G90")
async def test_context_without_metrics_is_skipped() -> None:
    class NoMetrics:
        def __init__(self, ctx: PipelineContext) -> None:
            self._ctx = ctx

        def __getattr__(self, name: str) -> Any:
            if name == "record_metric":
                raise AttributeError(name)
            return getattr(self._ctx, name)

    ctx: Any = NoMetrics(context())

    assert (await call(Stage({"n": 1}), ctx, ContextSizeInterceptor())).data == {"n": 1}


@pytest.mark.parametrize("options", [{"max_size_bytes": 0}, {"warn_on_growth_bytes": -1}])
def test_impossible_limits_are_refused(options: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        ContextSizeInterceptor(**options)
