"""How runs fail, and what is left (30.6)."""

from __future__ import annotations

import pickle
from datetime import datetime, timezone
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import (
    StageError,
    StageFailedError,
    TransientError,
    UnifiedStageExecutionError,
)
from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import FailureMode, StageSpec
from actorflow.runtime import (
    FailureCollector,
    FailureRecord,
    FailureSummary,
    PipelineResults,
    UnifiedStageGraph,
)
from actorflow.stages import StageContext
from actorflow.testing import RecordingEventSink

from .stages import forever, nothing, spec


async def fail(ctx: StageContext) -> StageOutput:
    return StageOutput.fail(f"{ctx.stage_name} said no", {"why": ctx.stage_name})


async def boom(ctx: StageContext) -> None:
    raise LookupError(f"{ctx.stage_name} broke")


async def failure(*specs: StageSpec, **options: Any) -> UnifiedStageExecutionError:
    sink = options.pop("sink", None)
    with pytest.raises(UnifiedStageExecutionError) as caught:
        await UnifiedStageGraph(specs, **options).run(event_sink=sink)
    return caught.value


def results_of(error: UnifiedStageExecutionError) -> PipelineResults:
    assert isinstance(error.results, PipelineResults)
    return error.results


@pytest.mark.spec("30.6.2", "30.6.8")
async def test_fail_fast_cancels_siblings_at_once_and_starts_nothing(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async def later(ctx: StageContext) -> None:
        await trio.sleep(1)
        raise LookupError("down")

    cleaned = []

    async def slow(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: cleaned.append(len(sink.types())))
        await trio.sleep(100)

    begun_at = trio.current_time()
    error = await failure(
        spec("a", later), spec("slow", slow), spec("below", nothing, "a"), sink=sink
    )

    assert trio.current_time() - begun_at == 1
    assert sink.types()[-3:] == ["stage.failed", "stage.failed", "pipeline.failed"]
    assert cleaned == [len(sink.types()) - 1]
    sink.assert_emitted("stage.failed", stage="slow", status="cancel", error="Pipeline canceled")
    assert results_of(error).stage_results["slow"].status == "canceled"
    assert "below" not in results_of(error).stage_results
    assert [record.stage for record in error.failures if isinstance(record, FailureRecord)] == ["a"]


@pytest.mark.spec("30.6.5")
async def test_error_carries_everything_that_was_done(autojump_clock: MockClock) -> None:
    async def finishes(ctx: StageContext) -> StageOutput:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:  # noqa: ASYNC103 - that it may is the point
            return StageOutput.ok(saved=True)

    async def breaks(ctx: StageContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while stopping")

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in a nursery")

    async def nests(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    async def late(ctx: StageContext) -> StageOutput:
        await trio.sleep(1)
        return StageOutput.fail("no", {"partial": 1})

    error = await failure(
        spec("early", nothing),
        spec("late", late),
        spec("finishes", finishes),
        spec("breaks", breaks),
        spec("nests", nests),
        spec("slow", forever),
    )

    results = results_of(error)
    assert {name: str(output.status) for name, output in results.items()} == {
        "early": "ok",
        "late": "fail",
        "finishes": "ok",
        "breaks": "fail",
        "nests": "fail",
    }
    assert results["late"].data == {"partial": 1}
    assert [(f.stage, f.error) for f in results.failures] == [
        ("late", "no"),
        ("breaks", "while stopping"),
        ("nests", "in a nursery"),
    ]
    assert error.failures == results.failures


@pytest.mark.spec("30.6.3")
async def test_continue_on_failure_skips_below_and_raises_at_the_end(
    sink: RecordingEventSink,
) -> None:
    error = await failure(
        spec("bad", boom),
        spec("below", nothing, "bad"),
        spec("always", nothing, "below", join="always"),
        spec("other", nothing),
        failure_mode="continue_on_failure",
        sink=sink,
    )

    results = results_of(error)
    assert results["below"].reason == "dependency 'bad' failed"
    assert results.stage_results["below"].skipped_by == "failure"
    assert results.ok("always")
    assert results.ok("other")
    assert sink.types()[-1] == "pipeline.failed"


@pytest.mark.spec("30.6.4", "20.10.1")
async def test_best_effort_returns_and_dependents_see_the_failure(
    sink: RecordingEventSink,
) -> None:
    async def look(ctx: StageContext) -> dict[str, Any]:
        output = ctx.inputs.get_output("bad")
        assert output is not None
        assert output.status is StageStatus.FAIL
        return {"saw": output.error}

    graph = UnifiedStageGraph(
        [spec("bad", boom), spec("look", look, "bad")], failure_mode="best_effort"
    )
    results = await graph.run(event_sink=sink)

    assert results.data("look") == {"saw": "bad broke"}
    assert [f.stage for f in results.failures] == ["bad"]
    assert sink.types()[-1] == "pipeline.failed"


@pytest.mark.spec("30.6.6")
async def test_error_names_the_first_failure_and_what_stands_behind_it() -> None:
    error = await failure(spec("a", boom))
    assert isinstance(error, StageError)
    assert (error.stage, repr(error.original)) == ("a", "LookupError('a broke')")
    assert error.__cause__ is error.original
    assert not error.recoverable

    error = await failure(spec("a", fail))
    assert isinstance(error.original, StageFailedError)
    assert error.original.output.data == {"why": "a"}
    assert error.__cause__ is error.original


@pytest.mark.spec("30.6.6")
async def test_error_says_whether_trying_again_may_help() -> None:
    async def transient(ctx: StageContext) -> None:
        raise TransientError("busy")

    async def retryable(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("later", retryable=True)

    assert (await failure(spec("a", transient))).recoverable
    assert (await failure(spec("a", retryable))).recoverable


@pytest.mark.spec("30.6.7")
async def test_message_names_the_first_and_counts_the_others() -> None:
    one = await failure(spec("a", fail))
    assert str(one) == "stage 'a' failed: a said no"

    more = await failure(
        spec("a", fail),
        spec("b", boom),
        spec("c", fail),
        spec("d", nothing),
        failure_mode="continue_on_failure",
    )
    assert str(more) == "stage 'a' failed: a said no (and 2 more: b, c)"
    group = more.as_group()
    assert [str(error) for error in group.exceptions] == ["a said no", "b broke", "c said no"]
    assert isinstance(more.summary, FailureSummary)
    assert more.summary.failed_stages == ("a", "b", "c")
    assert (more.summary.total_stages, more.summary.completed_stages) == (4, 1)


async def test_message_names_the_class_of_an_exception_and_not_of_an_error_of_ours() -> None:
    async def silent(ctx: StageContext) -> None:
        raise ZeroDivisionError

    assert str(await failure(spec("a", boom))) == "stage 'a' failed: LookupError: a broke"
    assert str(await failure(spec("a", silent))) == "stage 'a' failed: ZeroDivisionError"
    assert "Error" not in str(await failure(spec("a", fail)))


async def test_error_survives_pickling() -> None:
    error = await failure(spec("a", boom), spec("b", nothing), failure_mode="continue_on_failure")

    copy = pickle.loads(pickle.dumps(error))

    assert (copy.stage, str(copy), copy.code) == (error.stage, str(error), "RUN-001-STAGE_FAILED")
    assert copy.results == error.results


@pytest.mark.spec("30.6.9")
async def test_failed_cleanup_changes_nothing_about_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(ctx: StageContext) -> None:
        ctx.add_cleanup(lambda: 1 / 0, name="divide")

    results = await UnifiedStageGraph([spec("a", work)]).run()

    assert results.ok("a")
    [record] = [r for r in caplog.records if r.message == "cleanup_completed"]
    assert list(vars(record)["failed"]) == ["divide"]


# The pure piece


def record(stage: str) -> FailureRecord:
    return FailureRecord(
        stage=stage,
        error="no",
        error_type=None,
        recoverable=False,
        timestamp=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )


@pytest.mark.spec("30.6.1")
@pytest.mark.parametrize(
    ("mode", "other", "below"),
    [
        (FailureMode.FAIL_FAST, False, False),
        (FailureMode.CONTINUE_ON_FAILURE, True, False),
        (FailureMode.BEST_EFFORT, True, True),
    ],
)
def test_collector_says_who_may_continue(mode: FailureMode, other: bool, below: bool) -> None:
    failures = FailureCollector(mode)
    assert failures.should_continue("below", ["bad"])

    failures.record_failure(record("bad"))

    assert failures.should_continue("other", ["fine"]) is other
    assert failures.should_continue("below", ["fine", "bad"]) is below
    assert not failures.should_continue("bad")
    assert failures.has_failures


def test_collector_sums_up() -> None:
    failures = FailureCollector("best_effort")
    failures.record_completion("fine")
    failures.record_completion("again")
    failures.record_failure(record("bad"))
    failures.forget("again")

    summary = failures.get_summary(4, {"fine": StageOutput.ok(n=1)})

    assert (summary.success_rate, summary.has_failures) == (0.25, True)
    assert summary.to_dict() == {
        "total_stages": 4,
        "completed_stages": 1,
        "failed_stages": ["bad"],
        "failures": [record("bad").to_dict()],
        "partial_results": {"fine": StageOutput.ok(n=1).to_dict()},
        "success_rate": 0.25,
    }
    assert FailureCollector().get_summary(0).success_rate == 0.0
