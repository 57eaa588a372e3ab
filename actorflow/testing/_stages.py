"""One stage by itself: what would come before it is made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

import attrs

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    StreamBrokenError,
    UnifiedPipelineCancelled,
)
from actorflow.events import EventSink
from actorflow.model import ContextSnapshot, StageKind, StageOutput
from actorflow.pipeline import FailureMode, Pipeline, StageSpec, edge
from actorflow.stages import (
    PipelineContext,
    ResultStatus,
    StageContext,
    StageInputs,
    StageResult,
)

from ._faults import Disguise
from ._sinks import RecordingEventSink

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_COLLECTOR: Final = "(what it sent)"


def make_snapshot(input_text: str | None = None, /, **fields: Any) -> ContextSnapshot:
    """A snapshot of a text and whatever fields of a `PipelineContext` matter to a test."""
    return _context(input_text, fields).snapshot


def make_stage_context(
    stage_name: str = "stage",
    source: str | ContextSnapshot | PipelineContext | None = None,
    *,
    inputs: Mapping[str, StageOutput | Mapping[str, Any] | None] = _NOTHING,
    event_sink: EventSink | None = None,
    config: Mapping[str, Any] = _NOTHING,
    attempt: int = 1,
    try_number: int = 1,
    **fields: Any,
) -> StageContext:
    """A context to call a stage with, outside a run: `await shout(make_stage_context(...))`.

    `inputs` are what the stages before it returned, and are all that it has
    declared; `fields` are those of a `PipelineContext`. What only a run can
    serve raises `NotInRunError`: `run_stage` makes a run for that.
    """
    context = _context(source, fields)
    outputs = {name: StageOutput.from_returned(output) for name, output in inputs.items()}
    return StageContext(
        context.snapshot,
        StageInputs(context.snapshot, outputs, context.ports, outputs, stage_name),
        stage_name,
        event_sink=event_sink,
        config=config,
        attempt=attempt,
        try_number=try_number,
    )


@final
@attrs.frozen
class StageRun:
    """How a stage by itself went."""

    result: StageResult
    """Status, tries, times, and the rule that skipped it if one did."""
    exception: BaseException | None
    """What stands behind a failure."""
    sent: tuple[Any, ...]
    """What it sent to whoever streams from it."""
    events: RecordingEventSink
    """What the stage reported and what was reported about it, child runs included."""
    context: PipelineContext
    """The context of the run, with the data, bag and artifacts it left."""

    @property
    def status(self) -> ResultStatus:
        """`completed`, `failed`, `skipped` or `canceled`."""
        return self.result.status

    @property
    def output(self) -> StageOutput | None:
        """What it returned; None if it was interrupted."""
        return self.result.output

    @property
    def data(self) -> Mapping[str, Any]:
        """The data that it returned."""
        return self.result.data


async def run_stage(
    stage: Any,
    source: str | ContextSnapshot | PipelineContext | None = None,
    *,
    inputs: Mapping[str, StageOutput | Mapping[str, Any] | None] = _NOTHING,
    streams: Mapping[str, Iterable[Any]] = _NOTHING,
    interceptors: Sequence[Any] = (),
    event_sink: RecordingEventSink | None = None,
    **fields: Any,
) -> StageRun:
    """Run one stage, with everything that a run serves: streams, children, clean-ups, limits.

    Its conditions, keys and timeout hold as they do in a pipeline, but a failure
    in `inputs` does not keep it from running.

    Args:
      stage: whatever `Pipeline.from_stages` takes.
      source: what the run begins with; beside a text or nothing, `fields` are
        those of the `PipelineContext`, and with a snapshot those that differ.
      inputs: what its dependencies returned; the others returned nothing. A
        stage without declared dependencies depends on all of these.
      streams: what the producers it streams from send; the others send nothing.
      interceptors: what is around the stage, and around nothing else.
      event_sink: where events are kept; give one to wait for them meanwhile.

    Raises:
      InvalidArgumentError: if the stage does not depend on an input, or does not
        stream from a producer; or if there are `fields` beside a context.
      PipelineValidationError: if the stage could be part of no pipeline.
      UnifiedPipelineCancelled: if the run was cancelled before the stage began.
    """
    [spec] = Pipeline.from_stages(stage).stages
    if not (spec.dependencies or spec.stream_from):
        spec = spec.evolve(dependencies=tuple(inputs))
    _check_known("inputs", inputs, spec.dependencies)
    _check_known("streams", streams, spec.stream_from)
    context = _context(source, fields)
    recorded = RecordingEventSink()
    if event_sink is not None:
        if not isinstance(event_sink, RecordingEventSink):
            raise InvalidTypeError("event_sink", event_sink, "a RecordingEventSink")
        recorded = event_sink
    collector = _Collector()
    stand_ins = [
        *_dependencies(spec, inputs),
        *(StageSpec(name, _Producer(tuple(streams.get(name, ())))) for name in spec.stream_from),
        StageSpec(_COLLECTOR, collector, stream_from=spec.name),
    ]
    pipeline = Pipeline(spec.name, [spec, *stand_ins], failure_mode=FailureMode.BEST_EFFORT)
    sink = _OfOneStage(recorded, context, {spec.name for spec in stand_ins})
    results: Any
    try:
        around = [_around(spec.name, interceptor) for interceptor in interceptors]
        results = await pipeline.run(context, event_sink=sink, interceptors=around)
    except UnifiedPipelineCancelled as canceled:
        results = canceled.results
        if spec.name not in results.stage_results:
            raise
    exceptions = (it.exception for it in results.failures if it.stage == spec.name)
    return StageRun(
        results.stage_results[spec.name],
        next(exceptions, None),
        tuple(collector.items),
        recorded,
        context,
    )


def _context(
    source: str | ContextSnapshot | PipelineContext | None, fields: Mapping[str, Any]
) -> PipelineContext:
    if isinstance(source, PipelineContext):
        if fields:
            raise InvalidArgumentError("fields", list(fields), "left out beside a PipelineContext")
        return source
    if isinstance(source, ContextSnapshot):
        return PipelineContext.from_snapshot(source, **fields)
    if not isinstance(source, str | None):
        raise InvalidTypeError("source", source, "a text, a ContextSnapshot or a PipelineContext")
    return PipelineContext.create(input_text=source, **fields)


def _around(stage: str, interceptor: Any) -> Any:
    """The interceptor, kept from the stand-ins."""
    applies = getattr(interceptor, "applies_to", None)

    def applies_to(name: str, kind: StageKind) -> bool:
        return name == stage and (applies is None or applies(name, kind))

    return Disguise(interceptor, {"applies_to": applies_to})


def _check_known(argument: str, given: Iterable[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        expected = f"of {', '.join(map(repr, known))}" if known else "left out"
        raise InvalidArgumentError(argument, unknown, expected)


def _dependencies(
    spec: StageSpec, inputs: Mapping[str, StageOutput | Mapping[str, Any] | None]
) -> Iterator[StageSpec]:
    for name in spec.dependencies:
        output = StageOutput.from_returned(inputs.get(name))
        yield StageSpec(name, _Returner(output))
        # A router may choose branches that lead elsewhere, and then there has to be somewhere.
        chosen = output.data.get("branch")
        labels = (chosen,) if isinstance(chosen, str) else chosen or ()
        for number, label in enumerate(labels):
            elsewhere = edge(name, when=label)
            yield StageSpec(f"({name[:180]} {number})", _Returner(), dependencies=[elsewhere])


@final
@attrs.frozen
class _Returner:
    """Stands for a dependency."""

    output: StageOutput | None = None

    async def execute(self, _: StageContext) -> StageOutput | None:
        return self.output


@final
@attrs.frozen
class _Producer:
    """Stands for a stage that is streamed from."""

    items: tuple[Any, ...]

    async def execute(self, ctx: StageContext) -> None:
        for item in self.items:
            await ctx.send(item)


@final
@attrs.frozen
class _Collector:
    """Stands for all that streams from the stage."""

    items: list[Any] = attrs.field(factory=list)

    async def execute(self, ctx: StageContext) -> None:
        try:
            async for item in ctx.stream():
                self.items.append(item)
        except StreamBrokenError:
            pass  # How the stage ended is told by its own result.


@final
@attrs.frozen
class _OfOneStage:
    """Keeps what stand-ins report, and the run around them, out of the record."""

    recorded: RecordingEventSink
    context: PipelineContext
    stand_ins: set[str]

    async def emit(self, *, type: str, data: Mapping[str, Any]) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any]) -> bool:
        if self._concerns_the_stage(type, data):
            self.recorded.try_emit(type=type, data=data)
        return True

    def _concerns_the_stage(self, type: str, data: Mapping[str, Any]) -> bool:
        if data.get("pipeline_run_id") != str(self.context.pipeline_run_id):
            return True
        return type not in _NOT_OF_A_STAGE and data.get("stage") not in self.stand_ins


_NOT_OF_A_STAGE: Final = frozenset(
    (
        *(f"pipeline.{how}" for how in ("started", "completed", "failed", "canceled")),
        "stream.queue_closed",
    )
)
