"""The place of an actor: its mailbox, the message in hand, and what belongs to a life."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from actorflow.errors import InvalidTypeError

from ._actor import Actor
from ._cell import Cell
from ._inbox import ActorContext, Inbox, Tick
from ._letters import DeadReason
from ._mailbox import NOTHING, WAKE, ConflatingMailbox, Mailbox
from ._policy import Conflate
from ._reasons import Crashed, Normal, Reason, Shutdown
from ._ref import cell_of
from ._reply import Request
from ._spec import is_async
from ._tree import ActorStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._core import Core
    from ._ref import ActorRef
    from ._spec import Child
    from ._supervisor import SupervisorCell

_log: Final = logging.getLogger("actorflow.actors")


@final
class ActorCell(Cell):
    """The place of an actor, with its mailbox."""

    __slots__ = (
        "_on_stop",
        "_watched",
        "busy_since",
        "hand",
        "handled",
        "soft_scopes",
        "ticks",
    )

    def __init__(
        self, core: Core, parent: SupervisorCell | None, child: Child[Any], *, dynamic: bool
    ) -> None:
        super().__init__(core, parent, child, dynamic=dynamic)
        policy, capacity = child.policy, child.capacity
        self.mailbox = (
            ConflatingMailbox(self, capacity, policy)
            if isinstance(policy, Conflate)
            else Mailbox(self, capacity, policy)
        )
        # The message that is being handled.
        self.hand: object = NOTHING
        self.handled = 0
        self.busy_since = -math.inf
        # Things of the present life, beside the promised answers: ticks, scopes
        # that a stop cancels, watched actors.
        self.ticks: list[Tick] = []
        self.soft_scopes: list[trio.CancelScope] = []
        self._watched: list[Cell] = []
        # To be called at the end, once there is something to clean up.
        self._on_stop: Callable[[Reason], Awaitable[None]] | None = None

    def _as_actor(self) -> ActorCell:
        return self

    async def _live(self) -> None:
        ctx = ActorContext(self)
        inbox: Inbox[Any] = Inbox(self, ctx)
        behaviour = cast("Callable[..., Any]", self.child.behaviour)
        try:
            if is_async(behaviour):
                self._ready()
                await behaviour(inbox)
            else:
                await self._live_as_object(behaviour(), inbox)
        except trio.EndOfChannel:
            # The plain way out of `while True: await inbox.receive()`.
            if self.stop_reason is None:
                raise

    async def _live_as_object(self, actor: Actor[Any], inbox: Inbox[Any]) -> None:
        if not isinstance(actor, Actor):
            raise InvalidTypeError("behaviour", actor, "a function that makes an Actor")
        actor.ctx = inbox.ctx
        await actor.on_start()
        self._on_stop = actor.on_stop
        self._ready()
        try:
            await actor.run(inbox)
        except trio.EndOfChannel:
            if self.stop_reason is None:
                raise
        self.finish()
        self._on_stop = None
        await actor.on_stop(self.stop_reason or Normal())

    async def _clean_up(self, reason: Reason) -> None:
        # Whoever asked need not wait for the rest.
        self._lose_hand(reason)
        on_stop, self._on_stop = self._on_stop, None
        if on_stop is None:
            return
        if self.stop_reason is None:
            self._kill_in(self.child.shutdown, "its clean-up took longer than {:g} s")
        try:
            await on_stop(reason)
        except Exception as error:  # noqa: BLE001
            # What ended the actor matters more; this must not take its place.
            extra = {"actor": self.path}
            _log.warning("actor_cleanup_failed: %s", self.path, exc_info=error, extra=extra)

    def _begin_stop(self, why: str) -> None:
        if self.final:
            self.mailbox.close(f"it is stopping: {why}")
            # Otherwise one that is slower than its ticks would never be done.
            for tick in tuple(self.ticks):
                tick.stop_repeating()
            if not self.child.drain:
                self.mailbox.discard()
        else:
            self.mailbox.wake()
        for scope in self.soft_scopes:
            scope.cancel()

    @property
    def inbox_is_over(self) -> bool:
        """Whether the queue belongs to the next life."""
        return self.stop_reason is not None and not self.final

    @property
    def deadline(self) -> float:
        """When the request in hand has to be answered."""
        return self.hand.deadline if type(self.hand) is Request else math.inf

    def accept(self, item: object, now: float) -> object:
        """Take an item in hand and return its message, or NOTHING if there is none in it.

        From here on the item is accounted for, whatever happens.
        """
        kind = type(item)
        if kind is Request:
            request = cast(Request, item)
            if not request.is_open:
                self.bury_letter(request, DeadReason.EXPIRED)
                return NOTHING
            self.hand = request
            self.busy_since = now
            return request.message
        if item is WAKE:
            return NOTHING
        if kind is Tick:
            item = cast(Tick, item).taken()
        self.hand = item
        self.busy_since = now
        return item

    def finish(self) -> None:
        """The message in hand is handled."""
        hand = self.hand
        if hand is not NOTHING:
            self.hand = NOTHING
            self.handled += 1
            if type(hand) is Request:
                hand.handled()

    def _settle(self, reason: Reason) -> None:
        if isinstance(reason, Normal | Shutdown):
            self.finish()
        self._lose_hand(reason)
        for request in tuple(self.deferred):
            request.dropped(reason)
        for tick in tuple(self.ticks):
            tick.cancel()
        for cell in self._watched:
            cell.remove_watcher(self)
        self._watched.clear()
        self.mailbox.forget_reports()

    def _lose_hand(self, reason: Reason) -> None:
        hand, self.hand = self.hand, NOTHING
        if hand is not NOTHING:
            crashed = isinstance(reason, Crashed)
            self.bury_letter(hand, DeadReason.CRASHED if crashed else DeadReason.KILLED, reason)

    def _close(self, reason: Reason) -> None:
        self.mailbox.close(str(reason))
        self.mailbox.empty()

    def watch(self, ref: ActorRef[Any]) -> None:
        cell = cell_of(ref)
        if cell not in self._watched:
            self._watched.append(cell)
            cell.add_watcher(self)

    def statistics(self) -> ActorStatistics:
        mailbox = self.mailbox
        return ActorStatistics(
            handled=self.handled,
            depth=mailbox.depth,
            peak_depth=mailbox.peak,
            capacity=mailbox.capacity,
            blocked_senders=mailbox.blocked_senders,
            dropped=mailbox.dropped,
            restarts=self.restarts,
            busy_since=None if self.hand is NOTHING else self.busy_since,
        )
