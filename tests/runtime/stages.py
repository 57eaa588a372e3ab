"""Stages that many tests of runs need."""

from __future__ import annotations

from typing import Any

import trio

from actorflow.pipeline import StageSpec


def spec(name: str, runner: Any, *after: Any, **options: Any) -> StageSpec:
    return StageSpec(name, runner, dependencies=after, **options)


async def nothing(ctx: object) -> None: ...


async def forever(ctx: object) -> None:
    await trio.sleep_forever()
