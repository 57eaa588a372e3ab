"""What every context can do, whatever it was made from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, final, runtime_checkable
from uuid import UUID

from actorflow import clock
from actorflow.errors import InvalidTypeError
from actorflow.events import (
    EventCounter,
    EventSink,
    NoOpEventSink,
    bound_sink,
    checked_sink,
)

from ._reporting import id_text

_logger: Final = logging.getLogger("actorflow.stages")


@runtime_checkable
class ExecutionContext(Protocol):
    """Who asks, and where to report: all that most components need of a context."""

    @property
    def pipeline_run_id(self) -> UUID | None: ...

    @property
    def request_id(self) -> UUID | None: ...

    @property
    def execution_mode(self) -> str | None: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def get_metadata(self, key: str, default: Any = None) -> Any: ...

    def to_dict(self) -> dict[str, Any]: ...

    def try_emit_event(self, type: str, data: Mapping[str, Any] | None = None) -> None:
        """Report an event without waiting; what a sink raises goes no further."""
        ...


def adapt_context(context: object) -> ExecutionContext:
    """Return `context` if it is one, or a mapping made into one.

    Raises:
      InvalidTypeError: if it is neither.
    """
    if isinstance(context, ExecutionContext):
        return context
    if isinstance(context, Mapping):
        return DictContextAdapter(context)
    raise InvalidTypeError("context", context, "an ExecutionContext or a mapping")


@final
class DictContextAdapter:
    """Makes a mapping a context. It is read at each look, so later changes are seen."""

    __slots__ = ("_counter", "_missing", "_values", "event_sink")

    def __init__(self, values: Mapping[str, Any], *, event_sink: EventSink | None = None) -> None:
        if not isinstance(values, Mapping):
            raise InvalidTypeError("values", values, "a mapping")
        if event_sink is not None:
            checked_sink("event_sink", event_sink)
        self.event_sink: Final = event_sink
        self._values = values
        self._counter = EventCounter()
        self._missing: set[str] = set()

    @property
    def pipeline_run_id(self) -> UUID | None:
        return self._id("pipeline_run_id")

    @property
    def request_id(self) -> UUID | None:
        return self._id("request_id")

    @property
    def execution_mode(self) -> str | None:
        mode = self._values.get("execution_mode")
        return mode if isinstance(mode, str) else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata = self._values.get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    def get_metadata(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(key, default)

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def to_dict(self) -> dict[str, Any]:
        """A copy of the mapping."""
        return dict(self._values)

    def try_emit_event(self, type: str, data: Mapping[str, Any] | None = None) -> None:
        """Report an event to the sink, if there is one, and to the log at debug level.

        Whatever is wrong with the event or the mapping is logged instead of raised.
        """
        try:
            self._emit(type, data)
        except Exception as error:  # noqa: BLE001 - anything may be in a mapping
            _logger.debug("event_not_emitted", extra={"event_type": type, "error": repr(error)})

    emit_event = try_emit_event

    def _emit(self, type: str, data: Mapping[str, Any] | None) -> None:
        mode = self.execution_mode
        run_id, request_id = map(id_text, (self.pipeline_run_id, self.request_id))
        sink = bound_sink(
            NoOpEventSink() if self.event_sink is None else self.event_sink,
            pipeline_run_id=run_id,
            request_id=request_id,
            execution_mode=mode,
            counter=self._counter,
        )
        assert sink is not None, "there was a sink to bind"
        sink.try_emit(type=type, data=data)
        _logger.debug(
            "event_not_emitted" if self.event_sink is None else "event_emitted",
            extra={
                "event_type": type,
                "pipeline_run_id": run_id,
                "request_id": request_id,
                "execution_mode": mode,
                "seq": sink.last_seq,
                "timestamp": clock.now().isoformat(),
            },
        )

    def _id(self, key: str) -> UUID | None:
        value = self._values.get(key)
        if isinstance(value, UUID):
            return value
        if isinstance(value, str):
            with suppress(ValueError):
                return UUID(value)
        if key not in self._missing:
            self._missing.add(key)
            _logger.debug("context_id_missing", extra={"key": key})
        return None
