"""RFC 6455 in small: what the Autobahn fuzzing client found must stay true without it."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import trio

from actorflow.server import open_server
from actorflow.testing import RecordingEventSink
from tests.server.autobahn_server import CONFIG, Echo, EchoFormat
from tests.server.test_faults_fuzz import UPGRADE, websocket_frame as frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GO_ON, FIN = 0, 0x80


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def parsed(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of a server: none is masked, none is fragmented here."""
    found = []
    while len(data) >= 2:
        opcode, length = data[0] & 15, data[1]
        begin = 2
        if length == 126:
            (length,) = struct.unpack("!H", data[2:4])
            begin = 4
        found.append((opcode, data[begin : begin + length]))
        data = data[begin + length :]
    return found


async def said_to(*pieces: bytes, answers: int = 0) -> tuple[list[tuple[int, bytes]], int]:
    """What an echo server answers until it hangs up, and the code with which it did.

    After so many answers the client says goodbye.
    """
    received = b""
    sink = RecordingEventSink()
    with trio.fail_after(20):
        async with (
            open_server(
                Echo(), config=CONFIG, formats={"/": EchoFormat()}, event_sink=sink
            ) as server,
            await trio.open_tcp_stream(*server.address) as stream,
        ):
            await stream.send_all(UPGRADE.format(path="/").encode())
            head = await stream.receive_some()
            assert head.startswith(b"HTTP/1.1 101")
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                while data := await stream.receive_some():
                    received += data
                    if answers and len(parsed(received)) == answers:
                        await stream.send_all(closing(1000))
            while not sink.payloads("session.closed"):  # noqa: ASYNC110 - a sink has no event
                await trio.sleep(0.002)
    (closed,) = sink.payloads("session.closed")
    return parsed(received), closed["code"]


GOODBYE = (CLOSE, struct.pack("!H", 1000))


@pytest.mark.spec("A118")
@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ([frame(TEXT, "Grüße".encode())], [(TEXT, "Grüße".encode())]),
        ([frame(TEXT, b"")], [(TEXT, b"")]),
        ([frame(BINARY, bytes(range(256)))], [(BINARY, bytes(range(256)))]),
        ([frame(TEXT, b"a" * 125)], [(TEXT, b"a" * 125)]),
        ([frame(TEXT, b"a" * 126)], [(TEXT, b"a" * 126)]),
        ([frame(PING, b"x" * 125)], [(PONG, b"x" * 125)]),
        (
            [
                frame(TEXT, b"in ", first=0),
                frame(GO_ON, b"three ", first=0),
                frame(GO_ON, b"parts"),
            ],
            [(TEXT, b"in three parts")],
        ),
        # A ping between fragments is answered before the message is complete.
        (
            [frame(TEXT, b"be", first=0), frame(PING, b"!"), frame(GO_ON, b"fore")],
            [(PONG, b"!"), (TEXT, b"before")],
        ),
        # A letter may be cut between fragments, and bytes anywhere.
        (
            [frame(TEXT, b"\xc3", first=0), frame(GO_ON, b"\xbc")],
            [(TEXT, "ü".encode())],
        ),
        ([*(bytes([it]) for it in frame(TEXT, b"slowly"))], [(TEXT, b"slowly")]),
        # Nobody has asked for it.
        ([frame(PONG, b"?"), frame(TEXT, b"on")], [(TEXT, b"on")]),
    ],
)
async def test_what_is_allowed_is_understood(
    sent: list[bytes], answered: list[tuple[int, bytes]]
) -> None:
    assert await said_to(*sent, answers=len(answered)) == ([*answered, GOODBYE], 1000)


@pytest.mark.spec("A118")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([frame(TEXT, b"rsv1", first=0xC0)], 1002),
        ([frame(TEXT, b"rsv2", first=0xA0)], 1002),
        ([frame(PING, b"rsv3", first=0x90)], 1002),
        ([frame(3, b"no such opcode")], 1002),
        ([frame(15, b"nor this one")], 1002),
        ([frame(GO_ON, b"what?")], 1002),
        ([frame(TEXT, b"one", first=0), frame(TEXT, b"and another")], 1002),
        ([frame(PING, b"in parts", first=0)], 1002),
        ([frame(PING, b"x" * 126)], 1002),
        ([frame(TEXT, b"without a mask", mask=False)], 1002),
        ([frame(CLOSE, b"\x03")], 1002),
        ([closing(999)], 1002),
        ([closing(1005)], 1002),
        ([closing(1000, b"\xff")], 1007),
        ([frame(TEXT, b"\xff\xfe")], 1007),
        ([frame(TEXT, b"\xed\xa0\x80")], 1007),
        # The first wrong byte is enough: the rest of the message never comes.
        ([frame(TEXT, b"so far so good \xf4\x90", first=0)], 1007),
    ],
)
async def test_what_is_forbidden_ends_the_connection(sent: list[bytes], code: int) -> None:
    assert await said_to(*sent) == ([], code)


@pytest.mark.spec("A118")
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
async def test_goodbye_is_answered_in_kind(code: int) -> None:
    ((opcode, payload),), closed = await said_to(closing(code, b"bye"))

    assert opcode == CLOSE
    assert struct.unpack("!H", payload[:2]) == (code,)
    assert closed == code
