"""One call of a stage: a task that reports how the stage ended.

Whatever happens in the stage, the task ends and the report is made. Failures
become outputs here; only a cancellation and what stops a whole program
(`KeyboardInterrupt`, `SystemExit`) leave the task as exceptions.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Mapping,
    MutableMapping,
)
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio
from structlog.contextvars import bind_contextvars

from actorflow import clock
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    StageCancellationRequested,
    StageFailedError,
    StageRetryRequested,
    StageTimeoutError,
    TransientError,
    UnsupportedResultError,
)
from actorflow.model import StageOutput, StageStatus
from actorflow.pipeline import check_branch, check_outputs
from actorflow.stages import StageContext

from ._results import FailureRecord
from ._run_state import StageEnd
from ._subpipeline import get_subpipeline_spawner, runnable

if TYPE_CHECKING:
    from uuid import UUID

    from actorflow.cancellation import CancellationToken, Cleanup
    from actorflow.events import BoundEventSink
    from actorflow.interceptors import CallEnd
    from actorflow.model import ContextSnapshot, StageKind
    from actorflow.pipeline import StageSpec
    from actorflow.stages import (
        GuardFeedback,
        IdempotencyInfo,
        PipelineContext,
        PipelineTimer,
        StageInputs,
        SubpipelineResult,
    )

    from ._bus import RealtimeStageBus
    from ._run import Run

NOBODY_RETRIED: Final = (
    "it asked to be tried again and nothing did: run the pipeline with a RetryInterceptor"
)


def caller_of(spec: StageSpec) -> Callable[[StageContext], object]:
    """What calls the runner of a stage; a class is instantiated anew for each call."""
    runner: Any = spec.runner
    if isinstance(runner, type):
        return partial(_call_new, runner, spec.args)
    execute: Callable[[StageContext], object] = getattr(runner, "execute", runner)
    return execute


def _call_new(runner: type[Any], args: Mapping[str, Any], ctx: StageContext) -> object:
    instance = runner(**args)
    execute: Callable[[StageContext], object] = getattr(instance, "execute", instance)
    return execute(ctx)


def failure_of(stage: str, output: StageOutput, error: Exception) -> FailureRecord:
    """The record of a failure: what the stage put out, and what stands behind it."""
    return FailureRecord(
        stage=stage,
        error=output.error or "",
        error_type=type(error).__name__,
        recoverable=output.retryable or isinstance(error, TransientError),
        timestamp=clock.now(),
        exception=error,
    )


@final
class StageCall:
    """The actor of one attempt of a stage, and what its context asks of the run."""

    __slots__ = (
        "_end",
        "_expired",
        "_inputs",
        "_run",
        "_sink",
        "_try_scope",
        "attempt",
        "begun_at",
        "guard_feedback",
        "has_sent",
        "idempotency",
        "number",
        "scope",
        "spec",
        "tries",
    )

    def __init__(
        self,
        run: Run,
        number: int,
        attempt: int,
        feedback: Mapping[str, GuardFeedback],
        scope: trio.CancelScope | None,
    ) -> None:
        self._run = run
        self.number = number
        self.spec = run.graph.specs[number]
        self.attempt = attempt
        self.guard_feedback = feedback
        # Only a stage that may be interrupted while its run goes on has one.
        self.scope = scope
        # Whether others may have read something of it, so that it cannot be tried again.
        self.has_sent = False
        self.idempotency: IdempotencyInfo | None = None
        self.begun_at = 0.0
        self.tries = 0
        self._try_scope: trio.CancelScope | None = None
        self._expired: StageTimeoutError | None = None
        self._end: StageEnd | None = None
        # Made when somebody looks. What a stage may read is fixed when it starts, and only
        # guards can have it taken back while the stage runs.
        self._sink: BoundEventSink | None = None
        self._inputs = run.inputs_of(number) if run.graph.guard_retries else None

    # The task

    # The supervisor waits for the report, so Ctrl-C may come anywhere but between the end of
    # a call and that.
    @trio.lowlevel.enable_ki_protection
    async def live(self) -> None:
        """Call the stage, and report the end of that whatever it is."""
        # For the log lines of the stage itself. The task has its own context, so they
        # go with it.
        bind_contextvars(stage=self.spec.name, attempt=self.attempt)
        if self._run.enter_stage is not None:
            self._run.enter_stage(pipeline_run_id=self._run.run_id, stage=self.spec.name)
        self.begun_at = trio.current_time()
        try:
            if self.scope is None:
                await self._call()
            else:
                with self.scope:
                    await self._call()
        finally:
            self._run.report_end(self, self._end or self._ended(None))

    @trio.lowlevel.disable_ki_protection
    async def _call(self) -> None:
        # Between the order to start and the first step of this task lies a tick in
        # which somebody may have cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        chain = self._run.graph.chains[self.number]
        try:
            if chain is None:
                self._end = self._returned(await self.execute(1, self.timeout_ms))
            else:
                self._end = self._came_out(await chain.call(self))
        except Exception as error:  # noqa: BLE001 - stages are user code
            self._end = self._failed(error)
        except BaseExceptionGroup as group:
            # What a stage raises while it is being cancelled comes together with
            # the cancellation, and that has to go on.
            own, rest = group.split(Exception)
            if own is not None:
                self._end = self._failed(own)
            assert rest is not None
            raise rest from None

    async def execute(self, try_number: int, timeout_ms: float | None) -> StageOutput:
        """Call the stage once, within the limit if there is one."""
        self.tries = try_number
        run = self._run
        if self.attempt > 1 or try_number > 1:
            # What it wrote last time is from a run of the stage that does not count.
            run.context.bag.discard_writer(self.spec.name)
        ctx = StageContext.of_call(self, try_number, run.unix_zero + trio.current_time())
        if timeout_ms is None or timeout_ms == math.inf:
            return await self._output(ctx)
        return await self._output_within(timeout_ms / 1000, ctx)

    async def _output_within(self, limit: float, ctx: StageContext) -> StageOutput:
        begun_at = trio.current_time()
        self._try_scope = scope = trio.CancelScope(deadline=begun_at + limit)
        own_error: Exception | None = None
        try:
            with scope:
                return await self._output(ctx)
        except Exception as error:
            # Without `cancelled_caught` it has nothing to do with the limit.
            if not scope.cancelled_caught:
                raise
            own_error = error
        finally:
            self._try_scope = None
        self._expired = StageTimeoutError(
            self.spec.name, scope.deadline - begun_at, trio.current_time() - begun_at
        )
        raise self._expired from own_error

    async def _output(self, ctx: StageContext) -> StageOutput:
        returned = self._run.graph.callers[self.number](ctx)
        if inspect.isawaitable(returned):
            returned = await returned
        try:
            output = StageOutput.from_returned(returned)
        except InvalidTypeError:
            raise UnsupportedResultError(self.spec.name, returned) from None
        spec, wiring = self.spec, self._run.graph.wiring
        problem = (spec.outputs and check_outputs(spec, output)) or (
            wiring.branch_labels[self.number] and check_branch(wiring, self.number, output)
        )
        if problem:
            raise problem
        return output

    # How it ended

    def _returned(self, output: StageOutput) -> StageEnd:
        name = self.spec.name
        if output.status is StageStatus.FAIL:
            return self._ended_badly(output, StageFailedError(name, output.error or "", output))
        if output.status is StageStatus.RETRY:
            request = StageRetryRequested(name, output.error or "", output)
            return self._ended_badly(output, request, warnings=(NOBODY_RETRIED,))
        return self._ended(output)

    def _failed(self, error: Exception) -> StageEnd:
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            [error] = error.exceptions
        if isinstance(error, StageCancellationRequested):
            return self._ended(StageOutput.cancel(error.reason))
        return self._ended_badly(StageOutput.fail(error), error, raised=True)

    def _came_out(self, end: CallEnd) -> StageEnd:
        """The end of a call that went through interceptors."""
        outcome, warnings = end.outcome, end.warnings
        self.tries = end.tries
        if outcome.error is None and not warnings and outcome.short_circuited_by is None:
            return self._ended(outcome.output)
        if outcome.output.status is StageStatus.RETRY and end.gave_up is None:
            warnings = (*warnings, NOBODY_RETRIED)
        more: dict[str, Any] = {
            "warnings": warnings,
            "short_circuited_by": outcome.short_circuited_by,
            "replayed": outcome.replayed,
            "original_run_id": outcome.original_run_id,
        }
        if outcome.error is None:
            return self._ended(outcome.output, **more)
        return self._ended_badly(outcome.output, outcome.error, raised=outcome.raised, **more)

    def _ended_badly(self, output: StageOutput, error: Exception, **more: Any) -> StageEnd:
        wanted_retry = output.status is StageStatus.RETRY
        if wanted_retry:
            # Nobody after this knows RETRY.
            output = attrs.evolve(output, status=StageStatus.FAIL)
        return self._ended(
            output,
            failure=failure_of(self.spec.name, output, error),
            wanted_retry=wanted_retry,
            timed_out=error is self._expired,
            **more,
        )

    def _ended(self, output: StageOutput | None, **more: Any) -> StageEnd:
        ended_at = trio.current_time()
        duration_ms = round((ended_at - self.begun_at) * 1000, 3)
        return StageEnd(
            output and output.with_duration(duration_ms),
            was_called=True,
            ended_at=ended_at,
            duration_ms=duration_ms,
            tries=self.tries,
            **more,
        )

    # What the interceptors around the stage ask for

    @property
    def stage_name(self) -> str:
        return self.spec.name

    @property
    def stage_kind(self) -> StageKind:
        return self.spec.kind

    @property
    def runner(self) -> object:
        return self.spec.runner

    @property
    def config(self) -> Mapping[str, Any]:
        return self.spec.args

    @property
    def snapshot(self) -> ContextSnapshot:
        return self._run.snapshot

    @property
    def inputs(self) -> StageInputs:
        if self._inputs is None:
            self._inputs = self._run.inputs_of(self.number)
        return self._inputs

    @property
    def timeout_ms(self) -> float | None:
        if self.spec.timeout is not None:
            return self.spec.timeout * 1000
        of_run: object = self._run.context.data.get("_timeout_ms")
        if of_run is not None:
            if not isinstance(of_run, int | float):
                raise InvalidTypeError("_timeout_ms", of_run, "milliseconds as a number")
            return of_run if of_run > 0 else math.inf
        of_pipeline = self._run.graph.options.stage_timeout
        return None if of_pipeline is None else of_pipeline * 1000

    @property
    def cleanup_timeout(self) -> float:
        return self._run.graph.options.cleanup_timeout

    @property
    def observations(self) -> MutableMapping[tuple[str, str], Any]:
        return self._run.observations

    def set_idempotency(self, info: IdempotencyInfo | None) -> None:
        self.idempotency = info

    # What the context of the stage asks for

    @property
    def timer(self) -> PipelineTimer:
        return self._run.timer

    @property
    def event_sink(self) -> BoundEventSink:
        if self._sink is None:
            self._sink = self._run.sink.for_stage(self.spec.name)
        return self._sink

    reporter = event_sink

    @property
    def context(self) -> PipelineContext:
        return self._run.context

    @property
    def pipeline_name(self) -> str:
        return self._run.pipeline_name

    @property
    def cancel_token(self) -> CancellationToken:
        return self._run.cancel_token

    def add_cleanup(self, callback: Cleanup, name: str | None) -> None:
        self._run.cleanups.register(callback, name=name)

    @property
    def deadline(self) -> float:
        return math.inf if self._try_scope is None else self._try_scope.deadline

    def extend_timeout(self, seconds: float) -> None:
        if not seconds >= 0:
            raise InvalidArgumentError("seconds", seconds, "zero or more seconds")
        if self._try_scope is not None:
            self._try_scope.deadline = trio.current_time() + seconds

    @property
    def bus(self) -> RealtimeStageBus:
        return self._run.bus

    def stream(self, source: str | None) -> AsyncIterator[Any]:
        return self._run.streams.reader(self.number, source)

    def offer(self, item: Any) -> bool:
        self.has_sent = True
        return self._run.streams.offer(self.number, item)

    async def send(self, item: Any) -> None:
        self.has_sent = True
        await self._run.streams.send(self.number, item)

    async def stream_output(self, source: str | None) -> StageOutput:
        return await self._run.streams.output(self.number, source)

    async def spawn_subpipeline(
        self,
        pipeline: object,
        source: object,
        *,
        correlation_id: UUID | str | None,
        topology: str | None,
        execution_mode: str | None,
        inherit_data: bool | Collection[str],
        data_overrides: Mapping[str, Any] | None,
    ) -> SubpipelineResult:
        name, run = runnable(pipeline)
        if not isinstance(source, str | None):
            raise InvalidTypeError("source", source, "the input text of the child, or None")

        async def run_child(child: PipelineContext) -> object:
            if source is not None:
                child.input_text = source
            return await run(child)

        return await get_subpipeline_spawner().spawn(
            name,
            self.context,
            correlation_id,
            self.spec.name,
            run_child,
            topology=topology,
            execution_mode=execution_mode,
            inherit_data=inherit_data,
            data_overrides=data_overrides,
        )
