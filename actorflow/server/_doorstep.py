from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, final

import trio

# No client has reasons to send a longer head; the library has a limit of its own.
_MAX_HEAD: Final = 16_384


def _nothing() -> None:
    """Do nothing."""


@final
class Doorstep(trio.abc.Stream):
    """A stream whose first bytes are looked at before somebody else reads them.

    trio-websocket would let a plain HTTP request wait for the end of the handshake's
    time, and a wrong one too. So it gets to see requests to upgrade only, and when it
    closes the stream, `when_closed` is called.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.when_closed: Callable[[], None] = _nothing
        self._stream = stream
        self._ahead = b""

    async def asks_for_upgrade(self) -> bool:
        """Whether the head of the request asks for a websocket."""
        try:
            while b"\r\n\r\n" not in self._ahead:
                data = await self._stream.receive_some(4096)
                self._ahead += data
                # Whoever speaks TLS to a server without waits for an answer, and would for long.
                is_http = self._ahead[:1].isalpha()
                if not data or not is_http or len(self._ahead) > _MAX_HEAD:
                    return False
        except trio.BrokenResourceError:
            return False
        head = self._ahead.partition(b"\r\n\r\n")[0].lower()
        return any(
            line.startswith(b"upgrade:") and b"websocket" in line for line in head.split(b"\r\n")
        )

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What was looked at, then what comes."""
        if not self._ahead:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        end = max_bytes or len(self._ahead)
        data, self._ahead = self._ahead[:end], self._ahead[end:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as the stream does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream, and say so."""
        self.when_closed()
        await self._stream.aclose()


async def answer(stream: trio.abc.Stream, status: int, reason: str) -> None:
    """Answer an HTTP request that is not let in. A client that has gone is no problem."""
    body = reason.encode("utf-8")
    upgrade = "Upgrade: websocket\r\n" if status == HTTPStatus.UPGRADE_REQUIRED else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{upgrade}"
        f"Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with suppress(trio.BrokenResourceError):
        await stream.send_all(head.encode("ascii") + body)
