from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import final

import trio


@final
class Timer:
    """One call that is due at one time, unless it is cancelled before."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the call. Harmless when it was made or cancelled already."""
        if self.callback is not None:
            self.callback = None
            self._timers.forget_one()

    def fire(self) -> None:
        callback, self.callback = self.callback, None
        if callback is None:
            self._timers.cancelled -= 1
        else:
            callback()


@final
class Timers:
    """Every deadline of a system in one heap, watched by one task.

    A cancel scope for each deadline would cost more than most of the calls it
    guards, and nearly all deadlines are cancelled before they are due.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._alarm: trio.CancelScope | None = None
        self.cancelled = 0
        self.scope = trio.CancelScope(shield=True)

    def __len__(self) -> int:
        return len(self._heap) - self.cancelled

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when` on trio's clock."""
        timer = Timer(self, when, callback)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        if self._alarm is not None and when < self._alarm.deadline:
            self._alarm.deadline = when
        return timer

    def forget_one(self) -> None:
        self.cancelled += 1
        if self.cancelled > 64 and self.cancelled > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self.cancelled = 0

    async def run(self) -> None:
        """Make the calls when they are due, until `scope` is cancelled."""
        with self.scope:
            while True:
                deadline = self._heap[0][0] if self._heap else math.inf
                with trio.CancelScope(deadline=deadline) as self._alarm:
                    await trio.sleep_forever()
                self._fire(trio.current_time())

    def _fire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2].fire()
