"""What a running stage may ask of its run, and the values it gets in answer.

Contexts know nothing about how a pipeline is run: they pass these requests on
to whatever made them. Outside a run there is nobody to ask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol, final
from uuid import UUID

import attrs

from actorflow.cancellation import CancellationToken, Cleanup
from actorflow.model import FrozenDict, StageOutput, freeze

if TYPE_CHECKING:
    from actorflow.events import BoundEventSink, EventSink
    from actorflow.model import ContextSnapshot, StageKind

    from ._inputs import StageInputs
    from ._pipeline_context import PipelineContext
    from ._timer import PipelineTimer


@final
@attrs.frozen
class GuardFeedback:
    """Why a guard sent a stage back, told to that stage when it runs again."""

    guard: str
    attempt: int
    """How often this guard has failed so far."""
    error: str | None = None
    data: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=freeze)
    """What the guard said in its output."""
    previous_output: StageOutput | None = None
    """What the stage returned last time."""


@final
@attrs.frozen
class SubpipelineResult:
    """How a child run ended. A child that fails raises nothing in its parent."""

    success: bool
    child_run_id: UUID
    data: Mapping[str, Any] | None = None
    """The data of each stage by its name; None unless the child succeeded."""
    error: str | None = None
    """Why it failed, in words; `pipeline.child_failed` has the same as its `error_message`."""
    duration_ms: float = 0.0
    canceled: bool = False
    cancel_reason: str | None = None
    error_type: str | None = None
    results: Mapping[str, StageOutput] | None = None
    """What the child's stages returned, also when it failed or was canceled."""

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain values; what was not set is left out."""
        told: dict[str, Any] = {
            "success": self.success,
            "child_run_id": str(self.child_run_id),
            "duration_ms": self.duration_ms,
        }
        if self.data is not None:
            told["data"] = dict(self.data)
        if self.error is not None:
            told["error"] = self.error
        if self.canceled:
            told["canceled"] = True
        if self.cancel_reason is not None:
            told["cancel_reason"] = self.cancel_reason
        return told


class IdempotencyInfo(Protocol):
    """Under which key the work of a stage counts as done."""

    @property
    def key(self) -> str:
        """The same for every attempt of one operation; hand it to services outside."""
        ...

    @property
    def fence(self) -> int:
        """Grows with each claim of the key, so that a service can refuse an older owner."""
        ...

    @property
    def attempt(self) -> int: ...


class StageBus(Protocol):
    """Named channels between the stages of one run."""

    async def publish(self, name: str, item: Any) -> bool:
        """Put an item on a channel; False if the channel dropped it."""
        ...

    def subscribe(self, name: str) -> AsyncIterator[Any]:
        """The items of a channel. Subscribers compete: each item goes to one."""
        ...

    def close_channel(self, name: str) -> None: ...

    def stats(self) -> Mapping[str, Mapping[str, Any]]: ...


class CallFacts(Protocol):
    """What a stage's context shows of the call it is for; looked up when the stage does."""

    @property
    def snapshot(self) -> ContextSnapshot: ...

    @property
    def inputs(self) -> StageInputs: ...

    @property
    def stage_name(self) -> str: ...

    @property
    def stage_kind(self) -> StageKind: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def attempt(self) -> int: ...

    @property
    def timer(self) -> PipelineTimer: ...

    @property
    def event_sink(self) -> EventSink | None: ...

    @property
    def reporter(self) -> BoundEventSink | None:
        """What the context reports through; it numbers what it passes on."""
        ...


class RunPort(Protocol):
    """What a stage's context asks of the run; the run hands it in with each try.

    One object serves one call of one stage. Everything that belongs to the whole
    run is reached through it as well.
    """

    @property
    def context(self) -> PipelineContext:
        """The run's context: its data, bag, outputs, ids and runtime."""
        ...

    @property
    def pipeline_name(self) -> str: ...

    @property
    def cancel_token(self) -> CancellationToken:
        """Cancelled, with the run's reason, as soon as the run is cancelling for any reason."""
        ...

    @property
    def deadline(self) -> float:
        """When the running try is out of time, on trio's clock; `inf` without a limit."""
        ...

    @property
    def guard_feedback(self) -> Mapping[str, GuardFeedback]: ...

    @property
    def idempotency(self) -> IdempotencyInfo | None: ...

    @property
    def bus(self) -> StageBus: ...

    def extend_timeout(self, seconds: float) -> None:
        """Move the deadline of the running try to `seconds` from now, if it has one."""
        ...

    def add_cleanup(self, callback: Cleanup, name: str | None) -> None: ...

    def stream(self, source: str | None) -> AsyncIterator[Any]: ...

    def offer(self, item: Any) -> bool:
        """Do what `send` does if that needs no waiting; False if it does."""
        ...

    async def send(self, item: Any) -> None: ...

    async def stream_output(self, source: str | None) -> StageOutput: ...

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
    ) -> SubpipelineResult: ...


class CallPort(CallFacts, RunPort, Protocol):
    """A call of a run, for the contexts of its tries."""
