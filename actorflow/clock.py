"""Time as actorflow sees it: wall time that moves with trio's clock.

Timestamps and durations are read here and nowhere else, so a test that moves
a `trio.testing.MockClock` by an hour also finds an hour between timestamps.
A worker thread is outside of `trio.run` and sees the machine's time.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from trio.abc import Clock


def monotonic() -> float:
    """Seconds on trio's clock inside `trio.run`, on the machine's outside."""
    if trio.lowlevel.in_trio_run():
        return trio.current_time()
    return time.monotonic()


@final
class _Wall:
    """Wall time, tied to each trio clock at the first look.

    The tie stays for the life of the clock, so two looks in one run can never
    disagree about the distance between them, even if someone sets the
    machine's clock meanwhile.
    """

    def __init__(self, outside: Callable[[], float]) -> None:
        self.outside: Final = outside
        self._zeros: Final[MutableMapping[Clock, float]] = weakref.WeakKeyDictionary()
        # What was looked up last. Nearly always it is asked for again, and the
        # dictionary would hash and compare clocks for that.
        self._last: tuple[Callable[[], Clock | None], float] = (lambda: None, 0.0)

    def inside(self, clock: Clock) -> float:
        tied, zero = self._last
        if tied() is not clock:
            zero = self._zero_of(clock)
            self._last = (weakref.ref(clock), zero)
        return zero + clock.current_time()

    def _zero_of(self, clock: Clock) -> float:
        if clock not in self._zeros:
            self._zeros[clock] = self.outside() - clock.current_time()
        return self._zeros[clock]


_wall = _Wall(time.time)


def timestamp() -> float:
    """Unix time in seconds that advances with trio's clock."""
    if trio.lowlevel.in_trio_run():
        return _wall.inside(trio.lowlevel.current_clock())
    return _wall.outside()


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def now() -> datetime:
    """The time of `timestamp` as an aware datetime in UTC."""
    return _EPOCH + timedelta(seconds=timestamp())


@contextmanager
def starting_at(unix_time: float) -> Iterator[None]:
    """Let wall time begin at `unix_time` inside the block.

    Inside `trio.run` it advances from there with trio's clock; outside it
    stands still. For tests and recorded examples. Blocks nest; leaving one
    brings the time from before back.
    """
    global _wall  # noqa: PLW0603 - swapping it is the purpose
    outer = _wall
    _wall = _Wall(lambda: unix_time)
    try:
        yield
    finally:
        _wall = outer
