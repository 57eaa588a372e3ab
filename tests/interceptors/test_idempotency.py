"""Work that is done once (80.1)."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from actorflow import clock, errors
from actorflow.errors import (
    CanonicalizationError,
    CriticalInterceptorError,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotencyLeaseLost,
    IdempotencyParamMismatch,
    IdempotencyReentryError,
    IdempotencyResultUnavailable,
    IdempotencyStoreError,
    IdempotencyWaitTimeout,
    InvalidArgumentError,
    WorkInDoubtError,
)
from actorflow.interceptors import (
    IdempotencyInterceptor,
    IdempotencyKey,
    RetryInterceptor,
    run_with_interceptors,
)
from actorflow.interceptors._idempotency_rules import (
    DoubtAnswer,
    answer_to_doubt,
    checked_key,
    operation_of,
)
from actorflow.model import StageKind, StageOutput
from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext, StageResult
from actorflow.stores import Claim, InMemoryIdempotencyStore, RecordState
from actorflow.testing import RecordingEventSink

from .recording import Recorder, Stage, for_ever

RUN_ID = UUID(int=7)


class Errors(Recorder):
    """Subclass of the tests: sees with what a call fails."""

    def __init__(self) -> None:
        super().__init__("errors", priority=1)


async def call(
    stage: Any,
    *interceptors: Any,
    key: Any = "k",
    name: str = "charge",
    kind: StageKind = StageKind.WORK,
    sink: RecordingEventSink | None = None,
    **fields: Any,
) -> StageResult:
    data = {"idempotency_key": key, **fields.pop("data", {})}
    if key is None:
        del data["idempotency_key"]
    ctx = PipelineContext(
        data=data,
        event_sink=sink or RecordingEventSink(strict=True),
        **{"topology": "shop", "pipeline_run_id": RUN_ID, **fields},
    )
    return await run_with_interceptors(name, stage, ctx, interceptors, kind=kind)


async def error_of(stage: Any, *interceptors: Any, **options: Any) -> Exception:
    errors = Errors()
    await call(stage, errors, *interceptors, **options)
    [error] = errors.errors
    return error


def protected_by(store: Any, **options: Any) -> IdempotencyInterceptor:
    return IdempotencyInterceptor(store, **options)


def numbered() -> Stage:
    return Stage(*({"n": n} for n in range(1, 9)))


def taking(seconds: float, stage: Stage) -> Any:
    """The stage, which gets there after a while."""

    async def slow() -> Any:
        await trio.sleep(seconds)
        return await stage()

    return slow


async def at_once(count: int, stage: Any, *interceptors: Any) -> list[StageResult]:
    """The results of calls that begin together, in the order in which they end."""
    found: list[StageResult] = []

    async def one() -> None:
        found.append(await call(stage, *interceptors))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return found


# Scope


@pytest.mark.spec("W15", "W17", "30.12.2")
async def test_same_key_runs_once() -> None:
    stage, once = numbered(), IdempotencyInterceptor()

    first, second = await call(stage, once), await call(stage, once)

    assert stage.calls == 1
    assert first.data == second.data == {"n": 1}
    assert (first.replayed, second.replayed) == (False, True)
    assert second.original_run_id == RUN_ID
    assert (second.short_circuited_by, second.tries) == ("idempotency", 0)


@pytest.mark.spec("W8")
async def test_only_work_is_protected() -> None:
    stage, once = numbered(), IdempotencyInterceptor()

    for _ in range(2):
        await call(stage, once, kind=StageKind.TRANSFORM)

    assert stage.calls == 2


@pytest.mark.spec("W8")
async def test_kinds_can_be_chosen() -> None:
    stage, once = numbered(), IdempotencyInterceptor(kinds=["enrich"])

    for kind in (StageKind.ENRICH, StageKind.ENRICH, StageKind.WORK, StageKind.WORK):
        await call(stage, once, kind=kind)

    assert stage.calls == 3


@pytest.mark.spec("W9", "W10")
@pytest.mark.parametrize(
    "other",
    [
        {"key": "k2"},
        {"name": "refund"},
        {"topology": "bank"},
        {"data": {"client_id": "b"}},
        {"user_id": UUID(int=1)},
        {"org_id": UUID(int=1)},
    ],
    ids=repr,
)
async def test_whatever_differs_makes_another_operation(other: Any) -> None:
    stage, once = numbered(), IdempotencyInterceptor()

    await call(stage, once)
    result = await call(stage, once, **other)

    assert result.data == {"n": 2}


@pytest.mark.spec("W10")
async def test_client_is_the_first_that_is_known() -> None:
    stage = numbered()
    by_data = IdempotencyInterceptor()
    by_function = IdempotencyInterceptor(
        by_data._own_store, client_extractor=lambda ctx: ctx.data.get("tenant")
    )
    user, org = UUID(int=1), UUID(int=2)

    found = [
        (await call(stage, once, **fields)).data["n"]
        for once, fields in (
            (by_function, {"data": {"tenant": "t", "client_id": "c"}, "user_id": user}),
            (by_data, {"data": {"client_id": "t"}}),
            (by_data, {"data": {"client_id": "c"}, "user_id": user}),
            (by_function, {"data": {"client_id": "c"}}),
            (by_data, {"user_id": user, "org_id": org}),
            (by_data, {"user_id": user}),
            (by_data, {"org_id": org}),
        )
    ]

    assert found == [1, 1, 2, 2, 3, 3, 4]


@pytest.mark.spec("W11")
async def test_without_a_key_the_stage_simply_runs() -> None:
    stage, once = numbered(), IdempotencyInterceptor()

    for _ in range(2):
        await call(stage, once, key=None)

    assert stage.calls == 2


@pytest.mark.spec("W11")
async def test_key_may_come_from_anywhere() -> None:
    stage = numbered()
    once = IdempotencyInterceptor(key_extractor=lambda ctx: ctx.metadata["order"])

    for order in ("a", "b", "a"):
        await call(stage, once, key=None, metadata={"order": order})

    assert stage.calls == 2


@pytest.mark.spec("W11")
async def test_key_can_be_required() -> None:
    stage = numbered()

    error = await error_of(stage, IdempotencyInterceptor(require_key=True), key=None)

    assert isinstance(error, IdempotencyKeyMissing)
    assert stage.calls == 0


@pytest.mark.spec("W12")
def test_repetition_for_a_guard_is_another_operation() -> None:
    assert [operation_of("shop", "charge", n) for n in (1, 2, 3)] == [
        *("shop/charge", "shop/charge#1", "shop/charge#2")
    ]


@pytest.mark.spec("W14")
@pytest.mark.parametrize("key", ["", "x" * 256, 42, "line\nbreak", "\x00", b"bytes"], ids=repr)
async def test_impossible_key_fails_the_stage(key: Any) -> None:
    stage = numbered()

    error = await error_of(stage, IdempotencyInterceptor(), key=key)

    assert isinstance(error, IdempotencyKeyInvalid)
    assert stage.calls == 0


@pytest.mark.spec("W14")
@pytest.mark.parametrize("key", ["x", "x" * 255, "'; DROP TABLE x; --", "ключ"])
def test_any_printable_text_is_a_key(key: str) -> None:
    assert checked_key(key, "charge") == key


@pytest.mark.spec("W14", "W9")
@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_storage_keys_are_hashes_that_differ(one: Any, other: Any) -> None:
    first, second = IdempotencyKey(*one), IdempotencyKey(*other)

    assert (first.storage_key == second.storage_key) is (one == other)
    assert first.storage_key.startswith("idem:v1:")
    assert len(first.digest) == 64


# At the same time


@pytest.mark.spec("W15", "W16", "W20", "30.12.2")
@pytest.mark.parametrize("count", [50, 1000])
async def test_of_many_at_the_same_time_one_runs(count: int, autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    once = IdempotencyInterceptor(store)
    stage = numbered()

    found = await at_once(count, taking(5, stage), once)

    assert stage.calls == 1
    assert [it.output for it in found] == [found[0].output] * count
    assert store._changes == {}


@pytest.mark.spec("W16")
async def test_waiting_has_an_end(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor(wait_timeout_seconds=3)
    start = trio.current_time()
    slow = taking(10, Stage({"n": 1}))

    async with trio.open_nursery() as nursery:
        owner: list[StageResult] = []

        async def own() -> None:
            owner.append(await call(slow, once))

        nursery.start_soon(own)
        await trio.testing.wait_all_tasks_blocked()
        error = await error_of(slow, once)
        waited = trio.current_time() - start

    assert isinstance(error, IdempotencyWaitTimeout)
    assert (waited, error.waited) == (3, 3)
    assert owner[0].data == {"n": 1}


@pytest.mark.spec("W16")
async def test_cancelled_waiter_affects_nobody(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor()
    stage = numbered()
    found: list[Any] = []
    slow = taking(2, stage)

    async def wait(patience: float) -> None:
        with trio.move_on_after(patience):
            found.append((await call(slow, once)).data)

    async with trio.open_nursery() as nursery:
        for patience in (9, 1, 9):
            nursery.start_soon(wait, patience)

    assert stage.calls == 1
    assert found == [{"n": 1}] * 2


class Remote:
    """A store elsewhere: it can be away, and wakes nobody. Subclasses say what is wrong with it."""

    def __init__(self) -> None:
        self.store = InMemoryIdempotencyStore()

    def __getattr__(self, name: str) -> Any:
        if name == "wait_for_change":
            raise AttributeError(name)
        return getattr(self.store, name)


class Polled(Remote):
    """Notes when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    async def claim(self, key: str, **more: Any) -> Claim:
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return await self.store.claim(key, **more)


