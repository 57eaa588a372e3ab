"""Doing one thing to several that may fail, so that each gets its turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")


async def for_everyone(
    things: Iterable[T], act: Callable[[T], Awaitable[None]], failure: str
) -> None:
    """Do `act` to all things at once.

    Raises:
      ExceptionGroup: named `failure`, when all are done and some have raised.
    """
    errors: list[Exception] = []

    async def act_on(thing: T) -> None:
        try:
            await act(thing)
        except Exception as error:  # noqa: BLE001 - things are user code
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(act_on, thing)
    if errors:
        raise ExceptionGroup(failure, errors)
