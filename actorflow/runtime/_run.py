"""The supervisor of a run: carries out what `RunState` decides.

It works in the task that asked for the run, with one nursery for the stages,
so cancelling that task cancels the run and waits for its end. Stages report
to its lane. Whatever a report leads to happens without an await: between two
awaits the state, the results and the events agree.

A run that is stopped cancels its nursery, and with it the supervisor's own
wait. From there on it waits shielded, until the last stage has reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio
from structlog.contextvars import bind_contextvars, reset_contextvars

from actorflow import clock
from actorflow.actors import ActorInfo, ActorStatistics, State, current_system
from actorflow.cancellation import CancellationToken, CleanupRegistry
from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import BoundEventSink, event_sink_scope, get_event_sink
from actorflow.model import StageOutput
from actorflow.pipeline import FailureMode
from actorflow.stages import PipelineTimer, StageInputs

from ._active_runs import find_run, listed, runs_below
from ._bus import RealtimeStageBus
from ._lane import Lane
from ._lifecycle import Lifecycle
from ._results import PipelineResults
from ._run_state import (
    ENCLOSING_SCOPE,
    SUPERSEDED,
    Call,
    Interrupt,
    Report,
    RunState,
    Settle,
    StageEnd,
)
from ._stage_actor import StageCall, failure_of
from ._stage_results import StageResults, result_of
from ._status import RunPhase, RunStatus
from ._streams import Streams

if TYPE_CHECKING:
    from actorflow.errors import ActorflowError
    from actorflow.events import EventSink
    from actorflow.stages import PipelineContext

    from ._graph import UnifiedStageGraph
    from ._results import FailureRecord
    from ._run_state import Cancellation, Command

EXTERNAL: Final = "<external>"
USER_REQUESTED: Final = "user_requested"

_Report: TypeAlias = tuple[StageCall, StageEnd | None]
"""A call with its end, or with None when its stage starts."""


@final
class Run:
    """One run of a graph, from the claim on its context to its outcome."""

    def __init__(
        self,
        graph: UnifiedStageGraph,
        context: PipelineContext,
        *,
        event_sink: EventSink | None = None,
        cancel_token: CancellationToken | None = None,
        first_seq: int = 1,
    ) -> None:
        self.graph = graph
        self.context = context
        self.pipeline_name = graph.pipeline_name or context.topology or "pipeline"
        self.cleanups = CleanupRegistry()
        self.streams = Streams(graph.wiring, graph.stream_edges)
        # What interceptors noted for each other.
        self.observations: dict[tuple[str, str], Any] = {}
        self.parent = find_run(context.parent_run_id)
        self._is_cut_off = False
        self._when_ended: list[Callable[[], object]] = []
        self._given_sink = event_sink
        self._given_token = cancel_token
        self._first_seq = first_seq
        self._token: CancellationToken | None = None
        self._bus: RealtimeStageBus | None = None
        self.timer = PipelineTimer()
        self._home = trio.lowlevel.current_trio_token()
        self._lane: Lane[_Report] = Lane()
        self._nursery: trio.Nursery | None = None
        self._calls: dict[int, StageCall] = {}
        self._settles: dict[str, Settle] = {}
        self._stream_numbers: dict[str, Mapping[str, Any]] = {}
        # The Unix time at zero on trio's clock.
        self.unix_zero = clock.timestamp() - trio.current_time()
        # Unix times.
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._warnings: tuple[str, ...] = ()
        self._mistake: BaseException | None = None
        self._crash: Exception | None = None
        self._error: Exception | None = None
        self._results: PipelineResults | None = None
        self._state = RunState(
            graph.wiring,
            read_inputs=self.inputs_of,
            fail_uncalled=self._fail_uncalled,
            failure_mode=graph.options.failure_mode,
            max_concurrency=graph.options.max_concurrency,
            guard_retries=graph.guard_retries,
        )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Have the context to itself; the run happens inside this block.

        Raises:
          ContextInUseError: if another run has it.
        """
        context, graph = self.context, self.graph
        # By `None`, because a sink that is a list, or counts itself, is false while it is empty.
        sinks = (self._given_sink, context.event_sink, get_event_sink())
        sink = next(sink for sink in sinks if sink is not None)
        with context.running(self._context_canceled) as self.snapshot:
            self.run_id = run_id = str(context.pipeline_run_id)
            self.sink = context.event_sink = BoundEventSink(
                sink,
                pipeline_run_id=run_id,
                request_id=context.request_id,
                execution_mode=context.execution_mode,
                topology=context.topology,
                first_seq=self._first_seq,
            )
            self.enter_stage = self.sink.enter_stage
            self._lifecycle = Lifecycle(
                context, self.sink, run_id, self.pipeline_name, graph.pipeline_wide
            )
            if self._given_token is not None:
                self._token = CancellationToken.linked(self._given_token)
                self._listen_to(self._token)
            yield

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when there is nothing left of the run."""
        self._when_ended.append(callback)

    # Looking at it, and stopping it

    @property
    def results(self) -> PipelineResults:
        """What there is so far."""
        if self._results is not None:
            return self._results
        return self._results_with(self._stage_results())

    def _results_with(self, stage_results: StageResults) -> PipelineResults:
        failures = self._state.failures.failures
        return PipelineResults(
            self._state.outputs,
            failures=failures,
            stage_results=stage_results,
            warnings=self._warnings,
        )

    def _stage_results(self) -> StageResults:
        settles = self._settles
        if self.graph.guard_retries:
            # What was put back to be repeated counts as not run until it is.
            outputs = self._state.outputs
            settles = {
                name: settle
                for name, settle in settles.items()
                if name in outputs or settle.output is None
            }
        return StageResults(
            settles, self.graph.specs, unix_zero=self.unix_zero, streams=self._stream_numbers
        )

    @property
    def status(self) -> RunStatus:
        """Where the run and each of its stages are."""
        return RunStatus(
            run_id=self.context.pipeline_run_id,
            pipeline_name=self.pipeline_name,
            state=self._phase,
            stages=self._state.states(),
            started_at=_time_of(self._started_at),
            ended_at=_time_of(self._ended_at),
            seq=self.sink.last_seq,
        )

    @property
    def _phase(self) -> RunPhase:
        if self._ended_at is not None:
            return RunPhase.FAILED if self._crash else RunPhase(self._state.ending)
        if self._state.cancellation is not None:
            return RunPhase.CANCELING
        return RunPhase.PENDING if self._started_at is None else RunPhase.RUNNING

    @property
    def cancel_token(self) -> CancellationToken:
        """A token that is cancelled with the run, and cancels it."""
        if self._token is None:
            self._token = CancellationToken()
            self._listen_to(self._token)
            if self._state.is_stopping:
                self._token.cancel(self._why_it_stops())
        return self._token

    def _listen_to(self, token: CancellationToken) -> None:
        token.on_cancel(lambda: self.request_cancel(token.reason or USER_REQUESTED))

    def _context_canceled(self, reason: str | None) -> None:
        self.request_cancel(reason or USER_REQUESTED)

    def request_cancel(self, reason: str) -> None:
        """Ask for the end from outside; from any thread, and without effect after it."""
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._home:
            self._cancel(reason)
        else:
            with suppress(trio.RunFinishedError):
                self._home.run_sync_soon(self._cancel, reason)

    def _cancel(self, reason: str) -> None:
        if self._ended_at is None:
            self._carry_out(self._state.cancel(None, reason))

    def _cut_off(self) -> Iterable[Command]:
        # A child ends for the reason that made an ancestor stop. Those between them
        # may not have noticed yet.
        self._is_cut_off = True
        run = self.parent
        while run is not None and not run._state.is_stopping:
            run = run.parent
        reason = ENCLOSING_SCOPE if run is None else run._why_it_stops()
        return self._state.cut_off(reason)

    @property
    def _cascade_depth(self) -> int:
        """How far this is below the run where the cancellation began."""
        depth, run = 0, self
        while run._is_cut_off and run.parent is not None and run.parent._state.is_stopping:
            depth, run = depth + 1, run.parent
        return depth

    def _why_it_stops(self) -> str:
        if self._state.cancellation is not None:
            return self._state.cancellation.reason
        return f"stage {self._state.failures.failed_stages[0]!r} failed"

    def outcome(self) -> PipelineResults:
        """The results of the run, which has ended.

        Raises:
          UnifiedStageExecutionError: if it failed.
          UnifiedPipelineCancelled: if it was cancelled.
        """
        if self._error is not None:
            raise self._error
        return self.results

    # The supervisor

    async def supervise(self) -> None:
        """Run to the end. How a run ends is its `outcome`; a cancellation goes on."""
        system = current_system()
        request_id = self.context.request_id
        # `bound_contextvars` would copy and search the whole context for that.
        tokens = bind_contextvars(
            pipeline_run_id=self.run_id, request_id=None if request_id is None else str(request_id)
        )
        try:
            with (
                event_sink_scope(self.sink),
                listed(self),
                # A run that belongs to another one is shown there.
                nullcontext()
                if system is None or self.parent is not None
                else system.showing(self._describe),
            ):
                await self._run_and_wind_up()
        finally:
            reset_contextvars(**tokens)
            for callback in self._when_ended:
                callback()

    async def _run_and_wind_up(self) -> None:
        try:
            await self._run()
        except Exception as crash:  # noqa: BLE001 - it is the outcome, once things are in order
            self._crash = crash
        except BaseException:
            # A cancellation, or what stops the whole program. No stage is left to be told.
            self._cut_off()
            raise
        finally:
            # Whatever is awaited in there shields itself, each with a limit of its own.
            await self._wind_up()  # noqa: ASYNC102

    async def _run(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._state.is_stopping:
            return
        self._started_at = clock.timestamp()
        await self._lifecycle.run_started(len(self.graph.specs))
        with ungrouped():
            async with trio.open_nursery() as self._nursery:
                await self._supervise_stages()

    async def _supervise_stages(self) -> None:
        try:
            self._carry_out(self._state.begin(trio.current_time()))
            await self._collect_reports()
        except trio.Cancelled:
            # By a request or a failure, or else from around the run.
            if not self._state.is_stopping:
                self._carry_out(self._cut_off())
            with trio.CancelScope(shield=True):
                await self._outlast_stages()
            raise

    async def _collect_reports(self) -> None:
        while not self._state.is_over:
            await self._lane.wait()
            if self._mistake is not None:
                raise self._mistake
            # trio wakes tasks that are due at the same time in any order. What they
            # report must not depend on that, or no run could be repeated.
            reports = self._lane.take()
            if len(reports) > 1:
                reports.sort(key=_by_number)
            for call, end in reports:
                if end is None:
                    self._carry_out(self._state.called(call.number, trio.current_time()))
                else:
                    self._call_ended(call, end)

    @trio.lowlevel.disable_ki_protection
    def _call_ended(self, call: StageCall, end: StageEnd) -> None:
        del self._calls[call.number]
        self._carry_out(self._state.ended(call.number, end, end.ended_at))

    async def _outlast_stages(self) -> None:
        patience = self.graph.options.cleanup_timeout
        with trio.move_on_after(patience):
            await self._collect_reports()
            return
        names = [call.spec.name for call in self._calls.values()]
        self._lifecycle.stages_do_not_respond(names, patience)
        await self._collect_reports()

    async def _wind_up(self) -> None:
        for edge in self.streams.close():
            self._lifecycle.stream_closed(edge)
        if self._bus is not None:
            self._bus.close_all()
        if self.cleanups.pending_count:
            report = await self.cleanups.run_all(timeout=self.graph.options.cleanup_timeout)
            self._lifecycle.cleaned_up(report)
            self._warnings = tuple(
                f"cleanup {name!r} failed: {error!r}" for name, error in report.failed
            )
        # From here on nobody can change how it ended.
        self._ended_at = clock.timestamp()
        self._state.let_go()
        self._nursery = None
        stage_results = self._stage_results()
        self._results = results = self._results_with(stage_results)
        if self._crash is not None:
            self._error = self._crash
            await self._lifecycle.run_failed(stage_results, str(self._crash), self._crash)
        elif self._state.cancellation is not None:
            self._error = self._canceled(results, self._state.cancellation)
            await self._lifecycle.run_canceled(
                stage_results, self._state.cancellation, self._cascade_depth
            )
        elif results.failures:
            first = results.failures[0]
            assert isinstance(first.exception, Exception)
            if self.graph.options.failure_mode is not FailureMode.BEST_EFFORT:
                self._error = self._failed(results, first, first.exception)
            await self._lifecycle.run_failed(stage_results, first.error, first.exception)
        else:
            await self._lifecycle.run_completed(stage_results)

    def _canceled(
        self, results: PipelineResults, cancellation: Cancellation
    ) -> UnifiedPipelineCancelled:
        return UnifiedPipelineCancelled(
            cancellation.stage or EXTERNAL,
            cancellation.reason,
            results,
            results.failures,
            self.pipeline_name,
            self.context.pipeline_run_id,
        )

    def _failed(
        self, results: PipelineResults, first: FailureRecord, original: Exception
    ) -> UnifiedStageExecutionError:
        error = UnifiedStageExecutionError(
            first.stage,
            original,
            first.recoverable,
            results,
            results.failures,
            self.pipeline_name,
            self.context.pipeline_run_id,
            self._state.failures.get_summary(len(self.graph.specs), results),
        )
        error.__cause__ = original
        return error

    # What the decisions order

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Call():
                    self._call(command)
                case Settle():
                    self._settle(command)
                case Report(type_, data):
                    self._lifecycle.guard_retry(type_, data)
                case Interrupt(number):
                    scope = self._calls[number].scope
                    assert scope is not None, "only stages with a scope are interrupted alone"
                    scope.cancel(SUPERSEDED)
                case _:
                    self._interrupt_all()

    # Interrupted in the middle, trio keeps a task that never begins and so never ends.
    @trio.lowlevel.enable_ki_protection
    def _call(self, order: Call) -> None:
        assert self._nursery is not None
        # A scope costs as much as a task, and few stages can ever need one.
        needs_scope = order.stage in self.graph.interruptible
        scope = trio.CancelScope() if needs_scope else None
        call = StageCall(self, order.stage, order.attempt, order.feedback, scope)
        self._calls[order.stage] = call
        # Here and not in the task, because tasks begin in any order.
        self._lifecycle.stage_started(call.spec, order.attempt)
        if self.graph.wiring.consumers[order.stage]:
            self._lane.put((call, None))
        self._nursery.start_soon(call.live, name=call.spec.name)

    def _interrupt_all(self) -> None:
        assert self._nursery is not None
        reason = self._why_it_stops()
        self._nursery.cancel_scope.cancel(reason)
        if self._token is not None:
            self._token.cancel(reason)

    def _settle(self, settle: Settle) -> None:
        spec = self.graph.specs[settle.stage]
        output = settle.output
        if output is not None:
            self.context.outputs.record(spec.name, output, self.unix_zero + settle.ended_at)
            if output.artifacts:
                self.context.artifacts.extend(output.artifacts)
            for event in output.events:
                about = {"stage": spec.name, "event_timestamp": event.timestamp.isoformat()}
                data = {**about, **event.data}
                self.sink.try_emit(type=event.type, data=data)
        if self.graph.stream_edges:
            self._settle_streams(spec.name, settle)
        self._settles[spec.name] = settle
        self._lifecycle.stage_settled(spec, settle)
        if self.graph.stage_wide is not None:
            numbers = self._stream_numbers.get(spec.name, {})
            result = result_of(settle, spec, self.unix_zero, numbers)
            self.graph.stage_wide.emit_stage_event(ctx=self.context, result=result)

    def _settle_streams(self, stage: str, settle: Settle) -> None:
        end = settle.end
        cause = None if end is None or end.failure is None else end.failure.exception
        for edge in self.streams.settle(settle.stage, settle.output, cause):
            self._lifecycle.stream_closed(edge)
        self._stream_numbers[stage] = self.streams.numbers_of(settle.stage)

    # What stage calls need

    @property
    def bus(self) -> RealtimeStageBus:
        """The channels of this run, made when the first stage asks."""
        if self._bus is None:
            self._bus = RealtimeStageBus(event_emitter=self._emit)
        return self._bus

    def _emit(self, type_: str, data: Mapping[str, Any]) -> None:
        self.sink.try_emit(type=type_, data=data)

    def report_end(self, call: StageCall, end: StageEnd) -> None:
        """The call of a stage is over."""
        if len(self._calls) > 1 or self._state.is_stopping or not self._lane.is_awaited:
            self._lane.put((call, end))
            return
        assert self._nursery is not None
        # Nothing else runs, so there is no order to be found, and what follows can be done
        # without waking the supervisor: at once, and with its context variables, because
        # the stages that start now inherit them.
        try:
            self._nursery.parent_task.context.run(self._call_ended, call, end)
        except BaseException as mistake:  # noqa: ASYNC103, BLE001 - the supervisor raises it
            self._mistake = mistake
        if self._state.is_over or self._mistake is not None:
            self._lane.wake()

    def inputs_of(self, number: int) -> StageInputs:
        """What a stage may read of those it depends on."""
        spec = self.graph.specs[number]
        return StageInputs(
            self.snapshot,
            self._state.outputs,
            self.context.ports,
            spec.dependencies,
            spec.name,
            stream_sources=spec.stream_from,
        )

    def _fail_uncalled(self, number: int, error: ActorflowError) -> StageEnd:
        output = StageOutput.fail(error)
        failure = failure_of(self.graph.specs[number].name, output, error)
        return StageEnd(output, failure, raised=True, ended_at=trio.current_time())

    def _describe(self) -> ActorInfo:
        name = f"run {self.pipeline_name} {self.context.pipeline_run_id}"
        # A child run is shown below the stage that it is a part of.
        children: dict[str | None, list[ActorInfo]] = {}
        for run in runs_below(self):
            children.setdefault(run.context.parent_stage_id, []).append(run._describe())
        calls = [
            _info(
                stage := call.spec.name,
                f"{name}/{stage}",
                children.pop(stage, ()),
                restarts=max(0, call.tries - 1),
            )
            for call in self._calls.values()
        ]
        return _info(name, name, chain(calls, *children.values()))


def _info(name: str, path: str, children: Iterable[ActorInfo], *, restarts: int = 0) -> ActorInfo:
    return ActorInfo(
        name,
        path,
        State.RUNNING,
        incarnation=restarts + 1,
        statistics=ActorStatistics(restarts=restarts),
        is_supervisor=True,
        children=tuple(children),
    )


def _time_of(unix_time: float | None) -> datetime | None:
    return None if unix_time is None else datetime.fromtimestamp(unix_time, timezone.utc)


def _by_number(report: _Report) -> int:
    return report[0].number


@contextmanager
def ungrouped() -> Iterator[None]:
    """Let what happened in a nursery come out as itself if it was one thing.

    Of several cancellations one is enough.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _, others = group.split(trio.Cancelled)
        found: BaseException = others or group
        while isinstance(found, BaseExceptionGroup) and (not others or len(found.exceptions) == 1):
            found = found.exceptions[0]
        raise found from found.__cause__
