"""The runs that are going on in this process, by id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from ._run import Run

# Single operations on a dict are atomic, so threads need no lock here.
_active: Final[dict[UUID, Run]] = {}


@contextmanager
def listed(run: Run) -> Iterator[None]:
    """Let a run be found for the length of the block."""
    run_id = run.context.pipeline_run_id
    assert run_id is not None, "a context that is running has an id"
    _active[run_id] = run
    try:
        yield
    finally:
        # Nothing keeps two contexts from having the same id.
        if _active.get(run_id) is run:
            del _active[run_id]


def find_run(run_id: UUID | None) -> Run | None:
    """The run with this id, while it is going on."""
    return None if run_id is None else _active.get(run_id)


def runs_below(parent: Run) -> Iterator[Run]:
    """The runs that this one has started, or that its stages have. For those who look at it."""
    return (run for run in tuple(_active.values()) if run.parent is parent)
