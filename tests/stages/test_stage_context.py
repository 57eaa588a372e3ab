from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from trio.testing import MockClock, assert_checkpoints

from actorflow import clock
from actorflow.cancellation import CancellationToken
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    NotInRunError,
    StageCancellationRequested,
)
from actorflow.model import ContextSnapshot, RunIdentity, StageKind, StageOutput
from actorflow.stages import (
    GuardFeedback,
    PipelineContext,
    PipelineTimer,
    RunPort,
    Stage,
    StageContext,
    StageInputs,
    SubpipelineResult,
    create_stage_context,
)

RUN = UUID(int=1)
SNAPSHOT = ContextSnapshot(
    RunIdentity(RUN, UUID(int=2), UUID(int=3), UUID(int=4), UUID(int=5), UUID(int=6)),
    topology="chat_fast",
    execution_mode="practice",
    metadata={"channel": "cli"},
)


class OneItem:
    """Streams one item."""

    def __init__(self, item: Any) -> None:
        self.items = [item]

    def __aiter__(self) -> OneItem:
        return self

    async def __anext__(self) -> Any:
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop()


class FakeRun:
    """A run that answers every request with what it was asked."""

    pipeline_name = "chat"
    deadline = 5.0
    idempotency = None

    def __init__(self) -> None:
        self.context = PipelineContext(pipeline_run_id=RUN, runtime="runtime", service="chat")
        self.cancel_token = CancellationToken()
        self.guard_feedback = {"guard": GuardFeedback("guard", 1)}
        self.bus: Any = object()
        self.asked: list[tuple[Any, ...]] = []

    def extend_timeout(self, seconds: float) -> None:
        self.asked.append(("extend_timeout", seconds))

    def add_cleanup(self, callback: Callable[[], object], name: str | None) -> None:
        self.asked.append(("add_cleanup", callback, name))

    def stream(self, source: str | None) -> AsyncIterator[Any]:
        return OneItem(source)

    def offer(self, item: Any) -> bool:
        return bool(item == "there is room for it")

    async def send(self, item: Any) -> None:
        self.asked.append(("send", item))

    async def stream_output(self, source: str | None) -> StageOutput:
        return StageOutput.ok(source=source)

    async def spawn_subpipeline(
        self,
        pipeline: object,
        source: object,
        *,
        correlation_id: UUID | str | None,
        topology: str | None,
        execution_mode: str | None,
        inherit_data: bool | Collection[str],
        data_overrides: Mapping[str, Any] | None,
    ) -> SubpipelineResult:
        asked = (correlation_id, topology, execution_mode, inherit_data, data_overrides)
        self.asked.append((pipeline, source, *asked))
        return SubpipelineResult(True, RUN)


def by_hand(**more: Any) -> StageContext:
    return StageContext(SNAPSHOT, StageInputs(SNAPSHOT), "stage", **more)


def in_run() -> tuple[StageContext, FakeRun]:
    run = FakeRun()
    port: RunPort = run
    return by_hand(run=port), run


def test_context_shows_what_it_was_made_from() -> None:
    ports = object()
    inputs = StageInputs(SNAPSHOT, {"a": StageOutput.ok()}, ports)
    timer = PipelineTimer()

    context = create_stage_context(
        snapshot=SNAPSHOT, inputs=inputs, stage_name="stage", timer=timer
    )

    assert (context.snapshot, context.inputs, context.timer) == (SNAPSHOT, inputs, timer)
    assert (context.stage_name, context.event_sink, context.ports) == ("stage", None, ports)
    for name in (
        *("pipeline_run_id", "request_id", "session_id", "user_id", "org_id", "interaction_id"),
        *("topology", "execution_mode", "metadata"),
    ):
        assert getattr(context, name) == getattr(SNAPSHOT, name)
        assert getattr(context, name) is not None
    assert (context.get_metadata("channel"), context.get_metadata("x", 5)) == ("cli", 5)
    assert (context.kind, context.config) == (StageKind.TRANSFORM, {})
    assert (context.attempt, context.try_number) == (1, 1)
    assert isinstance(by_hand().timer, PipelineTimer)


