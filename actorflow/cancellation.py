"""Ending work early, and cleaning up after it however it ends.

A token says that somebody wants an end; a registry keeps what has to happen
then. Cleanups run shielded: a cancellation never takes away the time to clean
up, but each cleanup has a limit, so it cannot keep a cancelled task alive.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, final

import attrs
import trio

from actorflow.errors import (
    ActorflowError,
    InvalidArgumentError,
    InvalidTypeError,
    TaskGroupClosedError,
)

_T = TypeVar("_T")

Cleanup: TypeAlias = Callable[[], object]
"""A function without arguments, sync or async, that puts something in order."""

Work: TypeAlias = Coroutine[Any, Any, _T] | Callable[..., Coroutine[Any, Any, _T]]
"""A coroutine, or the async function that makes one."""

_REQUESTED: Final = "Cancellation requested"

_log: Final = logging.getLogger("actorflow.cancellation")


# The token


@final
class CancellationToken:
    """A request to end, made once, by anybody, and seen by all who hold the token.

    `cancel` may be called from any thread. Callbacks run in the thread that calls
    it; tasks that wait, or work inside `scope`, wake in their own trio run.
    """

    __slots__ = ("__weakref__", "_callbacks", "_lock", "_reason")

    def __init__(self) -> None:
        # Reentrant, because a signal handler may cancel while its own thread does.
        self._lock = threading.RLock()
        self._reason: str | None = None
        self._callbacks: dict[object, Callable[[], object]] = {}

    @classmethod
    def linked(cls, parent: CancellationToken) -> CancellationToken:
        """Return a token that is cancelled with `parent`, but not the reverse.

        The parent does not keep it alive: a long-lived token may have had any
        number of short-lived ones linked to it.
        """
        child = cls()
        key = object()
        seen = weakref.ref(child, lambda _: parent._forget(key))

        def pass_on() -> None:
            token = seen()
            if token is not None:
                token.cancel(parent.reason or _REQUESTED)

        parent._subscribe(key, pass_on)
        return child

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """Why, in the words of the first call of `cancel`; None before it."""
        return self._reason

    def cancel(self, reason: str = _REQUESTED) -> None:
        """Ask for the end; only the first call counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason or _REQUESTED
            callbacks, self._callbacks = self._callbacks, {}
        # Outside the lock: callbacks are user code and may use the token. An interrupt
        # in one of them must not keep the others from waking who waits.
        with ExitStack() as calls:
            for callback in reversed(callbacks.values()):
                calls.callback(_call_back, callback)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the token is cancelled, or now if it is already.

        What it raises is logged and goes no further.

        Raises:
          InvalidTypeError: if `callback` is not callable, or async.
        """
        if not _is_sync_function(callback):
            raise InvalidTypeError("callback", callback, "a function that needs no await")
        self._subscribe(object(), callback)

    async def wait(self) -> None:
        """Return when the token is cancelled."""
        cancelled = trio.Event()
        with self._waking(cancelled.set):
            await cancelled.wait()

    @contextmanager
    def scope(self) -> Iterator[trio.CancelScope]:
        """A trio cancel scope that the token cancels."""
        with trio.CancelScope() as scope, self._waking(lambda: scope.cancel(self._reason)):
            yield scope

    @contextmanager
    def _waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake` in this trio run when the token is cancelled inside the block."""
        home = trio.lowlevel.current_trio_token()

        def wake_at_home() -> None:
            if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is home:
                wake()
                return
            # A run that has ended has nobody left to wake.
            with suppress(trio.RunFinishedError):
                home.run_sync_soon(wake)

        key = object()
        self._subscribe(key, wake_at_home)
        try:
            yield
        finally:
            self._forget(key)

    def _subscribe(self, key: object, callback: Callable[[], object]) -> None:
        with self._lock:
            is_late = self._reason is not None
            if not is_late:
                self._callbacks[key] = callback
        if is_late:
            _call_back(callback)

    def _forget(self, key: object) -> None:
        # No lock: the garbage collector may call this while this thread holds it.
        self._callbacks.pop(key, None)


