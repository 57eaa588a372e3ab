"""The JSON of events as runs really emit them, pinned byte by byte.

`WRITE_GOLDEN=1 pytest tests/events/test_golden.py` writes the files anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from actorflow import clock, ids
from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import CATALOGUE
from actorflow.model import StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "events"
NEW_YEAR: Final = 1_767_225_600.0

NAMED: Final[Mapping[str, Any]] = {
    "request_id": "0197a000-0000-7000-8000-00000000000a",
    "session_id": "0197a000-0000-7000-8000-00000000000b",
    "user_id": "0197a000-0000-7000-8000-00000000000c",
    "org_id": "0197a000-0000-7000-8000-00000000000d",
    "topology": "chat_fast",
    "execution_mode": "strict",
}


async def slow(ctx: StageContext) -> StageOutput:
    await trio.sleep(0.1234567)
    return StageOutput.ok(answer="yes", about="life")


async def skipping(ctx: StageContext) -> StageOutput:
    return StageOutput.skip("nothing to do")


async def cancelling(ctx: StageContext) -> StageOutput:
    await trio.sleep(0.5)
    return StageOutput.cancel("enough")


async def raising(ctx: StageContext) -> None:
    raise LookupError("no such key")


async def improving(ctx: StageContext) -> StageOutput:
    return StageOutput.ok() if ctx.attempt > 1 else StageOutput.fail("not good enough")


async def refusing(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("never good enough")


async def parent(ctx: StageContext) -> None:
    await ctx.spawn_subpipeline(UnifiedStageGraph([StageSpec("only", slow)], pipeline_name="good"))
    await ctx.spawn_subpipeline(
        UnifiedStageGraph([StageSpec("only", raising)], pipeline_name="bad")
    )


def graphs() -> list[UnifiedStageGraph]:
    return [
        UnifiedStageGraph(
            [StageSpec("think", slow, kind="agent"), StageSpec("rest", skipping)],
            pipeline_name="completes",
            emit_stage_wide_events=True,
            emit_pipeline_wide_event=True,
        ),
        UnifiedStageGraph([StageSpec("break", raising)], pipeline_name="fails"),
        UnifiedStageGraph(
            [StageSpec("stop", cancelling), StageSpec("on", slow)], pipeline_name="cancels"
        ),
        UnifiedStageGraph([StageSpec("spawn", parent)], pipeline_name="spawns"),
        *(
            UnifiedStageGraph(
                [
                    StageSpec("write", slow),
                    StageSpec("check", guard, dependencies=("write",), kind="guard"),
                ],
                pipeline_name="repeats",
                guard_retry_strategy=GuardRetryStrategy({"check": GuardRetryPolicy("write")}),
            )
            for guard in (improving, refusing)
        ),
    ]


async def emitted(**identity: Any) -> dict[str, Mapping[str, Any]]:
    """The first payload of each type."""
    sink = RecordingEventSink(strict=True)
    for graph in graphs():
        with suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled):
            await graph.run(PipelineContext(**identity), event_sink=sink)
    return {event.type: event.data for event in reversed(sink.events)}


def written() -> dict[str, str]:
    """The text of each golden file."""
    cases = {}
    for name, identity in (("with ids", NAMED), ("without ids", {})):
        with clock.starting_at(NEW_YEAR), ids.seeded(4):
            cases[name] = trio.run(_emitted_with, identity, clock=MockClock(autojump_threshold=0))
    types = cases["with ids"].keys() | cases["without ids"].keys()
    return {
        f"{type}.json": json.dumps(
            {name: case[type] for name, case in cases.items()}, sort_keys=True, indent=2
        )
        + "\n"
        for type in types
    }


async def _emitted_with(identity: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return await emitted(**identity)


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    files = written()
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        for path in GOLDEN.iterdir():
            path.unlink()
        for name, text in files.items():
            (GOLDEN / name).write_text(text, "utf-8")
    return files


def test_runs_emit_what_they_always_have(files: dict[str, str]) -> None:
    kept = {path.name: path.read_text("utf-8") for path in GOLDEN.iterdir()}

    assert kept.keys() == files.keys()
    for name in sorted(files):
        assert kept[name] == files[name], "users read this; see WRITE_GOLDEN"


def test_golden_runs_cover_what_runs_emit(files: dict[str, str]) -> None:
    families = ("pipeline.", "stage.", "guard_retry.")
    # Retries are the work of an interceptor.
    elsewhere = {"stage.retry_scheduled", "stage.retry_exhausted"}

    assert {name.removesuffix(".json") for name in files} == {
        type for type in CATALOGUE if type.startswith(families)
    } - elsewhere


def test_ids_are_strings_or_null(files: dict[str, str]) -> None:
    for text in files.values():
        named, bare = json.loads(text).values()
        assert named["execution_mode"] == "strict"
        assert isinstance(named["request_id"], str)
        assert bare["request_id"] is bare["execution_mode"] is None


@pytest.mark.spec("E84")
def test_wide_event_tells_every_way_a_run_ends() -> None:
    sink = RecordingEventSink(strict=True)

    async def run_all() -> None:
        for stage, ending in ((slow, "completed"), (raising, "failed"), (cancelling, "canceled")):
            graph = UnifiedStageGraph([StageSpec("only", stage)], emit_pipeline_wide_event=True)
            with suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled):
                await graph.run(PipelineContext(), event_sink=sink)
            assert sink.events[-2].type == "pipeline.wide"
            assert sink.events[-2].data["status"] == ending

    trio.run(run_all, clock=MockClock(autojump_threshold=0))


@pytest.mark.spec("E85")
def test_guard_that_ran_twice_has_two_wide_events_and_one_entry() -> None:
    sink = RecordingEventSink(strict=True)
    graph = UnifiedStageGraph(
        [
            StageSpec("write", slow),
            StageSpec("check", improving, dependencies=("write",), kind="guard"),
        ],
        guard_retry_strategy=GuardRetryStrategy({"check": GuardRetryPolicy("write")}),
        emit_stage_wide_events=True,
        emit_pipeline_wide_event=True,
    )

    async def run() -> None:
        await graph.run(PipelineContext(), event_sink=sink)

    trio.run(run, clock=MockClock(autojump_threshold=0))

    wide = [payload for payload in sink.payloads("stage.wide") if payload["stage"] == "check"]
    assert [payload["status"] for payload in wide] == ["failed", "completed"]
    (run_wide,) = sink.payloads("pipeline.wide")
    details = [each for each in run_wide["stage_details"] if each["stage"] == "check"]
    assert [each["status"] for each in details] == ["completed"]


def test_lists_and_counts_are_sorted(files: dict[str, str]) -> None:
    run = json.loads(files["pipeline.wide.json"])["with ids"]

    assert list(run["stage_counts"]) == ["completed", "skipped"]
    assert [each["stage"] for each in run["stage_details"]] == ["rest", "think"]
    assert run["stage_details"][1]["data_keys"] == ["about", "answer"]
