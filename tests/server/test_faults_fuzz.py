"""Strangers: what they send over a real socket ends their own connection at most."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings, strategies as st

from actorflow.client import open_session
from actorflow.errors import ProtocolViolationError
from actorflow.protocol import (
    CloseCode,
    Frame,
    HouseFormat,
    PlainAudioFormat,
    ReplyText,
    SessionState,
    TurnCompleted,
    TwilioFormat,
    WireFormat,
)
from actorflow.server import Server, ServerConfig, open_server
from actorflow.testing import RecordingEventSink, no_leaks
from tests.server.caller import PIECE, App, echo

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MEDIA = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
CALL = {"streamSid": "MZ1", "mediaFormat": MEDIA}

FORMATS: dict[str, WireFormat] = {
    "/": HouseFormat(4_096),
    "/phone": TwilioFormat(4_096),
    "/plain": PlainAudioFormat(max_message_size=4_096),
}
OPENINGS: dict[str, list[Frame]] = {
    "/": [json.dumps({"type": "start"})],
    "/phone": [json.dumps({"event": "start", "start": CALL})],
    "/plain": [],
}


def websocket_frame(opcode: int, payload: bytes, *, first: int = 0x80, mask: bool = True) -> bytes:
    """A frame as RFC 6455 wants it, or as a stranger may send it."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first | opcode, length | (0x80 if mask else 0))
    else:
        head = struct.pack("!BBH", first | opcode, 126 | (0x80 if mask else 0), length)
    return head + (b"\0\0\0\0" if mask else b"") + payload


def whole(frame: Frame) -> bytes:
    return (
        websocket_frame(1, frame.encode()) if isinstance(frame, str) else websocket_frame(2, frame)
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KINDS = ["start", "audio", "text", "interrupt", "end", "ack", "played", "ping", "nonsense"]
EVENTS = ["connected", "start", "media", "dtmf", "mark", "stop", "nonsense"]
FIELDS = [
    *("text", "turn_id", "played_ms", "scope", "seq", "id", "data", "audio", "metadata"),
    *("media", "mark", "dtmf", "start", "resume_token", "last_seq"),
]
MESSAGES = st.builds(
    lambda kind, event, fields: json.dumps({"type": kind, "event": event, **fields}),
    st.sampled_from(KINDS),
    st.sampled_from(EVENTS),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
)
FRAMES = st.one_of(
    MESSAGES.map(whole),
    st.binary(max_size=700).map(whole),
    st.sampled_from(
        [
            whole(json.dumps({"type": "text", "text": "hello"})),
            whole(json.dumps({"type": "end", "scope": "turn"})),
            whole(json.dumps({"type": "interrupt"})),
            whole(PIECE),
            whole(bytes(5_000)),
            whole("[" * 3_000),
            websocket_frame(8, struct.pack("!H", 1000)),
        ]
    ),
    # Any opcode, any of the first bits, masked or not.
    st.builds(
        lambda opcode, payload, first, mask: websocket_frame(
            opcode, payload, first=first, mask=mask
        ),
        st.integers(0, 15),
        st.binary(max_size=150),
        st.sampled_from([0x80, 0x00, 0xC0, 0xA0, 0x90]),
        st.booleans(),
    ),
    # And what is no frame at all.
    st.binary(max_size=60),
)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    config = ServerConfig(
        max_message_size=4_096, close_timeout=0.2, resume_grace=0, max_sessions_per_principal=1_000
    )
    sink = RecordingEventSink(strict=True)
    with trio.fail_after(60):
        async with (
            no_leaks(),
            open_server(App(echo), config=config, formats=FORMATS, event_sink=sink) as server,
        ):
            yield server
            await server.drain(5)
        assert dict(server.statistics().sessions) == {}
        # Nothing that strangers say makes us crash.
        closed = sink.payloads("session.closed")
        assert len(closed) == len(sink.payloads("session.opened"))
        assert CloseCode.INTERNAL not in {it["code"] for it in closed}


async def bother(server: Server, path: str, frames: Sequence[bytes], cuts: int) -> None:
    """Send the frames in `cuts` pieces, and leave without a word."""
    stream = await trio.open_tcp_stream(*server.address)
    async with stream:
        opening = b"".join(whole(frame) for frame in OPENINGS[path])
        data = opening + b"".join(frames)
        size = max(1, len(data) // cuts)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(UPGRADE.format(path=path).encode())
            await stream.receive_some()
            for begin in range(0, len(data), size):
                await stream.send_all(data[begin : begin + size])
            # Until the server has had enough, or nothing more to say.
            with trio.move_on_after(0.02):
                while await stream.receive_some():
                    pass


async def converse(server: Server, until: trio.Event) -> int:
    """A session beside all that, which must not notice; how many turns it had."""
    turns = 0
    async with open_session(server.url) as session:
        while not (turns and until.is_set()):
            await session.send_text(f"question {turns}")
            async for message in session:
                if isinstance(message, ReplyText):
                    assert message.delta == f"question {turns}"
                if isinstance(message, TurnCompleted):
                    break
            turns += 1
            await trio.lowlevel.checkpoint()
    return turns


@pytest.mark.spec("A85", "A89")
@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(FORMATS)),
            st.lists(FRAMES, max_size=6),
            st.integers(1, 5),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_strangers_bother_nobody_but_themselves(
    strangers: list[tuple[str, list[bytes], int]],
) -> None:
    async def main() -> None:
        async with serving() as server:
            gone = trio.Event()
            turns = 0

            async def undisturbed() -> None:
                nonlocal turns
                turns = await converse(server, gone)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(undisturbed)
                async with trio.open_nursery() as crowd:
                    for path, frames, cuts in strangers:
                        crowd.start_soon(bother, server, path, frames, cuts)
                gone.set()
            assert turns >= 1
            assert server.statistics().turns >= turns
            assert SessionState.IN_TURN not in server.statistics().sessions

    trio.run(main)


@settings(max_examples=60)
@given(st.sampled_from(sorted(FORMATS)), st.lists(st.binary(max_size=300) | MESSAGES, max_size=8))
def test_parsers_say_no_and_nothing_else(path: str, frames: list[Frame]) -> None:
    wire_format = FORMATS[path]
    for frame in [*OPENINGS[path], *frames]:
        with suppress(ProtocolViolationError):
            wire_format, messages = wire_format.read(frame)
            for message in messages:
                assert repr(message)
