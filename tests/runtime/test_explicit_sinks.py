"""Nobody needs the current sink: whoever reports takes a sink, and that one wins.

The places that ask for the current sink are found in the source, so one that is added
later has to show here how it does without.
"""

from __future__ import annotations

import ast
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest

from actorflow.client import open_session
from actorflow.diagnostics import MemoryTracker, UuidCollisionMonitor, memory_tracker_scope
from actorflow.errors import AuthDeniedError
from actorflow.events import EventSink, event_sink_scope
from actorflow.pipeline import Pipeline, StageSpec
from actorflow.runtime import PipelineRunner
from actorflow.server import open_server
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink
from tests.server.caller import App, echo, open_house
from tests.test_layers import own_sources

ASKING: Final = {"get_event_sink", "current_event_sink"}

Case = Callable[[EventSink], Awaitable[None]]


def those_who_ask() -> Iterator[str]:
    """`file:class` or `file:function` of every place that asks for the current sink."""
    for path, source in own_sources().items():
        if path == "events/_current.py":
            continue
        for node in ast.parse(source).body:
            names = {
                it.id if isinstance(it, ast.Name) else it.attr
                for it in ast.walk(node)
                if isinstance(it, ast.Name | ast.Attribute)
            }
            # Outside of a class or function there is no current sink to ask for.
            if ASKING & names:
                assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                yield f"{path}:{node.name}"


async def _fine(ctx: StageContext) -> None:
    ctx.try_emit_event("app.said", {})


PIPELINE: Final = Pipeline.from_stages(StageSpec("fine", _fine))


async def run_pipeline(sink: EventSink) -> None:
    await PIPELINE.run(event_sink=sink)
    await PIPELINE.build().run(event_sink=sink)
    async with PIPELINE.start(PipelineContext(), event_sink=sink):
        pass


async def report_by_context(sink: EventSink) -> None:
    context = PipelineContext(event_sink=sink)
    context.try_emit_event("app.said", {})
    await PIPELINE.run(context)


async def observe_ids(sink: EventSink) -> None:
    monitor = UuidCollisionMonitor(event_sink=sink, check_skew=True, max_skew_ms=0)
    for _ in range(2):
        monitor.observe(uuid.UUID(int=7 << 76 | 0b10 << 62))


async def observe_memory(sink: EventSink) -> None:
    tracker = MemoryTracker(event_sink=sink)
    with memory_tracker_scope(tracker):
        tracker.observe()
    tracker.stop()


async def serve(sink: EventSink) -> None:
    async def nobody(request: object) -> Any:
        raise AuthDeniedError("go away")

    async with open_server(App(echo), authenticate=nobody, event_sink=sink) as server:
        with pytest.raises(AuthDeniedError):
            async with open_session(server.url):
                pass  # pragma: no cover - nobody comes in


async def open_sessions(sink: EventSink) -> None:
    async with open_house(recording=sink) as house:
        await house.call()


ALTERNATIVES: Final[dict[str, Case]] = {
    "runtime/_run.py:Run": run_pipeline,
    "stages/_pipeline_context.py:PipelineContext": report_by_context,
    "diagnostics/_ids.py:UuidCollisionMonitor": observe_ids,
    "diagnostics/_memory.py:MemoryTracker": observe_memory,
    "server/_server.py:open_server": serve,
    "server/_sessions.py:open_sessions": open_sessions,
}

# The runner captures what others hear; who is told beside it is shown in test_runner.py.
HEARS_WITH_OTHERS: Final = {"runtime/_runner.py:_who_hears_anyway"}


@pytest.mark.spec("E26")
def test_everybody_who_asks_for_the_current_sink_takes_one() -> None:
    assert set(those_who_ask()) == ALTERNATIVES.keys() | HEARS_WITH_OTHERS


@pytest.mark.spec("E17", "E26")
@pytest.mark.parametrize("place", ALTERNATIVES)
async def test_sink_that_is_given_wins(place: str) -> None:
    given, current = RecordingEventSink(strict=True), RecordingEventSink(strict=True)

    with event_sink_scope(current):
        await ALTERNATIVES[place](given)

    assert given.events
    assert current.events == []


@pytest.mark.spec("E17", "E26")
@pytest.mark.parametrize("place", ALTERNATIVES)
async def test_no_current_sink_is_needed(place: str) -> None:
    given = RecordingEventSink(strict=True)

    await ALTERNATIVES[place](given)

    assert given.events


@pytest.mark.spec("E26", "30.17.2")
async def test_runner_needs_no_current_sink_either() -> None:
    given = RecordingEventSink(strict=True)

    await PipelineRunner().run(PIPELINE, pipeline_ctx=PipelineContext(event_sink=given))

    assert given.types()[-1] == "pipeline.completed"
