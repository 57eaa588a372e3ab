"""One of several ways, chosen by a stage: what is not chosen is skipped.

Prints:
  Where is my invoice? -> It is on its way.
    skipped: chat
  How are you? -> Fine, and you?
    skipped: look_up
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, edge, stage


@stage(kind="route")
async def route(ctx: StageContext) -> dict[str, str]:
    asks_for_invoice = "invoice" in (ctx.snapshot.input_text or "")
    return {"branch": "billing" if asks_for_invoice else "smalltalk"}


@stage(after=edge("route", when="billing"))
async def look_up(_: StageContext) -> dict[str, str]:
    return {"reply": "It is on its way."}


@stage(after=edge("route", when="smalltalk"))
async def chat(_: StageContext) -> dict[str, str]:
    return {"reply": "Fine, and you?"}


# One live edge is enough: this runs after whichever branch was taken.
@stage(after=("look_up", "chat"))
async def answer(ctx: StageContext) -> dict[str, str]:
    return {"said": ctx.inputs.get("reply")}


support = Pipeline.from_stages(route, look_up, chat, answer, name="support")


async def main() -> None:
    for question in ("Where is my invoice?", "How are you?"):
        results = await support.run(question)
        print(f"{question} -> {results.data('answer')['said']}")
        print(f"  skipped: {', '.join(results.skipped())}")


if __name__ == "__main__":
    trio.run(main)
