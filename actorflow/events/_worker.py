"""The actor behind a sink: whose it is, how it rests, and how it is woken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self, final

import trio

from actorflow.actors import ActorContext, Inbox, System, current_system, open_system
from actorflow.errors import ActorStoppedError, SinkNotOwnedError


class OwnedByBlock(ABC):
    """Something with a `Worker`, which an `async with` block around it may own."""

    _worker: Worker

    @abstractmethod
    async def start(self, system: System | None = None) -> None: ...

    @abstractmethod
    async def _finish(self) -> None:
        """End the work in order, in limited time, also when the block was cancelled."""

    async def __aenter__(self) -> Self:
        await self._worker.enter_block(self.start, self._finish)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # `_finish` shields itself.
        return await self._worker.leave_block(kind, error, traceback)  # noqa: ASYNC102


@final
class Worker:
    """Runs `work` as an actor of a system, or of a block where there is no system."""

    def __init__(
        self, name: str, work: Callable[[Inbox[None]], Awaitable[None]], *, shutdown: float
    ) -> None:
        self._name = name
        self._work = work
        self._shutdown = shutdown
        self._ctx: ActorContext | None = None
        self._is_idle = False
        self._blocks: list[AsyncExitStack] = []

    @property
    def ctx(self) -> ActorContext | None:
        """The context of the present or the last life."""
        return self._ctx

    async def start(self, system: System | None) -> None:
        """Start an actor in `system`, by default the one around the caller.

        Raises:
          SinkNotOwnedError: if there is no system.
        """
        owner = system or current_system()
        if owner is None:
            raise SinkNotOwnedError(self._name)

        async def live(inbox: Inbox[None]) -> None:
            self._ctx = inbox.ctx
            await self._work(inbox)

        live.__name__ = self._name
        under = "sinks" if "sinks" in owner else ""
        await owner.spawn(live, under=under, shutdown=self._shutdown, capacity=1)

    async def rest(self, inbox: Inbox[None]) -> bool:
        """Wait for `wake`, or for a tick; False if the system stops the actor instead."""
        self._is_idle = True
        try:
            await inbox.receive()
        except trio.EndOfChannel:
            return False
        finally:
            self._is_idle = False
        return True

    def wake(self) -> None:
        """Let the actor look around if it rests."""
        if self._is_idle:
            self._is_idle = False
            assert self._ctx is not None
            # Told to stop it wakes up as well, and looks around before it goes.
            with suppress(ActorStoppedError):
                self._ctx.ref.tell_nowait(None)

    async def wait_stopped(self) -> None:
        """Wait for the end of the actor."""
        assert self._ctx is not None
        await self._ctx.ref.wait_stopped()

    def kill(self, why: str) -> None:
        """Cancel the actor."""
        assert self._ctx is not None
        self._ctx.ref.kill(why)

    async def enter_block(
        self,
        start: Callable[[System], Awaitable[None]],
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin an `async with` block: `start` in the system around it, or in one of its own.

        However the block is left, `finish` is called before that system closes.
        """
        async with AsyncExitStack() as block:
            system = current_system()
            if system is None:
                system = await block.enter_async_context(open_system(grace=self._shutdown))
            await start(system)
            block.push_async_callback(finish)
            self._blocks.append(block.pop_all())

    async def leave_block(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """End what `enter_block` began."""
        return await self._blocks.pop().__aexit__(kind, error, traceback)
