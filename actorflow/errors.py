"""Every exception actorflow raises: one tree, one page.

Each class has a stable `code`, typed fields and a `fix_hint`. `str(error)` is
one sentence: what was attempted and what was found. What to do about it and
where to read on are notes of the exception, so a traceback shows them too.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Final

import attrs

DOC_BASE_URL: Final = "https://actorflow.readthedocs.io/en/latest/reference"


@attrs.define(slots=False, eq=False)
class ActorflowError(Exception):
    """What everything that actorflow raises on purpose has in common."""

    code: ClassVar[str] = "ACTORFLOW-000"
    fix_hint: ClassVar[str] = ""

    @property
    def doc_url(self) -> str:
        """Where the documentation explains this code."""
        return f"{DOC_BASE_URL}/errors#{self.code.lower()}"

    # Made when somebody looks (a traceback, `add_note`), because some of these
    # errors are answers on a hot path and most of them are caught. mypy takes a
    # cached_property for read-only; it is not, and `add_note` relies on that.
    @cached_property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        fix = [f"fix: {self.fix_hint}"] if self.fix_hint else []
        return [*fix, f"see: {self.doc_url}"]


# Arguments


@attrs.define(slots=False, eq=False)
class InvalidArgumentError(ActorflowError, ValueError):
    """An argument has the right type and an impossible value."""

    argument: str
    found: object
    expected: str

    code: ClassVar[str] = "ARG-001-VALUE"
    fix_hint: ClassVar[str] = "Pass one of the values the message allows."

    def __str__(self) -> str:
        return f"{self.argument} must be {self.expected}, found {self.found!r}"


@attrs.define(slots=False, eq=False)
class InvalidTypeError(ActorflowError, TypeError):
    """An argument has a type nobody can work with."""

    argument: str
    found: object
    expected: str

    code: ClassVar[str] = "ARG-002-TYPE"
    fix_hint: ClassVar[str] = "Pass a value of the type the message names."

    def __str__(self) -> str:
        kind = type(self.found).__name__
        return f"{self.argument} must be {self.expected}, found {kind}: {self.found!r}"


@attrs.define(slots=False, eq=False)
class MissingExtraError(ActorflowError, ImportError):
    """A feature needs a package that the extra named here would bring."""

    feature: str
    extra: str

    code: ClassVar[str] = "ARG-003-EXTRA"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the extra is part of the hint.
        return f"pip install 'actorflow[{self.extra}]'"

    def __str__(self) -> str:
        return f"{self.feature} needs packages that are not installed"


# Events


@attrs.define(slots=False, eq=False)
class InvalidEventSinkError(InvalidTypeError):
    """Something that cannot take events was passed as an event sink, or to one."""

    code: ClassVar[str] = "EVENT-001-INVALID_SINK"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: None has an answer of its own.
        if self.found is None:
            return "Call clear_event_sink() to go back to no sink."
        return "Pass what the message names, for example LoggingEventSink()."


@attrs.define(slots=False, eq=False)
class SinkNotOwnedError(ActorflowError, RuntimeError):
    """A sink was started where nothing would ever stop it."""

    sink: str

    code: ClassVar[str] = "EVENT-002-NOT_OWNED"
    fix_hint: ClassVar[str] = "Use `async with sink:`, or start it inside `open_system()`."

    def __str__(self) -> str:
        return f"{self.sink} cannot start: there is neither a block nor a system to own its worker"


@attrs.define(slots=False, eq=False)
class SinkNotRunningError(ActorflowError, RuntimeError):
    """A sink that delivers nothing yet is full, so waiting for room would never end."""

    sink: str
    buffered: int
    max_queue_size: int

    code: ClassVar[str] = "EVENT-003-NOT_RUNNING"
    fix_hint: ClassVar[str] = "Start the sink before emitting: `async with sink:`."

    def __str__(self) -> str:
        return (
            f"{self.sink} is not running and holds {self.buffered} of {self.max_queue_size} events"
        )


@attrs.define(slots=False, eq=False)
class SinkClosedError(ActorflowError, RuntimeError):
    """An event came after the sink was told to stop."""

    sink: str
    event_type: str

    code: ClassVar[str] = "EVENT-004-CLOSED"
    fix_hint: ClassVar[str] = "Stop the sink after everything that emits into it has ended."

    def __str__(self) -> str:
        return f"{self.event_type} was emitted into {self.sink}, which is stopping or stopped"


@attrs.define(slots=False, eq=False)
class ForeignThreadError(ActorflowError, RuntimeError):
    """A sink with a buffer was called from a thread other than trio's."""

    sink: str

    code: ClassVar[str] = "EVENT-005-FOREIGN_THREAD"
    fix_hint: ClassVar[str] = "Emit with trio.from_thread.run_sync, or from a task."

    def __str__(self) -> str:
        return f"{self.sink} was called from a thread that does not run its trio loop"


@attrs.define(slots=False, eq=False)
class InvalidExporterError(InvalidArgumentError, TypeError):
    """An exporter was given arguments it cannot work with."""

    code: ClassVar[str] = "EVENT-007-INVALID_EXPORTER"
    fix_hint: ClassVar[str] = "Pass the value the message asks for."


@attrs.define(slots=False, eq=False)
class ExportError(ActorflowError):
    """An exporter did not get rid of its events; it still holds them."""

    undelivered: int
    exporter: str

    code: ClassVar[str] = "EVENT-008-EXPORT"
    fix_hint: ClassVar[str] = "Read the cause; the events are kept, so flush again later."

    def __str__(self) -> str:
        return f"{self.exporter} could not deliver {self.undelivered} events"


@attrs.define(slots=False, eq=False)
class ExporterClosedError(ActorflowError, RuntimeError):
    """An event came after the exporter was closed."""

    exporter: str

    code: ClassVar[str] = "EVENT-009-EXPORTER_CLOSED"
    fix_hint: ClassVar[str] = "Close the exporter after the last export."

    def __str__(self) -> str:
        return f"{self.exporter} was asked to export after it was closed"
