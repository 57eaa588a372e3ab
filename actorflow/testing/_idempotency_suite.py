"""What every store of idempotency keys promises, as a suite for those who write one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import attrs
import trio

from actorflow.errors import IdempotencyStoreError
from actorflow.model import StageOutput
from actorflow.stores import Claim, IdempotencyStore, RecordState

from ._promises import expect

_Check: TypeAlias = Callable[[IdempotencyStore], Awaitable[None]]

_OUTPUT: Final = StageOutput.ok({"n": 1}, metadata={"m": 2}, version="3")
_LEASE: Final = 0.2


async def check_idempotency_store(
    open_store: Callable[[], AbstractAsyncContextManager[IdempotencyStore]],
) -> None:
    """Check that a store keeps what `IdempotencyStore` promises.

    `open_store` opens an empty store, anew for each promise. Waits for a fraction of
    a second of trio's time; run it on a clock that the store follows.

    Raises:
      AssertionError: with the promise that is not kept, and what was found.
    """
    for check in _CHECKS:
        async with open_store() as store:
            await check(store)


async def _claim(store: IdempotencyStore, owner: str, lease: float = 60.0) -> Claim:
    return await store.claim(
        "key", owner=owner, params_hash="hash", lease_seconds=lease, run_id="run"
    )


def _who(claim: Claim) -> dict[str, Any]:
    return {"owner": claim.record.owner, "fence": claim.record.fence}


async def _complete(store: IdempotencyStore, claim: Claim, ttl_seconds: float = 60.0) -> bool:
    return await store.complete("key", **_who(claim), output=_OUTPUT, ttl_seconds=ttl_seconds)


async def _state(store: IdempotencyStore) -> RecordState | None:
    record = await store.get("key")
    return None if record is None else record.state


async def _one_owner(store: IdempotencyStore) -> None:
    acquired: list[str] = []

    async def claim(owner: str) -> None:
        if (await _claim(store, owner)).acquired:
            acquired.append(owner)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(claim, f"owner {number}")
    expect("of claims at the same time one is acquired", len(acquired), 1)
    refused = await _claim(store, "late")
    expect("a refused claim has the record of the owner", refused.record.owner, acquired[0])
    expect("a record keeps the hash of the parameters", refused.record.params_hash, "hash")
    expect("a record keeps the run", refused.record.run_id, "run")
    expect("a claimed key is in progress", refused.record.state, RecordState.IN_PROGRESS)


async def _owners_only(store: IdempotencyStore) -> None:
    claim = await _claim(store, "me")
    for promise, who in (
        ("another owner changes nothing", {**_who(claim), "owner": "other"}),
        ("another fence changes nothing", {**_who(claim), "fence": claim.record.fence + 1}),
    ):
        expect(promise, await store.renew("key", **who, lease_seconds=60), False)
        done = await store.complete("key", **who, output=_OUTPUT, ttl_seconds=60)
        expect(promise, done, False)
        expect(promise, await store.doubt("key", **who), False)
        expect(promise, await store.release("key", **who), False)
        expect(promise, await _state(store), RecordState.IN_PROGRESS)
    expect("the owner renews", await store.renew("key", **_who(claim), lease_seconds=60), True)
    expect("the owner releases", await store.release("key", **_who(claim)), True)
    expect("a released key is free", await _state(store), None)
    expect("who has released has nothing left", await _complete(store, claim), False)


async def _fences_grow(store: IdempotencyStore) -> None:
    fences = []
    for _ in range(3):
        claim = await _claim(store, "me")
        fences.append(claim.record.fence)
        await store.release("key", **_who(claim))
    expect("fences grow with every claim of a key", fences, sorted(set(fences)))


async def _results(store: IdempotencyStore) -> None:
    claim = await _claim(store, "me")
    expect("the owner completes", await _complete(store, claim), True)
    found = await _claim(store, "other")
    expect("a completed key is not free", found.acquired, False)
    expect("a completed record has the output", found.record.output, _OUTPUT)
    expect("what is completed stays so", await store.release("key", **_who(claim)), False)
    expect("there is something to delete", await store.delete("key"), True)
    expect("there is nothing to delete", await store.delete("key"), False)


async def _expiry(store: IdempotencyStore) -> None:
    await _complete(store, await _claim(store, "me"), _LEASE)
    await trio.sleep(_LEASE * 2)
    expect("an expired key is free", (await _claim(store, "other")).acquired, True)


async def _purge(store: IdempotencyStore) -> None:
    await _complete(store, await _claim(store, "me"), _LEASE)
    await trio.sleep(_LEASE * 2)
    expect("purging counts what has expired", await store.purge_expired(), 1)
    expect("purging removes what has expired", await store.get("key"), None)


async def _doubt(store: IdempotencyStore) -> None:
    claim = await _claim(store, "me", _LEASE)
    await trio.sleep(_LEASE * 2)
    found = await _claim(store, "other")
    expect("a key in doubt is not free", found.acquired, False)
    expect("a lease that ran out leaves doubt", found.record.state, RecordState.IN_DOUBT)
    expect("who let a lease run out has lost it", await _complete(store, claim), False)
    record = await store.resolve("key", outcome="completed", output=_OUTPUT, by="somebody")
    expect("a doubt ends as completed", record.state, RecordState.COMPLETED)
    expect("a doubt ends with an output", record.output, _OUTPUT)
    refused = None
    try:
        await store.resolve("key", outcome="not_executed")
    except IdempotencyStoreError as error:
        refused = type(error)
    expect("what is not in doubt is not resolved", refused, IdempotencyStoreError)


async def _nothing_done(store: IdempotencyStore) -> None:
    claim = await _claim(store, "me")
    expect("the owner may leave doubt", await store.doubt("key", **_who(claim)), True)
    await store.resolve("key", outcome="not_executed")
    expect("work that was not done may be done", (await _claim(store, "other")).acquired, True)


async def _records(store: IdempotencyStore) -> None:
    await _complete(store, await _claim(store, "me"))
    record = await store.get("key")
    assert record is not None, "the claim was completed above"
    await store.set("other", record, ttl_seconds=60)
    copied = await store.get("other")
    expect("a record is put as it is", copied and copied.output, _OUTPUT)
    await store.set("key", attrs.evolve(record, output=None), ttl_seconds=_LEASE)
    await trio.sleep(_LEASE * 2)
    expect("a record is put for a time", await store.get("key"), None)


_CHECKS: Final[tuple[_Check, ...]] = (
    _one_owner,
    _owners_only,
    _fences_grow,
    _results,
    _expiry,
    _purge,
    _doubt,
    _nothing_done,
    _records,
)
