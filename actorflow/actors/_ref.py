from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import trio

from actorflow.errors import ActorError, AskTimeoutError, InvalidArgumentError

from ._reply import Reply, Request
from ._waits import begin_wait, current_cell, waiting, waiting_cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._cell import Cell
    from ._mailbox import Mailbox
    from ._reasons import Reason
    from ._tree import ActorStatistics

M_contra = TypeVar("M_contra", contravariant=True)
T = TypeVar("T")


@final
class ActorRef(Generic[M_contra]):
    """The address of an actor.

    It stays the same over restarts, and holding it does not keep the actor
    alive. Messages of one sender arrive in the order in which they were sent.
    """

    __slots__ = ("__weakref__", "_cell")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def __repr__(self) -> str:
        return f"<ActorRef {self.path} {self._cell.state}>"

    @property
    def path(self) -> str:
        """Where the actor stands in the tree, for example ``"call/speaker"``."""
        return self._cell.path

    async def tell(self, message: M_contra) -> None:
        """Send a message; wait for room if the mailbox is full.

        With room this returns at once and is no checkpoint. Without room the
        mailbox's policy decides, and other tasks get their turn in any case.
        Cancelled while it waits, it has not sent the message.

        Raises:
          ActorStoppedError: if the actor takes no messages any more.
          MailboxFullError: if the policy is ``fail`` and there is no room.
          MailboxDeadlockError: if waiting here could never end.
        """
        mailbox = self._cell.mailbox
        if mailbox.offer(message):
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        if await _overflow(mailbox, message):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        async with waiting(waiting_cell(), self._cell):
            await mailbox.wait_for_room(message)

    def tell_nowait(self, message: M_contra) -> None:
        """Send a message without waiting.

        Raises:
          ActorStoppedError: if the actor takes no messages any more.
          MailboxFullError: if there is no room and the policy is ``block`` or ``fail``.
        """
        mailbox = self._cell.mailbox
        if not mailbox.offer(message) and not mailbox.overflow(message):
            raise mailbox.full()

    async def ask(
        self, make_message: Callable[[Reply[T]], M_contra], *, timeout: float | None = None
    ) -> T:
        """Send a message that carries a `Reply` and wait for the answer.

        Args:
          make_message: gets the reply and returns the message, so the class of a
            message with one field will do.
          timeout: seconds until `AskTimeoutError`. While an actor handles a
            request, its own asks cannot outlast the deadline of that request.

        A request whose asker gave up is skipped if it is still queued; if it is
        being handled, its late answer is dropped.

        Raises:
          AskTimeoutError: if there was no answer in time.
          ActorCrashedError: if the actor crashed while it had the request in hand.
          ActorStoppedError: if the actor ended before it took the request.
          NoReplyError: if the request was handled and not answered.
          MailboxFullError: if the policy refused or dropped the request.
          MailboxDeadlockError: if waiting here could never end.
        """
        cell = self._cell
        patience, deadline = _deadline(timeout)
        asker = waiting_cell()
        request = Request(cell, asker, deadline)
        request.message = make_message(Reply(request))
        if asker is not None:
            await begin_wait(asker, cell, deadline)
        timer = None
        try:
            mailbox = cell.mailbox
            if not mailbox.offer(request) and not await _overflow(mailbox, request):
                with trio.move_on_at(deadline) as scope:
                    await mailbox.wait_for_room(request)
                if scope.cancelled_caught:
                    raise AskTimeoutError(cell.path, patience)
            if deadline < math.inf:
                timer = cell.core.timers.at(deadline, lambda: request.expire(patience))
            return cast(T, await request.answer())
        finally:
            request.complete(None)
            if timer is not None:
                timer.cancel()

    def stop(self, why: str = "stopped by request") -> None:
        """Ask for an orderly stop, for good: the message in hand is finished, the queue drained."""
        self._cell.stop(why, final=True)

    def kill(self, why: str = "killed by request") -> None:
        """Cancel the present life at its next checkpoint. What follows is up to its restart type."""
        self._cell.kill(why)

    async def wait_stopped(self) -> Reason:
        """Wait until the actor has ended for good and return why."""
        async with waiting(waiting_cell(), self._cell):
            return await self._cell.until_ended()

    def statistics(self) -> ActorStatistics:
        """Return counters and gauges of the actor as they are now."""
        return self._cell.statistics()


def cell_of(ref: ActorRef[Any]) -> Cell:
    """Return what a ref stands for."""
    return ref._cell


async def _overflow(mailbox: Mailbox, item: object) -> bool:
    try:
        return mailbox.overflow(item)
    except ActorError:
        # Whoever tries again at once would keep the actor from making room.
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise


def _deadline(timeout: float | None) -> tuple[float, float]:
    """Return for how long, and until when, an ask that starts now may wait for its answer."""
    cell = current_cell.get()
    inherited = math.inf if cell is None else cell.deadline
    if timeout is None:
        if inherited == math.inf:
            return inherited, inherited
        timeout = math.inf
    # NaN compares false with everything.
    if not timeout >= 0:
        raise InvalidArgumentError("timeout", timeout, "a number of seconds, 0 or more, or None")
    now = trio.current_time()
    # What is inherited may be over already.
    patience = max(0.0, min(timeout, inherited - now))
    return patience, now + patience
