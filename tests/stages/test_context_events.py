"""What the three contexts report: 10.10."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import InvalidEventSinkError, InvalidTypeError
from actorflow.events import BoundEventSink, event_sink_scope
from actorflow.model import ContextSnapshot, RunIdentity
from actorflow.stages import (
    DictContextAdapter,
    ExecutionContext,
    PipelineContext,
    StageContext,
    StageInputs,
    adapt_context,
    create_stage_context,
)
from actorflow.testing import RecordingEventSink

RUN = UUID(int=1)
REQUEST = UUID(int=2)
COMMON = {"pipeline_run_id", "request_id", "execution_mode", "seq", "timestamp"}


class OneSink:
    """Takes one thing to report through and nothing else."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.error = error

    async def emit(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("contexts never wait")

    def try_emit(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))
        if self.error is not None:
            raise self.error


def stage_context(sink: Any, **ids: Any) -> StageContext:
    snapshot = ContextSnapshot(RunIdentity(**ids), execution_mode="practice" if ids else None)
    return create_stage_context(
        snapshot=snapshot, inputs=StageInputs(snapshot), stage_name="stage", event_sink=sink
    )


def every_context(sink: Any) -> list[StageContext | PipelineContext | DictContextAdapter]:
    values: dict[str, Any] = {
        "pipeline_run_id": str(RUN),
        "request_id": REQUEST,
        "execution_mode": "practice",
    }
    return [
        stage_context(sink, pipeline_run_id=RUN, request_id=REQUEST),
        PipelineContext(**values, event_sink=sink),
        DictContextAdapter(values, event_sink=sink),
    ]


def empty_contexts(sink: Any) -> list[StageContext | PipelineContext | DictContextAdapter]:
    return [
        stage_context(sink),
        PipelineContext(event_sink=sink),
        DictContextAdapter({}, event_sink=sink),
    ]


def records(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == message]


# 10.9


@pytest.mark.spec("10.9.1", "10.13.4")
def test_every_context_is_an_execution_context() -> None:
    for context in every_context(None):
        assert isinstance(context, ExecutionContext)
        assert (context.pipeline_run_id, context.request_id) == (RUN, REQUEST)
        assert context.execution_mode == "practice"
        assert context.get_metadata("nothing", 5) == 5
    assert not isinstance({}, ExecutionContext)


@pytest.mark.spec("10.9.3")
def test_contexts_pass_and_mappings_are_adapted() -> None:
    for context in every_context(None):
        assert adapt_context(context) is context

    adapted = adapt_context({"pipeline_run_id": str(RUN)})

    assert isinstance(adapted, DictContextAdapter)
    assert adapted.pipeline_run_id == RUN
    with pytest.raises(InvalidTypeError, match="context must be an ExecutionContext or a mapping"):
        adapt_context(None)


# 10.10


@pytest.mark.spec("10.10.1", "10.10.3", "10.12.6")
@pytest.mark.parametrize("index", [0, 1, 2])
async def test_event_carries_who_and_when(index: int, mock_clock: MockClock) -> None:
    sink = RecordingEventSink()
    context = every_context(sink)[index]
    mock_clock.jump(60)

    context.try_emit_event("order.placed", {"n": 1})

    [event] = sink.events
    expected = {
        "pipeline_run_id": str(RUN),
        "request_id": str(REQUEST),
        "execution_mode": "practice",
        "seq": 1,
        "timestamp": clock.now().isoformat(timespec="microseconds"),
        "n": 1,
    }
    if isinstance(context, PipelineContext):
        expected |= {"topology": None, "service": "pipeline"}
    assert event.type == "order.placed"
    assert event.data == expected


@pytest.mark.spec("10.10.1")
def test_what_is_not_known_is_null() -> None:
    sink = RecordingEventSink()

    for context in empty_contexts(sink):
        context.try_emit_event("order.placed")

    assert len(sink.events) == 3
    for event in sink.events:
        assert event.data["pipeline_run_id"] is None
        assert event.data["request_id"] is None
        assert event.data["execution_mode"] is None


@pytest.mark.spec("10.10.1")
def test_topology_and_service_are_told_by_the_pipeline_context() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(topology="chat_fast", service="chat", event_sink=sink)

    context.try_emit_event("order.placed")

    assert sink.events[0].data.items() >= {"topology": "chat_fast", "service": "chat"}.items()


@pytest.mark.spec("10.10.1", "10.10.6")
def test_bound_sink_of_a_run_adds_its_keys_and_numbers_the_events_of_all_its_contexts() -> None:
    sink = RecordingEventSink()
    bound = BoundEventSink(sink, pipeline_run_id=RUN, topology="chat_fast")
    run = PipelineContext(pipeline_run_id=RUN, event_sink=bound)
    stage = stage_context(bound.for_stage("stt"), pipeline_run_id=RUN)

    run.try_emit_event("a.a")
    stage.try_emit_event("b.b")
    run.derive_for_stage("other").try_emit_event("c.c")

    assert [event.data["seq"] for event in sink.events] == [1, 2, 3]
    assert sink.events[1].data.keys() == COMMON | {"topology", "stage"}
    assert sink.events[1].data.items() >= {"topology": "chat_fast", "stage": "stt"}.items()


