from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import InvalidArgumentError, MissingExtraError
from actorflow.events import BoundEventSink
from actorflow.integrations import OTelEventSink
from tests.events.story import ended, started, story

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode

from tests.integrations.collector import Collector


def told(collector: Collector) -> Collector:
    for event in story():
        collector.sink.try_emit(type=event.event_type, data=event.data)
    return collector


def pipeline_started(sink: BoundEventSink, name: str = "p") -> None:
    data = {"pipeline_name": name, "stage_count": 1, "parent_run_id": None, "correlation_id": None}
    sink.try_emit(type="pipeline.started", data=data)


@pytest.mark.spec("E109")
def test_spans_have_the_shape_of_the_run() -> None:
    collector = told(Collector())

    assert collector.parent("pipeline voice-turn") is None
    assert collector.parent("stage answer") == "pipeline voice-turn"
    assert collector.parent("tool calendar") == "stage answer"
    assert collector.parent("pipeline web-search") == "stage research"
    assert collector.parent("stage fetch") == "pipeline web-search"
    assert collector.parent("try 2") == "stage remember"
    assert [name for name in collector.spans if name.startswith("try")] == [
        *("try 1", "try 2", "try 3")
    ]
    assert len({span.context.trace_id for span in collector.spans.values() if span.context}) == 1


@pytest.mark.spec("E109")
def test_spans_have_the_times_of_their_events() -> None:
    events = story()
    collector = Collector()
    for event in events:
        collector.sink.try_emit(type=event.event_type, data=event.data)

    def seconds(name: str) -> tuple[float, float]:
        span = collector.spans[name]
        assert span.start_time is not None
        assert span.end_time is not None
        first = events[0].timestamp.timestamp()
        return round(span.start_time / 1e9 - first, 4), round(span.end_time / 1e9 - first, 4)

    assert seconds("pipeline voice-turn") == (0, 4.51)
    assert seconds("stage vad") == (0, 0.18)
    assert seconds("stage transcribe") == (0.18, 0.8)
    assert seconds("try 1") == (0.8, 0.92)
    assert seconds("try 2") == (1.02, 1.12)
    assert seconds("try 3") == (1.32, 1.46)


@pytest.mark.spec("E110")
def test_span_tells_how_it_ended() -> None:
    spans = told(Collector()).spans

    assert spans["stage vad"].status.status_code is StatusCode.OK
    assert spans["tool calendar"].status.status_code is StatusCode.OK
    fetch = spans["stage fetch"].status
    assert (fetch.status_code, fetch.description) == (StatusCode.ERROR, "HTTP 503 from example.org")
    assert spans["try 1"].status.status_code is StatusCode.ERROR
    assert spans["try 3"].status.status_code is StatusCode.OK
    for name in ("stage speak", "pipeline voice-turn"):
        attributes = spans[name].attributes or {}
        assert attributes["actorflow.canceled"] is True
        assert spans[name].status.status_code is StatusCode.UNSET


@pytest.mark.spec("E110")
def test_tool_that_failed_says_so() -> None:
    collector = Collector()
    sink = BoundEventSink(collector.sink, pipeline_run_id="r")
    pipeline_started(sink)
    for type, more in (("tool.started", {}), ("tool.failed", {"error_message": "no such city"})):
        sink.try_emit(type=type, data={"tool_name": "map", "action_id": "1", **more})

    status = collector.spans["tool map"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "no such city")


@pytest.mark.spec("E110")
def test_other_events_are_events_of_the_span() -> None:
    collector = told(Collector())
    spans = collector.spans

    attempts = [span for span in collector.finished if span.name == "stage answer"]
    assert [[event.name for event in span.events] for span in attempts] == [
        ["approval.requested", "approval.decided"],
        [],
    ]
    (skipped,) = [it for it in spans["pipeline voice-turn"].events if it.name == "stage.skipped"]
    assert skipped.attributes is not None
    assert skipped.attributes["actorflow.reason"] == "same language"
    assert "actorflow.duration_ms" not in skipped.attributes


