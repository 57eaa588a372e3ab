"""A guard that sends a draft back until it is good enough.

The writer gets the verdict of the guard, so the next draft is not a blind guess.
What had been made of the old draft is taken back and made again.

Prints:
  draft: The delay is your own fault, obviously.
  refused: 'fault' is not polite
  draft: The delay is nobody's, obviously.
  refused: 'obviously' is not polite
  draft: We are sorry for the delay.
  sent: We are sorry for the delay.
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, StageOutput, stage
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy

DRAFTS = (
    "The delay is your own fault, obviously.",
    "The delay is nobody's, obviously.",
    "We are sorry for the delay.",
)


@stage
async def write(ctx: StageContext) -> dict[str, str]:
    verdict = ctx.guard_feedback.get("polite")
    if verdict is not None:
        print(f"refused: {verdict.error}")
    # A language model would be told what was wrong; this writer has three drafts.
    text = DRAFTS[ctx.attempt - 1]
    print(f"draft: {text}")
    return {"text": text}


@stage(kind="guard", after="write")
async def polite(ctx: StageContext) -> StageOutput:
    for word in ("fault", "obviously"):
        if word in ctx.inputs.get("text"):
            return StageOutput.fail(f"{word!r} is not polite")
    return StageOutput.ok()


@stage(after=("write", "polite"), join="all")
async def send(ctx: StageContext) -> None:
    print(f"sent: {ctx.inputs.get_from('write', 'text')}")


letter = Pipeline.from_stages(
    write,
    polite,
    send,
    name="letter",
    guard_retry_strategy=GuardRetryStrategy({"polite": GuardRetryPolicy("write", max_attempts=3)}),
)

if __name__ == "__main__":
    trio.run(letter.run)
