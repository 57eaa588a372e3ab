"""An event sink of your own: how long stages take, told when one is slow.

A sink has two methods. `emit` may wait, `try_emit` may not; what either raises is
logged and does not hurt the run. `takes` is optional: events that nobody takes
are never built.

Prints:
  slow took longer than 200 ms
  2 stages in all
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import trio

from actorflow import Pipeline, StageContext, stage


@final
class SlowStages:
    """Tells which stages take longer than a limit."""

    def __init__(self, limit_ms: float) -> None:
        self.seen = 0
        self._limit_ms = limit_ms

    def takes(self, type: str) -> bool:
        return type == "stage.completed"

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        # A sink may be asked although it does not take the type.
        if data is not None and self.takes(type):
            self.seen += 1
            if data["duration_ms"] > self._limit_ms:
                print(f"{data['stage']} took longer than {self._limit_ms} ms")
        return True


async def quick(ctx: StageContext) -> None: ...


async def slow(_: StageContext) -> None:
    await trio.sleep(0.3)


pipeline = Pipeline.from_stages(stage("quick", quick), stage("slow", slow, after="quick"))


async def main() -> None:
    sink = SlowStages(limit_ms=200)
    await pipeline.run(event_sink=sink)
    print(f"{sink.seen} stages in all")


if __name__ == "__main__":
    trio.run(main)
