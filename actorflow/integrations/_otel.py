"""Traces and metrics of OpenTelemetry, made from the stream of events.

A run is a span, its stages, their tries and tool calls are spans below it, and a
child run stands below the stage that spawned it. Events carry their own times,
so it does not matter when they arrive here, or in which task.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import InvalidArgumentError, MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_logger: Final = logging.getLogger("actorflow.events")

_Payload: TypeAlias = Mapping[str, Any]


@attrs.define(eq=False)
class _Work:
    """A span that is open, and what happens inside it."""

    span: Span
    # When the present try began, and how many there were before.
    try_started: int = 0
    tries: int = 0


@attrs.define(eq=False)
class _Run:
    """What is open of one run."""

    name: str
    span: Span
    started: float
    stages: dict[str, _Work] = attrs.field(factory=dict)
    tools: dict[str, Span] = attrs.field(factory=dict)
    last_seq: int = 0

    def place_of(self, data: _Payload) -> Span:
        """The innermost open span that an event belongs to."""
        stage = self.stages.get(str(data.get("stage")))
        return stage.span if stage else self.span


@final
class OTelEventSink:
    """Turns events into spans and metrics.

    It takes the providers of the process unless others are passed, and never
    shuts them down. Any thread may use it. Exceptions of the SDK are logged and go
    no further. Runs whose end is not seen are closed as incomplete when there are
    too many, when they are too old, and by `aclose`.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        max_open_runs: int = 1000,
        max_run_age: float = 3600.0,
    ) -> None:
        """Begin without any run.

        Raises:
          MissingExtraError: if opentelemetry is not installed.
        """
        try:
            from opentelemetry import context, metrics, trace
            from opentelemetry.trace.propagation import tracecontext
        except ImportError:
            raise MissingExtraError("OTelEventSink", "otel") from None
        if max_open_runs < 1:
            raise InvalidArgumentError("max_open_runs", max_open_runs, "at least 1")
        if not max_run_age > 0:
            raise InvalidArgumentError("max_run_age", max_run_age, "more than 0 seconds")
        self._trace = trace
        self._context = context
        # W3C, whatever the process has chosen for its own headers.
        self._w3c = tracecontext.TraceContextTextMapPropagator()
        self._provider = tracer_provider or trace.get_tracer_provider()
        self._tracer = trace.get_tracer("actorflow", tracer_provider=self._provider)
        meter = metrics.get_meter("actorflow", meter_provider=meter_provider)
        self._stage_duration = meter.create_histogram("actorflow.stage.duration", unit="s")
        self._run_duration = meter.create_histogram("actorflow.pipeline.duration", unit="s")
        self._stage_failures = meter.create_counter("actorflow.stage.failures")
        self._dropped = meter.create_counter("actorflow.events.dropped")
        self._max_open_runs = max_open_runs
        self._max_run_age = max_run_age
        # Reentrant: what an exporter does may be an event, too.
        self._lock = threading.RLock()
        # In the order in which they began.
        self._runs: dict[str, _Run] = {}
        # The stage below which a run that is yet to begin belongs.
        self._parents: dict[str, Context] = {}
        self._handlers: Mapping[str, Callable[[_Run, _Payload, int], None]] = {
            "pipeline.completed": self._run_ended,
            "pipeline.failed": self._run_ended,
            "pipeline.canceled": self._run_ended,
            "pipeline.spawned_child": self._child_spawned,
            "stage.started": self._stage_started,
            "stage.retry_scheduled": self._try_failed,
            "stage.completed": self._stage_ended,
            "stage.failed": self._stage_ended,
            "tool.started": self._tool_started,
            "tool.completed": self._tool_ended,
            "tool.failed": self._tool_ended,
        }

    async def emit(self, *, type: str, data: _Payload | None) -> None:
        """Take an event; that never waits."""
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: _Payload | None) -> None:
        """Take an event."""
        with _logged(type), self._lock:
            self._take(type, data or {})

    def offer(self, *, type: str, data: _Payload | None) -> bool:
        """Take an event; there is always room."""
        self.try_emit(type=type, data=data)
        return True

    def enter_stage(self, *, pipeline_run_id: str | None, stage: str) -> None:
        """Make the span of a stage the current one of this task.

        Clients that are instrumented find their parent there. It works where this
        sink takes events at once: given to the run itself or to a tee, not behind
        a queue.
        """
        run = self._runs.get(str(pipeline_run_id))
        work = run and run.stages.get(stage)
        if work:
            # The context of the task ends with it, so nothing has to be detached.
            self._context.attach(self._inside(work.span))

    # Events

    def _take(self, type: str, data: _Payload) -> None:
        run_id = str(data.get("pipeline_run_id"))
        time = _nanoseconds(data.get("timestamp"))
        if type == "pipeline.started":
            self._run_started(run_id, data, time)
        run = self._runs.get(run_id)
        if run is None:
            return
        self._count_gap(run, data)
        handle = self._handlers.get(type)
        if handle is not None:
            handle(run, data, time)
        elif type != "pipeline.started":
            run.place_of(data).add_event(type, dict(_attributes(data)), timestamp=time)

    def _count_gap(self, run: _Run, data: _Payload) -> None:
        # Only a refused event leaves a gap in the numbers of a run.
        seq = data.get("seq")
        if isinstance(seq, int):
            if seq > run.last_seq + 1:
                self._dropped.add(seq - run.last_seq - 1, {"pipeline": run.name})
            run.last_seq = max(run.last_seq, seq)

    def _run_started(self, run_id: str, data: _Payload, time: int) -> None:
        self._close_forgotten()
        if run_id in self._runs:
            self._abandon(run_id, time)
        name = str(data.get("pipeline_name"))
        span = self._tracer.start_span(
            f"pipeline {name}",
            context=self._parents.pop(run_id, None) or self._parent_elsewhere(data),
            start_time=time,
            attributes=dict(_attributes(data)),
        )
        first_seq = data.get("seq")
        last_seq = first_seq - 1 if isinstance(first_seq, int) else 0
        self._runs[run_id] = _Run(name, span, clock.timestamp(), last_seq=last_seq)

    def _parent_elsewhere(self, data: _Payload) -> Context:
        # Without readable headers it is the span that is current where the run was started.
        return self._w3c.extract(data, self._context.get_current())

    def _run_ended(self, run: _Run, data: _Payload, time: int) -> None:
        del self._runs[str(data["pipeline_run_id"])]
        self._abandon_inside(run, time)
        status = _status(data)
        self._finish(run.span, data, status, time)
        self._record(self._run_duration, data, {"pipeline": run.name, "status": status})

    def _child_spawned(self, run: _Run, data: _Payload, _: int) -> None:
        parent = run.place_of({"stage": data.get("parent_stage_id")})
        self._parents[str(data.get("child_run_id"))] = self._inside(parent)

    def _stage_started(self, run: _Run, data: _Payload, time: int) -> None:
        stage = str(data.get("stage"))
        if stage in run.stages:
            _cut_off(run.stages[stage].span, time)
        span = self._tracer.start_span(
            f"stage {stage}",
            context=self._inside(run.span),
            start_time=time,
            attributes=dict(_attributes(data)),
        )
        run.stages[stage] = _Work(span, try_started=time)

    def _try_failed(self, run: _Run, data: _Payload, time: int) -> None:
        work = run.stages.get(str(data.get("stage")))
        if work is not None:
            self._try_ended(work, data, "failed", time)
            work.try_started = time + int(data.get("delay_ms", 0) * 1e6)

    def _try_ended(self, work: _Work, data: _Payload, status: str, time: int) -> None:
        work.tries += 1
        span = self._tracer.start_span(
            f"try {work.tries}", context=self._inside(work.span), start_time=work.try_started
        )
        # A stage that is cancelled during the delay has no further try of any length.
        self._finish(span, data, status, max(time, work.try_started))

    def _stage_ended(self, run: _Run, data: _Payload, time: int) -> None:
        stage = str(data.get("stage"))
        status = _status(data)
        work = run.stages.pop(stage, None)
        if work is not None:
            if work.tries:
                self._try_ended(work, data, status, time)
            work.span.set_attributes(data.get("telemetry", {}))
            self._finish(work.span, data, status, time)
        labels = {"pipeline": run.name, "stage": stage, "status": status}
        self._record(self._stage_duration, data, labels)
        if status == "failed":
            self._stage_failures.add(1, labels)

    def _tool_started(self, run: _Run, data: _Payload, time: int) -> None:
        run.tools[str(data.get("action_id"))] = self._tracer.start_span(
            f"tool {data.get('tool_name')}",
            context=self._inside(run.place_of(data)),
            start_time=time,
            attributes=dict(_attributes(data)),
        )

    def _tool_ended(self, run: _Run, data: _Payload, time: int) -> None:
        span = run.tools.pop(str(data.get("action_id")), None)
        if span is not None:
            self._finish(span, data, "failed" if "error_message" in data else "completed", time)

    # Spans

    def _inside(self, span: Span) -> Context:
        return self._trace.set_span_in_context(span)

    def _finish(self, span: Span, data: _Payload, status: str, time: int) -> None:
        span.set_attributes(dict(_attributes(data)))
        if status == "failed":
            message = str(data.get("error") or data.get("error_message") or "")
            span.set_status(self._trace.StatusCode.ERROR, message)
        elif status == "canceled":
            span.set_attribute("actorflow.canceled", True)
        else:
            span.set_status(self._trace.StatusCode.OK)
        span.end(time)

    def _record(self, histogram: Any, data: _Payload, labels: Mapping[str, str]) -> None:
        duration_ms = data.get("duration_ms")
        if isinstance(duration_ms, int | float):
            histogram.record(duration_ms / 1000, labels)

    def _abandon_inside(self, run: _Run, time: int) -> None:
        for span in [*run.tools.values(), *(work.span for work in run.stages.values())]:
            _cut_off(span, time)

    def _abandon(self, run_id: str, time: int) -> None:
        run = self._runs.pop(run_id)
        self._abandon_inside(run, time)
        _cut_off(run.span, time)

    def _close_forgotten(self) -> None:
        now = _nanoseconds(None)
        oldest = clock.timestamp() - self._max_run_age
        for run_id in [id for id, run in self._runs.items() if run.started < oldest]:
            self._abandon(run_id, now)
        while len(self._runs) >= self._max_open_runs:
            self._abandon(next(iter(self._runs)), now)
        # Parents of runs that never began go the same way.
        while len(self._parents) > self._max_open_runs:
            del self._parents[next(iter(self._parents))]

    async def flush(self) -> None:
        """Let the provider export what has ended, in a thread: it blocks."""
        force_flush = getattr(self._provider, "force_flush", None)
        if force_flush is not None:
            with _logged("flush"):
                await trio.to_thread.run_sync(force_flush)

    async def aclose(self) -> None:
        """Close the runs that are still open as incomplete, and flush."""
        for run_id in list(self._runs):
            with _logged("aclose"), self._lock:
                self._abandon(run_id, _nanoseconds(None))
        await self.flush()


@contextmanager
def _logged(during: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _logger.exception("otel_failed", extra={"during": during, "error": repr(error)})


def _cut_off(span: Span, time: int) -> None:
    span.set_attribute("actorflow.incomplete", True)
    span.end(time)


def _status(data: _Payload) -> str:
    """How a stage or a run ended, from the payload of its last event."""
    if data.get("status") == "cancel" or "cascade_depth" in data:
        return "canceled"
    return "failed" if "error" in data else "completed"


def _attributes(data: _Payload) -> Iterator[tuple[str, str | bool | int | float]]:
    for key, value in data.items():
        if isinstance(value, str | bool | int | float):
            yield f"actorflow.{key}", value


def _nanoseconds(timestamp: object) -> int:
    """Nanoseconds since the epoch, from the time of an event or else from the clock."""
    try:
        seconds = datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        seconds = clock.timestamp()
    # Microseconds first: a float cannot tell nanoseconds of our time apart.
    return round(seconds * 1e6) * 1000
