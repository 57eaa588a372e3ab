"""How pipelines get built and run: the other side of the slot that wiring keeps."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, final

import attrs

from ._graph import UnifiedStageGraph
from ._legacy import StageGraph

if TYPE_CHECKING:
    from actorflow.pipeline import Pipeline, PipelineGraph, Source

    from ._handle import RunHandle
    from ._results import PipelineResults


@final
class PipelineEngine:
    """Builds graphs of pipelines and runs them."""

    def build(self, pipeline: Pipeline, /, **options: Any) -> UnifiedStageGraph:
        """Check a pipeline and make a graph of it."""
        of_pipeline = attrs.asdict(pipeline.options, recurse=False)
        return UnifiedStageGraph(
            pipeline.stages, pipeline_name=pipeline.given_name, **of_pipeline, **options
        )

    def build_legacy(self, pipeline: Pipeline, /, **options: Any) -> StageGraph:
        """The same for a graph that runs by the rules of old."""
        of_pipeline = attrs.asdict(pipeline.options, recurse=False)
        return StageGraph(
            pipeline.stages, pipeline_name=pipeline.given_name, **of_pipeline, **options
        )

    async def run(self, graph: PipelineGraph, source: Source, /, **options: Any) -> PipelineResults:
        """Run a graph to its end."""
        return await _own(graph).run(source, **options)

    def start(
        self, graph: PipelineGraph, source: Source, /, **options: Any
    ) -> AbstractAsyncContextManager[RunHandle]:
        """Begin to run a graph."""
        return _own(graph).start(source, **options)


def _own(graph: PipelineGraph) -> UnifiedStageGraph:
    assert isinstance(graph, UnifiedStageGraph), "a pipeline keeps the graphs that were built here"
    return graph
