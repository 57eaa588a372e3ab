from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from actorflow.cancellation import (
    CancellationToken,
    CleanupRegistry,
    StructuredTaskGroup,
    cleanup_on_cancel,
    run_with_cleanup,
)
from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    TaskGroupClosedError,
)


def logged(caplog: pytest.LogCaptureFixture, *keys: str) -> list[tuple[object, ...]]:
    """The message and the values under `keys` of everything that was logged."""
    return [
        (record.getMessage(), *(vars(record)[key] for key in keys)) for record in caplog.records
    ]


def fail() -> None:
    raise ValueError("broken")


async def fail_later() -> None:
    await trio.sleep(1)
    raise ValueError("broken")


# The token


@pytest.mark.spec("30.10.1")
def test_first_reason_wins_and_callbacks_run_once_in_order() -> None:
    token = CancellationToken()
    calls: list[str] = []
    token.on_cancel(lambda: calls.append("first"))
    token.on_cancel(lambda: calls.append("second"))
    before = (token.is_cancelled, token.reason)

    token.cancel("enough")
    token.cancel("too late")

    assert before == (False, None)
    assert (token.is_cancelled, token.reason) == (True, "enough")
    assert calls == ["first", "second"]


@pytest.mark.spec("30.10.1")
def test_reason_has_a_default() -> None:
    token = CancellationToken()

    token.cancel()

    assert token.reason == "Cancellation requested"


@pytest.mark.spec("30.10.2")
def test_callback_of_cancelled_token_is_called_at_once() -> None:
    token = CancellationToken()
    token.cancel()
    calls: list[str | None] = []

    token.on_cancel(lambda: calls.append(token.reason))

    assert calls == ["Cancellation requested"]


@pytest.mark.spec("30.10.2")
def test_failing_callback_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    token = CancellationToken()
    calls: list[str] = []
    token.on_cancel(fail)
    token.on_cancel(lambda: calls.append("second"))

    token.cancel()
    token.on_cancel(fail)

    assert calls == ["second"]
    assert logged(caplog, "callback") == [
        ("cancel_callback_failed", "fail"),
        ("cancel_callback_failed", "fail"),
    ]


@pytest.mark.spec("30.10.3")
async def test_token_may_be_cancelled_from_any_thread() -> None:
    token = CancellationToken()
    callers: list[int] = []
    token.on_cancel(lambda: callers.append(threading.get_ident()))
    woken: list[str] = []
    thread: list[int] = []

    async def wait() -> None:
        await token.wait()
        woken.append("waiter")

    async def work() -> None:
        with token.scope() as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        woken.append("scope")

    def cancel() -> None:
        thread.append(threading.get_ident())
        token.cancel("from a thread")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(cancel)

    assert sorted(woken) == ["scope", "waiter"]
    assert callers == thread != [threading.get_ident()]
    assert token.reason == "from a thread"


