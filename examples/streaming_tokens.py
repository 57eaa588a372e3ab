"""Tokens that are spoken while the model is still writing.

The three stages run at the same time. Between them are bounded channels: a
speaker that is slow makes the model wait, and nothing piles up.

Prints:
  model: One
  model: word.
  speaker: One word.
  model: Then
  model: another.
  speaker: Then another.
  spoken: 2 sentences
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, stage


@stage
async def model(ctx: StageContext) -> None:
    for token in ("One", "word.", "Then", "another."):
        print(f"model: {token}")
        await ctx.send(token)
        await trio.sleep(0.05)


@stage(stream_from="model", stream_buffer=1)
async def sentences(ctx: StageContext) -> None:
    words: list[str] = []
    async for token in ctx.stream():
        words.append(token)
        if token.endswith("."):
            await ctx.send(" ".join(words))
            words.clear()


@stage(stream_from="sentences")
async def speaker(ctx: StageContext) -> dict[str, int]:
    spoken = 0
    async for sentence in ctx.stream():
        print(f"speaker: {sentence}")
        spoken += 1
    return {"sentences": spoken}


voice = Pipeline.from_stages(model, sentences, speaker, name="voice")


async def main() -> None:
    results = await voice.run("tell me something")
    print(f"spoken: {results.data('speaker')['sentences']} sentences")


if __name__ == "__main__":
    trio.run(main)
