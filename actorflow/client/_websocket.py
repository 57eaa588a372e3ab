from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, final
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from actorflow.errors import (
    ActorflowError,
    AuthDeniedError,
    ConnectionLostError,
    InvalidArgumentError,
)
from actorflow.protocol import MAX_MESSAGE_SIZE, PROTOCOL
from actorflow.transport import Connection, WebsocketConnection

_Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_PORTS: Final[Mapping[str, int]] = {"ws": 80, "wss": 443}


_NO_WEBSOCKET: Final = "gives no answer that a websocket would"


@asynccontextmanager
async def connect_websocket(
    url: str,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None,
    timeout: float,
) -> AsyncIterator[Connection]:
    """A connection to a server of sessions.

    Raises:
      ConnectionLostError: if there is nobody, or no answer in time.
      AuthDeniedError: if the server does not let us in.
    """
    parts = split(url)
    stream = None
    with trio.move_on_after(timeout):
        stream = await _open_stream(parts, ssl_context)
    if stream is None:
        raise ConnectionLostError(1006, f"no connection within {timeout:g} s")
    connection: Connection | None = None
    try:
        async with trio.open_nursery() as nursery:
            connection = await _shake_hands(nursery, stream, parts, headers, timeout)
            yield connection
            nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise _reason_of(group, parts.netloc, is_connected=connection is not None) from None
    finally:
        await trio.aclose_forcefully(stream)


def split(url: str) -> SplitResult:
    """The parts of a websocket's address."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidArgumentError("url", url, "an address that starts with ws:// or wss://")
    return parts


async def _open_stream(parts: SplitResult, ssl_context: ssl.SSLContext | None) -> _Stream:
    host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
    try:
        if parts.scheme == "ws":
            return await trio.open_tcp_stream(host, port)
        return await trio.open_ssl_over_tcp_stream(
            host, port, https_compatible=True, ssl_context=ssl_context
        )
    except OSError as error:
        raise ConnectionLostError(1006, f"nobody answers at {host}:{port}") from error


@final
class _Line:
    """A stream that tells when it has ended, whoever hung up.

    trio-websocket would wait for the answer to a handshake all the same.
    """

    def __init__(self, stream: _Stream) -> None:
        self.hung_up = trio.CancelScope()
        """Cancelled when it has."""
        self._stream = stream

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            self.hung_up.cancel()
            raise
        if not data:
            self.hung_up.cancel()
        return data

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def aclose(self) -> None:
        # What came was no answer, or the conversation is over.
        self.hung_up.cancel()
        await self._stream.aclose()


async def _shake_hands(
    nursery: trio.Nursery,
    stream: _Stream,
    parts: SplitResult,
    headers: Mapping[str, str],
    timeout: float,
) -> Connection:
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    line = _Line(stream)
    with trio.move_on_after(timeout), trio.CancelScope() as line.hung_up:
        if isinstance(stream, trio.SSLStream):
            await _secure(stream, parts.netloc)
        websocket = await wrap_client_stream(
            nursery,
            # It asks for a socket or TLS, and uses what a line has.
            line,  # type: ignore[arg-type]
            parts.netloc,
            resource,
            subprotocols=[PROTOCOL],
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            max_message_size=MAX_MESSAGE_SIZE,
        )
        return WebsocketConnection(websocket, stream, parts.netloc)
    if line.hung_up.cancelled_caught:
        raise ConnectionLostError(1006, f"{parts.netloc} {_NO_WEBSOCKET}")
    raise ConnectionLostError(1006, f"no answer within {timeout:g} s")


async def _secure(stream: trio.SSLStream[trio.SocketStream], where: str) -> None:
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        match error.__cause__:
            case ssl.SSLCertVerificationError(verify_message=reason):
                why = f"the certificate of {where} is not trusted: {reason}"
            case _:
                why = f"{where} does not speak TLS"
        raise ConnectionLostError(1006, why) from error


def _reason_of(group: ExceptionGroup[Exception], where: str, *, is_connected: bool) -> Exception:
    # The nursery makes a group of whatever one of the library's tasks raises.
    (first, *_) = group.exceptions
    if isinstance(first, ActorflowError) or is_connected:
        return first
    if not isinstance(first, ConnectionRejected):
        # The parsers below the library stumble in their own ways over what is no HTTP.
        return ConnectionLostError(1006, f"{where} {_NO_WEBSOCKET}")
    if first.status_code >= 500:
        return ConnectionLostError(1006, f"the server answered with status {first.status_code}")
    reason = (first.body or b"").decode("utf-8", "replace")
    return AuthDeniedError(reason, first.status_code)
