"""Ids of runs, stages and events.

`uuid7` sorts by the time it was made, so ids can serve as keys of a log.
`new_id` is random all through, for ids that should not tell their time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, final
from uuid import UUID

from actorflow import clock

# RFC 9562, section 5.7: 48 bits of Unix milliseconds, then version, 12 bits,
# variant, 62 bits. The 74 free bits are read as one number that counts up
# within a millisecond (method 2 of section 6.2, "monotonic random").
_FREE_BITS: Final = 74
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_VERSION: Final = 7 << 76
_VARIANT: Final = 0b10 << _LOW_BITS

# A fresh millisecond starts in the lower half of the free bits and steps by at
# most 2**32, so half a billion ids per millisecond fit before it is full.
_START_BITS: Final = _FREE_BITS - 1
_STEP_BITS: Final = 32


def _system_bits(count: int) -> int:
    # From the system every time: a seeded generator would give a forked child
    # the ids of its parent.
    return int.from_bytes(os.urandom((count + 7) // 8), "big") >> (-count % 8)


@final
class _Sequence:
    """Ids of which each is greater than the one before, whatever the clock does."""

    def __init__(self, bits: Callable[[int], int], now_ms: Callable[[], int]) -> None:
        self.bits: Final = bits
        self._now_ms: Final = now_ms
        self._lock: Final = threading.Lock()
        self._ms = -1
        self._free = 0

    def next(self) -> UUID:
        with self._lock:
            now = self._now_ms()
            if now > self._ms:
                self._ms, self._free = now, self.bits(_START_BITS)
            else:
                # The same millisecond, or a clock that went back: time stands
                # still here until the clock has caught up.
                self._free += 1 + self.bits(_STEP_BITS)
                if self._free >> _FREE_BITS:
                    self._ms, self._free = self._ms + 1, self.bits(_START_BITS)
            ms, free = self._ms, self._free
        high, low = free >> _LOW_BITS, free & _LOW_MASK
        return UUID(int=ms << 80 | _VERSION | high << 64 | _VARIANT | low)


def _clock_ms() -> int:
    return int(clock.timestamp() * 1000)


_sequence = _Sequence(_system_bits, _clock_ms)


def uuid7() -> UUID:
    """A new id that is greater than every earlier one of this process."""
    return _sequence.next()


generate_uuid7 = uuid7


def new_id() -> UUID:
    """A new random id (version 4)."""
    return UUID(int=_sequence.bits(128), version=4)


# When seeded ids are made: the first instant of 2020.
_SEEDED_MS: Final = 1_577_836_800_000


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give the same ids in the same order inside the block, in every process.

    For tests and recorded examples. The time inside the ids stands still at
    the first instant of 2020. Blocks nest; leaving one brings the ids from
    before back.
    """
    global _sequence  # noqa: PLW0603 - swapping it is the purpose
    outer = _sequence
    # Reproducible is what is asked for here, secret is not.
    _sequence = _Sequence(Random(seed).getrandbits, lambda: _SEEDED_MS)  # noqa: S311
    try:
        yield
    finally:
        _sequence = outer
