"""Server and client over real sockets on this machine. The clock is real; the waits are short."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from actorflow.client import ClientSession, Reconnect, open_session
from actorflow.errors import AuthDeniedError, ConnectionLostError, SessionClosedError
from actorflow.protocol import (
    AudioShape,
    CloseCode,
    HouseFormat,
    Interrupted,
    PlainAudioFormat,
    ReplyAudio,
    ReplyText,
    ServerMessage,
    TurnCompleted,
)
from actorflow.server import (
    HandshakeRequest,
    Principal,
    Server,
    ServerConfig,
    Session,
    Turn,
    open_server,
)
from actorflow.testing import RecordingEventSink
from tests.server.caller import PIECE, App, echo


@asynccontextmanager
async def serving(
    answer: Any = echo, *, config: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Server]:
    """A server; afterwards no task is left."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    settings = ServerConfig(**{"close_timeout": 1.0, **(config or {})})
    with trio.fail_after(20):
        async with open_server(App(answer), config=settings, **options) as server:
            yield server
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert dict(server.statistics().sessions) == {}
    assert server.statistics().connections == 0


async def hear(session: ClientSession, kind: type[ServerMessage]) -> Any:
    async for message in session:
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind}")


async def raw(server: Server, request: bytes, *then: bytes, enough: bytes | None = None) -> bytes:
    """What the server answers to a request, and to frames after it, until it hangs up."""
    stream = await trio.open_tcp_stream(*server.address)
    frames = list(then)
    async with stream:
        await stream.send_all(request)
        received = b""
        with suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                received += data
                if enough is not None and received.endswith(enough):
                    break
                while frames:
                    await stream.send_all(frames.pop(0))
    return received


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.spec("A118")
async def test_question_and_answer() -> None:
    async with serving() as server, open_session(server.url) as session:
        await session.send_text("hello")
        answer = await hear(session, ReplyText)
        await hear(session, TurnCompleted)

        assert answer.delta == "hello"
        assert dict(server.statistics().sessions) == {"idle": 1}


async def test_barge_in() -> None:
    async def talk(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE * 500)

    async with serving(talk) as server, open_session(server.url + "/call?x=1") as session:
        await session.send_text("talk")
        await hear(session, ReplyAudio)
        await session.interrupt(played_ms=20)
        interrupted = await hear(session, Interrupted)

    assert interrupted.turn_id == "turn-1"
    assert interrupted.discarded_ms > 0


@pytest.mark.spec("A107", "A111")
async def test_resume_over_a_new_socket() -> None:
    async def count(session: Session, turn: Turn) -> None:
        for number in range(40):
            await turn.send_text(str(number))
            await trio.sleep(0.01)

    proxies: list[trio.SocketStream] = []

    async def forward(source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await target.send_all(data)

    async with serving(count) as server, trio.open_nursery() as nursery:
        # Something between the two that can break: what a telephone does in a tunnel.
        async def relay(client: trio.SocketStream) -> None:
            async with client, await trio.open_tcp_stream(*server.address) as far:
                proxies.extend((client, far))
                async with trio.open_nursery() as both:
                    both.start_soon(forward, client, far)
                    await forward(far, client)
                    both.cancel_scope.cancel()

        listen = partial(trio.serve_tcp, host="127.0.0.1")
        (listener,) = await nursery.start(listen, relay, 0)
        port = listener.socket.getsockname()[1]
        reconnect = Reconnect(base_delay_ms=20)
        async with open_session(f"ws://127.0.0.1:{port}", reconnect=reconnect) as session:
            await session.send_text("count")
            heard = []
            for _ in range(3):
                heard += [(await hear(session, ReplyText)).delta for _ in range(10)]
                for stream in proxies:
                    await trio.aclose_forcefully(stream)
                proxies.clear()
            heard += [(await hear(session, ReplyText)).delta for _ in range(10)]
            assert session.reconnects >= 1
        nursery.cancel_scope.cancel()

    assert heard == [str(number) for number in range(40)]


async def test_samples_only_at_a_path_of_their_own() -> None:
    async def parrot(session: Session, turn: Turn) -> None:
        async for chunk in turn.audio():
            await turn.send_audio(chunk)

    formats = {"/": HouseFormat(), "/pcm": PlainAudioFormat(AudioShape(8000))}
    async with serving(parrot, formats=formats) as server:
        request, frame = UPGRADE.replace(b"GET / ", b"GET /pcm "), b"\x82\x84\0\0\0\0abcd"
        answer = await raw(server, request, frame, enough=b"abcd")
        missing = await raw(server, UPGRADE.replace(b"GET / ", b"GET /else "))

    assert b"101 Switching" in answer
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"\x82\x04abcd")
    assert missing.startswith(b"HTTP/1.1 404")


