from __future__ import annotations

import logging
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final, final

import trio

from ._timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._cell import Cell
    from ._letters import DeadReason
    from ._notices import Notice
    from ._system import System

_log: Final = logging.getLogger("actorflow.actors")


@final
class Core:
    """What all cells of one system share."""

    __slots__ = (
        "_told",
        "clock",
        "dead_letters",
        "late_answers",
        "listeners",
        "random",
        "restarts",
        "rings",
        "root_ended",
        "system",
        "time_slice",
        "timers",
    )

    def __init__(self, system: System, time_slice: float | None) -> None:
        self.system = system
        clock = trio.lowlevel.current_clock()
        # The clock itself, because `trio.current_time` takes three times as long.
        self.clock: Callable[[], float] = clock.current_time
        if time_slice is None:
            # In virtual time no slice would ever end. Letting the others run
            # after each message is fair, and the same every time.
            time_slice = 0.0 if _is_virtual(clock) else 0.001
        self.time_slice = time_slice
        self.timers = Timers()
        # It spreads restarts and guards no secret. Dice of its own, thrown by the
        # common ones, so that whoever seeds those can repeat a run.
        self.random = random.Random(random.getrandbits(64))  # noqa: S311
        self.listeners: list[Callable[[Notice], None]] = []
        # Those that are being told something at this moment.
        self._told: list[Callable[[Notice], None]] = []
        self.dead_letters: Counter[DeadReason] = Counter()
        self.late_answers = 0
        self.restarts = 0
        self.rings = 0
        self.root_ended: Callable[[], None]

    def notify(self, notice: Notice) -> None:
        """Tell the listeners. What they raise is their own problem.

        None hears of what it causes itself: one that passes notices on to an actor
        whose mailbox is full would never come to an end.
        """
        for listener in tuple(self.listeners):
            if listener in self._told:
                continue
            self._told.append(listener)
            try:
                listener(notice)
            except Exception as error:  # noqa: BLE001
                _log.warning("listener_failed", exc_info=error, extra={"notice": notice})
            finally:
                self._told.remove(listener)

    def count_ring(self, ring: Sequence[Cell]) -> None:
        """Note a ring of waits that ends by itself, because somebody in it has a deadline."""
        self.rings += 1
        paths = [cell.path for cell in ring]
        _log.warning("actors_wait_in_a_ring: %s", " -> ".join(paths), extra={"ring": paths})


def _is_virtual(clock: trio.abc.Clock) -> bool:
    # Whoever made a MockClock has imported trio.testing; nobody else pays for it.
    testing = sys.modules.get("trio.testing")
    return testing is not None and isinstance(clock, testing.MockClock)
