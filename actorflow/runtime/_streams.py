"""Stream edges: what a stage hands to others while both are running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, final

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

    from actorflow.pipeline import Wiring

_ENDED_WELL: Final = frozenset({StageStatus.OK, StageStatus.SKIP})


@final
class StreamEdge(AsyncIterator[Any]):
    """One edge: a bounded channel, what became of its producer, and numbers.

    It is the iterator that its consumer reads from; the consumer is one stage,
    so a second loop goes on where the first stopped.
    """

    def __init__(self, source: str, consumer: str, buffer: int) -> None:
        self.source = source
        self.consumer = consumer
        self._buffer = buffer
        self._into, self._out = trio.open_memory_channel[Any](buffer)
        self._ended = trio.Event()
        self._output: StageOutput | None = None
        self._cause: BaseException | None = None
        self._is_open = True
        self._total = 0
        self._blocked = 0
        self._blocked_time = 0.0

    # The producer's side

    def offer(self, item: Any) -> bool:
        """Put an item if there is room; nobody waits for what a closed edge is offered."""
        try:
            self._into.send_nowait(item)
        except trio.WouldBlock:
            return False
        except trio.BrokenResourceError:
            return True
        self._total += 1
        return True

    async def put(self, item: Any) -> None:
        """Put an item once there is room, or forget it once nobody will read it."""
        self._blocked += 1
        begun_at = trio.current_time()
        try:
            await self._into.send(item)
        except trio.BrokenResourceError:
            return
        finally:
            self._blocked_time += trio.current_time() - begun_at
        self._total += 1

    def producer_ended(self, output: StageOutput | None, cause: BaseException | None) -> None:
        """Let the consumer read what is left and then find out how the producer ended."""
        self._output = output
        self._cause = cause
        self._ended.set()
        self._into.close()

    @property
    def has_ended(self) -> bool:
        """Whether the producer has."""
        return self._ended.is_set()

    # The consumer's side

    async def __anext__(self) -> Any:
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            if self._output is not None and self._output.status in _ENDED_WELL:
                raise StopAsyncIteration from None
            raise StreamBrokenError(self.source, self.consumer) from self._cause

    async def output(self) -> StageOutput:
        """What the producer put out in the end."""
        await self._ended.wait()
        if self._output is None:
            raise StreamBrokenError(self.source, self.consumer) from self._cause
        return self._output

    def consumer_ended(self) -> None:
        """Let the producer go on without this edge."""
        self._out.close()

    # Afterwards

    def close(self) -> bool:
        """Note that one side has left; True the first time."""
        was_open, self._is_open = self._is_open, False
        return was_open

    def statistics(self) -> dict[str, Any]:
        """The numbers of `stream.queue_closed`."""
        return {
            "total_items": self._total,
            "dropped_items": 0,
            "blocked_puts": self._blocked,
            "max_queue_size": self._buffer,
            "total_blocked_ms": round(self._blocked_time * 1000, 3),
            "drop_rate": 0.0,
        }


@final
class Streams:
    """The stream edges of one run."""

    def __init__(self, wiring: Wiring, pairs: Iterable[tuple[int, int]]) -> None:
        self._wiring = wiring
        self._from: dict[int, list[StreamEdge]] = {}
        self._to: dict[int, list[StreamEdge]] = {}
        for source, consumer in pairs:
            spec = wiring.specs[consumer]
            edge = StreamEdge(wiring.specs[source].name, spec.name, spec.stream_buffer)
            self._from.setdefault(source, []).append(edge)
            self._to.setdefault(consumer, []).append(edge)

    async def send(self, source: int, item: Any) -> None:
        """Hand an item to every consumer that still reads, and wait until each has room."""
        edges = self._from.get(source, ())
        if not edges or edges[0].has_ended:
            raise StreamClosedError(self._wiring.specs[source].name, None)
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
        return {edge.consumer: edge.statistics() for edge in self._from.get(stage, ())}
