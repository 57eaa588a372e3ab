from __future__ import annotations

import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import given, strategies as st

from actorflow.errors import (
    ContextInUseError,
    InvalidArgumentError,
    InvalidTypeError,
    StageCancellationRequested,
    UndeclaredDependencyError,
)
from actorflow.model import (
    ContextSnapshot,
    Conversation,
    Enrichments,
    FrozenDict,
    MemoryEnrichment,
    Message,
    RunIdentity,
    StageArtifact,
    StageOutput,
)
from actorflow.stages import (
    ContextBag,
    CorePorts,
    OutputBag,
    PipelineContext,
    extract_service,
)
from actorflow.testing import RecordingEventSink

IDS: dict[str, Any] = {
    name: UUID(int=number)
    for number, name in enumerate(
        ["pipeline_run_id", "request_id", "session_id", "user_id", "org_id", "interaction_id"], 1
    )
}
INPUT: dict[str, Any] = {
    "input_text": "hi",
    "input_audio_duration_ms": 2.5,
    "conversation": Conversation([Message("user", "hi")]),
    "enrichments": Enrichments(memory=MemoryEnrichment(["weather"])),
    "extensions": {"a": 1},
}


def context_with(name: str, value: object) -> PipelineContext:
    fields: dict[str, Any] = {name: value}
    return PipelineContext(**fields)


def ignore(reason: str | None) -> None: ...


@pytest.mark.spec("10.11.1")
def test_context_holds_identity_topology_state_sink_and_flag() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(
        **IDS, **INPUT, topology="chat_fast", execution_mode="practice", event_sink=sink
    )

    context.data["n"] = 1
    context.outputs.write_sync("stage", StageOutput.ok())
    context.enrichments = None

    assert {name: getattr(context, name) for name in IDS} == IDS
    assert (context.topology, context.execution_mode) == ("chat_fast", "practice")
    assert context.data == {"n": 1}
    assert len(context.outputs) == 1
    assert context.event_sink is sink
    assert not context.canceled


def test_everything_has_a_default() -> None:
    context = PipelineContext()

    assert all(getattr(context, name) is None for name in (*IDS, *INPUT))
    assert (context.topology, context.execution_mode) == (None, None)
    assert (context.service, context.depth) == ("pipeline", 0)
    assert context.data == context.metadata == context.configuration == {}
    assert isinstance(context.bag, ContextBag)
    assert isinstance(context.outputs, OutputBag)
    assert context.artifacts == []
    assert (context.canceled, context.cancellation_reason) == (False, None)
    assert (context.event_sink, context.ports, context.db, context.runtime) == (None,) * 4
    assert (context.parent_run_id, context.parent_stage_id, context.correlation_id) == (None,) * 3
    assert (context.is_child_run, context.root_run_id) == (False, None)


@pytest.mark.spec("10.11.2")
def test_create_copies_and_the_constructor_keeps() -> None:
    given: dict[str, Any] = {
        "data": {"a": 1},
        "metadata": {"b": 2},
        "configuration": {"c": 3},
        "artifacts": [StageArtifact("file")],
    }

    kept, created = PipelineContext(**given), PipelineContext.create(**given, topology="t")

    for name, value in given.items():
        assert getattr(kept, name) is value
        assert getattr(created, name) is not value
        assert getattr(created, name) == value
    assert created.topology == "t"
    assert kept.pipeline_run_id is created.pipeline_run_id is None


def test_created_context_can_be_changed_whatever_it_was_given() -> None:
    context = PipelineContext.create(
        data=MappingProxyType({"a": 1}), metadata=FrozenDict(b=[2]), artifacts=()
    )

    context.data["c"] = context.metadata["c"] = 3
    context.artifacts.append(StageArtifact("file"))

    assert context.data == {"a": 1, "c": 3}


@pytest.mark.spec("10.11.2")
def test_run_gives_a_context_its_id() -> None:
    context, known = PipelineContext(), PipelineContext(pipeline_run_id=UUID(int=5))

    with context.running(ignore) as snapshot, known.running(ignore):
        assert context.pipeline_run_id is not None
        assert snapshot.pipeline_run_id == context.pipeline_run_id

    assert known.pipeline_run_id == UUID(int=5)


@pytest.mark.parametrize("name", [*IDS, "parent_run_id", "root_run_id"])
def test_ids_are_read_from_text(name: str) -> None:
    text = "0197a000-0000-7000-8000-000000000001"

    context = context_with(name, text)

    assert getattr(context, name) == UUID(text)
    with pytest.raises(InvalidArgumentError, match=f"{name} must be a UUID.*found 'abc'"):
        context_with(name, "abc")
    with pytest.raises(InvalidTypeError, match=f"{name} must be a UUID"):
        context_with(name, 5)