@pytest.mark.spec("W16")
async def test_store_that_cannot_wake_is_asked_now_and_then(autojump_clock: MockClock) -> None:
    store: Any = Polled()
    once = IdempotencyInterceptor(store)
    stage = numbered()
    slow = taking(2, stage)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(slow, once))
        await trio.testing.wait_all_tasks_blocked()
        store.asked.clear()
        result = await call(slow, once)

    pauses = [later - now for now, later in zip(store.asked, store.asked[1:], strict=False)]
    assert result.replayed
    assert pauses[:5] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16])
    assert pauses[5:] == pytest.approx([0.25] * len(pauses[5:]))


# What comes back


@pytest.mark.spec("W17")
@pytest.mark.parametrize(
    "output",
    [
        StageOutput.ok({"n": 1}, metadata={"m": 1}, version="2"),
        StageOutput.skip("nothing to do", {"n": 1}),
    ],
)
async def test_result_comes_back_as_it_was(output: StageOutput) -> None:
    once = IdempotencyInterceptor()

    await call(Stage(output), once)
    result = await call(Stage(None), once)

    assert result.output == output


@pytest.mark.spec("W18", "W19")
@pytest.mark.parametrize(
    "step",
    [
        *(StageOutput.fail("no"), StageOutput.fail("no", retryable=True)),
        *(StageOutput.retry(), LookupError("gone"), StageOutput.cancel("enough")),
    ],
    ids=repr,
)
async def test_what_did_not_work_does_not_count_as_done(step: Any) -> None:
    stage, once = Stage(step, {"n": 2}), IdempotencyInterceptor()

    await call(stage, once)
    result = await call(stage, once)

    assert result.data == {"n": 2}
    assert not result.replayed


