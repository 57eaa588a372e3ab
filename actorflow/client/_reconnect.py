from __future__ import annotations

from random import Random
from typing import Final, final

import attrs

from actorflow.backoff import BackoffStrategy, JitterStrategy, compute_delay_ms
from actorflow.errors import (
    ActorflowError,
    ConnectionLostError,
    ResumeRefusedError,
    SessionClosedError,
)
from actorflow.protocol import CloseCode

# Whoever closes with another code would do so again, or has ended the session.
_WORTH_ANOTHER_TRY: Final = frozenset({1006, CloseCode.HEARTBEAT})


@final
@attrs.frozen
class Reconnect:
    """How often and when to try again after a connection was lost."""

    max_attempts: int = 8
    """Tries in a row without success; 0 gives up at once."""
    base_delay_ms: int = 200
    max_delay_ms: int = 5000
    random: Random | None = None
    """The dice for the jitter; seeded ones make the delays reproducible."""

    def delay(self, attempt: int) -> float:
        """Seconds to wait before try `attempt`, counted from 0."""
        delay_ms = compute_delay_ms(
            attempt,
            strategy=BackoffStrategy.EXPONENTIAL,
            jitter=JitterStrategy.EQUAL,
            base_delay_ms=self.base_delay_ms,
            max_delay_ms=self.max_delay_ms,
            random=self.random,
        )
        return delay_ms / 1000


@final
@attrs.frozen
class Verdict:
    """What the end of a connection means for the session."""

    is_over: bool
    error: ActorflowError | None = None
    """What the user of the session is told; None if it ended in order."""


def verdict_on(lost: ActorflowError, failures: int, max_attempts: int) -> Verdict:
    """Whether the session is over, after so many tries in a row that failed."""
    match lost:
        case ConnectionLostError(close_code=code) if code in _WORTH_ANOTHER_TRY:
            if failures < max_attempts:
                return Verdict(is_over=False)
            if not max_attempts:
                return Verdict(is_over=True, error=lost)
            gone = f"the connection was lost and {failures} tries to restore it failed"
            return Verdict(is_over=True, error=SessionClosedError(code, gone))
        case ConnectionLostError(close_code=CloseCode.NORMAL):
            return Verdict(is_over=True)
        case ConnectionLostError(close_code=CloseCode.RESUME_REFUSED):
            return Verdict(is_over=True, error=ResumeRefusedError())
        case ConnectionLostError(close_code=code, reason=reason):
            return Verdict(is_over=True, error=SessionClosedError(code, reason))
        case _:
            return Verdict(is_over=True, error=lost)
