"""The life of a stage is one table; code and diagram both come from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from actorflow.runtime import StageState
from actorflow.runtime._stage_life import LIFE, SETTLED, StageChange

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "runtime.md"


def diagram() -> str:
    lines = [f"    {before} --> {after}: {change}" for (before, change), after in LIFE.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def test_diagram_of_the_reference_is_drawn_from_the_table() -> None:
    assert diagram() in PAGE.read_text("utf-8")


@pytest.mark.spec("30.1.3", "30.2.6")
def test_settled_is_final_but_for_repetition() -> None:
    leaves = {(before, change) for before, change in LIFE if before in SETTLED}

    assert leaves == {(state, StageChange.REPEAT) for state in SETTLED}
    assert {before for before, _ in LIFE} == set(StageState) - {StageState.NOT_RUN}
    assert set(LIFE.values()) == set(StageState)
