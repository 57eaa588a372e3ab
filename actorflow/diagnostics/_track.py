"""A sample of memory before and after each call of a function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Final, TypeVar, final, overload

from actorflow.errors import InvalidDiagnosticsError

from ._listeners import log
from ._memory import MemoryTracker, current_memory_tracker

F = TypeVar("F", bound=Callable[..., Any])


@overload
def track_memory(label: F, tracker: MemoryTracker | None = None) -> F: ...
@overload
def track_memory(
    label: str | None = None, tracker: MemoryTracker | None = None
) -> Callable[[F], F]: ...
def track_memory(label: Any = None, tracker: MemoryTracker | None = None) -> Any:
    """Take the samples `<label>:start` and `<label>:end` around each call, however it ends.

    Works with functions and generators, async ones as well, with arguments or bare.
    Without a label it is the name of the function.

    Without `tracker` it is the one of the run around the call; outside such runs a
    tracker of the function itself, `function.memory_tracker`, which starts with the
    first call. Once that is stopped, calls are not watched any more.
    """
    if callable(label):
        return _watched(label, None, tracker)
    if not isinstance(label, str | None):
        raise InvalidDiagnosticsError("label", label, "a text or nothing")
    return lambda function: _watched(function, label, tracker)


@final
class _Watch:
    """Which tracker looks at a function, and under which label."""

    def __init__(self, label: str, tracker: MemoryTracker | None) -> None:
        self._label: Final = label
        self._given: Final = tracker
        # Made now and started later: decorating a function costs nothing.
        self.tracker: Final = tracker or MemoryTracker(auto_start=False)

    def _now(self) -> MemoryTracker:
        if self._given is not None:
            return self._given
        of_run = current_memory_tracker()
        if of_run is not None:
            return of_run
        if not self.tracker._was_started:
            self.tracker.start()
        return self.tracker

    @contextmanager
    def call(self) -> Iterator[None]:
        tracker = self._now()
        self._observe(tracker, "start")
        try:
            yield
        finally:
            self._observe(tracker, "end")

    def _observe(self, tracker: MemoryTracker, when: str) -> None:
        if tracker.is_active:
            tracker.observe(f"{self._label}:{when}")
        else:
            log.debug("memory_not_observed", extra={"label": f"{self._label}:{when}"})


def _watched(function: Any, label: str | None, tracker: MemoryTracker | None) -> Any:
    name: str = getattr(function, "__name__", type(function).__name__)
    watch = _Watch(label or name, tracker)
    watched: Any = wraps(function)(_wrapper(function, watch))
    watched.memory_tracker = watch.tracker
    return watched


def _wrapper(function: Any, watch: _Watch) -> Any:
    # Four kinds of functions, each wrapped in one of its own kind, because
    # others look at the kind to know how to call it.
    if iscoroutinefunction(function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with watch.call():
                return await function(*args, **kwargs)

        return call_async
    if isasyncgenfunction(function):
        # Closes what it wraps when it is closed, so it is as safe as that.
        async def iterate_async(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: ASYNC900
            with watch.call():
                async with aclosing(function(*args, **kwargs)) as items:
                    async for item in items:
                        yield item

        return iterate_async
    if isgeneratorfunction(function):

        def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with watch.call():
                return (yield from function(*args, **kwargs))

        return iterate

    def call(*args: Any, **kwargs: Any) -> Any:
        with watch.call():
            return function(*args, **kwargs)

    return call
