"""Random pipelines that are valid, for tests with Hypothesis."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import attrs
import trio

from actorflow.errors import (
    InvalidArgumentError,
    MissingExtraError,
    PipelineValidationError,
)
from actorflow.model import StageOutput
from actorflow.pipeline import (
    FailureMode,
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    PipelineOptions,
    StageSpec,
    edge,
    key_true,
)
from actorflow.stages import StageContext

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

Outcome: TypeAlias = Literal["ok", "skip", "fail", "raise", "retry", "cancel", "call_off"]
WhenCancelled: TypeAlias = Literal["stop", "linger", "raise"]

# Simple ones first: Hypothesis shrinks towards the beginning.
OUTCOMES: Final[tuple[Outcome, ...]] = (
    *("ok", "skip", "fail", "raise", "retry", "cancel", "call_off"),
)
WAYS_TO_STOP: Final[tuple[WhenCancelled, ...]] = ("stop", "linger", "raise")
LINGERING: Final = 0.3


@final
@attrs.frozen
class ScriptedStage:
    """A stage that reads, sends, waits and ends as it is told."""

    outcome: Outcome = "ok"
    """How it ends: by one of the five statuses, by raising, or by calling off the whole run."""
    says: bool = True
    """What it leaves under `yes`; those who ask for that run or not."""
    seconds: float = 0.0
    """How long it waits before it ends."""
    when_cancelled: WhenCancelled = "stop"
    """What it does meanwhile: stop at once, clean up for a while first, or raise something."""
    sends: int = 0
    """How many numbers it sends first; somebody has to stream from it."""
    reads: bool = False
    """Whether it reads its streams to their ends before anything else."""

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Follow the script."""
        read = []
        try:
            for source in ctx.inputs.stream_sources if self.reads else ():
                read += [item async for item in ctx.stream(source)]
            for number in range(self.sends):
                await ctx.send(number)
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            await self._be_cancelled()  # noqa: ASYNC102 - what it shields is the point
            raise
        return self._end(ctx, read)

    async def _be_cancelled(self) -> None:
        if self.when_cancelled == "linger":
            with trio.CancelScope(shield=True):
                await trio.sleep(LINGERING)
        elif self.when_cancelled == "raise":
            raise OSError("told to raise when cancelled")

    def _end(self, ctx: StageContext, read: Sequence[Any]) -> StageOutput:
        match self.outcome:
            case "skip":
                return StageOutput.skip("told to")
            case "fail":
                return StageOutput.fail("told to")
            case "retry":
                return StageOutput.retry("told to")
            case "cancel":
                return StageOutput.cancel("told to")
            case "raise":
                raise LookupError("told to raise")
            case "call_off":
                ctx.cancel_token.cancel("told to call off the run")
        hint = {} if self.says else {"skip_reason": "told to say no"}
        return StageOutput.ok(hint, yes=self.says, read=read, attempt=ctx.attempt)


@final
@attrs.frozen
class _Plan:
    """A stage among others. Distances count back from it, so that it may lose neighbours."""

    script: ScriptedStage
    needs: frozenset[int]
    streams: int
    join: Literal["any", "all", "always"]
    asks: Literal["nothing", "edge", "when", "hint"]
    is_guard: bool
    timeout: float | None

    def needed(self, number: int) -> list[str]:
        return [f"s{number - back}" for back in sorted(self.needs) if back <= number]

    def producer(self, number: int) -> str | None:
        # Without dependencies, because what it needs might wait for its producer's end.
        alone = 0 < self.streams <= number and not self.needed(number)
        return f"s{number - self.streams}" if alone else None

    def spec(self, number: int, producers: Collection[str | None]) -> StageSpec:
        name, needed, producer = f"s{number}", self.needed(number), self.producer(number)
        sends = self.script.sends if name in producers else 0
        condition = _said_yes if self.asks == "edge" else None
        return StageSpec(
            name,
            attrs.evolve(self.script, sends=sends, reads=producer is not None),
            kind="guard" if self.is_guard and needed else None,
            dependencies=[edge(other, when=condition) for other in needed],
            conditional=self.asks == "hint",
            when=key_true(needed[0], "yes") if needed and self.asks == "when" else None,
            join=self.join,
            stream_from=producer or (),
            stream_buffer=2 if producer else 16,
            timeout=self.timeout,
        )