def test_assigned_ids_are_read_from_text_too() -> None:
    context: Any = PipelineContext()

    context.request_id = str(UUID(int=5))

    assert context.request_id == UUID(int=5)
    with pytest.raises(InvalidArgumentError, match="request_id must be a UUID"):
        context.request_id = "abc"


# Cancellation


@pytest.mark.spec("10.11.3")
def test_marking_cancels_and_does_nothing_else() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(event_sink=sink)

    returned: object = context.mark_canceled()  # type: ignore[func-returns-value]

    assert returned is None
    assert context.canceled
    assert context.cancellation_reason is None
    assert sink.events == []


@pytest.mark.spec("10.11.3")
def test_first_reason_is_kept() -> None:
    context = PipelineContext()

    context.mark_canceled()
    context.mark_canceled("first")
    context.mark_canceled("second")

    assert context.cancellation_reason == "first"


@pytest.mark.spec("10.11.3")
async def test_context_may_be_marked_in_any_thread() -> None:
    context = PipelineContext()
    told: list[str | None] = []

    with context.running(told.append):
        await trio.to_thread.run_sync(context.mark_canceled, "from a thread")

    assert context.canceled
    assert told == ["from a thread"]


@pytest.mark.parametrize(
    "cancel",
    [
        lambda context: context.mark_canceled("enough"),
        lambda context: setattr(context, "canceled", True),
    ],
)
def test_run_in_progress_is_told(cancel: Callable[[PipelineContext], None]) -> None:
    context = PipelineContext(cancellation_reason="enough")
    told: list[tuple[str | None, bool]] = []

    with context.running(lambda reason: told.append((reason, context.canceled))):
        context.canceled = False
        cancel(context)

    cancel(context)
    assert told == [("enough", True)]


def test_run_on_a_canceled_context_is_told_at_once() -> None:
    context = PipelineContext(canceled=True, cancellation_reason="enough")
    told: list[str | None] = []

    with context.running(told.append):
        assert told == ["enough"]


@pytest.mark.spec("10.11.4")
def test_canceled_context_raises_when_asked() -> None:
    context = PipelineContext()
    context.raise_if_cancelled()
    states = [context.is_canceled]

    context.mark_canceled()
    states.append(context.is_canceled)
    with pytest.raises(StageCancellationRequested) as without_reason:
        context.raise_if_cancelled()
    context.mark_canceled("enough")
    with pytest.raises(StageCancellationRequested) as with_reason:
        context.raise_if_cancelled()

    assert states == [False, True]
    assert without_reason.value.reason == "Pipeline cancelled"
    assert with_reason.value.reason == str(with_reason.value) == "enough"


# Snapshots


@pytest.mark.spec("10.11.5")
def test_snapshot_is_the_same_object_until_a_field_behind_it_is_assigned() -> None:
    context = PipelineContext(**IDS, **INPUT)
    snapshot = context.snapshot

    context.data["n"] = 1
    context.service = "chat"
    context.canceled = True
    assert context.snapshot is snapshot
    assert context.to_snapshot() is snapshot

    assigned: dict[str, Any] = {
        **dict.fromkeys(IDS, UUID(int=9)),
        **dict.fromkeys(INPUT),
        "topology": "t",
        "execution_mode": "m",
        "metadata": {"a": 1},
        "created_at": context.now(),
    }
    for name, value in assigned.items():
        before = context.snapshot
        setattr(context, name, value)
        after = context.snapshot
        assert after is not before
        assert after is context.snapshot
        assert getattr(after, name) == value


SNAPSHOTS: st.SearchStrategy[ContextSnapshot] = st.builds(
    ContextSnapshot,
    st.builds(RunIdentity, st.none() | st.uuids(), st.none() | st.uuids()),
    enrichments=st.none() | st.just(INPUT["enrichments"]),
    conversation=st.none() | st.just(INPUT["conversation"]),
    extensions=st.none() | st.dictionaries(st.text(max_size=3), st.integers()),
    input_text=st.none() | st.text(),
    input_audio_duration_ms=st.none() | st.floats(0, 1000),
    topology=st.none() | st.text(),
    execution_mode=st.none() | st.text(),
    metadata=st.dictionaries(st.text(max_size=3), st.lists(st.integers())),
)


