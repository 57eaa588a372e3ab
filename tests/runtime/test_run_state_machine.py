"""Random graphs and random ends of stages: what holds for every run, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, assume, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import (
    FailureMode,
    GuardRetryPolicy,
    GuardRetryStrategy,
    StageSpec,
    validated,
)
from actorflow.pipeline._validation import find_problems
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
from actorflow.runtime._stage_life import SETTLED, StageState
from actorflow.stages import StageInputs

from .stages import PROGRAMS

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
MAX_ATTEMPTS = 3


async def _runner(ctx: object) -> None: ...


@attrs.frozen
class Plan:
    specs: tuple[StageSpec, ...]
    options: dict[str, Any]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A valid pipeline of a few stages in any order of declaration, and how to run it."""
    count = draw(st.integers(1, 8))
    names = [f"s{i}" for i in range(count)]
    specs: list[StageSpec] = []
    policies: dict[str, GuardRetryPolicy] = {}
    for position, name in enumerate(names):
        before = names[:position]
        needed = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        is_guard = bool(needed) and draw(st.booleans())
        if is_guard:
            policies[name] = GuardRetryPolicy(
                draw(st.sampled_from(needed)),
                max_attempts=draw(st.integers(1, MAX_ATTEMPTS)),
                stagnation_limit=draw(st.integers(1, 3)),
                timeout_seconds=draw(st.sampled_from([None, 5.0])),
            )
        specs.append(
            StageSpec(
                name,
                _runner,
                kind="guard" if is_guard else "transform",
                dependencies=needed,
                join=draw(st.sampled_from(["any", "all", "always"])),
                when=draw(st.sampled_from([None, None, None, _yes, _no, _unclear])),
                conditional=draw(st.booleans()),
            )
        )
    if not policies or draw(st.booleans()):
        policies = {}
        specs = [_with_streams(draw, spec, names) for spec in specs]
    options = {
        "failure_mode": draw(st.sampled_from(FailureMode)),
        "max_concurrency": draw(st.sampled_from([None, 1, 2, 3])),
        "guard_retries": policies,
    }
    plan = Plan(tuple(draw(st.permutations(specs))), options)
    assume(not find_problems(plan.specs, guard_retry_strategy=GuardRetryStrategy(policies)))
    return plan


def _with_streams(draw: st.DrawFn, spec: StageSpec, names: list[str]) -> StageSpec:
    # Streaming from a stage that a dependency needs would be refused at build;
    # a stage without dependencies can stream from any before it.
    before = names[: names.index(spec.name)]
    if spec.dependencies or not before:
        return spec
    return spec.evolve(stream_from=draw(st.lists(st.sampled_from(before), unique=True, max_size=2)))


def _yes(inputs: object) -> bool:
    return True


def _no(inputs: object) -> bool:
    return False


def _unclear(inputs: object) -> bool:
    raise LookupError("who knows")


