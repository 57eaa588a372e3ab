"""The decisions of a run, played through without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import pytest

from actorflow.errors import DeadlockedGraphError
from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import FailureMode, GuardRetryPolicy, StageSpec, validated
from actorflow.pipeline._graph import wire
from actorflow.runtime._guard_retry import interruptible
from actorflow.runtime._results import FailureRecord
from actorflow.runtime._run_state import (
    Call,
    Command,
    Ending,
    Interrupt,
    InterruptAll,
    Report,
    RunState,
    Settle,
    StageEnd,
)
from actorflow.runtime._stage_life import StageState
from actorflow.stages import StageInputs

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


async def _runner(ctx: object) -> None: ...


def stage(name: str, *after: Any, **options: Any) -> StageSpec:
    return StageSpec(name, _runner, dependencies=after, **options)


def guard(name: str, *after: Any, **options: Any) -> StageSpec:
    return stage(name, *after, kind="guard", **options)


def failed_end(name: str, output: StageOutput, *, raised: bool = False) -> StageEnd:
    failure = FailureRecord(
        stage=name,
        error=output.error or "",
        error_type=output.error_type,
        recoverable=False,
        timestamp=AT,
        context={},
        exception=RuntimeError(output.error),
    )
    return StageEnd(output, failure, raised=raised)


class Play:
    """A run without tasks: remembers what was ordered and lets the test be the stages."""

    def __init__(self, *specs: StageSpec, **options: Any) -> None:
        self.names = [spec.name for spec in specs]
        self.log: list[str] = []
        self.running: list[str] = []
        self.calls: list[Call] = []
        self.reports: list[Report] = []
        self.now = 0.0

        def read_inputs(number: int) -> StageInputs:
            needed = specs[number].dependencies
            return StageInputs(
                None,  # type: ignore[arg-type]  # no condition of these tests looks at the snapshot
                {name: self.state.outputs[name] for name in needed},
                declared_deps=needed,
                stage_name=specs[number].name,
            )

        self.state = RunState(
            wire(specs),
            read_inputs=read_inputs,
            fail_uncalled=lambda number, error: failed_end(
                self.names[number], StageOutput.fail(error)
            ),
            **options,
        )
        self._carry_out(self.state.begin(self.now))

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Call(number, attempt):
                    self.running.append(self.names[number])
                    self.calls.append(command)
                    again = f" {attempt}" if attempt > 1 else ""
                    self.log.append(f"call {self.names[number]}{again}")
                case Interrupt(number):
                    self.log.append(f"interrupt {self.names[number]}")
                case InterruptAll():
                    self.log.append("interrupt all")
                case Settle(number, _, state, _, _, skipped_by):
                    by = f" by {skipped_by}" if skipped_by else ""
                    self.log.append(f"{self.names[number]} {state}{by}")
                case Report(type_, data):
                    self.reports.append(command)
                    self.log.append(f"{type_} {data['guard']}")

    def called(self, name: str) -> None:
        self._carry_out(self.state.called(self.names.index(name), self.now))

    def end(self, name: str, output: StageOutput | None = None, *, raised: bool = False) -> None:
        output = output or StageOutput.ok()
        if output.status is StageStatus.FAIL:
            self._end(name, failed_end(name, output, raised=raised))
        else:
            self._end(name, StageEnd(output))

    def fail(self, name: str, error: str = "broken", *, raised: bool = False) -> None:
        self.end(name, StageOutput.fail(error), raised=raised)

    def cut_off(self, name: str) -> None:
        self._end(name, StageEnd(None))

    def _end(self, name: str, end: StageEnd) -> None:
        self.running.remove(name)
        self._carry_out(self.state.ended(self.names.index(name), end, self.now))

    def cancel(self, reason: str = "enough", stage: str | None = None) -> None:
        self._carry_out(self.state.cancel(stage, reason))

    def new_log(self) -> list[str]:
        log, self.log = self.log, []
        return log

    def states(self) -> dict[str, str]:
        return {name: str(state) for name, state in self.state.states().items()}


def ok(**data: Any) -> StageOutput:
    return StageOutput.ok(data)


# Readiness and order


@pytest.mark.spec("30.2.1")
def test_stage_starts_when_its_last_dependency_has_settled() -> None:
    play = Play(stage("a"), stage("b"), stage("join", "a", "b"))

    play.end("b")
    assert play.new_log() == ["call a", "call b", "b completed"]

    play.end("a")
    assert play.new_log() == ["a completed", "call join"]


@pytest.mark.spec("30.2.2")
def test_stages_ready_at_the_same_moment_start_in_declaration_order() -> None:
    play = Play(
        stage("last", "a"),
        stage("a"),
        stage("first", "a"),
        stage("mid", "skipped"),
        stage(
            "skipped",
            "a",
            when=lambda inputs: False,
        ),
    )

    play.end("a")

    assert play.new_log() == [
        "call a",
        "a completed",
        "skipped skipped by when",
        "mid skipped by dependency",
        "call last",
        "call first",
    ]


@pytest.mark.spec("30.2.3")
def test_independent_stages_run_concurrently() -> None:
    play = Play(*(stage(f"s{i}") for i in range(50)))

    assert len(play.running) == 50


@pytest.mark.spec("30.2.4", "20.8.7")
def test_ten_thousand_skipped_stages_in_a_row_need_no_recursion() -> None:
    chain = [stage(f"s{i}", f"s{i - 1}") for i in range(2, 10_000)]
    play = Play(stage("s0"), stage("s1", "s0", when=lambda inputs: False), *chain)

    play.end("s0")

    assert play.state.is_over
    assert set(play.states().values()) == {"completed", "skipped"}


@pytest.mark.spec("30.2.5")
def test_run_that_cannot_go_on_says_which_stages_are_left() -> None:
    with pytest.raises(DeadlockedGraphError) as caught:
        Play(stage("b", "a"), stage("a", "b"))

    assert caught.value.remaining == ("a", "b")
    assert "'a', 'b'" in str(caught.value)


@pytest.mark.spec("30.2.1")
def test_consumer_of_a_stream_starts_when_its_producer_is_called() -> None:
    play = Play(stage("mic"), stage("stt", stream_from="mic"))
    assert play.new_log() == ["call mic"]

    play.called("mic")
    assert play.new_log() == ["call stt"]

    play.end("mic")
    assert play.new_log() == ["mic completed"]


@pytest.mark.spec("30.2.1", "20.9.4")
def test_consumer_of_a_skipped_producer_is_decided_on_at_once() -> None:
    play = Play(
        stage("a"),
        stage("mic", "a", when=lambda inputs: False),
        stage("stt", stream_from="mic"),
        stage("other", stream_from="mic", join="always"),
    )

    play.end("a")

    assert play.new_log()[2:] == ["mic skipped by when", "stt skipped by dependency", "call other"]


# Concurrency


@pytest.mark.spec("30.8.6")
def test_no_more_than_n_stages_run_and_the_others_start_in_order() -> None:
    play = Play(*(stage(name) for name in "abcd"), stage("e", "b"), max_concurrency=2)
    assert play.running == ["a", "b"]
    assert play.states()["c"] == "queued"

    play.end("b")
    assert play.running == ["a", "c"]
    play.end("a")
    play.end("c")
    assert play.running == ["d", "e"]


@pytest.mark.spec("30.8.7")
def test_skipped_stage_needs_no_slot() -> None:
    play = Play(
        stage("a"),
        stage("b"),
        stage("skipped", "a", when=lambda inputs: False),
        stage("always", "skipped", join="always"),
        max_concurrency=1,
    )

    play.end("a")

    assert play.new_log() == ["call a", "a completed", "skipped skipped by when", "call b"]
    assert play.states()["always"] == "queued"


@pytest.mark.spec("30.8.6")
def test_stages_linked_by_streams_take_one_slot_from_first_start_to_last_end() -> None:
    play = Play(
        stage("mic"),
        stage("stt", stream_from="mic"),
        stage("vad", stream_from="mic"),
        stage("other"),
        max_concurrency=1,
    )
    assert play.new_log() == ["call mic"]

    play.called("mic")
    assert play.new_log() == ["call stt", "call vad"]
    play.end("mic")
    play.end("stt")
    assert play.running == ["vad"]
    play.end("vad")
    assert play.running == ["other"]


@pytest.mark.spec("30.8.6")
def test_producer_does_not_hold_the_slot_its_consumer_waits_for() -> None:
    play = Play(
        stage("mic"),
        stage("model"),
        stage("stt", "model", stream_from="mic"),
        max_concurrency=1,
    )
    assert play.running == ["model"]
    assert play.states()["mic"] == "queued"

    play.end("model")
    assert play.running == ["mic"]
    play.called("mic")
    assert play.running == ["mic", "stt"]


@pytest.mark.spec("30.8.6")
def test_stage_between_streaming_ones_runs_in_their_slot() -> None:
    play = Play(
        stage("mic"),
        stage("vad", stream_from="mic"),
        stage("between", "mic"),
        stage("voice", "between"),
        stage("mix", stream_from=("vad", "voice")),
        max_concurrency=1,
    )
    play.called("mic")
    play.end("mic")

    assert play.running == ["vad", "between"]
    play.called("vad")
    play.end("between")
    play.called("voice")
    assert play.running == ["vad", "voice", "mix"]


# Failure


@pytest.mark.spec("30.6.2")
def test_fail_fast_interrupts_siblings_and_starts_nothing() -> None:
    play = Play(stage("bad"), stage("slow"), stage("after", "bad"), stage("third", "slow"))
    play.new_log()

    play.fail("bad")
    assert play.new_log() == ["bad failed", "interrupt all"]
    assert not play.state.is_over
    play.cut_off("slow")

    assert play.new_log() == ["slow canceled"]
    assert play.state.is_over
    assert play.state.ending is Ending.FAILED
    assert play.states() == {
        "bad": "failed",
        "slow": "canceled",
        "after": "not_run",
        "third": "not_run",
    }


@pytest.mark.spec("30.6.5")
def test_what_siblings_do_while_they_are_stopped_is_kept() -> None:
    play = Play(stage("bad"), stage("fine"), stage("worse"), stage("asks"))
    play.fail("bad")

    play.end("fine", ok(n=1))
    play.fail("worse", raised=True)
    play.end("asks", StageOutput.cancel("me too"))

    assert list(play.state.outputs) == ["bad", "fine", "worse", "asks"]
    assert play.state.failures.failed_stages == ("bad", "worse")
    assert play.state.ending is Ending.FAILED


@pytest.mark.spec("30.6.3")
def test_continue_on_failure_skips_what_is_below_and_runs_the_rest() -> None:
    play = Play(
        stage("bad"),
        stage("other"),
        stage("below", "bad"),
        stage("further", "below", "other"),
        stage("always", "below", join="always"),
        failure_mode=FailureMode.CONTINUE_ON_FAILURE,
    )
    play.new_log()

    play.fail("bad")
    play.end("other")
    play.end("always")

    assert play.new_log() == [
        "bad failed",
        "below skipped by failure",
        "call always",
        "other completed",
        "further skipped by failure",
        "always completed",
    ]
    assert play.state.outputs["further"].reason == "dependency 'bad' failed"
    assert play.state.is_over
    assert play.state.ending is Ending.FAILED


@pytest.mark.spec("30.6.4")
def test_best_effort_runs_what_depends_on_a_failed_stage() -> None:
    play = Play(stage("bad"), stage("below", "bad"), failure_mode=FailureMode.BEST_EFFORT)

    play.fail("bad")
    play.end("below")

    assert play.new_log() == ["call bad", "bad failed", "call below", "below completed"]
    assert play.state.ending is Ending.FAILED
    assert play.state.failures.failed_stages == ("bad",)


@pytest.mark.spec("30.6.1")
def test_stage_whose_condition_cannot_be_asked_fails_without_being_called() -> None:
    play = Play(stage("a"), stage("b", "a", when=lambda inputs: 1 / 0 > 1))

    play.end("a")

    assert play.new_log() == ["call a", "a completed", "b failed"]
    assert play.state.is_over
    assert play.state.ending is Ending.FAILED


# Cancellation


@pytest.mark.spec("30.7.1", "30.7.4")
def test_cancelling_interrupts_everything_and_keeps_what_is_done() -> None:
    play = Play(stage("a"), stage("b"), stage("c"), stage("d", "a"))
    play.end("a", ok(n=1))
    play.new_log()

    play.cancel()
    assert play.new_log() == ["interrupt all"]
    play.cut_off("d")
    play.end("b", ok(n=2))
    assert play.new_log() == ["b completed"]
    play.cut_off("c")

    assert play.state.is_over
    assert play.state.ending is Ending.CANCELED
    assert list(play.state.outputs) == ["a", "b"]


@pytest.mark.spec("30.7.3")
def test_interrupted_stages_are_settled_in_declaration_order_when_all_are_gone() -> None:
    play = Play(*(stage(name) for name in "abc"))
    play.cancel()
    play.new_log()

    for name in "cab":
        play.cut_off(name)

    assert play.new_log() == ["a canceled", "b canceled", "c canceled"]


@pytest.mark.spec("30.7.2")
def test_first_request_decides_and_cannot_be_turned_into_success() -> None:
    play = Play(stage("a"))

    play.cancel("first")
    play.cancel("second")
    play.end("a")

    assert play.new_log() == ["call a", "interrupt all", "a completed"]
    assert play.state.ending is Ending.CANCELED
    assert play.state.cancellation is not None
    assert play.state.cancellation.reason == "first"


@pytest.mark.spec("30.7.2")
def test_stage_that_returns_cancel_ends_the_run_in_its_name() -> None:
    play = Play(stage("a"), stage("b"), stage("c", "a"))

    play.end("a", StageOutput.cancel("no mandate"))
    play.cut_off("b")

    assert play.new_log() == ["call a", "call b", "a canceled", "interrupt all", "b canceled"]
    assert play.state.cancellation is not None
    assert play.state.cancellation.stage == "a"
    assert play.state.cancellation.reason == "no mandate"
    assert play.state.outputs["a"].status is StageStatus.CANCEL


def test_cancel_output_without_a_reason_gets_the_default_one() -> None:
    play = Play(stage("a"))

    play.end("a", StageOutput.cancel())

    assert play.state.cancellation is not None
    assert play.state.cancellation.reason == "Pipeline cancelled"
    assert play.state.is_over


@pytest.mark.spec("30.7.7")
def test_run_cancelled_before_it_began_calls_nothing() -> None:
    play = Play(stage("a", "b"), stage("b"))
    state = RunState(
        wire([stage("a")]),
        read_inputs=lambda number: pytest.fail("nothing to read"),
        fail_uncalled=lambda number, error: pytest.fail("nothing to fail"),
    )

    assert state.cancel(None, "too late") == []
    assert state.begin(0.0) == []
    assert state.is_over
    assert state.states() == {"a": StageState.NOT_RUN}
    assert play.running == ["b"]


@pytest.mark.spec("30.7.6")
def test_interruption_that_nobody_ordered_cancels_the_run() -> None:
    play = Play(stage("a"), stage("b"))

    play.cut_off("b")
    play.cut_off("a")

    assert play.new_log()[2:] == ["interrupt all", "a canceled", "b canceled"]
    assert play.state.cancellation is not None
    assert play.state.cancellation.reason == "Cancelled by enclosing scope"


def test_failure_while_being_cancelled_is_recorded_but_the_run_stays_canceled() -> None:
    play = Play(stage("a"), stage("b"))

    play.cancel()
    play.fail("a", raised=True)
    play.cut_off("b")

    assert play.state.ending is Ending.CANCELED
    assert play.state.failures.failed_stages == ("a",)


# Guard retry


def policy(retry_stage: str = "write", **options: Any) -> GuardRetryPolicy:
    return GuardRetryPolicy(retry_stage, **options)


def told(play: Play) -> list[tuple[str, dict[str, Any]]]:
    return [
        (report.type.removeprefix("guard_retry."), dict(report.data)) for report in play.reports
    ]


@pytest.mark.spec("30.9.1", "30.9.3", "30.9.4", "30.9.5")
def test_two_attempts_allow_one_retry() -> None:
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": policy()})

    play.end("write", ok(text="bad"))
    play.end("check", StageOutput.fail("rude"))
    play.end("write", ok(text="worse"))
    play.end("check", StageOutput.fail("ruder", {"why": "words"}))

    assert play.new_log() == [
        "call write",
        "write completed",
        "call check",
        "check failed",
        "guard_retry.attempt check",
        "guard_retry.scheduled check",
        "call write 2",
        "write completed",
        "call check 2",
        "check failed",
        "guard_retry.attempt check",
        "guard_retry.exhausted check",
    ]
    assert play.state.is_over
    assert play.state.failures.failed_stages == ("check",)
    common = {"guard": "check", "retry_stage": "write", "timeout_seconds": None}
    assert told(play) == [
        ("attempt", {**common, "attempt": 1, "stagnation_hits": 0, "max_attempts": 2}),
        ("scheduled", {**common, "attempt": 1, "stagnation_hits": 0}),
        ("attempt", {**common, "attempt": 2, "stagnation_hits": 0, "max_attempts": 2}),
        ("exhausted", {**common, "attempts": 2, "stagnation_hits": 0, "reason": "max_attempts"}),
    ]


@pytest.mark.spec("30.9.7")
def test_retry_stage_gets_the_verdict_and_its_previous_output() -> None:
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": policy()})
    play.end("write", ok(text="bad"))

    play.end("check", StageOutput.fail("rude", {"word": "x"}))

    first, _, second = play.calls
    assert dict(first.feedback) == {}
    feedback = second.feedback["check"]
    assert (feedback.guard, feedback.attempt, feedback.error) == ("check", 1, "rude")
    assert feedback.data == {"word": "x"}
    assert feedback.previous_output == ok(text="bad")

    play.end("write", ok(text="better"))
    assert dict(play.calls[-1].feedback) == {}


@pytest.mark.spec("30.9.9")
def test_guard_that_passes_after_failures_recovers_after_its_terminal_event() -> None:
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": policy()})
    play.end("write")
    play.fail("check")
    play.end("write")
    play.new_log()

    play.end("check", StageOutput.skip("nothing to check"))

    assert play.new_log() == ["check skipped by stage", "guard_retry.recovered check"]
    assert told(play)[-1] == ("recovered", {"guard": "check", "attempts": 1})
    assert play.state.ending is Ending.COMPLETED


@pytest.mark.spec("30.9.9")
def test_guard_that_never_failed_has_nothing_to_recover_from() -> None:
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": policy()})
    play.end("write")
    play.end("check")

    assert play.reports == []


@pytest.mark.spec("30.9.2", "30.9.3")
def test_same_verdict_again_and_again_is_stagnation() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        guard_retries={"check": policy(max_attempts=9, hash_fields=("rule",))},
    )
    for text in ("one", "two", "three"):
        play.end("write", ok(text=text))
        play.end("check", StageOutput.fail(text, {"rule": 7, "text": text}))

    assert [data["stagnation_hits"] for kind, data in told(play) if kind == "attempt"] == [0, 1, 2]
    assert told(play)[-1][1]["reason"] == "stagnation"


@pytest.mark.spec("30.9.2")
def test_error_of_a_raising_guard_is_what_is_compared() -> None:
    play = Play(
        stage("write"), guard("check", "write"), guard_retries={"check": policy(max_attempts=9)}
    )
    for error in ("down", "up", "up"):
        play.end("write")
        play.fail("check", error, raised=True)

    assert [data["stagnation_hits"] for kind, data in told(play) if kind == "attempt"] == [0, 0, 1]
    assert play.calls[-1].feedback["check"].data == {"error": "up"}


@pytest.mark.spec("30.9.1", "30.9.3")
def test_timeout_counts_from_the_first_failure_and_comes_before_other_reasons() -> None:
    limits = policy(max_attempts=2, stagnation_limit=1, timeout_seconds=10.0)
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": limits})
    play.now = 100.0
    play.end("write")
    play.fail("check")

    play.now = 110.0
    play.end("write")
    play.fail("check")

    assert told(play)[-1][0] == "exhausted"
    assert told(play)[-1][1]["reason"] == "timeout"


@pytest.mark.spec("30.9.6", "30.9.11")
def test_everything_below_the_retry_stage_is_taken_back_and_the_rest_goes_on() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("translate", "write"),
        stage("speak", "translate"),
        stage("other"),
        guard_retries={"check": policy()},
    )
    play.end("write")
    play.end("translate")
    play.new_log()

    play.fail("check")
    assert play.new_log() == [
        "check failed",
        "guard_retry.attempt check",
        "guard_retry.scheduled check",
        "interrupt speak",
    ]
    assert list(play.state.outputs) == ["write"]
    assert sorted(play.running) == ["other", "speak"]

    play.cut_off("speak")
    assert play.new_log() == ["speak canceled", "call write 2"]
    play.end("other")
    play.end("write")
    assert play.new_log() == [
        "other completed",
        "write completed",
        "call check 2",
        "call translate 2",
    ]


@pytest.mark.spec("30.9.6")
def test_other_guards_of_the_retry_stage_finish_first_and_it_runs_once() -> None:
    play = Play(
        stage("write"),
        guard("rude", "write"),
        guard("long", "write"),
        guard("fine", "write"),
        stage("speak", "rude", "long", "fine"),
        guard_retries={name: policy() for name in ("rude", "long", "fine")},
    )
    play.end("write")
    play.new_log()

    play.fail("rude")
    play.fail("long")
    assert "call write 2" not in play.log
    play.end("fine")

    assert play.log[-2:] == ["fine completed", "call write 2"]
    assert sorted(play.calls[-1].feedback) == ["long", "rude"]
    play.end("write")
    for name in ("rude", "long", "fine"):
        play.end(name)
    play.end("speak")
    assert play.state.ending is Ending.COMPLETED
    assert [kind for kind, _ in told(play)].count("recovered") == 2


@pytest.mark.spec("30.9.8")
def test_superseded_stage_that_ends_by_itself_leaves_nothing_behind() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("good", "write"),
        stage("bad", "write"),
        guard_retries={"check": policy()},
    )
    play.end("write")
    play.fail("check")

    play.end("good", ok(from_="old"))
    play.fail("bad", "broken by old input")

    assert list(play.state.outputs) == ["write"]
    assert not play.state.failures.has_failures
    assert play.running == ["write"]


@pytest.mark.spec("30.9.6")
def test_stage_that_waits_for_a_slot_is_taken_back_too() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("b", "write"),
        max_concurrency=1,
        guard_retries={"check": policy()},
    )
    play.end("write")
    assert play.states()["b"] == "queued"

    play.fail("check")

    assert play.running == ["write"]
    assert play.states()["b"] == "waiting"


@pytest.mark.spec("30.9.6")
def test_stage_that_waited_for_others_does_not_start_on_a_superseded_output() -> None:
    play = Play(
        stage("write"),
        stage("slow"),
        guard("check", "write"),
        stage("middle", "write"),
        stage("merge", "middle", "slow"),
        guard_retries={"check": policy()},
    )
    play.end("write")
    play.end("middle")
    play.fail("check")

    play.end("slow")

    assert play.running == ["write"]
    play.end("write")
    play.end("check")
    play.end("middle")
    assert play.running == ["merge"]


@pytest.mark.spec("30.9.10")
def test_failure_of_the_retry_stage_itself_is_a_failure() -> None:
    play = Play(stage("write"), guard("check", "write"), guard_retries={"check": policy()})
    play.end("write")
    play.fail("check")

    play.fail("write", "gone")

    assert play.state.is_over
    assert play.state.failures.failed_stages == ("write",)


@pytest.mark.spec("30.9.5")
def test_exhausted_guard_is_skipped_over_in_continue_on_failure() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("speak", "check"),
        guard_retries={"check": policy(max_attempts=1)},
        failure_mode=FailureMode.CONTINUE_ON_FAILURE,
    )
    play.end("write")
    play.fail("check")

    assert play.log[-2:] == ["guard_retry.exhausted check", "speak skipped by failure"]
    assert play.state.ending is Ending.FAILED


def test_exhausted_guard_runs_again_when_another_one_has_the_stage_repeated() -> None:
    play = Play(
        stage("write"),
        guard("strict", "write"),
        guard("lax", "write"),
        guard_retries={"strict": policy(max_attempts=1), "lax": policy(max_attempts=3)},
        failure_mode=FailureMode.CONTINUE_ON_FAILURE,
    )
    play.end("write")
    play.fail("lax")
    play.fail("strict")
    assert play.running == ["write"]

    play.end("write")
    play.end("strict")
    play.end("lax")

    assert play.state.ending is Ending.COMPLETED
    assert not play.state.failures.has_failures


def test_exhausted_guard_that_failed_before_is_taken_back_with_its_failure() -> None:
    play = Play(
        stage("write"),
        guard("strict", "write"),
        guard("lax", "write"),
        guard_retries={"strict": policy(max_attempts=1), "lax": policy(max_attempts=3)},
        failure_mode=FailureMode.BEST_EFFORT,
    )
    play.end("write")
    play.fail("strict")
    play.fail("lax")
    play.end("write")
    play.end("strict")
    play.end("lax")

    assert play.state.ending is Ending.COMPLETED


def test_repetition_further_up_swallows_the_one_below() -> None:
    play = Play(
        stage("plan"),
        stage("write", "plan"),
        guard("plan-check", "plan"),
        guard("text-check", "write"),
        stage("slow", "write"),
        guard_retries={"plan-check": policy("plan"), "text-check": policy("write")},
    )
    play.end("plan")
    play.end("write")
    play.fail("text-check")
    play.new_log()

    play.fail("plan-check")
    play.cut_off("slow")

    assert play.new_log()[-2:] == ["slow canceled", "call plan 2"]
    play.end("plan")
    assert play.log[-2:] == ["call write 2", "call plan-check 2"]
    assert sorted(next(c for c in reversed(play.calls) if c.feedback).feedback) == ["text-check"]


@pytest.mark.spec("30.7.1")
def test_cancelling_during_a_repetition_stops_it() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("slow", "write"),
        guard_retries={"check": policy()},
    )
    play.end("write", ok(text="first"))
    play.fail("check")
    play.cancel()
    play.cut_off("slow")

    assert play.state.is_over
    assert play.states() == {"write": "not_run", "check": "not_run", "slow": "canceled"}
    assert play.state.outputs == {"write": ok(text="first")}


def test_failed_retry_stage_stays_failed_until_it_has_run_again() -> None:
    play = Play(
        stage("write"),
        guard("check", "write"),
        stage("other"),
        guard_retries={"check": policy()},
        failure_mode=FailureMode.BEST_EFFORT,
    )
    play.fail("write")
    play.fail("check")
    play.end("other", StageOutput.cancel("enough"))
    play.cut_off("write")

    assert play.state.outputs["write"].status is StageStatus.FAIL
    assert play.state.failures.failed_stages == ("write",)

    again = Play(
        stage("write"),
        guard("check", "write"),
        guard_retries={"check": policy()},
        failure_mode=FailureMode.BEST_EFFORT,
    )
    again.fail("write")
    again.fail("check")
    again.end("write")
    again.end("check")
    assert again.state.ending is Ending.COMPLETED


def test_guard_that_could_not_be_called_has_its_retry_stage_run_again() -> None:
    play = Play(
        stage("write"),
        stage("b", "write"),
        guard("check", "write", inputs=("write:text",)),
        stage("c", "write"),
        guard_retries={"check": policy()},
    )

    play.end("write")

    assert play.new_log() == [
        "call write",
        "write completed",
        "check failed",
        "guard_retry.attempt check",
        "guard_retry.scheduled check",
        "call write 2",
    ]
    play.end("write", ok(text="now"))
    assert play.running == ["b", "check", "c"]


def test_stages_that_may_be_interrupted_are_those_below_a_retry_stage() -> None:
    wiring = validated(
        [stage("write"), guard("check", "write"), stage("speak", "check"), stage("other")]
    )

    assert interruptible(wiring, [policy()]) == {1, 2}
