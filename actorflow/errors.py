"""Every exception actorflow raises: one tree, one page.

Each class has a stable `code`, typed fields and a `fix_hint`. `str(error)` is
one sentence: what was attempted and what was found. What to do about it and
where to read on are notes of the exception, so a traceback shows them too.
"""

from __future__ import annotations

import json
import reprlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self
    from uuid import UUID

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
    fix_hint: ClassVar[str] = "Pass what the message asks for."

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
        there = f"pip install 'actorflow[{self.extra}]'"
        return f"{there}, or in a clone of the repository: pip install '.[{self.extra}]'"

    def __str__(self) -> str:
        return f"{self.feature} needs packages that are not installed"


# Values


@attrs.define(slots=False, eq=False)
class FrozenValueError(ActorflowError, TypeError):
    """Somebody tried to change a value that others hold as well."""

    operation: str

    code: ClassVar[str] = "MODEL-001-FROZEN"
    fix_hint: ClassVar[str] = "Change a copy: thaw(value) gives plain dicts and lists."

    def __str__(self) -> str:
        return f"cannot do {self.operation}: the value is frozen"


@attrs.define(slots=False, eq=False)
class WireFormatError(ActorflowError, ValueError):
    """A value cannot be written as JSON, or JSON does not describe the value it should."""

    path: str
    """Where in the value: ``data.frames[3]``. Empty for the value as a whole."""
    found: object
    """What stands there; `attrs.NOTHING` if it is missing."""
    expected: str

    code: ClassVar[str] = "MODEL-002-WIRE"
    fix_hint: ClassVar[str] = "Correct the value at that path."

    def __str__(self) -> str:
        return (
            f"{self.path or 'the value'} must be {self.expected}, found {reprlib.repr(self.found)}"
        )


@attrs.define(slots=False, eq=False)
class InvalidDeltaError(WireFormatError):
    """A delta, or what it should be made of or applied to, has the wrong form."""

    code: ClassVar[str] = "DELTA-001-INVALID"
    fix_hint: ClassVar[str] = "Pass mappings, and deltas as compute_delta made them."


# Tracking


@attrs.define(slots=False, eq=False)
class TrackingError(ActorflowError):
    """Recording or verifying what happened in a session went wrong."""

    code: ClassVar[str] = "TRACK-000"


@attrs.define(slots=False, eq=False)
class CanonicalizationError(TrackingError, ValueError):
    """A value has no canonical JSON, so it cannot have a checksum either."""

    pointer: str
    """Where in the value, as a JSON pointer: ``/items/0/price``."""
    found: object
    expected: str

    code: ClassVar[str] = "TRACK-005-CANONICALIZATION"
    fix_hint: ClassVar[str] = "Send what JSON cannot hold exactly as a string."

    def __str__(self) -> str:
        where = self.pointer or "the value"
        return f"{where} must be {self.expected}, found {reprlib.repr(self.found)}"


# Actors


@attrs.define(slots=False, eq=False)
class ActorError(ActorflowError):
    """Something went wrong between actors."""

    actor: str
    """Path of the actor it is about, for example ``"call/speaker"``."""

    code: ClassVar[str] = "ACTOR-000"


@attrs.define(slots=False, eq=False)
class MailboxFullError(ActorError):
    """A message could not be queued, or was pushed out of the queue again."""

    capacity: int
    policy: str

    code: ClassVar[str] = "ACTOR-001-MAILBOX_FULL"
    fix_hint: ClassVar[str] = (
        "Wait for room with `await ref.tell(...)`, raise `capacity`, or choose a policy that drops."
    )

    def __str__(self) -> str:
        return (
            f"the mailbox of {self.actor} had no room for the message"
            f" (capacity {self.capacity}, policy {self.policy})"
        )


@attrs.define(slots=False, eq=False)
class ActorStoppedError(ActorError):
    """The actor takes no messages, or the supervisor no children, now and later."""

    why: str
    refused: str = "messages"

    code: ClassVar[str] = "ACTOR-002-STOPPED"
    fix_hint: ClassVar[str] = "Look the actor up again by name, or stop sending when it ends."

    def __str__(self) -> str:
        return f"{self.actor} takes no {self.refused}: {self.why}"


@attrs.define(slots=False, eq=False)
class ActorCrashedError(ActorError):
    """The actor ended while it had the request in hand; the cause is the crash."""

    why: str

    code: ClassVar[str] = "ACTOR-003-CRASHED"
    fix_hint: ClassVar[str] = (
        "Read the cause. The request is not handled a second time; ask again if that is safe."
    )

    def __str__(self) -> str:
        return f"{self.actor} did not answer: {self.why}"


@attrs.define(slots=False, eq=False)
class AskTimeoutError(ActorError, trio.TooSlowError):
    """No answer came before the deadline."""

    waited: float

    code: ClassVar[str] = "ACTOR-004-ASK_TIMEOUT"
    fix_hint: ClassVar[str] = (
        "Give a longer `timeout`, or see in `system.tree()` what the actor is busy with."
    )

    def __str__(self) -> str:
        return f"{self.actor} did not answer within {self.waited:g} s"


@attrs.define(slots=False, eq=False)
class NoReplyError(ActorError):
    """The request was handled and nobody answered it."""

    request: str

    code: ClassVar[str] = "ACTOR-005-NO_REPLY"
    fix_hint: ClassVar[str] = (
        "Call `reply.send(...)` while handling, or `reply.defer()` to answer later."
    )

    def __str__(self) -> str:
        return f"{self.actor} handled {self.request} without answering it"


@attrs.define(slots=False, eq=False)
class MailboxDeadlockError(ActorError):
    """Waiting here would close a ring of actors that wait for each other."""

    ring: tuple[str, ...]
    """Who waits for whom, first actor repeated at the end."""

    code: ClassVar[str] = "ACTOR-006-DEADLOCK"
    fix_hint: ClassVar[str] = (
        "Break the ring: answer later with `reply.defer()`, use `tell_nowait` or a policy that"
        " drops on one edge, or give the wait a timeout."
    )

    def __str__(self) -> str:
        return "actors would wait for each other forever: " + " -> ".join(self.ring)


