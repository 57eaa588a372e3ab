"""The record that stands for an event whose sink raised."""

from __future__ import annotations

import logging
from typing import Final

_logger: Final = logging.getLogger("actorflow.events")


def log_failure(type: str, error: Exception) -> None:
    """Log what a sink raised, because nobody else will hear of it."""
    _logger.warning(
        "event_emit_failed", extra={"event_type": type, "error": repr(error)}, exc_info=error
    )