# Who comes in


@pytest.mark.spec("A113")
async def test_server_asks_who_is_there() -> None:
    seen: list[HandshakeRequest] = []
    principals: list[Principal] = []

    async def authenticate(request: HandshakeRequest) -> Principal:
        seen.append(request)
        match request.headers.get("authorization"):
            case "Bearer ada":
                return Principal("ada", {"role": "guest"})
            case "Bearer crash":
                raise ValueError
            case "Bearer bob":
                raise AuthDeniedError("not you", 403)
        raise AuthDeniedError("who are you?")

    async def who(session: Session, turn: Turn) -> None:
        principals.append(session.principal)

    sink = RecordingEventSink(strict=True)
    async with serving(who, authenticate=authenticate, event_sink=sink) as server:
        async with open_session(server.url + "/?a=b", token="ada") as session:
            await session.send_text("x")
            await hear(session, TurnCompleted)
        found = []
        for token in (None, "bob"):
            with pytest.raises(AuthDeniedError) as caught:
                async with open_session(server.url, token=token):
                    pass  # pragma: no cover - nobody comes in
            found.append((caught.value.status, caught.value.reason))
        with pytest.raises(ConnectionLostError, match="status 500"):
            async with open_session(server.url, token="crash"):
                pass  # pragma: no cover - nobody comes in

    assert principals == [Principal("ada", {"role": "guest"})]
    assert (seen[0].path, seen[0].query, seen[0].subprotocols) == (
        "/",
        {"a": "b"},
        ("actorflow.v1",),
    )
    assert found == [(401, "who are you?"), (403, "not you")]
    assert [it["status"] for it in sink.payloads("session.rejected")] == [401, 403, 500]


@pytest.mark.spec("A114")
async def test_pages_of_other_origins_are_turned_away() -> None:
    async with serving(config={"allowed_origins": ["https://good"]}) as server:
        request = UPGRADE[:-2] + b"Origin: https://"
        bad = await raw(server, request + b"bad\r\n\r\n")
        none = await raw(server, UPGRADE)
        # The mask and the code of a close frame: somebody who comes in and goes at once.
        good = await raw(server, request + b"good\r\n\r\n", b"\x88\x82\0\0\0\0\x03\xe8")

    assert bad.startswith(b"HTTP/1.1 403")
    assert none.startswith(b"HTTP/1.1 403")
    assert good.startswith(b"HTTP/1.1 101")


@pytest.mark.spec("A114")
async def test_there_is_room_for_so_many_connections() -> None:
    async with serving(config={"max_connections": 1}) as server:
        async with open_session(server.url):
            assert (await raw(server, UPGRADE)).startswith(b"HTTP/1.1 503")
        # The client has gone; the server may need a moment to notice.
        answer = b""
        while not answer.startswith(b"HTTP/1.1 101"):
            answer = await raw(server, UPGRADE, b"\x88\x82\0\0\0\0\x03\xe8")


@pytest.mark.spec("A104")
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"HTTP/1.1 426"),
        (b"x" * 20_000, b"HTTP/1.1 426"),
        (UPGRADE.replace(b"13", b"99"), b"HTTP/1.1 426"),
        (UPGRADE.replace(b"Host: here\r\n", b""), b"HTTP/1.1 400"),
    ],
)
async def test_requests_for_something_else_are_answered_at_once(
    request_: bytes, answer: bytes
) -> None:
    async with serving() as server:
        begin = trio.current_time()
        received = await raw(server, request_)

    assert received.startswith(answer) or received == b""
    assert trio.current_time() - begin < 2


@pytest.mark.spec("A104")
async def test_nobody_may_be_slow_with_the_handshake() -> None:
    async with serving(config={"handshake_timeout": 0.1}) as server:
        begin = trio.current_time()
        received = await raw(server, b"GET / HT")
        took = trio.current_time() - begin

    assert received == b""
    assert took < 2


