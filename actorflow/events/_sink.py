"""What an event sink is, and the sink that takes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

from actorflow.errors import InvalidEventSinkError


@runtime_checkable
class EventSink(Protocol):
    """Somewhere events go.

    Payloads are handed over: a sink may keep `data`, nobody changes it later.
    """

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Hand over an event and wait for room when there is none."""
        ...

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        """Hand over an event without ever waiting.

        Only an explicit False means that the event was not accepted. It works
        without a running trio loop too.
        """
        ...


@runtime_checkable
class FlushableSink(EventSink, Protocol):
    """A sink that holds events back and can be told to let go of them."""

    async def flush(self) -> None:
        """Return when everything accepted so far is delivered."""
        ...


@runtime_checkable
class ClosableSink(EventSink, Protocol):
    """A sink that holds something which must be given back: a file, a socket."""

    async def aclose(self) -> None:
        """Deliver what was accepted, then give back what the sink holds."""
        ...


@runtime_checkable
class SelectiveSink(EventSink, Protocol):
    """A sink that can say beforehand which events it would throw away.

    Whoever emits asks first, and builds nothing for an event that nobody takes.
    """

    def takes(self, type: str) -> bool:
        """Whether events of this type go anywhere."""
        ...


def checked_sink(argument: str, candidate: object) -> EventSink:
    """Return `candidate` when it is a sink.

    Every component calls this on the `event_sink=` it is given, so that a wrong
    object is refused where it was passed and not at the first event.

    Raises:
      InvalidEventSinkError: naming `argument` and the method that is missing.
    """
    missing = [
        name for name in ("emit", "try_emit") if not callable(getattr(candidate, name, None))
    ]
    if missing:
        lacks = " and ".join(missing)
        raise InvalidEventSinkError(
            argument, candidate, f"an object with emit and try_emit (it lacks {lacks})"
        )
    # The look above is what `isinstance` does for this protocol, at a tenth of the cost.
    return candidate  # type: ignore[return-value]


@final
class NoOpEventSink:
    """Takes nothing and says nothing."""

    __slots__ = ()

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Do nothing."""

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Do nothing."""

    def takes(self, type: str) -> bool:
        """Return False: there is no need to build a payload."""
        return False
