"""What a store of idempotency keys has to do."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, final, runtime_checkable

import attrs

from actorflow.model import StageOutput


@final
class RecordState(StrEnum):
    """What is known about the work behind a key."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    IN_DOUBT = "in_doubt"
    """It was begun, nobody is at it, and whether it had its effect is unknown."""


@final
@attrs.frozen
class IdempotencyRecord:
    """The work behind one key."""

    key: str
    state: RecordState = attrs.field(converter=RecordState)
    params_hash: str | None
    owner: str
    fence: int
    """Grows with every claim, so that an older owner can be told from a newer one."""
    lease_expires_at: datetime
    output: StageOutput | None = None
    run_id: str | None = None
    created_at: datetime = attrs.field(kw_only=True)
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    """When the key is free again; None for never."""


@final
@attrs.frozen
class Claim:
    """The answer to a claim: it is yours, or this is what stands in the way."""

    acquired: bool
    record: IdempotencyRecord


class IdempotencyStore(Protocol):
    """Keeps one record per key; every method is atomic.

    `renew`, `complete`, `doubt` and `release` change a record only for its present
    owner, who is named by `owner` and `fence`, and answer whether they did.
    """

    async def claim(
        self,
        key: str,
        *,
        owner: str,
        params_hash: str | None,
        lease_seconds: float,
        run_id: str | None,
    ) -> Claim:
        """Take a key that is free; otherwise say who has it.

        A record in progress whose lease has run out is answered as in doubt.
        """
        ...

    async def renew(self, key: str, *, owner: str, fence: int, lease_seconds: float) -> bool:
        """Keep the claim for another `lease_seconds` from now."""
        ...

    async def complete(
        self, key: str, *, owner: str, fence: int, output: StageOutput, ttl_seconds: float | None
    ) -> bool:
        """Keep the output for `ttl_seconds` from now; None for ever."""
        ...

    async def doubt(self, key: str, *, owner: str, fence: int) -> bool:
        """Give the claim up and say that nobody knows what became of the work."""
        ...

    async def release(self, key: str, *, owner: str, fence: int) -> bool:
        """Give the claim up: the work was not done, and the key is free."""
        ...

    async def get(self, key: str) -> IdempotencyRecord | None: ...

    async def set(
        self, key: str, record: IdempotencyRecord, *, ttl_seconds: float | None = None
    ) -> None:
        """Put a record in place of whatever is there."""
        ...

    async def delete(self, key: str) -> bool: ...

    async def resolve(
        self,
        key: str,
        *,
        outcome: Literal["completed", "not_executed"],
        output: StageOutput | None = None,
        by: str | None = None,
    ) -> IdempotencyRecord:
        """End a doubt, and return the record as it was or is then.

        Raises:
          IdempotencyStoreError: if the key is not in doubt.
        """
        ...

    async def purge_expired(self) -> int:
        """Remove records that have expired, and return how many."""
        ...


@runtime_checkable
class WatchableStore(Protocol):
    """A store that wakes those who wait for a record; others are asked again and again."""

    async def wait_for_change(self, key: str) -> None:
        """Return when the record of `key` has changed or gone."""
        ...
