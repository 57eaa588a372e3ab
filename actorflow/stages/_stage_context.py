"""What a stage holds in its hands while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final
from uuid import UUID

import attrs
import trio

from actorflow import clock
from actorflow.cancellation import CancellationToken, Cleanup
from actorflow.errors import InvalidTypeError, NotInRunError, StageCancellationRequested
from actorflow.events import EventCounter, EventSink, bound_sink, checked_sink, report
from actorflow.model import ContextSnapshot, FrozenDict, StageKind, StageOutput

from ._arguments import check_name
from ._inputs import StageInputs
from ._read_only import ReadOnlyData
from ._reporting import stage_event_data
from ._run_port import (
    CallFacts,
    CallPort,
    GuardFeedback,
    IdempotencyInfo,
    RunPort,
    StageBus,
    SubpipelineResult,
)
from ._timer import PipelineTimer

if TYPE_CHECKING:
    from actorflow.events import BoundEventSink

    from ._bags import ContextBag, OutputBag


_NO_CONFIG: Final = FrozenDict()


@final
@attrs.frozen(eq=False)
class _GivenFacts:
    """What somebody who makes a context by hand says about the call."""

    snapshot: ContextSnapshot
    inputs: StageInputs
    stage_name: str
    timer: PipelineTimer
    event_sink: EventSink | None
    stage_kind: StageKind
    config: Mapping[str, Any]
    attempt: int
    counter: EventCounter

    def __attrs_post_init__(self) -> None:
        check_name("stage_name", self.stage_name)
        if not isinstance(self.snapshot, ContextSnapshot):
            raise InvalidTypeError("snapshot", self.snapshot, "a ContextSnapshot")
        if self.event_sink is not None:
            checked_sink("event_sink", self.event_sink)

    @property
    def reporter(self) -> BoundEventSink | None:
        return bound_sink(
            self.event_sink,
            pipeline_run_id=self.snapshot.pipeline_run_id,
            request_id=self.snapshot.request_id,
            execution_mode=self.snapshot.execution_mode,
            counter=self.counter,
        )


@final
@attrs.frozen(init=False, eq=False, repr=False)
class StageContext:
    """What a stage knows, may read, and can ask for; made anew for each try.

    Nothing in it can be changed: what a stage has to say it returns, publishes in
    `bag` or reports. The second half of the methods needs a run to serve them and
    raises `NotInRunError` in a context that was made by hand.
    """

    # Made once per try on the hot path, so everything that can wait until somebody
    # looks at it is a property.

    _facts: CallFacts
    _run: RunPort | None
    try_number: int
    """Which execution inside this attempt it is; more than 1 after a retry."""
    _started_at: float

    def __init__(
        self,
        snapshot: ContextSnapshot,
        inputs: StageInputs,
        stage_name: str,
        timer: PipelineTimer | None = None,
        event_sink: EventSink | None = None,
        *,
        kind: StageKind = StageKind.TRANSFORM,
        config: Mapping[str, Any] = _NO_CONFIG,
        attempt: int = 1,
        try_number: int = 1,
        run: RunPort | None = None,
        counter: EventCounter | None = None,
    ) -> None:
        """Make a context by hand; `counter` numbers events that no run numbers."""
        facts = _GivenFacts(
            snapshot,
            inputs,
            stage_name,
            timer or PipelineTimer(),
            event_sink,
            kind,
            config,
            attempt,
            counter or EventCounter(),
        )
        self.__attrs_init__(facts, run, try_number, clock.timestamp())

    @classmethod
    def of_call(cls, call: CallPort, try_number: int, started_at: float) -> StageContext:
        """The context of a try that began at a Unix time; for whoever runs stages."""
        made = cls.__new__(cls)
        made.__attrs_init__(call, call, try_number, started_at)
        return made

    def __repr__(self) -> str:
        # It ends up in logs, so it tells nothing that anybody said.
        run = self.pipeline_run_id
        return (
            f"StageContext(stage_name={self.stage_name!r}, pipeline_run_id={run and str(run)!r}, "
            f"attempt={self.attempt}, try_number={self.try_number})"
        )

    # Available always

    @property
    def snapshot(self) -> ContextSnapshot:
        return self._facts.snapshot

    @property
    def inputs(self) -> StageInputs:
        return self._facts.inputs

    @property
    def stage_name(self) -> str:
        return self._facts.stage_name

    @property
    def kind(self) -> StageKind:
        return self._facts.stage_kind

    @property
    def config(self) -> Mapping[str, Any]:
        return self._facts.config

    @property
    def attempt(self) -> int:
        """How often the run has started this stage; more than 1 after a guard's verdict."""
        return self._facts.attempt

    @property
    def timer(self) -> PipelineTimer:
        return self._facts.timer

    @property
    def event_sink(self) -> EventSink | None:
        return self._facts.event_sink

    @property
    def started_at(self) -> datetime:
        return datetime.fromtimestamp(self._started_at, timezone.utc)

    @property
    def pipeline_run_id(self) -> UUID | None:
        return self.snapshot.pipeline_run_id

    @property
    def request_id(self) -> UUID | None:
        return self.snapshot.request_id

    @property
    def session_id(self) -> UUID | None:
        return self.snapshot.session_id

    @property
    def user_id(self) -> UUID | None:
        return self.snapshot.user_id

    @property
    def org_id(self) -> UUID | None:
        return self.snapshot.org_id

    @property
    def interaction_id(self) -> UUID | None:
        return self.snapshot.interaction_id

    @property
    def topology(self) -> str | None:
        return self.snapshot.topology

    @property
    def execution_mode(self) -> str | None:
        return self.snapshot.execution_mode

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.snapshot.metadata

    def get_metadata(self, key: str, default: Any = None) -> Any:
        return self.snapshot.metadata.get(key, default)

    @property
    def ports(self) -> Any:
        return self.inputs.ports

    def now(self) -> datetime:
        """The current time in UTC; it follows trio's clock."""
        return clock.now()

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as JSON, with the stage's name and when it started."""
        return {
            **self.snapshot.to_dict(),
            "stage_name": self.stage_name,
            "started_at": self.started_at.isoformat(),
        }

    def try_emit_event(self, type: str, data: Mapping[str, Any] | None = None) -> None:
        """Report an event without waiting; what a sink raises goes no further.

        Raises:
          InvalidTypeError: if `type` is empty or not a string.
        """
        report(self._facts.reporter, type, data)

    emit_event = try_emit_event

    def record_stage_event(
        self, stage: str, status: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Report `<stage>.<status>` with the ids of the session and `payload`.

        `stage.completed` and its like belong to the runtime.
        """
        service = None if self._run is None else self._run.context.service
        self.try_emit_event(
            f"{stage}.{status}", stage_event_data(self, service, stage, status, payload)
        )

    @property
    def is_cancelled(self) -> bool:
        """Whether the run is being cancelled; False outside a run."""
        return self._run is not None and self._run.cancel_token.is_cancelled

    @property
    def cancellation_reason(self) -> str | None:
        return None if self._run is None else self._run.cancel_token.reason

    def raise_if_cancelled(self) -> None:
        """End the stage here if its run is being cancelled.

        Raises:
          StageCancellationRequested: with the run's reason.
        """
        if self.is_cancelled:
            raise StageCancellationRequested(
                self.cancellation_reason or f"Stage '{self.stage_name}' was cancelled"
            )

    async def cancellation_checkpoint(self) -> None:
        """Let others run, and end the stage here if its run is being cancelled."""
        await trio.lowlevel.checkpoint()
        self.raise_if_cancelled()

    # Available in a run

    def _served(self, operation: str) -> RunPort:
        if self._run is None:
            raise NotInRunError(operation)
        return self._run

    @property
    def data(self) -> Mapping[str, Any]:
        """The run's data as it is now, to read: dicts and lists come as frozen copies."""
        return ReadOnlyData(self._served("data").context.data)

    @property
    def bag(self) -> ContextBag:
        """Values that stages share: `await ctx.bag.write(key, value, ctx.stage_name)`."""
        return self._served("bag").context.bag

    @property
    def outputs(self) -> OutputBag:
        """What the stages of the run have returned so far, declared or not."""
        return self._served("outputs").context.outputs

    @property
    def run_id(self) -> UUID | None:
        return self._served("run_id").context.pipeline_run_id

    @property
    def pipeline_name(self) -> str:
        return self._served("pipeline_name").pipeline_name

    @property
    def runtime(self) -> Any:
        return self._served("runtime").context.runtime

    @property
    def cancel_token(self) -> CancellationToken:
        """Cancelling it cancels the whole run."""
        return self._served("cancel_token").cancel_token

    def add_cleanup(self, callback: Cleanup, *, name: str | None = None) -> None:
        """Have `callback` called when the run ends, however it ends."""
        self._served("add_cleanup").add_cleanup(callback, name)

    @property
    def idempotency(self) -> IdempotencyInfo | None:
        """Under which key this work counts as done; None if nobody asked for that."""
        return self._served("idempotency").idempotency

    @property
    def deadline(self) -> float:
        """When this try is out of time, in seconds on trio's clock; `inf` without a limit."""
        return self._served("deadline").deadline

    def extend_timeout(self, seconds: float) -> None:
        """Give this try `seconds` from now on, instead of what was left; nothing without a limit."""
        self._served("extend_timeout").extend_timeout(seconds)

    @property
    def guard_feedback(self) -> Mapping[str, GuardFeedback]:
        """Why guards sent this stage back, by guard; empty the first time."""
        return self._served("guard_feedback").guard_feedback

    async def spawn_subpipeline(
        self,
        pipeline: object,
        source: object = None,
        *,
        correlation_id: UUID | str | None = None,
        topology: str | None = None,
        execution_mode: str | None = None,
        inherit_data: bool | Collection[str] = False,
        data_overrides: Mapping[str, Any] | None = None,
    ) -> SubpipelineResult:
        """Run a pipeline, or a registered one by name, as a child of this run.

        Its failure is in the result and raises nothing here. When this stage is
        cancelled, so is the child, and it has ended before this stage does.
        """
        return await self._served("spawn_subpipeline").spawn_subpipeline(
            pipeline,
            source,
            correlation_id=correlation_id,
            topology=topology,
            execution_mode=execution_mode,
            inherit_data=inherit_data,
            data_overrides=data_overrides,
        )

    def stream(self, source: str | None = None) -> AsyncIterator[Any]:
        """The items that a stage named in `stream_from` sends, until it ends."""
        return self._served("stream").stream(source)

    async def send(self, item: Any) -> None:
        """Hand an item to every stage that streams from this one; wait for room."""
        run = self._served("send")
        if not run.offer(item):
            await run.send(item)

    async def stream_output(self, source: str | None = None) -> StageOutput:
        """Wait for the end of a stage named in `stream_from`, and return what it returned.

        What it sent is read with `stream`.
        """
        return await self._served("stream_output").stream_output(source)

    @property
    def bus(self) -> StageBus:
        """Named channels between the stages of this run."""
        return self._served("bus").bus


def create_stage_context(
    *,
    snapshot: ContextSnapshot,
    inputs: StageInputs,
    stage_name: str,
    timer: PipelineTimer | None = None,
    event_sink: EventSink | None = None,
) -> StageContext:
    """Make a context by hand, every argument by name."""
    return StageContext(snapshot, inputs, stage_name, timer, event_sink)
