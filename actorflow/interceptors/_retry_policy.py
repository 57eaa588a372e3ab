"""Whether a failure is worth another try, and when. Pure: the clock and the dice come in."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from random import Random
from typing import Any, Final, TypeAlias, final

import attrs
import trio

from actorflow.backoff import BackoffStrategy, JitterStrategy, compute_delay_ms
from actorflow.errors import (
    CriticalInterceptorError,
    InvalidArgumentError,
    InvalidTypeError,
    RefusedError,
    StageFailedError,
    StageRetryRequested,
    TransientError,
)

ErrorClasses: TypeAlias = tuple[type[BaseException], ...]

RETRY_ON: Final[ErrorClasses] = (
    TransientError,
    TimeoutError,
    trio.TooSlowError,
    ConnectionError,
    trio.BrokenResourceError,
    OSError,
)
NEVER_RETRY_ON: Final[ErrorClasses] = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
# Nobody can ask for these to be tried again.
_FINAL: Final[ErrorClasses] = (CriticalInterceptorError, RefusedError)


def _as_classes(value: Iterable[type[BaseException]] | type[BaseException]) -> ErrorClasses:
    return (value,) if isinstance(value, type) else tuple(value)


def _check_classes(_: object, field: attrs.Attribute[Any], value: ErrorClasses) -> None:
    for item in value:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise InvalidTypeError(field.name, item, "a class of exceptions")


def _check_delay(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(field.name, value, "whole milliseconds")
    if value < 0:
        raise InvalidArgumentError(field.name, value, "0 or more milliseconds")


@final
@attrs.frozen
class RetryPolicy:
    """What is tried again, how often, and how long to wait between the tries."""

    max_attempts: int = attrs.field(default=3)
    """Executions, the first included."""
    base_delay_ms: int = attrs.field(default=1000, validator=_check_delay)
    max_delay_ms: int = attrs.field(default=30_000, validator=_check_delay)
    backoff_strategy: BackoffStrategy = attrs.field(
        default=BackoffStrategy.EXPONENTIAL, converter=BackoffStrategy
    )
    jitter_strategy: JitterStrategy = attrs.field(
        default=JitterStrategy.FULL, converter=JitterStrategy
    )
    retry_on: ErrorClasses = attrs.field(
        default=RETRY_ON, converter=_as_classes, validator=_check_classes
    )
    never_retry_on: ErrorClasses = attrs.field(
        default=NEVER_RETRY_ON, converter=_as_classes, validator=_check_classes
    )
    max_elapsed_ms: float | None = attrs.field(default=None)
    """No wait goes beyond this time after the first try began."""

    @max_attempts.validator
    def _check_attempts(self, _: object, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidTypeError("max_attempts", value, "a whole number")
        if value < 1:
            raise InvalidArgumentError("max_attempts", value, "1 or more executions")

    @max_elapsed_ms.validator
    def _check_elapsed(self, _: object, value: float | None) -> None:
        if value is not None and not value > 0:
            raise InvalidArgumentError("max_elapsed_ms", value, "more than 0 milliseconds, or None")

    def wants_again(self, error: BaseException, statuses: Collection[str] = ("retry",)) -> bool:
        """Whether a failure is of the kind that is tried again.

        `statuses` says whether outputs with status RETRY are.
        """
        if isinstance(error, StageFailedError):
            return bool(error.output.retryable)
        if isinstance(error, StageRetryRequested):
            return "retry" in statuses and bool(error.output.retryable)
        if isinstance(error, _FINAL):
            return False
        if isinstance(error, BaseExceptionGroup):
            return all(self.wants_again(member, statuses) for member in error.exceptions)
        return isinstance(error, self.retry_on) and not isinstance(error, self.never_retry_on)


@final
@attrs.frozen
class Again:
    """Another try, after a delay."""

    delay_ms: int


@final
@attrs.frozen
class GiveUp:
    """No further try, although the failure is of the kind that is tried again."""

    why: str
    """`max_attempts`, `max_elapsed`, `deadline` or `stream_started`."""


Decision: TypeAlias = Again | GiveUp | None


def decide(
    policy: RetryPolicy,
    error: Exception,
    *,
    failures: int,
    elapsed_ms: float = 0.0,
    time_left_ms: float = math.inf,
    previous_ms: int | None = None,
    has_sent: bool = False,
    statuses: Collection[str] = ("retry",),
    random: Random | None = None,
) -> Decision:
    """What follows on failure number `failures` of a call; None if it is of no kind to repeat.

    Args:
      elapsed_ms: since the first try began.
      time_left_ms: until the deadline of whatever the call happens in.
      previous_ms: the delay before this one.
      has_sent: whether others may have read already what the call has sent.
    """
    if not policy.wants_again(error, statuses):
        return None
    if has_sent:
        return GiveUp("stream_started")
    if failures >= policy.max_attempts:
        return GiveUp("max_attempts")
    delay_ms = compute_delay_ms(
        failures - 1,
        strategy=policy.backoff_strategy,
        jitter=policy.jitter_strategy,
        base_delay_ms=policy.base_delay_ms,
        max_delay_ms=policy.max_delay_ms,
        previous_ms=previous_ms,
        random=random,
    )
    delay_ms = max(delay_ms, _asked_for_ms(error))
    if policy.max_elapsed_ms is not None and elapsed_ms + delay_ms > policy.max_elapsed_ms:
        return GiveUp("max_elapsed")
    if delay_ms >= time_left_ms:
        return GiveUp("deadline")
    return Again(delay_ms)


def _asked_for_ms(error: BaseException) -> int:
    """The shortest delay that whoever failed has asked for."""
    if isinstance(error, BaseExceptionGroup):
        return max(map(_asked_for_ms, error.exceptions))
    if isinstance(error, StageFailedError | StageRetryRequested):
        asked = error.output.data.get("retry_after_ms")
    else:
        in_seconds = getattr(error, "retry_after", None)
        asked = in_seconds * 1000 if isinstance(in_seconds, int | float) else None
    if isinstance(asked, int | float) and 0 < asked < math.inf:
        return math.ceil(asked)
    return 0