@pytest.mark.spec("10.11.6")
@given(SNAPSHOTS)
def test_snapshot_survives_the_way_through_a_context(
    snapshot: ContextSnapshot,
) -> None:
    context = PipelineContext.from_snapshot(snapshot)

    assert context.to_snapshot() == snapshot
    context.metadata["a key of its own"] = 1
    assert "a key of its own" not in snapshot.metadata


def test_overrides_win_over_the_snapshot() -> None:
    snapshot = ContextSnapshot(RunIdentity(session_id=UUID(int=3)), topology="a")

    context = PipelineContext.from_snapshot(snapshot, topology="b", data={"n": 1})

    assert (context.topology, context.data) == ("b", {"n": 1})
    assert context.session_id == UUID(int=3)


# State


@pytest.mark.spec("10.11.7")
def test_data_holds_nothing_of_the_framework() -> None:
    context = PipelineContext(event_sink=RecordingEventSink())

    with context.running(ignore):
        context.set_stage_metadata("stage", {"a": 1})
        context.record_metric("n", 1)
        context.try_emit_event("order.placed")
        context.mark_canceled("why")
        context.derive_for_stage("stage")
        child = context.fork(inherit_data=True)

    assert context.data == child.data == {}


@pytest.mark.spec("10.11.8")
def test_context_is_told_as_plain_values() -> None:
    context = PipelineContext(
        **IDS,
        topology="t",
        execution_mode="m",
        input_text="hi",
        input_audio_duration_ms=2.5,
        metadata={"a": 1},
        data={"b": 2},
        artifacts=[StageArtifact("file")],
    )
    context.mark_canceled("enough")

    told = context.to_dict()

    assert told == {
        **{name: str(value) for name, value in IDS.items()},
        "topology": "t",
        "execution_mode": "m",
        "input_text": "hi",
        "input_audio_duration_ms": 2.5,
        "metadata": {"a": 1},
        "service": "pipeline",
        "data": {"b": 2},
        "canceled": True,
        "cancellation_reason": "enough",
        "artifacts_count": 1,
    }
    assert told["data"] is not context.data
    assert told["metadata"] is not context.metadata
    empty = PipelineContext().to_dict()
    assert [empty[name] for name in IDS] == [None] * 6


@pytest.mark.spec("10.11.8")
def test_lineage_is_told_when_there_is_one() -> None:
    parent = PipelineContext(**IDS)

    child = parent.fork(parent_stage_id="stage", correlation_id=UUID(int=9))

    told = child.to_dict()
    assert told["parent_run_id"] == str(parent.pipeline_run_id)
    assert (told["parent_stage_id"], told["correlation_id"]) == ("stage", str(UUID(int=9)))
    json.dumps(told)


@pytest.mark.spec("10.11.9")
def test_metrics_keep_the_latest_value_per_name_and_labels() -> None:
    context = PipelineContext()

    context.record_metric("tokens", 1)
    context.record_metric("tokens", 2, {"model": "small", "kind": 'a"b'})
    context.record_metric("tokens", 3, {"kind": 'a"b', "model": "small"})
    copy = context.metrics
    copy.clear()

    assert context.metrics == {"tokens": 1, r'tokens{kind="a\"b",model="small"}': 3}


@pytest.mark.spec("10.11.9")
def test_metrics_are_bounded() -> None:
    context = PipelineContext()
    for number in range(1_000):
        context.record_metric("n", number, {"number": number})

    with pytest.raises(InvalidArgumentError, match="one of at most 1000 series"):
        context.record_metric("n", 1)
    context.record_metric("n", 5, {"number": 7})

    assert len(context.metrics) == 1_000
    assert context.metrics['n{number="7"}'] == 5
    with pytest.raises(InvalidArgumentError, match="name must be"):
        context.record_metric("", 1)


def test_stage_metadata_is_kept_per_stage() -> None:
    context = PipelineContext(metadata={"channel": "cli"})

    context.set_stage_metadata("a", {"x": [1]})
    context.set_stage_metadata("a", {"y": [2]})

    assert context.get_stage_metadata("a") == {"y": [2]}
    assert context.get_stage_metadata("b") == {}
    assert (context.get_metadata("channel"), context.get_metadata("x", 5)) == ("cli", 5)


