"""Named channels between stages (30.15, RealtimeStageBus)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import InvalidArgumentError, UnifiedPipelineCancelled
from actorflow.runtime import RealtimeStageBus, UnifiedStageGraph
from actorflow.stages import StageContext
from actorflow.testing import RecordingEventSink

from .stages import spec


async def all_of(bus: RealtimeStageBus, name: str) -> list[Any]:
    return [item async for item in bus.subscribe(name)]


@pytest.mark.spec("30.15.9")
async def test_bus_belongs_to_one_run_and_is_closed_with_it() -> None:
    kept: list[Any] = []

    async def talks(ctx: StageContext) -> None:
        kept.append(ctx.bus)
        await ctx.bus.publish("words", ctx.snapshot.input_text)
        ctx.bus.close_channel("words")

    async def listens(ctx: StageContext) -> dict[str, Any]:
        return {"heard": [word async for word in ctx.bus.subscribe("words")]}

    graph = UnifiedStageGraph([spec("talks", talks), spec("listens", listens)])
    heard: dict[str, Any] = {}

    async def run(text: str) -> None:
        heard[text] = (await graph.run(text)).data("listens")["heard"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "one")
        nursery.start_soon(run, "two")

    assert heard == {"one": ["one"], "two": ["two"]}
    assert kept[0] is not kept[1]


@pytest.mark.spec("30.15.9")
async def test_subscribers_end_when_the_run_does_on_every_path() -> None:
    kept: list[Any] = []

    async def keeps(ctx: StageContext) -> None:
        kept.append(ctx.bus)
        await ctx.bus.publish("left", 1)
        await trio.sleep_forever()

    async with UnifiedStageGraph([spec("a", keeps)]).start() as run:
        await wait_all_tasks_blocked()
        run.cancel()
        with pytest.raises(UnifiedPipelineCancelled):
            await run.wait()

    assert await all_of(kept[0], "left") == [1]
    assert not await kept[0].publish("left", 2)


@pytest.mark.spec("30.15.10")
async def test_channel_is_made_once_and_its_options_stay() -> None:
    bus = RealtimeStageBus(default_max_size=7)

    made = bus.channel("a", max_size=2, drop_on_overflow=True)

    assert bus.channel("a") is bus.channel("a", max_size=2, drop_on_overflow=True) is made
    assert bus.channel("b").max_size == 7
    with pytest.raises(InvalidArgumentError, match="max_size must be 2"):
        bus.channel("a", max_size=3)
    with pytest.raises(InvalidArgumentError, match="drop_on_overflow must be True"):
        bus.channel("a", drop_on_overflow=False)


@pytest.mark.spec("30.15.10")
async def test_subscribers_compete_and_a_full_channel_makes_publishers_wait(
    autojump_clock: MockClock,
) -> None:
    bus = RealtimeStageBus(default_max_size=1)
    got: list[list[int]] = [[], []]

    async def subscribe(into: list[int]) -> None:
        async for item in bus.subscribe("n"):
            into.append(item)
            await trio.sleep(1)

    begun_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        for into in got:
            nursery.start_soon(subscribe, into)
        for number in range(6):
            await bus.publish("n", number)
        bus.close_all()

    assert sorted(got[0] + got[1]) == list(range(6))
    assert [len(items) for items in got] == [3, 3]
    assert trio.current_time() - begun_at == 3


@pytest.mark.spec("30.15.10")
async def test_what_a_channel_drops_is_an_event_of_the_run(sink: RecordingEventSink) -> None:
    async def floods(ctx: StageContext) -> None:
        bus = ctx.bus
        assert isinstance(bus, RealtimeStageBus)
        bus.channel("audio", max_size=1, drop_on_overflow=True)
        for number in range(3):
            await bus.publish("audio", number)

    await UnifiedStageGraph([spec("floods", floods)]).run(event_sink=sink)

    assert sink.types().count("stream.chunk_dropped") == 2


@pytest.mark.spec("30.15.11")
async def test_stats_show_each_channel() -> None:
    bus = RealtimeStageBus()
    await bus.publish("a", 1)
    bus.close_channel("a")
    bus.channel("b", max_size=3)

    stats = bus.stats()

    about = {name: {k: v for k, v in s.items() if k != "backpressure"} for name, s in stats.items()}
    assert about == {
        "a": {"size": 1, "max_size": 100, "closed": True},
        "b": {"size": 0, "max_size": 3, "closed": False},
    }
    assert isinstance(stats["a"]["backpressure"], dict)


@pytest.mark.spec("30.15.10")
def test_impossible_channels_are_refused() -> None:
    bus = RealtimeStageBus(max_channels=1)
    with pytest.raises(InvalidArgumentError, match="name"):
        bus.channel("")
    bus.channel("a")
    with pytest.raises(InvalidArgumentError, match="at most 1 channels"):
        bus.channel("b")
    with pytest.raises(InvalidArgumentError, match="max_channels"):
        RealtimeStageBus(max_channels=0)
