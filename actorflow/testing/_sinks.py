"""A sink for tests: it remembers everything and can insist on the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final
from uuid import UUID

import attrs

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

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Keep an event."""
        self._record(type, data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Keep an event."""
        self._record(type, data)
        return True

    def _record(self, type: str, data: Mapping[str, Any] | None) -> None:
        self.events.append(RecordedEvent(type, data or {}))
        complaints = validate_event(type, data) if self._strict else []
        if complaints:
            raise CatalogueViolation(f"{type}: {'; '.join(complaints)}")

    def types(self) -> list[str]:
        """The type of each event, in order of arrival."""
        return [event.type for event in self.events]

    def payloads(self, type: str) -> list[Mapping[str, Any]]:
        """The payload of each event of this type, in order of arrival."""
        return [event.data for event in self.events if event.type == type]

    def assert_emitted(self, type: str, **subset: object) -> Mapping[str, Any]:
        """Return the first payload of this type that has these keys and values.

        Raises:
          AssertionError: if there is none, showing the payloads of the type.
        """
        payloads = self.payloads(type)
        for payload in payloads:
            if subset.items() <= payload.items():
                return payload
        found = "\n".join(map(repr, payloads)) if payloads else f"only {sorted(set(self.types()))}"
        raise AssertionError(f"no {type} with {subset} was emitted, found:\n{found}")

    def assert_order(self, *types: str) -> None:
        """Check that events of these types arrived in this order; others may lie between.

        Raises:
          AssertionError: naming the first type that did not come after the one before it.
        """
        arrived = iter(self.types())
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
