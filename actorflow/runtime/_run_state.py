"""The decisions of a run: what starts, is skipped, is stopped or repeated, and why.

A run feeds signals in (a stage was called, its call ended, somebody cancels)
and carries the returned commands out, in order. Nothing here waits, knows a
task or looks at a clock, so every rule can be played through without running
anything.

Readiness is counted down per edge: each stage knows how many others it still
awaits, and what happens to a stage touches its direct neighbours only. What
nothing holds back any more waits in one list, so ten thousand stages skipped
in a row need no recursion.

Stages go by their number in the wiring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import attrs

from actorflow.errors import DeadlockedGraphError
from actorflow.model import FrozenDict, StageOutput, StageStatus
from actorflow.pipeline import (
    Fail,
    FailureMode,
    Settled,
    Skip,
    decide,
    hash_retry_payload,
)
from actorflow.stages import GuardFeedback

from ._failures import FailureCollector
from ._guard_retry import GuardHistory, repeated_with
from ._slots import Slots
from ._stage_life import LIFE, SETTLED, StageChange, StageState

if TYPE_CHECKING:
    from uuid import UUID

    from actorflow.errors import ActorflowError
    from actorflow.pipeline import GuardRetryPolicy, SkippedBy, StageSpec, Wiring
    from actorflow.stages import StageInputs

    from ._results import FailureRecord

ENCLOSING_SCOPE: Final = "Cancelled by enclosing scope"
PIPELINE_CANCELLED: Final = "Pipeline cancelled"
SUPERSEDED: Final = "Superseded by guard retry"


# Signals. They and the commands are tuples, because several are made for each call of
# a stage, and a frozen class takes three times as long to fill.


@final
class StageEnd(NamedTuple):
    """How the call of a stage ended: with an output, or cut off without one."""

    output: StageOutput | None
    failure: FailureRecord | None = None
    """What stands behind a failed output."""
    raised: bool = False
    """Whether that is an exception rather than what the stage returned."""

    # What only the reports about it need.
    was_called: bool = False
    ended_at: float = 0.0
    """On trio's clock."""
    duration_ms: float = 0.0
    tries: int = 1
    wanted_retry: bool = False
    timed_out: bool = False
    warnings: tuple[str, ...] = ()
    short_circuited_by: str | None = None
    replayed: bool = False
    original_run_id: UUID | None = None


# Commands


@final
class Call(NamedTuple):
    """Call a stage."""

    stage: int
    attempt: int
    feedback: Mapping[str, GuardFeedback]


@final
class Interrupt(NamedTuple):
    """Cancel one running stage: what it works on is out of date."""

    stage: int


@final
class InterruptAll(NamedTuple):
    """Cancel everything that runs."""


@final
class Settle(NamedTuple):
    """An attempt of a stage is over: record it and report it.

    Without `output` the run was stopped before the stage had one. Without `end`
    the stage was not called, because a rule skipped it.
    """

    stage: int
    attempt: int
    state: StageState
    output: StageOutput | None
    end: StageEnd | None
    skipped_by: SkippedBy | None
    ended_at: float
    """On trio's clock."""


@final
class Report(NamedTuple):
    """Emit an event."""

    type: str
    data: Mapping[str, Any]


Command: TypeAlias = Call | Interrupt | InterruptAll | Settle | Report


# State