@pytest.mark.spec("10.11.10")
def test_stage_context_made_by_hand_reads_the_outputs_of_the_context() -> None:
    context = PipelineContext(**IDS, ports=CorePorts(db=1), topology="t")
    context.outputs.write_sync("a", StageOutput.ok(n=1))
    context.outputs.write_sync("b", StageOutput.ok(n=2))

    stage = context.derive_for_stage("stage", declared_deps=["b"])

    assert stage.stage_name == stage.inputs.stage_name == "stage"
    assert stage.snapshot is context.snapshot
    assert stage.inputs.get("n") == 2
    assert stage.ports is context.ports
    with pytest.raises(UndeclaredDependencyError):
        stage.inputs.has_output("a")
    assert context.derive_for_stage("stage").inputs.stages == ("a", "b")


@pytest.mark.spec("10.11.10")
def test_what_a_stage_reads_can_be_replaced() -> None:
    context = PipelineContext(**IDS)
    bag, snapshot, ports = OutputBag(), ContextSnapshot(RunIdentity()), object()
    bag.write_sync("a", StageOutput.ok(n=1))

    stage = context.derive_for_stage(
        "stage", outputs=bag, snapshot=snapshot, declared_deps=[], ports=ports, strict=False
    )

    assert stage.snapshot is stage.inputs.snapshot is snapshot
    assert stage.ports is ports
    assert stage.inputs.get_from("a", "n", "default") == "default"


@pytest.mark.spec("10.11.11")
def test_context_serves_one_run_at_a_time() -> None:
    context = PipelineContext(pipeline_run_id=UUID(int=5))

    with context.running(ignore):
        with pytest.raises(ContextInUseError) as caught, context.running(ignore):
            pass
        assert caught.value.pipeline_run_id == UUID(int=5)
        context.outputs.write_sync("stage", StageOutput.ok())

    assert len(context.outputs) == 1
    with context.running(ignore):
        assert len(context.outputs) == 0


@pytest.mark.spec("10.11.11")
def test_context_may_be_used_again_after_a_run_that_raised() -> None:
    context = PipelineContext()
    prepared = context.outputs

    with pytest.raises(ValueError, match="broken"), context.running(ignore):
        assert context.outputs is prepared
        raise ValueError("broken")

    with context.running(ignore):
        pass


def test_sink_of_a_run_is_gone_after_it() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(event_sink=sink)

    with context.running(ignore):
        context.event_sink = RecordingEventSink()

    assert context.event_sink is sink


# Forks


@pytest.mark.spec("10.11.12")
def test_fork_has_its_own_run_and_the_same_people_input_and_services() -> None:
    sink, runtime = RecordingEventSink(), object()
    parent = PipelineContext(
        **IDS, **INPUT, service="chat", event_sink=sink, db=1, ports=CorePorts(), runtime=runtime
    )

    child, given = parent.fork_for_subpipeline(), parent.fork_for_subpipeline(UUID(int=99))

    same = [*IDS, *INPUT, "service", "event_sink", "ports", "db", "runtime"]
    same.remove("pipeline_run_id")
    assert [getattr(child, name) for name in same] == [getattr(parent, name) for name in same]
    assert child.pipeline_run_id not in (None, parent.pipeline_run_id)
    assert given.pipeline_run_id == UUID(int=99)
    assert PipelineContext.fork is PipelineContext.fork_for_subpipeline


@pytest.mark.spec("10.11.13")
def test_fork_knows_where_it_comes_from() -> None:
    parent = PipelineContext(**IDS)

    child = parent.fork(None, "stage", "correlation")
    grandchild = child.fork()

    assert (child.parent_run_id, child.root_run_id) == (parent.pipeline_run_id,) * 2
    assert (child.parent_stage_id, child.correlation_id) == ("stage", "correlation")
    assert (parent.depth, child.depth, grandchild.depth) == (0, 1, 2)
    assert (parent.is_child_run, child.is_child_run) == (False, True)
    assert grandchild.parent_run_id == child.pipeline_run_id
    assert grandchild.root_run_id == parent.root_run_id == parent.pipeline_run_id


@pytest.mark.spec("10.11.14")
async def test_fork_starts_with_empty_state() -> None:
    parent = PipelineContext(
        data={"a": 1}, metadata={"m": 1}, configuration={"c": 1}, artifacts=[StageArtifact("x")]
    )
    await parent.bag.write("key", 1, "stage")
    await parent.outputs.write("stage", StageOutput.ok())
    parent.record_metric("n", 1)
    parent.mark_canceled("enough")

    child = parent.fork()

    assert (child.data, child.artifacts, child.metrics) == ({}, [], {})
    assert (len(child.bag), len(child.outputs)) == (0, 0)
    assert (child.canceled, child.cancellation_reason) == (False, None)
    assert (child.metadata, child.configuration) == (parent.metadata, parent.configuration)
    child.metadata["m"] = child.configuration["c"] = 2
    assert (parent.metadata, parent.configuration) == ({"m": 1}, {"c": 1})


