"""A checked pipeline that can be run any number of times, also at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from actorflow.errors import InvalidArgumentError
from actorflow.events import WideEventEmitter
from actorflow.interceptors import (
    check_graph,
    compile_chains,
    get_default_interceptors,
    ordered,
)
from actorflow.pipeline import PipelineOptions, to_mermaid, validated

from ._guard_retry import interruptible
from ._handle import RunHandle
from ._intake import context_for
from ._run import Run, ungrouped
from ._run_state import ENCLOSING_SCOPE
from ._stage_actor import caller_of

if TYPE_CHECKING:
    from actorflow.cancellation import CancellationToken
    from actorflow.events import EventSink
    from actorflow.interceptors import StageChain
    from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, StageSpec, Wiring
    from actorflow.stages import StageContext

    from ._intake import Source
    from ._results import PipelineResults


@final
@attrs.frozen(init=False, eq=False, repr=False)
class UnifiedStageGraph:
    """Stages that were checked and wired; immutable and without the state of any run."""

    wiring: Wiring
    options: PipelineOptions
    pipeline_name: str | None
    """The name that was given; without one a run is called after its topology."""
    stage_wide: WideEventEmitter | None
    pipeline_wide: WideEventEmitter | None
    guard_retries: Mapping[str, GuardRetryPolicy]
    interruptible: frozenset[int]
    """Stages that a guard may have interrupted while the run goes on."""
    stream_edges: tuple[tuple[int, int], ...]
    """Producer and consumer of each stream edge."""
    callers: tuple[Callable[[StageContext], object], ...]
    """What calls each stage."""
    interceptors: tuple[Any, ...]
    """From the outermost to the innermost."""
    chains: tuple[StageChain | None, ...]
    """What is around each stage; None where nothing is."""

    def __init__(
        self,
        specs: Iterable[StageSpec],
        *,
        pipeline_name: str | None = None,
        interceptors: Iterable[Any] | None = None,
        wide_event_emitter: WideEventEmitter | None = None,
        emit_stage_wide_events: bool | None = None,
        emit_pipeline_wide_event: bool | None = None,
        **options: Any,
    ) -> None:
        """Check and wire `specs`; `options` are those of a pipeline.

        Without `interceptors` the graph has the default set; an empty collection
        means none. Who passes an emitter gets wide events of both kinds, unless they say
        otherwise.

        Raises:
          PipelineValidationError: if the stages cannot work as they are wired.
        """
        own_options = PipelineOptions(**options)
        strategy = own_options.guard_retry_strategy
        policies = {} if strategy is None else strategy.policies
        wiring = validated(tuple(specs), guard_retry_strategy=strategy)
        around = ordered(get_default_interceptors() if interceptors is None else interceptors)
        has_emitter = wide_event_emitter is not None
        emitter = wide_event_emitter or WideEventEmitter()
        self.__attrs_init__(
            wiring,
            own_options,
            pipeline_name,
            emitter if _unless(emit_stage_wide_events, has_emitter) else None,
            emitter if _unless(emit_pipeline_wide_event, has_emitter) else None,
            policies,
            interruptible(wiring, policies.values()),
            tuple(
                (source, consumer)
                for consumer, sources in enumerate(wiring.stream_sources)
                for source in sources
            ),
            tuple(map(caller_of, wiring.specs)),
            around,
            compile_chains(around, wiring.specs),
        )
        check_graph(around, self)

    def __repr__(self) -> str:
        return f"UnifiedStageGraph({self.pipeline_name!r}, <{len(self.specs)} stages>)"

    # What it is made of

    @property
    def specs(self) -> tuple[StageSpec, ...]:
        """The stages in declaration order."""
        return self.wiring.specs

    @property
    def guard_retry_strategy(self) -> GuardRetryStrategy | None:
        """The policies of the guards."""
        return self.options.guard_retry_strategy

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names in declaration order."""
        return tuple(self.wiring.index)

    @property
    def topological_order(self) -> tuple[str, ...]:
        """The names, every stage after what it waits for."""
        return self._names(self.wiring.topological_order)

    @property
    def roots(self) -> tuple[str, ...]:
        """The stages that wait for nothing."""
        return self._names(self.wiring.roots)

    def dependencies_of(self, name: str) -> tuple[str, ...]:
        """The stages that `name` waits for."""
        return self._names(self.wiring.dependencies[self.wiring.index[name]])

    def dependents_of(self, name: str) -> tuple[str, ...]:
        """The stages that wait for `name`."""
        return self._names(self.wiring.dependents[self.wiring.index[name]])

    def _names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.specs[number].name for number in numbers)

    def to_mermaid(
        self, *, direction: str = "TD", results: object = None, title: bool = True
    ) -> str:
        """A Mermaid flowchart of the stages."""
        return to_mermaid(self, direction=direction, results=results, title=title)

    def with_interceptors(self, interceptors: Iterable[Any]) -> UnifiedStageGraph:
        """The same stages with other interceptors around them; this graph keeps its own.

        Raises:
          PipelineValidationError: if the interceptors cannot be used together, or here.
        """
        around = ordered(interceptors)
        fields = attrs.asdict(self, recurse=False)
        fields |= {"interceptors": around, "chains": compile_chains(around, self.specs)}
        graph = object.__new__(UnifiedStageGraph)
        graph.__attrs_init__(**fields)
        check_graph(around, graph)
        return graph

    # Running

    async def run(
        self,
        source: Source = None,
        /,
        *,
        event_sink: EventSink | None = None,
        cancel_token: CancellationToken | None = None,
        runtime: object = None,
        first_seq: int = 1,
    ) -> PipelineResults:
        """Run to the end and return what the stages put out.

        `source` is a context, or the snapshot or the text to make one from.
        `runtime` is what stages and interceptors find as `ctx.runtime`. The events
        are numbered from `first_seq` on: a run that goes on where an earlier one
        with its id ended begins with that one's last number and one more.

        Raises:
          UnifiedStageExecutionError: if a stage failed; it carries the results.
          UnifiedPipelineCancelled: if the run was cancelled; it carries the results.
          ContextInUseError: if another run is using the context.
        """
        run = self._new_run(source, event_sink, cancel_token, runtime, first_seq)
        with run.claimed():
            await run.supervise()
        return run.outcome()

    def start(
        self,
        source: Source = None,
        /,
        *,
        event_sink: EventSink | None = None,
        cancel_token: CancellationToken | None = None,
        runtime: object = None,
        first_seq: int = 1,
    ) -> AbstractAsyncContextManager[RunHandle]:
        """Run beside the `async with` block, which gets a handle to the run.

        The end of the block waits for the run and raises what `run` would, unless
        `wait` has raised it. An exception in the block cancels the run, waits for
        its end, and goes on.
        """
        run = self._new_run(source, event_sink, cancel_token, runtime, first_seq)
        return self._beside_block(run)

    def _new_run(
        self,
        source: Source,
        event_sink: EventSink | None,
        cancel_token: CancellationToken | None,
        runtime: object,
        first_seq: int,
    ) -> Run:
        if not isinstance(first_seq, int) or isinstance(first_seq, bool) or first_seq < 1:
            raise InvalidArgumentError("first_seq", first_seq, "a whole number from 1 on")
        context = context_for(source, self.pipeline_name or "pipeline")
        if runtime is not None:
            context.runtime = runtime
        return Run(
            self,
            context,
            event_sink=event_sink,
            cancel_token=cancel_token,
            first_seq=first_seq,
        )

    @asynccontextmanager
    async def _beside_block(self, run: Run) -> AsyncIterator[RunHandle]:
        handle = RunHandle(run)
        left_by: BaseException | None = None
        with run.claimed():
            try:
                with ungrouped():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(handle.supervise, name=f"run {run.pipeline_name}")
                        try:
                            yield handle
                        except BaseException as error:  # noqa: ASYNC103, BLE001 - it goes on below
                            left_by = error
                            run.request_cancel(_why_left(error))
            finally:
                # Whatever else happened, and not in the group of a nursery.
                if left_by is not None:
                    raise left_by
        if not handle.was_told:
            run.outcome()


def _why_left(error: BaseException) -> str:
    if isinstance(error, trio.Cancelled):
        return ENCLOSING_SCOPE
    return f"block left by {type(error).__name__}"


def _unless(said: bool | None, otherwise: bool) -> bool:
    return otherwise if said is None else said
