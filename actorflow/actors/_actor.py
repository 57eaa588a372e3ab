from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ._inbox import ActorContext, Inbox
    from ._reasons import Reason

M = TypeVar("M")


class Actor(Generic[M]):
    """An actor with state: subclass it and write `receive`.

    Every life of the actor is a fresh object, so what `__init__` builds is also
    what a restart resets. One message is handled to completion before the next
    one is taken, awaits included.
    """

    ctx: ActorContext
    """The actor's own view of the system. Set before `on_start`."""

    async def on_start(self) -> None:
        """Get ready. The actor counts as started when this returns."""

    async def receive(self, message: M) -> None:
        """Handle one message. An exception ends this life; the message is not repeated."""
        raise NotImplementedError

    async def on_stop(self, reason: Reason) -> None:
        """Clean up.

        Runs when `on_start` had returned. In an orderly stop it may await, within
        the shutdown time. After a kill or a cancel every await raises at once.
        """

    async def run(self, inbox: Inbox[M]) -> None:
        """Read messages until the inbox ends. Override it to read them in another way."""
        async for message in inbox:
            await self.receive(message)
