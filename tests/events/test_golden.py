"""The JSON of every event as its component really emits it, pinned byte by byte.

`WRITE_GOLDEN=1 pytest tests/events/test_golden.py` writes the files anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.events import CATALOGUE
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext
from actorflow.testing import RecordingEventSink

from .golden_scenes import (
    SCENES,
    breaking,
    cancelling,
    improving,
    payload_of,
    play,
    slow,
)

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "tests" / "golden"
EVENTS: Final = GOLDEN / "events"

# Beside the line in CHANGELOG.md that tells users what is new about events.
SEAL: Final = re.compile(r"<!-- tests/golden: (\w+) -->")


def full(type: str) -> Mapping[str, Any]:
    """A payload with ids, and with all it may have."""
    return payload_of(type, is_full=True)


def bare(type: str) -> Mapping[str, Any]:
    """A payload without ids, and with no more than it must have."""
    return payload_of(type, is_full=False)


def is_of_a_session(type: str) -> bool:
    return type.startswith("session.")


def sealed(folder: Path) -> str:
    """What tells one state of a folder from another."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.json")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.mark.spec("E67", "E117")
def test_every_row_of_the_catalogue_has_a_scene_and_a_file() -> None:
    expected = {f"{type}.json" for type in CATALOGUE}
    if os.environ.get("WRITE_GOLDEN"):
        for path in EVENTS.iterdir():
            if path.name not in expected:
                path.unlink()

    assert SCENES.keys() == CATALOGUE.keys()
    assert {path.name for path in EVENTS.iterdir()} == expected


@pytest.mark.spec("E5", "E117")
@pytest.mark.parametrize("type", sorted(SCENES))
def test_component_emits_what_it_always_has(type: str) -> None:
    both = {"full": full(type), "bare": bare(type)}
    text = json.dumps(both, sort_keys=True, indent=2) + "\n"
    file = EVENTS / f"{type}.json"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_bytes(text.encode())

    kept = file.read_bytes()

    assert kept.decode("utf-8") == text, "users read this; see WRITE_GOLDEN"
    assert kept == text.encode()


@pytest.mark.spec("E117")
@pytest.mark.parametrize("is_full", [True, False])
def test_scene_is_the_same_every_time(is_full: bool) -> None:
    for scene in set(SCENES.values()):
        first = json.dumps(play(scene, is_full=is_full))
        assert json.dumps(play(scene, is_full=is_full)) == first, scene


@pytest.mark.spec("E118")
@pytest.mark.parametrize("type", sorted(type for type in SCENES if not is_of_a_session(type)))
def test_ids_are_strings_in_one_case_and_null_in_the_other(type: str) -> None:
    for key in ("request_id", "execution_mode"):
        assert isinstance(full(type)[key], str)
        assert bare(type)[key] is None


@pytest.mark.spec("E118")
@pytest.mark.parametrize("type", sorted(filter(is_of_a_session, SCENES)))
def test_session_has_an_id_and_no_run(type: str) -> None:
    for payload in (full(type), bare(type)):
        assert payload["pipeline_run_id"] is payload["request_id"] is None
        assert (payload["session_id"] is None) is (type == "session.rejected")


@pytest.mark.spec("E118")
@pytest.mark.parametrize("type", sorted(SCENES))
def test_optional_keys_are_present_in_one_case_and_absent_in_the_other(type: str) -> None:
    optional = {key.name for key in CATALOGUE[type].keys if not key.required}

    assert optional <= full(type).keys()
    assert not optional & bare(type).keys()


@pytest.mark.spec("E120")
def test_golden_files_change_together_with_the_changelog() -> None:
    found = SEAL.findall((ROOT / "CHANGELOG.md").read_text("utf-8"))

    assert found == [sealed(GOLDEN)], (
        "tell users in CHANGELOG.md what has changed about events, and put this there too: "
        f"<!-- tests/golden: {sealed(GOLDEN)} -->"
    )


@pytest.mark.spec("E120")
def test_seal_notices_every_change_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    seals = {sealed(tmp_path)}
    (tmp_path / "a.json").write_text("{ }")
    seals.add(sealed(tmp_path))
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    seals.add(sealed(tmp_path))
    (tmp_path / "c.json").write_text("")
    seals.add(sealed(tmp_path))

    assert len(seals) == 4


@pytest.mark.spec("E119")
def test_lists_and_counts_are_sorted() -> None:
    for run in (full("pipeline.wide"), bare("pipeline.wide")):
        # Without `sort_keys`, that is in the order in which they were emitted.
        assert list(run["stage_counts"]) == ["completed", "skipped"]
        assert [each["stage"] for each in run["stage_details"]] == ["rest", "think"]
    assert full("stage.wide")["data_keys"] == ["about", "answer", "reply"]


@pytest.mark.spec("E119")
def test_failed_stages_are_sorted() -> None:
    sink = RecordingEventSink(strict=True)

    async def run() -> None:
        graph = UnifiedStageGraph(
            [StageSpec(name, breaking) for name in ("zeta", "mid", "alpha")],
            failure_mode="continue_on_failure",
        )
        with suppress(UnifiedStageExecutionError):
            await graph.run(PipelineContext(), event_sink=sink)

    trio.run(run, clock=MockClock(autojump_threshold=0))

    assert sink.payloads("pipeline.failed")[0]["failed_stages"] == ["alpha", "mid", "zeta"]


@pytest.mark.spec("E84")
def test_wide_event_tells_every_way_a_run_ends() -> None:
    sink = RecordingEventSink(strict=True)

    async def run_all() -> None:
        for stage, ending in ((slow, "completed"), (breaking, "failed"), (cancelling, "canceled")):
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
