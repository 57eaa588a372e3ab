"""One stage by itself: contexts made by hand, and runs around a single stage."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from actorflow import Pipeline, StageContext, StageOutput, edge, stage
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    NotInRunError,
    PipelineValidationError,
    StreamBrokenError,
    UndeclaredDependencyError,
    UnifiedPipelineCancelled,
)
from actorflow.events import NoOpEventSink
from actorflow.interceptors import RetryInterceptor
from actorflow.pipeline import key_true
from actorflow.stages import PipelineContext
from actorflow.testing import (
    RecordingEventSink,
    make_snapshot,
    make_stage_context,
    run_stage,
)


@stage(after=("fetch", "ask"))
async def shout(ctx: StageContext) -> dict[str, str]:
    ctx.try_emit_event("app.shouted", {"loud": True})
    return {"text": ctx.inputs.get("text", "nothing").upper()}


# Contexts


async def test_stage_can_be_called_with_a_context_made_by_hand() -> None:
    recorded = RecordingEventSink()
    ctx = make_stage_context("shout", inputs={"fetch": {"text": "hi"}}, event_sink=recorded)

    assert await shout(ctx) == {"text": "HI"}
    recorded.assert_emitted("app.shouted", loud=True)
    assert (ctx.attempt, ctx.try_number, dict(ctx.config)) == (1, 1, {})


def test_context_has_what_was_given() -> None:
    user = UUID(int=7)
    ctx = make_stage_context(
        "a",
        "hello",
        inputs={"b": StageOutput.skip("why"), "c": None},
        config={"n": 1},
        attempt=2,
        try_number=3,
        user_id=user,
        topology="chat_fast",
        ports="ports",
    )

    assert (ctx.stage_name, ctx.snapshot.input_text, ctx.user_id) == ("a", "hello", user)
    assert (ctx.attempt, ctx.try_number, ctx.config["n"]) == (2, 3, 1)
    assert (ctx.topology, ctx.ports) == ("chat_fast", "ports")
    assert ctx.inputs.declared_deps == ("b", "c")
    assert ctx.inputs.get_output("b") == StageOutput.skip("why")
    assert ctx.inputs.get_output("c") == StageOutput.ok()
    with pytest.raises(UndeclaredDependencyError):
        ctx.inputs.get_output("d")
    with pytest.raises(NotInRunError):
        ctx.data


def test_context_takes_a_snapshot_or_a_context() -> None:
    snapshot = make_snapshot("hello", metadata={"n": 1})
    context = PipelineContext(input_text="hi")

    assert make_stage_context(source=snapshot).snapshot == snapshot
    assert make_stage_context(source=context).snapshot is context.snapshot
    assert (snapshot.input_text, snapshot.metadata) == ("hello", {"n": 1})
    assert make_snapshot().input_text is None


# Runs


async def test_stage_runs_with_outputs_that_were_made_up() -> None:
    ran = await run_stage(shout, inputs={"fetch": {"text": "hi"}})

    assert (ran.status, ran.data) == ("completed", {"text": "HI"})
    assert ran.output is not None
    assert ran.exception is None
    assert ran.sent == ()
    assert ran.events.types() == ["stage.started", "app.shouted", "stage.completed"]


async def test_dependencies_that_were_not_given_returned_nothing() -> None:
    assert (await run_stage(shout)).data == {"text": "NOTHING"}


async def test_stage_without_dependencies_depends_on_what_is_given() -> None:
    async def join(ctx: StageContext) -> dict[str, Any]:
        return {"all": [ctx.inputs.get_from(name, "n") for name in ctx.inputs.stages]}

    ran = await run_stage(stage("join", join), inputs={"a": {"n": 1}, "b": {"n": 2}})

    assert ran.data == {"all": (1, 2)}


async def test_failure_has_its_exception() -> None:
    error = LookupError("gone")

    async def broken(ctx: StageContext) -> None:
        raise error

    ran = await run_stage(stage("broken", broken))

    assert (ran.status, ran.result.error_type) == ("failed", "LookupError")
    assert ran.exception is error


async def test_failed_input_does_not_keep_it_from_running() -> None:
    ran = await run_stage(shout, inputs={"fetch": StageOutput.fail("no", {"text": "sorry"})})

    assert ran.data == {"text": "SORRY"}


async def test_conditions_hold() -> None:
    asks = stage("asks", shout, after="fetch", when=key_true("fetch", "loud"))
    chosen = stage("chosen", shout, after=edge("route", when="billing"))

    assert (await run_stage(asks, inputs={"fetch": {"loud": True}})).status == "completed"
    assert (await run_stage(asks, inputs={"fetch": {"loud": False}})).status == "skipped"
    assert (await run_stage(chosen, inputs={"route": {"branch": "billing"}})).status == "completed"


@pytest.mark.parametrize("branch", ["elsewhere", ["elsewhere", "nowhere"], [], None])
async def test_router_may_choose_branches_that_are_not_there(branch: Any) -> None:
    chosen = stage("chosen", shout, after=edge("route", when="billing"))

    ran = await run_stage(chosen, inputs={"route": {"branch": branch}})

    assert (ran.status, ran.result.skipped_by) == ("skipped", "dependency")


async def test_streams_go_in_and_out() -> None:
    @stage(stream_from=("words", "numbers"))
    async def pair(ctx: StageContext) -> dict[str, Any]:
        numbers = [item async for item in ctx.stream("numbers")]
        async for word in ctx.stream("words"):
            await ctx.send(f"{word}!")
        return {"numbers": numbers}

    ran = await run_stage(pair, streams={"words": "ab" * 50})

    assert ran.sent == ("a!", "b!") * 50
    assert ran.data == {"numbers": ()}
    assert ran.events.types() == ["stage.started", "stage.completed"]


async def test_what_a_failed_stage_sent_is_told() -> None:
    @stage
    async def breaks(ctx: StageContext) -> None:
        await ctx.send(1)
        raise LookupError

    ran = await run_stage(breaks)

    assert (ran.status, ran.sent) == ("failed", (1,))
    assert not isinstance(ran.exception, StreamBrokenError)


async def test_run_serves_children_data_and_cleanups() -> None:
    cleaned: list[str] = []
    child = Pipeline.from_stages(stage("inner", shout), name="child")

    @stage
    async def parent(ctx: StageContext) -> dict[str, Any]:
        ctx.add_cleanup(lambda: cleaned.append(ctx.stage_name))
        await ctx.bag.write("seen", ctx.data["tenant"], ctx.stage_name)
        return {"child": (await ctx.spawn_subpipeline(child)).success}

    ran = await run_stage(parent, "hello", data={"tenant": "acme"})

    assert ran.data == {"child": True}
    assert cleaned == ["parent"]
    assert ran.context.bag.read("seen") == "acme"
    assert ran.context.input_text == "hello"
    ran.events.assert_order(
        *("stage.started", "pipeline.spawned_child", "pipeline.started", "app.shouted"),
        *("pipeline.completed", "pipeline.child_completed", "stage.completed"),
    )
    assert [it["pipeline_name"] for it in ran.events.payloads("pipeline.started")] == ["child"]


async def test_limits_and_interceptors_hold(autojump_clock: MockClock) -> None:
    @stage(timeout=2)
    async def slow(ctx: StageContext) -> None:
        if ctx.try_number == 1:
            await trio.sleep_forever()

    retry = RetryInterceptor(base_delay_ms=1000, jitter_strategy="none")

    assert (await run_stage(slow)).result.timed_out
    assert (await run_stage(slow, interceptors=[retry])).result.tries == 2
    assert trio.current_time() == 5


async def test_interceptors_are_around_the_stage_alone() -> None:
    around = []

    class Plain:
        name = "plain"

        async def before(self, stage_name: str, ctx: object) -> None:
            around.append(stage_name)

        async def after(self, stage_name: str, result: object, ctx: object) -> None:
            around.append(stage_name)

        async def on_error(self, stage_name: str, error: Exception, ctx: object) -> str:
            return "fail"

    class Picky(Plain):
        name = "picky"

        def applies_to(self, stage_name: str, kind: object) -> bool:
            return stage_name == "ask"

    await run_stage(shout, inputs={"ask": {"text": "hi"}}, interceptors=[Plain(), Picky()])

    assert around == ["shout", "shout"]


async def test_something_that_is_no_interceptor_is_named() -> None:
    with pytest.raises(PipelineValidationError, match="'nothing' is no interceptor"):
        await run_stage(shout, interceptors=["nothing"])


async def test_source_and_fields_have_to_fit() -> None:
    with pytest.raises(InvalidArgumentError, match="left out beside a PipelineContext"):
        await run_stage(shout, PipelineContext(), interceptor=[])
    with pytest.raises(InvalidTypeError, match="source must be a text"):
        await run_stage(shout, {"ask": {}})  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="event_sink must be a RecordingEventSink"):
        await run_stage(shout, event_sink=NoOpEventSink())  # type: ignore[arg-type]


async def test_events_can_be_waited_for_meanwhile(autojump_clock: MockClock) -> None:
    recorded = RecordingEventSink()

    @stage
    async def waits(ctx: StageContext) -> None:
        await trio.sleep_forever()

    context = PipelineContext()
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await recorded.wait_for("stage.started", stage="waits")
            context.mark_canceled("enough")

        nursery.start_soon(cancel)
        ran = await run_stage(waits, context, event_sink=recorded)

    assert (ran.status, ran.output) == ("canceled", None)
    assert ran.events is recorded


async def test_stage_may_call_off_the_run() -> None:
    @stage
    async def enough(ctx: StageContext) -> StageOutput:
        return StageOutput.cancel("enough")

    ran = await run_stage(enough)

    assert ran.output is not None
    assert (ran.status, ran.output.reason) == ("canceled", "enough")


async def test_run_that_is_cancelled_before_the_stage_says_so() -> None:
    with pytest.raises(UnifiedPipelineCancelled, match="no more"):
        await run_stage(shout, inputs={"ask": StageOutput.cancel("no more")})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": {"fetsch": {}}}, r"inputs must be of 'fetch', 'ask', found \['fetsch'\]"),
        ({"streams": {"fetch": []}}, r"streams must be left out, found \['fetch'\]"),
    ],
)
async def test_inputs_that_it_does_not_declare_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        await run_stage(shout, **given)


async def test_producers_are_no_inputs() -> None:
    listens = stage("listens", shout, stream_from="words")

    with pytest.raises(InvalidArgumentError, match="inputs must be left out"):
        await run_stage(listens, inputs={"words": {}})


async def test_something_that_is_no_stage_is_refused() -> None:
    with pytest.raises(PipelineValidationError, match="does not say what stage it is"):
        await run_stage(lambda ctx: None)