@pytest.mark.spec("A104")
async def test_client_is_not_waited_for_after_a_wrong_request() -> None:
    async with serving(config={"max_connections": 1}) as server:
        answer = await raw(server, UPGRADE.replace(b"13\r\n\r\n", b"99\r\n\r\n"))
        begin, next_answer = trio.current_time(), b""
        while not next_answer.startswith(b"HTTP/1.1 101"):
            next_answer = await raw(server, UPGRADE, b"\x88\x82\0\0\0\0\x03\xe8")
        took = trio.current_time() - begin

    assert answer.startswith(b"HTTP/1.1 426")
    assert took < ServerConfig().handshake_timeout / 2


async def test_nobody_answers_at_all() -> None:
    async def mute(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), mute, 0)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(ConnectionLostError, match="no answer within"):
            async with open_session(url, connect_timeout=0.05):
                pass  # pragma: no cover - nobody answers
        nursery.cancel_scope.cancel()


async def test_address_that_leads_nowhere_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_nothing(host: str, port: int, **_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", open_nothing)
    with pytest.raises(ConnectionLostError, match="no connection within"):
        async with open_session("ws://nowhere", connect_timeout=0.05):
            pass  # pragma: no cover - nobody answers


async def test_encrypted_address_is_called_with_encryption() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), hang_up, 0)
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(ConnectionLostError):
            async with open_session(url, connect_timeout=1):
                pass  # pragma: no cover - nobody answers
        nursery.cancel_scope.cancel()


async def test_clients_that_leave_early_hold_nothing() -> None:
    async with serving() as server:
        for request in (b"", b"GET / ", UPGRADE):
            stream = await trio.open_tcp_stream(*server.address)
            await stream.send_all(request)
            # An abrupt end: the system sends a reset instead of a goodbye.
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()
        # This one has gone before the server has accepted it: nothing here lets it run.
        with socket.create_connection(server.address) as early:
            early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with open_session(server.url) as session:
            await session.send_text("still there?")
            await hear(session, ReplyText)


# Limits and endings


@pytest.mark.spec("A112")
async def test_message_in_many_fragments_is_limited_as_a_whole() -> None:
    async with serving(config={"max_message_size": 1000}) as server:
        first, more = (start + b"\xe4\0\0\0\0" + b"x" * 100 for start in (b"\2", b"\0"))
        answer = await raw(server, UPGRADE, first, more * 20)

    # The code of the close frame.
    assert int(CloseCode.TOO_BIG).to_bytes(2, "big") in answer


@pytest.mark.spec("A115")
async def test_drain_over_sockets() -> None:
    async def slowly(session: Session, turn: Turn) -> None:
        await trio.sleep(0.1)
        await echo(session, turn)

    async with serving(slowly) as server, open_session(server.url) as session:
        await session.send_text("hello")
        await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            answer = await hear(session, ReplyText)
            with pytest.raises(SessionClosedError) as caught:
                await hear(session, ReplyAudio)
        with pytest.raises(ConnectionLostError, match="nobody answers"):
            async with open_session(server.url):
                pass  # pragma: no cover - nobody is there

    assert answer.delta == "hello"
    assert caught.value.close_code == CloseCode.GOING_AWAY


@pytest.mark.spec("A115")
async def test_cancelled_server_says_goodbye() -> None:
    codes: list[int] = []
    started = trio.Event()
    urls: list[str] = []

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            async with serving() as server:
                urls.append(server.url)
                started.set()
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(run, scope)
        await started.wait()
        async with open_session(urls[0]) as session:
            scope.cancel()
            with pytest.raises(SessionClosedError) as caught:
                await hear(session, ReplyText)
            codes.append(caught.value.close_code)

    assert codes == [CloseCode.GOING_AWAY]


async def test_exception_in_the_block_of_a_server_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving():
            1 / 0


@pytest.mark.spec("A113")
async def test_server_for_everybody_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(host="0.0.0.0"):
        assert "server_lets_everybody_in" in caplog.text


async def test_address_of_the_sixth_version_is_in_brackets() -> None:
    async with serving(host="::1") as server, open_session(server.url) as session:
        assert server.url.startswith("ws://[::1]:")
        assert session.id


@pytest.mark.spec("A85")
async def test_connection_that_breaks_in_an_unforeseen_way_breaks_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with serving() as server, open_session(server.url) as session:
        with monkeypatch.context() as patched:
            patched.setattr("actorflow.server._server.Doorstep", None)
            assert await raw(server, UPGRADE) == b""
        await session.send_text("still there?")
        await hear(session, ReplyText)

    assert "connection_failed" in caplog.text