@pytest.mark.spec("30.10.1", "30.10.2", "30.10.3")
def test_each_callback_runs_once_whoever_cancels_meanwhile() -> None:
    token = CancellationToken()
    calls: list[int] = []
    barrier = threading.Barrier(16)

    def register_and_cancel(number: int) -> None:
        barrier.wait()
        for index in range(50):
            token.on_cancel(partial(calls.append, number * 50 + index))
            if index == 25:
                token.cancel(f"by {number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(register_and_cancel, range(16)))

    assert sorted(calls) == list(range(800))
    assert token.reason in {f"by {number}" for number in range(16)}


def test_signal_handler_may_cancel_a_token_that_is_being_cancelled() -> None:
    token = CancellationToken()

    class Interrupted(str):
        """A reason that is looked at just when the signal comes."""

        __slots__ = ()

        def __len__(self) -> int:
            token.cancel("by the handler")
            return super().__len__()

    thread = threading.Thread(target=token.cancel, args=(Interrupted("first"),), daemon=True)
    thread.start()
    thread.join(timeout=10)

    assert not thread.is_alive()
    assert token.is_cancelled


@pytest.mark.spec("30.10.3")
async def test_scopes_in_the_cancelling_run_are_cancelled_before_cancel_returns() -> None:
    token = CancellationToken()

    with token.scope() as scope:
        token.cancel()
        was_called = scope.cancel_called

    assert was_called


async def test_cancelled_token_cancels_a_scope_at_its_entry() -> None:
    token = CancellationToken()
    token.cancel()
    await token.wait()

    with token.scope() as scope:
        await trio.sleep_forever()

    assert scope.cancelled_caught


async def test_left_scopes_and_waits_leave_nothing_on_the_token() -> None:
    token = CancellationToken()

    with token.scope():
        await trio.lowlevel.checkpoint()
    with trio.move_on_after(0):
        await token.wait()

    assert not token._callbacks


def test_cancelling_after_the_run_of_a_waiter_has_ended_does_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = CancellationToken()
    wakeups = ExitStack()

    # Left behind on purpose: a run may end after another thread, in `cancel`, has
    # decided to wake it.
    async def leave_a_wakeup_behind() -> None:
        wakeups.enter_context(token._waking(fail))

    trio.run(leave_a_wakeup_behind)
    token.cancel()

    assert token.is_cancelled
    assert logged(caplog) == []


@pytest.mark.spec("30.10.3")
def test_linked_token_follows_its_parent_and_not_the_reverse() -> None:
    parent = CancellationToken()
    child, other = CancellationToken.linked(parent), CancellationToken.linked(parent)

    other.cancel("alone")
    assert not parent.is_cancelled
    parent.cancel("all")

    assert (child.reason, other.reason) == ("all", "alone")
    assert CancellationToken.linked(parent).reason == "all"


def test_parent_forgets_a_linked_token_that_nobody_holds() -> None:
    parent = CancellationToken()
    child = CancellationToken.linked(parent)
    seen = weakref.ref(child)

    del child
    gc.collect()

    assert seen() is None
    assert not parent._callbacks


def test_linked_token_may_vanish_while_its_parent_is_being_cancelled() -> None:
    parent = CancellationToken()
    held: list[CancellationToken] = []
    parent.on_cancel(held.clear)
    held.append(CancellationToken.linked(parent))

    parent.cancel()

    assert not held


class AsyncCallable:
    async def __call__(self) -> None: ...


async def nothing() -> None: ...


@pytest.mark.parametrize("callback", [None, 5, nothing, partial(nothing), AsyncCallable()])
def test_callback_must_be_a_sync_function(callback: Any) -> None:
    with pytest.raises(InvalidTypeError, match="callback must be a function that needs no await"):
        CancellationToken().on_cancel(callback)


# The registry


class Recorder:
    """Cleanups that note when they ran."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sync(self, name: str) -> Callable[[], None]:
        return partial(self.calls.append, name)

    def taking(self, name: str, seconds: float) -> Callable[[], Awaitable[None]]:
        async def cleanup() -> None:
            await trio.sleep(seconds)
            self.calls.append(name)

        return cleanup

    def method(self) -> None:
        self.calls.append("method")


@pytest.mark.spec("30.10.4")
async def test_cleanup_names_work_for_everything_callable() -> None:
    recorder = Recorder()
    registry = CleanupRegistry()

    def plain() -> None: ...

    def named() -> None: ...

    def marked() -> None: ...

    marked.__cleanup_name__ = "mark"  # type: ignore[attr-defined]
    part = partial(plain)
    registry.register(plain)
    registry.register(part)
    registry.register(marked)
    registry.register(AsyncCallable())
    registry.register(recorder.method)
    registry.register(named, name="close database")
    registry.register(recorder.method, name="method by name")
    registry.register([].clear, name="builtin by name")

    report = await registry.run_all()

    assert list(reversed(report.completed)) == [
        "plain",
        "partial",
        "mark",
        "AsyncCallable",
        "method",
        "close database",
        "method by name",
        "builtin by name",
    ]
    assert named.__cleanup_name__ == "close database"  # type: ignore[attr-defined]
    assert not hasattr(part, "__cleanup_name__")


@pytest.mark.spec("30.10.5")
async def test_cleanups_run_last_registered_first_one_after_another(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.taking("first", 1))
    registry.register(recorder.sync("second"))
    registry.register(recorder.taking("third", 2))
    start = trio.current_time()

    completed, failed = await registry.run_all(timeout=9)

    assert recorder.calls == ["third", "second", "first"]
    assert (len(completed), failed) == (3, [])
    assert trio.current_time() - start == pytest.approx(3)


@pytest.mark.spec("30.10.5", "30.10.6")
async def test_each_cleanup_has_an_equal_share_of_the_time(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.taking("quick", 4.9), name="quick")
    registry.register(recorder.taking("slow", 5.1), name="slow")
    start = trio.current_time()

    completed, failed = await registry.run_all(timeout=10)

    assert recorder.calls == completed == ["quick"]
    assert [(name, type(error), str(error)) for name, error in failed] == [
        ("slow", TimeoutError, "Cleanup timed out: slow")
    ]
    assert trio.current_time() - start == pytest.approx(9.9)


@pytest.mark.spec("30.10.5")
async def test_cleanup_keeps_its_share_when_another_has_used_all_the_time(
    mock_clock: MockClock,
) -> None:
    mock_clock.autojump_threshold = 0
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.taking("first", 4))
    registry.register(partial(mock_clock.jump, 20), name="blocking")

    completed, failed = await registry.run_all(timeout=10)

    assert recorder.calls == ["first"]
    assert (len(completed), failed) == (2, [])


@pytest.mark.spec("30.10.5")
async def test_share_of_a_cleanup_is_never_below_ten_milliseconds(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.taking("quick", 0.009))
    registry.register(recorder.taking("slow", 0.011))

    await registry.run_all(timeout=0)

    assert recorder.calls == ["quick"]


@pytest.mark.spec("30.10.6")
async def test_failing_cleanup_is_reported_and_the_rest_continue() -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.sync("first"), name="first")
    registry.register(fail)
    pending = registry.pending_count

    completed, failed = await registry.run_all()

    assert pending == 2
    assert registry.pending_count == 0
    assert completed == recorder.calls == ["first"]
    assert [(name, str(error)) for name, error in failed] == [("fail", "broken")]
    assert await registry.run_all() == ([], [])


@pytest.mark.spec("30.10.7")
async def test_cleanups_complete_in_a_cancelled_scope(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.taking("first", 1))
    registry.register(recorder.taking("second", 1))

    with trio.CancelScope() as scope:
        scope.cancel()
        report = await registry.run_all()
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert len(report.completed) == 2
    assert recorder.calls == ["second", "first"]


@pytest.mark.spec("30.10.7")
async def test_cleanups_registered_meanwhile_run_too_last_first() -> None:
    recorder = Recorder()
    registry = CleanupRegistry()

    def register_more() -> None:
        recorder.calls.append("more")
        registry.register(recorder.sync("late 1"))
        registry.register(recorder.sync("late 2"))

    registry.register(recorder.sync("first"))
    registry.register(register_more)

    await registry.run_all()

    assert recorder.calls == ["more", "late 2", "late 1", "first"]


@pytest.mark.spec("30.10.7")
async def test_late_cleanups_get_little_time_once_it_is_used_up(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()

    async def first() -> None:
        registry.register(recorder.taking("in time", 3), name="in time")
        await trio.sleep(4)

    async def second() -> None:
        registry.register(recorder.taking("short", 0.009), name="short")
        registry.register(recorder.taking("long", 0.011), name="long")
        await trio.sleep(4)

    registry.register(second)
    registry.register(first)

    completed, failed = await registry.run_all(timeout=10)

    assert completed == ["first", "in time", "second", "short"]
    assert [name for name, _ in failed] == ["long"]


@pytest.mark.spec("30.10.7")
async def test_cleanups_cannot_register_further_ones_for_ever() -> None:
    registry = CleanupRegistry()
    calls: list[int] = []

    def again() -> None:
        calls.append(len(calls))
        registry.register(again)

    registry.register(again)

    completed, failed = await registry.run_all()

    assert len(calls) == 1_001
    assert len(completed) == 1_000
    [(_, error)] = failed
    assert isinstance(error, InvalidArgumentError)
    registry.register(again)
    assert len((await registry.run_all()).completed) == 1_000


@pytest.mark.spec("30.10.8")
async def test_two_runs_at_once_call_each_cleanup_once(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    for name in "abcd":
        registry.register(recorder.taking(name, 1), name=name)
    completed: list[str] = []

    async def run_all() -> None:
        completed.extend((await registry.run_all()).completed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_all)
        nursery.start_soon(run_all)

    assert sorted(recorder.calls) == sorted(completed) == ["a", "b", "c", "d"]


@pytest.mark.spec("30.10.8")
async def test_unregister_removes_the_newest_equal_callback() -> None:
    recorder = Recorder()
    registry = CleanupRegistry()
    registry.register(recorder.method, name="old")
    registry.register(fail)
    registry.register(recorder.method, name="new")

    assert registry.unregister(recorder.method)
    assert not registry.unregister(nothing)

    completed, failed = await registry.run_all()
    assert completed == ["old"]
    assert len(failed) == 1


async def test_registry_refuses_bad_arguments() -> None:
    registry = CleanupRegistry()
    not_callable: Any = 5

    with pytest.raises(InvalidTypeError, match="callback must be a function without arguments"):
        registry.register(not_callable)
    with pytest.raises(InvalidArgumentError, match="timeout must be zero or more seconds"):
        await registry.run_all(timeout=-1)


# The task group


@pytest.mark.spec("30.10.9")
async def test_failing_task_cancels_the_others_at_once(autojump_clock: MockClock) -> None:
    reasons: list[str | None] = []
    start = trio.current_time()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            reasons.append(group.cancel_token.reason)

    with pytest.raises(ValueError, match="broken") as caught:
        async with StructuredTaskGroup() as group:
            group.create_task(work)
            group.create_task(fail_later())
            await work()

    assert reasons == ["Task failed", "Task failed"]
    assert trio.current_time() - start == 1
    assert caught.value.__context__ is None


@pytest.mark.spec("30.10.9")
async def test_failing_body_cancels_the_tasks() -> None:
    with pytest.raises(ValueError, match="broken"):
        async with StructuredTaskGroup() as group:
            task = group.create_task(trio.sleep_forever)
            fail()

    assert task.done
    assert group.cancel_token.reason == "Exception in task group"


@pytest.mark.spec("30.10.9")
async def test_cancelled_group_says_so_while_it_waits_for_its_tasks() -> None:
    reasons: list[str | None] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            reasons.append(group.cancel_token.reason)

    with trio.CancelScope() as scope:
        async with StructuredTaskGroup() as group:
            group.create_task(work)
            await wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught
    assert group.cancel_token.reason == "Cancelled by enclosing scope"
    assert reasons in ([None], ["Cancelled by enclosing scope"])


@pytest.mark.spec("30.10.9")
async def test_cancelled_group_says_so_to_its_tasks(autojump_clock: MockClock) -> None:
    seen: list[str | None] = []

    async def work() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            seen.append(group.cancel_token.reason)

    with trio.move_on_after(1) as scope:
        async with StructuredTaskGroup() as group:
            group.create_task(work)
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert seen == ["Cancelled by enclosing scope"]


@pytest.mark.spec("30.10.10")
async def test_group_waits_for_its_tasks_and_cleans_up_after_success(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []

    async def work(name: str, seconds: float) -> None:
        await trio.sleep(seconds)
        order.append(name)

    async with StructuredTaskGroup() as group:
        group.cleanup_registry.register(partial(order.append, "cleanup"))
        slow = group.create_task(work, "slow", 2, name="slowly")
        quick = group.create_task(work("quick", 1))
        await quick.wait()
        states = (quick.done, slow.done)

    assert order == ["quick", "slow", "cleanup"]
    assert states == (True, False)
    assert (slow.name, quick.name) == ("slowly", "work")
    assert not group.cancel_token.is_cancelled


@pytest.mark.spec("30.10.10")
async def test_several_failures_come_out_together(autojump_clock: MockClock) -> None:
    async def fail_while_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    with pytest.raises(ExceptionGroup) as caught:
        async with StructuredTaskGroup() as group:
            group.cleanup_registry.register(nothing)
            group.create_task(fail_while_cancelled)
            group.create_task(fail_later)

    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}
    assert group.cleanup_registry.pending_count == 0


@pytest.mark.spec("30.10.10")
async def test_failure_during_a_cancellation_from_outside_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    async def fail_while_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    cleaned: list[str] = []
    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(1) as scope:
        async with StructuredTaskGroup() as group:
            group.cleanup_registry.register(Recorder().taking("x", 1))
            group.cleanup_registry.register(partial(cleaned.append, "yes"))
            group.create_task(fail_while_cancelled)
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert cleaned == ["yes"]


@pytest.mark.spec("30.10.10")
async def test_group_in_a_cancelled_scope_leaves_no_coroutine_unawaited() -> None:
    started: list[str] = []

    async def work() -> None:
        started.append("yes")
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        async with StructuredTaskGroup() as group:
            group.create_task(work())

    assert scope.cancelled_caught
    assert started == ["yes"]


async def test_interrupt_in_a_task_ends_the_group_after_its_cleanups() -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    cleaned: list[str] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        async with StructuredTaskGroup() as group:
            group.cleanup_registry.register(partial(cleaned.append, "yes"))
            other = group.create_task(trio.sleep_forever)
            group.create_task(interrupt)

    assert caught.group_contains(KeyboardInterrupt)
    assert cleaned == ["yes"]
    assert other.done


async def test_cancelling_the_token_ends_a_group_quietly() -> None:
    async with StructuredTaskGroup() as group:
        task = group.create_task(trio.sleep_forever)
        group.cancel_token.cancel("enough")
        await trio.sleep_forever()

    assert task.done
    assert group.cancel_token.reason == "enough"


async def test_one_task_can_be_cancelled_alone(autojump_clock: MockClock) -> None:
    sequence = Sequencer()

    async def work() -> None:
        async with sequence(1):
            pass

    async with StructuredTaskGroup() as group:
        alone = group.create_task(trio.sleep_forever)
        group.create_task(work)
        async with sequence(0):
            alone.cancel()
            await alone.wait()

    assert alone.done
    assert not group.cancel_token.is_cancelled


@pytest.mark.spec("30.10.11")
async def test_failed_cleanup_of_a_group_is_logged_and_replaces_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError):
        async with StructuredTaskGroup() as group:
            group.cleanup_registry.register(fail, name="close files")
            raise KeyError("body")

    assert logged(caplog, "cleanup") == [("cleanup_failed", "close files")]


async def test_group_bounds_its_cleanups(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    start = trio.current_time()

    async with StructuredTaskGroup(cleanup_timeout=3) as group:
        group.cleanup_registry.register(trio.sleep_forever)

    assert trio.current_time() - start == 3
    assert len(logged(caplog)) == 1


async def test_group_refuses_bad_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="cleanup_timeout"):
        StructuredTaskGroup(cleanup_timeout=-1)
    not_async: Any = fail.__doc__
    sync: Any = list

    async with StructuredTaskGroup() as group:
        with pytest.raises(InvalidTypeError, match="work must be a coroutine or an async"):
            group.create_task(not_async)
        with pytest.raises(InvalidTypeError, match="work must be a coroutine or an async"):
            group.create_task(sync)
        with pytest.raises(InvalidArgumentError, match="args must be empty"):
            group.create_task(nothing(), 1)

    for closed in (group, StructuredTaskGroup()):
        with pytest.raises(TaskGroupClosedError, match="task 'nothing' cannot start"):
            closed.create_task(nothing())


# One cleanup


@pytest.mark.spec("30.10.12")
@pytest.mark.parametrize("ending", ["normal", "exception", "cancellation"])
@pytest.mark.parametrize("form", ["block", "call"])
async def test_cleanup_runs_once_and_shielded_however_the_work_ends(
    form: str, ending: str, autojump_clock: MockClock
) -> None:
    recorder = Recorder()
    cleanup = recorder.taking("cleanup", 1)

    async def work() -> str:
        if ending == "exception":
            fail()
        if ending == "cancellation":
            await trio.sleep_forever()
        return "result"

    async def run() -> str:
        if form == "call":
            return await run_with_cleanup(work(), cleanup)
        async with cleanup_on_cancel(cleanup):
            return await work()

    result = None
    with trio.move_on_after(1) as scope:
        try:
            result = await run()
        except ValueError:
            assert ending == "exception"

    assert recorder.calls == ["cleanup"]
    assert result == ("result" if ending == "normal" else None)
    assert scope.cancelled_caught == (ending == "cancellation")


@pytest.mark.spec("30.10.13")
async def test_slow_cleanup_after_a_call_is_abandoned_and_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    start = trio.current_time()

    async def work() -> int:
        await trio.sleep(1)
        return 7

    result = await run_with_cleanup(work, trio.sleep_forever, cleanup_timeout=2)

    assert result == 7
    assert trio.current_time() - start == 3
    assert logged(caplog, "cleanup", "levelname") == [
        ("cleanup_timed_out", "sleep_forever", "WARNING")
    ]


@pytest.mark.spec("30.10.13")
async def test_slow_cleanup_of_a_block_raises(autojump_clock: MockClock) -> None:
    with pytest.raises(TimeoutError, match=r"^Cleanup timed out: close$"):
        async with cleanup_on_cancel(trio.sleep_forever, name="close", timeout=2):
            pass

    assert trio.current_time() == 2


@pytest.mark.spec("30.10.14")
async def test_error_of_a_cleanup_comes_out_of_work_that_succeeded() -> None:
    async def time_out() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(ValueError, match="broken"):
        async with cleanup_on_cancel(fail):
            pass
    with pytest.raises(TimeoutError, match="of its own"):
        await run_with_cleanup(nothing, time_out)


@pytest.mark.spec("30.10.13", "30.10.14")
@pytest.mark.parametrize("cleanup", [fail, trio.sleep_forever])
async def test_how_the_work_ended_wins_over_the_cleanups_error(
    cleanup: Callable[[], Any], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyError) as caught:
        async with cleanup_on_cancel(cleanup, name="close"):
            raise KeyError("body")
    with trio.CancelScope() as scope:
        scope.cancel()
        async with cleanup_on_cancel(cleanup, name="close"):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    [note] = caught.value.__notes__
    assert note.startswith("cleanup close failed too: ")
    assert logged(caplog, "cleanup") == [("cleanup_failed", "close")] * 2


async def test_single_cleanups_refuse_bad_arguments() -> None:
    bad: Any = 5

    with pytest.raises(InvalidTypeError, match="cleanup must be a function"):
        cleanup_on_cancel(bad)
    with pytest.raises(InvalidArgumentError, match="timeout must be zero"):
        cleanup_on_cancel(fail, timeout=float("nan"))
    with pytest.raises(InvalidTypeError, match="cleanup must be a function"):
        await run_with_cleanup(nothing(), bad)
    with pytest.raises(InvalidArgumentError, match="cleanup_timeout must be zero"):
        await run_with_cleanup(nothing(), fail, cleanup_timeout=-1)
    with pytest.raises(InvalidTypeError, match="work must be a coroutine"):
        await run_with_cleanup(bad, fail)


def test_reason_is_never_empty() -> None:
    token = CancellationToken()

    token.cancel("")

    assert token.reason == "Cancellation requested"


async def test_others_run_while_nothing_is_cleaned_up() -> None:
    registry = CleanupRegistry()
    seen: list[str] = []

    async def other() -> None:
        seen.append("other")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        # Twice: tasks that are due at the same time run in any order.
        await registry.run_all()
        await registry.run_all()
        assert seen == ["other"]


def test_interrupt_in_a_callback_keeps_no_other_from_being_called() -> None:
    token = CancellationToken()
    called: list[int] = []

    def interrupted() -> None:
        called.append(1)
        raise KeyboardInterrupt

    token.on_cancel(interrupted)
    token.on_cancel(lambda: called.append(2))

    with pytest.raises(KeyboardInterrupt):
        token.cancel()
    assert called == [1, 2]