@pytest.mark.spec("E112")
def test_durations_and_failures_are_measured() -> None:
    metrics = told(Collector()).metrics()

    runs = {
        labels["pipeline"]: labels["status"] for labels, _ in metrics["actorflow.pipeline.duration"]
    }
    assert runs == {"voice-turn": "canceled", "web-search": "failed"}
    vad = {"pipeline": "voice-turn", "stage": "vad", "status": "completed"}
    assert (vad, 0.18) in metrics["actorflow.stage.duration"]
    failures = {labels["stage"]: count for labels, count in metrics["actorflow.stage.failures"]}
    assert failures == {"fetch": 1, "output-guard": 1}
    assert "actorflow.events.dropped" not in metrics


@pytest.mark.spec("E112")
def test_gap_in_the_numbers_is_a_dropped_event() -> None:
    collector = Collector()
    run = BoundEventSink(collector.sink, pipeline_run_id="r", first_seq=5)
    lost = BoundEventSink(_Refusing(), pipeline_run_id="r", counter=run._counter)

    pipeline_started(run)
    for sink in (run, lost, lost, run):
        sink.try_emit(type="order.placed", data=None)

    assert collector.metrics()["actorflow.events.dropped"] == [({"pipeline": "p"}, 2)]


@pytest.mark.spec("E112")
def test_event_that_comes_late_is_no_gap() -> None:
    collector = Collector()
    pipeline_started(BoundEventSink(collector.sink, pipeline_run_id="r"))

    for seq in (2, 4, 3, 5):
        collector.sink.try_emit(type="order.placed", data={"pipeline_run_id": "r", "seq": seq})

    assert collector.metrics()["actorflow.events.dropped"] == [({"pipeline": "p"}, 1)]


class _Refusing:
    async def emit(self, **_: Any) -> None: ...

    def try_emit(self, **_: Any) -> bool:
        return False


@pytest.mark.spec("E113")
async def test_runs_without_an_end_are_closed(autojump_clock: MockClock) -> None:
    collector = Collector(max_open_runs=2, max_run_age=60)
    runs = [BoundEventSink(collector.sink, pipeline_run_id=str(number)) for number in range(5)]

    pipeline_started(runs[0], "crowded out")
    pipeline_started(runs[1], "old")
    started(runs[1], "a", 1)
    pipeline_started(runs[2], "younger")
    assert list(collector.spans) == ["pipeline crowded out"]
    await trio.sleep(30)
    await trio.sleep(31)
    pipeline_started(runs[3], "last")
    assert set(collector.spans) == {
        *("pipeline crowded out", "pipeline old", "stage a", "pipeline younger")
    }
    await collector.sink.aclose()

    for span in collector.spans.values():
        assert (span.attributes or {})["actorflow.incomplete"] is True
    assert len(collector.spans) == 5


@pytest.mark.spec("E113")
async def test_stage_without_an_end_is_closed_with_its_run() -> None:
    collector = Collector()
    run = BoundEventSink(collector.sink, pipeline_run_id="r")
    pipeline_started(run)
    started(run, "a", 1)
    await run.emit(
        type="pipeline.completed",
        data={"pipeline_name": "p", "duration_ms": 1.0, "stage_counts": {}},
    )

    assert (collector.spans["stage a"].attributes or {})["actorflow.incomplete"] is True
    assert collector.spans["pipeline p"].status.status_code is StatusCode.OK


@pytest.mark.made_up_payloads
def test_events_of_unknown_runs_and_stages_are_let_go() -> None:
    collector = Collector()
    stranger = BoundEventSink(collector.sink, pipeline_run_id="unseen")
    run = BoundEventSink(collector.sink, pipeline_run_id="r")

    started(stranger, "a", 1)
    pipeline_started(run)
    ended(run, "a", "ok", 1, 1.0)
    run.try_emit(type="stage.failed", data={"stage": "b", "error": "no", "status": "fail"})
    run.try_emit(type="stage.retry_scheduled", data={"stage": "a", "delay_ms": 1})
    run.try_emit(type="tool.completed", data={"action_id": "x"})
    collector.sink.try_emit(type="x", data={"pipeline_run_id": "r", "timestamp": "soon"})
    collector.sink.try_emit(type="x", data=None)

    assert collector.spans == {}


