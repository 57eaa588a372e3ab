"""What an event sink is, and the sink that takes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol, final, runtime_checkable

from actorflow.errors import InvalidEventSinkError

from ._log_failure import log_failure


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


@runtime_checkable
class OfferableSink(EventSink, Protocol):
    """A sink that can take an event at once or say that it has no room right now.

    Whoever is ready to wait offers first. A declined offer is not a refusal:
    nothing is lost, counted or logged, the event comes again through `emit`.
    """

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Take an event if that needs no waiting, and say whether it was taken."""
        ...


class EnterStage(Protocol):
    """`AmbientSink.enter_stage`."""

    def __call__(self, *, pipeline_run_id: str | None, stage: str) -> None: ...


class AmbientSink(EventSink, Protocol):
    """A sink that wants something to hold wherever a stage runs, such as a current span.

    Sinks that only hand events on to others have None where none of those wants it.
    """

    @property
    def enter_stage(self) -> EnterStage | None:
        """Is called in the task of a stage, before anything else happens there.

        Context variables that it sets are seen by the stage and by what the stage
        starts, and by nobody else.
        """
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


# What a sink may leave out, and what that means.


def takes_of(sink: EventSink) -> Callable[[str], bool]:
    """How to ask `sink` for the types it takes; one that cannot say takes all."""
    takes: Callable[[str], bool] = getattr(sink, "takes", _takes_everything)
    return takes


def _takes_everything(_: str) -> bool:
    return True


class Offer(Protocol):
    """`OfferableSink.offer`."""

    def __call__(self, *, type: str, data: Mapping[str, Any] | None) -> bool: ...


def offer_of(sink: EventSink) -> Offer:
    """How to offer an event to `sink`; one that takes no offers declines them."""
    offer: Offer = getattr(sink, "offer", _declined)
    return offer


def _declined(**_: object) -> bool:
    return False


def entry_of(sink: EventSink) -> EnterStage | None:
    """How to tell `sink`, which may raise, that a task begins to run a stage; None if it does not care."""
    enter_stage: EnterStage | None = getattr(sink, "enter_stage", None)
    return None if enter_stage is None else partial(_enter_quietly, enter_stage)


def _enter_quietly(enter: EnterStage, *, pipeline_run_id: str | None, stage: str) -> None:
    try:
        enter(pipeline_run_id=pipeline_run_id, stage=stage)
    except Exception as error:  # noqa: BLE001 - sinks are user code
        log_failure("stage.started", error)


async def flush_sink(sink: EventSink) -> None:
    """Flush a sink that can be flushed."""
    if hasattr(sink, "flush"):
        await sink.flush()


async def close_sink(sink: EventSink) -> None:
    """Close a sink that can be closed, by `aclose()` or else by `close()`."""
    if hasattr(sink, "aclose"):
        await sink.aclose()
    elif hasattr(sink, "close"):
        closing = sink.close()
        if isawaitable(closing):
            await closing
