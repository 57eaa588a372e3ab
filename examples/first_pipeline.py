"""A first pipeline: three stages, two of which run at the same time.

`actorflow run examples/first_pipeline.py --input "a short story"` runs it too.

Prints:
  3 words, 13 letters and blanks
  the two counts ran side by side: True
"""

from __future__ import annotations

import trio

from actorflow import Pipeline, StageContext, stage


@stage
async def words(ctx: StageContext) -> dict[str, int]:
    await trio.sleep(0.5)
    return {"words": len((ctx.snapshot.input_text or "").split())}


@stage
async def letters(ctx: StageContext) -> dict[str, int]:
    await trio.sleep(0.5)
    return {"letters": len(ctx.snapshot.input_text or "")}


@stage(after=("words", "letters"))
async def report(ctx: StageContext) -> dict[str, str]:
    return {
        "text": f"{ctx.inputs.get('words')} words, {ctx.inputs.get('letters')} letters and blanks"
    }


counting = Pipeline.from_stages(words, letters, report, name="counting")


async def main() -> None:
    start = trio.current_time()
    results = await counting.run("a short story")
    seconds = trio.current_time() - start
    print(results.data("report")["text"])
    print("the two counts ran side by side:", seconds < 0.9)


if __name__ == "__main__":
    trio.run(main)
