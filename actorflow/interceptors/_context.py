"""What an interceptor gets to see and do during one call of a stage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.events import EventCounter, bound_sink

if TYPE_CHECKING:
    from uuid import UUID

    from actorflow.model import ContextSnapshot, StageKind, StageOutput
    from actorflow.stages import IdempotencyInfo, PipelineContext, StageInputs

Companion = Callable[[], Awaitable[object]]
"""What runs beside a call: without an end of its own, and its error ends the call."""

Observations = MutableMapping[tuple[str, str], Any]
"""What interceptors noted for others, by interceptor and key."""


class StageCallPort(Protocol):
    """What the chain needs of the call that it wraps; the run hands it in."""

    @property
    def context(self) -> PipelineContext: ...

    @property
    def pipeline_name(self) -> str: ...

    @property
    def stage_name(self) -> str: ...

    @property
    def stage_kind(self) -> StageKind | None: ...

    @property
    def runner(self) -> object:
        """The stage as it was declared."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """What a runner that is a class is instantiated with."""
        ...

    @property
    def snapshot(self) -> ContextSnapshot: ...

    @property
    def inputs(self) -> StageInputs: ...

    @property
    def attempt(self) -> int: ...

    @property
    def timeout_ms(self) -> float | None:
        """The limit of each try as it was declared; `inf` for none on purpose."""
        ...

    @property
    def cleanup_timeout(self) -> float:
        """Seconds that all `release` hooks of the call may take together."""
        ...

    @property
    def begun_at(self) -> float:
        """When the call began, on trio's clock."""
        ...

    @property
    def has_sent(self) -> bool:
        """Whether the stage has sent something that others may have read already."""
        ...

    @property
    def observations(self) -> Observations:
        """Those of the whole run."""
        ...

    def set_idempotency(self, info: IdempotencyInfo | None) -> None:
        """Let the stage's context say under which key its work counts as done."""

    async def execute(self, try_number: int, timeout_ms: float | None) -> StageOutput:
        """Call the stage once; within the limit, if there is one."""
        ...


class Progress(Protocol):
    """What a chain knows about the call that it is making."""

    @property
    def port(self) -> StageCallPort: ...

    tries: int
    first_try_at: float
    timeout_ms: float | None
    warnings: list[str]
    noted: list[tuple[InterceptorContext, str]]
    gave_up: str | None

    def new_state(self, name: str) -> dict[str, Any]:
        """Where the interceptor of this name keeps what belongs to the call."""
        ...