def _call_back(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - callbacks are user code
        _log.exception("cancel_callback_failed", extra={"callback": _name_of(callback)})


def _is_sync_function(value: object) -> bool:
    # Of an object that its class makes callable, `__call__` may be the async one.
    return callable(value) and not any(
        map(inspect.iscoroutinefunction, (value, type(value).__call__))
    )


# Cleanups


@final
class CleanupReport(NamedTuple):
    """How the cleanups of a registry went, in the order they ran."""

    completed: list[str]
    failed: list[tuple[str, Exception]]


@final
class CleanupRegistry:
    """What has to be put in order at the end, last registered first."""

    _SHORTEST: Final = 0.01
    _LATE_MAX: Final = 1_000

    def __init__(self) -> None:
        self._pending: list[tuple[str, Cleanup]] = []
        self._running = 0
        self._late = 0

    @property
    def pending_count(self) -> int:
        return len(self._pending)

    def register(self, callback: Cleanup, *, name: str | None = None) -> None:
        """Have `callback` called by `run_all`; `name` is what reports call it.

        Raises:
          InvalidTypeError: if `callback` is not callable.
          InvalidArgumentError: if running cleanups have registered too many others.
        """
        _check_callable("callback", callback)
        if self._running:
            # Else a cleanup that registers itself again would never end.
            if self._late >= self._LATE_MAX:
                raise InvalidArgumentError(
                    "callback", callback, f"one of {self._LATE_MAX} registered during cleanup"
                )
            self._late += 1
        if name is not None:
            # Bound methods, builtins and frozen objects refuse; the name is kept here too.
            with suppress(AttributeError, TypeError):
                setattr(callback, "__cleanup_name__", name)  # noqa: B010 - mypy knows no such attribute
        self._pending.append((name or _name_of(callback), callback))

    def unregister(self, callback: Cleanup) -> bool:
        """Forget the newest registration of `callback`; False if there is none."""
        for index in reversed(range(len(self._pending))):
            if self._pending[index][1] == callback:
                del self._pending[index]
                return True
        return False

    async def run_all(self, *, timeout: float = 10.0) -> CleanupReport:
        """Run and remove every cleanup, one after another, within about `timeout` seconds.

        Each gets an equal share of the time. What one raises, or that it was too
        slow, is in the report and does not keep the next from running. A cancellation
        from outside is not lost: it arrives when this has returned.
        """
        _check_duration("timeout", timeout)
        if not self._running:
            self._late = 0
        self._running += 1
        try:
            return await self._run_pending(timeout)
        finally:
            self._running -= 1

    async def _run_pending(self, timeout: float) -> CleanupReport:
        report = CleanupReport([], [])
        known = len(self._pending)
        share = max(timeout / max(known, 1), self._SHORTEST)
        end = trio.current_time() + timeout
        while self._pending:
            # Taken before it runs, so that a second run_all meanwhile finds the others only.
            name, callback = self._pending.pop()
            is_late = len(self._pending) >= known
            known = min(known, len(self._pending))
            limit = self._SHORTEST if is_late and trio.current_time() >= end else share
            try:
                await _run_in_time(name, callback, limit)
            except Exception as error:  # noqa: BLE001 - cleanups are user code
                report.failed.append((name, error))
            else:
                report.completed.append(name)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return report


def cleanup_on_cancel(
    cleanup: Cleanup, *, name: str | None = None, timeout: float = 10.0
) -> AbstractAsyncContextManager[None]:
    """Run `cleanup` once when the block ends: normally, by an exception, or cancelled.

    What the cleanup raises, a `TimeoutError` when it is too slow included, comes
    out of a block that ended well. Otherwise how the block ended counts; the
    cleanup's error is logged and becomes a note.

    Raises:
      InvalidTypeError: if `cleanup` is not callable.
      InvalidArgumentError: if `timeout` is negative.
    """
    _check_callable("cleanup", cleanup)
    _check_duration("timeout", timeout)
    name = name or _name_of(cleanup)
    return _afterwards(name, partial(_run_in_time, name, cleanup, timeout))


async def run_with_cleanup(work: Work[_T], cleanup: Cleanup, *, cleanup_timeout: float = 5.0) -> _T:
    """Return the result of `work` after running `cleanup` once, however `work` ended.

    A cleanup that is too slow is abandoned and logged. Its other errors come out
    if `work` succeeded; otherwise they are logged and become a note.

    Raises:
      InvalidTypeError: if `work` is neither coroutine nor async function, or
        `cleanup` is not callable.
      InvalidArgumentError: if `cleanup_timeout` is negative.
    """
    name = _name_of(cleanup)

    async def clean_up() -> None:
        if not await _ends_in_time(cleanup, cleanup_timeout):
            _log.warning("cleanup_timed_out", extra={"cleanup": name, "timeout": cleanup_timeout})

    coroutine: Coroutine[Any, Any, _T] = _coroutine_of("work", work)
    try:
        _check_callable("cleanup", cleanup)
        _check_duration("cleanup_timeout", cleanup_timeout)
    except ActorflowError:
        # Python would warn that nobody awaited it.
        coroutine.close()
        raise
    async with _afterwards(name, clean_up):
        return await coroutine


@asynccontextmanager
async def _afterwards(
    name: str, clean_up: Callable[[], Awaitable[None]]
) -> AsyncGenerator[None, None]:
    async def settle(_: object, outcome: BaseException | None, __: object) -> None:
        try:
            await clean_up()
        except Exception as error:
            if outcome is None:
                raise
            _log.exception("cleanup_failed", extra={"cleanup": name})
            outcome.add_note(f"cleanup {name} failed too: {error!r}")

    async with AsyncExitStack() as stack:
        stack.push_async_exit(settle)
        yield


async def _run_in_time(name: str, cleanup: Cleanup, limit: float) -> None:
    if not await _ends_in_time(cleanup, limit):
        raise TimeoutError(f"Cleanup timed out: {name}")


async def _ends_in_time(cleanup: Cleanup, limit: float) -> bool:
    with trio.move_on_after(limit, shield=True) as scope:
        result = cleanup()
        if inspect.isawaitable(result):
            await result
    return not scope.cancelled_caught


def _name_of(function: object) -> str:
    for attribute in ("__cleanup_name__", "__name__"):
        name = getattr(function, attribute, None)
        if isinstance(name, str):
            return name
    return type(function).__name__


# Tasks


@final
@attrs.frozen(eq=False)
class TaskHandle:
    """A task of a `StructuredTaskGroup`."""

    name: str
    _scope: trio.CancelScope
    _ended: trio.Event

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """Cancel this task alone; its group goes on."""
        self._scope.cancel()

    async def wait(self) -> None:
        """Return when the task has ended, however it did."""
        await self._ended.wait()


@final
class StructuredTaskGroup:
    """Tasks that end together, with cleanups that run when all of them have ended.

    The first failure cancels the others at once. Leaving the block waits for all
    tasks, runs the cleanups, also after success, and then raises what failed: one
    failure as itself, several as an `ExceptionGroup`. Cancelling `cancel_token`
    ends the tasks and the block without an exception.
    """

    def __init__(self, *, cleanup_timeout: float = 10.0) -> None:
        _check_duration("cleanup_timeout", cleanup_timeout)
        self.cancel_token: Final = CancellationToken()
        self.cleanup_registry: Final = CleanupRegistry()
        self._cleanup_timeout = cleanup_timeout
        self._nursery: trio.Nursery | None = None
        self._failures: list[BaseException] = []
        self._block = AsyncExitStack()

    async def __aenter__(self) -> StructuredTaskGroup:
        # Left in reverse order: note how the body ended, wait for the tasks, absorb
        # what the token cancelled, clean up.
        self._block.push_async_exit(self._finish)
        self._block.enter_context(self.cancel_token.scope())
        self._nursery = await self._block.enter_async_context(trio.open_nursery())
        self._block.enter_context(self._noting("Exception in task group"))
        return self

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[bool | None]:
        return self._block.__aexit__(kind, error, traceback)

    def create_task(self, work: Work[Any], *args: object, name: str | None = None) -> TaskHandle:
        """Start a coroutine, or an async function with `args`, as a task of the group.

        Raises:
          InvalidTypeError: if `work` is neither.
          InvalidArgumentError: if there are `args` for a coroutine.
          TaskGroupClosedError: outside the group's block.
        """
        coroutine = _coroutine_of("work", work, *args)
        name = name or _name_of(coroutine)
        if self._nursery is None:
            coroutine.close()
            raise TaskGroupClosedError(name)
        scope, ended = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._run, coroutine, scope, ended, name=name)
        return TaskHandle(name, scope, ended)

    async def _run(
        self, coroutine: Coroutine[Any, Any, object], scope: trio.CancelScope, ended: trio.Event
    ) -> None:
        try:
            with self._noting("Task failed"), scope:
                await coroutine
        finally:
            ended.set()

    @contextmanager
    def _noting(self, reason: str) -> Iterator[None]:
        """Keep a failure for the end of the group, and tell the others now."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - tasks are user code
            self._failures.append(error)
            self.cancel_token.cancel(reason)
        except BaseException:
            self.cancel_token.cancel("Cancelled by enclosing scope")
            raise

    async def _finish(self, _: object, leftover: BaseException | None, __: object) -> None:
        self._nursery = None
        report = await self.cleanup_registry.run_all(timeout=self._cleanup_timeout)
        for name, error in report.failed:
            _log.error("cleanup_failed", exc_info=error, extra={"cleanup": name})
        # `_noting` keeps failures; what is left is a cancellation from outside, or an interrupt.
        outcome = self._failures if leftover is None else [*self._failures, leftover]
        if len(outcome) == 1:
            raise outcome[0]
        if outcome:
            raise BaseExceptionGroup("several tasks failed", outcome)


# Arguments


def _coroutine_of(argument: str, work: Any, *args: object) -> Coroutine[Any, Any, Any]:
    coroutine = work if isinstance(work, Coroutine) or not callable(work) else work(*args)
    if not isinstance(coroutine, Coroutine):
        raise InvalidTypeError(argument, work, "a coroutine or an async function")
    if coroutine is work and args:
        coroutine.close()
        raise InvalidArgumentError("args", args, f"empty when {argument} is a coroutine")
    return coroutine


def _check_callable(argument: str, value: object) -> None:
    if not callable(value):
        raise InvalidTypeError(argument, value, "a function without arguments")


def _check_duration(argument: str, value: float) -> None:
    if not value >= 0:
        raise InvalidArgumentError(argument, value, "zero or more seconds")
