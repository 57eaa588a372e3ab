"""Telling those who want to know, whatever they do about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, final

from actorflow.errors import InvalidDiagnosticsError
from actorflow.events import EventSink

T = TypeVar("T")

log: Final = logging.getLogger("actorflow.diagnostics")


@final
class Listeners(Generic[T]):
    """Functions that are called one after the other with each piece of news."""

    def __init__(self, listeners: Iterable[Callable[[T], object]]) -> None:
        self._listeners: list[Callable[[T], object]] = []
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Callable[[T], object]) -> None:
        if not callable(listener):
            raise InvalidDiagnosticsError("listener", listener, "a function of one argument")
        self._listeners.append(listener)

    def tell(self, news: T) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(news)
            except Exception as error:
                log.warning(
                    "diagnostics_listener_failed",
                    extra={"listener": repr(listener), "error": repr(error)},
                    exc_info=error,
                )


def emit(sink: EventSink | None, type: str, data: Mapping[str, Any]) -> None:
    """Hand an event to a sink that may be there; what it raises goes no further."""
    if sink is None:
        return
    try:
        sink.try_emit(type=type, data=data)
    except Exception as error:
        log.warning(
            "event_emit_failed", extra={"event_type": type, "error": repr(error)}, exc_info=error
        )


def at_least(argument: str, found: float, least: float) -> None:
    """Refuse a number that is too small, or none at all.

    Raises:
      InvalidDiagnosticsError: naming the argument.
    """
    if isinstance(found, bool) or not isinstance(found, int | float) or not found >= least:
        raise InvalidDiagnosticsError(argument, found, f"a number from {least} on")
