"""Runs that can be repeated."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings

from actorflow import Pipeline, clock, ids
from actorflow.actors import Backoff, Child, Inbox, Notice, RestartPlanned, open_system
from actorflow.errors import UnifiedPipelineCancelled, UnifiedStageExecutionError
from actorflow.interceptors import get_default_interceptors
from actorflow.testing import RecordedEvent, RecordingEventSink, pipelines, run_seeded


async def race() -> list[int]:
    order: list[int] = []

    async def run(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(run, number)
    return order


def test_same_seed_gives_the_same_order() -> None:
    assert [run_seeded(race, seed=5) for _ in range(3)] == [run_seeded(race, seed=5)] * 3


def test_seeds_differ_in_order() -> None:
    orders = {tuple(run_seeded(race, seed=seed)) for seed in range(10)}

    assert len(orders) == 10


def test_order_does_not_depend_on_what_was_drawn_before() -> None:
    first = run_seeded(race, seed=5)
    random.seed(1)
    trio.run(race)

    assert run_seeded(race, seed=5) == first


def test_common_dice_are_as_before_a_seeded_run() -> None:
    random.seed(7)
    expected = [random.random() for _ in range(2)]
    random.seed(7)
    found = [random.random()]
    run_seeded(race)

    assert [*found, random.random()] == expected


def test_hours_pass_at_once() -> None:
    async def wait(hours: float) -> float:
        await trio.sleep(hours * 3600)
        return trio.current_time()

    assert run_seeded(wait, 24) == 86400


def test_tasks_left_behind_are_named() -> None:
    async def leave() -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="the one left")

    with pytest.raises(AssertionError, match="the one left"):
        run_seeded(leave)


def test_jitter_repeats() -> None:
    async def crash(inbox: Inbox[str]) -> None:
        async for message in inbox:
            raise ValueError(message)

    async def delays() -> list[float]:
        notices: list[Notice] = []
        child = Child("a", crash, backoff=Backoff(base=1, jitter=1))
        async with open_system(child) as system:
            system.subscribe(notices.append)
            await system["a"].tell("now")
            await trio.sleep(2)
        return [notice.delay for notice in notices if isinstance(notice, RestartPlanned)]

    assert run_seeded(delays, seed=3) == run_seeded(delays, seed=3)
    assert run_seeded(delays, seed=3) != run_seeded(delays, seed=4)


async def events_of(pipeline: Pipeline) -> list[RecordedEvent]:
    sink = RecordingEventSink(strict=True)
    with suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled):
        # New ones, because a circuit breaker remembers what failed in the run before.
        await pipeline.run(event_sink=sink, interceptors=get_default_interceptors())
    return sink.events


@settings(max_examples=50)
@given(pipelines())
def test_same_seed_gives_the_same_events_to_the_byte(pipeline: Pipeline) -> None:
    def told() -> str:
        with ids.seeded(1), clock.starting_at(0):
            return repr(run_seeded(events_of, pipeline, seed=3))

    assert told() == told()


def test_failure_says_how_to_replay_it() -> None:
    async def lose_the_race() -> None:
        assert (await race())[0] == 0

    def ends(seed: int) -> str:
        try:
            run_seeded(lose_the_race, seed=seed)
        except AssertionError as error:
            return error.__notes__[-1]
        return "won"

    failing = {seed: note for seed in range(10) if (note := ends(seed)) != "won"}
    assert 0 < len(failing) < 10
    for seed, note in failing.items():
        assert note == f"replay it with run_seeded(lose_the_race, ..., seed={seed})"
        assert ends(seed) == note
