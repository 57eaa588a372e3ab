"""One call of a stage: a task that reports how the stage ended.

Whatever happens in the stage, the task ends and the report is made. Failures
become outputs here; only a cancellation and what stops a whole program
(`KeyboardInterrupt`, `SystemExit`) leave the task as exceptions.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

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

from ._results import FailureRecord
from ._run_state import StageEnd
from ._subpipeline import get_subpipeline_spawner, runnable

if TYPE_CHECKING:
    from uuid import UUID

    from actorflow.cancellation import CancellationToken, Cleanup
    from actorflow.pipeline import StageSpec
    from actorflow.stages import (
        GuardFeedback,
        PipelineContext,
        StageContext,
        SubpipelineResult,
    )

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
        "_begun_at",
        "_end",
        "_expired",
        "_run",
        "_tries",
        "_try_scope",
        "attempt",
        "guard_feedback",
        "number",
        "scope",
        "spec",
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
        self._begun_at = 0.0
        self._tries = 0
        self._try_scope: trio.CancelScope | None = None
        self._expired: StageTimeoutError | None = None
        self._end: StageEnd | None = None

    # The task

    async def live(self) -> None:
        """Call the stage, and report the end of that whatever it is."""
        self._begun_at = trio.current_time()
        try:
            if self.scope is None:
                await self._call()
            else:
                with self.scope:
                    await self._call()
        finally:
            self._run.report_end(self, self._end or self._ended(None))

    async def _call(self) -> None:
        # Between the order to start and the first step of this task lies a tick in
        # which somebody may have cancelled.
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            output = await self._try()
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
        else:
            self._end = self._returned(output)

    async def _try(self) -> StageOutput:
        self._tries += 1
        ctx = self._run.context_of(self, self._tries)
        limit = self._limit()
        if limit == math.inf:
            return await self._output(ctx)
        return await self._output_within(limit, ctx)

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
        if isinstance(returned, Awaitable):
            returned = await returned
        try:
            output = StageOutput.from_returned(returned)
        except InvalidTypeError:
            raise UnsupportedResultError(self.spec.name, returned) from None
        problem = (self.spec.outputs and check_outputs(self.spec, output)) or check_branch(
            self._run.graph.wiring, self.number, output
        )
        if problem:
            raise problem
        return output

    def _limit(self) -> float:
        if self.spec.timeout is not None:
            return self.spec.timeout
        of_run = self._run.context.data.get("_timeout_ms")
        if of_run is not None:
            if not isinstance(of_run, int | float):
                raise InvalidTypeError("_timeout_ms", of_run, "milliseconds as a number")
            return of_run / 1000 if of_run > 0 else math.inf
        of_pipeline = self._run.graph.options.stage_timeout
        return math.inf if of_pipeline is None else of_pipeline

    # How it ended

    def _returned(self, output: StageOutput) -> StageEnd:
        name = self.spec.name
        if output.status is StageStatus.FAIL:
            error = StageFailedError(name, output.error or "", output)
            return self._ended(output, failure_of(name, output, error))
        if output.status is StageStatus.RETRY:
            request = StageRetryRequested(name, output.error or "", output)
            # Nobody after this knows RETRY.
            final = StageOutput.fail(
                output.error,
                output.data,
                retryable=output.retryable,
                metadata=output.metadata,
                version=output.version,
            )
            failure = failure_of(name, final, request)
            return self._ended(final, failure, wanted_retry=True, warnings=(NOBODY_RETRIED,))
        return self._ended(output)

    def _failed(self, error: Exception) -> StageEnd:
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            [error] = error.exceptions
        if isinstance(error, StageCancellationRequested):
            return self._ended(StageOutput.cancel(error.reason))
        output = StageOutput.fail(error)
        failure = failure_of(self.spec.name, output, error)
        return self._ended(output, failure, raised=True, timed_out=error is self._expired)

    def _ended(
        self, output: StageOutput | None, failure: FailureRecord | None = None, **more: Any
    ) -> StageEnd:
        ended_at = trio.current_time()
        duration_ms = round((ended_at - self._begun_at) * 1000, 3)
        return StageEnd(
            output and output.with_duration(duration_ms),
            failure,
            was_called=True,
            ended_at=ended_at,
            duration_ms=duration_ms,
            tries=self._tries,
            **more,
        )

    # What the context of the stage asks for

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
    def idempotency(self) -> None:
        """Nobody asked for this call to count once only."""

    def stream(self, source: str | None) -> AsyncIterator[Any]:
        return self._run.streams.reader(self.number, source)

    async def send(self, item: Any) -> None:
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
