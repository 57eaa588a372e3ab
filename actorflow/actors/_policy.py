"""What a full mailbox does with one more message."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Any, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError


@final
class Policy(StrEnum):
    """What happens to a message that finds no room."""

    BLOCK = "block"
    """The sender waits: backpressure."""

    FAIL = "fail"
    """The sender gets `MailboxFullError`."""

    DROP_NEW = "drop_new"
    """The message becomes a dead letter."""

    DROP_OLD = "drop_old"
    """The oldest queued message becomes a dead letter: live audio, telemetry."""


@final
@attrs.frozen
class Conflate:
    """Keep the newest message for each key, in the place of the older one.

    For interim transcripts and status, where only the last word counts. Senders
    never wait: with more keys than room the oldest message goes.
    """

    key: Callable[[Any], Hashable]

    def __str__(self) -> str:
        return "conflate"


MailboxPolicy: TypeAlias = Policy | Conflate


def conflate(key: Callable[[Any], Hashable]) -> Conflate:
    """Return the policy that keeps only the newest message for each ``key(message)``."""
    if not callable(key):
        raise InvalidTypeError("key", key, "a function of a message")
    return Conflate(key)


def to_policy(value: str | MailboxPolicy) -> MailboxPolicy:
    """Accept a policy by its name too."""
    if isinstance(value, Conflate):
        return value
    try:
        return Policy(value)
    except ValueError:
        allowed = f"one of {', '.join(Policy)} or conflate(key)"
        raise InvalidArgumentError("policy", value, allowed) from None
