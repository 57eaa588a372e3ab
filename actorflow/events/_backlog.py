"""How far a worker has come with what it accepted, and who waits for that."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, final

import trio


@final
class Backlog:
    """Counts what was accepted and what is settled, in the order of acceptance.

    Settled means delivered, failed or given up: nothing more will happen to it.
    """

    __slots__ = ("_waiters", "accepted", "settled")

    def __init__(self) -> None:
        self.accepted = 0
        self.settled = 0
        # Those who wait, by the count they wait for; the earliest first.
        self._waiters: deque[tuple[int, trio.Event]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether everything accepted is settled."""
        return self.settled >= self.accepted

    def settle(self, count: int = 1) -> None:
        """Note that the next `count` are settled."""
        self.settled += count
        while self._waiters and self._waiters[0][0] <= self.settled:
            self._waiters.popleft()[1].set()

    def everything_so_far(self) -> trio.Event:
        """Return what will be set when all that is accepted by now is settled."""
        done = trio.Event()
        if self.is_empty:
            done.set()
        else:
            self._waiters.append((self.accepted, done))
        return done


class Work(Protocol):
    """What somebody works on."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to wait for."""
        ...

    def everything_so_far(self) -> trio.Event:
        """Return what will be set when all that is there by now is done."""
        ...


# What somebody works on, in this `trio.run`.
_worked_on: Final[trio.lowlevel.RunVar[set[Work]]] = trio.lowlevel.RunVar(
    "actorflow_event_backlogs"
)


def _present_work() -> set[Work]:
    try:
        return _worked_on.get()
    except LookupError:
        _worked_on.set(set())
        return _worked_on.get()


def work_begins(work: Work) -> None:
    """Let `wait_for_event_sink_tasks` wait for it."""
    _present_work().add(work)


def work_ends(work: Work) -> None:
    """Undo `work_begins`."""
    _present_work().discard(work)


async def wait_for_event_sink_tasks() -> None:
    """Wait until every event accepted so far by a running sink or exporter is out.

    An event that failed is out too; errors are not raised. Sinks that are not
    started, or stopped again, are not waited for: nobody would deliver.
    """
    pending = [work.everything_so_far() for work in _present_work() if not work.is_empty]
    await trio.lowlevel.checkpoint()
    for done in pending:
        await done.wait()
