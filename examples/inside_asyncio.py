"""An actor system inside an asyncio program.

Trio runs as a guest: both loops share one thread, and asyncio drives. Code on
the asyncio side awaits calls that trio carries out. Leaving the block, also by
Ctrl-C or cancellation, stops the actors in order before asyncio goes on.

Prints:
  hello, ada
  asyncio went on meanwhile: True
  ValueError: nobody to greet
  the greeter says goodbye
  the asyncio program ends
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, final

import attrs
import outcome
import trio

from actorflow.actors import Actor, Child, Reason, Reply, System, open_system

T = TypeVar("T")


@final
@attrs.frozen
class Greet:
    name: str
    reply: Reply[str]


@final
class Greeter(Actor[Greet]):
    async def receive(self, message: Greet) -> None:
        await trio.sleep(0.1)
        if message.name:
            message.reply.send(f"hello, {message.name}")
        else:
            message.reply.fail(ValueError("nobody to greet"))

    async def on_stop(self, reason: Reason) -> None:
        await trio.sleep(0.01)
        print("the greeter says goodbye")


@final
@attrs.frozen
class Guest:
    """A system in trio, as the asyncio side sees it."""

    system: System
    token: trio.lowlevel.TrioToken

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a trio function from asyncio. Cancelling this cancels that."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()

        async def carry_out() -> None:
            try:
                with scope:
                    result = await function(*args)
                    if not answer.done():
                        answer.set_result(result)
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
                if not answer.done():
                    answer.set_exception(error)
            finally:
                # Only if trio ends first; a second settling of a future does nothing.
                answer.cancel()

        self.token.run_sync_soon(trio.lowlevel.spawn_system_task, carry_out)
        try:
            return await answer
        except asyncio.CancelledError:
            self.token.run_sync_soon(scope.cancel)
            raise


@asynccontextmanager
async def open_guest_system(*children: Child[Any]) -> AsyncIterator[Guest]:
    """`open_system` for asyncio programs."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[System] = loop.create_future()
    closed: asyncio.Future[None] = loop.create_future()
    block = trio.CancelScope()

    async def in_trio() -> None:
        with block:
            async with open_system(*children) as system:
                opened.set_result(system)
                await trio.sleep_forever()

    def done(result: outcome.Outcome[None]) -> None:
        if isinstance(result, outcome.Error):
            closed.set_exception(result.error)
        else:
            closed.set_result(None)

    trio.lowlevel.start_guest_run(
        in_trio,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=done,
        host_uses_signal_set_wakeup_fd=True,
    )
    token = trio.lowlevel.current_trio_token()
    first_of: list[asyncio.Future[Any]] = [opened, closed]
    try:
        await asyncio.wait(first_of, return_when=asyncio.FIRST_COMPLETED)
        if opened.done():
            yield Guest(opened.result(), token)
    finally:
        # Cancelling the block that holds a system stops the system in order.
        if not closed.done():
            token.run_sync_soon(block.cancel)
        # The host has to outlive its guest. If the system failed, this raises. (This
        # is asyncio's side: there are no trio scopes to shield it with.)
        await asyncio.shield(closed)  # noqa: ASYNC102


async def main() -> None:
    async with open_guest_system(Child("greeter", Greeter)) as guest:
        greeter = guest.system["greeter"]

        greeting = asyncio.create_task(guest.call(greeter.ask, partial(Greet, "ada")))
        ticks = 0
        while not greeting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        print(await greeting)
        print("asyncio went on meanwhile:", ticks > 3)

        try:
            await guest.call(greeter.ask, partial(Greet, ""))
        except ValueError as error:
            print(f"ValueError: {error}")
    print("the asyncio program ends")


if __name__ == "__main__":
    asyncio.run(main())
