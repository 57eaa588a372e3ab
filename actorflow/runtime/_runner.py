"""Pipelines run with everything that helps to understand what they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast, final
from uuid import UUID

from actorflow import clock, ids
from actorflow.diagnostics import MemoryTracker, UuidCollisionMonitor
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.events import (
    BoundEventSink,
    EventSink,
    ObservableEventSink,
    TeeEventSink,
    current_event_sink,
    event_sink_scope,
)
from actorflow.interceptors import ContextSizeInterceptor, ImmutabilityInterceptor
from actorflow.model import ContextSnapshot, Conversation, Enrichments, RunIdentity, thaw
from actorflow.pipeline import Pipeline, PipelineBuilder
from actorflow.stages import PipelineContext

from ._graph import UnifiedStageGraph
from ._intake import context_for
from ._run_result import RunResult
from ._runner_memory import MemoryWatch, StageMemory
from ._runtime import Runtime

if TYPE_CHECKING:
    from typing import Unpack

    from actorflow.pipeline import PipelineGraph
    from actorflow.stores import IdempotencyStore

    from ._results import PipelineResults

PRACTICE: Final = "practice"

_GREEN, _YELLOW, _RED, _RESET = "\x1b[92m", "\x1b[93m", "\x1b[91m", "\x1b[0m"


class SnapshotFields(TypedDict, total=False):
    """What a snapshot may be given beside its text and mode."""

    topology: str
    pipeline_run_id: UUID | str | None
    request_id: UUID | str | None
    session_id: UUID | str | None
    user_id: UUID | str | None
    org_id: UUID | str | None
    interaction_id: UUID | str | None
    channel: str
    metadata: Mapping[str, Any] | None
    conversation: Conversation | None
    enrichments: Enrichments | None
    extensions: Any
    input_audio_duration_ms: float | None
    created_at: datetime | None


@final
class PipelineRunner:
    """Runs pipelines and tells how they went, without raising for what went wrong in them.

    Beside what `Pipeline.run` does it captures the events of each run, prints them
    with `verbose`, and watches memory, ids and contexts where it is asked to. It
    holds no state of a run, so one may run several pipelines at the same time.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        colorize: bool = True,
        capture_events: bool = True,
        enable_uuid_monitor: bool = False,
        enable_memory_tracker: bool = False,
        uuid_monitor_ttl_seconds: float = 300.0,
        memory_tracker_auto_start: bool = True,
        memory_sample_stages: bool = False,
        enable_immutability_check: bool = False,
        enable_context_size_monitor: bool = False,
        interceptors: Iterable[Any] | None = None,
        uuid_monitor: UuidCollisionMonitor | None = None,
        memory_tracker: MemoryTracker | None = None,
        runtime: object = None,
        idempotency_store: IdempotencyStore | None = None,
        max_events: int = 10_000,
    ) -> None:
        """Run with these things switched on; a monitor or tracker that is given is used.

        `interceptors` None means those that a pipeline has anyway. The memory
        tracker starts with the first run, or not by itself, and traces until it is
        stopped. All runs share a `Runtime`: this one, or one of the runner's own.
        """
        if max_events < 1:
            raise InvalidArgumentError("max_events", max_events, "at least 1")
        if not isinstance(uuid_monitor, UuidCollisionMonitor | None):
            raise InvalidTypeError("uuid_monitor", uuid_monitor, "a UuidCollisionMonitor or None")
        if not isinstance(memory_tracker, MemoryTracker | None):
            raise InvalidTypeError("memory_tracker", memory_tracker, "a MemoryTracker or None")
        if runtime is not None and idempotency_store is not None:
            raise InvalidArgumentError(
                "idempotency_store", idempotency_store, "left out when a runtime is given"
            )
        self._verbose = verbose
        self._colorize = colorize
        self._capture_events = capture_events
        self._max_events = max_events
        self._interceptors = None if interceptors is None else tuple(interceptors)
        self._switched_on: list[Any] = []
        self._uuid_monitor = uuid_monitor
        if uuid_monitor is None and enable_uuid_monitor:
            self._uuid_monitor = UuidCollisionMonitor(
                ttl_seconds=uuid_monitor_ttl_seconds, category="pipeline"
            )
        self._memory: MemoryWatch | None = None
        if memory_tracker is not None or enable_memory_tracker:
            tracker = memory_tracker or MemoryTracker(auto_start=False)
            self._memory = MemoryWatch(tracker, auto_start=memory_tracker_auto_start)
            if memory_sample_stages:
                self._switched_on.append(StageMemory(tracker))
        if enable_immutability_check:
            self._switched_on.append(ImmutabilityInterceptor())
        if enable_context_size_monitor:
            self._switched_on.append(ContextSizeInterceptor())
        self._runtime = runtime
        if runtime is None:
            store = idempotency_store
            self._runtime = Runtime() if store is None else Runtime(idempotency_store=store)

    @property
    def uuid_monitor(self) -> UuidCollisionMonitor | None:
        """What looks at the ids of runs, if that is switched on."""
        return self._uuid_monitor

    @property
    def memory_tracker(self) -> MemoryTracker | None:
        """What takes samples of memory, if that is switched on."""
        return None if self._memory is None else self._memory.tracker

    @property
    def runtime(self) -> object:
        """What all runs find as `ctx.runtime`."""
        return self._runtime

    def create_snapshot(
        self,
        *,
        input_text: str | None = None,
        execution_mode: str | None = PRACTICE,
        topology: str | None = "pipeline",
        pipeline_run_id: UUID | str | None = None,
        request_id: UUID | str | None = None,
        session_id: UUID | str | None = None,
        user_id: UUID | str | None = None,
        org_id: UUID | str | None = None,
        interaction_id: UUID | str | None = None,
        channel: str = "cli",
        metadata: Mapping[str, Any] | None = None,
        conversation: Conversation | None = None,
        enrichments: Enrichments | None = None,
        extensions: Any = None,
        input_audio_duration_ms: float | None = None,
        created_at: datetime | None = None,
    ) -> ContextSnapshot:
        """A snapshot with a new id wherever none is given."""
        if not isinstance(metadata, Mapping | None):
            raise InvalidTypeError("metadata", metadata, "a mapping or None")
        moment = created_at or clock.now()
        identity = RunIdentity(
            pipeline_run_id or ids.new_id(),
            request_id or ids.new_id(),
            session_id or ids.new_id(),
            user_id or ids.new_id(),
            org_id or ids.new_id(),
            interaction_id or ids.new_id(),
            created_at=moment,
        )
        return ContextSnapshot(
            identity,
            enrichments,
            conversation,
            extensions,
            input_text=input_text,
            input_audio_duration_ms=input_audio_duration_ms,
            topology=topology,
            execution_mode=execution_mode,
            created_at=moment,
            metadata={"channel": channel, **(metadata or {})},
        )

    async def run(
        self,
        pipeline: Pipeline | PipelineBuilder | PipelineGraph,
        *,
        input_text: str | None = None,
        execution_mode: str | None = PRACTICE,
        pipeline_ctx: PipelineContext | None = None,
        snapshot: ContextSnapshot | None = None,
        first_seq: int = 1,
        **snapshot_fields: Unpack[SnapshotFields],
    ) -> RunResult:
        """Run a pipeline to its end and return how that was.

        It begins with a context, with a snapshot, or with the snapshot that
        `create_snapshot` makes of the fields given. Events also reach the sinks
        they would reach without the runner. A cancellation from outside goes on.

        Raises:
          PipelineValidationError: if the pipeline cannot run; before anything happens.
        """
        graph = self._graph_of(pipeline)
        fields: dict[str, Any] = dict(snapshot_fields)
        if input_text is not None:
            fields["input_text"] = input_text
        if execution_mode != PRACTICE:
            fields["execution_mode"] = execution_mode
        context = self._context_of(pipeline_ctx, snapshot, fields, graph.pipeline_name)
        run = partial(self._run, graph, context, first_seq)
        return await (run() if self._memory is None else self._memory.around(run))

    def _graph_of(self, pipeline: object) -> UnifiedStageGraph:
        if isinstance(pipeline, PipelineBuilder):
            pipeline = pipeline.pipeline()
        graph = pipeline.graph if isinstance(pipeline, Pipeline) else pipeline
        if not isinstance(graph, UnifiedStageGraph):
            raise InvalidTypeError("pipeline", graph, "a Pipeline, a PipelineBuilder or a graph")
        around = graph.interceptors if self._interceptors is None else self._interceptors
        # What is there by that name already has limits that somebody chose.
        names = {getattr(it, "name", None) for it in around}
        added = [it for it in self._switched_on if it.name not in names]
        if self._interceptors is None and not added:
            return graph
        return graph.with_interceptors((*around, *added))

    def _context_of(
        self,
        context: PipelineContext | None,
        snapshot: ContextSnapshot | None,
        fields: dict[str, Any],
        name: str | None,
    ) -> PipelineContext:
        sources = {"pipeline_ctx": context, "snapshot": snapshot}
        begins = [argument for argument, source in sources.items() if source is not None]
        if not begins:
            made = self.create_snapshot(**{"topology": name or "pipeline", **fields})
            return PipelineContext.from_snapshot(made)
        first, *others = [*begins, *sorted(fields)]
        if others:
            raise InvalidArgumentError(
                f"arguments beside {first}", ", ".join(others), "left out, because it says it all"
            )
        source = sources[first]
        if not isinstance(source, PipelineContext | ContextSnapshot):
            raise InvalidTypeError(first, source, "a PipelineContext or a ContextSnapshot")
        return context_for(source, "")

    async def _run(
        self, graph: UnifiedStageGraph, context: PipelineContext, first_seq: int
    ) -> RunResult:
        sink = ObservableEventSink(
            verbose=self._verbose,
            colorize=self._colorize,
            capture=self._capture_events,
            max_events=self._max_events,
            downstream=_who_hears_anyway(context),
        )
        begun_at = clock.monotonic()
        warnings: list[str] = []
        ending: dict[str, Any] = {"success": True}
        with event_sink_scope(sink):
            if first_seq == 1 and self._has_seen(context):
                warnings.append(f"a run with the id {context.pipeline_run_id} was seen before")
            try:
                results = await graph.run(
                    context,
                    event_sink=sink,
                    runtime=self._runtime if context.runtime is None else None,
                    first_seq=first_seq,
                )
            except UnifiedPipelineCancelled as canceled:
                results = cast("PipelineResults", canceled.results)
                ending |= {"cancelled": True, "cancel_reason": canceled.reason}
            except UnifiedStageExecutionError as failed:
                results = cast("PipelineResults", failed.results)
                ending = _told(failed)
            else:
                if results.failures:
                    ending = _told(_not_raised(results, graph, context))
        for name, stage_result in results.stage_results.items():
            warnings += [f"stage {name!r}: {warning}" for warning in stage_result.warnings]
        return RunResult(
            **ending,
            stages={name: output.data for name, output in results.items()},
            duration_ms=round((clock.monotonic() - begun_at) * 1000, 3),
            events=tuple(sink.events),
            pipeline_run_id=context.pipeline_run_id,
            results=results,
            failures=results.failures,
            not_run=tuple(name for name in graph.stage_names if name not in results.stage_results),
            warnings=(*warnings, *results.warnings),
            metrics=context.metrics,
            discarded_events=sink.discarded,
        )

    def _has_seen(self, context: PipelineContext) -> bool:
        if self._uuid_monitor is None:
            return False
        if context.pipeline_run_id is None:
            context.pipeline_run_id = ids.uuid7()
        return self._uuid_monitor.observe(context.pipeline_run_id)

    def print_result(self, result: RunResult) -> None:
        """Print how a run went, for people."""
        colour, *lines = _described(result)
        if self._colorize:
            lines[0] = f"{colour}{lines[0]}{_RESET}"
        print("\n".join(lines))  # noqa: T201 - what it is for


