"""A sink for tests: it remembers everything, can be waited for, and can insist on the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, final
from uuid import UUID

import attrs
import trio

from actorflow.errors import InvalidArgumentError
from actorflow.events import validate_event


@final
class CatalogueViolation(BaseException):
    """A strict sink was handed an event that is not what the catalogue says.

    Not an `Exception`, because whatever emits survives the exceptions of its
    sink, and a test must not survive this one.
    """


@final
@attrs.frozen
class RecordedEvent:
    """An event as it was handed over."""

    type: str
    data: Mapping[str, Any]


@final
class RecordingEventSink:
    """Keeps every event, in order of arrival.

    With `strict`, an event that does not keep what the catalogue promises ends
    the test where it was emitted, with a `CatalogueViolation`.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.events: list[RecordedEvent] = []
        self._strict = strict
        self._news: trio.Event | None = None

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Keep an event."""
        self._record(type, data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Keep an event."""
        self._record(type, data)
        return True

    def _record(self, type: str, data: Mapping[str, Any] | None) -> None:
        self.events.append(RecordedEvent(type, data or {}))
        if self._news is not None:
            self._news.set()
            self._news = None
        complaints = validate_event(type, data) if self._strict else []
        if complaints:
            raise CatalogueViolation(f"{type}: {'; '.join(complaints)}")

    def types(self) -> list[str]:
        """The type of each event, in order of arrival."""
        return [event.type for event in self.events]

    def payloads(self, type: str) -> list[Mapping[str, Any]]:
        """The payload of each event of this type, in order of arrival."""
        return [event.data for event in self.events if event.type == type]

    async def wait_for(
        self, type: str, /, *, times: int = 1, timeout: float = 60.0, **subset: object
    ) -> Mapping[str, Any]:
        """Wait until events of this type with these keys and values arrived `times` times.

        Returns the payload of the last of them. What arrived before the call
        counts, so there is no race between doing something and waiting for it.

        Raises:
          AssertionError: after `timeout` seconds, showing what arrived instead.
          InvalidArgumentError: if `times` is less than 1.
        """
        if times < 1:
            raise InvalidArgumentError("times", times, "1 or more")
        deadline = trio.current_time() + timeout
        while True:
            payload = next(islice(self._matching(type, subset), times - 1, None), None)
            if payload is not None:
                await trio.lowlevel.checkpoint()
                return payload
            if self._news is None:
                self._news = trio.Event()
            with trio.move_on_at(deadline) as scope:
                await self._news.wait()
            if scope.cancelled_caught:
                raise AssertionError(f"after {timeout:g} s: {self._missing(type, subset, times)}")

    def assert_emitted(self, type: str, /, **subset: object) -> Mapping[str, Any]:
        """Return the first payload of this type that has these keys and values.

        Raises:
          AssertionError: if there is none, showing in what the payloads differ.
        """
        for payload in self._matching(type, subset):
            return payload
        raise AssertionError(self._missing(type, subset))

    def assert_not_emitted(self, type: str, /, **subset: object) -> None:
        """Check that there is no event of this type with these keys and values.

        Raises:
          AssertionError: if there is one, showing it.
        """
        for payload in self._matching(type, subset):
            raise AssertionError(f"{type} was emitted: {dict(payload)}")

    def _matching(self, type: str, subset: Mapping[str, object]) -> Iterator[Mapping[str, Any]]:
        return (it for it in self.payloads(type) if subset.items() <= it.items())

    def _missing(self, type: str, subset: Mapping[str, object], times: int = 1) -> str:
        which = f"{type} with {_listed(subset)}" if subset else type
        often = "" if times == 1 else f" {times} times"
        payloads = self.payloads(type)
        if not payloads:
            found = ", ".join(dict.fromkeys(self.types())) or "nothing"
            return f"{which} was not emitted{often}, only {found}"
        lines = [
            f"  {number}. {_difference(subset, payload)}"
            for number, payload in enumerate(payloads, 1)
        ]
        return "\n".join([f"{which} was not emitted{often}; of those that were", *lines])

    def assert_order(self, first: str, /, *others: str) -> None:
        """Check that events of these types arrived in this order; others may lie between.

        Raises:
          AssertionError: naming the first type that did not come after the one before it.
        """
        arrived = iter(self.types())
        types = (first, *others)
        for position, type in enumerate(types):
            if type not in arrived:
                after = f"after {types[position - 1]}" if position else "at all"
                raise AssertionError(f"{type} did not arrive {after}, found: {self.types()}")

    def assert_seq_contiguous(self, run_id: UUID | str) -> None:
        """Check that the numbers of a run's events grow by one from event to event.

        Raises:
          AssertionError: if they do not, or if there is no event of this run.
        """
        numbers = [
            event.data["seq"]
            for event in self.events
            if event.data.get("pipeline_run_id") == str(run_id)
        ]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise AssertionError(f"the events of run {run_id} are numbered {numbers}")


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _difference(wanted: Mapping[str, object], payload: Mapping[str, Any]) -> str:
    others = {key: payload[key] for key in wanted if key in payload and payload[key] != wanted[key]}
    lacking = [f"no {key}" for key in wanted if key not in payload]
    return ", ".join(filter(None, [_listed(others), *lacking])) or "one as wanted"