@pytest.mark.spec("10.11.14")
@pytest.mark.parametrize(
    ("inherit", "overrides", "expected"),
    [
        (False, None, {}),
        (True, None, {"a": 1, "b": 2}),
        (["b"], None, {"b": 2}),
        (True, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        (False, {"c": 4}, {"c": 4}),
        ({"idempotency_key"}, None, {"idempotency_key": "k"}),
    ],
)
def test_fork_inherits_what_it_is_told_to(
    inherit: Any, overrides: dict[str, int] | None, expected: dict[str, object]
) -> None:
    parent = PipelineContext(data={"a": 1, "b": 2, "_timeout_ms": 5, "idempotency_key": "k"})

    child = parent.fork(inherit_data=inherit, data_overrides=overrides)

    assert child.data == expected
    child.data["a"] = 9
    assert parent.data["a"] == 1


def test_fork_refuses_keys_that_cannot_be_inherited() -> None:
    parent = PipelineContext(data={"a": 1, "_timeout_ms": 5})
    number: Any = 5

    with pytest.raises(InvalidArgumentError) as caught:
        parent.fork(inherit_data=["a", "b", "_timeout_ms"])
    with pytest.raises(InvalidTypeError, match="inherit_data must be a bool or a collection"):
        parent.fork(inherit_data="a")
    with pytest.raises(InvalidTypeError, match="inherit_data must be a bool or a collection"):
        parent.fork(inherit_data=number)
    with pytest.raises(InvalidArgumentError, match="which has nothing"):
        PipelineContext().fork(inherit_data=["a"])

    assert caught.value.found == ["b", "_timeout_ms"]
    assert "which has 'a'" in str(caught.value)


@pytest.mark.spec("10.11.15")
def test_parent_data_is_a_frozen_copy_of_the_moment_of_the_fork() -> None:
    clients = object()
    parent = PipelineContext(data={"words": ["a"], "clients": clients, "by_id": {1: "x"}})

    child = parent.fork()
    parent.data["words"].append("b")
    parent.data["n"] = 1
    child.data["words"] = "mine"

    assert child.get_parent_data("words") == ["a"]
    assert child.get_parent_data("clients") is clients
    assert child.get_parent_data("by_id") == {1: "x"}
    assert (child.get_parent_data("n"), child.get_parent_data("n", 5)) == (None, 5)
    with pytest.raises(AttributeError):
        child.get_parent_data("words").append("c")
    assert PipelineContext().get_parent_data("words") is None


@pytest.mark.spec("10.11.16")
@pytest.mark.parametrize("name", ["topology", "execution_mode"])
def test_fork_runs_as_its_parent_unless_told_otherwise(name: str) -> None:
    parent = PipelineContext(topology="parent's", execution_mode="parent's")
    options: list[dict[str, Any]] = [{}, {name: None}, {name: ""}, {name: "own"}]

    found = [getattr(parent.fork(**option), name) for option in options]

    assert found == ["parent's", "parent's", "", "own"]


@pytest.mark.spec("10.11.17")
@pytest.mark.parametrize(
    ("topology", "service"),
    [
        (None, None),
        ("chat_kernel", None),
        ("_kernel", None),
        ("chat_fast", "chat"),
        ("voice_chat_fast", "voice_chat"),
        ("chat", "chat"),
        ("_chat", "_chat"),
        ("", ""),
    ],
)
def test_service_is_the_topology_without_its_variant(
    topology: str | None, service: str | None
) -> None:
    assert extract_service(topology) == service


def test_repr_tells_who_and_what_but_nothing_that_was_said() -> None:
    run = UUID(int=7)
    context = PipelineContext(
        pipeline_run_id=run,
        topology="chat_fast",
        input_text="a secret",
        metadata={"token": "a secret"},
        # Whatever is in there, a repr does not fail.
        data={"answer": "a secret", 1: "a secret"},  # type: ignore[dict-item]
        conversation=Conversation((Message("user", "a secret"),)),
    )
    context.outputs.write_sync("ask", StageOutput.ok(text="a secret"))

    assert repr(context) == (
        f"PipelineContext(pipeline_run_id='{run}', topology='chat_fast', data_keys=['answer', 1])"
    )
    assert repr(context.derive_for_stage("ask")) == (
        f"StageContext(stage_name='ask', pipeline_run_id='{run}', attempt=1, try_number=1)"
    )
