"""Items from tasks that produce them to tasks that consume them, within bounds.

Between two awaits this holds: consumers wait only while there is no item, and
producers wait only while the first of them has no room. A waiting task is
served by whoever makes that possible, in the same step. So the books are right
at every moment, nobody overtakes, and what a task was given while it waited
cannot be lost to a cancellation: trio delivers none to a task that has been
rescheduled.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Generic, Literal, TypeVar, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import InvalidAudioError

from ._arguments import check_count, check_milliseconds
from ._monitor import BackpressureMonitor, BackpressureStats
from ._telemetry import EventEmitter, Telemetry

T = TypeVar("T")

# A call that need not wait yields only now and then, because a yield costs more
# than the call. Both limits count: items that take long to handle must not keep
# others from running, and on a virtual clock a busy task takes no time at all.
_TURNS: Final = 32
_TURN_SECONDS: Final = 0.001

_BLOCKED: Final = 0.001


@final
@attrs.frozen
class ChunkQueueStatistics:
    """What a queue holds, who waits for it and what it has counted."""

    size: int
    max_size: int
    buffered_ms: float
    """Audio in the queue; 0.0 without `max_ms`, as all times here."""
    max_ms: float | None
    peak_ms: float
    dropped_ms: float
    cleared_items: int
    waiting_producers: int
    waiting_consumers: int
    policy: Literal["wait", "drop_oldest"]
    """What `put` does when there is no room."""
    is_closed: bool
    backpressure: BackpressureStats


@attrs.define(eq=False)
class _Waiting:
    """A task in line; what it waits for is set before it is woken."""

    item: Any = None
    duration_ms: float = 0.0
    since: float = 0.0
    is_accepted: bool = False
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)

    async def wait(self, line: OrderedDict[_Waiting, None]) -> None:
        """Wait at the end of `line`; when cancelled leave it at once, so that nobody serves it."""

        def leave(_: object) -> trio.lowlevel.Abort:
            del line[self]
            return trio.lowlevel.Abort.SUCCEEDED

        line[self] = None
        await trio.lowlevel.wait_task_rescheduled(leave)

    def wake(self) -> None:
        trio.lowlevel.reschedule(self.task)


@final
class ChunkQueue(Generic[T]):
    """A bounded queue that counts, reports, and ends.

    Its bound is a number of items and, with `max_ms`, the time they play. A full
    queue makes `put` wait or, with `drop_on_overflow`, drops what is oldest. Any
    number of tasks of one `trio.run` may put and get; each item goes to one of them.
    """

    __slots__ = (
        "_buffered_ms",
        "_cleared",
        "_consumers",
        "_dropped_ms",
        "_drops_oldest",
        "_duration_of",
        "_durations",
        "_is_closed",
        "_items",
        "_max_ms",
        "_max_size",
        "_monitor",
        "_now",
        "_peak_ms",
        "_producers",
        "_said_throttled",
        "_share",
        "_telemetry",
        "_turn_ends",
        "_turns",
    )

    def __init__(
        self,
        max_size: int = 100,
        *,
        max_ms: float | None = None,
        duration_of: Callable[[T], float] = attrgetter("duration_ms"),
        drop_on_overflow: bool = False,
        event_emitter: EventEmitter | None = None,
    ) -> None:
        """Make an open, empty queue.

        Args:
          max_ms: how much audio it may hold. An item that is longer than that
            has room only in an empty queue.
          duration_of: how long an item plays, asked once per item if there is
            a `max_ms`.
          event_emitter: is told what happens; `ctx.try_emit_event` adds the ids
            of the run.

        Raises:
          InvalidAudioError: for a bound that nothing fits into.
        """
        check_count("max_size", max_size, least=1)
        if max_ms is not None:
            check_milliseconds("max_ms", max_ms, is_zero_fine=False)
        self._max_size = max_size
        self._max_ms = max_ms
        self._duration_of = duration_of
        self._drops_oldest = drop_on_overflow
        self._telemetry = Telemetry(event_emitter)
        self._monitor = BackpressureMonitor()
        self._items: deque[T] = deque()
        # Beside the items, and empty without a `max_ms`.
        self._durations: deque[float] = deque()
        self._buffered_ms = self._peak_ms = self._dropped_ms = self._share = 0.0
        self._cleared = 0
        self._producers: OrderedDict[_Waiting, None] = OrderedDict()
        self._consumers: OrderedDict[_Waiting, None] = OrderedDict()
        self._is_closed = False
        self._said_throttled = False
        self._turns = 1
        self._turn_ends = 0.0
        self._now: Callable[[], float] = clock.monotonic

    def __len__(self) -> int:
        return len(self._items)

    # A queue is something to work with also while it is empty.
    def __bool__(self) -> bool:
        return True

    @property
    def max_size(self) -> int:
        """How many items it may hold."""
        return self._max_size

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more items; there may be some left to get."""
        return self._is_closed

    @property
    def monitor(self) -> BackpressureMonitor:
        """What counts for this queue, and says whether producers should slow down."""
        return self._monitor

    def statistics(self) -> ChunkQueueStatistics:
        """What is true of the queue now."""
        return ChunkQueueStatistics(
            size=len(self._items),
            max_size=self._max_size,
            buffered_ms=self._buffered_ms,
            max_ms=self._max_ms,
            peak_ms=self._peak_ms,
            dropped_ms=self._dropped_ms,
            cleared_items=self._cleared,
            waiting_producers=len(self._producers),
            waiting_consumers=len(self._consumers),
            policy="drop_oldest" if self._drops_oldest else "wait",
            is_closed=self._is_closed,
            backpressure=self._monitor.stats,
        )

    # Putting

    async def put(self, item: T) -> bool:
        """Append an item once there is room, and return True.

        Returns False, and the item is not in the queue, if the queue is closed
        before that. Being cancelled while waiting adds nothing.

        Raises:
          InvalidAudioError: for None, which stands for the end.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        has_length = self._max_ms is not None or item is None
        duration_ms = self._measure(item) if has_length else 0.0
        if self._is_closed:
            await self._yield()
            return False
        if self._offer(item, duration_ms):
            self._turns -= 1
            if self._turns <= 0 or self._now() >= self._turn_ends:
                await self._yield()
            return True
        place = _Waiting(item, duration_ms, clock.monotonic())
        try:
            await place.wait(self._producers)
        except trio.Cancelled:
            # Behind a long item that is gone there may be shorter ones with room.
            self._serve_producers()
            self._report_throttle()
            raise
        self._begin_turn()
        return place.is_accepted

    def put_nowait(self, item: T) -> bool:
        """Append an item, or return False if it has no room or the queue is closed.

        An item without room is counted as dropped.

        Raises:
          InvalidAudioError: for None, which stands for the end.
        """
        duration_ms = self._measure(item)
        if self._is_closed:
            return False
        if self._offer(item, duration_ms):
            return True
        self._monitor.record_drop()
        self._dropped_ms += duration_ms
        self._report_dropped(len(self._items), "queue_full")
        return False

    # Getting

    async def get(self) -> T | None:
        """Return the next item once there is one, or None at the end.

        The end is when the queue is closed and nothing is left. Being cancelled
        while waiting loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._items:
            return await self._wait_for_item()
        item = self._next()
        self._turns -= 1
        if self._turns <= 0 or self._now() >= self._turn_ends:
            await self._yield()
        return item

    async def _wait_for_item(self) -> T | None:
        if self._is_closed:
            await self._yield()
            return None
        place = _Waiting()
        await place.wait(self._consumers)
        self._begin_turn()
        given: T | None = place.item
        return given

    def get_nowait(self) -> T | None:
        """Return the next item, or None at the end.

        Raises:
          trio.WouldBlock: if there is neither.
        """
        if self._items:
            return self._next()
        if self._is_closed:
            return None
        raise trio.WouldBlock

    def __aiter__(self) -> ChunkQueue[T]:
        return self

    async def __anext__(self) -> T:
        # `get` once more, because calling it for every item would be felt.
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._items:
            last = await self._wait_for_item()
            if last is None:
                raise StopAsyncIteration
            return last
        item = self._next()
        self._turns -= 1
        if self._turns <= 0 or self._now() >= self._turn_ends:
            await self._yield()
        return item

    # Ending

    async def close(self) -> None:
        """Take no more items; what is in the queue can still be got.

        Wakes everybody who waits. The queue is closed also when this is cancelled.
        """
        self.close_nowait()
        await trio.lowlevel.checkpoint()

    def close_nowait(self) -> None:
        """Do what `close` does where nothing can be awaited."""
        if self._is_closed:
            return
        self._is_closed = True
        blocked: list[float] = []
        for place in self._producers:
            self._note_wait(place, blocked)
        for place in (*self._producers, *self._consumers):
            place.wake()
        self._producers.clear()
        self._consumers.clear()
        self._report_blocked(blocked)
        self._telemetry.emit("stream.queue_closed", self._monitor.stats.to_dict())

    def clear(self) -> int:
        """Throw away what is in the queue, and return how many items that were.

        They count as cleared, not as dropped. Waiting producers come in.
        """
        cleared = len(self._items)
        while self._items:
            self._take()
        self._cleared += cleared
        self._serve_producers()
        self._report_throttle()
        return cleared

    # State, changed between awaits only; reports come last

    def _measure(self, item: T) -> float:
        if item is None:
            raise InvalidAudioError("item", item, "something: None marks the end of a queue")
        if self._max_ms is None:
            return 0.0
        duration_ms = self._duration_of(item)
        check_milliseconds("duration_of(item)", duration_ms, is_zero_fine=True)
        return duration_ms

    def _fits(self, duration_ms: float) -> bool:
        if len(self._items) >= self._max_size:
            return False
        return (
            self._max_ms is None
            or not self._items
            or self._buffered_ms + duration_ms <= self._max_ms
        )

    def _offer(self, item: T, duration_ms: float) -> bool:
        if not self._producers and self._fits(duration_ms):
            self._accept(item, duration_ms)
        elif self._drops_oldest:
            self._push(item, duration_ms)
        else:
            return False
        if self._monitor._is_throttling is not self._said_throttled:
            self._report_throttle()
        return True

    def _push(self, item: T, duration_ms: float) -> None:
        sizes = []
        while not self._fits(duration_ms):
            self._items.popleft()
            if self._max_ms is not None:
                self._dropped_ms += self._shorten()
            self._monitor.record_drop()
            sizes.append(len(self._items))
        self._accept(item, duration_ms)
        for size in sizes:
            self._report_dropped(size, "overflow")

    def _accept(self, item: T, duration_ms: float) -> None:
        self._items.append(item)
        if self._max_ms is not None:
            self._lengthen(duration_ms)
        size = len(self._items)
        self._monitor._note_put(size, size / self._max_size, self._share)
        if self._consumers:
            place, _ = self._consumers.popitem(last=False)
            place.item = self._take()
            place.wake()

    def _next(self) -> T:
        item = self._take()
        if self._producers:
            self._serve_producers()
        if self._monitor._is_throttling is not self._said_throttled:
            self._report_throttle()
        return item

    def _take(self) -> T:
        item = self._items.popleft()
        if self._max_ms is not None:
            self._shorten()
        self._monitor._note_get(len(self._items) / self._max_size, self._share)
        return item

    def _serve_producers(self) -> None:
        blocked: list[float] = []
        while self._producers:
            place = next(iter(self._producers))
            if not self._fits(place.duration_ms):
                break
            del self._producers[place]
            self._note_wait(place, blocked)
            self._accept(place.item, place.duration_ms)
            place.is_accepted = True
            place.wake()
        self._report_blocked(blocked)

    def _lengthen(self, duration_ms: float) -> None:
        self._durations.append(duration_ms)
        self._set_buffered_ms(self._buffered_ms + duration_ms)
        self._peak_ms = max(self._peak_ms, self._buffered_ms)

    def _shorten(self) -> float:
        duration_ms = self._durations.popleft()
        # Sums of floats drift; an empty queue holds exactly nothing.
        self._set_buffered_ms(self._buffered_ms - duration_ms if self._durations else 0.0)
        return duration_ms

    def _set_buffered_ms(self, buffered_ms: float) -> None:
        assert self._max_ms is not None
        self._buffered_ms = buffered_ms
        self._share = min(buffered_ms / self._max_ms, 1.0)

    def _note_wait(self, place: _Waiting, blocked: list[float]) -> None:
        waited = clock.monotonic() - place.since
        if waited > _BLOCKED:
            blocked_ms = round(waited * 1000, 3)
            self._monitor.record_blocked(blocked_ms)
            blocked.append(blocked_ms)

    # Reports

    def _report_dropped(self, queue_size: int, reason: str) -> None:
        self._telemetry.emit(
            "stream.chunk_dropped",
            {"queue_size": queue_size, "max_size": self._max_size, "reason": reason},
        )

    def _report_blocked(self, blocked: list[float]) -> None:
        for blocked_ms in blocked:
            self._telemetry.emit(
                "stream.producer_blocked",
                {"blocked_ms": blocked_ms, "queue_size": len(self._items)},
            )

    def _report_throttle(self) -> None:
        is_throttled = self._monitor.should_throttle()
        if is_throttled is self._said_throttled:
            return
        type = f"stream.throttle_{'started' if is_throttled else 'ended'}"
        # An emitter that fills or drains the queue may turn the tide while it hears
        # of it; the next put or get says so then.
        if not self._telemetry.is_emitting(type):
            self._said_throttled = is_throttled
            self._telemetry.emit(
                type,
                {
                    "fill_percentage": self._monitor.fill_percentage,
                    "queue_size": len(self._items),
                },
            )

    # Turns

    async def _yield(self) -> None:
        # What was put or got stays so: whoever is cancelled hears of it next time.
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._turns = _TURNS
        # Looking up the clock would cost more than reading it.
        self._now = trio.lowlevel.current_clock().current_time
        self._turn_ends = self._now() + _TURN_SECONDS
