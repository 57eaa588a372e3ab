"""Which ids were seen lately: the decision behind the collision monitor, without a clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final
from uuid import UUID

import attrs

SHORTEST_TTL: Final = 1.0


@attrs.frozen
class _Sighting:
    at: float
    occurrences: int


@final
class IdWindow:
    """The ids of the last `ttl_seconds`, at most `max_entries` of them, oldest out first.

    The age of an id counts from its newest sighting, so that of an id that is
    seen again and again nothing is forgotten. Times are handed in.
    """

    def __init__(self, ttl_seconds: float, max_entries: int) -> None:
        self.ttl_seconds: Final = max(SHORTEST_TTL, ttl_seconds)
        self.max_entries: Final = max(1, max_entries)
        # In order of their newest sightings.
        self._sightings: OrderedDict[UUID, _Sighting] = OrderedDict()

    def observe(self, uid: UUID, now: float) -> int:
        """Note that an id was seen, and return how often it has been, this time included."""
        self._forget(now)
        earlier = self._sightings.pop(uid, None)
        occurrences = 1 if earlier is None else earlier.occurrences + 1
        self._sightings[uid] = _Sighting(now, occurrences)
        if len(self._sightings) > self.max_entries:
            self._sightings.popitem(last=False)
        return occurrences

    def size(self, now: float) -> int:
        """How many ids are in the window at this moment."""
        self._forget(now)
        return len(self._sightings)

    def _forget(self, now: float) -> None:
        while self._sightings:
            oldest = next(iter(self._sightings.values()))
            if now - oldest.at < self.ttl_seconds:
                return
            self._sightings.popitem(last=False)