@pytest.mark.spec("10.12.2")
async def test_stage_changes_nothing_but_through_methods() -> None:
    context, run = in_run()
    run.context.data |= {"words": ["a"], "by_id": {1: "x"}}
    given: Any = context

    changes: list[Callable[[], object]] = [
        lambda: setattr(given, "stage_name", "other"),
        lambda: setattr(given, "data", {}),
        lambda: setattr(given, "anything", 1),
        lambda: given.data.update(n=1),
        lambda: given.data.__setitem__("n", 1),
        lambda: given.data["words"].append("b"),
        lambda: setattr(given.snapshot, "topology", "t"),
        lambda: given.snapshot.metadata.update(n=1),
        lambda: setattr(given.inputs, "strict", False),
    ]
    for change in changes:
        with pytest.raises((AttributeError, TypeError)):
            change()

    await context.bag.write("key", 1, context.stage_name)
    assert run.context.bag.get_writer("key") == "stage"
    assert run.context.data == {"words": ["a"], "by_id": {1: "x"}}


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def tamper(value: Any) -> None:
    """Try to change a value in every place where it could be changed."""
    if isinstance(value, dict):
        with pytest.raises(TypeError):
            value["new"] = 1
        for item in value.values():
            tamper(item)
    elif isinstance(value, (list, tuple)):
        with pytest.raises((TypeError, AttributeError)):
            value.append(1)  # type: ignore[union-attr]
        for item in value:
            tamper(item)


@pytest.mark.spec("10.12.2")
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_nothing_a_stage_was_given_can_be_changed(data: dict[str, Any]) -> None:
    run = FakeRun()
    run.context.data = data
    before = repr(data)
    snapshot = ContextSnapshot(RunIdentity(), metadata=data)
    inputs = StageInputs(snapshot, {"a": StageOutput.ok(data)})
    context = StageContext(snapshot, inputs, "stage", run=run)

    for value in (*context.data.values(), context.metadata, inputs.prior_outputs["a"].data):
        tamper(value)

    assert repr(data) == before
    assert context.data == data


def test_data_is_a_live_view() -> None:
    context, run = in_run()
    data = context.data

    run.context.data["n"] = 1

    assert data == {"n": 1}
    assert (list(data), len(data), data.get("x")) == (["n"], 1, None)
    assert ("n" in data, "x" in data) == (True, False)
    assert repr(data) == "ReadOnlyData({'n': 1})"


@pytest.mark.spec("10.12.3")
async def test_stage_sees_the_cancellation_of_its_run() -> None:
    context, run = in_run()
    before = (context.is_cancelled, context.cancellation_reason)
    context.raise_if_cancelled()
    with assert_checkpoints():
        await context.cancellation_checkpoint()

    run.cancel_token.cancel("enough")

    assert before == (False, None)
    assert (context.is_cancelled, context.cancellation_reason) == (True, "enough")
    with pytest.raises(StageCancellationRequested) as caught:
        context.raise_if_cancelled()
    assert caught.value.reason == "enough"
    with pytest.raises(StageCancellationRequested), assert_checkpoints():
        await context.cancellation_checkpoint()


@pytest.mark.spec("10.12.3")
async def test_context_outside_a_run_is_never_cancelled() -> None:
    context = by_hand()

    context.raise_if_cancelled()
    await context.cancellation_checkpoint()

    assert (context.is_cancelled, context.cancellation_reason) == (False, None)


@pytest.mark.spec("10.12.3")
def test_cancellation_without_a_reason_names_the_stage() -> None:
    context, run = in_run()
    token: Any = run

    class Unexplained:
        is_cancelled = True
        reason = None

    token.cancel_token = Unexplained()

    with pytest.raises(StageCancellationRequested, match=r"^Stage 'stage' was cancelled"):
        context.raise_if_cancelled()


@pytest.mark.spec("10.12.4")
async def test_context_is_told_as_its_snapshot_and_itself(mock_clock: MockClock) -> None:
    before = clock.now()
    context = by_hand()
    mock_clock.jump(5)

    assert context.to_dict() == SNAPSHOT.to_dict() | {
        "stage_name": "stage",
        "started_at": before.isoformat(),
    }
    assert context.started_at == before
    assert context.started_at.tzinfo is timezone.utc
    assert (context.now() - before).total_seconds() == 5


@pytest.mark.spec("10.12.5")
async def test_timer_follows_the_clock(mock_clock: MockClock) -> None:
    timer = PipelineTimer()
    start = clock.now()

    mock_clock.jump(1.5)

    assert timer.started_at == start
    assert timer.pipeline_start_ms == pytest.approx(start.timestamp() * 1000)
    assert timer.now_ms() - timer.pipeline_start_ms == pytest.approx(1500, abs=0.01)
    assert timer.elapsed_ms() == 1500


