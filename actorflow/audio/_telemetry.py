"""Reports of queues and buffers, which must never hurt the audio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final, final

from actorflow.errors import InvalidAudioError

EventEmitter = Callable[[str, dict[str, Any]], Any]
"""Takes the type and the payload of an event, such as `ctx.try_emit_event`."""

_logger: Final = logging.getLogger("actorflow.audio")


@final
class Telemetry:
    """Hands events to an emitter and keeps whatever it does away from the caller.

    An emitter may use the queue that it hears about. What that would report is
    left out while an event of the same type is being emitted, or it would never
    end.
    """

    __slots__ = ("_emitter", "_failed", "_under_way")

    def __init__(self, emitter: EventEmitter | None) -> None:
        if emitter is not None and (not callable(emitter) or iscoroutinefunction(emitter)):
            expected = "a function of a type and a payload that is not async"
            raise InvalidAudioError("event_emitter", emitter, expected)
        self._emitter = emitter
        self._under_way: set[str] = set()
        self._failed: set[str] = set()

    def is_emitting(self, type: str) -> bool:
        """Whether an event of this type is just being handed over."""
        return type in self._under_way

    def emit(self, type: str, data: Mapping[str, Any]) -> None:
        """Report an event, after the state has changed."""
        if self._emitter is None or type in self._under_way:
            return
        self._under_way.add(type)
        try:
            self._emitter(type, dict(data))
        except Exception as error:  # noqa: BLE001 - emitters are user code
            self._log(type, error)
        finally:
            self._under_way.discard(type)

    def _log(self, type: str, error: Exception) -> None:
        if type not in self._failed:
            self._failed.add(type)
            _logger.debug(
                "audio_event_failed",
                extra={"event_type": type, "error": repr(error)},
                exc_info=error,
            )
