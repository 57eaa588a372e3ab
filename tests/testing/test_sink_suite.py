"""The suite for event sinks: ours pass it, and broken ones do not."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.events import (
    AnalyticsEvent,
    AnalyticsSink,
    BackpressureAwareEventSink,
    EventSink,
    FilterEventSink,
    JSONFileExporter,
    ObservableEventSink,
    TeeEventSink,
    read_events,
)
from actorflow.testing import check_event_sink

Payload = Mapping[str, Any] | None
Opened = AbstractAsyncContextManager[EventSink]


def plain(make: Callable[[EventSink], EventSink]) -> Callable[[EventSink], Opened]:
    @asynccontextmanager
    async def opened(behind: EventSink) -> AsyncIterator[EventSink]:
        sink = make(behind)
        yield sink
        if hasattr(sink, "aclose"):
            await sink.aclose()

    return opened


class Export:
    """Hands on what it is to export."""

    def __init__(self, behind: EventSink) -> None:
        self._behind = behind

    async def export(self, event: AnalyticsEvent) -> None:
        await self._behind.emit(type=event.event_type, data=event.data)

    async def export_batch(self, events: Iterable[AnalyticsEvent]) -> None:
        for event in events:
            await self.export(event)

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.spec("E43", "E39", "E40")
@pytest.mark.parametrize(
    "opened",
    [
        plain(TeeEventSink),
        plain(FilterEventSink),
        plain(lambda behind: ObservableEventSink(downstream=behind)),
        lambda behind: BackpressureAwareEventSink(behind, max_queue_size=10),
        lambda behind: BackpressureAwareEventSink(TeeEventSink(behind)),
        lambda behind: AnalyticsSink(Export(behind)),
    ],
    ids=["tee", "filter", "observable", "queue", "queue and tee", "analytics"],
)
async def test_sinks_of_the_package_pass(
    opened: Callable[[EventSink], Opened], autojump_clock: MockClock
) -> None:
    await check_event_sink(opened)


# On the machine's clock: a virtual one jumps while a thread writes.
async def test_sink_that_keeps_events_elsewhere_passes(tmp_path: Path) -> None:
    numbers = iter(range(100))

    @asynccontextmanager
    async def opened(behind: EventSink) -> AsyncIterator[EventSink]:
        path = tmp_path / f"{next(numbers)}.jsonl"
        async with AnalyticsSink(JSONFileExporter(path)) as sink:
            yield sink
        for event in read_events(path):
            behind.try_emit(type=event.event_type, data=event.data)

    await check_event_sink(opened, hands_on=False)


class HandingOn:
    """A sink that keeps every promise, for others to break."""

    def __init__(self, behind: EventSink) -> None:
        self.behind = behind

    async def emit(self, *, type: str, data: Payload) -> None:
        await self.behind.emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Payload) -> Any:
        return self.behind.try_emit(type=type, data=data)


class Meddling(HandingOn):
    async def emit(self, *, type: str, data: Any) -> None:
        if data:
            data["seen"] = True
        await super().emit(type=type, data=data)


class Vague(HandingOn):
    def try_emit(self, *, type: str, data: Payload) -> Any:
        super().try_emit(type=type, data=data)
        return "maybe"


class Promising(HandingOn):
    """Accepts what it throws away."""

    def try_emit(self, *, type: str, data: Payload) -> Any:
        return True


class Grudging(HandingOn):
    """Refuses what it hands on all the same."""

    def try_emit(self, *, type: str, data: Payload) -> Any:
        super().try_emit(type=type, data=data)
        return False


class Doubling(HandingOn):
    async def emit(self, *, type: str, data: Payload) -> None:
        await super().emit(type=type, data=data)
        await super().emit(type=type, data=data)


class Holding(HandingOn):
    """Keeps what it accepts until it is told to let go."""

    def __init__(self, behind: EventSink) -> None:
        super().__init__(behind)
        self.held: deque[tuple[str, Payload]] = deque()

    async def emit(self, *, type: str, data: Payload) -> None:
        self.held.append((type, data))

    def try_emit(self, *, type: str, data: Payload) -> Any:
        self.held.append((type, data))

    async def aclose(self) -> None:
        while self.held:
            type, data = self.held.popleft()
            await self.behind.emit(type=type, data=data)


class Forgetting(Holding):
    async def aclose(self) -> None: ...


class Reversing(Holding):
    async def aclose(self) -> None:
        self.held.reverse()
        await super().aclose()


class Lazy(Holding):
    async def flush(self) -> None: ...


class Fragile(Holding):
    """Loses everything behind what could not be handed on."""

    async def aclose(self) -> None:
        try:
            await super().aclose()
        except OSError:
            self.held.clear()


class Offering(HandingOn):
    """Hands on what it declines."""

    def offer(self, *, type: str, data: Payload) -> bool:
        self.behind.try_emit(type=type, data=data)
        return False


class Latest(HandingOn):
    """Of those that wait at the same time one gets through."""

    waiting = 0

    async def emit(self, *, type: str, data: Payload) -> None:
        self.waiting += 1
        if self.waiting == 1:
            await super().emit(type=type, data=data)
        self.waiting -= 1


class Stubborn(HandingOn):
    async def emit(self, *, type: str, data: Payload) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(30):
            await super().emit(type=type, data=data)


class Stuck(HandingOn):
    async def emit(self, *, type: str, data: Payload) -> None:
        await trio.sleep_forever()


class Anxious(HandingOn):
    """Gives up for good when it was cancelled once."""

    is_broken = False

    async def emit(self, *, type: str, data: Payload) -> None:
        if self.is_broken:
            return
        try:
            await super().emit(type=type, data=data)
        except trio.Cancelled:
            self.is_broken = True
            raise


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Meddling, "a payload is not changed"),
        (Vague, "try_emit answers True, False or None, at once"),
        (Promising, "what was accepted comes out once, in order"),
        (Grudging, "what was accepted comes out once, in order"),
        (Doubling, "what was accepted comes out once, in order"),
        (Forgetting, "what was accepted comes out once, in order, before the sink is closed"),
        (Reversing, "what was accepted comes out once, in order"),
        (Offering, "what was accepted comes out once, in order"),
        (Latest, "what was emitted comes out once"),
        (Lazy, "a flush lets everything out"),
        (Fragile, "what the sink behind raises costs that event and no other"),
        (Stubborn, "a cancelled emit ends at its next checkpoint"),
        (Anxious, "a cancelled emit comes out once or not at all, and the sink goes on"),
        (Stuck, "payloads are left alone: still waiting after 60 s"),
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else "",
)
async def test_broken_promise_is_named(
    broken: Callable[[EventSink], EventSink], promise: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(AssertionError, match=promise):
        await check_event_sink(plain(broken))


async def test_one_that_breaks_no_promise_passes(autojump_clock: MockClock) -> None:
    await check_event_sink(plain(HandingOn))


async def test_refused_events_that_come_out_are_found(autojump_clock: MockClock) -> None:
    class Overflowing(HandingOn):
        """Refuses from the hundredth on, and hands on nevertheless."""

        tried = 0

        def try_emit(self, *, type: str, data: Payload) -> Any:
            self.tried += 1
            super().try_emit(type=type, data=data)
            return self.tried < 100

    with pytest.raises(AssertionError, match="what try_emit accepted comes out, and nothing that"):
        await check_event_sink(plain(Overflowing))


async def test_emitters_that_overtake_themselves_are_found(autojump_clock: MockClock) -> None:
    class Shuffling(Holding):
        """Brings odd numbers first, unless there are few."""

        async def aclose(self) -> None:
            if len(self.held) == 100:
                self.held = deque(sorted(self.held, key=lambda it: -((it[1] or {})["n"] % 2)))
            await super().aclose()

    with pytest.raises(AssertionError, match="events of one emitter keep their order"):
        await check_event_sink(plain(Shuffling))