@pytest.mark.spec("W18")
@pytest.mark.parametrize(
    ("step", "is_kept"),
    [
        (StageOutput.fail("no"), True),
        (StageOutput.fail("no", retryable=True), False),
        (LookupError("gone"), False),
        (StageOutput.cancel("enough"), False),
    ],
    ids=repr,
)
async def test_final_failures_can_be_kept(step: Any, is_kept: bool) -> None:
    stage, once = Stage(step, {"n": 2}), IdempotencyInterceptor(cache_failures=True)

    await call(stage, once)
    result = await call(stage, once)

    assert result.replayed is is_kept


@pytest.mark.spec("W18")
async def test_after_a_failure_one_of_the_waiting_runs(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor()
    stage = Stage(LookupError("gone"), {"n": 2}, {"n": 3})

    found = await at_once(5, taking(1, stage), once)

    assert stage.calls == 2
    assert sorted((it.data for it in found), key=len) == [{}, *[{"n": 2}] * 4]


@pytest.mark.spec("W18", "W19", "30.12.2", "W2")
async def test_cancelled_owner_leaves_the_key_free(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    once = IdempotencyInterceptor(store)

    with trio.move_on_after(1):
        await call(for_ever, once)
    assert len(store) == 0
    start = trio.current_time()
    result = await call(numbered(), once)

    assert result.data == {"n": 1}
    assert trio.current_time() == start


@pytest.mark.spec("W18", "W27")
async def test_cancelled_owner_may_leave_doubt(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor(on_cancel="in_doubt")

    with trio.move_on_after(1):
        await call(for_ever, once)

    assert isinstance(await error_of(numbered(), once), WorkInDoubtError)


@pytest.mark.spec("W18")
async def test_stage_may_say_that_it_does_not_know() -> None:
    once = IdempotencyInterceptor()

    await call(Stage(StageOutput.fail("lost", metadata={"effect": "unknown"})), once)

    assert isinstance(await error_of(numbered(), once), WorkInDoubtError)


@pytest.mark.spec("W19")
async def test_store_that_hangs_is_left_after_a_second(autojump_clock: MockClock) -> None:
    class Hangs(Remote):
        async def release(self, key: str, **who: Any) -> bool:
            await trio.sleep_forever()
            raise AssertionError

    start = trio.current_time()

    await call(Stage(LookupError()), protected_by(Hangs()))

    assert trio.current_time() == start + 1


@pytest.mark.spec("W19")
async def test_claim_that_came_through_while_being_cancelled_is_given_back(
    autojump_clock: MockClock,
) -> None:
    class Slow(Remote):
        async def claim(self, key: str, **more: Any) -> Claim:
            found = await self.store.claim(key, **more)
            # Written there, and on the way back somebody cancels.
            await trio.sleep(2)
            return found

    store: Any = Slow()
    once = IdempotencyInterceptor(store, on_cancel="in_doubt")

    with trio.move_on_after(1):
        await call(numbered(), once)
    assert len(store.store) == 0

    # Of another owner nothing is taken away.
    await store.claim(
        IdempotencyKey("anonymous", "shop/charge", "k").storage_key,
        owner="other",
        params_hash=None,
        lease_seconds=30,
        run_id=None,
    )
    with trio.move_on_after(1):
        await call(numbered(), once)
    assert len(store.store) == 1


@pytest.mark.spec("W23")
async def test_key_is_free_again_when_its_time_is_up(autojump_clock: MockClock) -> None:
    stage, once = numbered(), IdempotencyInterceptor(ttl_seconds=60)

    await call(stage, once)
    await trio.sleep(60)
    result = await call(stage, once)

    assert result.data == {"n": 2}


@pytest.mark.spec("W24", "W55")
async def test_hit_runs_nothing_inside_and_all_tries_are_one_claim(
    autojump_clock: MockClock,
) -> None:
    inner = Recorder("inner")
    stage, once = Stage(TimeoutError(), {"n": 2}), IdempotencyInterceptor()

    results = await at_once(2, stage, once, RetryInterceptor(), inner)

    assert stage.calls == 2
    assert [it.data for it in results] == [{"n": 2}] * 2
    assert inner.trace.count("inner.before") == 2


@pytest.mark.spec("W17", "W24")
async def test_hit_is_told(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink(strict=True)
    once = IdempotencyInterceptor()
    slow = taking(1, Stage({"n": 1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(slow, once))
        nursery.start_soon(lambda: call(slow, once, sink=sink))
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(5)
    await call(slow, once, sink=sink)

    stored = sink.assert_emitted("work.idempotency_hit", source="stored")
    assert (stored["stage"], stored["operation"], stored["status"]) == (
        *("charge", "shop/charge", "ok"),
    )
    assert (stored["age_seconds"], stored["waited_ms"]) == (pytest.approx(5), 0)
    assert stored["original_run_id"] == str(RUN_ID)
    assert len(stored["key_hash"]) == 16


async def test_waiting_for_a_result_is_told(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink(strict=True)
    once = IdempotencyInterceptor()
    slow = taking(1, Stage({"n": 1}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call(slow, once, sink=sink, pipeline_run_id=None))
        nursery.start_soon(lambda: call(slow, once, sink=sink, pipeline_run_id=None))

    hit = sink.assert_emitted("work.idempotency_hit", source="in_flight")
    assert (hit["waited_ms"], hit["age_seconds"]) == (1000, 0)
    assert hit["original_run_id"] is None


# Parameters


@pytest.mark.spec("W25")
@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        (None, None, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, None, False),
        (None, {"a": 1}, False),
    ],
)
async def test_parameters_are_compared_by_meaning(first: Any, second: Any, is_same: bool) -> None:
    stage, once = numbered(), IdempotencyInterceptor()

    def data(params: Any) -> dict[str, Any]:
        return {} if params is None else {"idempotency_params": params}

    await call(stage, once, data=data(first))
    result = await call(stage, once, data=data(second))

    assert (result.status == "completed") is is_same
    assert stage.calls == 1


@pytest.mark.spec("W26", "30.12.2")
async def test_other_parameters_fail_the_stage_at_once(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink(strict=True)
    stage, once = numbered(), IdempotencyInterceptor()
    slow = taking(5, stage)

    async with trio.open_nursery() as nursery:
        first: list[StageResult] = []

        async def own() -> None:
            first.append(await call(slow, once, data={"idempotency_params": {"amount": 1}}))

        nursery.start_soon(own)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        outer = Recorder("outer", priority=1)
        result = await call(
            slow, outer, once, sink=sink, data={"idempotency_params": {"amount": 2}}
        )
        assert trio.current_time() == start

    assert result.error_type == "IdempotencyParamMismatch"
    assert result.error is not None
    assert result.error.startswith(
        "Idempotency key 'k' was already used for 'shop/charge' with different parameters (expected "
    )
    assert result.error.endswith("Repeat the original parameters or use a new key.")
    assert outer.errors == []
    assert first[0].data == {"n": 1}
    told = sink.assert_emitted("work.idempotency_conflict", stage="charge", operation="shop/charge")
    assert told["expected_params_hash"] != told["actual_params_hash"]


@pytest.mark.spec("W26")
def test_mismatch_is_critical_and_carries_hashes() -> None:
    error = IdempotencyParamMismatch("k", "e" * 64, "a" * 64, "shop/charge")

    assert isinstance(error, CriticalInterceptorError)
    assert (error.key, error.expected, error.actual) == ("k", "e" * 64, "a" * 64)
    assert f"(expected {'e' * 12}, got {'a' * 12})" in str(error)


@pytest.mark.spec("W25")
async def test_comparison_can_be_left_out() -> None:
    stage, once = numbered(), IdempotencyInterceptor(validate_params=False)

    await call(stage, once, data={"idempotency_params": {"a": 1}})
    result = await call(stage, once, data={"idempotency_params": {"a": 2}})

    assert result.data == {"n": 1}


@pytest.mark.spec("W25")
async def test_parameters_without_a_canonical_form_fail_the_stage() -> None:
    stage = numbered()
    once = IdempotencyInterceptor(params_extractor=lambda ctx: {"a": object()})

    assert isinstance(await error_of(stage, once), CanonicalizationError)
    assert stage.calls == 0


# The lease


@pytest.mark.spec("W21", "W15")
async def test_claim_lasts_as_long_as_the_stage_runs(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor(lease_seconds=3, wait_timeout_seconds=1000)
    stage = numbered()

    found = await at_once(2, taking(100, stage), once)

    assert [it.data for it in found] == [{"n": 1}] * 2


@pytest.mark.spec("W21")
async def test_owner_that_lost_its_claim_is_stopped(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    once = IdempotencyInterceptor(store, lease_seconds=3)
    sink = RecordingEventSink(strict=True)

    async def take_over() -> None:
        await trio.sleep(1.5)
        [key] = store._records
        await store.delete(key)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_over)
        start = trio.current_time()
        errors = Errors()
        result = await call(for_ever, errors, once, sink=sink)

    assert trio.current_time() - start == 2
    assert isinstance(errors.errors[0], IdempotencyLeaseLost)
    assert result.status == "failed"
    sink.assert_emitted("work.lease_lost", stage="charge", operation="shop/charge", fence=1)
    assert len(store) == 0


@pytest.mark.spec("W21")
async def test_result_of_a_lost_claim_is_not_stored(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    once = IdempotencyInterceptor(store)
    sink = RecordingEventSink(strict=True)

    async def stage() -> Any:
        [key] = store._records
        await store.delete(key)
        return {"n": 1}

    result = await call(stage, once, sink=sink)

    assert (result.status, result.error_type) == ("failed", "IdempotencyLeaseLost")
    assert sink.types() == ["work.lease_lost"]
    assert len(store) == 0


@pytest.mark.spec("W21")
async def test_renewal_that_fails_once_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Flaky(Remote):
        fails = 1

        async def renew(self, key: str, **more: Any) -> bool:
            self.fails -= 1
            if self.fails >= 0:
                raise ConnectionError
            return await self.store.renew(key, **more)

    slow = taking(10, Stage({"n": 1}))

    result = await call(slow, protected_by(Flaky(), lease_seconds=3))

    assert result.data == {"n": 1}
    assert [it.getMessage() for it in caplog.records] == ["idempotency_renewal_failed"]


@pytest.mark.spec("W22")
async def test_work_that_would_wait_for_itself_fails_at_once() -> None:
    once = IdempotencyInterceptor()
    inner: list[Exception] = []

    async def stage() -> Any:
        inner.append(await error_of(numbered(), once))

    await call(stage, once)
    result = await call(numbered(), once, key="other")

    assert isinstance(inner[0], IdempotencyReentryError)
    assert result.data == {"n": 1}


@pytest.mark.spec("W22")
async def test_key_can_be_used_again_after_the_work(autojump_clock: MockClock) -> None:
    once = IdempotencyInterceptor()

    await call(Stage(LookupError()), once)

    assert (await call(numbered(), once)).data == {"n": 1}


# Doubt


class Reconciling(Stage):
    """A stage that can find out what became of its work."""

    def __init__(self, found: StageOutput | None) -> None:
        super().__init__({"n": 1})
        self.found = found
        self.records: list[Any] = []

    async def reconcile(self, ctx: Any, record: Any) -> StageOutput | None:
        self.records.append(record)
        return self.found


async def abandoned(store: InMemoryIdempotencyStore) -> None:
    """Leave the key of `call` behind, as a process does that died."""
    await abandoned_key(store, IdempotencyKey("anonymous", "shop/charge", "k").storage_key)
    await trio.sleep(10)


async def abandoned_key(store: InMemoryIdempotencyStore, key: str) -> None:
    await store.claim(key, owner="dead", params_hash=None, lease_seconds=10, run_id=str(RUN_ID))


async def in_doubt(runner: Any, **options: Any) -> tuple[Any, RecordingEventSink]:
    """Call a stage whose work was left behind in the middle."""
    store, sink = InMemoryIdempotencyStore(), RecordingEventSink(strict=True)
    await abandoned(store)
    knows = Recorder("knows", priority=1, before=lambda ctx: _declare(ctx, runner))
    once = IdempotencyInterceptor(store, **options)
    return await call(runner, knows, once, sink=sink), sink


def _declare(ctx: Any, runner: Any) -> None:
    ctx._progress.port.runner = runner


@pytest.mark.spec("W27")
async def test_doubt_fails_closed(autojump_clock: MockClock) -> None:
    stage = numbered()

    result, sink = await in_doubt(stage)

    assert (result.error_type, stage.calls) == ("WorkInDoubtError", 0)
    sink.assert_emitted("work.in_doubt", policy="auto", action="failed", operation="shop/charge")


@pytest.mark.spec("W27")
async def test_stage_may_know_what_became_of_its_work(autojump_clock: MockClock) -> None:
    stage = Reconciling(StageOutput.ok(found=True))

    result, sink = await in_doubt(stage)

    assert (result.data, stage.calls, result.replayed) == ({"found": True}, 0, True)
    assert stage.records[0].state is RecordState.IN_DOUBT
    sink.assert_emitted("work.in_doubt", action="reconciled")


@pytest.mark.spec("W27")
async def test_stage_may_know_that_nothing_happened(autojump_clock: MockClock) -> None:
    stage = Reconciling(None)

    result, sink = await in_doubt(stage)

    assert (result.data, stage.calls) == ({"n": 1}, 1)
    sink.assert_emitted("work.in_doubt", action="rerun")


@pytest.mark.spec("W27")
@pytest.mark.parametrize("found", [StageOutput.ok(found=True), None])
async def test_stage_that_is_a_class_is_asked_as_an_object(
    found: StageOutput | None, autojump_clock: MockClock
) -> None:
    class Charge:
        def __init__(self, found: StageOutput | None) -> None:
            self.found = found

        async def execute(self, ctx: StageContext) -> dict[str, int]:
            return {"n": 1}

        async def reconcile(self, ctx: Any, record: Any) -> StageOutput | None:
            return self.found

    store = InMemoryIdempotencyStore()
    await abandoned(store)
    graph = UnifiedStageGraph(
        [StageSpec("charge", Charge, StageKind.WORK, args={"found": found})],
        pipeline_name="shop",
        interceptors=[IdempotencyInterceptor(store)],
    )

    results = await graph.run(PipelineContext(data={"idempotency_key": "k"}))

    assert results.data("charge") == ({"n": 1} if found is None else {"found": True})


@pytest.mark.spec("W27", "W29")
async def test_idempotent_stage_runs_again_under_a_higher_fence(
    autojump_clock: MockClock,
) -> None:
    stage = numbered()
    vars(stage)["idempotent"] = True

    result, _ = await in_doubt(stage)

    assert (result.data, result.replayed) == ({"n": 1}, False)


@pytest.mark.spec("W28")
@pytest.mark.parametrize(("policy", "calls"), [("rerun", 1), ("fail", 0)])
async def test_policy_comes_before_what_the_stage_declares(
    policy: str, calls: int, autojump_clock: MockClock
) -> None:
    stage = Reconciling(StageOutput.ok(found=True))

    result, _ = await in_doubt(stage, in_doubt=policy)

    assert stage.calls == calls
    assert (result.status == "completed") is bool(calls)


@pytest.mark.spec("W27", "W28")
@pytest.mark.parametrize(
    ("policy", "has_reconcile", "is_idempotent", "answer"),
    [
        ("auto", True, True, DoubtAnswer.ASK_STAGE),
        ("auto", True, False, DoubtAnswer.ASK_STAGE),
        ("auto", False, True, DoubtAnswer.RERUN),
        ("auto", False, False, DoubtAnswer.FAIL),
        ("rerun", True, False, DoubtAnswer.RERUN),
        ("fail", True, True, DoubtAnswer.FAIL),
    ],
)
def test_answer_to_doubt(
    policy: str, has_reconcile: bool, is_idempotent: bool, answer: DoubtAnswer
) -> None:
    found = answer_to_doubt(policy, has_reconcile=has_reconcile, is_idempotent=is_idempotent)

    assert found is answer


@pytest.mark.spec("W16", "W18", "W27")
async def test_who_waits_for_an_owner_that_dies_is_told_when_its_lease_ends(
    autojump_clock: MockClock,
) -> None:
    store = InMemoryIdempotencyStore()
    await abandoned_key(store, IdempotencyKey("anonymous", "shop/charge", "k").storage_key)
    start = trio.current_time()

    error = await error_of(numbered(), IdempotencyInterceptor(store))

    assert isinstance(error, WorkInDoubtError)
    assert trio.current_time() - start == pytest.approx(10)


@pytest.mark.spec("W27")
async def test_doubt_that_somebody_else_ends_is_no_error(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()
    await abandoned(store)

    async def reconcile(ctx: Any, record: Any) -> None:
        await store.resolve(record.key, outcome="completed", output=StageOutput.ok(n=9))

    stage = numbered()
    vars(stage)["reconcile"] = reconcile
    knows = Recorder("knows", priority=1, before=lambda ctx: _declare(ctx, stage))

    result = await call(stage, knows, IdempotencyInterceptor(store))

    assert (result.data, stage.calls) == ({"n": 9}, 0)


# Stores


@pytest.mark.spec("W33")
async def test_store_that_cannot_answer_fails_the_stage() -> None:
    class Down(Remote):
        async def claim(self, key: str, **more: Any) -> Claim:
            raise ConnectionError("no route")

    stage = numbered()

    error = await error_of(stage, protected_by(Down()))

    assert isinstance(error, IdempotencyStoreError)
    assert isinstance(error.__cause__, ConnectionError)
    assert stage.calls == 0


@pytest.mark.spec("W33", "W37")
async def test_full_store_fails_the_stage() -> None:
    store = InMemoryIdempotencyStore(max_entries=1)
    await abandoned_key(store, "other")
    stage = numbered()

    error = await error_of(stage, IdempotencyInterceptor(store))

    assert str(error) == "the idempotency store could not claim: full: 1 keys are in progress"
    assert stage.calls == 0


class Forgetful(Remote):
    """Cannot keep a result for a while."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def complete(self, key: str, **more: Any) -> bool:
        self.times -= 1
        if self.times >= 0:
            raise ConnectionError
        return await self.store.complete(key, **more)


@pytest.mark.spec("W33")
async def test_storing_is_tried_again_and_the_output_stands(autojump_clock: MockClock) -> None:
    once = protected_by(Forgetful(3))

    first = await call(numbered(), once)
    second = await call(numbered(), once)

    assert (first.data, second.replayed) == ({"n": 1}, True)


@pytest.mark.spec("W33")
async def test_result_that_cannot_be_stored_leaves_doubt(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    once = protected_by(Forgetful(10**6), lease_seconds=5)

    first = await call(numbered(), once)
    await trio.sleep(10)

    assert first.data == {"n": 1}
    assert "idempotency_result_not_stored" in [it.getMessage() for it in caplog.records]
    assert isinstance(await error_of(numbered(), once), WorkInDoubtError)


@pytest.mark.spec("W32")
async def test_work_whose_result_was_not_kept_is_not_done_again() -> None:
    store = InMemoryIdempotencyStore()
    once = IdempotencyInterceptor(store)
    await call(numbered(), once)
    [record] = store._records.values()
    await store.set(record.key, attrs.evolve(record, output=None))

    assert isinstance(await error_of(numbered(), once), IdempotencyResultUnavailable)


@pytest.mark.spec("W8")
async def test_store_of_the_runtime_spans_interceptors() -> None:
    runtime = SimpleNamespace(idempotency_store=InMemoryIdempotencyStore())
    stage = numbered()

    for _ in range(2):
        await call(stage, IdempotencyInterceptor(), runtime=runtime)

    assert stage.calls == 1
    assert len(runtime.idempotency_store) == 1


@pytest.mark.spec("W8", "W4")
async def test_without_a_runtime_each_interceptor_has_its_own() -> None:
    stage = numbered()

    for _ in range(2):
        await call(stage, IdempotencyInterceptor())

    assert stage.calls == 2


# By hand


@pytest.mark.spec("30.11.12", "W2")
async def test_hooks_can_be_called_by_hand() -> None:
    once = IdempotencyInterceptor()
    ctx = PipelineContext(topology="shop", data={"idempotency_key": "k"})
    result = await run_with_interceptors("charge", numbered(), ctx, [])

    assert await once.before("charge", ctx) is None
    assert await once.after("charge", result, ctx) is None
    await once.release("charge", ctx)
    hit = await once.before("charge", ctx)

    assert hit is not None
    assert (hit.stage_ran, hit.result) == (False, result.output)
    await once.release("charge", ctx)
    assert ctx.data == {"idempotency_key": "k"}


async def test_hooks_without_a_key_do_nothing() -> None:
    once = IdempotencyInterceptor()
    ctx = PipelineContext()
    result = await run_with_interceptors("charge", numbered(), ctx, [])

    assert await once.before("charge", ctx) is None
    assert await once.after("charge", result, ctx) is None
    await once.release("charge", ctx)


# Configuration


@pytest.mark.spec("W23")
@pytest.mark.parametrize(
    "options",
    [
        *({"ttl_seconds": 0}, {"ttl_seconds": -1}, {"ttl_seconds": None}),
        {"ttl_seconds": None, "store": InMemoryIdempotencyStore()},
        *({"wait_timeout_seconds": 0}, {"lease_seconds": 0}),
        *({"in_doubt": "maybe"}, {"on_cancel": "maybe"}),
    ],
    ids=repr,
)
def test_impossible_options_are_refused(options: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))) as caught:
        IdempotencyInterceptor(**options)

    assert isinstance(caught.value, ValueError)


@pytest.mark.spec("W23")
def test_durable_store_may_keep_for_ever() -> None:
    store: Any = Polled()

    IdempotencyInterceptor(store, ttl_seconds=None)


@pytest.mark.spec("W5")
async def test_recorded_times_are_aware(autojump_clock: MockClock) -> None:
    store = InMemoryIdempotencyStore()

    await call(numbered(), IdempotencyInterceptor(store))

    [record] = store._records.values()
    times = (record.created_at, record.completed_at, record.expires_at, record.lease_expires_at)
    assert all(time is not None and time.utcoffset() == timedelta() for time in times)
    assert record.created_at == clock.now()


@pytest.mark.spec("W13")
def test_key_is_not_inherited_unless_it_is_named() -> None:
    parent = PipelineContext(data={"idempotency_key": "k", "_framework": 1, "own": 2})

    assert parent.fork(inherit_data=True).data == {"own": 2}
    assert parent.fork(inherit_data=["idempotency_key"]).data == {"idempotency_key": "k"}
    assert parent.fork(data_overrides={"idempotency_key": "x"}).data == {"idempotency_key": "x"}


@pytest.mark.spec("W7")
def test_errors_of_work_have_codes_of_their_own() -> None:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = [kind.code for kind in found if issubclass(kind, errors.WorkError)]

    assert len(set(codes)) == len(codes) >= 9
    assert all(re.fullmatch(r"WORK-\d{3}(-[A-Z_]+)?", code) for code in codes)


@pytest.mark.spec("W5")
def test_nobody_asks_for_times_without_a_zone() -> None:
    root = Path(__file__).parent.parent.parent
    naive = re.compile(r"\.utc" r"now\(|utc" r"fromtimestamp\(")
    pages = [
        page
        for folder in ("actorflow", "tests", "docs", "examples")
        for kind in ("*.py", "*.md")
        for page in (root / folder).rglob(kind)
    ]

    assert len(pages) > 100
    assert [page for page in pages if naive.search(page.read_text("utf-8"))] == []


class Distant(Remote):
    """Everything takes a tenth of a second to get there, and one to get back."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)

        async def over_there(*args: Any, **options: Any) -> Any:
            await trio.sleep(0.1)
            answer = await found(*args, **options)
            await trio.sleep(0.1)
            return answer

        return over_there


@pytest.mark.spec("W2", "W18", "W19", "30.11.9")
@pytest.mark.parametrize("tick", range(25))
@pytest.mark.parametrize("on_cancel", ["release", "in_doubt"])
async def test_cancellation_at_any_moment_leaves_no_claim(
    on_cancel: Any, tick: int, autojump_clock: MockClock
) -> None:
    distant = Distant()
    once = protected_by(distant, on_cancel=on_cancel, lease_seconds=1.5)
    stage = Stage({"n": 1})
    slow = taking(1, stage)

    seconds = tick * 0.1 + 0.05

    with trio.move_on_after(seconds):
        await call(slow, once)

    states = [record.state for record in distant.store._records.values()]
    if stage.calls == 1:
        # The work is done, whatever else was cancelled.
        assert states == [RecordState.COMPLETED]
    elif on_cancel == "in_doubt" and seconds > 0.2:  # claiming takes that long
        assert states == [RecordState.IN_DOUBT]
    else:
        assert states == []
