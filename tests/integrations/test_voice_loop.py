"""A machine speaks, is heard and is answered: real voices, real sockets, real time.

One voice asks, the detector finds where the question ends, the recogniser writes it down, the
assistant of `examples/` answers, another voice speaks the answer, and what arrives is
transcribed again.
"""

from __future__ import annotations

import base64
import json
import time
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from actorflow.client import ClientSession, open_session
from actorflow.integrations import EspeakSynthesizer, FliteSynthesizer, SpeechProgram
from actorflow.memory import MemoryConfig
from actorflow.protocol import (
    HouseFormat,
    Interrupted,
    ReplyAudio,
    ServerMessage,
    Transcript,
    TurnCompleted,
    TurnStarted,
    TwilioFormat,
    mulaw_from_pcm16,
    pcm16_from_mulaw,
)
from actorflow.server import Server, open_server
from tests.integrations.voice import needs_espeak, needs_extra, needs_flite, recognizer_of

pytestmark = [needs_extra, needs_flite]

RAIN = "It rains until four. Take an umbrella."
ANSWERS = (RAIN, "I know when it rains. I can tell you a story.", "Good.", "Please ask me")
SILENCE = bytes(32_000)

# From the decision that the user has finished to the first audio of the answer. It takes some
# 50 ms on an idle machine; what the bound has to catch is somebody who waits for the whole.
SOON = 1.5


@attrs.define
class Heard:
    """What a client was told, and when."""

    messages: list[tuple[float, ServerMessage]] = attrs.field(factory=list)

    async def until(self, session: ClientSession, kind: type, count: int = 1) -> None:
        async for message in session:
            self.messages.append((trio.current_time(), message))
            count -= isinstance(message, kind)
            if not count:
                return
        raise AssertionError(f"no {kind.__name__}")

    def of(self, kind: type, turn_id: str | None = None) -> list[tuple[float, Any]]:
        return [
            (at, it)
            for at, it in self.messages
            if isinstance(it, kind) and turn_id in {None, getattr(it, "turn_id", None)}
        ]

    def audio(self, turn_id: str) -> bytes:
        return b"".join(piece.data for _, piece in self.of(ReplyAudio, turn_id))


class Clock:
    """An event sink that notes when events came."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.times.setdefault(type, trio.current_time())


@asynccontextmanager
async def assistant(**options: Any) -> AsyncIterator[Server]:
    # Not above: its import needs what these tests are skipped without.
    from examples.voice_assistant import app

    with trio.fail_after(60):
        async with open_server(app, **options) as server:
            yield server
    assert server.statistics().connections == 0


@pytest.mark.spec("A147")
@pytest.mark.parametrize(
    "voice",
    [
        pytest.param(lambda: FliteSynthesizer("rms"), id="flite"),
        pytest.param(EspeakSynthesizer, id="espeak-ng", marks=needs_espeak),
    ],
)
async def test_machine_speaks_is_heard_and_is_answered(
    voice: Any, tmp_path: Path, record_property: Any
) -> None:
    asking: SpeechProgram = voice()
    question = await asking.synthesize("Will it rain today?")
    heard, clock = Heard(), Clock()
    began = time.perf_counter()

    async with (
        assistant(event_sink=clock) as server,
        open_session(server.url) as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.speak, question + SILENCE)
        await heard.until(session, TurnCompleted)
        nursery.cancel_scope.cancel()

    answer = tmp_path / "answer.wav"
    with wave.open(str(answer), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(heard.audio("turn-1"))

    assert [it.text for _, it in heard.of(Transcript)] == ["will it rain today"]
    with wave.open(str(answer)) as file:
        spoken = await recognizer_of(ANSWERS).transcribe(file.readframes(file.getnframes()))
    assert spoken.text == "it rains until four take an umbrella"
    first_audio = heard.of(ReplyAudio)[0][0]
    latency = first_audio - clock.times["session.speech_ended"]
    assert 0 < latency < SOON
    record_property("end_of_speech_to_first_audio_ms", round(latency * 1000))
    record_property("whole_loop_s", round(time.perf_counter() - began, 2))


@pytest.mark.spec("A82", "A97", "A98", "A100", "A102")
async def test_voice_in_the_middle_of_an_answer_breaks_it_off() -> None:
    from examples.voice_assistant import ANSWERS as KNOWN, memory

    asking = FliteSynthesizer("rms")
    story, stop = [await asking.synthesize(it) for it in ("Tell me a story.", "Stop.")]
    heard = Heard()

    async with assistant() as server, open_session(server.url) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.speak, story + SILENCE)
            await heard.until(session, ReplyAudio, 50)
            nursery.start_soon(session.speak, stop + SILENCE)
            await heard.until(session, Interrupted)
            await heard.until(session, TurnCompleted)
            nursery.cancel_scope.cancel()
        session_id = session.id

    assert [it.text for _, it in heard.of(Transcript)] == ["tell me a story", "stop"]
    broken_off_at, interrupted = heard.of(Interrupted)[0]
    assert interrupted.turn_id == "turn-1"
    assert interrupted.discarded_ms > 0
    # Nothing of it comes any more, and it was broken off while "stop" was being said.
    assert all(at <= broken_off_at for at, _ in heard.of(ReplyAudio, "turn-1"))
    assert heard.of(TurnStarted, "turn-2")[0][0] > broken_off_at
    whole = await FliteSynthesizer().synthesize(KNOWN["tell me a story"])
    assert len(heard.audio("turn-1")) < len(whole) / 2
    entries = await memory.fetch(session_id, MemoryConfig())
    assert [it.role for it in entries] == ["user", "assistant", "user", "assistant"]
    assert entries[1].metadata["interrupted"] is True
    assert KNOWN["tell me a story"].startswith(entries[1].content.strip())
    assert len(entries[1].content) < len(KNOWN["tell me a story"])


@pytest.mark.spec("A147")
async def test_phone_call_is_answered_in_the_words_of_twilio() -> None:
    asking = FliteSynthesizer("rms", sample_rate=8000)
    question = await asking.synthesize("Will it rain today?") + bytes(16_000)
    formats = {"/": HouseFormat(), "/phone": TwilioFormat()}
    answer = b""

    async with (
        assistant(formats=formats) as server,
        open_websocket_url(f"{server.url}/phone") as line,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(call, line, mulaw_from_pcm16(question))
        with trio.move_on_after(20) as quiet:
            while True:
                message = json.loads(await line.get_message())
                if message["event"] == "media":
                    answer += base64.b64decode(message["media"]["payload"])
                    quiet.deadline = trio.current_time() + 1.0
        nursery.cancel_scope.cancel()

    heard = pcm16_from_mulaw(answer)
    spoken = await recognizer_of(ANSWERS).transcribe(heard, sample_rate=8000)
    assert spoken.text == "it rains until four take an umbrella"


async def call(line: WebSocketConnection, codes: bytes) -> None:
    """Say something in the words of Twilio: 20 ms of mu-law in each message."""
    shape = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {"streamSid": "MZ1", "callSid": "CA1", "mediaFormat": shape}
    await line.send_message(json.dumps({"event": "connected", "protocol": "Call"}))
    await line.send_message(json.dumps({"event": "start", "streamSid": "MZ1", "start": start}))
    begin = trio.current_time()
    for number, at in enumerate(range(0, len(codes), 160)):
        await trio.sleep_until(begin + number * 0.02)
        payload = base64.b64encode(codes[at : at + 160]).decode()
        media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(number * 20)}
        message = {"event": "media", "streamSid": "MZ1", "media": media | {"payload": payload}}
        await line.send_message(json.dumps(message))
