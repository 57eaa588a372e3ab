"""The suite for stores of idempotency keys: ours passes it, and a broken one does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from actorflow.model import StageOutput
from actorflow.stores import Claim, IdempotencyStore, InMemoryIdempotencyStore, RecordState
from actorflow.testing import check_idempotency_store


@pytest.mark.spec("W3", "W39", "W34", "W15")
async def test_memory_store_passes(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[IdempotencyStore]:
        yield InMemoryIdempotencyStore()

    await check_idempotency_store(opened)


class Broken:
    """Ours, with something wrong."""

    def __init__(self, **wrong: Any) -> None:
        self._store = InMemoryIdempotencyStore()
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        right = getattr(self._store, name)
        if name not in self._wrong:
            return right

        async def method(*args: Any, **options: Any) -> Any:
            return self._wrong[name](await right(*args, **options))

        return method


def always(answer: Any) -> Any:
    return lambda right: answer


def with_record(**changes: Any) -> Any:
    return lambda right: right and attrs.evolve(right, record=attrs.evolve(right.record, **changes))


def acquired(right: Claim) -> Claim:
    return attrs.evolve(right, acquired=True)


@pytest.mark.spec("W3", "W39")
@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        ({"claim": acquired}, "of claims at the same time one is acquired"),
        ({"claim": with_record(params_hash=None)}, "keeps the hash of the parameters"),
        ({"claim": with_record(run_id=None)}, "keeps the run"),
        ({"claim": with_record(state=RecordState.COMPLETED)}, "a claimed key is in progress"),
        ({"renew": always(True)}, "another owner changes nothing"),
        ({"renew": always(False)}, "the owner renews"),
        ({"complete": always(True)}, "another owner changes nothing"),
        ({"complete": always(False)}, "the owner completes"),
        ({"doubt": always(True)}, "another owner changes nothing"),
        ({"doubt": always(False)}, "the owner may leave doubt"),
        ({"release": always(True)}, "another owner changes nothing"),
        ({"release": always(False)}, "the owner releases"),
        ({"delete": always(True)}, "there is nothing to delete"),
        ({"delete": always(False)}, "there is something to delete"),
        ({"purge_expired": always(0)}, "purging counts what has expired"),
        ({"get": always(None)}, "changes nothing"),
    ],
    ids=repr,
)
async def test_store_that_breaks_a_promise_is_found(
    wrong: dict[str, Any], promise: str, autojump_clock: MockClock
) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield Broken(**wrong)

    with pytest.raises(AssertionError, match=promise):
        await check_idempotency_store(opened)


@pytest.mark.spec("W39")
async def test_store_that_resolves_what_is_certain_is_found(autojump_clock: MockClock) -> None:
    class Careless(Broken):
        async def resolve(self, key: str, **how: Any) -> Any:
            record = await self._store.get(key)
            assert record is not None
            done = attrs.evolve(
                record, state=RecordState.COMPLETED, output=StageOutput.ok({"n": 1})
            )
            return attrs.evolve(done, output=how.get("output"))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield Careless()

    with pytest.raises(AssertionError, match="what is not in doubt is not resolved"):
        await check_idempotency_store(opened)


@pytest.mark.spec("W39")
async def test_suite_takes_less_than_three_seconds(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[IdempotencyStore]:
        yield InMemoryIdempotencyStore()

    start = trio.current_time()
    await check_idempotency_store(opened)

    assert trio.current_time() - start < 3
