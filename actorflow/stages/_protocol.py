"""What a pipeline runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from actorflow.model import StageKind, StageOutput

from ._stage_context import StageContext


@runtime_checkable
class Stage(Protocol):
    """One step of a pipeline as an object."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> StageKind: ...

    async def execute(self, ctx: StageContext) -> StageOutput | Mapping[str, Any] | None:
        """Do the work; a mapping stands for `StageOutput.ok(mapping)`, None for `ok()`."""
        ...