class RunMachine(RuleBasedStateMachine):
    """Is all the stages of a run, and compares what it is told with what the rules allow."""

    @initialize(plan=plans())
    def begin(self, plan: Plan) -> None:
        self.specs = {spec.name: spec for spec in plan.specs}
        self.names = list(self.specs)
        self.limit = plan.options["max_concurrency"]
        self.guards = plan.options["guard_retries"]
        self.has_streams = any(spec.stream_from for spec in plan.specs)
        self.running: dict[str, int] = {}
        self.called: set[str] = set()
        self.interrupted: set[str] = set()
        self.attempts = dict.fromkeys(self.names, 0)
        # Which attempts of its dependencies each attempt of a stage has seen.
        self.seen: dict[tuple[str, int], dict[str, int]] = {}
        self.recorded: dict[str, int] = {}
        self.cancelled = False
        self.now = 0.0
        wiring = validated(plan.specs)
        self.interruptible = interruptible(wiring, self.guards.values())
        self.state = RunState(
            wiring,
            read_inputs=lambda number: StageInputs(
                None,  # type: ignore[arg-type]  # no condition of this test looks at the snapshot
                {},
                declared_deps=(),
                stage_name=self.names[number],
            ),
            fail_uncalled=lambda number, error: self.failed_end(
                self.names[number], StageOutput.fail(error)
            ),
            **plan.options,
        )
        self.carry_out(self.state.begin(self.now))

    def failed_end(self, name: str, output: StageOutput) -> StageEnd:
        failure = FailureRecord(
            stage=name,
            error=output.error or "",
            error_type=None,
            recoverable=False,
            timestamp=AT,
            context={},
            exception=None,
        )
        return StageEnd(output, failure)

    # What the run orders

    def carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Call(number, attempt):
                    self.on_call(self.names[number], attempt)
                case Interrupt(number):
                    name = self.names[number]
                    assert name in self.running
                    assert number in self.interruptible
                    self.interrupted.add(name)
                case InterruptAll():
                    assert self.running
                    self.interrupted |= self.running.keys()
                case Settle():
                    self.on_settle(command)
                case Report(_, data):
                    assert data["guard"] in self.guards

    def on_call(self, name: str, attempt: int) -> None:
        states = self.state.states()
        assert name not in self.running
        assert not self.state.is_stopping
        assert all(states[needed] in SETTLED for needed in self.specs[name].dependencies)
        assert self.called.issuperset(
            source for source in self.specs[name].stream_from if states[source] not in SETTLED
        )
        self.attempts[name] += 1
        assert attempt == self.attempts[name]
        self.running[name] = attempt
        self.note_seen(name, attempt)

    def note_seen(self, name: str, attempt: int) -> None:
        needed = self.specs[name].dependencies
        self.seen[name, attempt] = {other: self.recorded[other] for other in needed}

    def on_settle(self, settle: Settle) -> None:
        name = self.names[settle.stage]
        if name not in self.ended_now:
            # Settled by a rule, without a call.
            self.attempts[name] += 1
            self.note_seen(name, settle.attempt)
        self.ended_now.discard(name)
        assert settle.attempt == self.attempts[name]
        if settle.output is not None:
            self.recorded[name] = settle.attempt
        else:
            assert settle.state is StageState.CANCELED

    # What stages do

    ended_now: set[str] = set()

    def end(self, name: str, end: StageEnd) -> None:
        del self.running[name]
        self.interrupted.discard(name)
        self.called.add(name)
        self.ended_now = {*self.ended_now, name}
        self.carry_out(self.state.ended(self.names.index(name), end, self.now))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(), outcome=st.sampled_from(["ok", "ok", "ok", "skip", "hint", "fail", "fail"])
    )
    def a_stage_ends(self, data: st.DataObject, outcome: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        match outcome:
            case "ok":
                self.end(name, StageEnd(StageOutput.ok()))
            case "skip":
                self.end(name, StageEnd(StageOutput.skip("no need")))
            case "hint":
                self.end(name, StageEnd(StageOutput.ok(skip_reason="enough")))
            case _:
                why = data.draw(st.sampled_from(["this", "that"]))
                self.end(name, self.failed_end(name, StageOutput.fail(why)))

    @precondition(lambda self: self.interrupted)
    @rule(data=st.data())
    def an_interrupted_stage_is_gone(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.interrupted))), StageEnd(None))

    @precondition(lambda self: self.running.keys() - self.called)
    @rule(data=st.data())
    def a_stage_begins(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running.keys() - self.called)))
        self.called.add(name)
        self.carry_out(self.state.called(self.names.index(name), self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seldom=st.integers(0, 9))
    def a_stage_cancels_the_run(self, data: st.DataObject, seldom: int) -> None:
        if seldom == 0:
            name = data.draw(st.sampled_from(sorted(self.running)))
            self.cancelled = self.cancelled or not self.state.is_stopping
            self.end(name, StageEnd(StageOutput.cancel("enough")))

    @rule(seldom=st.integers(0, 19))
    def somebody_cancels(self, seldom: int) -> None:
        if seldom == 0:
            # A run that a failure is stopping stays a failed one.
            self.cancelled = self.cancelled or not self.state.is_stopping
            self.carry_out(self.state.cancel(None, "stop"))

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # What always holds

    @invariant()
    def running_stages_are_those_that_were_called(self) -> None:
        running = {n for n, state in self.state.states().items() if state is StageState.RUNNING}
        # Stages that were cut off are settled together, when the last of them is gone.
        assert running - self.ended_now == self.running.keys()

    @invariant()
    def the_limit_holds(self) -> None:
        assert self.limit is None or self.has_streams or len(self.running) <= self.limit

    @invariant()
    def a_run_that_is_not_over_has_something_running(self) -> None:
        assert self.state.is_over == (not self.running)

    @invariant()
    def no_output_rests_on_a_superseded_one(self) -> None:
        if not self.state.is_over:
            return
        outputs = self.state.outputs
        for name in outputs:
            seen = self.seen[name, self.recorded[name]]
            assert seen == {needed: self.recorded[needed] for needed in seen}
            assert seen.keys() <= outputs.keys()

    @invariant()
    def a_run_that_is_over_has_an_end_for_every_stage(self) -> None:
        if not self.state.is_over:
            return
        states = self.state.states()
        ends = set(states.values())
        failed_fast = self.state.is_stopping and not self.cancelled
        assert ends <= SETTLED | {StageState.NOT_RUN}
        assert (StageState.NOT_RUN not in ends) or self.state.is_stopping
        assert (self.state.ending is Ending.CANCELED) == self.cancelled
        if failed_fast:
            assert self.state.ending is Ending.FAILED
        failed = {
            name for name, output in self.state.outputs.items() if output.status is StageStatus.FAIL
        }
        assert failed == set(self.state.failures.failed_stages)
        assert failed >= {name for name, state in states.items() if state is StageState.FAILED}
        # One whose repetition was stopped keeps what it had before.
        stopped = {states[name] for name in failed} - {StageState.FAILED}
        assert stopped <= {StageState.NOT_RUN, StageState.CANCELED}
        assert not stopped or self.state.is_stopping

    @invariant()
    def repetitions_are_bounded(self) -> None:
        refusals = sum(policy.max_attempts for policy in self.guards.values())
        assert all(attempt <= 1 + refusals for attempt in self.attempts.values())

    def teardown(self) -> None:
        # Whatever was going on, the run comes to an end once its stages do.
        if not hasattr(self, "state"):
            return
        while self.running:
            name = min(self.running)
            self.end(name, StageEnd(None if name in self.interrupted else StageOutput.ok()))
            self.a_run_that_is_not_over_has_something_running()
        assert self.state.is_over


@pytest.mark.spec("30.2.1", "30.2.6", "30.6.5", "30.7.2", "30.8.6", "30.9.8")
def test_rules_hold_in_every_run() -> None:
    run_state_machine_as_test(
        RunMachine,
        settings=settings(
            max_examples=PROGRAMS,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
