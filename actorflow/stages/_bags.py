"""Where stages put what others may read: values by key, outputs by stage.

Both bags may be used from any task and any thread. Writers take a lock; readers
need none, because each of them looks at a dict once, and a dict is never seen
half changed.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timezone
from typing import Any, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import (
    DataConflictError,
    InvalidArgumentError,
    InvalidTypeError,
    OutputConflictError,
)
from actorflow.model import StageOutput

from ._arguments import check_name


@final
class ContextBag:
    """Values that stages share, each written once and known by its writer."""

    __slots__ = ("_lock", "_written")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[str, tuple[str, Any]] = {}

    async def write(
        self, key: str, value: Any, stage_name: str, *, allow_overwrite: bool = False
    ) -> None:
        """Like `write_sync`, after a checkpoint: cancelled there, it has written nothing."""
        await trio.lowlevel.checkpoint()
        self.write_sync(key, value, stage_name, allow_overwrite=allow_overwrite)

    def write_sync(
        self, key: str, value: Any, stage_name: str, *, allow_overwrite: bool = False
    ) -> None:
        """Publish `value` under `key` in the name of a stage.

        With `allow_overwrite` a stage may replace its own value, but no other's.

        Raises:
          DataConflictError: if the key is taken; the bag is as before.
        """
        check_name("key", key)
        check_name("stage_name", stage_name)
        with self._lock:
            existing = self._written.get(key)
            if existing is not None and not (allow_overwrite and existing[0] == stage_name):
                raise DataConflictError(key, existing[0], stage_name)
            self._written[key] = (stage_name, value)

    def read(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`, the very object that was written."""
        found = self._written.get(key)
        return default if found is None else found[1]

    def has(self, key: str) -> bool:
        return key in self._written

    def keys(self) -> list[str]:
        """Every key, in the order of first writing."""
        return list(self._written)

    def get_writer(self, key: str) -> str | None:
        """The stage that wrote `key`; None if nobody has."""
        found = self._written.get(key)
        return None if found is None else found[0]

    def discard_writer(self, stage_name: str) -> int:
        """Forget what a stage wrote, so that it may run again; return how many keys."""
        with self._lock:
            kept = {key: item for key, item in self._written.items() if item[0] != stage_name}
            discarded = len(self._written) - len(kept)
            self._written = kept
        return discarded

    def to_dict(self) -> dict[str, Any]:
        """A copy: each key with its value."""
        return {key: value for key, (_, value) in self._written.copy().items()}

    def __len__(self) -> int:
        return len(self._written)

    def __contains__(self, key: object) -> bool:
        return key in self._written


@final
@attrs.frozen
class OutputEntry:
    """One recorded output of a stage."""

    output: StageOutput
    attempt: int
    stage_name: str
    _written_at: float
    """In Unix time: one is made for each call of a stage, and few are asked when."""

    @property
    def timestamp(self) -> datetime:
        return datetime.fromtimestamp(self._written_at, timezone.utc)

    def to_dict(self) -> dict[str, Any]:
        """What happened, as JSON; artifacts and events are counted only."""
        output = self.output.to_dict(default=str)
        return {
            "stage_name": self.stage_name,
            "attempt": self.attempt,
            "timestamp": self.timestamp.isoformat(),
            "status": output["status"],
            "data": output["data"],
            "error": self.output.error,
            "duration_ms": self.output.duration_ms,
            "artifacts_count": len(self.output.artifacts),
            "events_count": len(self.output.events),
        }