@pytest.mark.spec("10.12.5")
def test_elapsed_time_ignores_the_wall_clock() -> None:
    with clock.starting_at(1_000_000):
        timer = PipelineTimer()
    with clock.starting_at(5_000_000):
        assert timer.now_ms() == 5e9
        assert 0 <= timer.elapsed_ms() < 60_000

    assert timer.pipeline_start_ms == 1e9


def test_context_refuses_bad_arguments() -> None:
    no_snapshot: Any = RunIdentity()

    with pytest.raises(InvalidArgumentError, match="stage_name must be a name"):
        StageContext(SNAPSHOT, StageInputs(SNAPSHOT), "")
    with pytest.raises(InvalidTypeError, match="snapshot must be a ContextSnapshot"):
        StageContext(no_snapshot, StageInputs(SNAPSHOT), "stage")


# What only a run can serve


async def test_run_serves_what_a_stage_asks_for() -> None:
    context, run = in_run()

    def cleanup() -> None: ...

    context.extend_timeout(3)
    context.add_cleanup(cleanup)
    context.add_cleanup(cleanup, name="close")
    await context.send("there is room for it")
    await context.send("item")
    streamed = [item async for item in context.stream("mic")] + [
        item async for item in context.stream()
    ]
    output = await context.stream_output("mic")

    assert run.asked == [
        ("extend_timeout", 3),
        ("add_cleanup", cleanup, None),
        ("add_cleanup", cleanup, "close"),
        ("send", "item"),
    ]
    assert streamed == ["mic", None]
    assert output.data == {"source": "mic"}
    assert (context.run_id, context.pipeline_name, context.runtime) == (RUN, "chat", "runtime")
    assert context.bag is run.context.bag
    assert context.outputs is run.context.outputs
    assert context.cancel_token is run.cancel_token
    assert (context.deadline, context.idempotency) == (5.0, None)
    assert context.guard_feedback is run.guard_feedback
    assert context.bus is run.bus


async def test_run_is_asked_for_children() -> None:
    context, run = in_run()

    result = await context.spawn_subpipeline("child")
    await context.spawn_subpipeline(
        "child",
        "text",
        correlation_id="c",
        topology="t",
        execution_mode="m",
        inherit_data=["a"],
        data_overrides={"b": 1},
    )

    assert result == SubpipelineResult(True, RUN)
    assert run.asked == [
        ("child", None, None, None, None, False, None),
        ("child", "text", "c", "t", "m", ["a"], {"b": 1}),
    ]


ONLY_IN_A_RUN: dict[str, Callable[[StageContext], Any]] = {
    "data": lambda context: context.data,
    "bag": lambda context: context.bag,
    "outputs": lambda context: context.outputs,
    "run_id": lambda context: context.run_id,
    "pipeline_name": lambda context: context.pipeline_name,
    "runtime": lambda context: context.runtime,
    "cancel_token": lambda context: context.cancel_token,
    "add_cleanup": lambda context: context.add_cleanup(print),
    "idempotency": lambda context: context.idempotency,
    "deadline": lambda context: context.deadline,
    "extend_timeout": lambda context: context.extend_timeout(1),
    "guard_feedback": lambda context: context.guard_feedback,
    "stream": lambda context: context.stream(),
    "bus": lambda context: context.bus,
}


@pytest.mark.parametrize("operation", ONLY_IN_A_RUN)
def test_context_outside_a_run_says_that_it_needs_one(operation: str) -> None:
    with pytest.raises(NotInRunError) as caught:
        ONLY_IN_A_RUN[operation](by_hand())

    assert caught.value.operation == operation
    assert str(caught.value) == f"{operation} needs a run, and this context belongs to none"


@pytest.mark.parametrize("operation", ["send", "stream_output", "spawn_subpipeline"])
async def test_waiting_outside_a_run_is_refused_too(operation: str) -> None:
    with pytest.raises(NotInRunError, match=operation):
        await getattr(by_hand(), operation)("x")


def test_objects_with_name_kind_and_execute_are_stages() -> None:
    class Echo:
        name = "echo"
        kind = StageKind.TRANSFORM

        async def execute(self, ctx: StageContext) -> StageOutput:
            return StageOutput.ok(text=ctx.snapshot.input_text)

    stage: Stage = Echo()

    assert isinstance(stage, Stage)
    assert not isinstance(object(), Stage)
