from __future__ import annotations

from typing import NoReturn, final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection as _WebSocket

from actorflow.errors import ConnectionLostError
from actorflow.protocol import Frame

# A close frame has room for 125 bytes, two of them for the code.
_REASON_BYTES = 123


@final
class WebsocketConnection:
    """A connection of trio-websocket.

    Its reader task lives in the nursery in which the websocket was made; end that
    one after the connection.
    """

    def __init__(self, websocket: _WebSocket, stream: trio.abc.Stream, peer: str) -> None:
        self._websocket = websocket
        self._stream = stream
        self._peer = peer

    @property
    def peer(self) -> str:
        """Address and port of the other end."""
        return self._peer

    async def send(self, frame: Frame) -> None:
        """See `Connection.send`."""
        try:
            await self._websocket.send_message(frame)
        except ConnectionClosed as closed:
            _lost(closed)

    async def receive(self) -> Frame:
        """See `Connection.receive`."""
        try:
            return await self._websocket.get_message()
        except ConnectionClosed as closed:
            _lost(closed)

    async def ping(self) -> None:
        """See `Connection.ping`."""
        try:
            await self._websocket.ping()
        except ConnectionClosed as closed:
            _lost(closed)

    async def aclose(self, code: int, reason: str = "") -> None:
        """See `Connection.aclose`."""
        short = reason.encode("utf-8")[:_REASON_BYTES].decode("utf-8", "ignore")
        await self._websocket.aclose(code, short)

    async def abort(self) -> None:
        """See `Connection.abort`."""
        await trio.aclose_forcefully(self._stream)


def _lost(closed: ConnectionClosed) -> NoReturn:
    reason = closed.reason
    if reason is None:
        raise ConnectionLostError from None
    raise ConnectionLostError(reason.code, reason.reason or "") from None
