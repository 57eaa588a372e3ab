"""Cancelling runs, by whatever way, and cleaning up after them (30.7)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.cancellation import CancellationToken
from actorflow.errors import NotInRunError, UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.model import StageOutput, StageStatus
from actorflow.runtime import PipelineResults, RunPhase, UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext, StageInputs, create_stage_context
from actorflow.testing import RecordingEventSink

from .stages import forever, nothing, spec


def results_of(error: UnifiedPipelineCancelled) -> PipelineResults:
    assert isinstance(error.results, PipelineResults)
    return error.results


def told(sink: RecordingEventSink) -> list[str]:
    return [" ".join(filter(None, (e.type, e.data.get("stage")))) for e in sink.events]


# Who asks


async def _return_cancel(ctx: StageContext) -> StageOutput:
    return StageOutput.cancel("by output")


async def _return_bare_cancel(ctx: StageContext) -> StageOutput:
    return StageOutput.cancel()


async def _mark(ctx: StageContext) -> None:
    context: PipelineContext = ctx.data["_context"]
    context.mark_canceled("by mark")
    await trio.sleep_forever()


async def _mark_without_reason(ctx: StageContext) -> None:
    ctx.data["_context"].mark_canceled()
    await trio.sleep_forever()


async def _token(ctx: StageContext) -> None:
    ctx.cancel_token.cancel()
    await trio.sleep_forever()


@pytest.mark.spec("30.7.1", "30.7.2", "10.11.3")
@pytest.mark.parametrize(
    ("ask", "stage", "reason"),
    [
        (_return_cancel, "ask", "by output"),
        (_return_bare_cancel, "ask", "Pipeline cancelled"),
        (_mark, "<external>", "by mark"),
        (_mark_without_reason, "<external>", "user_requested"),
        (_token, "<external>", "Cancellation requested"),
    ],
)
async def test_everybody_inside_can_cancel_the_run(
    ask: Any, stage: str, reason: str, sink: RecordingEventSink
) -> None:
    context = PipelineContext()
    context.data["_context"] = context
    ended = []

    async def other(ctx: StageContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append((ctx.is_cancelled, ctx.cancellation_reason))

    async def ask_later(ctx: StageContext) -> Any:
        await wait_all_tasks_blocked()
        return await ask(ctx)

    graph = UnifiedStageGraph(
        [spec("other", other), spec("ask", ask_later), spec("b", nothing, "ask")]
    )
    with pytest.raises(UnifiedPipelineCancelled) as caught:
        await graph.run(context, event_sink=sink)

    assert (caught.value.stage, caught.value.reason) == (stage, reason)
    assert ended == [(True, reason)]
    assert "b" not in results_of(caught.value).stage_results
    external = stage == "<external>"
    sink.assert_emitted("pipeline.canceled", stage=None if external else stage, reason=reason)


@pytest.mark.spec("30.7.1", "30.7.3")
async def test_handle_cancels_at_the_next_checkpoint_of_every_stage(
    autojump_clock: MockClock,
) -> None:
    graph = UnifiedStageGraph([spec(f"s{i}", forever) for i in range(100)])

    async with graph.start() as run:
        await wait_all_tasks_blocked()
        begun_at = trio.current_time()
        run.cancel("enough")
        run.cancel("too late")
        with pytest.raises(UnifiedPipelineCancelled, match="from outside: enough"):
            await run.wait()

    assert trio.current_time() == begun_at


@pytest.mark.spec("30.7.1", "30.7.3")
async def test_stage_that_was_ordered_but_not_begun_is_not_called() -> None:
    ran = []

    async def first_come(ctx: StageContext) -> None:
        ran.append(ctx.stage_name)
        ctx.cancel_token.cancel("I was first")

    graph = UnifiedStageGraph([spec(f"s{i}", first_come) for i in range(10)])
    with pytest.raises(UnifiedPipelineCancelled):
        await graph.run()

    assert len(ran) == 1


@pytest.mark.spec("30.7.1")
async def test_given_token_cancels_the_run_and_is_not_cancelled_by_it() -> None:
    token = CancellationToken()
    graph = UnifiedStageGraph([spec("a", forever)])

    async with graph.start(cancel_token=token) as run:
        await wait_all_tasks_blocked()
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()
    assert not token.is_cancelled

    async with graph.start(cancel_token=token) as run:
        await wait_all_tasks_blocked()
        token.cancel("hung up")
        with pytest.raises(UnifiedPipelineCancelled, match="hung up"):
            await run.wait()


@pytest.mark.spec("30.7.1", "10.11.3")
@pytest.mark.parametrize("way", ["handle", "context", "token"])
async def test_cancelling_works_from_any_thread(way: str) -> None:
    token = CancellationToken()
    graph = UnifiedStageGraph([spec("a", forever)])

    async with graph.start(cancel_token=token) as run:
        ways = {
            "handle": run.cancel,
            "context": run.context.mark_canceled,
            "token": token.cancel,
        }
        await trio.to_thread.run_sync(ways[way], "from a thread")
        with pytest.raises(UnifiedPipelineCancelled, match="from a thread"):
            await run.wait()


@pytest.mark.spec("30.7.6")
async def test_cancelled_scope_around_a_run_ends_it_and_goes_on(sink: RecordingEventSink) -> None:
    cleaned = []
    context = PipelineContext()

    async def work(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append("cleaned"))
        await trio.sleep_forever()

    before = trio.lowlevel.current_statistics().tasks_living
    graph = UnifiedStageGraph([spec("done", nothing), *(spec(f"s{i}", work) for i in range(3))])
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_and_cancel, scope)
            await graph.run(context, event_sink=sink)
            pytest.fail("the cancellation must go on")

    assert scope.cancelled_caught
    assert cleaned == ["cleaned"] * 3
    assert trio.lowlevel.current_statistics().tasks_living == before
    sink.assert_emitted("pipeline.canceled", reason="Cancelled by enclosing scope", stage=None)
    # Nobody got an exception with the results, but the context has them.
    assert context.outputs.keys() == ["done"]


async def wait_and_cancel(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


@pytest.mark.spec("30.7.1")
async def test_stage_with_tasks_of_its_own_is_cancelled_with_them() -> None:
    async def work(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    async with UnifiedStageGraph([spec("a", work)]).start() as run:
        await wait_all_tasks_blocked()
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled) as caught:
            await run.wait()

    assert results_of(caught.value).failures == ()
    assert results_of(caught.value).stage_results["a"].status == "canceled"


@pytest.mark.spec("30.7.6")
async def test_cancellation_comes_out_of_run_as_itself() -> None:
    came_out = "nothing"
    graph = UnifiedStageGraph([spec("a", forever), spec("b", forever)])

    with trio.move_on_after(0):
        try:
            await graph.run()
        except trio.Cancelled:
            came_out = "itself"
            raise
        finally:
            assert came_out == "itself"


# Before and after


@pytest.mark.spec("30.7.7", "30.3.1")
@pytest.mark.parametrize("way", ["context", "token", "scope"])
async def test_run_cancelled_before_its_start_calls_nothing(
    way: str, sink: RecordingEventSink
) -> None:
    async def never(ctx: StageContext) -> None:
        pytest.fail("called")

    context, token = PipelineContext(), CancellationToken()
    graph = UnifiedStageGraph([spec("a", never)])
    if way == "scope":
        with trio.CancelScope() as scope:
            scope.cancel()
            await graph.run(context, event_sink=sink)
        assert scope.cancelled_caught
    else:
        (context.mark_canceled if way == "context" else token.cancel)("too late")
        with pytest.raises(UnifiedPipelineCancelled) as caught:
            await graph.run(context, event_sink=sink, cancel_token=token)
        assert caught.value.reason == "too late"
        assert caught.value.results == {}

    assert sink.types() == ["pipeline.canceled"]
    assert sink.events[0].data["seq"] == 1


@pytest.mark.spec("30.7.2")
async def test_late_request_is_not_turned_into_success() -> None:
    async def last(ctx: StageContext) -> dict[str, int]:
        ctx.cancel_token.cancel("just in time")
        return {"n": 1}

    with pytest.raises(UnifiedPipelineCancelled) as caught:
        await UnifiedStageGraph([spec("a", last)]).run()

    assert results_of(caught.value).data("a") == {"n": 1}


@pytest.mark.spec("30.7.2")
async def test_request_while_cleaning_up_still_counts() -> None:
    async def work(ctx: StageContext) -> None:
        token = ctx.cancel_token
        ctx.add_cleanup(lambda: token.cancel("during cleanup"))

    with pytest.raises(UnifiedPipelineCancelled, match="during cleanup"):
        await UnifiedStageGraph([spec("a", work)]).run()


@pytest.mark.spec("30.7.2")
async def test_run_that_failed_first_stays_failed() -> None:
    async def fail(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no")

    async def ask(ctx: StageContext) -> StageOutput:
        try:
            await trio.sleep_forever()
        finally:
            ctx.data["_run"].cancel("too late")

    context = PipelineContext()
    graph = UnifiedStageGraph([spec("fail", fail), spec("ask", ask)])
    with pytest.raises(UnifiedStageExecutionError):
        async with graph.start(context) as run:
            context.data["_run"] = run


async def test_cancelling_a_run_that_has_ended_has_no_effect() -> None:
    async with UnifiedStageGraph([spec("a", nothing)]).start() as run:
        await run.wait()
        run.cancel()
        run.context.mark_canceled()

    assert run.status().state is RunPhase.COMPLETED


def test_token_cancelled_after_the_program_of_the_run_has_no_effect() -> None:
    tokens = []

    async def work(ctx: StageContext) -> None:
        tokens.append(ctx.cancel_token)

    async def begin() -> Any:
        async with UnifiedStageGraph([spec("a", work)]).start() as run:
            pass
        return run

    run = trio.run(begin)
    run.cancel()
    tokens[0].cancel()

    assert run.status().state is RunPhase.COMPLETED


# The sequence


@pytest.mark.spec("30.7.3", "30.7.4", "30.7.5", "E12", "E15")
async def test_sequence_of_a_cancelled_run(sink: RecordingEventSink) -> None:
    async def work(ctx: StageContext) -> None:
        async def clean_up() -> None:
            await trio.lowlevel.checkpoint()
            ctx.try_emit_event("app.cleaned", {"by": ctx.stage_name})

        ctx.add_cleanup(clean_up)
        try:
            await trio.sleep_forever()
        finally:
            ctx.try_emit_event("app.stopped", {"by": ctx.stage_name})

    async def ask(ctx: StageContext) -> StageOutput:
        await wait_all_tasks_blocked()
        return StageOutput.cancel("enough")

    graph = UnifiedStageGraph(
        [spec("b", work), spec("a", work), spec("done", nothing), spec("ask", ask, "done")]
    )
    with pytest.raises(UnifiedPipelineCancelled) as caught:
        await graph.run(event_sink=sink)

    by_stage = [event for event in told(sink)[4:] if event != "stage.completed done"]
    assert by_stage[:2] == ["stage.started ask", "stage.completed ask"]
    assert sorted(by_stage[2:4]) == ["app.stopped a", "app.stopped b"]
    assert by_stage[4:6] == ["stage.failed b", "stage.failed a"]
    # Last registered, first called.
    assert sorted(by_stage[6:8]) == ["app.cleaned a", "app.cleaned b"]
    assert by_stage[8:] == ["pipeline.canceled ask"]
    assert [p["status"] for p in sink.payloads("stage.failed")] == ["cancel", "cancel"]
    results = results_of(caught.value)
    assert {name: str(output.status) for name, output in results.items()} == {
        "done": "ok",
        "ask": "cancel",
    }
    assert sorted(results.canceled()) == ["a", "ask", "b"]


@pytest.mark.spec("30.7.4")
async def test_what_stages_raise_while_being_cancelled_is_kept() -> None:
    async def breaks(ctx: StageContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while stopping")

    graph = UnifiedStageGraph([spec("a", breaks), spec("b", _return_cancel)])
    with pytest.raises(UnifiedPipelineCancelled) as caught:
        await graph.run()

    [failure] = results_of(caught.value).failures
    assert (failure.stage, failure.error) == ("a", "while stopping")
    assert caught.value.failures == (failure,)
    assert results_of(caught.value)["a"].status is StageStatus.FAIL


@pytest.mark.spec("30.7.8")
async def test_finally_blocks_run_and_cleanups_may_await(autojump_clock: MockClock) -> None:
    steps = []

    async def work(ctx: StageContext) -> None:
        async def clean_up() -> None:
            await trio.sleep(1)
            steps.append("cleanup")

        ctx.add_cleanup(clean_up)
        try:
            await trio.sleep_forever()
        finally:
            steps.append("finally")

    with trio.move_on_after(1):
        await UnifiedStageGraph([spec("a", work)]).run()

    assert steps == ["finally", "cleanup"]


@pytest.mark.spec("30.7.8")
async def test_stage_that_does_not_react_is_logged_once_and_waited_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(ctx: StageContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    begun_at = trio.current_time()
    graph = UnifiedStageGraph([spec("a", stubborn), spec("b", forever)], cleanup_timeout=3)
    with trio.move_on_after(1):
        await graph.run()

    assert trio.current_time() - begun_at == 60
    records = [r for r in caplog.records if r.message == "stage_not_responding"]
    assert [(vars(r)["stage"], r.levelname) for r in records] == [("a", "WARNING")]


# Cleanups


@pytest.mark.spec("30.7.5", "30.7.9")
@pytest.mark.parametrize("ending", ["ok", "fail", "cancel", "scope"])
async def test_cleanups_run_once_in_reverse_order_however_the_run_ends(
    ending: str, autojump_clock: MockClock
) -> None:
    cleaned: list[str] = []

    async def first(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append("first"))

    async def second(ctx: StageContext) -> StageOutput | None:
        ctx.add_cleanup(lambda: cleaned.append("second"))
        match ending:
            case "fail":
                raise LookupError
            case "cancel":
                return StageOutput.cancel()
            case "scope":
                await trio.sleep(100)
        return None

    graph = UnifiedStageGraph([spec("first", first), spec("second", second, "first")])
    try:
        with trio.move_on_after(10):
            await graph.run()
    except (UnifiedStageExecutionError, UnifiedPipelineCancelled):
        pass

    assert cleaned == ["second", "first"]


@pytest.mark.spec("30.6.9", "30.7.5")
async def test_hanging_cleanup_is_abandoned_in_time_and_told(autojump_clock: MockClock) -> None:
    async def work(ctx: StageContext) -> None:
        ctx.add_cleanup(trio.sleep_forever)

    begun_at = trio.current_time()
    results = await UnifiedStageGraph([spec("a", work)], cleanup_timeout=2).run()

    assert trio.current_time() - begun_at == 2
    (warning,) = results.warnings
    assert warning.startswith("cleanup 'sleep_forever' failed: TimeoutError")


@pytest.mark.spec("30.7.9")
def test_cleanup_outside_a_run_is_refused() -> None:
    snapshot = PipelineContext().snapshot
    ctx = create_stage_context(snapshot=snapshot, inputs=StageInputs(snapshot), stage_name="alone")

    with pytest.raises(NotInRunError):
        ctx.add_cleanup(lambda: None)


@pytest.mark.spec("10.12.3")
async def test_stage_notices_a_failed_run_as_cancelled() -> None:
    seen = []

    async def look(ctx: StageContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(ctx.cancellation_reason)

    async def fail(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no")

    with pytest.raises(UnifiedStageExecutionError):
        await UnifiedStageGraph([spec("look", look), spec("fail", fail)]).run()

    assert seen == ["stage 'fail' failed"]


async def test_token_asked_for_while_the_run_is_stopping_is_cancelled() -> None:
    seen = []

    async def look(ctx: StageContext) -> None:
        token = ctx.cancel_token
        try:
            await trio.sleep_forever()
        finally:
            seen.append(token.reason)

    async with UnifiedStageGraph([spec("look", look)]).start() as run:
        await wait_all_tasks_blocked()
        run.cancel("enough")
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    assert seen == ["enough"]


@pytest.mark.spec("30.7.2", "30.7.6")
async def test_scope_that_is_cancelled_while_a_run_fails_makes_it_canceled(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def fail(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("no")

    async def linger(ctx: StageContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    graph = UnifiedStageGraph([spec("fail", fail), spec("linger", linger)])
    with trio.move_on_after(1) as scope:
        await graph.run(event_sink=sink)

    assert scope.cancelled_caught
    assert sink.types()[-1] == "pipeline.canceled"
