"""Traces of real runs: how they come in, what is current inside stages, how they go out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import MissingExtraError, UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import (
    BackpressureAwareEventSink,
    BoundEventSink,
    EventSink,
    FilterEventSink,
    ObservableEventSink,
    TeeEventSink,
)
from actorflow.integrations import trace_headers
from actorflow.interceptors import RetryInterceptor
from actorflow.model import StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, Pipeline, StageSpec, stage
from actorflow.providers import LLMResponse, STTResponse, TTSResponse
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink
from tests.test_docs import blocks_of
from tests.test_layers import ROOT

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace

from tests.integrations.collector import Collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class Client:
    """Calls a service the way instrumented libraries do: below the current span."""

    def __init__(self, collector: Collector) -> None:
        self._tracer = collector.tracers.get_tracer("client")

    async def get(self, path: str) -> None:
        with self._tracer.start_as_current_span(f"GET {path}"):
            await trio.sleep(0.1)


async def nothing(ctx: StageContext) -> None: ...


@pytest.mark.spec("E111")
async def test_replies_in_the_output_describe_the_span_of_the_stage() -> None:
    collector = Collector()
    llm = LLMResponse("forty-two", "gpt", "acme", 10, 20, 5.5, "stop")
    stt, tts = STTResponse("hello", 0.9, provider="acme"), TTSResponse(b"\0\0", 20.0)

    async def answer(ctx: StageContext) -> StageOutput:
        return StageOutput.ok(reply=llm, heard=stt, spoken=tts, llm="text", n=3)

    async def refuse(ctx: StageContext) -> StageOutput:
        return StageOutput.fail("too long", {"reply": llm})

    graph = UnifiedStageGraph([StageSpec("answer", answer), StageSpec("refuse", refuse)])
    with pytest.raises(UnifiedStageExecutionError):
        await graph.run(PipelineContext(), event_sink=collector.sink)

    def replies(name: str) -> dict[str, Any]:
        attributes = collector.spans[name].attributes or {}
        return {k: v for k, v in attributes.items() if k.startswith(("llm.", "stt.", "tts."))}

    expected = {**llm.to_otel_attributes(), **stt.to_otel_attributes(), **tts.to_otel_attributes()}
    assert replies("stage answer") == expected
    assert replies("stage refuse") == llm.to_otel_attributes()


@pytest.mark.spec("E111")
async def test_later_reply_of_a_kind_counts() -> None:
    collector = Collector()

    async def answer(ctx: StageContext) -> StageOutput:
        draft, final = (LLMResponse("...", name, "acme") for name in ("small", "large"))
        return StageOutput.ok(draft=draft, final=final)

    await Pipeline.from_stages(StageSpec("answer", answer)).run(event_sink=collector.sink)

    assert (collector.spans["stage answer"].attributes or {})["llm.model"] == "large"


@pytest.mark.spec("E109")
async def test_cancel_during_a_delay_leaves_a_try_of_no_length(autojump_clock: MockClock) -> None:
    collector = Collector()

    async def busy(ctx: StageContext) -> StageOutput:
        return StageOutput.retry("busy")

    graph = UnifiedStageGraph(
        [StageSpec("busy", busy, kind="work")],
        interceptors=[RetryInterceptor(base_delay_ms=10_000, jitter_strategy="none")],
    )
    with pytest.raises(UnifiedPipelineCancelled):
        async with graph.start(event_sink=collector.sink) as run:
            await trio.sleep(1)
            run.cancel("enough")

    waited = collector.spans["try 2"]
    assert waited.start_time == waited.end_time


@pytest.mark.spec("E111")
async def test_output_without_replies_says_nothing_about_them() -> None:
    sink = RecordingEventSink(strict=True)

    await Pipeline.from_stages(stage(nothing)).run(event_sink=sink)

    assert "telemetry" not in sink.assert_emitted("stage.completed")


@pytest.mark.spec("E114")
async def test_trace_in_the_metadata_is_the_parent_of_the_run() -> None:
    collector = Collector()
    context = PipelineContext(metadata={"traceparent": TRACEPARENT, "tracestate": "acme=1"})

    await Pipeline.from_stages(stage(nothing), name="p").run(context, event_sink=collector.sink)

    parent = collector.spans["pipeline p"].parent
    assert parent is not None
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)
    assert parent.trace_state.get("acme") == "1"
    assert f"{collector.trace_of('stage nothing'):032x}" == TRACE


@pytest.mark.spec("E114")
@pytest.mark.parametrize("traceparent", ["", "00-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", 7])
async def test_nonsense_in_the_metadata_is_as_good_as_nothing(traceparent: object) -> None:
    collector = Collector()
    pipeline = Pipeline.from_stages(stage(nothing), name="p")

    def context() -> PipelineContext:
        return PipelineContext(metadata={"traceparent": traceparent})

    await pipeline.run(context(), event_sink=collector.sink)
    assert collector.spans["pipeline p"].parent is None

    with collector.tracers.get_tracer("web").start_as_current_span("GET /"):
        await pipeline.run(context(), event_sink=collector.sink)
    assert collector.parent("pipeline p") == "GET /"


@pytest.mark.spec("E114")
async def test_run_without_metadata_stands_below_the_span_around_it() -> None:
    collector = Collector()
    tracer = collector.tracers.get_tracer("web")

    with tracer.start_as_current_span("GET /"):
        await Pipeline.from_stages(stage(nothing), name="p").run(event_sink=collector.sink)
        assert trace.get_current_span().is_recording()

    assert collector.parent("pipeline p") == "GET /"
    assert not trace.get_current_span().is_recording()


def _alone(sink: EventSink) -> EventSink:
    return sink


def _in_a_tee(sink: EventSink) -> EventSink:
    return TeeEventSink(RecordingEventSink(), ObservableEventSink(downstream=sink))


def _filtered(sink: EventSink) -> EventSink:
    return FilterEventSink(BoundEventSink(sink), exclude=["memory."])


@pytest.mark.spec("E114")
@pytest.mark.parametrize("wrapped", [_alone, _in_a_tee, _filtered])
async def test_clients_nest_under_the_stage_that_calls_them(
    wrapped: Callable[[EventSink], EventSink], autojump_clock: MockClock
) -> None:
    collector = Collector()
    client = Client(collector)

    async def search(ctx: StageContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/one")
            nursery.start_soon(client.get, "/two")

    async def other(ctx: StageContext) -> None:
        await trio.sleep(0.05)
        await client.get("/three")

    specs = [StageSpec("search", search), StageSpec("other", other)]
    await UnifiedStageGraph(specs).run(PipelineContext(), event_sink=wrapped(collector.sink))

    assert collector.parent("GET /one") == collector.parent("GET /two") == "stage search"
    assert collector.parent("GET /three") == "stage other"
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.spec("E114")
async def test_every_attempt_and_try_is_inside_a_span_of_its_stage(
    autojump_clock: MockClock,
) -> None:
    collector = Collector()
    client = Client(collector)

    async def write(ctx: StageContext) -> StageOutput:
        await client.get(f"/{ctx.attempt}/{ctx.try_number}")
        return StageOutput.retry("busy") if ctx.try_number == 1 else StageOutput.ok()

    async def check(ctx: StageContext) -> StageOutput:
        return StageOutput.ok() if ctx.attempt > 1 else StageOutput.fail("no")

    graph = UnifiedStageGraph(
        [
            StageSpec("write", write, kind="work"),
            StageSpec("check", check, dependencies=("write",), kind="guard"),
        ],
        guard_retry_strategy=GuardRetryStrategy({"check": GuardRetryPolicy("write")}),
        interceptors=[RetryInterceptor()],
    )
    await graph.run(PipelineContext(), event_sink=collector.sink)

    attempts = [span.context for span in collector.finished if span.name == "stage write"]
    ids = [context.span_id for context in attempts if context is not None]
    called = {span.name: span.parent for span in collector.finished if span.name.startswith("GET")}
    assert {name: parent and ids.index(parent.span_id) for name, parent in called.items()} == {
        "GET /1/1": 0,
        "GET /1/2": 0,
        "GET /2/1": 1,
        "GET /2/2": 1,
    }


@pytest.mark.spec("E114")
async def test_stages_of_a_child_stay_in_the_trace(autojump_clock: MockClock) -> None:
    collector = Collector()
    client = Client(collector)

    @stage
    async def inner(ctx: StageContext) -> dict[str, Any]:
        await client.get("/inner")
        return {"out": trace_headers(), "in": ctx.metadata["traceparent"]}

    @stage
    async def outer(ctx: StageContext) -> dict[str, Any]:
        child = await ctx.spawn_subpipeline(Pipeline.from_stages(inner, name="child"))
        await client.get("/outer")
        return dict((child.data or {})["inner"])

    context = PipelineContext(metadata={"traceparent": TRACEPARENT})
    results = await Pipeline.from_stages(outer, name="p").run(context, event_sink=collector.sink)

    assert collector.parent("pipeline child") == "stage outer"
    assert collector.parent("GET /inner") == "stage inner"
    assert collector.parent("GET /outer") == "stage outer"
    assert {f"{collector.trace_of(name):032x}" for name in collector.spans} == {TRACE}
    stage_of_child = collector.spans["stage inner"].context
    assert stage_of_child is not None
    out = results["outer"].data["out"]["traceparent"]
    assert out == f"00-{TRACE}-{stage_of_child.span_id:016x}-01"
    assert results["outer"].data["in"] == TRACEPARENT


@pytest.mark.spec("E109", "E114")
async def test_run_that_a_stage_starts_by_hand_stands_below_that_stage() -> None:
    collector = Collector()

    async def outer(ctx: StageContext) -> None:
        await Pipeline.from_stages(stage(nothing), name="inner").run()

    graph = UnifiedStageGraph([StageSpec("outer", outer)])
    await graph.run(PipelineContext(), event_sink=collector.sink)

    assert collector.parent("pipeline inner") == "stage outer"
    assert "actorflow.events.dropped" not in collector.metrics()


@pytest.mark.spec("E114")
async def test_trace_goes_on_in_a_run_elsewhere() -> None:
    here, there = Collector(), Collector()
    far = Pipeline.from_stages(stage(nothing), name="far")

    async def call(ctx: StageContext) -> None:
        # As if it went through a queue to another process.
        message = {"text": "hi", **trace_headers()}
        with trace.use_span(trace.INVALID_SPAN):
            await far.run(PipelineContext(metadata=message), event_sink=there.sink)

    graph = UnifiedStageGraph([StageSpec("call", call)], pipeline_name="near")
    await graph.run(PipelineContext(), event_sink=here.sink)

    parent, caller = there.spans["pipeline far"].parent, here.spans["stage call"].context
    assert parent is not None
    assert caller is not None
    assert (parent.trace_id, parent.span_id) == (caller.trace_id, caller.span_id)


@pytest.mark.spec("E114")
def test_there_are_no_headers_without_a_span() -> None:
    assert trace_headers() == {}


@pytest.mark.spec("E114", "E109")
async def test_behind_a_queue_spans_are_right_and_none_is_current(
    autojump_clock: MockClock,
) -> None:
    collector = Collector()
    seen = []

    async def look(ctx: StageContext) -> None:
        seen.append(trace_headers())

    graph = UnifiedStageGraph([StageSpec("look", look)], pipeline_name="p")
    context = PipelineContext(metadata={"traceparent": TRACEPARENT})
    async with BackpressureAwareEventSink(collector.sink) as sink:
        await graph.run(context, event_sink=sink)

    assert seen == [{}]
    assert collector.parent("stage look") == "pipeline p"
    assert f"{collector.trace_of('stage look'):032x}" == TRACE


@pytest.mark.spec("E114", "E16")
async def test_sink_that_raises_on_entry_does_not_hurt_the_stage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(RecordingEventSinkThatCares):
        def enter_stage(self, **_: Any) -> None:
            raise RuntimeError("out of order")

    collector = Collector()
    headers = []

    async def look(ctx: StageContext) -> None:
        headers.append(trace_headers())

    both = TeeEventSink(Broken(), collector.sink)
    await UnifiedStageGraph([StageSpec("look", look)]).run(PipelineContext(), event_sink=both)

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "event_emit_failed"
    ]
    # What one of them does is nothing to the others.
    assert headers[0].keys() == {"traceparent"}


class RecordingEventSinkThatCares:
    async def emit(self, **_: Any) -> None: ...

    def try_emit(self, **_: Any) -> None: ...


def test_sinks_that_nobody_waits_behind_have_no_entry() -> None:
    plain = RecordingEventSinkThatCares()

    for sink in (
        BoundEventSink(plain),
        TeeEventSink(plain, plain),
        FilterEventSink(plain),
        ObservableEventSink(downstream=plain),
        ObservableEventSink(),
    ):
        assert sink.enter_stage is None


@pytest.mark.spec("E114")
def test_stage_that_was_not_seen_to_start_is_not_entered() -> None:
    collector = Collector()

    collector.sink.enter_stage(pipeline_run_id="unseen", stage="a")
    collector.sink.try_emit(
        type="pipeline.started", data={"pipeline_run_id": "r", "pipeline_name": "p"}
    )
    collector.sink.enter_stage(pipeline_run_id="r", stage="a")

    assert trace_headers() == {}


def test_how_to_trace_works_as_told(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "trace-with-opentelemetry.md").read_text("utf-8")
    program = "\n".join(it.source for it in blocks_of(page) if it.language == "python")

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    spans = [line.split(" below ") for line in done.stdout.splitlines()]
    assert [name for name, _ in spans[:3]] == ["POST /chat", "stage answer", "pipeline chat"]
    assert spans[2][1] == SPAN


@pytest.mark.spec("E108")
def test_missing_package_is_said_when_headers_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace.propagation", None)

    with pytest.raises(MissingExtraError) as caught:
        trace_headers()
    assert caught.value.extra == "otel"
