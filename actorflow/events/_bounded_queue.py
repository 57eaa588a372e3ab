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
    is_accepted: bool = False
    decided: trio.Event = attrs.field(factory=trio.Event)


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
        """Wait in line: `decided` is set when it is known whether the item is accepted."""
        place = Place(item)
        self._line.append(place)
        return place

    def leave(self, place: Place[T]) -> None:
        """Give up a place in the line, because whoever waited was cancelled."""
        if not place.decided.is_set():
            self._line.remove(place)

    def take(self) -> T:
        """Return the oldest item and let the first in line come in."""
        item = self._items.popleft()
        if self._line:
            place = self._line.popleft()
            place.is_accepted = self.offer(place.item)
            place.decided.set()
        return item

    def clear(self) -> list[T]:
        """Return what is left, in order, and send the line away."""
        items = list(self._items)
        self._items.clear()
        while self._line:
            self._line.popleft().decided.set()
        return items