class Ending(StrEnum):
    """How a run ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@final
@attrs.frozen
class Cancellation:
    """Who asked a run to end, and why; `stage` is None for somebody outside."""

    stage: str | None
    reason: str


@attrs.define(eq=False)
class _Stage:
    number: int
    name: str
    awaits: int
    """Dependencies that have not settled and stream sources that were not called."""

    state: StageState = StageState.WAITING
    attempt: int = 0
    was_called: bool = False
    is_superseded: bool = False
    """Whether it was interrupted because it will be repeated."""

    def move(self, change: StageChange) -> None:
        self.state = LIFE[self.state, change]


_CHANGE_OF: Final = {
    StageStatus.OK: StageChange.COMPLETE,
    StageStatus.SKIP: StageChange.SKIP,
    StageStatus.CANCEL: StageChange.CANCEL,
    StageStatus.FAIL: StageChange.FAIL,
}
_UNSTARTED: Final = frozenset({StageState.WAITING, StageState.QUEUED})
_NO_FEEDBACK: Final[Mapping[str, GuardFeedback]] = FrozenDict()


@final
class RunState:
    """The state of one run; every signal returns what is to be done about it.

    `read_inputs` gives what a stage would read, `fail_uncalled` the end of a
    stage that fails because a rule could not be applied to it.
    """

    def __init__(
        self,
        wiring: Wiring,
        *,
        read_inputs: Callable[[int], StageInputs],
        fail_uncalled: Callable[[int, ActorflowError], StageEnd],
        failure_mode: FailureMode = FailureMode.FAIL_FAST,
        max_concurrency: int | None = None,
        guard_retries: Mapping[str, GuardRetryPolicy] = FrozenDict(),
    ) -> None:
        self.outputs: dict[str, StageOutput] = {}
        """What stages have produced so far, the newest last."""
        self.failures = FailureCollector(failure_mode)
        self.cancellation: Cancellation | None = None

        self._wiring = wiring
        self._mode = failure_mode
        self._read_inputs = read_inputs
        self._fail_uncalled = fail_uncalled
        self._stages = [
            _Stage(number, spec.name, len(spec.dependencies) + len(spec.stream_from))
            for number, spec in enumerate(wiring.specs)
        ]
        self._settled: list[Settled | None] = [None] * len(self._stages)
        self._unsettled = len(self._stages)
        self._running = 0
        self._stopping = False
        self._all_went_well = True
        self._unheld: deque[_Stage] = deque()
        self._ready: list[_Stage] = []
        # Without a limit nobody has to queue.
        self._slots = None if max_concurrency is None else Slots(max_concurrency, wiring)
        self._interrupted: list[tuple[_Stage, StageEnd]] = []
        self._commands: list[Command] = []

        self._guards = {guard: GuardHistory(policy) for guard, policy in guard_retries.items()}
        # Everything that a repetition of a retry stage invalidates, in declaration order.
        self._below = {
            name: [self._stages[number] for number in repeated_with(wiring, wiring.index[name])]
            for name in {policy.retry_stage for policy in guard_retries.values()}
        }
        # Retry stages about to run again, with the running stages that must end before.
        self._repeats: dict[str, set[_Stage]] = {}
        self._feedback: dict[str, dict[str, GuardFeedback]] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self._running and (self._stopping or not self._unsettled)

    @property
    def is_stopping(self) -> bool:
        """Whether no further stage is called."""
        return self._stopping

    @property
    def ending(self) -> Ending:
        """How the run ends if nobody interferes any more."""
        if self.cancellation:
            return Ending.CANCELED
        return Ending.FAILED if self.failures.has_failures else Ending.COMPLETED

    def states(self) -> dict[str, StageState]:
        """Where each stage is, in declaration order."""
        return {stage.name: stage.state for stage in self._stages}

    # Signals

    def begin(self, now: float) -> list[Command]:
        """The run starts."""
        self._unheld.extend(self._stages[number] for number in self._wiring.roots)
        return self._advance(now)

    def called(self, number: int, now: float) -> list[Command]:
        """A stage is being called, so what streams from it may start too."""
        self._let_consumers_start(self._stages[number])
        return self._advance(now)

    def ended(self, number: int, end: StageEnd, now: float) -> list[Command]:
        """The call of a stage is over."""
        stage = self._stages[number]
        self._running -= 1
        if self._slots is not None:
            self._slots.give_back(number)
        if end.output is not None:
            self._conclude(stage, end.output, end, now)
        elif stage.is_superseded and not self._stopping:
            self._record(stage, StageOutput.cancel(SUPERSEDED), end, end.ended_at)
            self._passed(stage)
        else:
            # Nobody here interrupts a stage of a run that goes on: if it happened
            # all the same, the scope around the run did it.
            self._interrupted.append((stage, end))
            self._request_cancel(None, ENCLOSING_SCOPE)
        if self._repeats:
            self._repeat_what_awaited(stage)
        return self._advance(now)

    def cancel(self, stage: str | None, reason: str) -> list[Command]:
        """Somebody asks for the end of the run."""
        self._request_cancel(stage, reason)
        return self._take_commands()

    def cut_off(self, reason: str) -> list[Command]:
        """The run is cancelled from around it: whoever would hear of a failure is gone."""
        if self.cancellation is None:
            self.cancellation = Cancellation(None, reason)
        self._stop()
        return self._take_commands()

    def let_go(self) -> None:
        """Forget who was to be asked, because nothing is left to decide.

        With them the state and its run would keep each other, and all outputs, until
        the next garbage collection.
        """
        del self._read_inputs, self._fail_uncalled

    # Moving on

    def _advance(self, now: float) -> list[Command]:
        while self._unheld and not self._stopping:
            stage = self._unheld.popleft()
            # A repetition may have put it back since it was listed.
            if stage.state is StageState.WAITING and not stage.awaits:
                self._consider(stage, now)
        if self._stopping:
            self._settle_what_was_interrupted()
        else:
            self._call_what_is_ready()
            if self._unsettled and not self._running:
                raise DeadlockedGraphError(self._names_of_unsettled())
        return self._take_commands()

    def _take_commands(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    def _consider(self, stage: _Stage, now: float) -> None:
        number = stage.number
        if self._all_went_well and not _has_conditions(self._wiring.specs[number]):
            # No rule could object. Most stages are like that, and asking is not free.
            stage.move(StageChange.READY)
            self._ready.append(stage)
            return
        decision = decide(
            self._wiring, number, self._settled, self._mode, lambda: self._read_inputs(number)
        )
        if isinstance(decision, Skip):
            stage.attempt += 1
            self._record(stage, decision.output, None, now, decision.skipped_by)
            self._passed(stage)
        elif isinstance(decision, Fail):
            end = self._fail_uncalled(number, decision.error)
            assert end.output is not None
            stage.attempt += 1
            self._conclude(stage, end.output, end, now)
        else:
            stage.move(StageChange.READY)
            self._ready.append(stage)

    def _call_what_is_ready(self) -> None:
        ready = self._ready
        if len(ready) > 1:
            ready.sort(key=_by_number)
        if self._slots is None:
            for stage in ready:
                self._call(stage)
        else:
            for stage in ready:
                self._slots.add(stage.number)
            for number in self._slots.take():
                self._call(self._stages[number])
        ready.clear()

    def _call(self, stage: _Stage) -> None:
        stage.move(StageChange.START)
        stage.attempt += 1
        self._running += 1
        feedback = self._feedback.pop(stage.name, _NO_FEEDBACK)
        self._commands.append(Call(stage.number, stage.attempt, feedback))

    def _let_dependents_know(self, stage: _Stage) -> None:
        if self._slots is not None:
            self._slots.settled(stage.number)
        self._let_go(self._wiring.dependents[stage.number])
        self._let_consumers_start(stage)

    def _let_consumers_start(self, stage: _Stage) -> None:
        if not stage.was_called:
            stage.was_called = True
            self._let_go(self._wiring.consumers[stage.number])

    def _let_go(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            waiting = self._stages[number]
            waiting.awaits -= 1
            if not waiting.awaits:
                self._unheld.append(waiting)

    # How a stage ended

    def _record(
        self,
        stage: _Stage,
        output: StageOutput,
        end: StageEnd | None,
        ended_at: float,
        skipped_by: SkippedBy | None = None,
    ) -> None:
        stage.move(_CHANGE_OF[output.status])
        self._unsettled -= 1
        self._settled[stage.number] = Settled(output, skipped_by)
        if stage.attempt > 1:
            self.failures.forget(stage.name)
            self.outputs.pop(stage.name, None)
        self.outputs[stage.name] = output
        if output.status is StageStatus.OK:
            self.failures.record_completion(stage.name)
        else:
            self._all_went_well = False
        self._commands.append(
            Settle(stage.number, stage.attempt, stage.state, output, end, skipped_by, ended_at)
        )

    def _conclude(self, stage: _Stage, output: StageOutput, end: StageEnd, now: float) -> None:
        skipped_by: SkippedBy | None = "stage" if output.status is StageStatus.SKIP else None
        self._record(stage, output, end, end.ended_at, skipped_by)
        if output.status is StageStatus.CANCEL:
            self._request_cancel(stage.name, output.reason or PIPELINE_CANCELLED)
        elif output.status is StageStatus.FAIL:
            self._failed(stage, output, end, now)
        else:
            self._passed(stage)

    def _passed(self, stage: _Stage) -> None:
        if self._is_outdated(stage):
            self._put_back(stage)
            return
        guard = self._guards.get(stage.name)
        if guard and guard.is_recovering:
            guard.is_recovering = False
            self._report("recovered", guard=stage.name, attempts=guard.attempts)
        self._let_dependents_know(stage)

    def _failed(self, stage: _Stage, output: StageOutput, end: StageEnd, now: float) -> None:
        assert end.failure is not None
        if stage.is_superseded and not self._stopping:
            self._put_back(stage)
            return
        guard = self._guards.get(stage.name)
        if guard and not self._stopping and self._refused(stage, guard, output, end, now):
            return
        self.failures.record_failure(end.failure)
        if self._mode is FailureMode.FAIL_FAST:
            self._stop()
        elif self._is_outdated(stage):
            self._put_back(stage)
        else:
            self._let_dependents_know(stage)

    def _settle_what_was_interrupted(self) -> None:
        if self._running:
            return
        self._interrupted.sort(key=lambda cut: cut[0].number)
        for stage, end in self._interrupted:
            stage.move(StageChange.CANCEL)
            self._commands.append(
                Settle(stage.number, stage.attempt, stage.state, None, end, None, end.ended_at)
            )
        self._interrupted.clear()

    def _request_cancel(self, stage: str | None, reason: str) -> None:
        # The first who ends a run decides how, be it a request or a failure.
        if self.cancellation is None and not self._stopping:
            self.cancellation = Cancellation(stage, reason)
            self._stop()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._repeats.clear()
        for stage in self._stages:
            if stage.state in _UNSTARTED:
                stage.move(StageChange.STOP)
        if self._running:
            self._commands.append(InterruptAll())

    def _names_of_unsettled(self) -> tuple[str, ...]:
        return tuple(sorted(s.name for s in self._stages if self._settled[s.number] is None))

    # Guard retry

    def _refused(
        self, stage: _Stage, guard: GuardHistory, output: StageOutput, end: StageEnd, now: float
    ) -> bool:
        """Whether the refusal of a guard has its retry stage run again."""
        policy = guard.policy
        verdict = StageOutput.fail(data={"error": output.error}) if end.raised else output
        exhaustion = guard.refuse(hash_retry_payload(verdict, policy.hash_fields), now)
        about = {
            "guard": stage.name,
            "retry_stage": policy.retry_stage,
            "stagnation_hits": guard.stagnation_hits,
            "timeout_seconds": policy.timeout_seconds,
        }
        attempt = guard.attempts
        self._report("attempt", **about, attempt=attempt, max_attempts=policy.max_attempts)
        if exhaustion:
            self._report("exhausted", **about, attempts=attempt, reason=exhaustion)
            return False
        self._report("scheduled", **about, attempt=attempt)
        previous = self.outputs.get(policy.retry_stage)
        feedback = GuardFeedback(stage.name, attempt, output.error, verdict.data, previous)
        self._feedback.setdefault(policy.retry_stage, {})[stage.name] = feedback
        self._schedule_repeat(policy.retry_stage)
        return True

    def _schedule_repeat(self, retry_stage: str) -> None:
        """Take back everything below the retry stage; run it again when nothing there runs."""
        below = self._below[retry_stage]
        for stage in below:
            # It would be repeated for itself; now it is, because of a stage above it.
            self._repeats.pop(stage.name, None)
        if retry_stage not in self._repeats:
            self._hold_for_repeat(self._stages[self._wiring.index[retry_stage]])
        self._repeats[retry_stage] = {s for s in below if s.state is StageState.RUNNING}
        for stage in below:
            if stage.state is StageState.RUNNING:
                self._supersede(stage, retry_stage)
            elif stage.state is not StageState.WAITING:
                self._put_back(stage)
        # Only now is it known for each of them what it awaits.
        for stage in below:
            stage.awaits = self._count_awaited(stage)
        self._repeat_if_clear(retry_stage)

    def _hold_for_repeat(self, stage: _Stage) -> None:
        # Its output stays until there is a new one, so that a run which is stopped
        # before that has lost nothing.
        self._put_back(stage, keep_output=True)
        stage.awaits += 1

    def _supersede(self, stage: _Stage, retry_stage: str) -> None:
        guard = self._guards.get(stage.name)
        may_finish = guard is not None and guard.policy.retry_stage == retry_stage
        if not may_finish and not stage.is_superseded:
            stage.is_superseded = True
            self._commands.append(Interrupt(stage.number))

    def _put_back(self, stage: _Stage, *, keep_output: bool = False) -> None:
        if stage.state in SETTLED:
            self._unsettled += 1
            self._settled[stage.number] = None
            if not keep_output:
                self.failures.forget(stage.name)
                del self.outputs[stage.name]
        elif stage in self._ready:
            self._ready.remove(stage)
        else:
            assert self._slots is not None, "who is ready and not called waits for a slot"
            self._slots.remove(stage.number)
        stage.move(StageChange.REPEAT)
        stage.is_superseded = False
        stage.awaits = self._count_awaited(stage)

    def _count_awaited(self, stage: _Stage) -> int:
        needed = self._wiring.dependencies[stage.number]
        streamed = self._wiring.stream_sources[stage.number]
        return sum(self._settled[number] is None for number in needed) + sum(
            not self._stages[number].was_called for number in streamed
        )

    def _repeat_what_awaited(self, stage: _Stage) -> None:
        for retry_stage, awaited in list(self._repeats.items()):
            awaited.discard(stage)
            self._repeat_if_clear(retry_stage)

    def _repeat_if_clear(self, retry_stage: str) -> None:
        if not self._repeats[retry_stage]:
            del self._repeats[retry_stage]
            self._let_go((self._wiring.index[retry_stage],))

    def _is_outdated(self, stage: _Stage) -> bool:
        # A repetition waits for it: what it has produced is from before.
        return bool(self._repeats) and any(stage in it for it in self._repeats.values())

    def _report(self, what: str, **data: object) -> None:
        self._commands.append(Report(f"guard_retry.{what}", data))


def _has_conditions(spec: StageSpec) -> bool:
    return bool(spec.when or spec.conditional or spec.edge_conditions or spec.inputs)


def _by_number(stage: _Stage) -> int:
    return stage.number
