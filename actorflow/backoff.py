"""How long to wait before the next try. Pure: the last delay and the dice come in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random, SystemRandom
from typing import final

from actorflow._choice import Choice
from actorflow.errors import InvalidArgumentError

# Without a state of its own, or forked processes would come back all at once.
_dice: Random = SystemRandom()


@final
class BackoffStrategy(Choice):
    """How the delay grows from try to try."""

    EXPONENTIAL = "exponential"
    LINEAR = "linear"
    CONSTANT = "constant"


@final
class JitterStrategy(Choice):
    """How the delay is spread, so that many callers do not come back at once."""

    NONE = "none"
    FULL = "full"
    EQUAL = "equal"
    DECORRELATED = "decorrelated"


def compute_delay_ms(
    attempt: int,
    *,
    strategy: BackoffStrategy | str,
    jitter: JitterStrategy | str,
    base_delay_ms: int,
    max_delay_ms: int,
    previous_ms: int | None = None,
    random: Random | None = None,
) -> int:
    """Milliseconds to wait after failure `attempt`, the first failure being 0.

    Args:
      previous_ms: the delay before this one, for decorrelated jitter; None
        for the first.
      random: the dice; a seeded one makes the delays reproducible.

    Raises:
      InvalidArgumentError: if a number is negative or a strategy unknown.
    """
    for name, number in (
        ("attempt", attempt),
        ("base_delay_ms", base_delay_ms),
        ("max_delay_ms", max_delay_ms),
        ("previous_ms", previous_ms or 0),
    ):
        if number < 0:
            raise InvalidArgumentError(name, number, "0 or more")
    raw = _raw(BackoffStrategy(strategy), attempt, base_delay_ms, max_delay_ms)
    capped = min(raw, max_delay_ms)
    dice = random or _dice
    kind = JitterStrategy(jitter)
    if kind is JitterStrategy.FULL:
        return dice.randint(0, capped)
    if kind is JitterStrategy.EQUAL:
        return capped // 2 + dice.randint(0, capped // 2)
    if kind is JitterStrategy.DECORRELATED:
        previous = base_delay_ms if previous_ms is None else previous_ms
        longest = max(base_delay_ms, previous * 3)
        return min(max_delay_ms, dice.randint(base_delay_ms, longest))
    return capped


def _raw(strategy: BackoffStrategy, attempt: int, base: int, cap: int) -> int:
    if strategy is BackoffStrategy.EXPONENTIAL:
        # Doubling 1 as often as the cap has bits already exceeds the cap, so
        # the millionth try needs no million-bit number.
        return base << min(attempt, cap.bit_length())
    if strategy is BackoffStrategy.LINEAR:
        return base * (attempt + 1)
    return base


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give the same delays in the same order inside the block, in every process.

    For tests. Blocks nest; leaving one brings the dice from before back.
    """
    global _dice  # noqa: PLW0603 - swapping them is the purpose
    outer = _dice
    _dice = Random(seed)  # noqa: S311 - reproducible is what is asked for here
    try:
        yield
    finally:
        _dice = outer
