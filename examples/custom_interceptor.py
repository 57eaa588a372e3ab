"""An interceptor of your own: answers that are known already are not asked for again.

`before` may answer instead of the stage, `after` sees what came of it. One object
serves all calls, also at the same time.

Prints:
  hello -> bonjour (asked)
  hello -> bonjour (remembered)
  the dictionary was asked once
"""

from __future__ import annotations

from typing import Any, final

import trio

from actorflow import Pipeline, StageContext, stage
from actorflow.interceptors import BaseInterceptor, InterceptorResult, get_default_interceptors
from actorflow.stages import StageResult

lookups: list[str] = []


@stage
async def translate(ctx: StageContext) -> dict[str, str]:
    word = ctx.snapshot.input_text or ""
    lookups.append(word)
    return {"text": {"hello": "bonjour"}[word]}


@final
class Memory(BaseInterceptor):
    """Remembers what a stage made of a text."""

    name = "memory"
    priority = 30

    def __init__(self, *stages: str) -> None:
        super().__init__(stages=stages)
        self._known: dict[str, Any] = {}

    async def before(self, stage_name: str, ctx: Any) -> InterceptorResult | None:
        known = self._known.get(ctx.snapshot.input_text)
        return None if known is None else InterceptorResult(stage_ran=False, result=known)

    async def after(self, stage_name: str, result: StageResult, ctx: Any) -> None:
        if result.status == "completed":
            self._known[ctx.snapshot.input_text] = result.data


# A graph keeps its interceptors, and so what they remember, from run to run.
translation = Pipeline.from_stages(translate, name="translation").build(
    interceptors=[*get_default_interceptors(), Memory("translate")]
)


async def main() -> None:
    for _ in range(2):
        results = await translation.run("hello")
        remembered = results.stage_results["translate"].short_circuited_by is not None
        how = "remembered" if remembered else "asked"
        print(f"hello -> {results.data('translate')['text']} ({how})")
    print("the dictionary was asked", "once" if len(lookups) == 1 else "twice")


if __name__ == "__main__":
    trio.run(main)