@pytest.mark.spec("10.10.2")
def test_keys_of_the_caller_win_except_the_number() -> None:
    sink = RecordingEventSink()
    mine = {"pipeline_run_id": "mine", "topology": "t", "timestamp": "now", "seq": 99}

    for context in every_context(sink):
        context.try_emit_event("order.placed", mine)

    assert len(sink.events) == 3
    for event in sink.events:
        assert event.data["seq"] == 1
        assert event.data["payload_seq"] == 99
        assert (event.data["pipeline_run_id"], event.data["timestamp"]) == ("mine", "now")


@pytest.mark.spec("10.10.3")
def test_sink_is_called_with_two_keywords_and_a_payload_of_its_own() -> None:
    data = {"n": 1}
    sink = OneSink()

    for context in every_context(sink):
        context.try_emit_event("order.placed", data)

    assert data == {"n": 1}
    assert len(sink.calls) == 3
    for args, kwargs in sink.calls:
        assert args == ()
        assert kwargs.keys() == {"type", "data"}
        assert kwargs["data"] is not data


@pytest.mark.spec("10.10.4")
def test_error_of_a_sink_is_logged_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    for context in every_context(OneSink(ValueError("broken"))):
        context.try_emit_event("order.placed")

    logged = records(caplog, "event_emit_failed")
    assert [(it["event_type"], it["error"], it["levelname"]) for it in logged] == [
        ("order.placed", "ValueError('broken')", "WARNING")
    ] * 3


@pytest.mark.spec("10.10.4")
async def test_cancellation_and_interrupts_pass() -> None:
    class Cancelling(OneSink):
        def try_emit(self, *args: Any, **kwargs: Any) -> None:
            trio.from_thread.check_cancelled()

    for context in every_context(OneSink(KeyboardInterrupt())):
        with pytest.raises(KeyboardInterrupt):
            context.try_emit_event("order.placed")

    def emit_in_a_cancelled_thread() -> None:
        for context in every_context(Cancelling()):
            with pytest.raises(trio.Cancelled):
                context.try_emit_event("order.placed")

    with trio.CancelScope() as scope:
        scope.cancel()
        with trio.CancelScope(shield=True) as inner:
            inner.cancel()
            await trio.to_thread.run_sync(emit_in_a_cancelled_thread, abandon_on_cancel=False)


@pytest.mark.spec("10.10.5")
def test_event_without_a_sink_leaves_one_debug_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "actorflow")

    for context in every_context(None):
        context.try_emit_event("order.placed")

    logged = records(caplog, "event_not_emitted")
    assert [(it["event_type"], it["levelname"]) for it in logged] == [("order.placed", "DEBUG")] * 3


@pytest.mark.spec("10.10.6")
def test_events_of_a_context_and_its_stages_are_counted_together() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(event_sink=sink)
    stage = context.derive_for_stage("stage")

    for emitter in (context, stage, stage, context, context.derive_for_stage("other")):
        emitter.try_emit_event("order.placed")

    assert [event.data["seq"] for event in sink.events] == [1, 2, 3, 4, 5]


@pytest.mark.spec("10.10.6")
def test_forks_and_contexts_made_by_hand_count_on_their_own() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(event_sink=sink)
    context.try_emit_event("order.placed")
    by_hand = stage_context(sink)

    for emitter in (context.fork(), by_hand, by_hand, stage_context(sink)):
        emitter.try_emit_event("order.placed")

    assert [event.data["seq"] for event in sink.events] == [1, 1, 1, 2, 1]


@pytest.mark.spec("10.10.6")
def test_fork_of_a_running_context_counts_on_its_own() -> None:
    sink = RecordingEventSink()
    context = PipelineContext(pipeline_run_id=RUN, event_sink=BoundEventSink(sink))
    context.try_emit_event("order.placed")

    child = context.fork()
    child.try_emit_event("order.placed")

    assert child.event_sink is sink
    assert [event.data["seq"] for event in sink.events] == [1, 1]
    assert sink.events[1].data["pipeline_run_id"] == str(child.pipeline_run_id)


@pytest.mark.spec("10.10.7")
def test_emit_event_is_a_second_name() -> None:
    for context in (StageContext, PipelineContext, DictContextAdapter):
        assert context.emit_event is context.try_emit_event


