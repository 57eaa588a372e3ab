"""Sockets of the client: TLS, and servers that are none of ours."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import CloseReason, ConnectionClosed, WebSocketRequest, serve_websocket

from actorflow.client import ClientSession, open_session
from actorflow.errors import ConnectionLostError, ProtocolViolationError
from actorflow.protocol import PROTOCOL, CloseCode, ReplyText
from actorflow.server import Server, ServerConfig, Session, Turn, open_server


class Parrot:
    async def on_turn(self, session: Session, turn: Turn) -> None:
        await turn.send_text(str(turn.text), is_final=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def serving(authority: trustme.CA, **config: Any) -> AsyncIterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    settings = ServerConfig(close_timeout=1.0, **config)
    with trio.fail_after(20):
        async with open_server(Parrot(), config=settings, ssl_context=context) as server:
            yield server
    assert server.statistics().connections == 0


async def answer_of(session: ClientSession) -> str:
    async for message in session:
        if isinstance(message, ReplyText):
            return message.delta
    raise AssertionError("no answer")


@pytest.mark.spec("A149")
async def test_session_is_held_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with serving(authority) as server:
        assert server.url.startswith("wss://127.0.0.1:")

        async with open_session(server.url, ssl_context=trusting) as session:
            await session.send_text("hello")

            assert await answer_of(session) == "hello"


@pytest.mark.spec("A149")
async def test_certificate_nobody_vouches_for_is_told(authority: trustme.CA) -> None:
    async with serving(authority) as server:
        with pytest.raises(ConnectionLostError, match=r"the certificate of .* is not trusted: "):
            async with open_session(server.url):
                pass


@pytest.mark.spec("A149")
async def test_server_without_tls_is_told(trusting: ssl.SSLContext) -> None:
    async with open_server(Parrot()) as server:
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(ConnectionLostError, match=r"127.0.0.1:\d+ does not speak TLS"):
            async with open_session(url, ssl_context=trusting):
                pass


async def test_client_without_tls_is_turned_away(authority: trustme.CA) -> None:
    async with serving(authority) as server:
        with pytest.raises(ConnectionLostError, match="gives no answer that a websocket would"):
            async with open_session(server.url.replace("wss:", "ws:")):
                pass


@pytest.mark.spec("A150")
@pytest.mark.parametrize("how", ["politely", "rudely", "nonsense", "wrongly"])
async def test_server_that_does_not_answer_the_handshake_is_told(how: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        match how:
            case "nonsense":
                await stream.send_all(b"220 mail.example.org\r\n\r\n")
                await stream.receive_some()
            case "wrongly":
                await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                await stream.receive_some()
            case "rudely":
                # Without the time that TCP takes for it: the other end sees a reset.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.fail_after(5), pytest.raises(ConnectionLostError, match="gives no answer"):
            async with open_session(url):
                pass
        nursery.cancel_scope.cancel()


async def test_server_that_speaks_another_language_is_left() -> None:
    closed: list[CloseReason | None] = []

    async def answer(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=PROTOCOL)
        await websocket.get_message()
        await websocket.send_message("Bonjour!")
        with pytest.raises(ConnectionClosed) as caught:
            await websocket.get_message()
        closed.append(caught.value.reason)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, answer, "127.0.0.1", 0, None))
        with trio.fail_after(5), pytest.raises(ProtocolViolationError):
            async with open_session(f"ws://127.0.0.1:{server.port}"):
                pass
        nursery.cancel_scope.cancel()

    assert [reason and reason.code for reason in closed] == [CloseCode.BAD_DATA]


@pytest.mark.spec("A149")
async def test_silent_client_holds_a_connection_only_for_a_handshake(
    authority: trustme.CA,
) -> None:
    async with serving(authority, handshake_timeout=0.2, max_connections=1) as server:
        # The second one would be told that there are too many, if only it spoke TLS.
        streams = [await trio.open_tcp_stream(*server.address) for _ in range(2)]

        assert [await stream.receive_some() for stream in streams] == [b"", b""]

        for stream in streams:
            await stream.aclose()


@pytest.mark.spec("A149")
async def test_one_connection_too_many_is_told_over_tls(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async with (
        serving(authority, max_connections=1) as server,
        open_session(server.url, ssl_context=trusting),
    ):
        with pytest.raises(ConnectionLostError, match="status 503"):
            async with open_session(server.url, ssl_context=trusting):
                pass