@attrs.define(slots=False, eq=False)
class RestartBudgetExceededError(ActorError):
    """A supervisor restarted too often and gave up; the cause, if there is one, is the last crash."""

    child: str
    max_restarts: int
    window: float
    why: str
    """How the last life of the child ended."""

    code: ClassVar[str] = "ACTOR-007-BUDGET"
    fix_hint: ClassVar[str] = (
        "Mend what ended the child; if it may return, declare it `transient`. Or allow more with"
        " `max_restarts`, `window` or a `backoff`."
    )

    def __str__(self) -> str:
        return (
            f"{self.actor} gave up on {self.child}: more than {self.max_restarts} restarts"
            f" within {self.window:g} s, at last because {self.why}"
        )


@attrs.define(slots=False, eq=False)
class StartFailedError(ActorError):
    """An actor ended before it was ready; the cause, if it crashed, is the crash."""

    why: str

    code: ClassVar[str] = "ACTOR-008-START"
    fix_hint: ClassVar[str] = "Mend `on_start`, or give it more time with `start_timeout`."

    def __str__(self) -> str:
        return f"{self.actor} did not start: {self.why}"


@attrs.define(slots=False, eq=False)
class UnknownActorError(ActorError, KeyError):
    """No actor of the system has this path."""

    known: tuple[str, ...]
    closest: str | None = None

    code: ClassVar[str] = "ACTOR-009-UNKNOWN"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the hint depends on the names.
        if self.closest is not None:
            return f"Did you mean {self.closest!r}?"
        return f"Known here: {', '.join(self.known) or 'none'}."

    def __str__(self) -> str:
        return f"there is no actor {self.actor!r}"


@attrs.define(slots=False, eq=False)
class NameTakenError(ActorError):
    """A sibling has this name already."""

    code: ClassVar[str] = "ACTOR-010-NAME_TAKEN"
    fix_hint: ClassVar[str] = "Give every child of one supervisor a name of its own."

    def __str__(self) -> str:
        return f"there is an actor {self.actor!r} already"


@attrs.define(slots=False, eq=False)
class TooManyChildrenError(ActorError):
    """The supervisor has as many spawned children as it may have."""

    max_children: int

    code: ClassVar[str] = "ACTOR-011-TOO_MANY"
    fix_hint: ClassVar[str] = "Wait until one of them ends, or raise `max_children`."

    def __str__(self) -> str:
        return f"{self.actor or 'the system'} has {self.max_children} spawned children already"


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
class AnalyticsEventError(WireFormatError):
    """Something that was read is not an event."""

    code: ClassVar[str] = "EVENT-006-INVALID_EVENT"
    fix_hint: ClassVar[str] = "Read only what AnalyticsEvent.to_dict() wrote."


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


# Contracts of pipelines


# mypy cannot look through the types `dict`, `list` and `tuple` as converters.
def _as_dict(items: Mapping[str, object]) -> Mapping[str, object]:
    return dict(items)


def _as_list(items: Iterable[str]) -> list[str]:
    return list(items)


