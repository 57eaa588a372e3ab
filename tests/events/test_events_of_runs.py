"""Random pipelines in front of a slow or failing sink: what holds for the events of each run."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import CATALOGUE, BackpressureAwareEventSink, Delivery
from actorflow.interceptors import RetryInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext

ENDINGS: Final = ("pipeline.completed", "pipeline.failed", "pipeline.canceled")
STAGE_ENDINGS: Final = ("stage.completed", "stage.failed", "stage.skipped")
WITHIN: Final = (
    "stage.retry_scheduled",
    "stage.retry_exhausted",
    "work.retry_attempt",
    "app.noise",
)

# What the downstream does with the next event: seconds it takes, and whether it fails then.
BEHAVIOURS: Final = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.05, 0.4, 9.0]), st.booleans()), max_size=15
)


@attrs.frozen
class Behaviour:
    """What a stage of these pipelines does."""

    seconds: float
    end: str
    noise: int
    child: UnifiedStageGraph | None

    async def execute(self, ctx: StageContext) -> Any:
        for number in range(self.noise):
            ctx.try_emit_event("app.noise", {"n": number})
        await trio.sleep(self.seconds)
        if self.child is not None:
            await ctx.spawn_subpipeline(self.child)
        match self.end:
            case "skip":
                return StageOutput.skip("no need")
            case "fail":
                return StageOutput.fail("no")
            case "raise":
                raise OSError("broken")
            case "cancel":
                return StageOutput.cancel("enough")
            case "retry":
                return StageOutput.retry("busy")
        return None


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> UnifiedStageGraph:
    specs: list[StageSpec] = []
    for number in range(draw(st.integers(1, 4))):
        before = [spec.name for spec in specs]
        has_child = depth < 2 and draw(st.sampled_from([False, False, True]))
        behaviour = Behaviour(
            draw(st.sampled_from([0.0, 0.0, 0.1, 0.7])),
            draw(st.sampled_from(["ok", "ok", "ok", "skip", "fail", "raise", "cancel", "retry"])),
            draw(st.integers(0, 2)),
            draw(graphs(depth + 1)) if has_child else None,
        )
        needed = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        specs.append(
            StageSpec(
                f"s{number}",
                behaviour,
                kind=draw(st.sampled_from(["work", "transform"])),
                dependencies=needed,
                timeout=draw(st.sampled_from([None, None, 0.3])),
            )
        )
    return UnifiedStageGraph(
        specs,
        failure_mode=draw(st.sampled_from(["fail_fast", "continue_on_failure", "best_effort"])),
        interceptors=[RetryInterceptor(2, 100, jitter_strategy="none")],
        emit_stage_wide_events=draw(st.booleans()),
        emit_pipeline_wide_event=draw(st.booleans()),
    )


class Undelivered(logging.Handler):
    """Hears of emissions that gave up waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "event_undelivered":
            about = vars(record)
            self.events.append((about["pipeline_run_id"], about["seq"]))


def _key(data: Mapping[str, Any] | None) -> tuple[str, int]:
    assert data is not None
    return data["pipeline_run_id"], data["seq"]


@attrs.define
class World:
    """The sink that runs are given, the queue behind it, and the downstream behind that."""

    behaviours: list[tuple[float, bool]]
    size: int
    emitted: list[tuple[str, Mapping[str, Any]]] = attrs.field(factory=list)
    arrived: list[tuple[str, int]] = attrs.field(factory=list)
    delivered: list[tuple[str, int]] = attrs.field(factory=list)
    told: list[tuple[str, int]] = attrs.field(factory=list)
    came_the_wrong_way: list[str] = attrs.field(factory=list)
    attempted: int = 0
    queue: BackpressureAwareEventSink = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = BackpressureAwareEventSink(
            Downstream(self),
            max_queue_size=self.size,
            on_drop=lambda _, data: self.told.append(_key(data)),
            on_error=lambda _, data, __: self.told.append(_key(data)),
            stop_timeout=5,
        )

    def check(self) -> None:
        now = self.queue.statistics()
        settled = now.delivered + now.failed + now.abandoned
        assert now.accepted == settled + now.pending + now.in_flight

    def note(self, way: Delivery, type: str, data: Mapping[str, Any]) -> None:
        self.emitted.append((type, data))
        if type in CATALOGUE and CATALOGUE[type].delivery is not way:
            self.came_the_wrong_way.append(type)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        assert data is not None
        self.note(Delivery.WAIT, type, data)
        await self.queue.emit(type=type, data=data)
        self.attempted += 1
        self.check()

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        assert data is not None
        self.note(Delivery.TRY, type, data)
        self.attempted += 1
        try:
            return self.queue.try_emit(type=type, data=data)
        finally:
            self.check()


