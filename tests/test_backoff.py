from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.backoff import BackoffStrategy, JitterStrategy, compute_delay_ms, seeded
from actorflow.errors import InvalidArgumentError


def delays(tries: int, strategy: str, jitter: str = "none", **options: Any) -> list[int]:
    options = {"base_delay_ms": 1000, "max_delay_ms": 30_000} | options
    return [compute_delay_ms(a, strategy=strategy, jitter=jitter, **options) for a in range(tries)]


@pytest.mark.spec("30.13.1")
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("exponential", [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]),
        ("linear", [1000, 2000, 3000, 4000, 5000, 6000, 7000]),
        ("constant", [1000] * 7),
    ],
)
def test_delays_grow_as_the_table_says(strategy: str, expected: list[int]) -> None:
    assert delays(7, strategy) == expected


@pytest.mark.spec("30.13.1")
def test_delays_end_at_the_largest() -> None:
    assert delays(3, "exponential", base_delay_ms=10_000, max_delay_ms=15_000)[2] == 15_000


class Dice(Random):
    """Always throws the lowest or the highest, and says what was asked of it."""

    def __init__(self, *, high: bool) -> None:
        super().__init__(0)
        self.high = high
        self.asked: list[tuple[int, int]] = []

    def randint(self, a: int, b: int) -> int:
        self.asked.append((a, b))
        return b if self.high else a


@pytest.mark.spec("30.13.1")
@pytest.mark.parametrize(
    ("jitter", "base", "cap", "previous", "asked", "low", "high"),
    [
        ("full", 1000, 1999, None, (0, 1999), 0, 1999),
        ("full", 1000, 30_000, None, (0, 2000), 0, 2000),
        ("equal", 1000, 1000, None, (0, 500), 500, 1000),
        ("equal", 1000, 1001, None, (0, 500), 500, 1000),
        ("decorrelated", 1000, 30_000, None, (1000, 3000), 1000, 3000),
        ("decorrelated", 1000, 5_000, 2000, (1000, 6000), 1000, 5000),
        ("decorrelated", 1000, 30_000, 10, (1000, 1000), 1000, 1000),
        ("decorrelated", 1000, 30_000, 0, (1000, 1000), 1000, 1000),
    ],
)
def test_jitter_spreads_as_the_table_says(
    jitter: str,
    base: int,
    cap: int,
    previous: int | None,
    asked: tuple[int, int],
    low: int,
    high: int,
) -> None:
    for dice, expected in ((Dice(high=False), low), (Dice(high=True), high)):
        delay = compute_delay_ms(
            1,
            strategy="linear",
            jitter=jitter,
            base_delay_ms=base,
            max_delay_ms=cap,
            previous_ms=previous,
            random=dice,
        )

        assert delay == expected
        assert dice.asked == [asked]


strategies = st.sampled_from(BackoffStrategy)
jitters = st.sampled_from(JitterStrategy)
milliseconds = st.integers(0, 100_000)


@pytest.mark.spec("30.13.1")
@given(
    st.integers(0, 100),
    strategies,
    jitters,
    milliseconds,
    milliseconds,
    st.none() | milliseconds,
    st.integers(),
)
def test_delays_are_whole_within_bounds_and_reproducible(
    attempt: int,
    strategy: BackoffStrategy,
    jitter: JitterStrategy,
    base: int,
    cap: int,
    previous: int | None,
    seed: int,
) -> None:
    def delay() -> int:
        return compute_delay_ms(
            attempt,
            strategy=strategy,
            jitter=jitter,
            base_delay_ms=base,
            max_delay_ms=cap,
            previous_ms=previous,
            random=Random(seed),
        )

    assert type(delay()) is int
    assert 0 <= delay() <= cap
    assert delay() == delay()


@pytest.mark.spec("30.13.1")
@given(st.integers(0, 60), milliseconds, milliseconds)
def test_exponential_is_the_power_of_two_it_says(attempt: int, base: int, cap: int) -> None:
    delay = compute_delay_ms(
        attempt, strategy="exponential", jitter="none", base_delay_ms=base, max_delay_ms=cap
    )

    assert delay == min(base * 2**attempt, cap)


@pytest.mark.spec("30.13.1")
def test_the_millionth_try_needs_no_big_number() -> None:
    class Narrow(int):
        def __lshift__(self, bits: int) -> int:
            assert bits < 100
            return int(self) << bits

    options: dict[str, Any] = {"jitter": "none", "base_delay_ms": Narrow(1), "max_delay_ms": 30_000}

    assert compute_delay_ms(10**6, strategy="exponential", **options) == 30_000


@pytest.mark.spec("30.13.1")
def test_without_dice_delays_still_differ() -> None:
    assert len(set(delays(50, "constant", "full"))) > 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": -1},
        {"base_delay_ms": -1},
        {"max_delay_ms": -1},
        {"previous_ms": -1},
    ],
)
def test_negative_numbers_are_refused(wrong: dict[str, int]) -> None:
    options: dict[str, Any] = {"attempt": 0, "base_delay_ms": 1, "max_delay_ms": 1} | wrong

    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        compute_delay_ms(strategy="linear", jitter="none", **options)


@pytest.mark.parametrize("wrong", [{"strategy": "cubic"}, {"jitter": "cubic"}])
def test_unknown_strategies_are_refused_with_the_known_ones(wrong: dict[str, str]) -> None:
    options: dict[str, Any] = {"strategy": "linear", "jitter": "none"} | wrong

    with pytest.raises(InvalidArgumentError) as refused:
        compute_delay_ms(0, base_delay_ms=1, max_delay_ms=1, **options)

    known = BackoffStrategy if "strategy" in wrong else JitterStrategy
    assert all(each.value in str(refused.value) for each in known)
    assert "'cubic'" in str(refused.value)


def test_seeded_jitter_repeats() -> None:
    def drawn() -> list[int]:
        return delays(8, "constant", "full", base_delay_ms=10**9, max_delay_ms=10**9)

    with seeded(1):
        first = drawn()
        with seeded(2):
            other = drawn()
        rest = drawn()
    with seeded(1):
        assert [*drawn(), *drawn()] == [*first, *rest]

    assert len({*first, *other, *rest, *drawn()}) == 32
