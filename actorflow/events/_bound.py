"""The sink of one run: every event that passes gets the run's keys and a number.

Numbers are given out here and nowhere else. Contexts outside a run report
through the same class, on a counter of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, final
from uuid import UUID

import attrs
import trio

from actorflow.errors import InvalidArgumentError, InvalidTypeError

from ._catalogue import is_reserved
from ._log_failure import log_failure
from ._now import iso_now
from ._sink import EnterStage, EventSink, checked_sink, entry_of, offer_of, takes_of

_logger: Final = logging.getLogger("actorflow.events")


@final
@attrs.define(eq=False)
class EventCounter:
    """Numbers the events of one run; shared by everything that reports for it."""

    last_seq: int = 0
    undelivered: int = 0
    """Events that waited for room until their time was up."""

    def take(self) -> int:
        """Give out the next number."""
        self.last_seq += 1
        return self.last_seq


def stamp(
    data: Mapping[str, Any] | None, common: Mapping[str, Any], seq: int, timestamp: str
) -> dict[str, Any]:
    """Return a payload of its own: common keys, number and time under the caller's keys.

    The caller's keys win, except `seq`: a receiver relies on it to notice gaps.
    """
    payload = {**common, "seq": seq, "timestamp": timestamp}
    if data:
        payload.update(data)
        if "seq" in data:
            payload["payload_seq"] = data["seq"]
            payload["seq"] = seq
    return payload


def _text(identifier: UUID | str | None) -> str | None:
    return None if identifier is None else str(identifier)


@final
class BoundEventSink:
    """A sink that stamps what passes: run, request, mode, number and time.

    What the wrapped sink raises is logged and goes no further: reporting never
    fails the work that is reported. Stamping and handing over happen without a
    checkpoint between them, so a sink that keeps its order sees the numbers grow.
    """

    __slots__ = ("_common", "_counter", "_emit_timeout", "_offer", "_sink", "_takes")

    def __init__(
        self,
        sink: EventSink,
        *,
        pipeline_run_id: UUID | str | None = None,
        request_id: UUID | str | None = None,
        execution_mode: str | None = None,
        topology: str | None = None,
        first_seq: int = 1,
        emit_timeout: float = 5.0,
        counter: EventCounter | None = None,
    ) -> None:
        """Bind `sink` to a run; with `counter`, `first_seq` is that counter's affair."""
        # A run that is started inside another one reports beside it, not through it: what
        # is stamped twice has the number of one run and the id of the other.
        sink = sink.sink if isinstance(sink, BoundEventSink) else checked_sink("sink", sink)
        self._sink = sink
        if not emit_timeout >= 0:
            raise InvalidArgumentError("emit_timeout", emit_timeout, "zero or more seconds")
        self._takes = takes_of(sink)
        self._offer = offer_of(sink)
        self._emit_timeout = emit_timeout
        self._counter = counter or EventCounter(first_seq - 1)
        self._common: dict[str, Any] = {
            "pipeline_run_id": _text(pipeline_run_id),
            "request_id": _text(request_id),
            "execution_mode": execution_mode,
        }
        if topology is not None:
            self._common["topology"] = topology

    def for_stage(self, stage: str) -> BoundEventSink:
        """Return a sink on the same counter that adds `stage` to each event."""
        # Once per call of a stage, so without looking again at what was checked before.
        bound = object.__new__(BoundEventSink)
        bound._sink = self._sink
        bound._takes = self._takes
        bound._offer = self._offer
        bound._emit_timeout = self._emit_timeout
        bound._counter = self._counter
        bound._common = {**self._common, "stage": stage}
        return bound

    @property
    def sink(self) -> EventSink:
        """The sink behind this one."""
        return self._sink

    @property
    def last_seq(self) -> int:
        """The number given out last; one below the first when there was none yet."""
        return self._counter.last_seq

    @property
    def undelivered(self) -> int:
        """How many waiting emissions of the run gave up."""
        return self._counter.undelivered

    def takes(self, type: str) -> bool:
        """Whether events of this type go anywhere."""
        return self._takes(type)

    def wants(self, type: str) -> bool:
        """Whether it is worth building the payload of an event that is due now.

        If not, its number is used up here; otherwise the event has to be emitted.
        """
        try:
            if self._takes(type):
                return True
        except Exception as error:  # noqa: BLE001 - sinks are user code
            log_failure(type, error)
        self._counter.last_seq += 1
        return False

    @property
    def enter_stage(self) -> EnterStage | None:
        """`AmbientSink.enter_stage` of the sink behind, which may raise nothing here."""
        return entry_of(self._sink)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        """Stamp an event and hand it over without waiting.

        A number is used up also when the sink refuses the event, so a receiver
        can see that something is missing.
        """
        seq = self._number(type)
        try:
            if not self._takes(type):
                return None
            return self._sink.try_emit(type=type, data=self._payload(type, data, seq))
        except Exception as error:  # noqa: BLE001 - sinks are user code
            log_failure(type, error)
            return False

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Stamp an event, hand it over, and wait for room up to `emit_timeout`.

        The wait is shielded from cancellation: the events of this kind tell how
        something ended, and most of them are due exactly when a run is being
        cancelled.
        """
        seq = self._number(type)
        try:
            if not self._takes(type):
                return
            payload = self._payload(type, data, seq)
            # A cancel scope costs more than most events; it is for those that must wait.
            if self._offer(type=type, data=payload):
                return
            with trio.move_on_after(self._emit_timeout, shield=True) as patience:
                await self._sink.emit(type=type, data=payload)
        except Exception as error:  # noqa: BLE001 - sinks are user code
            log_failure(type, error)
            return
        if patience.cancelled_caught:
            self._counter.undelivered += 1
            _logger.error(
                "event_undelivered",
                extra={
                    "event_type": type,
                    "pipeline_run_id": payload["pipeline_run_id"],
                    "seq": seq,
                    "timeout": self._emit_timeout,
                },
            )

    def _number(self, type: str) -> int:
        check_event_type(type)
        return self._counter.take()

    def _payload(self, type: str, data: Mapping[str, Any] | None, seq: int) -> dict[str, Any]:
        _warn_if_reserved(type)
        return stamp(data, self._common, seq, iso_now())


def check_event_type(type: object) -> None:
    """Refuse what could not be the name of an event.

    Raises:
      InvalidTypeError: if `type` is empty or not a string.
    """
    if not isinstance(type, str) or not type:
        raise InvalidTypeError("type", type, "the name of an event, such as 'order.placed'")


# The cache is what makes it once per type.
@lru_cache(maxsize=1000)
def _warn_if_reserved(type: str) -> None:
    if is_reserved(type):
        _logger.warning("event_type_reserved", extra={"event_type": type})


def report(sink: BoundEventSink | None, type: str, data: Mapping[str, Any] | None) -> None:
    """Report an event of a context: through its bound sink, or not at all.

    Raises:
      InvalidTypeError: if `type` is empty or not a string.
    """
    if sink is not None:
        sink.try_emit(type=type, data=data)
        return
    check_event_type(type)
    _logger.debug("event_not_emitted", extra={"event_type": type})


def bound_sink(
    sink: EventSink | None,
    *,
    pipeline_run_id: UUID | str | None,
    request_id: UUID | str | None,
    execution_mode: str | None,
    counter: EventCounter,
) -> BoundEventSink | None:
    """Return what a context reports through.

    The sink of a run is bound already: its counter goes on and nothing is stamped
    twice. Any other sink is bound to the identity and the counter of the context.
    """
    if sink is None or isinstance(sink, BoundEventSink):
        return sink
    return BoundEventSink(
        sink,
        pipeline_run_id=pipeline_run_id,
        request_id=request_id,
        execution_mode=execution_mode,
        counter=counter,
    )
