"""Stream edges: what a stage hands to others while both are running."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, Never, final

import trio

from actorflow.errors import (
    InvalidArgumentError,
    StreamBrokenError,
    StreamClosedError,
    UndeclaredDependencyError,
)
from actorflow.model import StageOutput, StageStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actorflow.pipeline import StageSpec, Wiring

_ENDED_WELL: Final = frozenset({StageStatus.OK, StageStatus.SKIP})


# A stage that need not wait yields only now and then, because a yield costs more than
# handing an item over. Both limits count: items that take long to handle must not keep
# others from running, and on a virtual clock a busy stage takes no time at all.
_TURN_ITEMS: Final = 32
_TURN_SECONDS: Final = 0.001


@final
class Turn:
    """What is left of the time for which a stage may go on without letting others run."""

    __slots__ = ("ends_at", "items", "now")

    def __init__(self) -> None:
        self.items = 0
        self.ends_at = 0.0
        # Looking up the clock would cost more than reading it.
        self.now: Callable[[], float] = trio.current_time

    def begin(self) -> None:
        """Note that the others have just had the chance to run."""
        self.now = trio.lowlevel.current_clock().current_time
        self.items = _TURN_ITEMS
        self.ends_at = self.now() + _TURN_SECONDS


@final
class StreamEdge(AsyncIterator[Any]):
    """One edge: a bounded queue, what became of its producer, and numbers.

    It is the iterator that its consumer reads from; the consumer is one stage,
    so a second loop goes on where the first stopped.
    """

    __slots__ = (
        "_blocked",
        "_blocked_time",
        "_buffer",
        "_cause",
        "_dropped",
        "_dropped_ms",
        "_drops_oldest",
        "_ended",
        "_held_ms",
        "_is_open",
        "_items",
        "_max_ms",
        "_output",
        "_peak_ms",
        "_readers",
        "_reading",
        "_room",
        "_total",
        "_writers",
        "_writing",
        "consumer",
        "source",
    )

    def __init__(self, source: str, spec: StageSpec, writing: Turn, reading: Turn) -> None:
        """The edge from `source` to the stage of `spec`, whose options are its bounds."""
        self.source = source
        self.consumer = spec.name
        self._buffer = spec.stream_buffer
        self._max_ms = spec.stream_ms
        self._drops_oldest = spec.stream_policy == "drop_oldest"
        self._writing = writing
        self._reading = reading
        self._items: deque[Any] = deque()
        # How many items there may be; none, once either side has left.
        self._room = spec.stream_buffer
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self._output: StageOutput | None = None
        self._cause: BaseException | None = None
        self._is_open = True
        self._total = 0
        self._blocked = 0
        self._blocked_time = 0.0
        self._dropped = 0
        # How long what is here plays; nothing is measured without a bound on it.
        self._held_ms = self._peak_ms = self._dropped_ms = 0.0

    # The producer's side

    def offer(self, item: Any) -> bool:
        """Put an item if there is room, and the producer has not kept others waiting."""
        turn = self._writing
        turn.items -= 1
        return turn.items >= 0 and turn.now() < turn.ends_at and self._has_put(item)

    async def put(self, item: Any) -> None:
        """Put an item once there is room, or forget it once nobody will read it."""
        await trio.lowlevel.checkpoint()
        if not self._has_put(item) and self._room:
            await self._wait_for_room(item)
        self._writing.begin()

    async def _wait_for_room(self, item: Any) -> None:
        self._blocked += 1
        begun_at = trio.current_time()
        try:
            while True:
                await self._writers.park()
                if self._has_put(item) or not self._room:
                    return
        finally:
            self._blocked_time += trio.current_time() - begun_at

    def _has_put(self, item: Any) -> bool:
        if self._max_ms is not None or self._drops_oldest:
            if not self._room or not self._makes_room(_duration_ms(item)):
                return False
        elif len(self._items) >= self._room:
            return False
        self._items.append(item)
        self._total += 1
        if self._readers:
            self._readers.unpark()
        return True

    def _makes_room(self, duration_ms: float) -> bool:
        while not self._has_room(duration_ms):
            if not self._drops_oldest:
                return False
            self._dropped += 1
            self._dropped_ms += self._shorten(self._items.popleft())
        self._held_ms += duration_ms
        self._peak_ms = max(self._peak_ms, self._held_ms)
        return True

    def _has_room(self, duration_ms: float) -> bool:
        # An item that is longer than the bound has room only where nothing else is.
        if not self._items:
            return True
        is_within = self._max_ms is None or self._held_ms + duration_ms <= self._max_ms
        return is_within and len(self._items) < self._room

    def _shorten(self, item: Any) -> float:
        duration_ms = _duration_ms(item)
        # Sums of floats drift; where nothing is, nothing plays.
        self._held_ms = self._held_ms - duration_ms if self._items else 0.0
        return duration_ms

    def producer_ended(self, output: StageOutput | None, cause: BaseException | None) -> None:
        """Let the consumer read what is left and then find out how the producer ended."""
        self._output = output
        self._cause = cause
        self._room = 0
        self._ended.set()
        self._readers.unpark_all()
        self._writers.unpark_all()

    @property
    def has_ended(self) -> bool:
        """Whether the producer has."""
        return self._ended.is_set()

    # The consumer's side

    async def __anext__(self) -> Any:
        turn = self._reading
        turn.items -= 1
        if turn.items < 0 or turn.now() >= turn.ends_at or not self._items:
            await self._wait_for_an_item()
        item = self._items.popleft()
        if self._held_ms:
            self._shorten(item)
        if self._writers:
            self._writers.unpark()
        return item

    async def _wait_for_an_item(self) -> None:
        if self._items:
            await trio.lowlevel.checkpoint()
        while not self._items:
            if self._ended.is_set():
                await trio.lowlevel.checkpoint()
                self._raise_the_end()
            await self._readers.park()
        self._reading.begin()

    def _raise_the_end(self) -> Never:
        if self._output is not None and self._output.status in _ENDED_WELL:
            raise StopAsyncIteration
        raise StreamBrokenError(self.source, self.consumer) from self._cause

    async def output(self) -> StageOutput:
        """What the producer put out in the end."""
        await self._ended.wait()
        if self._output is None:
            raise StreamBrokenError(self.source, self.consumer) from self._cause
        return self._output

    def consumer_ended(self) -> None:
        """Let the producer go on without this edge."""
        self._room = 0
        self._items.clear()
        self._writers.unpark_all()

    # Afterwards

    def close(self) -> bool:
        """Note that one side has left; True the first time."""
        was_open, self._is_open = self._is_open, False
        return was_open

    def statistics(self) -> dict[str, Any]:
        """The numbers of `stream.queue_closed`."""
        return {
            "total_items": self._total,
            "dropped_items": self._dropped,
            "blocked_puts": self._blocked,
            "max_queue_size": self._buffer,
            "total_blocked_ms": round(self._blocked_time * 1000, 3),
            "drop_rate": self._dropped / max(self._total, 1),
        }

    def numbers(self) -> dict[str, Any]:
        """The same and, where it is bounded, how long what it held played."""
        if self._max_ms is None:
            return self.statistics()
        in_ms = {"max_ms": self._max_ms, "peak_ms": self._peak_ms, "dropped_ms": self._dropped_ms}
        return {**self.statistics(), **in_ms}


def _duration_ms(item: Any) -> float:
    # What does not say so takes no time.
    duration_ms: float = getattr(item, "duration_ms", 0.0)
    return duration_ms


@final
class Streams:
    """The stream edges of one run."""

    def __init__(self, wiring: Wiring, pairs: Iterable[tuple[int, int]]) -> None:
        self._wiring = wiring
        self._from: dict[int, list[StreamEdge]] = {}
        self._to: dict[int, list[StreamEdge]] = {}
        turns: defaultdict[int, Turn] = defaultdict(Turn)
        for source, consumer in pairs:
            name = wiring.specs[source].name
            edge = StreamEdge(name, wiring.specs[consumer], turns[source], turns[consumer])
            self._from.setdefault(source, []).append(edge)
            self._to.setdefault(consumer, []).append(edge)

    def offer(self, source: int, item: Any) -> bool:
        """Hand an item over if there is one consumer, and nobody has to wait for that."""
        edges = self._from.get(source)
        return edges is not None and len(edges) == 1 and edges[0].offer(item)

    async def send(self, source: int, item: Any) -> None:
        """Hand an item to every consumer that still reads, and wait until each has room."""
        edges = self._from.get(source)
        if not edges or edges[0].has_ended:
            raise StreamClosedError(self._wiring.specs[source].name, None)
        if len(edges) == 1:
            await edges[0].put(item)
            return
        # Each consumer gets it as soon as it has room, however slow the others are.
        full = [edge for edge in edges if not edge.offer(item)]
        if len(full) == 1:
            await full[0].put(item)
        elif full:
            async with trio.open_nursery() as nursery:
                for edge in full:
                    nursery.start_soon(edge.put, item)

    def reader(self, consumer: int, source: str | None) -> AsyncIterator[Any]:
        """The items of a producer."""
        return self._edge(consumer, source)

    async def output(self, consumer: int, source: str | None) -> StageOutput:
        """What a producer put out in the end."""
        return await self._edge(consumer, source).output()

    def _edge(self, consumer: int, source: str | None) -> StreamEdge:
        edges = self._to.get(consumer, ())
        if source is None and len(edges) == 1:
            return edges[0]
        for edge in edges:
            if edge.source == source:
                return edge
        spec = self._wiring.specs[consumer]
        if source is None and edges:
            raise InvalidArgumentError("source", None, f"one of {', '.join(spec.stream_from)}")
        raise UndeclaredDependencyError(source or "", spec.stream_from, spec.name)

    def settle(
        self, stage: int, output: StageOutput | None, cause: BaseException | None
    ) -> list[StreamEdge]:
        """A stage has ended; return the edges that are closed by that."""
        closed = []
        for edge in self._from.get(stage, ()):
            edge.producer_ended(output, cause)
            closed.append(edge)
        for edge in self._to.get(stage, ()):
            edge.consumer_ended()
            closed.append(edge)
        return [edge for edge in closed if edge.close()]

    def close(self) -> list[StreamEdge]:
        """The run is over; return the edges that are closed by that."""
        stages = {*self._from, *self._to}
        return [edge for stage in sorted(stages) for edge in self.settle(stage, None, None)]

    def numbers_of(self, stage: int) -> dict[str, dict[str, Any]]:
        """The numbers of what a stage has sent, by consumer."""
        return {edge.consumer: edge.numbers() for edge in self._from.get(stage, ())}
