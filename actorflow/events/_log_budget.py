"""Log records about events that went wrong, but not one for each of a million."""

from __future__ import annotations

import logging
import math
from typing import final

import attrs

from actorflow import clock


@final
@attrs.define
class LogBudget:
    """How many records may be written within a window of time.

    What is left out is counted, and the next record says how many there were.
    """

    limit: int = 10
    window: float = 1.0
    suppressed: int = 0
    _opened: float = -math.inf
    _written: int = 0

    def spend(self, now: float) -> int | None:
        """Return how many records were left out before this one, or None to leave it out too."""
        if now - self._opened >= self.window:
            self._opened, self._written = now, 0
        elif self._written >= self.limit:
            self.suppressed += 1
            return None
        self._written += 1
        left_out, self.suppressed = self.suppressed, 0
        return left_out


@final
class BudgetedLog:
    """One message at one level, written within a budget."""

    def __init__(self, logger: logging.Logger, level: int, message: str) -> None:
        self._logger = logger
        self._level = level
        self._message = message
        self._budget = LogBudget()

    def write(self, cause: BaseException | None = None, /, **extra: object) -> None:
        """Write a record with these extra keys, or count it."""
        suppressed = self._budget.spend(clock.monotonic())
        if suppressed is not None:
            self._logger.log(
                self._level,
                self._message,
                extra={**extra, "suppressed": suppressed},
                exc_info=cause,
            )

    def settle(self) -> None:
        """Tell what was left out and would not be told, because no record follows."""
        if self._budget.suppressed:
            suppressed, self._budget.suppressed = self._budget.suppressed, 0
            self._logger.log(self._level, self._message, extra={"suppressed": suppressed})
