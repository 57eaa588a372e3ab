"""Runs that can be repeated: a seed decides every choice of the scheduler and of chance."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing

from actorflow import backoff

T = TypeVar("T")


def run_seeded(async_fn: Callable[..., Awaitable[T]], *args: Any, seed: int = 0) -> T:
    """Run ``async_fn(*args)`` under trio on a virtual clock, and return what it returns.

    trio runs tasks that are ready in no particular order, so some faults show in
    one run of a thousand. Here the order, the jitter of retries, and whatever
    else asks `random`, follow from `seed`: the same seed gives the same run,
    another seed another order. Nothing really sleeps, because the clock jumps to
    the next deadline as soon as all tasks wait. Ids and times of day are no part of
    the schedule; with `ids.seeded` and `clock.starting_at` around it they repeat as
    well.

    What `async_fn` raises comes with a note that says with which seed.

    Raises:
      AssertionError: if `async_fn` leaves tasks behind, naming them.
    """

    async def main() -> T:
        before = living_tasks()
        result = await async_fn(*args)
        left = [task.name for task in living_tasks() if task not in before]
        assert not left, f"{async_fn!r} left tasks behind: {left}"
        return result

    with _seeded(seed), backoff.seeded(seed):
        try:
            return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseException as error:
            name = getattr(async_fn, "__name__", repr(async_fn))
            error.add_note(f"replay it with run_seeded({name}, ..., seed={seed})")
            raise


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # The one place that reaches into trio: it sorts what is ready before it
    # shuffles it, as it does for Hypothesis, and shuffles with dice of its own.
    core: Any = trio._core._run
    sorts, dice, common = (
        core._ALLOW_DETERMINISTIC_SCHEDULING,
        core._r.getstate(),
        random.getstate(),
    )
    core._ALLOW_DETERMINISTIC_SCHEDULING = True
    core._r.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING = sorts
        core._r.setstate(dice)
        random.setstate(common)


def living_tasks() -> list[trio.lowlevel.Task]:
    """Return every task of this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # only from inside a run
    found = [root]
    for task in found:
        found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found
