"""Sessions over TLS, with certificates of an authority that the test makes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from actorflow.client import ClientSession, open_session
from actorflow.errors import ConnectionLostError
from actorflow.protocol import ReplyText
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


async def test_session_is_held_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with serving(authority) as server:
        assert server.url.startswith("wss://127.0.0.1:")

        async with open_session(server.url, ssl_context=trusting) as session:
            await session.send_text("hello")

            assert await answer_of(session) == "hello"


async def test_certificate_nobody_vouches_for_is_told(authority: trustme.CA) -> None:
    async with serving(authority) as server:
        with pytest.raises(ConnectionLostError, match=r"the certificate of .* is not trusted: "):
            async with open_session(server.url):
                pass


async def test_server_without_tls_is_told(trusting: ssl.SSLContext) -> None:
    async with open_server(Parrot()) as server:
        url = server.url.replace("ws:", "wss:")
        with pytest.raises(ConnectionLostError, match=r"127.0.0.1:\d+ does not speak TLS"):
            async with open_session(url, ssl_context=trusting):
                pass


async def test_client_without_tls_is_turned_away(authority: trustme.CA) -> None:
    async with serving(authority) as server:
        with pytest.raises(ConnectionLostError):
            async with open_session(server.url.replace("wss:", "ws:"), connect_timeout=0.3):
                pass


async def test_silent_client_holds_a_connection_only_for_a_handshake(
    authority: trustme.CA,
) -> None:
    async with serving(authority, handshake_timeout=0.2, max_connections=1) as server:
        # The second one would be told that there are too many, if only it spoke TLS.
        streams = [await trio.open_tcp_stream(*server.address) for _ in range(2)]

        assert [await stream.receive_some() for stream in streams] == [b"", b""]

        for stream in streams:
            await stream.aclose()


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