def _said_yes(output: StageOutput) -> bool:
    return output.data.get("yes") is True


def pipelines(
    *,
    max_stages: int = 6,
    outcomes: Collection[Outcome] = OUTCOMES,
    failure_modes: Collection[FailureMode | str] = tuple(FailureMode),
    conditions: bool = True,
    streams: bool = True,
    guards: bool = True,
) -> SearchStrategy[Pipeline]:
    """A strategy for valid pipelines of `ScriptedStage` objects named `s0`, `s1` ...

    Stages depend on earlier ones with all kinds of joins and, unless switched
    off, ask for conditions, stream from each other, and are guards that have a
    stage run again. They take virtual seconds, some have a time limit, and they
    end in one of `outcomes`. A failing example shrinks to few stages that do
    nothing remarkable, and is printed stage by stage.

    Raises:
      MissingExtraError: without Hypothesis.
      InvalidArgumentError: if `outcomes` are others than there are, or none.
    """
    if not outcomes or not set(outcomes) <= set(OUTCOMES):
        raise InvalidArgumentError("outcomes", outcomes, "some of " + ", ".join(OUTCOMES))
    hypothesis = _hypothesis()
    st: Any = hypothesis.strategies
    seconds = st.sampled_from((0.0, 0.1, 0.5, 1.0))
    scripts = st.builds(
        ScriptedStage,
        outcome=st.sampled_from(sorted(outcomes, key=OUTCOMES.index)),
        says=st.booleans().map(lambda no: not no),
        seconds=seconds,
        when_cancelled=st.sampled_from(WAYS_TO_STOP),
        sends=st.integers(0, 5),
    )
    plans = st.builds(
        _Plan,
        script=scripts,
        needs=st.frozensets(st.integers(1, 3), max_size=3),
        streams=st.integers(0, 2) if streams else st.just(0),
        join=st.sampled_from(("any", "all", "always")),
        asks=st.sampled_from(("nothing", "edge", "when", "hint") if conditions else ("nothing",)),
        is_guard=st.booleans() if guards else st.just(False),
        timeout=st.sampled_from((None, 0.2)),
    )

    @st.composite  # type: ignore[untyped-decorator]
    def build(draw: DrawFn) -> Pipeline:
        drawn = draw(st.lists(plans, min_size=1, max_size=max_stages))
        producers = {plan.producer(number) for number, plan in enumerate(drawn)}
        specs = [plan.spec(number, producers) for number, plan in enumerate(drawn)]
        pipeline = Pipeline(
            "drawn",
            draw(st.permutations(specs)),
            failure_mode=draw(st.sampled_from(list(failure_modes))),
            max_concurrency=draw(st.sampled_from((None, 1, 2))),
            guard_retry_strategy=_strategy_of(specs),
        )
        try:
            pipeline.validate()
        except PipelineValidationError:
            # A guard may not have a stage run again that somebody streams from.
            pipeline = pipeline.with_options(guard_retry_strategy=None)
        hypothesis.note(_described(pipeline))
        return pipeline

    strategy: SearchStrategy[Pipeline] = build()
    return strategy


def _hypothesis() -> ModuleType:
    try:
        import hypothesis.strategies
    except ImportError:
        raise MissingExtraError("actorflow.testing.pipelines", "testing") from None
    return hypothesis


def _strategy_of(specs: Sequence[StageSpec]) -> GuardRetryStrategy | None:
    guards = [spec for spec in specs if spec.kind == "guard"]
    policies = {guard.name: GuardRetryPolicy(guard.dependencies[0]) for guard in guards}
    return GuardRetryStrategy(policies) if policies else None


def _described(pipeline: Pipeline) -> str:
    """What somebody can read of a pipeline: whatever is not as usual."""
    usual = ScriptedStage()
    return (
        "\n".join(
            f"{spec.name}: {type(usual).__name__}({_changes(spec.runner, usual)})"
            f" {_changes(spec, StageSpec(spec.name, spec.runner))}"
            for spec in pipeline.stages
        )
        + f"\n{_changes(pipeline.options, PipelineOptions())}"
    )


def _changes(value: Any, usual: Any) -> str:
    found = ((it.name, getattr(value, it.name)) for it in attrs.fields(type(value)))
    return ", ".join(
        f"{name}={str(its)!r}" if isinstance(its, str) else f"{name}={its!r}"
        for name, its in found
        if its != getattr(usual, name)
    )