@final
class OutputBag:
    """What the stages of a run have returned so far, every attempt of each.

    Of more than `history_limit` attempts of one stage the oldest leave.
    """

    __slots__ = ("_current", "_history", "_history_limit", "_lock")

    def __init__(self, *, history_limit: int = 100) -> None:
        if history_limit < 1:
            raise InvalidArgumentError("history_limit", history_limit, "at least 1")
        self._lock = threading.Lock()
        self._history_limit = history_limit
        # The newest entries stand in a dict of their own: one copy of it is a
        # consistent picture of all stages.
        self._current: dict[str, OutputEntry] = {}
        # Only of stages that have more than one.
        self._history: dict[str, deque[OutputEntry]] = {}

    async def write(
        self, stage_name: str, output: StageOutput, *, allow_overwrite: bool = False
    ) -> OutputEntry:
        """Like `write_sync`, after a checkpoint: cancelled there, it has written nothing."""
        await trio.lowlevel.checkpoint()
        return self.write_sync(stage_name, output, allow_overwrite=allow_overwrite)

    def write_sync(
        self, stage_name: str, output: StageOutput, *, allow_overwrite: bool = False
    ) -> OutputEntry:
        """Record an output; with `allow_overwrite` it may be a further attempt.

        Raises:
          OutputConflictError: if the stage has an output; the bag is as before.
        """
        check_name("stage_name", stage_name)
        if not isinstance(output, StageOutput):
            raise InvalidTypeError("output", output, "a StageOutput")
        return self.record(stage_name, output, clock.timestamp(), allow_overwrite=allow_overwrite)

    def record(
        self, stage_name: str, output: StageOutput, at: float, *, allow_overwrite: bool = True
    ) -> OutputEntry:
        """Record what a stage returned at a Unix time. For whoever runs stages."""
        with self._lock:
            before = self._current.get(stage_name)
            if before is not None and not allow_overwrite:
                raise OutputConflictError(stage_name, before.attempt)
            attempt = 1 if before is None else before.attempt + 1
            entry = OutputEntry(output, attempt, stage_name, at)
            if before is not None:
                self._remember(before, entry)
            self._current[stage_name] = entry
        return entry

    def _remember(self, before: OutputEntry, entry: OutputEntry) -> None:
        history = self._history.get(entry.stage_name)
        if history is None:
            history = deque((before,), self._history_limit)
            self._history[entry.stage_name] = history
        history.append(entry)

    def get(self, stage_name: str) -> OutputEntry | None:
        """The newest entry of a stage."""
        return self._current.get(stage_name)

    def get_output(self, stage_name: str) -> StageOutput | None:
        """The newest output of a stage."""
        entry = self._current.get(stage_name)
        return None if entry is None else entry.output

    def get_value(self, stage_name: str, key: str, default: Any = None) -> Any:
        """The value under `key` in the newest output of a stage."""
        entry = self._current.get(stage_name)
        return default if entry is None else entry.output.data.get(key, default)

    def has(self, stage_name: str) -> bool:
        return stage_name in self._current

    def keys(self) -> list[str]:
        """The stages that have an output, in the order of their first."""
        return list(self._current)

    def entries(self) -> dict[str, OutputEntry]:
        """A copy: each stage with its newest entry, as of one moment."""
        return self._current.copy()

    def outputs(self) -> dict[str, StageOutput]:
        """A copy: each stage with its newest output, as of one moment."""
        return {stage: entry.output for stage, entry in self.entries().items()}

    def history(self, stage_name: str) -> tuple[OutputEntry, ...]:
        """Every kept entry of a stage, oldest first; the last one is the newest."""
        # In this order, so that a second output that comes between the two looks
        # cannot hide the first.
        entry = self._current.get(stage_name)
        kept = self._history.get(stage_name, () if entry is None else (entry,))
        return tuple(kept)

    def get_attempt_count(self, stage_name: str) -> int:
        """The number of the newest attempt; 0 if there is none."""
        entry = self._current.get(stage_name)
        return 0 if entry is None else entry.attempt

    def get_retry_stages(self) -> list[str]:
        """The stages whose newest output is not their first."""
        return [stage for stage, entry in self.entries().items() if entry.attempt > 1]

    def to_dict(self) -> dict[str, Any]:
        """Every newest entry as JSON, with the number of stages and of attempts."""
        entries = self.entries()
        return {
            "entries": {stage: entry.to_dict() for stage, entry in entries.items()},
            "stage_count": len(entries),
            "total_attempts": sum(entry.attempt for entry in entries.values()),
        }

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, stage_name: object) -> bool:
        return stage_name in self._current
