"""A builder for people who like to write a pipeline as one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, final, overload

from ._builder import PipelineBuilder
from ._patterns import (
    with_conditional_branch,
    with_fan_out_fan_in,
    with_linear_chain,
    with_parallel_stages,
)
from ._pipeline import DEFAULT_NAME

if TYPE_CHECKING:
    from typing import Self, Unpack

    from actorflow.model import StageKind

    from ._engine import GraphKeywords, LegacyGraph, PipelineGraph
    from ._patterns import Made, StageFactory
    from ._runners import Runner
    from ._spec import Names
    from ._stage import FurtherOptions


@final
class FluentPipelineBuilder:
    """Grows in place: every method adds to the same builder and returns it.

    Patterns go on from `last_stage` unless told otherwise; `stage` never does,
    it depends on what `depends_on` says.
    """

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self._builder = PipelineBuilder(name)
        self._last_stage: str | None = None

    @property
    def builder(self) -> PipelineBuilder:
        """The immutable builder so far."""
        return self._builder

    @property
    def last_stage(self) -> str | None:
        """Where the next pattern goes on; None if the last one left several ends."""
        return self._last_stage

    def stage(
        self,
        name: str,
        runner: Runner,
        *,
        depends_on: Names | None = None,
        conditional: bool = False,
        kind: StageKind | str | None = None,
        inputs: str | Iterable[str] | None = None,
        outputs: str | Iterable[str] | None = None,
        args: Mapping[str, Any] | None = None,
        **further: Unpack[FurtherOptions],
    ) -> Self:
        """Add one stage."""
        self._builder = self._builder.with_stage(
            name, runner, depends_on, inputs, outputs, conditional, args, kind=kind, **further
        )
        self._last_stage = name
        return self

    def linear_chain(
        self, count: int, factory: StageFactory, *, first_depends_on: Names | None = None
    ) -> Self:
        """Add `count` stages, each depending on the one before."""
        first = self._or_last(first_depends_on)
        grown = with_linear_chain(self._builder, count, factory, first_depends_on=first)
        return self._go_on(grown, one_end=True)

    def parallel(
        self, count: int, factory: StageFactory, *, depends_on: Names | None = None
    ) -> Self:
        """Add `count` stages that depend on the same ones."""
        shared = self._or_last(depends_on)
        grown = with_parallel_stages(self._builder, count, factory, depends_on=shared)
        return self._go_on(grown, one_end=False)

    def fan_out_fan_in(
        self,
        fan_out: Made,
        parallel_count: int,
        parallel_factory: StageFactory,
        fan_in: Made,
        *,
        fan_out_depends_on: Names | None = None,
    ) -> Self:
        """Add a stage, workers that depend on it, and a stage that depends on every worker."""
        grown = with_fan_out_fan_in(
            self._builder,
            fan_out,
            parallel_count,
            parallel_factory,
            fan_in,
            fan_out_depends_on=self._or_last(fan_out_depends_on),
        )
        return self._go_on(grown, one_end=True)

    def conditional_branch(
        self,
        router: Made,
        branches: Mapping[str, Made],
        merge: Made | None = None,
        *,
        router_depends_on: Names | None = None,
    ) -> Self:
        """Add a router, a stage for each of its branches, and a stage that joins them."""
        grown = with_conditional_branch(
            self._builder,
            router,
            branches,
            merge,
            router_depends_on=self._or_last(router_depends_on),
        )
        return self._go_on(grown, one_end=merge is not None)

    @overload
    def build(
        self, *, legacy: Literal[False] = False, **options: Unpack[GraphKeywords]
    ) -> PipelineGraph: ...

    @overload
    def build(self, *, legacy: Literal[True], **options: Unpack[GraphKeywords]) -> LegacyGraph: ...

    def build(self, *, legacy: bool = False, **options: Any) -> PipelineGraph | LegacyGraph:
        """What `PipelineBuilder.build` gives."""
        build = self._builder.build
        return build(legacy=True, **options) if legacy else build(**options)

    def _or_last(self, given: Names | None) -> Names | None:
        return self._last_stage if given is None else given

    def _go_on(self, grown: PipelineBuilder, *, one_end: bool) -> Self:
        # A pattern of no stages gives the builder back and changes nothing.
        if grown is not self._builder:
            self._builder = grown
            self._last_stage = grown.stages[-1].name if one_end else None
        return self
