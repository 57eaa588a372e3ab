"""Where things are kept that outlast a run: narrow ports, and stores in memory."""

from __future__ import annotations

from ._idempotency import (
    Claim as Claim,
    IdempotencyRecord as IdempotencyRecord,
    IdempotencyStore as IdempotencyStore,
    RecordState as RecordState,
    WatchableStore as WatchableStore,
)
from ._memory_idempotency import InMemoryIdempotencyStore as InMemoryIdempotencyStore
