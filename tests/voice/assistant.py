"""A small assistant to talk to, and what it remembers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from actorflow.memory import InMemoryStore, MemoryConfig
from actorflow.pipeline import Pipeline, stage
from actorflow.providers import SpeechDetector
from actorflow.stages import StageContext
from actorflow.testing import (
    MockTTSProvider,
    ScriptedDetector,
    ScriptedRecognizer,
    speech_audio,
)
from actorflow.voice import SpeakStage, TranscribeStage, VoiceApp

# Each character of an answer plays for 20 ms.
BYTES_PER_CHARACTER = 640
SILENCE = bytes(640)


async def parrot(ctx: StageContext) -> None:
    """Two sentences of 400 and 300 ms, for what has three letters."""
    await ctx.send(f"You have said {ctx.inputs.get('text')}. ")
    await ctx.send("What else is it")


def answering(answer: Callable[[StageContext], Awaitable[Any]]) -> Pipeline:
    """Listen, answer, speak."""
    return Pipeline.from_stages(
        stage("listen", TranscribeStage(ScriptedRecognizer())),
        stage("answer", answer, after="listen"),
        stage("speak", SpeakStage(voice()), stream_from="answer"),
        name="assistant",
    )


def voice(**options: Any) -> MockTTSProvider:
    """It speaks at once, so that only playing takes time."""
    return MockTTSProvider(**{"bytes_per_char": BYTES_PER_CHARACTER, "latency_ms": 0} | options)


def assistant(
    answer: Callable[[StageContext], Awaitable[Any]] = parrot,
    *,
    detector: Callable[[], SpeechDetector] = ScriptedDetector,
    **options: Any,
) -> VoiceApp:
    """An assistant that hears what `ScriptedMic` and `spoken` say."""
    return VoiceApp(answering(answer), says="speak", detector=detector, **options)


def spoken(text: str, seconds: float = 0.5, pause: float = 0.8) -> list[bytes]:
    """Speech with a pause behind it, in pieces of 20 ms."""
    audio = speech_audio(text, seconds) + SILENCE * round(pause * 50)
    return [audio[at : at + 640] for at in range(0, len(audio), 640)]


async def remembered(store: InMemoryStore, session_id: str) -> list[tuple[str, str, bool]]:
    """Role, content, and whether it was broken off, of what is remembered of a session."""
    entries = await store.fetch(session_id, MemoryConfig(max_entries=0, max_tokens=0))
    return [(it.role, it.content, it.metadata.get("interrupted", False)) for it in entries]
