"""What a pipeline expects of whatever runs it.

Running lies above wiring: the runtime installs its engine here when it is
imported, and importing `actorflow` imports the runtime.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict, final
from uuid import UUID

from ._options import PipelineKeywords

if TYPE_CHECKING:
    from typing import Unpack

    from actorflow.model import ContextSnapshot, StageOutput
    from actorflow.stages import PipelineContext, StageResult

    from ._pipeline import Pipeline
    from ._spec import StageSpec

Source: TypeAlias = "PipelineContext | ContextSnapshot | str | None"
"""What a run begins with; a string is its input text."""


class GraphKeywords(PipelineKeywords, total=False):
    """What `build` takes."""

    interceptors: Sequence[Any] | None
    wide_event_emitter: Any
    emit_stage_wide_events: bool
    emit_pipeline_wide_event: bool


class RunKeywords(TypedDict, total=False):
    """What belongs to a single run and not to the graph it runs."""

    event_sink: Any
    cancel_token: Any
    runtime: Any
    first_seq: int


class ContextKeywords(TypedDict, total=False):
    """The fields of the context that a run makes for itself."""

    pipeline_run_id: UUID | str | None
    request_id: UUID | str | None
    session_id: UUID | str | None
    user_id: UUID | str | None
    org_id: UUID | str | None
    interaction_id: UUID | str | None
    topology: str | None
    execution_mode: str | None
    service: str
    configuration: Mapping[str, Any]
    input_text: str | None
    input_audio_duration_ms: float | None
    conversation: Any
    enrichments: Any
    extensions: Any
    metadata: Mapping[str, Any]
    created_at: datetime
    data: Mapping[str, Any]
    bag: Any
    outputs: Any
    artifacts: Sequence[Any]
    canceled: bool
    cancellation_reason: str | None
    ports: Any
    db: Any
    parent_run_id: UUID | str | None
    parent_stage_id: str | None
    correlation_id: UUID | str | None
    depth: int
    root_run_id: UUID | str | None


@final
class StartKeywords(GraphKeywords, RunKeywords, ContextKeywords, total=False):
    """What `run` and `start` take."""


class RunResults(Protocol):
    """The outputs of a run by stage, in the order in which stages ended: a read-only mapping."""

    def __getitem__(self, stage: str, /) -> StageOutput: ...
    def __contains__(self, stage: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def keys(self) -> KeysView[str]: ...
    def values(self) -> ValuesView[StageOutput]: ...
    def items(self) -> ItemsView[str, StageOutput]: ...
    def output(self, stage: str, default: StageOutput | None = None) -> StageOutput | None: ...
    def require(self, stage: str) -> StageOutput: ...
    def require_ok(self, stage: str) -> StageOutput: ...
    def data(self, stage: str, default: Any = ...) -> Any: ...
    def ok(self, stage: str) -> bool: ...
    def failed(self) -> list[str]: ...
    def skipped(self) -> list[str]: ...
    def canceled(self) -> list[str]: ...
    def to_dict(self) -> dict[str, Any]: ...

    @property
    def failures(self) -> Sequence[Any]: ...

    @property
    def stage_results(self) -> Mapping[str, StageResult]: ...


class Run(Protocol):
    """A run in progress."""

    @property
    def run_id(self) -> UUID | None: ...

    @property
    def pipeline_name(self) -> str: ...

    @property
    def context(self) -> PipelineContext: ...

    @property
    def results(self) -> RunResults: ...

    def status(self) -> Any: ...
    def cancel(self, reason: str = "user_requested") -> None: ...
    async def wait(self) -> RunResults: ...


class PipelineGraph(Protocol):
    """A pipeline that has been checked and can be run any number of times."""

    @property
    def specs(self) -> Sequence[StageSpec]: ...

    @property
    def topological_order(self) -> Sequence[str]: ...

    async def run(self, source: Source = None, /, **options: Unpack[RunKeywords]) -> RunResults: ...
    def start(
        self, source: Source = None, /, **options: Unpack[RunKeywords]
    ) -> AbstractAsyncContextManager[Run]: ...


class LegacyGraph(Protocol):
    """A pipeline that runs by the rules of the stage graphs of old."""

    async def run(self, ctx: PipelineContext, /) -> Mapping[str, StageResult]: ...


class Engine(Protocol):
    """Builds graphs of pipelines and runs them."""

    def build(self, pipeline: Pipeline, /, **options: Any) -> PipelineGraph:
        """Check a pipeline and make a graph of it; `options` are those of `GraphKeywords`
        that are not the pipeline's own."""

    def build_legacy(self, pipeline: Pipeline, /, **options: Any) -> LegacyGraph:
        """The same for a legacy graph."""

    async def run(self, graph: PipelineGraph, source: Source, /, **options: Any) -> RunResults:
        """Run a graph to its end; `options` are those of `RunKeywords`."""

    def start(
        self, graph: PipelineGraph, source: Source, /, **options: Any
    ) -> AbstractAsyncContextManager[Run]:
        """Begin to run a graph."""


_installed: list[Engine] = []


def install_engine(engine: Engine) -> None:
    """Let pipelines be built and run by `engine`."""
    _installed[:] = [engine]


def installed_engine() -> Engine:
    """What builds and runs pipelines."""
    assert _installed, "importing actorflow imports the runtime, which installs one"
    return _installed[0]