async def run_simple_pipeline(
    pipeline: Pipeline | PipelineBuilder | PipelineGraph,
    input_text: str | None,
    *,
    execution_mode: str | None = PRACTICE,
    metadata: Mapping[str, Any] | None = None,
    verbose: bool = False,
    colorize: bool = False,
) -> RunResult:
    """Run a pipeline on a text with a runner of its own, and return how that went."""
    runner = PipelineRunner(verbose=verbose, colorize=colorize)
    return await runner.run(
        pipeline, input_text=input_text, execution_mode=execution_mode, metadata=metadata
    )


def _who_hears_anyway(context: PipelineContext) -> EventSink | None:
    """Who would get the events of the run if nobody captured them."""
    sinks: list[EventSink] = []
    for sink in (current_event_sink(), context.event_sink):
        # Inside another run: that one's numbers are not those of this run.
        plain = sink.sink if isinstance(sink, BoundEventSink) else sink
        if plain is not None and all(plain is not other for other in sinks):
            sinks.append(plain)
    if len(sinks) > 1:
        return TeeEventSink(*sinks)
    return sinks[0] if sinks else None


def _not_raised(
    results: PipelineResults, graph: UnifiedStageGraph, context: PipelineContext
) -> UnifiedStageExecutionError:
    """What a run that goes on in spite of failures would have raised otherwise."""
    first = results.failures[0]
    assert isinstance(first.exception, Exception)
    name, run_id = graph.pipeline_name or "pipeline", context.pipeline_run_id
    return UnifiedStageExecutionError(
        first.stage, first.exception, first.recoverable, results, results.failures, name, run_id
    )


def _told(error: UnifiedStageExecutionError) -> dict[str, Any]:
    return {
        "success": False,
        "error": str(error),
        "error_type": type(error.original).__name__,
    }


def _described(result: RunResult) -> Iterator[str]:
    """The colour of the first line, then the lines."""
    if result.cancelled:
        colour, ending = _YELLOW, "cancelled"
    else:
        colour, ending = (_GREEN, "completed") if result.success else (_RED, "failed")
    yield colour
    yield f"{ending} after {result.duration_ms:.1f} ms"
    for name, output in (result.results or {}).items():
        yield f"  {name}: {output.status} {thaw(output.data)}"
    yield from (f"  {name}: not run" for name in result.not_run)
    if result.cancelled:
        yield f"reason: {result.cancel_reason}"
    if result.error is not None:
        yield f"error: {result.error}"
    yield from (f"warning: {warning}" for warning in result.warnings)
