"""What a stage hands back: data for its dependents, artifacts and events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, final

import attrs

from actorflow import clock
from actorflow.errors import InvalidArgumentError, InvalidTypeError

from ._frozen import EMPTY, FrozenDict, as_data, as_metadata, as_payload
from ._stage import StageStatus
from ._value import Value, as_timestamp, items_of


def _require_type(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str):
        raise InvalidTypeError(field.name, value, "a string")
    if not value:
        raise InvalidArgumentError(field.name, value, "a name")


@final
@attrs.frozen
class StageArtifact(Value):
    """Something a stage produced beside its data: a file, a picture, a report."""

    type: str = attrs.field(validator=_require_type)
    payload: FrozenDict = attrs.field(default=EMPTY, converter=as_payload)
    timestamp: datetime = attrs.field(factory=clock.now, converter=as_timestamp)


@final
@attrs.frozen
class StageEvent(Value):
    """Something a stage wants reported once its output is recorded."""

    type: str = attrs.field(validator=_require_type)
    data: FrozenDict = attrs.field(default=EMPTY, converter=as_data)
    timestamp: datetime = attrs.field(factory=clock.now, converter=as_timestamp)


def _as_status(value: StageStatus | str) -> StageStatus:
    return value if type(value) is StageStatus else StageStatus(value)


def _as_artifacts(value: Sequence[StageArtifact]) -> tuple[StageArtifact, ...]:
    return items_of("artifacts", StageArtifact, value)


def _as_events(value: Sequence[StageEvent]) -> tuple[StageEvent, ...]:
    return items_of("events", StageEvent, value)


_MAY_BE_RETRYABLE: Final = frozenset({StageStatus.FAIL, StageStatus.RETRY})
_REASON_IN_DATA: Final = {StageStatus.SKIP: "reason", StageStatus.CANCEL: "cancel_reason"}


@final
@attrs.frozen
class StageOutput(Value):
    """How a call of a stage ended and what it gave.

    Made with one of the factories `ok`, `skip`, `cancel`, `fail`, `retry`.
    """

    status: StageStatus = attrs.field(converter=_as_status)
    data: FrozenDict = attrs.field(default=EMPTY, converter=as_data)
    """What dependents read."""
    artifacts: tuple[StageArtifact, ...] = attrs.field(default=(), converter=_as_artifacts)
    events: tuple[StageEvent, ...] = attrs.field(default=(), converter=_as_events)
    error: str | None = None
    error_type: str | None = None
    """Class name of the exception that `error` is the text of."""
    retryable: bool = False
    metadata: FrozenDict = attrs.field(default=EMPTY, converter=as_metadata)
    """About the output; dependents do not see it."""
    duration_ms: float | None = None
    version: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.retryable and self.status not in _MAY_BE_RETRYABLE:
            raise InvalidArgumentError("retryable", True, f"False for status {self.status}")

    @classmethod
    def ok(
        cls,
        /,
        data: Mapping[str, Any] | None = None,
        *,
        artifacts: Sequence[StageArtifact] = (),
        events: Sequence[StageEvent] = (),
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        **fields: Any,
    ) -> StageOutput:
        """It worked; dependents read `data` and `fields`.

        Raises:
          InvalidArgumentError: if `data` and `fields` have a key in common.
        """
        return cls(
            StageStatus.OK,
            _merged(data, fields) if fields else _or_empty(data),
            artifacts,
            events,
            metadata=_or_empty(metadata),
            version=version,
        )

    @classmethod
    def skip(
        cls,
        reason: str = "",
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
    ) -> StageOutput:
        """There was nothing to do; what depends on the stage is skipped too."""
        said = {_REASON_IN_DATA[StageStatus.SKIP]: reason, **_mapping("data", data)}
        return cls(StageStatus.SKIP, said, metadata=_or_empty(metadata), version=version)

    @classmethod
    def cancel(
        cls,
        reason: str = "",
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
    ) -> StageOutput:
        """The whole run should end here, without an error."""
        said = {_REASON_IN_DATA[StageStatus.CANCEL]: reason, **_mapping("data", data)}
        return cls(StageStatus.CANCEL, said, metadata=_or_empty(metadata), version=version)

    @classmethod
    def fail(
        cls,
        error: str | BaseException | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        retryable: bool = False,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
    ) -> StageOutput:
        """It did not work; `error` is a text or the exception that says why."""
        error_type = None
        if isinstance(error, BaseException):
            error_type = type(error).__name__
            error = _text_of(error) or error_type
        return cls(
            StageStatus.FAIL,
            _or_empty(data),
            error=error or "Unknown error",
            error_type=error_type,
            retryable=retryable,
            metadata=_or_empty(metadata),
            version=version,
        )

    @classmethod
    def retry(
        cls,
        reason: str = "",
        data: Mapping[str, Any] | None = None,
        *,
        retryable: bool = True,
        retry_after_ms: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
    ) -> StageOutput:
        """It did not work this time; another try may, `retry_after_ms` from now or later.

        Raises:
          InvalidArgumentError: if the wait is negative or endless, or in `data` as well.
        """
        said = _or_empty(data)
        if retry_after_ms is not None:
            if not 0 <= retry_after_ms < math.inf:
                raise InvalidArgumentError("retry_after_ms", retry_after_ms, "0 or more, finite")
            said = _merged(data, {"retry_after_ms": retry_after_ms})
        return cls(
            StageStatus.RETRY,
            said,
            error=reason or "Retry requested",
            retryable=retryable,
            metadata=_or_empty(metadata),
            version=version,
        )

    @classmethod
    def from_returned(cls, returned: object) -> StageOutput:
        """The output that a stage means by what it returned.

        An output is itself, a mapping is the data of `ok`, None is `ok()`.

        Raises:
          InvalidTypeError: for anything else.
        """
        if isinstance(returned, StageOutput):
            return returned
        if returned is None:
            return _NOTHING_TO_SAY
        if isinstance(returned, Mapping):
            return cls(StageStatus.OK, returned)
        raise InvalidTypeError("what a stage returns", returned, "a StageOutput, a mapping or None")

    @property
    def reason(self) -> str:
        """Why the stage did not simply work; empty for OK."""
        if self.status is StageStatus.OK:
            return ""
        if self.status in _REASON_IN_DATA:
            return str(self.data.get(_REASON_IN_DATA[self.status], ""))
        return self.error or ""

    def with_duration(self, ms: float) -> StageOutput:
        """The same output that took `ms` milliseconds."""
        # Once for every call of a stage, so what was checked when this output was made is
        # not checked again; `attrs.evolve` takes four times as long.
        same = object.__new__(StageOutput)
        fill = object.__setattr__
        fill(same, "status", self.status)
        fill(same, "data", self.data)
        fill(same, "artifacts", self.artifacts)
        fill(same, "events", self.events)
        fill(same, "error", self.error)
        fill(same, "error_type", self.error_type)
        fill(same, "retryable", self.retryable)
        fill(same, "metadata", self.metadata)
        fill(same, "duration_ms", ms)
        fill(same, "version", self.version)
        return same

    def with_version(self, version: str) -> StageOutput:
        """The same output under another version."""
        return attrs.evolve(self, version=version)

    def with_metadata(self, **more: Any) -> StageOutput:
        """The same output with `more` added to its metadata."""
        return attrs.evolve(self, metadata={**self.metadata, **more})


# What a stage means that returns nothing: by far the most frequent output.
_NOTHING_TO_SAY: Final = StageOutput(StageStatus.OK)


def _text_of(error: BaseException) -> str:
    # Somebody's exception that cannot say what it is has still failed its stage.
    with suppress(Exception):
        return str(error)
    return ""


def _or_empty(mapping: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return EMPTY if mapping is None else mapping


def _mapping(name: str, mapping: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if mapping is None:
        return EMPTY
    if not isinstance(mapping, Mapping):
        raise InvalidTypeError(name, mapping, "a mapping")
    return mapping


def _merged(data: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if data is None:
        return fields
    twice = sorted(_mapping("data", data).keys() & fields.keys())
    if twice:
        raise InvalidArgumentError(
            ", ".join(twice), "data and a keyword", "in only one of data and keywords"
        )
    return {**data, **fields}
