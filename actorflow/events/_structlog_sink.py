"""Events as structlog entries."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, final

import structlog

from ._logging_sink import log_level

# Keys that structlog, or whoever reads its entries, uses for itself.
_TAKEN: Final = {
    "event": "data_event",
    "level": "data_level",
    "logger": "data_logger",
    "timestamp": "event_timestamp",
}

# The first pattern that fits decides.
_LEVELS: Final = (
    *((pattern, logging.WARNING) for pattern in ("*.failed", "*_failed")),
    *((pattern, logging.WARNING) for pattern in ("*.exhausted", "*_exhausted")),
    *((pattern, logging.WARNING) for pattern in ("guardrail.*", "*_warning", "uuid.*")),
    ("stream.*", logging.DEBUG),
    ("memory.sample", logging.DEBUG),
)


@final
class StructlogEventSink:
    """Logs each event: the type is the message, the payload the key-values.

    Failures and warnings are logged as warnings, streams and samples for
    debugging, everything else as information. `levels` maps beginnings of types
    to other levels; the longest one that fits decides.
    """

    def __init__(
        self, logger: Any = None, *, levels: Mapping[str, int | str] | None = None
    ) -> None:
        self._logger = structlog.get_logger("actorflow.events") if logger is None else logger
        self._levels = {
            prefix: log_level(level)
            for prefix, level in sorted((levels or {}).items(), key=lambda it: -len(it[0]))
        }

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Log an event."""
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Log an event."""
        entry = {_TAKEN.get(key, key): value for key, value in (data or {}).items()}
        self._logger.log(self._level(type), type, **entry)

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Log an event; there is always room."""
        self.try_emit(type=type, data=data)
        return True

    def _level(self, type: str) -> int:
        for prefix, level in self._levels.items():
            if type.startswith(prefix):
                return level
        return next((level for shape, level in _LEVELS if fnmatchcase(type, shape)), logging.INFO)