@attrs.frozen
class Downstream:
    world: World

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.world.arrived.append(_key(data))
        behaviours = self.world.behaviours
        seconds, fails = behaviours.pop(0) if behaviours else (0.0, False)
        await trio.sleep(seconds)
        self.world.check()
        if fails:
            raise OSError(type)
        self.world.delivered.append(_key(data))

    def try_emit(self, **_: Any) -> None:
        raise AssertionError("a worker can wait")


def check_numbers(world: World, undelivered: list[tuple[str, int]]) -> None:
    """E10, E11, E46: numbers without a hole, in order, and nothing lost without a word."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for _, data in world.emitted:
        numbers[data["pipeline_run_id"]].append(data["seq"])
    for given_out in numbers.values():
        assert given_out == list(range(1, len(given_out) + 1))
    seen: dict[str, int] = defaultdict(int)
    for run, seq in world.arrived:
        assert seen[run] < seq
        seen[run] = seq
    out = Counter([*world.delivered, *world.told, *undelivered])
    assert out == Counter(_key(data) for _, data in world.emitted)
    now = world.queue.statistics()
    assert (now.pending, now.in_flight) == (0, 0)
    assert now.accepted == now.delivered + now.failed + now.abandoned
    assert world.attempted == now.accepted + now.dropped


def check_run(events: list[tuple[str, Mapping[str, Any]]]) -> None:
    """E12, E13, E69: one run from its first event to its last."""
    types = [type for type, _ in events]
    assert [type for type in types if type in ENDINGS] == [types[-1]]
    if types[-1] == "pipeline.canceled" and set(types[:-1]) <= {"pipeline.wide"}:
        return  # It was canceled before it began.
    assert types[0] == "pipeline.started"
    assert types.count("pipeline.started") == 1
    running: set[str] = set()
    ended: set[str] = set()
    for type, data in events:
        stage = data.get("stage")
        if type == "stage.started":
            assert stage not in running | ended
            running.add(stage or "")
        elif type in STAGE_ENDINGS:
            has_run = type != "stage.skipped" or data["duration_ms"] is not None
            assert (stage in running) is has_run
            assert stage not in ended
            running.discard(stage or "")
            ended.add(stage or "")
        elif type in WITHIN:
            assert stage in running
    assert not running


def check_children(world: World) -> None:
    """E70: of each child one thing is said at the end, and after its birth."""
    for place, (type, born) in enumerate(world.emitted):
        if type != "pipeline.spawned_child":
            continue
        child = born["child_run_id"]
        ends = [
            (at, type)
            for at, (type, data) in enumerate(world.emitted)
            if (
                type in ("pipeline.child_completed", "pipeline.child_failed")
                and data["child_run_id"] == child
            )
            or (type == "pipeline.canceled" and data["pipeline_run_id"] == child)
        ]
        assert len(ends) == 1
        assert ends[0][0] > place


@pytest.mark.spec("E10", "E11", "E12", "E13", "E14", "E46", "E54", "E69", "E70", "E121")
@given(
    graphs(),
    BEHAVIOURS,
    st.integers(1, 6),
    st.sampled_from([None, None, 0.0, 0.15, 0.6]),
    st.booleans(),
)
@settings(max_examples=150)
def test_events_of_any_run_are_in_order_and_complete(
    graph: UnifiedStageGraph,
    behaviours: list[tuple[float, bool]],
    size: int,
    cancel_after: float | None,
    everything: bool,
) -> None:
    world, undelivered = World(list(behaviours), size), Undelivered()
    patience = trio.CancelScope()

    async def main() -> None:
        if cancel_after is not None:
            patience.deadline = trio.current_time() + cancel_after
        # Either the run is cancelled, or all that is going on, the sink's block too.
        with patience if everything else nullcontext():
            async with world.queue:
                with (
                    nullcontext() if everything else patience,
                    suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled),
                ):
                    await graph.run(PipelineContext(), event_sink=world)

    logger = logging.getLogger("actorflow.events")
    # What failed downstream is told to `on_error`; thousands of tracebacks take their time.
    noisy = logger.getChild("backpressure")
    logger.addHandler(undelivered)
    noisy.disabled = True
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        noisy.disabled = False
        logger.removeHandler(undelivered)

    assert world.came_the_wrong_way == []
    check_numbers(world, undelivered.events)
    runs: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for type, data in world.emitted:
        runs[data["pipeline_run_id"]].append((type, data))
    for events in runs.values():
        check_run(events)
    check_children(world)