@final
class InterceptorContext:
    """One interceptor's view of one call; what it does not have itself, the run's context has.

    `state` is a dict of this interceptor and this call alone. It lasts from
    `before` to `release`.
    """

    __slots__ = (
        "_companion",
        "_has_repeated",
        "_is_in",
        "_name",
        "_progress",
        "_state",
    )

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress: Final = progress
        self._name: Final = name
        self._state: dict[str, Any] | None = None
        self._companion: Companion | None = None
        self._is_in = False
        self._has_repeated = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # The private parts of two objects have nothing to do with each other.
            raise AttributeError(name)
        return getattr(self._progress.port.context, name)

    # The protocol of every context; written out because protocols are checked by the class.

    @property
    def pipeline_run_id(self) -> UUID | None:
        return self.context.pipeline_run_id

    @property
    def request_id(self) -> UUID | None:
        return self.context.request_id

    @property
    def execution_mode(self) -> str | None:
        return self.context.execution_mode

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.context.metadata

    def get_metadata(self, key: str, default: Any = None) -> Any:
        return self.context.get_metadata(key, default)

    def to_dict(self) -> dict[str, Any]:
        return self.context.to_dict()

    def try_emit_event(self, type: str, data: Mapping[str, Any] | None = None) -> None:
        """Report an event of the run without waiting."""
        self.context.try_emit_event(type, data)

    async def emit(self, type: str, data: Mapping[str, Any]) -> None:
        """Report an event of the run that must not be lost: wait for room, within limits."""
        sink = self.context.event_sink
        bound = bound_sink(
            sink,
            pipeline_run_id=self.pipeline_run_id,
            request_id=self.request_id,
            execution_mode=self.execution_mode,
            counter=EventCounter(),
        )
        if bound is not None:
            await bound.emit(type=type, data=data)

    # The call

    @property
    def context(self) -> PipelineContext:
        """The context of the run."""
        return self._progress.port.context

    @property
    def pipeline_name(self) -> str:
        return self._progress.port.pipeline_name

    @property
    def stage_name(self) -> str:
        return self._progress.port.stage_name

    @property
    def stage_kind(self) -> StageKind | None:
        """None if a hook was called directly, outside a run."""
        return self._progress.port.stage_kind

    @property
    def runner(self) -> object:
        """The stage as it was declared: an object, a class or a function."""
        return self._progress.port.runner

    @property
    def config(self) -> Mapping[str, Any]:
        """What a runner that is a class is instantiated with."""
        return self._progress.port.config

    @property
    def inputs(self) -> StageInputs:
        return self._progress.port.inputs

    @property
    def snapshot(self) -> ContextSnapshot:
        """The very object that the stage gets."""
        return self._progress.port.snapshot

    @property
    def attempt(self) -> int:
        """How often the run has started this stage; more than 1 after a guard's verdict."""
        return self._progress.port.attempt

    @property
    def try_number(self) -> int:
        """The number of the try that comes next (in `before`) or that has ended."""
        return self._progress.tries + (not self._is_in)

    @property
    def first_try_at(self) -> float:
        """When the first try began, on trio's clock."""
        return self._progress.first_try_at

    @property
    def has_sent(self) -> bool:
        """Whether the stage has sent something on a stream, so it cannot be tried again."""
        return self._progress.port.has_sent

    @property
    def timeout_ms(self) -> float | None:
        """The limit of each try; None if nobody set one, `inf` for none on purpose."""
        return self._progress.timeout_ms

    @timeout_ms.setter
    def timeout_ms(self, limit: float | None) -> None:
        if limit is not None:
            if not isinstance(limit, int | float):
                raise InvalidTypeError("timeout_ms", limit, "milliseconds as a number, or None")
            if not limit > 0:
                raise InvalidArgumentError("timeout_ms", limit, "more than 0")
        self._progress.timeout_ms = limit

    # What the interceptor keeps and says

    @property
    def has_state(self) -> bool:
        """Whether `state` was asked for in this call of a chain."""
        return self._state is not None

    @property
    def state(self) -> dict[str, Any]:
        if self._state is None:
            self._state = self._progress.new_state(self._name)
        return self._state

    def add_observation(self, key: str, value: Any) -> None:
        """Note something for other interceptors of the run; the same key replaces it.

        What was noted during a try that is repeated is forgotten.
        """
        self._progress.port.observations[self._name, key] = value
        self._progress.noted.append((self, key))

    def get_observation(self, key: str, interceptor: str | None = None) -> Any:
        """What this interceptor, or another by name, noted in this run; None if nothing."""
        return self._progress.port.observations.get((interceptor or self._name, key))

    def add_warning(self, text: str) -> None:
        """Add to the `warnings` of the stage's result."""
        self._progress.warnings.append(text)

    def give_up(self, why: str) -> None:
        """Say that the failure at hand could be tried again and will not be, and why.

        It is a warning of the stage's result, too.
        """
        self._progress.gave_up = why
        self.add_warning(why)

    def run_beside(self, companion: Companion) -> None:
        """Called in `before`: run `companion` for as long as what is inside takes.

        What it raises cancels the inside and is the failure of the call.
        """
        self._companion = companion

    def set_idempotency(self, info: IdempotencyInfo | None) -> None:
        """Let the stage know under which key its work counts as done."""
        self._progress.port.set_idempotency(info)
