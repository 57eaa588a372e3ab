"""Events as records of the standard library's logging."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, final

from actorflow.errors import InvalidEventSinkError

_logger: Final = logging.getLogger("actorflow.events")


def log_level(level: int | str) -> int:
    """Return the number of a log level given by number or name.

    Raises:
      InvalidEventSinkError: if there is no such level.
    """
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise InvalidEventSinkError("level", level, "the number or the name of a log level")


@final
class LoggingEventSink:
    """Writes each event to the logger `actorflow.events`.

    The type and the payload are in the record too, as `event_type` and `event_data`.
    """

    def __init__(self, *, level: int | str = logging.INFO) -> None:
        self._level = log_level(level)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Log an event."""
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Log an event."""
        if self.takes(type):
            _logger.log(
                self._level, "Event: %s", type, extra={"event_type": type, "event_data": data}
            )

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Log an event; there is always room."""
        self.try_emit(type=type, data=data)
        return True

    def takes(self, type: str) -> bool:
        """Whether the logger is interested in the level."""
        return _logger.isEnabledFor(self._level)