@pytest.mark.spec("10.10.7")
def test_stage_events_tell_the_session() -> None:
    sink = RecordingEventSink()
    session = UUID(int=3)
    context = PipelineContext(
        session_id=session, topology="chat_fast", service="chat", event_sink=sink
    )

    context.record_stage_event("stt", "completed", {"words": 3})
    context.derive_for_stage("tts").record_stage_event("stt", "failed")

    assert sink.types() == ["stt.completed", "stt.failed"]
    told = {
        "stage": "stt",
        "session_id": str(session),
        "user_id": None,
        "org_id": None,
        "topology": "chat_fast",
    }
    completed, failed = (event.data for event in sink.events)
    assert completed.items() >= (told | {"status": "completed", "service": "chat"}).items()
    assert completed["words"] == 3
    assert failed.items() >= (told | {"status": "failed", "service": None}).items()


@pytest.mark.spec("10.10.8")
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pipeline_run_id": "no uuid", "request_id": object(), "execution_mode": 5},
        {"pipeline_run_id": [], "metadata": "x"},
    ],
)
def test_adapter_reports_whatever_the_mapping_holds(values: Mapping[str, Any]) -> None:
    sink = RecordingEventSink()

    DictContextAdapter(values, event_sink=sink).try_emit_event("order.placed")

    [event] = sink.events
    assert event.data["pipeline_run_id"] is None
    assert event.data["request_id"] is None
    assert event.data["execution_mode"] is None


@pytest.mark.spec("10.10.8")
def test_adapter_logs_the_event_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "actorflow")
    adapter = DictContextAdapter({"pipeline_run_id": RUN}, event_sink=RecordingEventSink())

    adapter.try_emit_event("order.placed", {"secret": 1})
    adapter.try_emit_event("order.placed")

    first, second = records(caplog, "event_emitted")
    assert first["event_type"] == "order.placed"
    assert first["pipeline_run_id"] == str(RUN)
    assert first["request_id"] is None
    assert first["execution_mode"] is None
    assert (first["seq"], second["seq"]) == (1, 2)
    assert "timestamp" in first
    assert "secret" not in first


@pytest.mark.parametrize("type", ["", None, 5])
def test_event_without_a_type_is_refused_or_logged(
    type: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "actorflow")

    for sink in (None, RecordingEventSink()):
        stage, pipeline, adapter = every_context(sink)
        for context in (stage, pipeline):
            with pytest.raises(InvalidTypeError, match="type must be"):
                context.try_emit_event(type)
        adapter.try_emit_event(type)

    assert len(records(caplog, "event_not_emitted")) == 2


def test_sink_must_be_a_sink() -> None:
    for make in (
        lambda sink: PipelineContext(event_sink=sink),
        lambda sink: DictContextAdapter({}, event_sink=sink),
        stage_context,
    ):
        with pytest.raises(InvalidEventSinkError, match="event_sink must be an object with emit"):
            make(5)


def test_pipeline_context_takes_the_current_sink() -> None:
    sink = RecordingEventSink()

    with event_sink_scope(sink):
        inside = PipelineContext()
        without = PipelineContext(event_sink=None)
    outside = PipelineContext()

    assert inside.event_sink is sink
    assert (without.event_sink, outside.event_sink) == (None, None)


# 10.13


@pytest.mark.spec("10.13.1")
@pytest.mark.parametrize("key", ["pipeline_run_id", "request_id"])
def test_adapter_reads_ids(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "actorflow")
    values: dict[str, Any] = {key: RUN}
    adapter = DictContextAdapter(values)

    found = [getattr(adapter, key)]
    for value in (str(RUN), "no uuid", None, 5):
        values[key] = value
        found.append(getattr(adapter, key))
    del values[key]
    found.append(getattr(adapter, key))

    assert found == [RUN, RUN, None, None, None, None]
    assert [it["key"] for it in records(caplog, "context_id_missing")] == [key]


@pytest.mark.spec("10.13.2")
def test_adapter_reads_mode_and_metadata() -> None:
    values: dict[str, Any] = {"execution_mode": "practice", "metadata": {"a": 1}}
    adapter = DictContextAdapter(values)

    assert (adapter.execution_mode, adapter.metadata) == ("practice", {"a": 1})
    assert (adapter.get_metadata("a"), adapter.get_metadata("b", 2)) == (1, 2)
    values.update(execution_mode=5, metadata=[("a", 1)])
    assert (adapter.execution_mode, adapter.metadata) == (None, {})


@pytest.mark.spec("10.13.3")
def test_adapter_shows_the_mapping_as_it_is_and_copies_it() -> None:
    values = {"a": 1}
    adapter = DictContextAdapter(values)

    copy = adapter.to_dict()
    copy["b"] = 2
    values["c"] = 3

    assert adapter.to_dict() == {"a": 1, "c": 3}
    assert (adapter["c"], adapter.get("b"), adapter.get("b", 5)) == (3, None, 5)
    assert ("c" in adapter, "b" in adapter) == (True, False)
    with pytest.raises(KeyError):
        adapter["b"]


def test_adapter_refuses_what_is_no_mapping() -> None:
    pairs: Any = [("a", 1)]

    with pytest.raises(InvalidTypeError, match="values must be a mapping"):
        DictContextAdapter(pairs)