def _as_tuple(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(items)


@attrs.frozen
class ContractErrorInfo:
    """What a person needs to repair a wiring mistake."""

    code: str
    summary: str
    fix_hint: str | None = None
    doc_url: str | None = None
    context: Mapping[str, object] = attrs.field(factory=dict, converter=_as_dict, hash=False)

    def with_context(self, **extra: object) -> ContractErrorInfo:
        """A copy whose context also holds `extra`."""
        return attrs.evolve(self, context={**self.context, **extra})

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON; what JSON has no form for is written as text."""
        return {
            "code": self.code,
            "summary": self.summary,
            "fix_hint": self.fix_hint,
            "doc_url": self.doc_url,
            "context": json.loads(json.dumps(self.context, default=str)),
        }


@attrs.frozen
class ContractSuggestion:
    """How to repair what an error code stands for, step by step."""

    code: str
    title: str
    summary: str
    fix_steps: tuple[str, ...] = attrs.field(converter=_as_tuple)
    doc_url: str | None = None


_suggestions: Final = {
    (code := f"CONTRACT-004-{kind}"): ContractSuggestion(
        code, title, summary, steps, f"{DOC_BASE_URL}/errors#{code.lower()}"
    )
    for kind, title, summary, *steps in (
        (
            "EMPTY",
            "Empty pipeline",
            "A pipeline needs at least one stage.",
            "Add a stage: Pipeline.from_stages(first, second).",
        ),
        (
            "NAME",
            "Unusable name",
            "Names of stages and pipelines are short visible text without blanks around it.",
            "Give the stage a name of 1 to 200 printable characters.",
            "A lambda or partial has no name of its own: stage('clean', lambda ctx: ...).",
        ),
        (
            "SELF_DEP",
            "Stage depends on itself",
            "A stage that waits for itself never starts.",
            "Remove the stage's own name from its dependencies.",
            "To repeat a stage, use a retry or guard-retry policy.",
        ),
        (
            "MISSING_DEP",
            "Unknown stage",
            "A stage waits for one that is not in the pipeline.",
            "Check the spelling of the name.",
            "Add the missing stage, or remove the dependency.",
        ),
        (
            "CYCLE",
            "Stages in a ring",
            "Stages that wait for each other in a ring can never start.",
            "Remove one of the dependencies along the path.",
            "If one stage only needs a part of another's work, split that part off.",
        ),
        (
            "CONFLICT",
            "Two meanings of one name",
            "Two pipelines that are composed disagree about a stage or an option.",
            "Rename one of the stages, or make their definitions equal.",
            "Set the option on one side only.",
        ),
        (
            "DUPLICATE",
            "Name used twice",
            "Each stage of a pipeline has a name of its own.",
            "Rename one of the stages.",
            "To exchange a stage on purpose, pass replace=True.",
        ),
        (
            "KIND",
            "Unknown kind of stage",
            "A stage's kind is one of a fixed set.",
            "Use one of: transform, enrich, route, guard, work, agent.",
        ),
        (
            "RUNNER",
            "Not a stage",
            "A stage is a function of one argument, or a class or object with execute(ctx).",
            "Write `async def clean(ctx): ...` and pass the function itself.",
            "For a class, define `async def execute(self, ctx)`.",
        ),
        (
            "OPTION",
            "Impossible option",
            "An option of a stage or pipeline has a value that means nothing.",
            "Use a value the message allows.",
        ),
        (
            "BRANCH",
            "Condition that cannot be answered",
            "A condition is a plain function, and reads only declared dependencies.",
            "Add the stage that the condition reads to the dependencies.",
            "Write edge('router', when='label') when there are several dependencies.",
            "Take the awaiting into a stage; a condition only looks at what stages returned.",
        ),
        (
            "STREAM",
            "Stream edge where none can be",
            "A stream edge runs beside its producer, so it excludes waiting for it or repeating it.",
            "Name the producer either in stream_from or in the dependencies.",
            "Keep stream edges away from the stages a guard-retry policy repeats.",
        ),
        (
            "STREAM_DEADLOCK",
            "Producer would wait for its consumer",
            "Before the consumer may start, a stage must end that needs the producer to end first.",
            "Stream that stage's input too, or take the stream edge off the consumer.",
        ),
        (
            "INPUT",
            "Declared input is missing",
            "A stage declares an input that its dependencies do not provide.",
            "Let a dependency return the key, or add the stage that returns it.",
            "Write 'stage:key' to say whose key is meant.",
        ),
        (
            "OUTPUT",
            "Declared output is missing",
            "A stage returned OK without a key it declares in outputs.",
            "Return the key, or remove it from outputs.",
            "Return StageOutput.skip(...) or fail(...) when there is nothing to deliver.",
        ),
        (
            "GUARD_RETRY",
            "Guard retry that cannot work",
            "A policy needs a guard of kind 'guard' and, as a direct dependency of it, the retry stage.",
            "Name a guard and one of its direct dependencies.",
        ),
        (
            "ORPHAN",
            "Stage without edges",
            "A stage neither depends on another nor is needed by one.",
            "Connect it with after=..., or move it to a pipeline of its own.",
        ),
        (
            "UNDECLARED_READ",
            "Read of an undeclared stage",
            "A stage reads the output of one that it does not declare, which fails when it runs.",
            "Add the stage that is read to the dependencies.",
        ),
        (
            "UNUSED_DEP",
            "Dependency that is never read",
            "A stage waits for one whose output it does not look at.",
            "Remove the dependency if only the data was meant; keep it if the order matters.",
        ),
        (
            "RETRY_SIDE_EFFECT",
            "Side effect below a retry",
            "A guard retry runs this work stage again, although nobody has approved the first result.",
            "Let the stage depend on the guard.",
            "Make it safe to repeat, with an idempotency key.",
        ),
        (
            "FACTORY",
            "Factory that was not called",
            "A function looks as if it made a pipeline; lint calls nothing unasked.",
            "Name it: actorflow lint FILE --call NAME.",
        ),
    )
}


def register_suggestion(suggestion: ContractSuggestion, *, replace: bool = False) -> None:
    """Let errors and lint issues with this code come with `suggestion`.

    Raises:
      InvalidArgumentError: if the code is taken and `replace` is False, or if
        the suggestion lacks a code, a title or a step.
    """
    for field in ("code", "title", "fix_steps"):
        if not getattr(suggestion, field):
            raise InvalidArgumentError(field, getattr(suggestion, field), "something to read")
    if suggestion.code in _suggestions and not replace:
        raise InvalidArgumentError(
            "code", suggestion.code, "a code without a suggestion, unless replace=True is given"
        )
    _suggestions[suggestion.code] = suggestion


def get_contract_suggestion(code: str) -> ContractSuggestion | None:
    """The suggestion registered for exactly this code."""
    return _suggestions.get(code)


def contract_suggestion_codes() -> list[str]:
    """Every code that has a suggestion, sorted."""
    return sorted(_suggestions)


@attrs.define(slots=False, eq=False)
class PipelineValidationError(ActorflowError, ValueError):
    """A pipeline cannot work as it is wired; nothing has run."""

    message: str
    stages: list[str] = attrs.field(factory=list, converter=_as_list)
    error_info: ContractErrorInfo | None = None

    @property
    def code(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: one class serves all contract codes.
        return self.error_info.code if self.error_info else "CONTRACT-004"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        return (self.error_info and self.error_info.fix_hint) or ""

    @property
    def doc_url(self) -> str:
        """Where the documentation explains this code."""
        return (self.error_info and self.error_info.doc_url) or super().doc_url

    @property
    def suggestion(self) -> ContractSuggestion | None:
        """The steps that repair what this code stands for."""
        return get_contract_suggestion(self.code)

    def with_context(self, **extra: object) -> Self:
        """This error, knowing more: for `raise error.with_context(file=...)`."""
        if self.error_info is None:
            raise InvalidArgumentError("error_info", None, "present before context is added")
        self.error_info = self.error_info.with_context(**extra)
        return self

    def to_dict(self) -> dict[str, object]:
        """The error as JSON."""
        return {
            "message": self.message,
            "stages": list(self.stages),
            "error_info": self.error_info.to_dict() if self.error_info else None,
        }

    def __str__(self) -> str:
        return self.message


def contract_error(
    code: str, message: str, stages: Iterable[str] = (), *, fix: str = "", **context: object
) -> PipelineValidationError:
    """The error for one of the `CONTRACT-004-...` codes; `fix` defaults to its suggestion."""
    return PipelineValidationError(message, stages, _contract_info(code, fix, context))


def _contract_info(code: str, fix: str, context: Mapping[str, object]) -> ContractErrorInfo:
    code = f"CONTRACT-004-{code}"
    suggestion = _suggestions[code]
    return ContractErrorInfo(
        code, suggestion.summary, fix or suggestion.fix_steps[0], suggestion.doc_url, context
    )


def _shortened(path: Sequence[str]) -> str:
    # A ring of thousands is a fact for a program; a person reads where it starts and closes.
    if len(path) > 12:
        path = [*path[:6], f"({len(path) - 11} more)", *path[-5:]]
    return " -> ".join(path)


@attrs.define(slots=False, eq=False, init=False)
class CycleDetectedError(PipelineValidationError):
    """Stages wait for each other in a ring, so none of them could ever start."""

    cycle_path: list[str] = attrs.field(factory=list)
    """The ring from dependent to dependency, its first stage repeated at the end."""

    def __init__(self, cycle_path: Iterable[str], stages: Iterable[str] | None = None) -> None:
        path = list(cycle_path)
        self.__attrs_init__(
            f"stages wait for each other in a cycle: {_shortened(path)}",
            dict.fromkeys(path) if stages is None else stages,
            _contract_info("CYCLE", "", {"cycle_path": path}),
            path,
        )
        # What pickle and copy call the class with.
        self.args = (path, self.stages)


@attrs.define(slots=False, eq=False)
class PredicateError(ActorflowError):
    """A condition could not say whether its stage should run."""

    stage: str
    predicate: str
    found: str

    code: ClassVar[str] = "RUN-006-PREDICATE"
    fix_hint: ClassVar[str] = "Return True or False, also when the value looked at is missing."

    def __str__(self) -> str:
        return f"condition {self.predicate!r} of stage {self.stage!r} {self.found}"


@attrs.define(slots=False, eq=False)
class UnknownBranchError(ActorflowError):
    """A router chose a branch that no edge of the pipeline is labelled with."""

    stage: str
    branch: object
    known: tuple[str, ...]

    code: ClassVar[str] = "RUN-007-BRANCH"
    fix_hint: ClassVar[str] = 'Put a known label, or a list of them, under data["branch"].'

    def __str__(self) -> str:
        known = ", ".join(map(repr, self.known))
        return f"stage {self.stage!r} chose the branch {self.branch!r}, known are {known}"


@attrs.define(slots=False, eq=False)
class UnknownKeywordError(InvalidTypeError):
    """A call was given a keyword that it does not have."""

    similar: str | None = None

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the known keywords are the answer.
        return f"Write {self.similar}=..." if self.similar else f"Known are {self.expected}."

    def __str__(self) -> str:
        hint = f"; did you mean {self.similar!r}?" if self.similar else ""
        return f"{self.argument} has no keyword {self.found!r}{hint}"


@attrs.define(slots=False, eq=False)
class PipelineNotFoundError(ActorflowError, KeyError):
    """No pipeline is registered under a name."""

    name: str
    known: tuple[str, ...]
    similar: str | None = None

    code: ClassVar[str] = "REGISTRY-001-NOT_FOUND"
    fix_hint: ClassVar[str] = "Register the pipeline before it is asked for, or correct the name."

    def __str__(self) -> str:
        hint = f"; did you mean {self.similar!r}?" if self.similar else ""
        known = ", ".join(map(repr, self.known))
        found = f"known are {known}{hint}" if known else "none is registered"
        return f"there is no pipeline {self.name!r}, {found}"


# Contexts and results


@attrs.define(slots=False, eq=False)
class DataConflictError(ActorflowError):
    """A key of a context bag was written twice."""

    key: str
    existing_writer: str
    new_writer: str

    code: ClassVar[str] = "CONTEXT-001-DATA_CONFLICT"
    fix_hint: ClassVar[str] = (
        "Give each writer a key of its own, or replace your own value with allow_overwrite=True."
    )

    def __str__(self) -> str:
        return (
            f"stage {self.new_writer!r} cannot write {self.key!r}: "
            f"stage {self.existing_writer!r} has written it"
        )


@attrs.define(slots=False, eq=False)
class OutputConflictError(ActorflowError):
    """A second output of a stage was recorded as if it were the first."""

    stage_name: str
    existing_attempt: int

    code: ClassVar[str] = "CONTEXT-002-OUTPUT_CONFLICT"
    fix_hint: ClassVar[str] = "Pass allow_overwrite=True to record the next attempt of the stage."

    def __str__(self) -> str:
        return (
            f"stage {self.stage_name!r} cannot record an output: "
            f"attempt {self.existing_attempt} is there already"
        )


@attrs.define(slots=False, eq=False)
class UndeclaredDependencyError(ActorflowError):
    """A stage read the output of another one that it does not declare."""

    stage_name: str
    declared_deps: tuple[str, ...]
    accessing_stage: str | None
    is_stream_source: bool = False
    """Whether the stage is named in `stream_from`, which is no dependency."""

    code: ClassVar[str] = "CONTEXT-003-UNDECLARED_DEP"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the fix names the stage.
        if self.is_stream_source:
            return (
                f"Read a stream source with ctx.stream({self.stage_name!r}), "
                f"its result with ctx.stream_output({self.stage_name!r})."
            )
        return f"Add {self.stage_name!r} to the dependencies of the stage that reads it."

    def __str__(self) -> str:
        reader = "inputs" if self.accessing_stage is None else f"stage {self.accessing_stage!r}"
        declared = ", ".join(map(repr, sorted(self.declared_deps))) or "nothing"
        return f"{reader} cannot read stage {self.stage_name!r}: declared is {declared}"


@attrs.define(slots=False, eq=False)
class MissingInputError(ActorflowError, KeyError):
    """A stage needs a value that its dependency did not leave."""

    stage_name: str
    key: str
    available: tuple[str, ...]
    """Keys of that output; the stages there are if it left no output at all."""

    code: ClassVar[str] = "CONTEXT-004-MISSING_INPUT"
    fix_hint: ClassVar[str] = (
        "Read one of the names listed, or use get_from(stage, key, default) if it may be missing."
    )

    def __str__(self) -> str:
        found = ", ".join(map(repr, self.available)) or "nothing"
        return f"{self.key!r} of stage {self.stage_name!r} is required, found {found}"


@attrs.define(slots=False, eq=False)
class ContextInUseError(ActorflowError, RuntimeError):
    """A second run was started on a context while its first run goes on."""

    pipeline_run_id: UUID | None

    code: ClassVar[str] = "CONTEXT-005-IN_USE"
    fix_hint: ClassVar[str] = "Give each run a PipelineContext of its own."

    def __str__(self) -> str:
        return f"the context cannot start a run: run {self.pipeline_run_id} is using it"


@attrs.define(slots=False, eq=False)
class NotInRunError(ActorflowError, RuntimeError):
    """A context outside a run was asked for what only a run can serve."""

    operation: str

    code: ClassVar[str] = "CONTEXT-006-NOT_IN_RUN"
    fix_hint: ClassVar[str] = (
        "Use it inside a stage that a pipeline runs; a test runs one with `testing.run_stage`."
    )

    def __str__(self) -> str:
        return f"{self.operation} needs a run, and this context belongs to none"


@attrs.define(slots=False, eq=False)
class StageNotFoundError(ActorflowError, KeyError):
    """Results were asked for a stage that left none."""

    stage: str
    available: tuple[str, ...]

    code: ClassVar[str] = "RESULT-001-NO_STAGE"
    fix_hint: ClassVar[str] = "Ask for one of the stages listed; one that never started is absent."

    def __str__(self) -> str:
        found = ", ".join(map(repr, self.available)) or "nothing"
        return f"there is no result of stage {self.stage!r}, found {found}"


@attrs.define(slots=False, eq=False)
class StageNotOkError(ActorflowError, RuntimeError):
    """The result of a stage was required and did not end OK."""

    stage: str
    status: str
    detail: str

    code: ClassVar[str] = "RESULT-002-NOT_OK"
    fix_hint: ClassVar[str] = "Look at ok(stage) first, or repair what the detail says."

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"stage {self.stage!r} was required to be ok, found {self.status}{detail}"


# Cancellation


@attrs.define(slots=False, eq=False)
class StageCancellationRequested(ActorflowError):  # noqa: N818 - a request, not an error
    """Raised in a stage to end it, and its run, because somebody asked for that."""

    reason: str = "Pipeline cancelled"

    code: ClassVar[str] = "CANCEL-001-REQUESTED"
    fix_hint: ClassVar[str] = "Let it pass: the run ends as canceled with this reason."

    def __str__(self) -> str:
        return self.reason


@attrs.define(slots=False, eq=False)
class TaskGroupClosedError(ActorflowError, RuntimeError):
    """A task was handed to a group that is not open."""

    task: str

    code: ClassVar[str] = "CANCEL-002-GROUP_CLOSED"
    fix_hint: ClassVar[str] = "Create tasks inside `async with StructuredTaskGroup() as group:`."

    def __str__(self) -> str:
        return f"task {self.task!r} cannot start: its group is not open"


# Running


class _Failure(Protocol):
    # What an error reads of the failures it carries; a run brings its own class.
    @property
    def stage(self) -> str: ...
    @property
    def exception(self) -> BaseException | None: ...


@attrs.define(slots=False, eq=False)
class StageError(ActorflowError):
    """A stage brought its run down."""


@attrs.define(slots=False, eq=False)
class UnifiedStageExecutionError(StageError):
    """A run failed; it says which stage was first and carries whatever was done until then."""

    stage: str
    original: Exception
    recoverable: bool
    results: Mapping[str, Any]
    """Every output of the run, those of failed stages included."""
    failures: Sequence[_Failure]
    """All failures in order, those raised while the others were being stopped included."""
    pipeline_name: str
    pipeline_run_id: UUID | str | None
    summary: Any = attrs.field(default=None, repr=False)

    code: ClassVar[str] = "RUN-001-STAGE_FAILED"
    fix_hint: ClassVar[str] = (
        "Look at the cause; `results` has what the other stages produced, `failures` what else failed."
    )

    def __str__(self) -> str:
        others = [failure.stage for failure in self.failures[1:]]
        more = f" (and {len(others)} more: {', '.join(others)})" if others else ""
        return f"stage {self.stage!r} failed: {_cause(self.original)}{more}"

    def as_group(self) -> ExceptionGroup[Exception]:
        """All failures as one group, for `except*`."""
        originals = [f.exception for f in self.failures if isinstance(f.exception, Exception)]
        return ExceptionGroup(str(self), originals or [self.original])


def _cause(error: Exception) -> str:
    """What went wrong, with its class where the text may say nothing without it."""
    if isinstance(error, ActorflowError):
        return str(error)
    return ": ".join(filter(None, (type(error).__name__, str(error))))


StageExecutionError = UnifiedStageExecutionError


@attrs.define(slots=False, eq=False)
class UnifiedPipelineCancelled(ActorflowError):  # noqa: N818 - a wish that was granted
    """A run was cancelled; it carries whatever was done until then."""

    stage: str
    """The stage that asked for it, or `<external>`."""
    reason: str
    results: Mapping[str, Any]
    failures: Sequence[_Failure]
    pipeline_name: str
    pipeline_run_id: UUID | str | None

    code: ClassVar[str] = "RUN-003-CANCELED"
    fix_hint: ClassVar[str] = "`results` has what was produced before the cancellation."

    def __str__(self) -> str:
        by = "from outside" if self.stage == "<external>" else f"by stage {self.stage!r}"
        return f"pipeline {self.pipeline_name!r} was canceled {by}: {self.reason}"


@attrs.define(slots=False, eq=False)
class StageTimeoutError(ActorflowError, TimeoutError):
    """A stage took longer than it may."""

    stage: str
    timeout: float
    elapsed: float

    code: ClassVar[str] = "RUN-002-TIMEOUT"
    fix_hint: ClassVar[str] = (
        "Raise the stage's `timeout`, or call `ctx.extend_timeout(seconds)` while there is progress."
    )

    def __str__(self) -> str:
        return f"Stage timed out after {round(self.timeout * 1000, 3):.12g}ms"


@attrs.define(slots=False, eq=False)
class UnsupportedResultError(ActorflowError, TypeError):
    """A stage returned something that is no output."""

    stage: str
    found: object

    code: ClassVar[str] = "RUN-004-RESULT_TYPE"
    fix_hint: ClassVar[str] = "Return a StageOutput, a mapping, or None."

    def __str__(self) -> str:
        kind = type(self.found).__name__
        return f"Stage {self.stage} returned unsupported result type {kind}"


@attrs.define(slots=False, eq=False)
class StageFailedError(ActorflowError):
    """A stage returned FAIL."""

    stage: str
    error: str
    output: Any = attrs.field(default=None, repr=False)

    code: ClassVar[str] = "RUN-005-FAIL_OUTPUT"
    fix_hint: ClassVar[str] = "The stage decided to fail; `output` has what it said about it."

    def __str__(self) -> str:
        return self.error


@attrs.define(slots=False, eq=False)
class StageRetryRequested(ActorflowError):  # noqa: N818 - a request, not an error
    """A stage returned RETRY."""

    stage: str
    error: str
    output: Any = attrs.field(default=None, repr=False)

    code: ClassVar[str] = "RUN-005-RETRY_OUTPUT"
    fix_hint: ClassVar[str] = (
        "Run the pipeline with a RetryInterceptor to have the stage tried again."
    )

    def __str__(self) -> str:
        return self.error


@attrs.define(slots=False, eq=False)
class StreamBrokenError(ActorflowError):
    """A stage streams from one that did not end well, and has read all it sent."""

    source: str
    consumer: str

    code: ClassVar[str] = "RUN-008-STREAM_BROKEN"
    fix_hint: ClassVar[str] = (
        "Look at the cause; catch this where part of a stream is better than nothing."
    )

    def __str__(self) -> str:
        return f"the stream from {self.source!r} to {self.consumer!r} broke off"


@attrs.define(slots=False, eq=False)
class StreamClosedError(ActorflowError):
    """A stage sends although nobody can ever read it."""

    source: str
    consumer: str | None = None

    code: ClassVar[str] = "RUN-008-STREAM_CLOSED"
    fix_hint: ClassVar[str] = (
        "Declare stream_from on the reading stage, and send before the stage returns."
    )

    def __str__(self) -> str:
        return f"stage {self.source!r} sends, but no stage streams from it now"


@attrs.define(slots=False, eq=False)
class DeadlockedGraphError(ActorflowError, RuntimeError):
    """Stages are left that nothing will ever start."""

    remaining: tuple[str, ...]
    """Sorted."""

    code: ClassVar[str] = "RUN-010-DEADLOCK"
    fix_hint: ClassVar[str] = "Check the stream edges and conditions around the stages named."

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.remaining))
        return f"the run cannot go on: nothing runs, and nothing can start {names}"


@attrs.define(slots=False, eq=False)
class MaxDepthExceededError(ActorflowError):
    """A run wanted to start one more child below itself than is allowed."""

    current_depth: int
    max_depth: int
    parent_run_id: UUID | str | None

    code: ClassVar[str] = "CHILD-001-DEPTH"
    fix_hint: ClassVar[str] = (
        "Look for a pipeline that spawns itself without end, or raise the spawner's max_depth."
    )

    def __str__(self) -> str:
        return (
            f"run {self.parent_run_id} is {self.current_depth} levels below its root"
            f" and cannot have children: at most {self.max_depth} levels are allowed"
        )


@attrs.define(slots=False, eq=False)
class TransientError(ActorflowError):
    """Something failed that may well work when it is tried again."""

    message: str = "temporary failure"

    code: ClassVar[str] = "TRANSIENT-001"
    fix_hint: ClassVar[str] = "Try again; a RetryInterceptor with default settings does."

    def __str__(self) -> str:
        return self.message


@attrs.define(slots=False, eq=False)
class RateLimitError(TransientError):
    """A service refuses because it was asked too often."""

    retry_after: float | None = None
    """Seconds the service wants to be left alone."""

    code: ClassVar[str] = "TRANSIENT-002"


@attrs.define(slots=False, eq=False)
class ServiceUnavailableError(TransientError):
    """A service does not answer at the moment."""

    retry_after: float | None = None
    """Seconds the service wants to be left alone."""

    code: ClassVar[str] = "TRANSIENT-003"


# Around a stage call


@attrs.define(slots=False, eq=False)
class RefusedError(ActorflowError):
    """A rule said no. Trying again cannot change that, so nothing retries it."""


@attrs.define(slots=False, eq=False)
class CircuitOpenError(RefusedError):
    """A call was not made, because the calls before it kept failing."""

    name: str
    operation: str
    """The pipeline, or whatever the circuit belongs to."""
    provider: str
    """The stage, or the service behind it."""
    failures: int
    retry_after: float
    """Seconds until a call is let through to see how it goes."""

    code: ClassVar[str] = "RUN-009-CIRCUIT_OPEN"
    fix_hint: ClassVar[str] = "Find out why the calls before this one failed, or wait."

    def __str__(self) -> str:
        return (
            f"{self.provider!r} was not called: it failed {self.failures} times in a row, "
            f"the next try is possible in {self.retry_after:.3g} s"
        )


@attrs.define(slots=False, eq=False)
class InterceptorError(ActorflowError):
    """A hook of an interceptor raised, or answered something that it cannot."""

    interceptor_name: str
    hook: str
    message: str

    code: ClassVar[str] = "INT-001-FAILED"
    fix_hint: ClassVar[str] = "Look at the cause: it is in the code of the interceptor."

    def __str__(self) -> str:
        return f"interceptor {self.interceptor_name!r} failed in {self.hook}: {self.message}"


@attrs.define(slots=False, eq=False)
class CriticalInterceptorError(InterceptorError):
    """Raised in a hook, it fails the stage, and no interceptor can turn it into anything else."""

    code: ClassVar[str] = "INT-002-CRITICAL"


@attrs.define(slots=False, eq=False)
class ImmutabilityViolationError(CriticalInterceptorError, RuntimeError):
    """A stage changed the snapshot that all stages of its run share."""

    stage: str
    changed: tuple[str, ...]
    """JSON pointers of what differs: ``/metadata/channel``."""
    suspects: tuple[str, ...]
    """Stages that ran at the same time and may have done it."""

    # What these say is the same for every violation.
    interceptor_name: str = attrs.field(default="immutability_check", init=False)
    hook: str = attrs.field(default="after", init=False)
    message: str = attrs.field(default="the snapshot was changed", init=False)

    code: ClassVar[str] = "INT-003-IMMUTABLE"
    fix_hint: ClassVar[str] = "Return what the stage has to say in its output."

    def __str__(self) -> str:
        beside = f"; at the same time ran {', '.join(self.suspects)}" if self.suspects else ""
        return (
            f"Immutability violation: Stage '{self.stage}' mutated the input ContextSnapshot. "
            f"Changed: {', '.join(self.changed)}{beside}"
        )


@attrs.define(slots=False, eq=False)
class ContextSizeExceededError(ActorflowError):
    """What a stage is to be given is larger than it may be."""

    stage: str
    size_bytes: int
    limit_bytes: int

    code: ClassVar[str] = "CONTEXT-001-SIZE"
    fix_hint: ClassVar[str] = "Keep large values elsewhere and pass references to them."

    def __str__(self) -> str:
        return (
            f"the context of stage {self.stage!r} has {self.size_bytes} bytes, "
            f"more than the limit of {self.limit_bytes}"
        )


# Work that counts once


@attrs.define(slots=False, eq=False)
class WorkError(ActorflowError):
    """What concerns work that has effects outside the process."""

    code: ClassVar[str] = "WORK-000"


@attrs.define(slots=False, eq=False)
class IdempotencyParamMismatch(WorkError, CriticalInterceptorError):  # noqa: N818 - a finding
    """A key came back with other parameters than those it was first used with."""

    key: str
    expected: str
    """Hash of the parameters that came first."""
    actual: str
    operation: str = ""

    # A mismatch is always found here.
    interceptor_name: str = attrs.field(default="idempotency", init=False)
    hook: str = attrs.field(default="before", init=False)
    message: str = attrs.field(default="other parameters", init=False)

    code: ClassVar[str] = "WORK-001-PARAM_MISMATCH"
    fix_hint: ClassVar[str] = "Repeat the original parameters or use a new key."

    def __str__(self) -> str:
        return (
            f"Idempotency key '{self.key}' was already used for '{self.operation}' with different "
            f"parameters (expected {self.expected[:12]}, got {self.actual[:12]}). {self.fix_hint}"
        )


@attrs.define(slots=False, eq=False)
class IdempotencyKeyInvalid(WorkError, RefusedError, ValueError):  # noqa: N818 - a finding
    """What was given as a key cannot be one."""

    found: object
    stage: str

    code: ClassVar[str] = "WORK-002-KEY_INVALID"
    fix_hint: ClassVar[str] = "Pass a string of 1 to 255 printable characters."

    def __str__(self) -> str:
        return (
            f"the idempotency key of stage {self.stage!r} must be a string of 1 to 255 printable "
            f"characters, found {reprlib.repr(self.found)}"
        )


@attrs.define(slots=False, eq=False)
class IdempotencyKeyMissing(WorkError, RefusedError):  # noqa: N818 - a finding
    """Work that must not be done twice was requested without a key."""

    stage: str

    code: ClassVar[str] = "WORK-003-KEY_MISSING"
    fix_hint: ClassVar[str] = 'Pass a key: run(..., data={"idempotency_key": key}).'

    def __str__(self) -> str:
        return f"stage {self.stage!r} was not run: it needs an idempotency key and there is none"


@attrs.define(slots=False, eq=False)
class IdempotencyWaitTimeout(WorkError, TimeoutError):  # noqa: N818 - a timeout
    """Somebody else does the same work and has not finished in time."""

    key: str
    operation: str
    waited: float

    code: ClassVar[str] = "WORK-004-WAIT_TIMEOUT"
    fix_hint: ClassVar[str] = "Ask again later with the same key, or raise wait_timeout_seconds."

    def __str__(self) -> str:
        return (
            f"{self.operation!r} with key '{self.key}' is being carried out by another run, "
            f"which had not finished after {self.waited:.3g} s"
        )


@attrs.define(slots=False, eq=False)
class WorkInDoubtError(WorkError, RefusedError):
    """Work was begun and nobody knows whether it had its effect."""

    key: str
    operation: str
    since: str

    code: ClassVar[str] = "WORK-005-IN_DOUBT"
    fix_hint: ClassVar[str] = (
        "Find out what happened, then `await store.resolve(...)`; or give the stage a "
        "`reconcile` method or `idempotent = True`."
    )

    def __str__(self) -> str:
        return (
            f"{self.operation!r} with key '{self.key}' was begun at {self.since} and not finished; "
            "whether it had its effect is unknown"
        )


@attrs.define(slots=False, eq=False)
class IdempotencyLeaseLost(WorkError, RefusedError):  # noqa: N818 - a finding
    """Another owner took over while this one was at work."""

    key: str
    operation: str
    fence: int

    code: ClassVar[str] = "WORK-007-LEASE_LOST"
    fix_hint: ClassVar[str] = "Raise lease_seconds if the process may stand still for long."

    def __str__(self) -> str:
        return (
            f"{self.operation!r} with key '{self.key}' was taken over by another owner "
            f"(fence {self.fence} is out of date)"
        )


@attrs.define(slots=False, eq=False)
class IdempotencyReentryError(WorkError, RefusedError):
    """Work waits for itself: a child run asks for what its parent is doing."""

    key: str
    operation: str

    code: ClassVar[str] = "WORK-008-REENTRY"
    fix_hint: ClassVar[str] = "Give the child run a key of its own, or none."

    def __str__(self) -> str:
        return f"{self.operation!r} with key '{self.key}' would wait for itself"


@attrs.define(slots=False, eq=False)
class IdempotencyResultUnavailable(WorkError, RefusedError):  # noqa: N818 - a finding
    """The work was done, and its result could not be kept."""

    key: str
    operation: str

    code: ClassVar[str] = "WORK-009-RESULT_UNAVAILABLE"
    fix_hint: ClassVar[str] = "Return data that JSON can hold, or use the memory store."

    def __str__(self) -> str:
        return f"{self.operation!r} with key '{self.key}' was carried out, its result was not kept"


@attrs.define(slots=False, eq=False)
class IdempotencyStoreError(WorkError):
    """The store that says what has been done already cannot answer."""

    operation: str
    reason: str

    code: ClassVar[str] = "WORK-010-STORE"
    fix_hint: ClassVar[str] = "Look at the cause; nothing was run without the store's consent."

    def __str__(self) -> str:
        return f"the idempotency store could not {self.operation}: {self.reason}"


# Audio


@attrs.define(slots=False, eq=False)
class InvalidAudioError(InvalidArgumentError):
    """Audio, or a setting of something that carries it, has an impossible value."""

    code: ClassVar[str] = "AUDIO-001-INVALID"

    def __str__(self) -> str:
        # What was found may be seconds of audio.
        return f"{self.argument} must be {self.expected}, found {reprlib.repr(self.found)}"


@attrs.define(slots=False, eq=False)
class AudioFormatMismatchError(InvalidAudioError):
    """A chunk has another format than the audio it should be added to."""

    code: ClassVar[str] = "AUDIO-002-FORMAT_MISMATCH"
    fix_hint: ClassVar[str] = "Convert the audio first, or announce the format it really has."


@attrs.define(slots=False, eq=False)
class SoundDeviceError(ActorflowError, OSError):
    """This machine has no microphone or speaker that can be used."""

    device: str
    problem: str

    code: ClassVar[str] = "AUDIO-003-DEVICE"
    fix_hint: ClassVar[str] = (
        "`python -m sounddevice` lists devices; where PortAudio is missing, apt-get install"
        " libportaudio2, or brew install portaudio. Files need no device."
    )

    def __str__(self) -> str:
        return f"there is no {self.device} to be used: {self.problem}"


# Providers


@attrs.define(slots=False, eq=False)
class InvalidProviderResponseError(InvalidArgumentError):
    """A reply of a language model or speech service says something impossible."""

    code: ClassVar[str] = "PROVIDER-001-INVALID_RESPONSE"
    fix_hint: ClassVar[str] = "Correct the adapter that turns the service's reply into this one."

    def __str__(self) -> str:
        # What was found may be seconds of audio.
        return f"{self.argument} must be {self.expected}, found {reprlib.repr(self.found)}"


@attrs.define(slots=False, eq=False)
class MockConfigError(InvalidArgumentError):
    """A mock provider was told to do something impossible."""

    code: ClassVar[str] = "MOCK-001-CONFIG"


@attrs.define(slots=False, eq=False)
class MockProviderError(ActorflowError):
    """A mock provider failed because it was told to."""

    message: str

    code: ClassVar[str] = "MOCK-002-SIMULATED"
    fix_hint: ClassVar[str] = "Nothing is broken: this failure is simulated by the test."

    def __str__(self) -> str:
        return self.message


@attrs.define(slots=False, eq=False)
class MockAuthError(MockProviderError, ValueError):
    """A mock auth provider refused a token."""

    fix_hint: ClassVar[str] = "Make a token with `create_token`, or pass `accept_any=True`."


# Sessions


@attrs.define(slots=False, eq=False)
class SessionError(ActorflowError):
    """Something about a session over a websocket went wrong."""

    code: ClassVar[str] = "SESSION-000"


@attrs.define(slots=False, eq=False)
class AuthDeniedError(SessionError):
    """Whoever wants to open a session may not."""

    reason: str = "no reason given"
    status: int = 401
    """What the HTTP answer says: 401 for "who are you?", 403 for "not you"."""

    code: ClassVar[str] = "SESSION-001-AUTH_DENIED"
    fix_hint: ClassVar[str] = "Connect with credentials that the server's `authenticate` accepts."

    def __str__(self) -> str:
        return f"the session was denied with status {self.status}: {self.reason}"


@attrs.define(slots=False, eq=False)
class ProtocolViolationError(SessionError):
    """The other end of a connection said something that the protocol does not allow."""

    found: str
    close_code: int = 4003
    error_code: str = "PROTOCOL"

    code: ClassVar[str] = "SESSION-002-PROTOCOL"
    fix_hint: ClassVar[str] = "Compare what the peer sends with the tables of the protocol."

    def __str__(self) -> str:
        return f"the peer sent {self.found}"


@attrs.define(slots=False, eq=False)
class ResumeRefusedError(SessionError):
    """A session cannot be resumed: it is over, or the token is wrong, used or expired."""

    code: ClassVar[str] = "SESSION-003-RESUME_REFUSED"
    fix_hint: ClassVar[str] = "Start a new session; tell the user that the old one is lost."

    def __str__(self) -> str:
        return "the server refused to resume the session"


@attrs.define(slots=False, eq=False)
class SessionClosedError(SessionError):
    """The session is over."""

    close_code: int
    reason: str = ""

    code: ClassVar[str] = "SESSION-004-CLOSED"
    fix_hint: ClassVar[str] = "Open a new session; the close code says why this one ended."

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"the session was closed with code {self.close_code}{because}"


@attrs.define(slots=False, eq=False)
class ResumeGapError(SessionError):
    """The session goes on, but messages of the time without a connection are lost."""

    first_seq: int
    """The first message there still was."""

    code: ClassVar[str] = "SESSION-005-RESUME_GAP"
    fix_hint: ClassVar[str] = "Keep reading; allow the server a larger replay buffer."

    def __str__(self) -> str:
        return f"messages before number {self.first_seq} are lost"


@attrs.define(slots=False, eq=False)
class ConnectionLostError(SessionError):
    """A connection ended, in order or not."""

    close_code: int = 1006
    """As the peer gave it; 1006 if it ended without a word."""
    reason: str = ""

    code: ClassVar[str] = "SESSION-006-CONNECTION_LOST"
    fix_hint: ClassVar[str] = (
        "Connect again; if nobody was there, check the address, and ws:// against wss://."
    )

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"the connection ended with code {self.close_code}{because}"


# Voice


@attrs.define(slots=False, eq=False)
class NotInVoiceTurnError(ActorflowError, RuntimeError):
    """A stage asked what the user wants in a run that answers nobody."""

    stage: str

    code: ClassVar[str] = "VOICE-001-NO_TURN"
    fix_hint: ClassVar[str] = (
        "Let a VoiceApp run the pipeline, or run it with `ports=turn_ports(UserTurn(text=...))`."
    )

    def __str__(self) -> str:
        return f"stage {self.stage!r} asked for the user's turn, and its run has none"


# Conversation memory


@attrs.define(slots=False, eq=False)
class InvalidMemoryError(InvalidArgumentError):
    """A memory entry, or a limit of what is remembered, has an impossible value."""

    code: ClassVar[str] = "MEMORY-002-INVALID"

    def __str__(self) -> str:
        # What was found may be what somebody said.
        return f"{self.argument} must be {self.expected}, found {reprlib.repr(self.found)}"


# Diagnostics


@attrs.define(slots=False, eq=False)
class MemoryTrackerInactiveError(ActorflowError, RuntimeError):
    """A memory tracker was asked for a sample while it is not tracing."""

    label: str | None = None
    """What the sample was to be called."""

    code: ClassVar[str] = "DIAG-001-INACTIVE"
    fix_hint: ClassVar[str] = "Call `tracker.start()`, or make the tracker with `auto_start=True`."

    def __str__(self) -> str:
        return "MemoryTracker is not active; call start() first"


@attrs.define(slots=False, eq=False)
class InvalidDiagnosticsError(InvalidArgumentError, TypeError):
    """A tracker or monitor was given what it cannot work with."""

    code: ClassVar[str] = "DIAG-002-INVALID"


# Command line


@attrs.define(slots=False, eq=False)
class TargetError(ActorflowError):
    """A command cannot use the file or module it was pointed at."""

    target: str
    problem: str
    remedy: str = "Run it with `python` first: it has to import without an error."

    code: ClassVar[str] = "CLI-001-TARGET"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: a wrong path is mended otherwise than a wrong file.
        return self.remedy

    def __str__(self) -> str:
        return f"{self.target} cannot be used: {self.problem}"


@attrs.define(slots=False, eq=False)
class ProgramError(ActorflowError):
    """A program of the system that something works with is not there, or failed."""

    program: str
    problem: str
    remedy: str

    code: ClassVar[str] = "CLI-002-PROGRAM"

    @property
    def fix_hint(self) -> str:  # type: ignore[override]
        # A property where the base has a constant: the remedy depends on the problem.
        return self.remedy

    def __str__(self) -> str:
        return f"the program {self.program!r} {self.problem}"
