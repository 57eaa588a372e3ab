"""The rules of supervisors, which need neither a clock nor a task."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.actors import (
    Backoff,
    Child,
    Crashed,
    Inbox,
    Killed,
    Normal,
    Reason,
    RestartType,
    Shutdown,
    Strategy,
    Supervisor,
)
from actorflow.actors._supervision import (
    RestartBudget,
    affected,
    blocking_ring,
    should_restart,
)
from actorflow.errors import InvalidArgumentError, MailboxDeadlockError

REASONS = (Normal(), Shutdown(), Killed(), Crashed(ValueError()))


# Who gets another life


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: type(reason).__name__)
def test_restart_table(reason: Reason) -> None:
    failed = isinstance(reason, Crashed | Killed)

    assert should_restart(RestartType.PERMANENT, reason)
    assert should_restart(RestartType.TRANSIENT, reason) is failed
    assert not should_restart(RestartType.TEMPORARY, reason)


# How often


@given(
    times=st.lists(st.integers(0, 40), max_size=30).map(sorted),
    most=st.integers(0, 5),
    window=st.integers(1, 10),
)
def test_budget_agrees_with_the_rule_in_three_lines(
    times: list[int], most: int, window: int
) -> None:
    budget: RestartBudget | None = RestartBudget(most, window)
    model: list[int] = []
    for now in times:
        model = [at for at in model if at >= now - window]
        model.append(now)
        assert budget is not None
        budget = budget.spend(now)
        assert (budget is None) == (len(model) > most)
        if budget is None:
            return
        assert list(budget.spent) == model


def test_budget_is_a_value() -> None:
    full = RestartBudget(1, 5)

    assert full.spend(0) == full.spend(0)
    assert full.spent == ()
    assert RestartBudget(0).spend(0) is None


def test_restart_at_the_edge_of_the_window_still_counts() -> None:
    spent = RestartBudget(1, 5).spend(0)

    assert spent is not None
    assert spent.spend(5) is None
    assert spent.spend(5.001) is not None


@pytest.mark.parametrize(("most", "window"), [(-1, 5), (math.nan, 5), (3, 0), (3, math.nan)])
def test_impossible_budget_is_refused(most: Any, window: float) -> None:
    with pytest.raises(InvalidArgumentError):
        RestartBudget(most, window)


# Together with whom

NAMES = tuple("abcdef")


@st.composite
def families(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Children in start order, each with the earlier ones that it needs."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    return {
        name: tuple(draw(st.sets(st.sampled_from(names[:index])))) if index else ()
        for index, name in enumerate(names)
    }


def depends(needs: Mapping[str, Sequence[str]], name: str, on: str) -> bool:
    return name == on or any(depends(needs, needed, on) for needed in needs[name])


@given(needs=families(), data=st.data())
def test_group_is_what_the_strategy_says(
    needs: dict[str, tuple[str, ...]], data: st.DataObject
) -> None:
    names = list(needs)
    crashed = data.draw(st.sampled_from(names))

    assert affected(Strategy.ONE_FOR_ONE, needs, crashed) == (crashed,)
    assert affected(Strategy.ONE_FOR_ALL, needs, crashed) == tuple(names)
    rest = affected(Strategy.REST_FOR_ONE, needs, crashed)
    if any(needs.values()):
        assert rest == tuple(name for name in names if depends(needs, name, crashed))
    else:
        assert rest == tuple(names[names.index(crashed) :])


# After how long


@given(
    base=st.floats(0, 100),
    cap=st.floats(0, 1000),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    failures=st.integers(1, 10**9),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_delay_stays_within_its_bounds(
    base: float, cap: float, factor: float, jitter: float, failures: int, chance: float
) -> None:
    backoff = Backoff(base=base, cap=cap, factor=factor, jitter=jitter)
    delay = backoff.delay(failures, chance)

    assert 0 <= delay <= cap
    assert delay <= backoff.delay(failures, 0)
    assert delay >= backoff.delay(failures, 0) * (1 - jitter)
    assert backoff.delay(failures + 1, 0) >= backoff.delay(failures, 0)
    assert backoff.delay(1, 0) == min(base, cap)


def test_delay_grows_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(base=0.5, factor=3, cap=10)

    assert [backoff.delay(n, 0) for n in range(1, 6)] == [0.5, 1.5, 4.5, 10, 10]


def test_half_the_jitter_takes_away_half_of_it() -> None:
    assert Backoff(base=8, jitter=0.5).delay(1, 0.5) == 6


@given(st.integers(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_long_life_ends_the_row_of_failures(
    failures: int, lived: float, reset_after: float
) -> None:
    backoff = Backoff(reset_after=reset_after)

    expected = 1 if lived >= reset_after else failures + 1
    assert backoff.failures_after(failures, lived) == expected


def test_row_ends_after_a_life_as_long_as_the_longest_wait() -> None:
    assert Backoff(cap=7).reset_after == 7


@pytest.mark.parametrize(
    "wrong",
    [{"base": -1}, {"cap": -1}, {"factor": 0.5}, {"jitter": -0.1}, {"jitter": 1.1},
     {"reset_after": -1}, {"base": math.nan}],
)  # fmt: skip
def test_impossible_backoff_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        Backoff(**wrong)


# Rings of blocking senders


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    return {name: tuple(draw(st.lists(st.sampled_from(names), max_size=3))) for name in names}


def has_ring(edges: Mapping[str, Sequence[str]]) -> bool:
    return any(
        all(two in edges[one] for one, two in itertools.pairwise((*path, path[0])))
        for length in range(1, len(edges) + 1)
        for path in itertools.permutations(edges, length)
    )


@given(graphs())
def test_ring_is_found_if_there_is_one(edges: dict[str, tuple[str, ...]]) -> None:
    ring = blocking_ring(edges)

    assert bool(ring) == has_ring(edges)
    if ring:
        assert ring[0] == ring[-1]
        assert len(set(ring)) == len(ring) - 1
        assert all(two in edges[one] for one, two in itertools.pairwise(ring))


async def behave(inbox: Inbox[Any]) -> None: ...


@given(graphs(), st.sets(st.sampled_from(NAMES)))
def test_tree_is_refused_for_rings_of_blocking_mailboxes_only(
    edges: dict[str, tuple[str, ...]], dropping: set[str]
) -> None:
    children = [
        Child(
            name,
            behave,
            sends_to=targets,
            policy="drop_old" if name in dropping else "block",
        )
        for name, targets in edges.items()
    ]
    blocking = {
        name: [target for target in targets if target not in dropping]
        for name, targets in edges.items()
        if name not in dropping
    }
    if has_ring(blocking):
        with pytest.raises(MailboxDeadlockError):
            Supervisor(*children)
    else:
        Supervisor(*children)
