"""One stream of events to several sinks, or a part of it to one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, final

import attrs
import trio

from actorflow.errors import InvalidArgumentError

from ._everyone import for_everyone
from ._log_failure import log_failure
from ._sink import (
    EnterStage,
    EventSink,
    Offer,
    checked_sink,
    close_sink,
    entry_of,
    flush_sink,
    offer_of,
    takes_of,
)


def _check_patterns(_: object, field: attrs.Attribute[Any], patterns: object) -> None:
    # A string is a collection of letters, and nearly every type contains one of them.
    if isinstance(patterns, str):
        raise InvalidArgumentError(field.name, patterns, "a list of parts of types")


@final
@attrs.frozen
class TypeFilter:
    """Which types pass: patterns are substrings, and what is excluded stays so."""

    include: Collection[str] | None = attrs.field(default=None, validator=_check_patterns)
    exclude: Collection[str] = attrs.field(default=(), validator=_check_patterns)

    def passes(self, type: str) -> bool:
        """Whether a type contains none of `exclude` and, if there is one, some of `include`."""
        if self.exclude and any(pattern in type for pattern in self.exclude):
            return False
        return self.include is None or any(pattern in type for pattern in self.include)


@final
class FilterEventSink:
    """Hands on the events whose type matches; the others count as accepted."""

    def __init__(
        self,
        sink: EventSink,
        *,
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
    ) -> None:
        self._sink = checked_sink("sink", sink)
        self._filter = TypeFilter(include, exclude)
        self._takes = takes_of(sink)
        self._offer = offer_of(sink)
        self.enter_stage = entry_of(sink)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Hand on an event that passes and wait for room."""
        if self._filter.passes(type):
            await self._sink.emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        """Hand on an event that passes."""
        if self._filter.passes(type):
            return self._sink.try_emit(type=type, data=data)
        return True

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Hand on an event that passes, if there is room."""
        return not self._filter.passes(type) or self._offer(type=type, data=data)

    def takes(self, type: str) -> bool:
        """Whether the type passes and the sink behind takes it."""
        return self._filter.passes(type) and self._takes(type)

    async def flush(self) -> None:
        """Flush the sink behind."""
        await flush_sink(self._sink)

    async def aclose(self) -> None:
        """Close the sink behind."""
        await close_sink(self._sink)


@attrs.frozen(eq=False)
class _Entry:
    """An event on its way to a sink of a tee."""

    type: str
    data: Mapping[str, Any] | None
    is_tried: bool


@attrs.define(eq=False)
class _Lane:
    """The way to one sink of a tee, on which nobody overtakes.

    Emissions to several sinks run in tasks of their own, and tasks that start
    at the same moment run in any order. So events line up until the sink has
    seen everything before them; the line is empty again one tick later.
    """

    sink: EventSink
    takes: Callable[[str], bool]
    _offer: Offer
    _line: deque[_Entry] = attrs.field(factory=deque, init=False)
    _moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def is_free(self) -> bool:
        return not self._line

    def offer(self, event: _Entry) -> bool:
        return not self._line and self._offer(type=event.type, data=event.data)

    def line_up(self, event: _Entry) -> None:
        self._line.append(event)

    async def turn_of(self, event: _Entry, nursery: trio.Nursery) -> None:
        try:
            while self._line[0] is not event:
                await self._moved.park()
        finally:
            self._line.remove(event)
            if self._line:
                # Not at once: this event reaches the sink after this function has returned.
                nursery.start_soon(self._move_on)

    async def _move_on(self) -> None:
        while self._line and self._line[0].is_tried:
            event = self._line.popleft()
            try:
                self.sink.try_emit(type=event.type, data=event.data)
            except Exception as error:  # noqa: BLE001 - sinks are user code
                log_failure(event.type, error)
        self._moved.unpark_all()


@final
class TeeEventSink:
    """Hands each event to every sink; what one of them does is nothing to the others.

    Events reach each sink in the order in which they came.
    """

    def __init__(self, *sinks: EventSink) -> None:
        self._lanes = [
            _Lane(checked_sink("sinks", sink), takes_of(sink), offer_of(sink)) for sink in sinks
        ]
        self.enter_stage = _entry_of_all(sinks)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Hand over an event everywhere and wait until each sink had room.

        Raises:
          ExceptionGroup: what the sinks raised, after all of them had their turn.
        """
        event = _Entry(type, data, is_tried=False)
        errors: list[Exception] = []
        waiting = [lane for lane in self._lanes if not _offered(lane, event, errors)]
        if len(waiting) == 1 and waiting[0].is_free:
            await _hand_over(waiting[0], event, errors)
        elif waiting:
            async with trio.open_nursery() as nursery:
                for lane in waiting:
                    lane.line_up(event)
                    nursery.start_soon(_hand_over_in_turn, lane, event, errors, nursery)
        if errors:
            raise ExceptionGroup(f"sinks failed to take {type}", errors)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Hand over an event everywhere; False if any sink refused it.

        Raises:
          ExceptionGroup: what the sinks raised, after all of them had their turn.
        """
        event = _Entry(type, data, is_tried=True)
        errors: list[Exception] = []
        answers = [_tried(lane, event, errors) for lane in self._lanes]
        if errors:
            raise ExceptionGroup(f"sinks failed to take {type}", errors)
        return all(answers)

    def takes(self, type: str) -> bool:
        """Whether any of the sinks takes this type."""
        return any(lane.takes(type) for lane in self._lanes)

    async def flush(self) -> None:
        """Flush every sink that can be flushed, whatever becomes of the others."""
        await for_everyone([it.sink for it in self._lanes], flush_sink, "flush failed")

    async def aclose(self) -> None:
        """Close every sink that can be closed, whatever becomes of the others."""
        await for_everyone([it.sink for it in self._lanes], close_sink, "close failed")


def _entry_of_all(sinks: Iterable[EventSink]) -> EnterStage | None:
    entries = [enter for enter in map(entry_of, sinks) if enter is not None]

    def enter_stage(*, pipeline_run_id: str | None, stage: str) -> None:
        for enter in entries:
            enter(pipeline_run_id=pipeline_run_id, stage=stage)

    return enter_stage if entries else None


def _offered(lane: _Lane, event: _Entry, errors: list[Exception]) -> bool:
    try:
        return lane.offer(event)
    except Exception as error:  # noqa: BLE001 - sinks are user code
        errors.append(error)
        return True


def _tried(lane: _Lane, event: _Entry, errors: list[Exception]) -> bool:
    if not lane.is_free:
        lane.line_up(event)
        return True
    try:
        return lane.sink.try_emit(type=event.type, data=event.data) is not False
    except Exception as error:  # noqa: BLE001 - sinks are user code
        errors.append(error)
        return False


async def _hand_over(lane: _Lane, event: _Entry, errors: list[Exception]) -> None:
    try:
        await lane.sink.emit(type=event.type, data=event.data)
    except Exception as error:  # noqa: BLE001 - sinks are user code
        errors.append(error)


async def _hand_over_in_turn(
    lane: _Lane, event: _Entry, errors: list[Exception], nursery: trio.Nursery
) -> None:
    await lane.turn_of(event, nursery)
    # No checkpoint since the turn came, so the sink sees this event next.
    await _hand_over(lane, event, errors)
