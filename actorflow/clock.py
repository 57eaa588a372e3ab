"""Time as actorflow sees it: wall time that moves with trio's clock.

Timestamps and durations are read here and nowhere else, so a test that moves
a `trio.testing.MockClock` by an hour also finds an hour between timestamps.
"""

from __future__ import annotations

import time
import weakref
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.abc import Clock

# Wall time at trio's time zero, per clock. A clock gets its anchor at the
# first look, so two looks in one run can never disagree about the distance
# between them, even if someone sets the machine's clock meanwhile.
_anchors: weakref.WeakKeyDictionary[Clock, float] = weakref.WeakKeyDictionary()


def monotonic() -> float:
    """Seconds on trio's clock inside `trio.run`, on the machine's outside."""
    if trio.lowlevel.in_trio_run():
        return trio.current_time()
    return time.monotonic()


def timestamp() -> float:
    """Unix time in seconds that advances with trio's clock."""
    if not trio.lowlevel.in_trio_run():
        return time.time()
    clock = trio.lowlevel.current_clock()
    now = clock.current_time()
    anchor = _anchors.get(clock)
    if anchor is None:
        anchor = _anchors[clock] = time.time() - now
    return anchor + now


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def utc_now() -> datetime:
    """The time of `timestamp` as an aware datetime in UTC."""
    return _EPOCH + timedelta(seconds=timestamp())
