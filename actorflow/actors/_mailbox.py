"""A bounded queue that outlives the actors which read it.

The transport is one trio memory channel. What a channel does not know is added
around it: what to do when it is full, what became of every message, and that a
new life of the actor goes on where the last one ended.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

from actorflow.errors import ActorStoppedError, MailboxFullError

from ._letters import DeadReason
from ._policy import Conflate, Policy
from ._reply import message_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ._cell import Cell
    from ._policy import MailboxPolicy


@final
class _Mark:
    """A thing in a mailbox that is not a message; None may be one."""

    __slots__ = ()


NOTHING: Final = _Mark()
WAKE: Final = _Mark()

_CLOSED: Final = -1


class Mailbox:
    """The queue of one actor.

    Between any two awaits `_inside` is the number of items handed in and not yet
    taken out: those in the channel, in the hands of blocked senders, and on the
    way to an actor that was waiting. A channel could be asked for that, but not
    in the time a message takes.
    """

    __slots__ = (
        "_cell",
        "_control",
        "_inside",
        "_receive",
        "_room",
        "_send",
        "_took_control",
        "blocked_senders",
        "capacity",
        "closed",
        "dropped",
        "peak",
        "policy",
    )

    def __init__(self, cell: Cell, capacity: int, policy: MailboxPolicy) -> None:
        self._cell = cell
        self.capacity = capacity
        self.policy = policy
        self._inside = 0
        # What `_inside` may grow to; below zero once closed, so that the fast
        # path has one comparison for both.
        self._room = capacity
        # Opened by the first message or the first wait: it costs more than a
        # message, and many an actor never gets one.
        self._send: trio.MemorySendChannel[object] | None = None
        self._receive: trio.MemoryReceiveChannel[object] | None = None
        # Ticks and ends of watched actors; there are never more of them than
        # timers and monitors. They go first, but not twice in a row: an actor
        # that is slower than its ticks still gets its messages.
        self._control: deque[object] | None = None
        self._took_control = False
        self.closed: str | None = None
        self.blocked_senders = 0
        self.dropped = 0
        self.peak = 0

    @property
    def depth(self) -> int:
        """How many messages are queued."""
        return min(self._inside, self.capacity)

    def offer(self, item: object) -> bool:
        """Queue `item` if there is room."""
        if self._inside >= self._room:
            return False
        self._enter(item)
        return True

    def _enter(self, item: object) -> None:
        self._inside += 1
        if self._inside > self.peak:  # noqa: PLR1730  (calling `max` takes four times as long)
            self.peak = self._inside
        (self._send or self._open()).send_nowait(item)

    def _open(self) -> trio.MemorySendChannel[object]:
        self._send, self._receive = trio.open_memory_channel[object](self.capacity)
        return self._send

    def overflow(self, item: object) -> bool:
        """Apply the policy to an item for which there was no room.

        Returns:
          True if that settled it, False if the sender may wait.
        """
        if self.closed is not None:
            raise ActorStoppedError(self._cell.path, self.closed)
        match self.policy:
            case Policy.BLOCK:
                return False
            case Policy.FAIL:
                raise self.full()
            case Policy.DROP_NEW:
                self._drop(item, DeadReason.DROPPED_NEW)
            case _:
                oldest = self._pop()
                self._enter(item)
                self._drop_oldest(oldest)
        return True

    def full(self) -> MailboxFullError:
        return MailboxFullError(self._cell.path, self.capacity, str(self.policy))

    def _drop_oldest(self, oldest: object) -> None:
        # Comes after the newer one is queued: whoever listens to dead letters may
        # send something himself. NOTHING is there if the only one is on its way
        # into the hands of the actor.
        if oldest is not NOTHING:
            self._drop(self._unwrap(oldest), DeadReason.DROPPED_OLD)

    def _drop(self, item: object, reason: DeadReason) -> None:
        self.dropped += 1
        self._cell.bury_letter(item, reason)

    async def wait_for_room(self, item: object) -> None:
        """Queue `item` as soon as there is room, in turn with other senders."""
        send = self._send or self._open()
        self._inside += 1
        self.blocked_senders += 1
        try:
            await send.send(item)
        except trio.ClosedResourceError:
            self._inside -= 1
            assert self.closed is not None  # whoever closes the channel says why
            raise ActorStoppedError(self._cell.path, self.closed) from None
        except BaseException:
            self._inside -= 1
            raise
        finally:
            self.blocked_senders -= 1

    def take_nowait(self) -> object:
        """Take the next item, or `NOTHING`."""
        if self._control and not self._took_control:
            self._took_control = True
            return self._control.popleft()
        self._took_control = False
        item = self._pop() if self._inside else NOTHING
        if item is not NOTHING:
            return self._unwrap(item)
        return self._control.popleft() if self._control else NOTHING

    def _pop(self) -> object:
        if self._receive is None:
            return NOTHING
        try:
            item = self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            # Inside are only senders that were refused or cancelled and have not
            # run yet.
            return NOTHING
        self._inside -= 1
        return item

    async def take(self) -> object:
        """Wait for the next item.

        Raises:
          trio.EndOfChannel: if the mailbox is closed and empty.
        """
        if self._receive is None:
            if self.closed is not None:
                raise trio.EndOfChannel
            self._open()
        assert self._receive is not None
        item = await self._receive.receive()
        self._inside -= 1
        return self._unwrap(item)

    def _unwrap(self, item: object) -> object:
        return item

    def post(self, message: object) -> None:
        """Put a report of the kernel before everything that is queued."""
        if self._control is None:
            self._control = deque()
        self._control.append(message)
        self.wake()

    def wake(self) -> None:
        """Make a waiting actor look around."""
        # `_inside` cannot tell: it may count a sender that was cancelled and has
        # not run since, while the actor waits.
        send = self._send
        if send is None or self.closed is not None:
            return
        if send.statistics().tasks_waiting_receive:
            # It goes straight to the actor and is never in the queue.
            self._inside += 1
            send.send_nowait(WAKE)

    def forget_reports(self) -> None:
        self._control = None

    def close(self, why: str) -> None:
        """Refuse every further message and every sender that waits. What is queued stays."""
        if self.closed is None:
            self.closed = why
            self._room = _CLOSED
            if self._send is not None:
                self._send.close()

    def discard(self) -> None:
        """Make dead letters of all that is queued."""
        while (item := self._pop()) is not NOTHING:
            self._cell.bury_letter(self._unwrap(item), DeadReason.STOPPED)

    def empty(self) -> None:
        """As `discard`, for good. Closing a channel alone would lose its content silently."""
        self.discard()
        if self._receive is not None:
            self._receive.close()


@final
class _Box:
    """A place in the queue whose content may still be replaced."""

    __slots__ = ("content", "key")

    def __init__(self, key: Hashable, content: object) -> None:
        self.key = key
        self.content = content


@final
class ConflatingMailbox(Mailbox):
    """A mailbox that keeps the newest message of each key in the place of the oldest."""

    __slots__ = ("_boxes", "_key")

    def __init__(self, cell: Cell, capacity: int, policy: Conflate) -> None:
        super().__init__(cell, capacity, policy)
        self._key = policy.key
        self._boxes: dict[Hashable, _Box] = {}

    def offer(self, item: object) -> bool:
        if self._inside >= self._room:
            return False
        key = self._key(message_of(item))
        if key in self._boxes:
            return False
        self._enter_boxed(key, item)
        return True

    def overflow(self, item: object) -> bool:
        if self.closed is not None:
            raise ActorStoppedError(self._cell.path, self.closed)
        key = self._key(message_of(item))
        box = self._boxes.get(key)
        if box is not None:
            older, box.content = box.content, item
            self._drop(older, DeadReason.CONFLATED)
        else:
            oldest = self._pop()
            self._enter_boxed(key, item)
            self._drop_oldest(oldest)
        return True

    def _enter_boxed(self, key: Hashable, item: object) -> None:
        box = self._boxes[key] = _Box(key, item)
        self._enter(box)

    def _unwrap(self, item: object) -> object:
        if type(item) is not _Box:
            return item
        del self._boxes[item.key]
        return item.content
