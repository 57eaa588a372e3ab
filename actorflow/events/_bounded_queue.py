"""A bounded queue in which nobody overtakes and which can be looked at in between.

A memory channel does nearly the same. But here an emission that waits becomes
an accepted one in the same step in which room is made for it, so the books are
right at every moment, and the queue belongs to no run of trio, so it can be
filled before there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, final

import attrs
import trio

T = TypeVar("T")


@final
@attrs.define(eq=False)
class Place(Generic[T]):
    """A place in the line before the queue."""

    item: T
    _line: deque[Place[T]]
    is_accepted: bool = attrs.field(default=False, init=False)
    _is_decided: bool = attrs.field(default=False, init=False)
    _waiter: trio.lowlevel.Task | None = attrs.field(default=None, init=False)

    def decide(self, *, is_accepted: bool) -> None:
        self.is_accepted = is_accepted
        self._is_decided = True
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    async def wait(self) -> None:
        """Wait until it is known whether the item is accepted; to be cancelled is to leave."""
        if self._is_decided:
            return

        def abort(_: object) -> trio.lowlevel.Abort:
            # Now and not when this task runs again: until then the item might come in,
            # and whoever gave it up would tell that it is lost.
            self._waiter = None
            self.leave()
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def leave(self) -> None:
        """Give up the place, unless it is decided what becomes of it."""
        if not self._is_decided:
            self._is_decided = True
            self._line.remove(self)


@final
class BoundedQueue(Generic[T]):
    """Items that were accepted, and a line of those that wait for room.

    While somebody waits in line the queue is full, so nobody is overtaken.
    """

    def __init__(self, max_size: int, on_accept: Callable[[], object]) -> None:
        self.max_size = max_size
        self._on_accept = on_accept
        self._items: deque[T] = deque()
        self._line: deque[Place[T]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: T) -> bool:
        """Accept `item` if there is room, and say whether there was."""
        if len(self._items) >= self.max_size:
            return False
        self._items.append(item)
        self._on_accept()
        return True

    def line_up(self, item: T) -> Place[T]:
        """Take a place in the line, which whoever has it waits for or leaves."""
        place = Place(item, self._line)
        self._line.append(place)
        return place

    def take(self) -> T:
        """Return the oldest item and let the first in line come in."""
        item = self._items.popleft()
        if self._line:
            place = self._line.popleft()
            place.decide(is_accepted=self.offer(place.item))
        return item

    def clear(self) -> list[T]:
        """Return what is left, in order, and send the line away."""
        items = list(self._items)
        self._items.clear()
        while self._line:
            self._line.popleft().decide(is_accepted=False)
        return items
