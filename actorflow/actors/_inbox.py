from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import attrs
import trio

from actorflow.errors import ActorStoppedError, InvalidArgumentError

from ._mailbox import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._actor_cell import ActorCell
    from ._reasons import Reason
    from ._ref import ActorRef
    from ._system import System

M_co = TypeVar("M_co", covariant=True)


@final
@attrs.frozen
class Down:
    """A watched actor has ended for good."""

    ref: ActorRef[Any]
    reason: Reason


@final
class Tick:
    """A message that an actor sends to itself at a later time, once or again and again."""

    __slots__ = ("_cell", "_every", "_is_cancelled", "_message", "_pending", "_timer")

    def __init__(self, cell: ActorCell, message: object, when: float, every: float | None) -> None:
        self._cell = cell
        self._message = message
        self._every = every
        self._is_cancelled = False
        self._pending = False
        self._timer = cell.core.timers.at(when, self._fire)
        cell.ticks.append(self)

    def cancel(self) -> None:
        """Send no more of them. Harmless when there is nothing left to cancel."""
        self._is_cancelled = True
        self._timer.cancel()
        self._forget()

    def stop_repeating(self) -> None:
        """Cancel it if it is one of those that come again and again."""
        if self._every is not None:
            self.cancel()

    def taken(self) -> object:
        """Return the message, or NOTHING if it was cancelled on its way."""
        self._pending = False
        return NOTHING if self._is_cancelled else self._message

    def _forget(self) -> None:
        if self in self._cell.ticks:
            self._cell.ticks.remove(self)

    def _fire(self) -> None:
        if self._every is None:
            self._forget()
        else:
            core, due = self._cell.core, self._timer.when
            # One step over all that were missed: a machine that slept has missed millions.
            missed = (core.clock() - due) // self._every
            self._timer = core.timers.at(due + (missed + 1) * self._every, self._fire)
        # An actor that is too slow for its ticks gets one, not a heap of them.
        if not self._pending:
            self._pending = True
            self._cell.mailbox.post(self)


@final
class ActorContext:
    """What an actor can do besides reading its messages."""

    __slots__ = ("_cell", "_incarnation")

    def __init__(self, cell: ActorCell) -> None:
        self._cell = cell
        self._incarnation = cell.incarnation

    @property
    def ref(self) -> ActorRef[Any]:
        """The actor's own address."""
        return self._cell.ref

    @property
    def system(self) -> System:
        """The system it lives in."""
        return self._cell.core.system

    @property
    def incarnation(self) -> int:
        """Which life this is, counted from 1."""
        return self._incarnation

    @property
    def deadline(self) -> float:
        """When the request in hand has to be answered, on trio's clock; else infinity."""
        return self._cell.deadline

    @property
    def is_stopping(self) -> bool:
        """Whether an orderly stop was asked for."""
        return self._cell.stop_reason is not None

    @contextmanager
    def until_stop(self) -> Iterator[trio.CancelScope]:
        """Open a scope that an orderly stop cancels.

        For long waits that are safe to abandon: a socket, a pause between polls.
        """
        scopes = self._cell.soft_scopes
        with trio.CancelScope() as scope:
            if self.is_stopping:
                scope.cancel()
            scopes.append(scope)
            try:
                yield scope
            finally:
                scopes.remove(scope)

    def send_after(self, delay: float, message: object) -> Tick:
        """Send `message` to this actor in `delay` seconds, unless this life ends before."""
        return self._tick(delay, message, None)

    def send_every(self, interval: float, message: object) -> Tick:
        """Send `message` to this actor every `interval` seconds until it stops or its life ends.

        An actor that is busy for longer than the interval finds one message, not many.
        """
        return self._tick(interval, message, interval)

    def _tick(self, delay: float, message: object, every: float | None) -> Tick:
        cell = self._cell
        if not (delay > 0 if every is not None else delay >= 0):
            what = "above 0" if every is not None else "of at least 0"
            raise InvalidArgumentError("delay", delay, f"a number of seconds {what}")
        if cell.incarnation != self._incarnation or not cell.state.is_alive:
            raise ActorStoppedError(cell.path, "this life of it is over")
        return Tick(cell, message, trio.current_time() + delay, every)

    def monitor(self, ref: ActorRef[Any]) -> None:
        """Let this actor receive `Down` when `ref` ends for good, at once if it has already."""
        self._cell.watch(ref)


@final
class Inbox(Generic[M_co]):
    """The reading end of a mailbox, for one life of one actor.

    Reading the next message says that the one before is done. Iteration ends, and
    `receive` raises `trio.EndOfChannel`, when the actor is to stop.
    """

    __slots__ = ("_cell", "_clock", "_slice", "_slice_end", "ctx")

    def __init__(self, cell: ActorCell, ctx: ActorContext) -> None:
        self._cell = cell
        self._clock = cell.core.clock
        self._slice = cell.core.time_slice
        self._slice_end = -math.inf
        self.ctx = ctx

    def __aiter__(self) -> Inbox[M_co]:
        return self

    async def __anext__(self) -> M_co:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def receive(self) -> M_co:
        """Wait for the next message.

        Raises:
          trio.EndOfChannel: if the actor is to stop and, when it drains, nothing is left.
        """
        cell = self._cell
        cell.finish()
        now = self._clock()
        if now >= self._slice_end:
            # A full mailbox must not keep everybody else from running. Messages
            # are not counted: sixty-four slow ones would be too many.
            if self._slice_end > -math.inf:
                await trio.lowlevel.checkpoint()
                now = self._clock()
            self._slice_end = now + self._slice
        mailbox = cell.mailbox
        while True:
            if cell.inbox_is_over:
                raise trio.EndOfChannel
            item = mailbox.take_nowait()
            if item is NOTHING:
                item = await mailbox.take()
                now = self._clock()
                self._slice_end = now + self._slice
            message = cell.accept(item, now)
            if message is not NOTHING:
                return cast(M_co, message)

    def receive_nowait(self) -> M_co:
        """Return the next message.

        Raises:
          trio.WouldBlock: if there is none now.
          trio.EndOfChannel: as `receive`.
        """
        cell = self._cell
        cell.finish()
        while True:
            if cell.inbox_is_over:
                raise trio.EndOfChannel
            item = cell.mailbox.take_nowait()
            if item is NOTHING:
                if cell.mailbox.closed is not None:
                    raise trio.EndOfChannel
                raise trio.WouldBlock
            message = cell.accept(item, self._clock())
            if message is not NOTHING:
                return cast(M_co, message)
