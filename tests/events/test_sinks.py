from __future__ import annotations

import pickle
from typing import Any

import pytest
import trio

from actorflow import errors
from actorflow.errors import ActorflowError, InvalidEventSinkError
from actorflow.events import (
    BoundEventSink,
    ClosableSink,
    EventSink,
    FlushableSink,
    NoOpEventSink,
    checked_sink,
    clear_event_sink,
    current_event_sink,
    emit_event,
    event_sink_scope,
    get_event_sink,
    set_event_sink,
)
from actorflow.testing import RecordingEventSink


class Anything:
    async def emit(self, **_: Any) -> None: ...

    def try_emit(self, **_: Any) -> None: ...


class Closable(Anything):
    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


@pytest.mark.spec("E4")
def test_whatever_has_both_methods_is_a_sink() -> None:
    assert isinstance(Anything(), EventSink)
    assert isinstance(BoundEventSink(NoOpEventSink()), EventSink)
    assert not isinstance(object(), EventSink)
    assert isinstance(Closable(), FlushableSink)
    assert isinstance(Closable(), ClosableSink)
    assert not isinstance(Anything(), FlushableSink)
    assert not isinstance(Anything(), ClosableSink)


def test_object_without_a_method_is_refused_by_name() -> None:
    class HalfASink:
        async def emit(self, **_: Any) -> None: ...

    with pytest.raises(InvalidEventSinkError) as caught:
        checked_sink("event_sink", HalfASink())

    assert isinstance(caught.value, TypeError)
    assert "event_sink must be an object with emit and try_emit (it lacks try_emit)" in str(
        caught.value
    )


@pytest.mark.spec("E28")
@pytest.mark.parametrize("type", ["a", None])
@pytest.mark.parametrize("data", [{"x": 1}, None])
async def test_noop_sink_does_nothing_whatever_it_gets(type: Any, data: Any) -> None:
    # mypy knows that there is nothing to return; the test looks.
    emit: Any = NoOpEventSink().emit
    try_emit: Any = NoOpEventSink().try_emit

    assert await emit(type=type, data=data) is None
    assert try_emit(type=type, data=data) is None
    assert not NoOpEventSink().takes(type)


@pytest.mark.spec("E22")
async def test_tasks_inherit_the_sink_and_keep_changes_to_themselves() -> None:
    mine, childs = RecordingEventSink(), RecordingEventSink()
    set_event_sink(mine)
    seen: list[EventSink] = []

    async def child() -> None:
        seen.append(get_event_sink())
        set_event_sink(childs)
        seen.append(get_event_sink())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)

    assert seen == [mine, childs]
    assert get_event_sink() is mine
    clear_event_sink()


@pytest.mark.spec("E23")
def test_without_a_sink_there_is_a_new_noop_each_time() -> None:
    assert current_event_sink() is None
    first, second = get_event_sink(), get_event_sink()

    assert isinstance(first, NoOpEventSink)
    assert isinstance(second, NoOpEventSink)
    assert first is not second


@pytest.mark.spec("E24")
def test_set_overwrites_and_clear_forgets() -> None:
    first, second = RecordingEventSink(), RecordingEventSink()

    set_event_sink(first)
    set_event_sink(second)
    assert current_event_sink() is second
    clear_event_sink()
    clear_event_sink()

    assert current_event_sink() is None


@pytest.mark.spec("E25")
async def test_scope_restores_the_sink_however_it_is_left() -> None:
    outer, inner = RecordingEventSink(), RecordingEventSink()

    with event_sink_scope(outer):
        with event_sink_scope(inner) as current:
            assert get_event_sink() is current is inner
        assert get_event_sink() is outer

        with pytest.raises(ZeroDivisionError), event_sink_scope(inner):
            raise ZeroDivisionError
        assert get_event_sink() is outer

        with trio.CancelScope() as cancelled, event_sink_scope(inner):
            cancelled.cancel()
            await trio.lowlevel.checkpoint()
        assert cancelled.cancelled_caught
        assert get_event_sink() is outer
    assert current_event_sink() is None


async def test_emit_event_goes_to_the_current_sink() -> None:
    recorded = RecordingEventSink()

    await emit_event(type="lost", data=None)
    with event_sink_scope(recorded):
        await emit_event(type="kept", data={"x": 1})

    assert recorded.payloads("kept") == [{"x": 1}]
    assert recorded.types() == ["kept"]


def test_what_is_no_sink_cannot_be_set() -> None:
    wrong: Any = None

    with pytest.raises(InvalidEventSinkError) as caught:
        set_event_sink(wrong)
    assert "clear_event_sink()" in caught.value.fix_hint
    with pytest.raises(InvalidEventSinkError), event_sink_scope(wrong):
        pass


@pytest.mark.spec("E124")
@pytest.mark.parametrize(
    ("error", "builtin", "code", "said"),
    [
        (
            errors.InvalidEventSinkError("sink", 3, "an event sink"),
            TypeError,
            "EVENT-001-INVALID_SINK",
            "sink must be an event sink, found int: 3",
        ),
        (
            errors.SinkNotOwnedError("Sink"),
            RuntimeError,
            "EVENT-002-NOT_OWNED",
            "Sink cannot start: there is neither a block nor a system to own its worker",
        ),
        (
            errors.SinkNotRunningError("Sink", 3, 4),
            RuntimeError,
            "EVENT-003-NOT_RUNNING",
            "Sink is not running and holds 3 of 4 events",
        ),
        (
            errors.SinkClosedError("Sink", "a"),
            RuntimeError,
            "EVENT-004-CLOSED",
            "a was emitted into Sink, which is stopping or stopped",
        ),
        (
            errors.ForeignThreadError("Sink"),
            RuntimeError,
            "EVENT-005-FOREIGN_THREAD",
            "Sink was called from a thread that does not run its trio loop",
        ),
        (
            errors.InvalidExporterError("batch_size", 0, "at least 1"),
            TypeError,
            "EVENT-007-INVALID_EXPORTER",
            "batch_size must be at least 1, found 0",
        ),
        (
            errors.ExportError(3, "JSONFileExporter"),
            ActorflowError,
            "EVENT-008-EXPORT",
            "JSONFileExporter could not deliver 3 events",
        ),
        (
            errors.ExporterClosedError("JSONFileExporter"),
            RuntimeError,
            "EVENT-009-EXPORTER_CLOSED",
            "JSONFileExporter was asked to export after it was closed",
        ),
    ],
)
def test_error_says_what_was_attempted_and_what_to_do(
    error: ActorflowError, builtin: type[Exception], code: str, said: str
) -> None:
    assert isinstance(error, ActorflowError)
    assert isinstance(error, builtin)
    assert (error.code, str(error)) == (code, said)
    assert error.fix_hint
    assert error.doc_url.endswith(code.lower())
    assert str(pickle.loads(pickle.dumps(error))) == said
