"""Connections without a network: two ends in one program."""

from __future__ import annotations

from typing import NoReturn, final

import attrs
import trio

from actorflow.errors import ConnectionLostError
from actorflow.protocol import Frame


@attrs.define(eq=False)
class _Line:
    """What both ends share: how the connection ended, if it has."""

    closed: tuple[int, str] | None = None
    closed_event: trio.Event = attrs.field(factory=trio.Event)

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)
            self.closed_event.set()


@final
class MemoryConnection:
    """One end of a duplex connection in memory, for tests of what speaks over connections.

    It behaves as a websocket does: a send waits while the other end does not read
    and the buffer is full, frames that arrived before the end can still be read,
    pings and goodbyes are answered by the other end on its own, unless it
    `is_mute`.
    """

    def __init__(
        self,
        line: _Line,
        incoming: trio.MemoryReceiveChannel[Frame],
        outgoing: trio.MemorySendChannel[Frame],
        peer: str,
    ) -> None:
        self.is_mute = False
        """Whether it answers nothing, as a machine whose network was unplugged."""
        self._line = line
        self._incoming = incoming
        self._outgoing = outgoing
        self._peer = peer
        self._other: MemoryConnection | None = None

    @property
    def peer(self) -> str:
        """The name of the other end."""
        return self._peer

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the end; None while the connection lasts."""
        return self._line.closed

    async def send(self, frame: Frame) -> None:
        """Hand a frame to the other end; wait for room in the buffer."""
        try:
            await self._outgoing.send(frame)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            self._lost()

    async def receive(self) -> Frame:
        """The next frame."""
        try:
            return await self._incoming.receive()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            self._lost()

    async def ping(self) -> None:
        """Return when the other end has answered; never, while it is mute."""
        await trio.lowlevel.checkpoint()
        if self._far_end.is_mute:
            await self._line.closed_event.wait()
        if self._line.closed is not None:
            self._lost()

    async def aclose(self, code: int, reason: str = "") -> None:
        """Say goodbye, and wait for the answer unless the connection has ended already."""
        await trio.lowlevel.checkpoint()
        if self._line.closed is not None:
            return
        if self._far_end.is_mute:
            await self._line.closed_event.wait()
        self._end(code, reason)

    async def abort(self) -> None:
        """Cut the connection without a word."""
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """Let both ends find that the connection is gone, as a network does."""
        self._end(1006, "")

    def wait_closed(self) -> trio.Event:
        """The event that is set when the connection has ended."""
        return self._line.closed_event

    @property
    def _far_end(self) -> MemoryConnection:
        assert self._other is not None  # set as soon as there are two
        return self._other

    def _end(self, code: int, reason: str) -> None:
        self._line.close(code, reason)
        for end in (self, self._far_end):
            end._outgoing.close()
        # What arrived can still be read by the one who did not hang up.
        self._incoming.close()

    def _lost(self) -> NoReturn:
        code, reason = self._line.closed or (1006, "")
        raise ConnectionLostError(code, reason) from None


def memory_connection_pair(buffer: int = 16) -> tuple[MemoryConnection, MemoryConnection]:
    """Two ends of a connection that holds `buffer` frames in each direction."""
    line = _Line()
    to_right, right_in = trio.open_memory_channel[Frame](buffer)
    to_left, left_in = trio.open_memory_channel[Frame](buffer)
    left = MemoryConnection(line, left_in, to_right, "memory:right")
    right = MemoryConnection(line, right_in, to_left, "memory:left")
    left._other, right._other = right, left
    return left, right
