"""Sockets: accepting them, looking at who comes, and handing them to the sessions.

Every connection has a nursery of its own, so that whatever one of them does ends in
it. All of them live in one nursery that is shielded until the sessions have said
goodbye: their last words need the connections.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias, final
from urllib.parse import parse_qsl, urlsplit

import trio
from trio_websocket import WebSocketRequest, wrap_server_stream

from actorflow.errors import AuthDeniedError
from actorflow.events import BoundEventSink, EventSink, get_event_sink
from actorflow.protocol import HouseFormat, WireFormat
from actorflow.transport import WebsocketConnection

from ._admission import ANONYMOUS, Authenticate, HandshakeRequest, Principal
from ._config import ServerConfig
from ._doorstep import Doorstep, answer
from ._session import SessionApp
from ._sessions import ServerStatistics, Sessions, open_sessions

_Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_log: Final = logging.getLogger("actorflow.server")


@final
class Server:
    """Sessions behind a listening socket."""

    def __init__(
        self,
        sessions: Sessions,
        address: tuple[str, int],
        authenticate: Authenticate | None,
        formats: Mapping[str, WireFormat] | None,
        ssl_context: ssl.SSLContext | None,
        sink: EventSink,
    ) -> None:
        """Make it with `open_server`."""
        self.address: Final = address
        """Host and port it listens on."""
        self._sessions = sessions
        self._authenticate = authenticate
        self._formats = formats
        self._ssl_context = ssl_context
        self._sink = BoundEventSink(sink)
        self._connections = 0
        self._accepting = trio.CancelScope()

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self.address
        scheme = "wss" if self._ssl_context else "ws"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def stop_accepting(self) -> None:
        """Close the listening socket; connections that there are go on."""
        self._accepting.cancel()

    async def drain(self, timeout: float = 30.0) -> None:
        """Accept no one, let turns end for `timeout` seconds, then cancel what is left.

        Returns when no session is left.
        """
        self.stop_accepting()
        await self._sessions.drain(timeout)

    def statistics(self) -> ServerStatistics:
        """What there is and was, as of now."""
        return self._sessions.statistics()

    async def listen(
        self,
        listeners: list[trio.SocketListener],
        nursery: trio.Nursery,
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]],
    ) -> None:
        """Accept connections until it is told to stop; serve them in `nursery`."""
        with self._accepting:
            await trio.serve_listeners(
                self._serve_safely,
                listeners,
                handler_nursery=nursery,
                task_status=task_status,
            )

    async def _serve_safely(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            async with trio.open_nursery() as nursery:
                await self._serve(self._secured(stream), _peer_of(stream), nursery)
                nursery.cancel_scope.cancel()
        # Whatever went wrong is the end of this connection and of no other.
        except Exception:  # noqa: BLE001
            _log.exception("connection_failed")
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    def _secured(self, stream: trio.SocketStream) -> _Stream:
        if self._ssl_context is None:
            return stream
        # As in HTTPS, nobody waits for the other end to say that it has closed.
        return trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)

    async def _serve(self, stream: _Stream, peer: str, nursery: trio.Nursery) -> None:
        config = self._sessions.config
        admitted = None
        with trio.move_on_after(config.handshake_timeout):
            if self._connections > config.max_connections:
                await self._turn_away(stream, 503, "too many connections", peer)
            else:
                admitted = await self._shake_hands(stream, peer, nursery)
        if admitted is not None:
            await self._sessions.serve(*admitted)

    async def _shake_hands(
        self, stream: _Stream, peer: str, nursery: trio.Nursery
    ) -> tuple[WebsocketConnection, WireFormat, Principal] | None:
        doorstep = Doorstep(stream)
        if not await doorstep.asks_for_upgrade():
            await self._turn_away(stream, 426, "not a websocket", peer)
            return None
        found: WebSocketRequest | None = None
        # A request that is none closes the stream, and nothing else would tell.
        with trio.CancelScope() as scope:
            doorstep.when_closed = scope.cancel
            found = await wrap_server_stream(
                nursery, doorstep, max_message_size=self._sessions.config.max_message_size
            )
        if found is None:
            return None
        request = _request_of(found, peer)
        wire_format = self._format_for(request)
        verdict = await self._verdict(request) if wire_format else (404, "nothing is served there")
        if isinstance(verdict, Principal):
            assert wire_format is not None  # or there would be no principal
            subprotocol = wire_format.subprotocol
            websocket = await found.accept(
                subprotocol=subprotocol if subprotocol in request.subprotocols else None
            )
            return WebsocketConnection(websocket, stream, peer), wire_format, verdict
        status, reason = verdict
        await found.reject(status, body=reason.encode())
        await self._report(status, reason, peer)
        return None

    def _format_for(self, request: HandshakeRequest) -> WireFormat | None:
        if self._formats is None:
            return HouseFormat(self._sessions.config.max_message_size)
        return self._formats.get(request.path)

    async def _verdict(self, request: HandshakeRequest) -> Principal | tuple[int, str]:
        allowed = self._sessions.config.allowed_origins
        if allowed is not None and request.headers.get("origin") not in allowed:
            return 403, "the origin is not allowed"
        if self._authenticate is None:
            return ANONYMOUS
        try:
            return await self._authenticate(request)
        except AuthDeniedError as denied:
            return denied.status, denied.reason
        except Exception:  # noqa: BLE001 - user code
            _log.exception("authentication_failed")
            return 500, "authentication failed"

    async def _turn_away(self, stream: _Stream, status: int, reason: str, peer: str) -> None:
        await answer(stream, status, reason)
        await self._report(status, reason, peer)

    async def _report(self, status: int, reason: str, peer: str) -> None:
        data = {"session_id": None, "reason": reason, "status": status, "peer": peer}
        await self._sink.emit(type="session.rejected", data=data)


def _peer_of(stream: trio.SocketStream) -> str:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "gone"
    return f"{host}:{port}"


def _request_of(found: WebSocketRequest, peer: str) -> HandshakeRequest:
    target = urlsplit(found.path)
    return HandshakeRequest(
        path=target.path,
        headers=MappingProxyType(
            {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in found.headers
            }
        ),
        query=MappingProxyType(dict(parse_qsl(target.query))),
        peer=peer,
        subprotocols=tuple(found.proposed_subprotocols),
    )


@asynccontextmanager
async def open_server(
    app: SessionApp,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    config: ServerConfig | None = None,
    authenticate: Authenticate | None = None,
    formats: Mapping[str, WireFormat] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    event_sink: EventSink | None = None,
) -> AsyncIterator[Server]:
    """Serve sessions on a socket for as long as the block lasts.

    However the block is left, every session is told so and closed with 1001, which
    takes at most twice the `close_timeout`.

    Args:
      app: what answers.
      host: the interface to listen on.
      port: the port; 0 lets the system choose, see `Server.address`.
      config: limits and times.
      authenticate: says who a client is, or raises `AuthDeniedError`; without it
        everybody may come in.
      formats: which wire format is spoken at which path; without it the house
        format everywhere.
      ssl_context: certificate and key, for ``wss://``; the handshake counts towards the
        `handshake_timeout`.
      event_sink: where `session.*` events go; the current sink by default.
    """
    sink = get_event_sink() if event_sink is None else event_sink
    listeners = await trio.open_tcp_listeners(port, host=host)
    address: tuple[str, int] = listeners[0].socket.getsockname()[:2]
    if authenticate is None and not ipaddress.ip_address(address[0]).is_loopback:
        _log.warning("server_lets_everybody_in", extra={"host": address[0]})
    failure = None
    async with trio.open_nursery() as nursery:
        doors: trio.Nursery = await nursery.start(_keep_doors)
        try:
            async with open_sessions(app, config=config, event_sink=sink) as sessions:
                server = Server(sessions, address, authenticate, formats, ssl_context, sink)
                await nursery.start(partial(server.listen, listeners, doors))
                try:
                    yield server
                finally:
                    server.stop_accepting()
        except Exception as error:  # noqa: BLE001 - raised again, outside of the nursery's group
            failure = error
        finally:
            doors.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _keep_doors(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as doors:
            task_status.started(doors)
            await trio.sleep_forever()
