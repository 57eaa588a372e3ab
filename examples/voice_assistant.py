"""An assistant that is spoken to and answers aloud, without a network.

It needs the extra `voice` and the program flite. Serve it, and talk to it from
another terminal:

  actorflow serve examples/voice_assistant.py
  flite -voice rms "Tell me a story." question.wav
  actorflow talk ws://127.0.0.1:8000 --wav question.wav --out answer.wav

Run as a program, it calls itself.

Prints:
  heard: will it rain today
  said: It rains until four.
  said: Take an umbrella.
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, stage
from actorflow.client import ClientSession, open_session
from actorflow.integrations import (
    FliteSynthesizer,
    PocketsphinxRecognizer,
    Resampler,
    SileroDetector,
)
from actorflow.memory import InMemoryStore
from actorflow.protocol import ReplyText, Transcript, TurnCompleted
from actorflow.server import open_server
from actorflow.voice import SpeakStage, TranscribeStage, VoiceApp

ANSWERS = {
    "will it rain today": "It rains until four. Take an umbrella.",
    "what can you do": "I know when it rains. I can tell you a story.",
    "tell me a story": "There was a king who built a tower. Every day it grew a little. "
    "One day he looked down, and could not see his people any more. So he came down again.",
    "stop": "Good.",
}


@stage(after="listen")
async def answer(ctx: StageContext) -> None:
    asked = ctx.inputs.get("text").lower().strip(" .?!")
    await ctx.send(ANSWERS.get(asked, "Please ask me something else."))


memory = InMemoryStore()
app = VoiceApp(
    Pipeline.from_stages(
        stage("listen", TranscribeStage(PocketsphinxRecognizer.for_phrases(ANSWERS))),
        answer,
        stage("speak", SpeakStage(FliteSynthesizer()), stream_from="answer"),
        name="assistant",
    ),
    says="speak",
    detector=SileroDetector,
    memory=memory,
    resample=Resampler,
)


async def ask(session: ClientSession, question: str) -> None:
    second_of_silence = bytes(32_000)
    await session.speak(await FliteSynthesizer("rms").synthesize(question) + second_of_silence)


async def main() -> None:
    async with (
        open_server(app) as server,
        open_session(server.url) as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, session, "Will it rain today?")
        async for message in session:
            match message:
                case Transcript(text=text):
                    print(f"heard: {text}")
                case ReplyText(delta=text) if text:
                    print(f"said: {text.strip()}")
                case TurnCompleted():
                    break


if __name__ == "__main__":
    trio.run(main)
