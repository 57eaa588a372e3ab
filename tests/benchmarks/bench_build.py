"""What declaring, checking and wiring a pipeline costs per stage, as ratios between sizes.

Each figure is the best of several rounds in which the sizes take turns, so a
machine that is slow for a moment is slow for all of them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import pytest

from actorflow.pipeline import Pipeline, StageSpec, stage, validated, with_linear_chain
from actorflow.stages import StageContext

Build = Callable[[int], object]

SIZES = (100, 1_000, 10_000)
ROUNDS = 3
LIMIT = 1.5


async def idle(ctx: StageContext) -> None:
    """A stage that does nothing."""


def check_time_per_stage(builds: Iterable[Callable[[], object]]) -> None:
    """Compare builds of pipelines of `SIZES`; small ones are repeated until they weigh as much."""
    todo = [(build, SIZES[-1] // size) for build, size in zip(builds, SIZES, strict=True)]
    best = [float("inf")] * len(todo)
    for _ in range(ROUNDS):
        for number, (build, repeats) in enumerate(todo):
            gc.collect()
            start = time.process_time()
            for _ in range(repeats):
                build()
            best[number] = min(best[number], time.process_time() - start)
    print("\n  us per stage:", *(f"{taken / SIZES[-1] * 1e6:.1f}" for taken in best))

    assert max(best) < LIMIT * min(best)


def chain(count: int) -> list[StageSpec]:
    """A chain declared last to first."""
    names = [f"s{number}" for number in range(count)]
    follows = [stage(name, idle, after=before) for before, name in pairwise(names)]
    return [*reversed(follows), stage(names[0], idle)]


def layers(count: int) -> list[StageSpec]:
    """Layers of ten stages, each with edges to three of the layer above."""
    return [
        stage(
            f"s{number}",
            idle,
            after=[f"s{number - number % 10 - 10 + (number + step) % 10}" for step in range(3)]
            if number >= 10
            else (),
        )
        for number in range(count)
    ]


def declare_and_check(count: int) -> None:
    Pipeline.from_stages(*chain(count)).validate()


def declare_by_pattern(count: int) -> object:
    return with_linear_chain(Pipeline(), count, lambda number: (f"s{number}", idle))


@pytest.mark.parametrize("build", [declare_and_check, declare_by_pattern])
def test_time_per_declared_stage_is_constant(build: Build) -> None:
    check_time_per_stage(partial(build, size) for size in SIZES)


@pytest.mark.parametrize("shape", [chain, layers])
def test_time_per_checked_stage_is_constant(shape: Callable[[int], list[StageSpec]]) -> None:
    check_time_per_stage(partial(validated, shape(size)) for size in SIZES)
