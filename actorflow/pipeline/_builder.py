"""A pipeline that is checked while it grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, final, overload

import attrs

from ._graph import wire
from ._pipeline import DEFAULT_NAME, Pipeline
from ._stage import as_spec, new_spec
from ._validation import find_problems, first_of

if TYPE_CHECKING:
    from typing import Unpack

    from actorflow.model import StageKind

    from ._engine import GraphKeywords, LegacyGraph, PipelineGraph
    from ._runners import Runner
    from ._spec import Names, StageSpec
    from ._stage import FurtherOptions, StageLike
    from ._stages import StagesLike


@final
@attrs.frozen(init=False, eq=False)
class PipelineBuilder:
    """A pipeline in the making, valid at every step.

    Each method that adds returns a new builder and raises at once if what was
    added cannot work with what is there. A `Pipeline` takes stages in any order
    and is checked at the end.
    """

    _pipeline: Pipeline

    def __init__(self, name: str = DEFAULT_NAME, stages: StagesLike = ()) -> None:
        pipeline = Pipeline(name, stages)
        self.__attrs_init__(_checked(pipeline, pipeline.stages))

    @property
    def name(self) -> str:
        return self._pipeline.name

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """The specs in declaration order."""
        return self._pipeline.stages

    def pipeline(self) -> Pipeline:
        """The pipeline so far."""
        return self._pipeline

    def get_stage(self, name: str) -> StageSpec | None:
        """The spec of a stage, or None."""
        return self._pipeline.get_stage(name)

    def has_stage(self, name: str) -> bool:
        return self._pipeline.has_stage(name)

    def stage_names(self) -> list[str]:
        """The names, each after those it depends on; declaration order among equals."""
        stages = self.stages
        return [stages[number].name for number in wire(stages).topological_order]

    def with_stage(
        self,
        name: str,
        runner: Runner,
        dependencies: Names | None = None,
        inputs: str | Iterable[str] | None = None,
        outputs: str | Iterable[str] | None = None,
        conditional: bool = False,
        args: Mapping[str, Any] | None = None,
        *,
        kind: StageKind | str | None = None,
        replace: bool = False,
        **further: Unpack[FurtherOptions],
    ) -> PipelineBuilder:
        """Add a stage that depends on stages already there; the keywords are those of `stage`."""
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

    def with_stages(self, *stages: StageLike, replace: bool = False) -> PipelineBuilder:
        """Add stages, which may depend on each other and on those already there."""
        specs = [as_spec(found, "a pipeline was given") for found in stages]
        grown = self._pipeline.with_stages(*specs, replace=replace)
        # A replaced stage may break those that depend on it; fresh ones have no dependents.
        replaced = any(spec.name in self._pipeline for spec in specs)
        return _builder(_checked(grown, grown.stages if replaced else specs))

    def compose(self, other: PipelineBuilder | Pipeline) -> PipelineBuilder:
        """Both as one: `"{left}+{right}"`, with left's stages and then right's new ones."""
        whole = self._pipeline.compose(other)
        return _builder(_checked(whole, whole.stages))

    @overload
    def build(
        self, *, legacy: Literal[False] = False, **options: Unpack[GraphKeywords]
    ) -> PipelineGraph: ...

    @overload
    def build(self, *, legacy: Literal[True], **options: Unpack[GraphKeywords]) -> LegacyGraph: ...

    def build(self, *, legacy: bool = False, **options: Any) -> PipelineGraph | LegacyGraph:
        """A graph that can be run many times; `legacy` makes it one of the old kind."""
        return self._pipeline.build_legacy(**options) if legacy else self._pipeline.build(**options)


def _builder(pipeline: Pipeline) -> PipelineBuilder:
    builder = object.__new__(PipelineBuilder)
    builder.__attrs_init__(pipeline)
    return builder


def _checked(pipeline: Pipeline, specs: Sequence[StageSpec]) -> Pipeline:
    """The pipeline, if nothing is wrong with these stages of it."""
    problems = find_problems(specs, within=pipeline.by_name) if specs else ()
    if problems:
        raise first_of(problems)
    return pipeline
