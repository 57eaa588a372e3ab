"""Idempotency keys in the memory of one process."""

from __future__ import annotations

import copy
import itertools
import logging
from datetime import datetime, timedelta
from typing import Final, Literal, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import IdempotencyStoreError, InvalidArgumentError
from actorflow.model import StageOutput

from ._idempotency import Claim, IdempotencyRecord, RecordState

_log: Final = logging.getLogger("actorflow.stores")


@final
class InMemoryIdempotencyStore:
    """Serves the tasks of one trio run at a time and forgets everything with its process.

    No method waits, so each is one step. Beyond `max_entries` expired records leave
    first, then the oldest completed ones; work in progress or in doubt never does.
    """

    def __init__(self, max_entries: int = 10_000) -> None:
        if not max_entries >= 1:
            raise InvalidArgumentError("max_entries", max_entries, "1 or more")
        self._max_entries: Final = max_entries
        self._records: Final[dict[str, IdempotencyRecord]] = {}
        self._changes: Final[dict[str, trio.Event]] = {}
        self._fences: Final = itertools.count(1)

    def __len__(self) -> int:
        return len(self._records)

    async def claim(
        self,
        key: str,
        *,
        owner: str,
        params_hash: str | None,
        lease_seconds: float,
        run_id: str | None,
    ) -> Claim:
        """Take a key that is free; otherwise say who has it."""
        found = self._find(key)
        if found is not None:
            return Claim(False, _copied(found))
        self._make_room()
        now = clock.now()
        record = IdempotencyRecord(
            key,
            RecordState.IN_PROGRESS,
            params_hash,
            owner,
            next(self._fences),
            now + timedelta(seconds=lease_seconds),
            run_id=run_id,
            created_at=now,
        )
        self._put(record)
        return Claim(True, record)

    async def renew(self, key: str, *, owner: str, fence: int, lease_seconds: float) -> bool:
        """Keep the claim for another `lease_seconds` from now."""
        record = self._owned(key, owner, fence)
        if record is None:
            return False
        lease_expires_at = clock.now() + timedelta(seconds=lease_seconds)
        # Nobody waits for this kind of change.
        self._records[key] = attrs.evolve(record, lease_expires_at=lease_expires_at)
        return True

    async def complete(
        self, key: str, *, owner: str, fence: int, output: StageOutput, ttl_seconds: float | None
    ) -> bool:
        """Keep the output for `ttl_seconds` from now."""
        if ttl_seconds is None:
            raise InvalidArgumentError("ttl_seconds", None, "a time: memory is not for ever")
        record = self._owned(key, owner, fence)
        if record is None:
            return False
        self._put(_completed(record, _own_copy(output), ttl_seconds))
        return True

    async def doubt(self, key: str, *, owner: str, fence: int) -> bool:
        """Give the claim up and say that nobody knows what became of the work."""
        record = self._owned(key, owner, fence)
        if record is None:
            return False
        self._put(attrs.evolve(record, state=RecordState.IN_DOUBT))
        return True

    async def release(self, key: str, *, owner: str, fence: int) -> bool:
        """Give the claim up: the work was not done, and the key is free."""
        if self._owned(key, owner, fence) is None:
            return False
        self._remove(key)
        return True

    async def get(self, key: str) -> IdempotencyRecord | None:
        """The record of a key, with an output of its own."""
        found = self._find(key)
        return None if found is None else _copied(found)

    async def set(
        self, key: str, record: IdempotencyRecord, *, ttl_seconds: float | None = None
    ) -> None:
        """Put a record in place of whatever is there."""
        if key not in self._records:
            self._make_room()
        if ttl_seconds is not None:
            expires_at = clock.now() + timedelta(seconds=ttl_seconds)
            record = attrs.evolve(record, expires_at=expires_at)
        self._put(_copied(attrs.evolve(record, key=key)))

    async def delete(self, key: str) -> bool:
        """Forget a key, and say whether there was anything to forget."""
        if self._find(key) is None:
            return False
        self._remove(key)
        return True

    async def resolve(
        self,
        key: str,
        *,
        outcome: Literal["completed", "not_executed"],
        output: StageOutput | None = None,
        by: str | None = None,
    ) -> IdempotencyRecord:
        """End a doubt; who did is in the log.

        Raises:
          IdempotencyStoreError: if the key is not in doubt.
        """
        record = self._find(key)
        if record is None or record.state is not RecordState.IN_DOUBT:
            found = "unknown" if record is None else str(record.state)
            raise IdempotencyStoreError("resolve", f"the key is {found}, not in doubt")
        _log.info("idempotency_doubt_resolved", extra={"key": key, "outcome": outcome, "by": by})
        if outcome == "not_executed":
            self._remove(key)
            return record
        record = _completed(record, output and _own_copy(output), None)
        self._put(record)
        return _copied(record)

    async def purge_expired(self) -> int:
        """Remove records that have expired, and return how many."""
        return self._purge(clock.now())

    async def wait_for_change(self, key: str) -> None:
        """Return when the record of `key` has changed or gone."""
        change = self._changes.setdefault(key, trio.Event())
        try:
            await change.wait()
        finally:
            # The last one to leave takes the event along.
            if self._changes.get(key) is change and not change.statistics().tasks_waiting:
                del self._changes[key]

    # Records

    def _find(self, key: str) -> IdempotencyRecord | None:
        """The record as it stands now: expired ones are gone, abandoned ones in doubt."""
        record = self._records.get(key)
        if record is None:
            return None
        now = clock.now()
        if _has_expired(record, now):
            self._remove(key)
            return None
        if record.state is RecordState.IN_PROGRESS and record.lease_expires_at <= now:
            record = attrs.evolve(record, state=RecordState.IN_DOUBT)
            self._put(record)
        return record

    def _owned(self, key: str, owner: str, fence: int) -> IdempotencyRecord | None:
        record = self._find(key)
        if (
            record is None
            or record.state is not RecordState.IN_PROGRESS
            or (record.owner, record.fence) != (owner, fence)
        ):
            return None
        return record

    def _put(self, record: IdempotencyRecord) -> None:
        self._records[record.key] = record
        self._wake(record.key)

    def _remove(self, key: str) -> None:
        del self._records[key]
        self._wake(key)

    def _wake(self, key: str) -> None:
        change = self._changes.pop(key, None)
        if change is not None:
            change.set()

    def _make_room(self) -> None:
        if len(self._records) < self._max_entries or self._purge(clock.now()):
            return
        # In order of insertion, so the first completed one is the oldest.
        for key, record in self._records.items():
            if record.state is RecordState.COMPLETED:
                self._remove(key)
                return
        raise IdempotencyStoreError("claim", f"full: {self._max_entries} keys are in progress")

    def _purge(self, now: datetime) -> int:
        expired = [key for key, record in self._records.items() if _has_expired(record, now)]
        for key in expired:
            self._remove(key)
        return len(expired)


def _has_expired(record: IdempotencyRecord, now: datetime) -> bool:
    return record.expires_at is not None and record.expires_at <= now


def _completed(
    record: IdempotencyRecord, output: StageOutput | None, ttl_seconds: float | None
) -> IdempotencyRecord:
    now = clock.now()
    return attrs.evolve(
        record,
        state=RecordState.COMPLETED,
        output=output,
        completed_at=now,
        expires_at=None if ttl_seconds is None else now + timedelta(seconds=ttl_seconds),
    )


def _copied(record: IdempotencyRecord) -> IdempotencyRecord:
    if record.output is None:
        return record
    return attrs.evolve(record, output=_own_copy(record.output))


def _own_copy(output: StageOutput) -> StageOutput:
    # Containers in an output are frozen; what a stage put into them may not be. What
    # refuses to be copied (a lock, a connection) can only be shared.
    try:
        return copy.deepcopy(output)
    except Exception:  # noqa: BLE001 - copying runs user code
        return output
