"""What follows from a key, its parameters and its record. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, final

import attrs

from actorflow.codec import checksum
from actorflow.errors import IdempotencyKeyInvalid
from actorflow.stores import RecordState

if TYPE_CHECKING:
    from actorflow.stores import IdempotencyRecord


@final
@attrs.frozen
class IdempotencyKey:
    """Who asks for what, and the name that the caller gave this wish."""

    client_id: str
    operation: str
    key: str

    @property
    def digest(self) -> str:
        """64 hex digits; what services outside may be told."""
        return checksum([self.client_id, self.operation, self.key])

    @property
    def storage_key(self) -> str:
        """What stores know it by; the parts cannot be read from it."""
        return f"idem:v1:{self.digest}"


def operation_of(pipeline: str, stage: str, attempt: int) -> str:
    """What is done; a guard's repetition is another operation than the first run."""
    repetition = f"#{attempt - 1}" if attempt > 1 else ""
    return f"{pipeline}/{stage}{repetition}"


def checked_key(found: object, stage: str) -> str:
    """The caller's key.

    Raises:
      IdempotencyKeyInvalid: if it cannot be one.
    """
    if isinstance(found, str) and 1 <= len(found) <= 255 and found.isprintable():
        return found
    raise IdempotencyKeyInvalid(found, stage)


@final
class Step(Enum):
    """What follows from the record of a key that is not free."""

    REPLAY = auto()
    WAIT = auto()
    REFUSE = auto()
    """The parameters are not those that came first."""
    WITHOUT_RESULT = auto()
    DOUBT = auto()


def step_for(record: IdempotencyRecord, params_hash: str | None, *, validate: bool) -> Step:
    """What a duplicate with these parameters does."""
    if validate and record.params_hash != params_hash:
        return Step.REFUSE
    match record.state:
        case RecordState.COMPLETED:
            return Step.WITHOUT_RESULT if record.output is None else Step.REPLAY
        case RecordState.IN_PROGRESS:
            return Step.WAIT
        case _:
            return Step.DOUBT


@final
class DoubtAnswer(Enum):
    """What is done about work of which nobody knows whether it was done."""

    ASK_STAGE = auto()
    RERUN = auto()
    FAIL = auto()


def answer_to_doubt(policy: str, *, has_reconcile: bool, is_idempotent: bool) -> DoubtAnswer:
    """By the interceptor's policy, else by what the stage declares; failing is the default."""
    if policy == "rerun":
        return DoubtAnswer.RERUN
    if policy == "fail":
        return DoubtAnswer.FAIL
    if has_reconcile:
        return DoubtAnswer.ASK_STAGE
    return DoubtAnswer.RERUN if is_idempotent else DoubtAnswer.FAIL