@pytest.mark.made_up_payloads
def test_parents_of_children_that_never_begin_are_forgotten() -> None:
    collector = Collector(max_open_runs=1)
    run = BoundEventSink(collector.sink, pipeline_run_id="r")
    pipeline_started(run)
    for number in range(3):
        run.try_emit(
            type="pipeline.spawned_child",
            data={"parent_stage_id": "a", "child_run_id": str(number), "pipeline_name": "p"},
        )

    pipeline_started(BoundEventSink(collector.sink, pipeline_run_id="s"))

    assert list(collector.sink._parents) == ["2"]


@pytest.mark.spec("E115")
async def test_exception_of_the_sdk_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(collector.sink._tracer, "start_span", fail)
    with caplog.at_level(logging.ERROR):
        await collector.sink.emit(
            type="pipeline.started", data={"pipeline_run_id": "r", "pipeline_name": "p"}
        )
        assert collector.sink.offer(type="x", data=None)

    assert [record.message for record in caplog.records] == ["otel_failed"]


@pytest.mark.spec("E115")
async def test_processor_that_raises_stops_no_closing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanProcessor):
        def on_end(self, span: object) -> None:
            raise RuntimeError("out of order")

        def force_flush(self, timeout_millis: int = 0) -> bool:
            raise RuntimeError("out of order")

    collector = Collector()
    collector.tracers.add_span_processor(Broken())
    for run_id in "rs":
        pipeline_started(BoundEventSink(collector.sink, pipeline_run_id=run_id), run_id)

    with caplog.at_level(logging.ERROR):
        await collector.sink.aclose()

    assert {"pipeline r", "pipeline s"} <= collector.spans.keys()
    assert [record.__dict__["during"] for record in caplog.records] == ["aclose", "aclose", "flush"]


@pytest.mark.spec("E113")
def test_run_has_the_same_age_for_every_trio_run() -> None:
    # The clock of each begins somewhere else.
    collector = Collector()

    async def begin(run_id: str) -> None:
        pipeline_started(BoundEventSink(collector.sink, pipeline_run_id=run_id))

    for run_id, seconds in (("r", 0), ("s", 1e6)):
        trio_clock = MockClock()
        trio_clock.jump(seconds)
        trio.run(begin, run_id, clock=trio_clock)

    assert collector.finished == ()


@pytest.mark.spec("E7")
def test_runs_of_several_threads_have_all_their_spans() -> None:
    collector = Collector(max_open_runs=2000)

    def report(thread: int) -> None:
        sinks = [
            BoundEventSink(collector.sink, pipeline_run_id=f"{thread}.{number}")
            for number in range(400)
        ]
        for sink in sinks:
            pipeline_started(sink)
        for sink in sinks:
            data = {"pipeline_name": "p", "duration_ms": 1.0, "stage_counts": {}}
            sink.try_emit(type="pipeline.completed", data=data)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=report, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert len(collector.finished) == 1600
    assert not any("actorflow.incomplete" in (span.attributes or {}) for span in collector.finished)


@pytest.mark.spec("E113")
def test_what_begins_again_without_an_end_is_closed() -> None:
    collector = Collector()
    sink = BoundEventSink(collector.sink, pipeline_run_id="r")
    for name in ("first", "second"):
        pipeline_started(sink, name)
    for _ in range(2):
        started(sink, "s", 1)

    assert [span.name for span in collector.finished] == ["pipeline first", "stage s"]
    for span in collector.finished:
        assert span.attributes is not None
        assert span.attributes["actorflow.incomplete"]


async def test_providers_of_the_process_are_the_default() -> None:
    sink = OTelEventSink()

    await sink.emit(type="pipeline.started", data={"pipeline_run_id": "r", "pipeline_name": "p"})
    await sink.aclose()


@pytest.mark.parametrize("arguments", [{"max_open_runs": 0}, {"max_run_age": 0}])
def test_limits_are_positive(arguments: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        OTelEventSink(**arguments)


@pytest.mark.spec("E108")
def test_missing_package_is_said_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(MissingExtraError) as caught:
        OTelEventSink()
    assert caught.value.extra == "otel"


@pytest.mark.spec("E108")
def test_importing_actorflow_does_not_import_opentelemetry() -> None:
    program = (
        "import sys, actorflow, actorflow.integrations\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)

    assert done.returncode == 0, done.stderr
