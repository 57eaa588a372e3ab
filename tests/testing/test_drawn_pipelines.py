"""Random pipelines: they are valid, there are all kinds of them, and they shrink."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import Phase, given, settings, strategies as st
from trio.testing import MockClock

from actorflow import Pipeline, stage
from actorflow.errors import (
    InvalidArgumentError,
    MissingExtraError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.runtime import PipelineResults
from actorflow.testing import ScriptedStage, pipelines, run_seeded, run_stage
from actorflow.testing._strategies import OUTCOMES

# Found, shrunk and forgotten: nothing of a failure that is looked for on purpose is kept.
LOOKING = settings(max_examples=500, database=None, derandomize=True)


async def outcome(pipeline: Pipeline) -> PipelineResults:
    """What came out, whatever the end was."""
    try:
        results = await pipeline.run(interceptors=())
    except (UnifiedStageExecutionError, UnifiedPipelineCancelled) as error:
        results = error.results  # type: ignore[assignment]
    assert isinstance(results, PipelineResults)
    return results


@settings(max_examples=200)
@given(pipelines())
def test_every_pipeline_is_valid(pipeline: Pipeline) -> None:
    assert pipeline.lint(analyze_source=False).valid
    assert 1 <= len(pipeline) <= 6


@settings(max_examples=100)
@given(pipelines(), st.integers(0, 2**16))
def test_every_pipeline_runs_and_repeats_itself(pipeline: Pipeline, seed: int) -> None:
    def ends() -> list[tuple[str, str]]:
        results = run_seeded(outcome, pipeline, seed=seed)
        return [(name, result.status) for name, result in results.stage_results.items()]

    assert ends() == ends()


def test_outcomes_have_to_be_those_there_are() -> None:
    for outcomes in (["okay"], []):
        with pytest.raises(InvalidArgumentError, match="outcomes must be some of ok, skip, fail"):
            pipelines(outcomes=outcomes)  # type: ignore[arg-type]


KINDS: dict[str, Callable[[Any], bool]] = {
    "reads": lambda it: any(spec.stream_from and spec.runner.reads for spec in it.stages),
    "sends": lambda it: any(spec.runner.sends for spec in it.stages),
    "edge": lambda it: any(spec.edge_conditions for spec in it.stages),
    "when": lambda it: any(spec.when is not None for spec in it.stages),
    "hint": lambda it: any(spec.conditional and spec.dependencies for spec in it.stages),
    "join": lambda it: any(spec.join == "all" and spec.dependencies[1:] for spec in it.stages),
    "guard": lambda it: it.guard_retry_strategy is not None,
    "one at a time": lambda it: it.failure_mode == "best_effort" and it.max_concurrency == 1,
    "order": lambda it: it.stage_names() != sorted(it.stage_names()),
}


def test_there_are_pipelines_of_every_kind() -> None:
    found: Counter[str] = Counter()

    @settings(LOOKING, max_examples=300, phases=[Phase.generate])
    @given(pipelines())
    def look(pipeline: Pipeline) -> None:
        found.update(name for name, is_kind in KINDS.items() if is_kind(pipeline))

    look()

    assert {name: found[name] >= 5 for name in KINDS} == dict.fromkeys(KINDS, True)


@given(
    pipelines(
        max_stages=3,
        outcomes=["ok", "skip"],
        failure_modes=["fail_fast"],
        conditions=False,
        streams=False,
        guards=False,
    )
)
def test_kinds_can_be_left_out(pipeline: Pipeline) -> None:
    assert len(pipeline) <= 3
    assert pipeline.failure_mode == "fail_fast"
    assert pipeline.guard_retry_strategy is None
    for spec in pipeline.stages:
        assert isinstance(spec.runner, ScriptedStage)
        assert spec.runner.outcome in ("ok", "skip")
        assert (spec.stream_from, spec.when, dict(spec.edge_conditions)) == ((), None, {})
        assert not spec.conditional


def test_failing_example_shrinks_and_is_told_stage_by_stage() -> None:
    @LOOKING
    @given(pipelines(max_stages=4), st.integers(0, 2**16))
    def nothing_is_skipped(pipeline: Pipeline, seed: int) -> None:
        results = run_seeded(outcome, pipeline, seed=seed).stage_results.values()
        assert [result.name for result in results if result.skipped_by == "when"] == []

    with pytest.raises(AssertionError) as caught:
        nothing_is_skipped()

    told = "\n".join(caught.value.__notes__)
    assert "s0: ScriptedStage(says=False)" in told
    assert "s1: ScriptedStage() dependencies=('s0',), when=" in told
    assert "s2" not in told
    assert "seed=0" in told


async def test_scripted_stage_cleans_up_as_it_is_told(autojump_clock: MockClock) -> None:
    ways = {
        way: ScriptedStage(seconds=9, when_cancelled=way) for way in ("stop", "linger", "raise")
    }
    pipeline = Pipeline.from_stages(*(stage(way, script) for way, script in ways.items()))

    with pytest.raises(UnifiedPipelineCancelled) as caught:
        async with pipeline.start() as run:
            await trio.sleep(1)
            run.cancel("enough")
            await run.wait()

    assert trio.current_time() == pytest.approx(1.3)
    results = caught.value.results
    assert isinstance(results, PipelineResults)
    ends = {name: it.status for name, it in results.stage_results.items()}
    assert ends == {"stop": "canceled", "linger": "canceled", "raise": "failed"}


async def test_scripted_stage_ends_as_it_is_told() -> None:
    ends = {
        outcome: (await run_stage(stage(outcome, ScriptedStage(outcome)))).status
        for outcome in OUTCOMES
    }

    assert ends == {
        "ok": "completed",
        "skip": "skipped",
        "fail": "failed",
        "raise": "failed",
        "retry": "failed",
        "cancel": "canceled",
        "call_off": "completed",
    }
    answers_no = await run_stage(stage("no", ScriptedStage(says=False, sends=3)))
    assert answers_no.sent == (0, 1, 2)
    assert answers_no.data["yes"] is False


def test_without_hypothesis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)

    with pytest.raises(MissingExtraError) as caught:
        pipelines()

    assert caught.value.extra == "testing"
