"""The stage graphs of old: stages get the run's context, and every stage always runs.

Deprecated; new code builds a `UnifiedStageGraph`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast, final

from actorflow import clock
from actorflow.errors import UnifiedPipelineCancelled, contract_error
from actorflow.pipeline import FailureMode, chosen
from actorflow.stages import PipelineContext, StageResult

from ._graph import UnifiedStageGraph
from ._stage_actor import caller_of
from ._stage_results import PIPELINE_CANCELED

if TYPE_CHECKING:
    from actorflow.pipeline import StageSpec

    from ._results import PipelineResults

# What the stages of the current run are called with.
_context: Final[ContextVar[Any]] = ContextVar("actorflow_legacy_context")
_BRANCH: Final = chosen("router", "branch")


@final
class StageGraph:
    """Stages in the order of their dependencies, without conditions.

    Stages get the `PipelineContext` itself. A failed stage does not stop the run
    and what depends on it runs too; how each stage ended is in its result.
    """

    def __init__(
        self,
        specs: Iterable[StageSpec],
        interceptors: Iterable[Any] | None = None,
        **options: Any,
    ) -> None:
        """Check and wire `specs`; `options` are those of a `UnifiedStageGraph`.

        Raises:
          PipelineValidationError: also for stages with conditions or streams.
        """
        options["failure_mode"] = FailureMode.BEST_EFFORT
        self._graph = UnifiedStageGraph(
            map(_unconditional, specs), interceptors=interceptors, **options
        )

    @property
    def specs(self) -> tuple[StageSpec, ...]:
        """The stages in declaration order."""
        return self._graph.specs

    async def run(self, ctx: PipelineContext) -> dict[str, StageResult]:
        """Run to the end and return how each stage ended, also after a cancellation.

        Then all stages that had not ended count as failed.
        """
        token = _context.set(ctx)
        try:
            return dict((await self._graph.run(ctx)).stage_results)
        except UnifiedPipelineCancelled as canceled:
            return self._canceled(cast("PipelineResults", canceled.results).stage_results)
        finally:
            _context.reset(token)

    def _canceled(self, results: Mapping[str, StageResult]) -> dict[str, StageResult]:
        now = clock.now()
        return {
            name: results[name]
            if name in results and results[name].output is not None
            else StageResult(name, "failed", now, now, error=PIPELINE_CANCELED)
            for name in self._graph.stage_names
        }


def _unconditional(spec: StageSpec) -> StageSpec:
    # A branch of `with_conditional_branch` is one more stage; other conditions mean
    # something that this graph would not do.
    is_branch = spec.conditional and isinstance(spec.when, type(_BRANCH))
    if spec.stream_from or spec.edge_conditions or not (spec.when is None or is_branch):
        raise contract_error(
            "OPTION",
            f"stage {spec.name!r} has a condition or a stream, and a legacy graph runs every stage",
            [spec.name],
            fix="Build the pipeline without legacy=True.",
            stage=spec.name,
            field="when",
            found=repr(spec.when),
        )
    call = caller_of(spec)
    return spec.evolve(conditional=False, when=None, args={}, runner=lambda _: call(_context.get()))
