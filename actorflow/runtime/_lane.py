"""How stage calls tell their supervisor what happened, without ever waiting for it."""

from __future__ import annotations

from typing import Generic, TypeVar, final

import trio

T = TypeVar("T")


@final
class Lane(Generic[T]):
    """Reports of many tasks to one, in the order they were made.

    `put` cannot fail and costs no channel: who reports its end must not have to
    wait for the one that waits for that end. The lane is as long as there are
    tasks that report.
    """

    __slots__ = ("_reader", "_reports")

    def __init__(self) -> None:
        self._reports: list[T] = []
        self._reader: trio.lowlevel.Task | None = None

    def put(self, report: T) -> None:
        """Add a report and wake the reader."""
        self._reports.append(report)
        self.wake()

    @property
    def is_awaited(self) -> bool:
        """Whether the reader waits, so that there is no report."""
        return self._reader is not None

    def wake(self) -> None:
        """Let the reader see for itself what is new."""
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    # Ctrl-C must not come before the wait: whoever is woken without waiting is lost.
    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Return when there is a report or `wake` was called; only one task may wait."""
        if self._reports:
            # There may always be one, and still the reader has to notice its end.
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take(self) -> list[T]:
        """Remove and return what is there."""
        taken, self._reports = self._reports, []
        return taken
