"""What a run begins with."""

from __future__ import annotations

from typing import TypeAlias

from actorflow.errors import InvalidTypeError
from actorflow.model import ContextSnapshot
from actorflow.stages import PipelineContext

Source: TypeAlias = PipelineContext | ContextSnapshot | str | None
"""A context, the snapshot or the text to make one from, or nothing."""


def context_for(source: Source, topology: str) -> PipelineContext:
    """The context of a run that begins with `source`.

    Raises:
      InvalidTypeError: for anything that is no source.
    """
    if isinstance(source, PipelineContext):
        return source
    if isinstance(source, ContextSnapshot):
        return PipelineContext.from_snapshot(source)
    if source is None or isinstance(source, str):
        return PipelineContext(input_text=source, topology=topology)
    raise InvalidTypeError("source", source, "a PipelineContext, a ContextSnapshot, a text or None")
