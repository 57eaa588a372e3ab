"""What looking at a pipeline costs per stage, as ratios between sizes and to building it.

Each figure is the best of several rounds in which the sizes take turns, so a
machine that is slow for a moment is slow for all of them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from actorflow.pipeline import Pipeline, lint_pipeline, stage, to_mermaid
from actorflow.stages import StageContext

Work = Callable[[Pipeline], object]

ROUNDS = 5


async def idle(ctx: StageContext) -> None:
    ctx.inputs.get("text")


def layered(layers: int, width: int, edges: int) -> Pipeline:
    """Layers of stages, each stage with edges to some of the layer above."""
    rows = [[f"{layer}.{number}" for number in range(width)] for layer in range(layers)]
    after: dict[str, list[str]] = {name: [] for name in rows[0]}
    for above, row in pairwise(rows):
        for number, name in enumerate(row):
            after[name] = [above[(number + step) % width] for step in range(edges)]
    return Pipeline.from_stages(
        *(stage(name, idle, after=needed) for name, needed in after.items())
    )


def seconds(work: Work, *pipelines: Pipeline) -> list[float]:
    """The least time that `work` takes for each pipeline."""
    best = [float("inf")] * len(pipelines)
    for _ in range(ROUNDS):
        for number, pipeline in enumerate(pipelines):
            gc.collect()
            start = time.process_time()
            work(pipeline)
            best[number] = min(best[number], time.process_time() - start)
    return best


@pytest.mark.parametrize("work", [lint_pipeline, to_mermaid], ids=["lint", "draw"])
def test_time_per_stage_is_the_same_from_a_hundred_to_ten_thousand(work: Work) -> None:
    sizes = [100, 1_000, 10_000]
    times = seconds(work, *(layered(size // 10, 10, 3) for size in sizes))

    per_stage = [taken / size for taken, size in zip(times, sizes, strict=True)]
    print("\n  us per stage:", *(f"{it * 1e6:.1f}" for it in per_stage))
    # Reading the file of the stages once weighs more on the small one.
    assert per_stage[2] < 1.5 * min(per_stage)


def test_time_per_edge_is_the_same_for_few_and_for_all() -> None:
    few, all_ = layered(100, 100, 10), layered(100, 100, 100)
    sparse, dense = seconds(lint_pipeline, few, all_)

    print(f"\n  {dense:.2f} s for 990,000 edges, {dense / sparse:.1f} x that of 99,000")
    assert dense / sparse < 15


def test_lint_costs_less_than_making_the_specs() -> None:
    pipeline = layered(100, 100, 3)
    linted, made = (
        seconds(lint_pipeline, pipeline),
        seconds(lambda _: layered(100, 100, 3), pipeline),
    )

    print(f"\n  {linted[0] * 1e3:.0f} ms against {made[0] * 1e3:.0f} ms")
    assert linted[0] < 1.5 * made[0]
