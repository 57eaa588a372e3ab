"""The memory store of idempotency keys (80.2)."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import pytest
import trio
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import IdempotencyStoreError, InvalidArgumentError
from actorflow.model import StageOutput
from actorflow.stores import (
    Claim,
    IdempotencyStore,
    InMemoryIdempotencyStore,
    RecordState,
    WatchableStore,
)

OUTPUT = StageOutput.ok(n=1)


async def claim(store: IdempotencyStore, key: str = "k", owner: str = "me", **more: Any) -> Claim:
    return await store.claim(
        key, owner=owner, params_hash=None, lease_seconds=more.get("lease", 30), run_id=None
    )


async def complete(store: IdempotencyStore, found: Claim, **more: Any) -> bool:
    record = found.record
    return await store.complete(
        record.key,
        owner=record.owner,
        fence=record.fence,
        output=more.get("output", OUTPUT),
        ttl_seconds=more.get("ttl", 60.0),
    )


@pytest.mark.spec("W34", "W15")
async def test_free_key_is_given_to_the_first_who_claims_it() -> None:
    store = InMemoryIdempotencyStore()

    first, second = await claim(store, owner="a"), await claim(store, owner="b")

    assert (first.acquired, second.acquired) == (True, False)
    assert second.record == first.record
    assert second.record.owner == "a"
    assert isinstance(store, WatchableStore)


@pytest.mark.spec("W34")
async def test_expired_key_is_free_again(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    await complete(store, await claim(store), ttl=60)

    await trio.sleep(59.9)
    assert not (await claim(store)).acquired
    await trio.sleep(0.1)
    assert (await claim(store)).acquired


@pytest.mark.spec("W34", "W21")
async def test_fence_grows_with_every_claim() -> None:
    store = InMemoryIdempotencyStore()
    fences = []

    for _ in range(3):
        found = await claim(store)
        fences.append(found.record.fence)
        await store.release("k", owner="me", fence=found.record.fence)

    assert fences == sorted(set(fences))


@pytest.mark.spec("W34")
@pytest.mark.parametrize("method", ["renew", "complete", "doubt", "release"])
@pytest.mark.parametrize("change", [{"owner": "other"}, {"fence": 99}])
async def test_only_the_owner_changes_a_record(method: str, change: dict[str, Any]) -> None:
    store = InMemoryIdempotencyStore()
    found = await claim(store)
    needs: dict[str, dict[str, Any]] = {
        "renew": {"lease_seconds": 1.0},
        "complete": {"output": OUTPUT, "ttl_seconds": 1.0},
    }
    more = needs.get(method, {})
    who: dict[str, Any] = {"owner": "me", "fence": found.record.fence}

    refused = await getattr(store, method)("k", **{**who, **change}, **more)
    unknown = await getattr(store, method)("x", **who, **more)
    untouched = await store.get("k")
    done = await getattr(store, method)("k", **who, **more)

    assert (refused, unknown, done) == (False, False, True)
    assert untouched == found.record
    assert await store.get("k") != found.record


@pytest.mark.spec("W34", "W18")
async def test_lease_that_runs_out_leaves_doubt(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    found = await claim(store, lease=10)
    who: dict[str, Any] = {"owner": "me", "fence": found.record.fence}

    await trio.sleep(9)
    assert await store.renew("k", **who, lease_seconds=10)
    await trio.sleep(9.5)
    assert (await claim(store)).record.state is RecordState.IN_PROGRESS
    await trio.sleep(0.5)

    second = await claim(store, owner="other")
    assert (second.acquired, second.record.state) == (False, RecordState.IN_DOUBT)
    assert not await store.renew("k", **who, lease_seconds=10)
    assert not await complete(store, found)


@pytest.mark.spec("W28")
@pytest.mark.parametrize("output", [OUTPUT, None])
async def test_doubt_is_resolved_as_completed(
    output: StageOutput | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = InMemoryIdempotencyStore()
    found = await claim(store)
    await store.doubt("k", owner="me", fence=found.record.fence)

    record = await store.resolve("k", outcome="completed", output=output, by="Ada")

    assert (record.state, record.output) == (RecordState.COMPLETED, output)
    assert await store.get("k") == record
    [told] = caplog.records
    assert (told.getMessage(), vars(told)["by"]) == ("idempotency_doubt_resolved", "Ada")


@pytest.mark.spec("W28")
async def test_doubt_is_resolved_as_never_done() -> None:
    store = InMemoryIdempotencyStore()
    found = await claim(store)
    await store.doubt("k", owner="me", fence=found.record.fence)

    await store.resolve("k", outcome="not_executed")

    assert (await claim(store)).acquired


@pytest.mark.spec("W28")
@pytest.mark.parametrize(("key", "state"), [("k", "in_progress"), ("x", "unknown")])
async def test_what_is_not_in_doubt_cannot_be_resolved(key: str, state: str) -> None:
    store = InMemoryIdempotencyStore()
    await claim(store)

    with pytest.raises(IdempotencyStoreError, match=f"the key is {state}, not in doubt"):
        await store.resolve(key, outcome="not_executed")


@pytest.mark.spec("W36")
async def test_outputs_share_nothing_that_can_change() -> None:
    store = InMemoryIdempotencyStore()
    basket = Basket(["apple"])
    await complete(store, await claim(store), output=StageOutput.ok(basket=basket))

    basket.items.append("worm")
    first = await store.get("k")
    assert first is not None
    assert first.output is not None
    first.output.data["basket"].items.append("wasp")
    second = (await claim(store)).record
    assert second.output is not None
    second.output.data["basket"].items.append("slug")
    second = (await claim(store)).record

    assert second.output is not None
    assert second.output.data["basket"].items == ["apple"]


@attrs.define
class Basket:
    items: list[str]


@pytest.mark.spec("W32")
async def test_any_output_is_kept() -> None:
    store = InMemoryIdempotencyStore()
    lock = threading.Lock()
    output = StageOutput.ok(lock=lock)

    await complete(store, await claim(store), output=output)

    record = await store.get("k")
    assert record is not None
    assert record.output is not None
    assert record.output.data["lock"] is lock


@pytest.mark.spec("W23")
async def test_memory_keeps_nothing_for_ever() -> None:
    store = InMemoryIdempotencyStore()

    with pytest.raises(InvalidArgumentError, match="ttl_seconds"):
        await complete(store, await claim(store), ttl=None)


@pytest.mark.spec("W37", "W6")
async def test_full_store_lets_go_of_the_expired_then_of_the_oldest(
    autojump_clock: MockClock,
) -> None:
    store = InMemoryIdempotencyStore(max_entries=3)
    await claim(store, "working")
    await complete(store, await claim(store, "old"), ttl=1000)
    await complete(store, await claim(store, "short"), ttl=1)
    await trio.sleep(1)

    await claim(store, "a")
    assert [await store.get(key) is None for key in ("working", "old", "short")] == [
        *(False, False, True)
    ]
    await claim(store, "b")
    assert [await store.get(key) is None for key in ("working", "old", "a")] == [
        *(False, True, False)
    ]
    with pytest.raises(IdempotencyStoreError, match="full: 3 keys are in progress"):
        await claim(store, "c")
    assert len(store) == 3


@pytest.mark.spec("W37")
async def test_doubt_is_never_forgotten() -> None:
    store = InMemoryIdempotencyStore(max_entries=1)
    found = await claim(store)
    await store.doubt("k", owner="me", fence=found.record.fence)

    with pytest.raises(IdempotencyStoreError, match="full"):
        await claim(store, "other")


async def test_records_are_put_read_and_deleted_as_they_are(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore(max_entries=1)
    other = InMemoryIdempotencyStore()
    await complete(other, await claim(other))
    record = await other.get("k")
    assert record is not None

    await store.set("a", record)
    await store.set("a", record, ttl_seconds=5)
    found = await store.get("a")
    assert found == attrs.evolve(record, key="a", expires_at=found and found.expires_at)
    assert found is not None
    assert found.expires_at is not None
    assert (found.expires_at - clock.now()).total_seconds() == pytest.approx(5)
    await store.set("b", record)
    assert await store.get("a") is None

    assert (await store.delete("b"), await store.delete("b")) == (True, False)


async def test_purge_counts_what_has_expired(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    for key, ttl in (("a", 1), ("b", 1), ("c", 5)):
        await complete(store, await claim(store, key), ttl=ttl)
    await trio.sleep(2)

    assert (await store.purge_expired(), len(store)) == (2, 1)


@pytest.mark.spec("W16", "W20")
@pytest.mark.parametrize("how", ["complete", "doubt", "release", "delete"])
async def test_change_wakes_all_who_wait_for_it(how: str, autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    found = await claim(store)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await store.wait_for_change("k")
        woken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
        await trio.sleep(1)
        assert woken == []
        who: dict[str, Any] = {"owner": "me", "fence": found.record.fence}
        match how:
            case "complete":
                await complete(store, found)
            case "delete":
                await store.delete("k")
            case _:
                await getattr(store, how)("k", **who)

    assert sorted(woken) == [0, 1, 2]
    assert store._changes == {}


@pytest.mark.spec("W16", "W20")
async def test_last_waiter_to_leave_takes_the_event_along(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    await claim(store)

    async with trio.open_nursery() as nursery:

        async def wait(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await store.wait_for_change("k")

        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await trio.sleep(1.5)
        assert len(store._changes) == 1

    assert store._changes == {}


def test_impossible_size_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="max_entries"):
        InMemoryIdempotencyStore(0)


KEYS = st.sampled_from("abc")


class Claiming(RuleBasedStateMachine):
    """Owners come and go on a few keys; no two ever hold one, and fences only grow."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MockClock()
        self.store = InMemoryIdempotencyStore(max_entries=2)
        self.held: dict[str, Claim] = {}
        self.highest = 0

    def do(self, action: Any) -> Any:
        return trio.run(action, clock=self.clock)

    @rule(key=KEYS, owner=st.sampled_from("xy"))
    def claim(self, key: str, owner: str) -> None:
        try:
            found = self.do(lambda: claim(self.store, key, owner, lease=1e9))
        except IdempotencyStoreError:
            assert len(self.held) == 2
            return
        assert found.acquired is (key not in self.held and found.record.output is None)
        if found.acquired:
            assert found.record.fence > self.highest
            self.highest = found.record.fence
            self.held[key] = found

    @rule(key=KEYS, completes=st.booleans(), stale=st.booleans())
    def end(self, key: str, completes: bool, stale: bool) -> None:
        found = self.held.get(key)
        fence = self.highest + 1 if stale or found is None else found.record.fence
        owner = "x" if found is None else found.record.owner

        async def end() -> bool:
            who: dict[str, Any] = {"owner": owner, "fence": fence}
            if completes:
                return await self.store.complete(key, **who, output=OUTPUT, ttl_seconds=1e9)
            return await self.store.release(key, **who)

        assert self.do(end) is (found is not None and not stale)
        if found is not None and not stale:
            del self.held[key]

    @invariant()
    def bounded(self) -> None:
        assert len(self.held) <= len(self.store) <= 2


TestClaiming = Claiming.TestCase
TestClaiming.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
