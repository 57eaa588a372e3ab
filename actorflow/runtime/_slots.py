"""Which of the stages that are ready may run at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from actorflow.pipeline import Wiring


@attrs.define(eq=False)
class _Group:
    """Stages linked by stream edges, and those between them; they share one slot.

    A producer waits for its consumers to take items, so letting only one of
    them run could last forever. For the same reason a group starts only when
    it awaits nobody outside: otherwise a producer could hold the slot that the
    stage its consumer waits for needs.
    """

    unsettled: set[int]
    awaited: set[int]
    ready: list[int] = attrs.field(factory=list)
    is_queued: bool = False
    holds_slot: bool = False


@final
class Slots:
    """A queue of ready stages in front of a limited number of slots."""

    def __init__(self, limit: int, wiring: Wiring) -> None:
        self._free = limit
        self._queue: deque[int | _Group] = deque()
        self._at_once: list[int] = []
        self._groups: dict[int, _Group] = {}
        self._awaiting: dict[int, list[_Group]] = {}
        for members in _linked(wiring):
            self._share(members, wiring)

    def _share(self, members: set[int], wiring: Wiring) -> None:
        outside = {needed for member in members for needed in wiring.dependencies[member]} - members
        group = _Group(members, outside)
        self._groups.update(dict.fromkeys(members, group))
        for needed in outside:
            self._awaiting.setdefault(needed, []).append(group)

    def add(self, stage: int) -> None:
        """A stage is ready."""
        group = self._groups.get(stage)
        if group is None:
            self._queue.append(stage)
        elif group.holds_slot:
            self._at_once.append(stage)
        else:
            group.ready.append(stage)
            self._queue_group(group)

    def remove(self, stage: int) -> None:
        """A stage is to be repeated with what is before it, so it is not ready any more."""
        # Never one of a group: what is repeated neither sends nor reads streams.
        self._queue.remove(stage)

    def take(self) -> Iterator[int]:
        """Yield the stages that may start now; each has its slot when it is yielded."""
        while self._at_once:
            yield self._at_once.pop(0)
        while self._queue and self._free:
            next_one = self._queue.popleft()
            if isinstance(next_one, int):
                self._free -= 1
                yield next_one
                continue
            self._free -= 1
            next_one.is_queued = False
            next_one.holds_slot = True
            starting, next_one.ready = next_one.ready, []
            yield from starting

    def give_back(self, stage: int) -> None:
        """A stage that had started has ended."""
        if stage not in self._groups:
            self._free += 1

    def settled(self, stage: int) -> None:
        """A stage has ended or will never start."""
        for group in self._awaiting.get(stage, ()):
            group.awaited.discard(stage)
            self._queue_group(group)
        own = self._groups.get(stage)
        if own is not None:
            own.unsettled.discard(stage)
            if own.holds_slot and not own.unsettled:
                own.holds_slot = False
                self._free += 1

    def _queue_group(self, group: _Group) -> None:
        if group.ready and not group.awaited and not group.is_queued:
            group.is_queued = True
            self._queue.append(group)


def _linked(wiring: Wiring) -> list[set[int]]:
    """The stages that stream edges connect, with those between them.

    A stage between two of them has to run while they hold their slot, so it
    belongs to the group. With stream edges taken as going both ways, that makes
    a group of all that can be reached from each other.
    """
    unseen = {stage for stage, sources in enumerate(wiring.stream_sources) if sources}
    groups = []
    while unseen:
        start = unseen.pop()
        members = _reached(start, wiring, wiring.dependents)
        members &= _reached(start, wiring, wiring.dependencies)
        unseen -= members
        groups.append(members)
    return groups


def _reached(start: int, wiring: Wiring, edges: Sequence[Sequence[int]]) -> set[int]:
    reached = {start}
    to_visit = [start]
    while to_visit:
        stage = to_visit.pop()
        linked = (*edges[stage], *wiring.stream_sources[stage], *wiring.consumers[stage])
        fresh = set(linked) - reached
        reached |= fresh
        to_visit.extend(fresh)
    return reached
