"""The sink of the moment: one context variable, inherited by tasks started later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ._sink import EventSink, NoOpEventSink, checked_sink

_current: ContextVar[EventSink | None] = ContextVar("actorflow_event_sink", default=None)


def set_event_sink(sink: EventSink) -> None:
    """Make `sink` the current one, here and in tasks started from now on.

    Parents and siblings keep theirs. `event_sink_scope` undoes itself, so prefer
    it wherever there is a block to put it around.
    """
    _current.set(checked_sink("sink", sink))


def clear_event_sink() -> None:
    """Forget the current sink, if there is one."""
    _current.set(None)


def current_event_sink() -> EventSink | None:
    """The sink that was set, or None."""
    return _current.get()


def get_event_sink() -> EventSink:
    """The sink that was set, or a new `NoOpEventSink`."""
    sink = _current.get()
    return NoOpEventSink() if sink is None else sink


@contextmanager
def event_sink_scope(sink: EventSink) -> Iterator[EventSink]:
    """Make `sink` the current one for a block, however the block is left."""
    before = _current.get()
    _current.set(checked_sink("sink", sink))
    try:
        yield sink
    finally:
        # Not `reset(token)`: that refuses to work when a fixture or a generator
        # is closed from another context than the one that opened it.
        _current.set(before)


async def emit_event(*, type: str, data: Mapping[str, Any] | None) -> None:
    """Emit through the current sink, waiting for room when it has none."""
    await get_event_sink().emit(type=type, data=data)
