from __future__ import annotations

from enum import StrEnum
from typing import final

import attrs


@final
class DeadReason(StrEnum):
    """Why a message was handled by nobody."""

    CRASHED = "crashed"
    """It was in hand when its actor crashed. It is never delivered again."""

    KILLED = "killed"
    """It was in hand when its actor was killed or cancelled."""

    STOPPED = "stopped"
    """It was still queued when its actor ended for good."""

    DROPPED_NEW = "dropped_new"
    """The mailbox was full."""

    DROPPED_OLD = "dropped_old"
    """The mailbox was full and a newer message took its place."""

    CONFLATED = "conflated"
    """A newer message with the same key replaced it."""

    EXPIRED = "expired"
    """It was a request, and its asker had given up before its turn came."""


@final
@attrs.frozen
class DeadLetter:
    """A message that no actor handled, and why."""

    message: object
    actor: str
    reason: DeadReason
