"""Many deadlines, one task."""

from __future__ import annotations

import trio
import trio.testing

from actorflow.actors._timers import Timers

Clock = trio.testing.MockClock


async def test_calls_are_made_in_the_order_of_their_times(autojump_clock: Clock) -> None:
    made: list[tuple[str, float]] = []
    timers = Timers()
    start = trio.current_time()

    def at(name: str, seconds: float) -> None:
        timers.at(start + seconds, lambda: made.append((name, trio.current_time() - start)))

    at("late", 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.sleep(1)
        at("early", 2)
        at("same", 2)
        at("past", -1)
        await trio.sleep(10)
        timers.scope.cancel()

    assert made == [("past", 1), ("early", 2), ("same", 2), ("late", 5)]


async def test_cancelled_timers_do_nothing(autojump_clock: Clock) -> None:
    made: list[str] = []
    timers = Timers()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        timer = timers.at(trio.current_time() + 1, lambda: made.append("cancelled"))
        other = timers.at(trio.current_time() + 2, lambda: made.append("made"))
        timer.cancel()
        timer.cancel()
        assert len(timers) == 1
        await trio.sleep(3)
        other.cancel()
        timers.scope.cancel()

    assert made == ["made"]
    assert len(timers) == 0


async def test_heap_of_cancelled_timers_does_not_grow() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.at(number, lambda: None).cancel()
        assert len(timers._heap) < 200

    kept = [timers.at(number, lambda: None) for number in range(100)]
    assert len(timers) == len(kept)
