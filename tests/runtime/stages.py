"""What many tests of runs need: a few stages, and how many random runs there shall be."""

from __future__ import annotations

import os
from typing import Any, Final

import trio

from actorflow.pipeline import StageSpec

PROGRAMS: Final = int(os.environ.get("ACTORFLOW_PROGRAMS", "150"))
"""The gate runs few; ``ACTORFLOW_PROGRAMS=10000`` runs many, with ``-o faulthandler_timeout=0``."""


def spec(name: str, runner: Any, *after: Any, **options: Any) -> StageSpec:
    return StageSpec(name, runner, dependencies=after, **options)


async def nothing(ctx: object) -> None: ...


async def forever(ctx: object) -> None:
    await trio.sleep_forever()
