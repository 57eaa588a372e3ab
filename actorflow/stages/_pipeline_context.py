"""What belongs to one run: who asked for what, and what the run has made of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final
from uuid import UUID

import attrs

from actorflow import clock, ids
from actorflow.errors import (
    ContextInUseError,
    InvalidArgumentError,
    InvalidTypeError,
    StageCancellationRequested,
)
from actorflow.events import (
    BoundEventSink,
    EventCounter,
    EventSink,
    bound_sink,
    checked_sink,
    current_event_sink,
    report,
)
from actorflow.model import (
    ContextSnapshot,
    Conversation,
    Enrichments,
    FrozenDict,
    RunIdentity,
    StageArtifact,
    freeze,
    thaw,
)

from ._arguments import as_id, check_name
from ._bags import ContextBag, OutputBag
from ._inputs import StageInputs
from ._ports import CorePorts
from ._read_only import read_only
from ._reporting import id_text, stage_event_data
from ._stage_context import StageContext

METRIC_SERIES_MAX: Final = 1_000

# The key under which a caller says "I have asked for this before" (80.1). A child
# run asks for something else.
_OWN_TO_A_RUN: Final = frozenset({"idempotency_key"})


def extract_service(topology: str | None) -> str | None:
    """The service that a topology is named after: `"chat"` of `"chat_fast"`.

    Names that end in `_kernel` belong to no service.
    """
    if topology is None or topology.endswith("_kernel"):
        return None
    return topology.rpartition("_")[0] or topology


_PEOPLE_FIELDS: Final = ("request_id", "session_id", "user_id", "org_id", "interaction_id")
_ID_FIELDS: Final = ("pipeline_run_id", *_PEOPLE_FIELDS)
_TOLD_FIELDS: Final = (*_ID_FIELDS, "topology", "execution_mode", "parent_run_id")
_INPUT_FIELDS: Final = (
    "input_text",
    "input_audio_duration_ms",
    "conversation",
    "enrichments",
    "extensions",
)
_SNAPSHOT_FIELDS: Final = (
    *_INPUT_FIELDS,
    "topology",
    "execution_mode",
    "metadata",
    "created_at",
)
_BEHIND_THE_SNAPSHOT: Final = frozenset({*_ID_FIELDS, *_SNAPSHOT_FIELDS})


def _forget_snapshot(context: PipelineContext, field: attrs.Attribute[Any], value: Any) -> Any:
    if field.name in _BEHIND_THE_SNAPSHOT:
        context._snapshot = None
    return value


if TYPE_CHECKING:
    # mypy's plugin knows no converters that are told their field; this one has the types.
    def _to_id(value: UUID | str | None) -> UUID | None: ...
else:
    _to_id = attrs.Converter(
        # Most of them are None in most runs.
        lambda value, field: None if value is None else as_id(field.name, value),
        takes_field=True,
    )


def _check_sink(_: object, __: object, sink: EventSink | None) -> None:
    if sink is not None:
        checked_sink("event_sink", sink)


@final
@attrs.define(
    kw_only=True,
    eq=False,
    repr=False,
    on_setattr=[attrs.setters.convert, attrs.setters.validate, _forget_snapshot],
)
class PipelineContext:
    """A run's identity, input, state and services; it may change while the run goes on.

    Stages see it through their `StageContext`. It serves one run at a time; when
    that has ended it may be used for another, which begins with no outputs.
    """

    # Identity
    pipeline_run_id: UUID | None = attrs.field(default=None, converter=_to_id)
    request_id: UUID | None = attrs.field(default=None, converter=_to_id)
    session_id: UUID | None = attrs.field(default=None, converter=_to_id)
    user_id: UUID | None = attrs.field(default=None, converter=_to_id)
    org_id: UUID | None = attrs.field(default=None, converter=_to_id)
    interaction_id: UUID | None = attrs.field(default=None, converter=_to_id)

    # What runs
    topology: str | None = None
    execution_mode: str | None = None
    service: str | None = "pipeline"
    configuration: dict[str, Any] = attrs.field(factory=dict)

    # Input
    input_text: str | None = None
    input_audio_duration_ms: float | None = None
    conversation: Conversation | None = None
    enrichments: Enrichments | None = None
    extensions: Any = None
    metadata: dict[str, Any] = attrs.field(factory=dict)
    created_at: datetime = attrs.field(factory=clock.now)

    # State
    data: dict[str, Any] = attrs.field(factory=dict)
    """The application's; keys that begin with `_` are the framework's."""
    bag: ContextBag = attrs.field(factory=ContextBag)
    outputs: OutputBag = attrs.field(factory=OutputBag)
    artifacts: list[StageArtifact] = attrs.field(factory=list)
    _canceled: bool = attrs.field(default=False, alias="canceled")
    cancellation_reason: str | None = None

    # Services
    event_sink: EventSink | None = attrs.field(factory=current_event_sink, validator=_check_sink)
    ports: Any = None
    db: Any = None
    runtime: Any = None

    # Lineage
    parent_run_id: UUID | None = attrs.field(default=None, converter=_to_id)
    parent_stage_id: str | None = None
    correlation_id: UUID | str | None = None
    depth: int = 0
    _root_run_id: UUID | None = attrs.field(default=None, converter=_to_id, alias="root_run_id")

    # Not to be passed in. What a run assigns goes past the hooks, which are for users.
    _snapshot: ContextSnapshot | None = attrs.field(
        default=None, init=False, on_setattr=attrs.setters.NO_OP
    )
    _identity_created_at: datetime | None = attrs.field(default=None, init=False)
    _parent_data: Mapping[str, Any] = attrs.field(factory=FrozenDict, init=False)
    _stage_metadata: dict[str, FrozenDict] = attrs.field(factory=dict, init=False)
    _metrics: dict[str, float] = attrs.field(factory=dict, init=False)
    _counter: EventCounter = attrs.field(factory=EventCounter, init=False)
    # Reentrant, because a signal handler may cancel while its own thread does.
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False)
    _on_cancel: Callable[[str | None], object] | None = attrs.field(
        default=None, init=False, on_setattr=attrs.setters.NO_OP
    )
    _has_run: bool = attrs.field(default=False, init=False, on_setattr=attrs.setters.NO_OP)

    def __attrs_post_init__(self) -> None:
        if self.ports is None and self.db is not None:
            self.ports = CorePorts(db=self.db)

    def __repr__(self) -> str:
        # It ends up in logs, so it tells who and what, and nothing that anybody said.
        named = {name: getattr(self, name) for name in _TOLD_FIELDS}
        told = [f"{name}={str(value)!r}" for name, value in named.items() if value is not None]
        return f"PipelineContext({', '.join([*told, f'data_keys={list(self.data)}'])})"

    @classmethod
    def create(cls, **fields: Any) -> PipelineContext:
        """Make a context that shares no dict and no list with the caller."""
        return cls(**{name: _own(value) for name, value in fields.items()})

    @classmethod
    def from_snapshot(cls, snapshot: ContextSnapshot, **overrides: Any) -> PipelineContext:
        """Make a context whose snapshot equals `snapshot`, but for the `overrides`."""
        fields: dict[str, Any] = {name: getattr(snapshot, name) for name in _SNAPSHOT_FIELDS}
        fields |= {name: getattr(snapshot.run_id, name) for name in _ID_FIELDS}
        fields["metadata"] = thaw(snapshot.metadata)
        context = cls(**(fields | overrides))
        context._identity_created_at = snapshot.run_id.created_at
        return context

    # Snapshot

    @property
    def snapshot(self) -> ContextSnapshot:
        """The input as a value: the same object until a field behind it is assigned."""
        if self._snapshot is None:
            fields = {name: getattr(self, name) for name in _SNAPSHOT_FIELDS}
            identity = RunIdentity(
                **{name: getattr(self, name) for name in _ID_FIELDS},
                created_at=self._identity_created_at or self.created_at,
            )
            self._snapshot = ContextSnapshot(identity, **fields)
        return self._snapshot

    def to_snapshot(self) -> ContextSnapshot:
        return self.snapshot

    # Cancellation

    @property
    def canceled(self) -> bool:
        """Whether somebody asked for the end of the run; set it, and the run is cancelled."""
        return self._canceled

    @canceled.setter
    def canceled(self, value: bool) -> None:
        self._canceled = value
        on_cancel = self._on_cancel
        if value and on_cancel is not None:
            on_cancel(self.cancellation_reason)

    @property
    def is_canceled(self) -> bool:
        return self._canceled

    def mark_canceled(self, reason: str | None = None) -> None:
        """Ask for the end of the run, from any thread; the first reason is kept."""
        with self._lock:
            if self.cancellation_reason is None:
                self.cancellation_reason = reason
        self.canceled = True

    def raise_if_cancelled(self) -> None:
        """End what is going on here if the run was asked to end.

        Raises:
          StageCancellationRequested: with the reason of `mark_canceled`.
        """
        if self._canceled:
            raise StageCancellationRequested(self.cancellation_reason or "Pipeline cancelled")

    # Lineage

    @property
    def is_child_run(self) -> bool:
        return self.depth > 0

    @property
    def root_run_id(self) -> UUID | None:
        """The run at the top of the tree; the own one without a parent."""
        return self._root_run_id or self.pipeline_run_id

    def fork_for_subpipeline(
        self,
        child_run_id: UUID | str | None = None,
        parent_stage_id: str | None = None,
        correlation_id: UUID | str | None = None,
        *,
        topology: str | None = None,
        execution_mode: str | None = None,
        inherit_data: bool | Collection[str] = False,
        data_overrides: Mapping[str, Any] | None = None,
    ) -> PipelineContext:
        """Make the context of a child run: same people, input and services, own state.

        With `inherit_data` the child starts with a copy of the data, or of the keys
        given; what belongs to this run alone is left out. None for `topology` or
        `execution_mode` means the one of this context.

        Raises:
          InvalidArgumentError: if a key to inherit is not there.
        """
        sink = self.event_sink
        child = PipelineContext(
            **{name: getattr(self, name) for name in (*_PEOPLE_FIELDS, *_INPUT_FIELDS)},
            pipeline_run_id=ids.uuid7() if child_run_id is None else child_run_id,
            topology=self.topology if topology is None else topology,
            execution_mode=self.execution_mode if execution_mode is None else execution_mode,
            service=self.service,
            configuration=self.configuration.copy(),
            metadata=self.metadata.copy(),
            data={**self._inherited(inherit_data), **(data_overrides or {})},
            # The child numbers its own events, so it needs what is behind the bound sink.
            event_sink=sink.sink if isinstance(sink, BoundEventSink) else sink,
            ports=self.ports,
            db=self.db,
            runtime=self.runtime,
            parent_run_id=self.pipeline_run_id,
            parent_stage_id=parent_stage_id,
            correlation_id=correlation_id,
            depth=self.depth + 1,
            root_run_id=self.root_run_id,
        )
        child._parent_data = {key: read_only(value) for key, value in self.data.items()}
        return child

    fork = fork_for_subpipeline

    def _inherited(self, wanted: bool | Collection[str]) -> dict[str, Any]:
        if wanted is False:
            return {}
        inheritable = {
            key: value
            for key, value in self.data.items()
            if not key.startswith("_") and (wanted is not True or key not in _OWN_TO_A_RUN)
        }
        if wanted is True:
            return inheritable
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            raise InvalidTypeError("inherit_data", wanted, "a bool or a collection of keys")
        missing = [key for key in wanted if key not in inheritable]
        if missing:
            known = ", ".join(map(repr, inheritable)) or "nothing"
            raise InvalidArgumentError(
                "inherit_data", missing, f"keys of the parent's data, which has {known}"
            )
        return {key: inheritable[key] for key in wanted}

    def get_parent_data(self, key: str, default: Any = None) -> Any:
        """The value that the parent's data had when this context was forked, frozen."""
        return self._parent_data.get(key, default)

    # Stages

    def derive_for_stage(
        self,
        stage_name: str,
        *,
        outputs: OutputBag | None = None,
        snapshot: ContextSnapshot | None = None,
        declared_deps: Iterable[str] | None = None,
        ports: Any = None,
        strict: bool = True,
    ) -> StageContext:
        """Make the context of a stage by hand, outside a run, reading from `outputs`."""
        snapshot = self.snapshot if snapshot is None else snapshot
        bag = self.outputs if outputs is None else outputs
        inputs = StageInputs(
            snapshot,
            bag.outputs(),
            self.ports if ports is None else ports,
            declared_deps,
            stage_name,
            strict,
        )
        return StageContext(
            snapshot, inputs, stage_name, event_sink=self.event_sink, counter=self._counter
        )

    def set_stage_metadata(self, stage: str, metadata: Mapping[str, Any]) -> None:
        """Note something about a stage, in place of what was noted before."""
        check_name("stage", stage)
        self._stage_metadata[stage] = freeze(metadata)

    def get_stage_metadata(self, stage: str) -> Mapping[str, Any]:
        """What was noted about a stage; empty if nothing was."""
        return self._stage_metadata.get(stage, FrozenDict())

    def get_metadata(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(key, default)

    # Metrics and events

    def record_metric(
        self, name: str, value: float, labels: Mapping[str, object] | None = None
    ) -> None:
        """Keep `value` as the latest of the series with this name and these labels.

        Raises:
          InvalidArgumentError: if it would be one series too many.
        """
        check_name("name", name)
        series = _series(name, labels or {})
        if series not in self._metrics and len(self._metrics) >= METRIC_SERIES_MAX:
            raise InvalidArgumentError(
                "name", series, f"one of at most {METRIC_SERIES_MAX} series of a context"
            )
        self._metrics[series] = value

    @property
    def metrics(self) -> dict[str, float]:
        """A copy: each series, such as `tokens{model="small"}`, with its latest value."""
        return self._metrics.copy()

    def try_emit_event(self, type: str, data: Mapping[str, Any] | None = None) -> None:
        """Report an event without waiting; what a sink raises goes no further.

        Raises:
          InvalidTypeError: if `type` is empty or not a string.
        """
        sink = bound_sink(
            self.event_sink,
            pipeline_run_id=self.pipeline_run_id,
            request_id=self.request_id,
            execution_mode=self.execution_mode,
            counter=self._counter,
        )
        report(sink, type, {"topology": self.topology, "service": self.service, **(data or {})})

    emit_event = try_emit_event

    def record_stage_event(
        self, stage: str, status: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Report `<stage>.<status>` with the ids of the session and `payload`.

        `stage.completed` and its like belong to the runtime.
        """
        data = stage_event_data(self, self.service, stage, status, payload)
        self.try_emit_event(f"{stage}.{status}", data)

    def now(self) -> datetime:
        """The current time in UTC; it follows trio's clock."""
        return clock.now()

    # Running

    @contextmanager
    def running(self, on_cancel: Callable[[str | None], object]) -> Iterator[ContextSnapshot]:
        """Serve one run for the length of the block. For whoever runs pipelines.

        Yields the snapshot the run is pinned to. The context has a run id from here
        on; after an earlier run it has fresh outputs. `on_cancel` is called with the
        reason, in any thread, when `canceled` is set, or here if it is set already.
        `event_sink` may be exchanged inside the block; afterwards it is as before.

        Raises:
          ContextInUseError: if another run is using the context.
        """
        with self._lock:
            if self._on_cancel is not None:
                raise ContextInUseError(self.pipeline_run_id)
            self._on_cancel = on_cancel
        sink = self.event_sink
        try:
            if self._has_run:
                self.outputs = OutputBag()
            self._has_run = True
            if self.pipeline_run_id is None:
                self.pipeline_run_id = ids.uuid7()
            if self._canceled:
                on_cancel(self.cancellation_reason)
            yield self.snapshot
        finally:
            self.event_sink = sink
            self._on_cancel = None

    def to_dict(self) -> dict[str, Any]:
        """Who, what and how far, as plain values; lineage only when there is one."""
        lineage = {
            "parent_run_id": id_text(self.parent_run_id),
            "parent_stage_id": self.parent_stage_id,
            "correlation_id": id_text(self.correlation_id),
        }
        return {
            **{name: id_text(getattr(self, name)) for name in _ID_FIELDS},
            "topology": self.topology,
            "execution_mode": self.execution_mode,
            "input_text": self.input_text,
            "input_audio_duration_ms": self.input_audio_duration_ms,
            "metadata": self.metadata.copy(),
            "service": self.service,
            "data": self.data.copy(),
            "canceled": self._canceled,
            "cancellation_reason": self.cancellation_reason,
            "artifacts_count": len(self.artifacts),
            **{name: value for name, value in lineage.items() if value is not None},
        }


def _own(value: Any) -> Any:
    match value:
        case dict() | MappingProxyType():
            return dict(value)
        case list() | tuple():
            return list(value)
        case _:
            return value


def _series(name: str, labels: Mapping[str, object]) -> str:
    if not labels:
        return name
    written = ",".join(f"{key}={json.dumps(str(labels[key]))}" for key in sorted(labels))
    return f"{name}{{{written}}}"
