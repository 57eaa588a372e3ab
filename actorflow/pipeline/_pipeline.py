"""The pipeline as people hold it: immutable, composed of stages, and ready to run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.stages import PipelineContext

from ._engine import (
    ContextKeywords,
    GraphKeywords,
    RunKeywords,
    StartKeywords,
    installed_engine,
)
from ._keywords import check_keywords, closest
from ._lint import DependencyLintResult, lint_pipeline
from ._mermaid import to_mermaid
from ._options import PipelineKeywords, PipelineOptions
from ._spec import check_name
from ._stage import new_spec
from ._stages import added, collect, merged
from ._validation import missing, validated

if TYPE_CHECKING:
    from typing import Unpack

    from actorflow.model import StageKind

    from ._engine import LegacyGraph, PipelineGraph, Run, RunResults, Source
    from ._failure_mode import FailureMode
    from ._guard_retry import GuardRetryStrategy
    from ._runners import Runner
    from ._spec import Names, StageSpec
    from ._stage import FurtherOptions, StageLike
    from ._stages import Stages, StagesLike

DEFAULT_NAME: Final = "pipeline"

_PIPELINE_KEYWORDS: Final = PipelineKeywords.__optional_keys__
_GRAPH_KEYWORDS: Final = GraphKeywords.__optional_keys__
_RUN_KEYWORDS: Final = RunKeywords.__optional_keys__
_CONTEXT_KEYWORDS: Final = ContextKeywords.__optional_keys__


@final
@attrs.frozen(init=False, eq=False, repr=False)
class Pipeline:
    """Stages and how they depend on each other; immutable, every change gives a new one.

    Stages may be declared in any order. The whole is checked by `validate`,
    `build`, `run` and `start`, before anything runs.
    """

    given_name: str | None
    """The name somebody gave it; `name` is never None."""
    options: PipelineOptions
    by_name: Stages
    """The specs by name in declaration order."""
    # The graph of `run` without options: made by the first run and kept, so that what
    # interceptors remember lasts as long as the pipeline. A dict, because its setdefault
    # keeps one graph even if two threads make one at the same time.
    _graph: dict[str, PipelineGraph]

    def __init__(
        self,
        name: str | None = None,
        stages: StagesLike = (),
        **options: Unpack[PipelineKeywords],
    ) -> None:
        if name is not None:
            check_name(name, "pipeline")
        check_keywords("Pipeline()", options, _PIPELINE_KEYWORDS)
        self.__attrs_init__(
            name, PipelineOptions(**options), collect(stages, "a pipeline was given"), {}
        )

    @classmethod
    def from_stages(
        cls,
        *stages: StageLike,
        name: str | None = None,
        **options: Unpack[PipelineKeywords],
    ) -> Pipeline:
        """A pipeline of these stages, each saying itself what it depends on."""
        return cls(name, stages, **options)

    # What it is made of

    @property
    def name(self) -> str:
        """The given name, or `"pipeline"`."""
        return self.given_name or DEFAULT_NAME

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """The specs in declaration order."""
        return tuple(self.by_name.values())

    @property
    def failure_mode(self) -> FailureMode:
        return self.options.failure_mode

    @property
    def max_concurrency(self) -> int | None:
        return self.options.max_concurrency

    @property
    def stage_timeout(self) -> float | None:
        return self.options.stage_timeout

    @property
    def cleanup_timeout(self) -> float:
        return self.options.cleanup_timeout

    @property
    def guard_retry_strategy(self) -> GuardRetryStrategy | None:
        return self.options.guard_retry_strategy

    def get_stage(self, name: str) -> StageSpec | None:
        """The spec of a stage, or None."""
        return self.by_name.get(name)

    def has_stage(self, name: str) -> bool:
        return name in self.by_name

    def stage_names(self) -> list[str]:
        """The names in declaration order."""
        return list(self.by_name)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r} of {len(self)} stages>"

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    # Changed copies

    def with_stage(
        self,
        name: str,
        runner: Runner,
        kind: StageKind | str | None = None,
        dependencies: Names | None = None,
        *,
        inputs: str | Iterable[str] | None = None,
        outputs: str | Iterable[str] | None = None,
        conditional: bool = False,
        args: Mapping[str, Any] | None = None,
        replace: bool = False,
        **further: Unpack[FurtherOptions],
    ) -> Pipeline:
        """Add a stage; the keywords are those of `stage`."""
        options = {
            "kind": kind,
            "dependencies": dependencies,
            "inputs": inputs,
            "outputs": outputs,
            "conditional": conditional,
            "args": args,
            **further,
        }
        spec = new_spec("with_stage()", name, runner, options)
        return self.with_stages(spec, replace=replace)

    def with_stages(self, *stages: StageLike, replace: bool = False) -> Pipeline:
        """Add stages in this order; `replace` exchanges stages of the same name."""
        return self._with(added(self.by_name, stages, "a pipeline was given", replace=replace))

    def without_stage(self, name: str) -> Pipeline:
        """Take a stage out that no other depends on."""
        if name not in self.by_name:
            similar = closest(name, self.by_name)
            hint = f", perhaps {similar!r}" if similar else ""
            raise InvalidArgumentError("name", name, f"a stage of the pipeline{hint}")
        for spec in self.by_name.values():
            if name in (*spec.dependencies, *spec.stream_from):
                raise missing(spec.name, name, None)
        return self._with({key: spec for key, spec in self.by_name.items() if key != name})

    def with_name(self, name: str) -> Pipeline:
        """The same pipeline under another name."""
        check_name(name, "pipeline")
        return self._with(self.by_name, name=name)

    def with_options(self, **options: Unpack[PipelineKeywords]) -> Pipeline:
        """The same pipeline with some options changed."""
        check_keywords("with_options()", options, _PIPELINE_KEYWORDS)
        return self._with(self.by_name, options=attrs.evolve(self.options, **options))

    def compose(self, other: Pipeline | Composable) -> Pipeline:
        """Both pipelines as one: `"{left}+{right}"`, with the stages of either.

        Stages of one half may depend on stages of the other; a stage that both
        have must be the same in both.
        """
        theirs = other.pipeline() if isinstance(other, Composable) else other
        if not isinstance(theirs, Pipeline):
            raise InvalidTypeError("other", other, "a Pipeline or PipelineBuilder")
        return self._with(
            merged(self.by_name, theirs.by_name),
            name=f"{self.name}+{theirs.name}",
            options=self.options.merged(theirs.options),
        )

    def _with(
        self,
        stages: Stages,
        *,
        name: str | None = None,
        options: PipelineOptions | None = None,
    ) -> Pipeline:
        copy = object.__new__(Pipeline)
        copy.__attrs_init__(name or self.given_name, options or self.options, stages, {})
        return copy

    # Checks and pictures

    def validate(self) -> None:
        """Raise the first thing that is wrong with the wiring.

        Raises:
          PipelineValidationError: `lint` shows everything at once.
        """
        validated(self.stages, guard_retry_strategy=self.guard_retry_strategy, pipeline=self)

    def lint(self, *, analyze_source: bool = True) -> DependencyLintResult:
        """Everything that is wrong or probably not meant, without raising."""
        return lint_pipeline(self, analyze_source=analyze_source)

    def to_mermaid(
        self, *, direction: str = "TD", results: object = None, title: bool = True
    ) -> str:
        """A Mermaid flowchart of the pipeline, valid or not."""
        return to_mermaid(self, direction=direction, results=results, title=title)

    # Running

    def build(self, **options: Unpack[GraphKeywords]) -> PipelineGraph:
        """A checked graph that can be run many times; each call makes its own.

        `interceptors` None means the default set and an empty sequence none. The
        options of the pipeline can be changed for this graph alone.
        """
        pipeline, others = self._configured(options)
        return installed_engine().build(pipeline, **others)

    def build_legacy(self, **options: Unpack[GraphKeywords]) -> LegacyGraph:
        """The same as a graph with the rules of old, for code that still expects them."""
        pipeline, others = self._configured(options)
        return installed_engine().build_legacy(pipeline, **others)

    def _configured(self, options: Mapping[str, Any]) -> tuple[Pipeline, dict[str, Any]]:
        check_keywords("build()", options, _GRAPH_KEYWORDS)
        own = _picked(options, _PIPELINE_KEYWORDS)
        others = _picked(options, _GRAPH_KEYWORDS - _PIPELINE_KEYWORDS)
        return (self.with_options(**own) if own else self), others

    async def run(self, source: Source = None, /, **options: Unpack[StartKeywords]) -> RunResults:
        """Run the pipeline and return what its stages returned.

        `source` is a text, a snapshot or a context. Beside a text or nothing,
        the fields of a context may be given, which the run then makes; options
        of `build` make a graph for this run alone.

        Raises:
          PipelineValidationError: before anything runs.
          UnifiedStageExecutionError: if a stage failed; it carries the results.
          UnifiedPipelineCancelled: if the run was cancelled; it carries the results.
        """
        graph, begin, others = self._prepared("run()", source, options)
        return await installed_engine().run(graph, begin, **others)

    def start(
        self, source: Source = None, /, **options: Unpack[StartKeywords]
    ) -> AbstractAsyncContextManager[Run]:
        """Run the pipeline beside the `async with` block, which gets a handle to the run.

        Takes what `run` takes. The end of the block waits for the run; an
        exception in the block cancels it.
        """
        graph, begin, others = self._prepared("start()", source, options)
        return installed_engine().start(graph, begin, **others)

    def _prepared(
        self, call: str, source: Source, options: Mapping[str, Any]
    ) -> tuple[PipelineGraph, Source, dict[str, Any]]:
        check_keywords(call, options, StartKeywords.__optional_keys__)
        begin = self._beginning(source, _picked(options, _CONTEXT_KEYWORDS))
        changed = _picked(options, _GRAPH_KEYWORDS)
        graph = self.build(**changed) if changed else self.graph
        return graph, begin, _picked(options, _RUN_KEYWORDS)

    @property
    def graph(self) -> PipelineGraph:
        """The graph that `run` and `start` use when they are given no options of `build`.

        Raises:
          PipelineValidationError: if the pipeline cannot be built.
        """
        graph = self._graph.get(DEFAULT_NAME)
        return graph or self._graph.setdefault(DEFAULT_NAME, self.build())

    def _beginning(self, source: Source, fields: dict[str, Any]) -> Source:
        if source is None:
            return PipelineContext.create(**{"topology": self.name, **fields})
        if isinstance(source, str) and "input_text" not in fields:
            return self._beginning(None, {"input_text": source, **fields})
        if fields:
            raise InvalidArgumentError(
                "fields of the context",
                ", ".join(sorted(fields)),
                "left out when the source brings its own",
            )
        return source


@runtime_checkable
class Composable(Protocol):
    """Something that a pipeline can be made of."""

    def pipeline(self) -> Pipeline:
        """The pipeline so far."""


def _picked(options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}
