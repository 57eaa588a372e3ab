from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from actorflow.errors import AuthDeniedError, ConnectionLostError, InvalidArgumentError
from actorflow.protocol import MAX_MESSAGE_SIZE, PROTOCOL
from actorflow.transport import Connection, WebsocketConnection

_Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_PORTS: Final[Mapping[str, int]] = {"ws": 80, "wss": 443}


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
    try:
        async with trio.open_nursery() as nursery:
            connection = await _shake_hands(nursery, stream, parts, headers, timeout)
            yield connection
            nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise _reason_of(group) from None
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


async def _shake_hands(
    nursery: trio.Nursery,
    stream: _Stream,
    parts: SplitResult,
    headers: Mapping[str, str],
    timeout: float,
) -> Connection:
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with trio.move_on_after(timeout):
        if isinstance(stream, trio.SSLStream):
            await _secure(stream, parts.netloc)
        websocket = await wrap_client_stream(
            nursery,
            stream,
            parts.netloc,
            resource,
            subprotocols=[PROTOCOL],
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            max_message_size=MAX_MESSAGE_SIZE,
        )
        return WebsocketConnection(websocket, stream, parts.netloc)
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


def _reason_of(group: ExceptionGroup[Exception]) -> Exception:
    # The nursery makes a group of whatever one of the library's tasks raises.
    (first, *_) = group.exceptions
    if not isinstance(first, ConnectionRejected):
        return first
    if first.status_code >= 500:
        return ConnectionLostError(1006, f"the server answered with status {first.status_code}")
    reason = (first.body or b"").decode("utf-8", "replace")
    return AuthDeniedError(reason, first.status_code)
