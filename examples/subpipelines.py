"""A pipeline inside a stage of another one.

A child run has its own stages, events and end. When it fails, its parent decides
what that means; when the parent is cancelled, the child is cancelled first.

Prints:
  de: guten tag
  fr: bonjour
  xx: failed (stage 'translate' failed: LookupError: no dictionary for 'xx')
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, StageOutput, stage

DICTIONARIES = {"de": "Guten Tag", "fr": "Bonjour"}


@stage
async def translate(ctx: StageContext) -> dict[str, str]:
    language = ctx.snapshot.input_text or ""
    if language not in DICTIONARIES:
        raise LookupError(f"no dictionary for {language!r}")
    return {"text": DICTIONARIES[language]}


@stage(after="translate")
async def lower(ctx: StageContext) -> dict[str, str]:
    return {"text": ctx.inputs.get("text").lower()}


translation = Pipeline.from_stages(translate, lower, name="translation")


@stage
async def greet_everybody(ctx: StageContext) -> StageOutput:
    greetings: dict[str, str] = {}

    async def greet(language: str) -> None:
        child = await ctx.spawn_subpipeline(translation, language)
        # Without data there is an error; a child that fails raises nothing here.
        greetings[language] = (
            f"failed ({child.error})" if child.data is None else child.data["lower"]["text"]
        )

    # Several children at once; none of them outlives the stage.
    async with trio.open_nursery() as nursery:
        for language in ("de", "fr", "xx"):
            nursery.start_soon(greet, language)
    return StageOutput.ok(greetings)


greeting = Pipeline.from_stages(greet_everybody, name="greeting")


async def main() -> None:
    results = await greeting.run()
    for language, text in sorted(results.data("greet_everybody").items()):
        print(f"{language}: {text}")


if __name__ == "__main__":
    trio.run(main)
