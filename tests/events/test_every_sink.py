"""What holds for each sink of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from actorflow.events import (
    AnalyticsEvent,
    AnalyticsSink,
    BackpressureAwareEventSink,
    BoundEventSink,
    EventSink,
    FilterEventSink,
    LoggingEventSink,
    NoOpEventSink,
    ObservableEventSink,
    StructlogEventSink,
    TeeEventSink,
)
from actorflow.testing import RecordingEventSink


class Discarding:
    async def export(self, event: AnalyticsEvent) -> None: ...

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


SINKS: list[Callable[[], EventSink]] = [
    NoOpEventSink,
    LoggingEventSink,
    lambda: StructlogEventSink(CapturingLogger()),
    ObservableEventSink,
    RecordingEventSink,
    lambda: AnalyticsSink(Discarding()),
    lambda: BackpressureAwareEventSink(NoOpEventSink()),
    lambda: BoundEventSink(RecordingEventSink()),
    lambda: FilterEventSink(RecordingEventSink()),
    lambda: TeeEventSink(RecordingEventSink(), RecordingEventSink()),
]
every_sink = pytest.mark.parametrize(
    "make", SINKS, ids=lambda make: type(make()).__name__ if callable(make) else str(make)
)


@every_sink
@pytest.mark.spec("E1")
async def test_sink_is_called_by_keyword(make: Callable[[], Any]) -> None:
    sink = make()

    with pytest.raises(TypeError):
        sink.try_emit("a", None)
    with pytest.raises(TypeError):
        await sink.emit("a", None)


@every_sink
@pytest.mark.spec("E2", "E3")
def test_trying_works_without_a_loop(make: Callable[[], EventSink]) -> None:
    sink = make()

    assert isinstance(sink, EventSink)
    assert sink.try_emit(type="a", data={"x": 1}) is not False
    assert sink.try_emit(type="a", data=None) is not False
    _forget(sink)


@every_sink
async def test_emitting_takes_payloads_and_none(make: Callable[[], EventSink]) -> None:
    sink = make()

    await sink.emit(type="a", data={"x": 1})
    await sink.emit(type="a", data=None)
    _forget(sink)


def _forget(sink: EventSink) -> None:
    if isinstance(sink, BackpressureAwareEventSink):
        sink._queue.clear()  # or it would warn about events that nobody delivered
