from __future__ import annotations

from typing import Protocol

import trio

from actorflow.protocol import Frame


class Connection(Protocol):
    """A pair of ends that exchange whole frames, in order, until one of them is gone."""

    @property
    def peer(self) -> str:
        """Who is at the other end, for logs."""
        ...

    async def send(self, frame: Frame) -> None:
        """Hand a frame over; wait while the other end does not read.

        One task sends. Cancelled half way, a part of the frame may have left, so
        nothing but `abort` may follow.

        Raises:
          ConnectionLostError: if the connection has ended.
        """
        ...

    async def receive(self) -> Frame:
        """The next frame. Cancelling loses none.

        Raises:
          ConnectionLostError: if the connection has ended, with the peer's close code.
        """
        ...

    async def ping(self) -> None:
        """Return when the other end has shown that it is there.

        Raises:
          ConnectionLostError: if the connection has ended.
        """
        ...

    async def aclose(self, code: int, reason: str = "") -> None:
        """Say goodbye and wait for the answer, which may never come."""
        ...

    async def abort(self) -> None:
        """Drop the connection without a word. Whoever waits for it gets `ConnectionLostError`."""
        ...


async def hang_up(connection: Connection, code: int, reason: str, timeout: float) -> None:
    """Close in order if that takes no longer than `timeout`, else without a word."""
    try:
        with trio.move_on_after(timeout):
            await connection.aclose(code, reason)
    finally:
        # It waits for nothing, so the limit is for form; the shield is not.
        with trio.move_on_after(1, shield=True):
            await connection.abort()
