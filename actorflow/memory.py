"""What an assistant remembers of a session: entries, limits, stores, and two stages.

What is kept and what is recalled are decided by plain functions of lists of
entries (`recall`, `trimmed`); stores differ in where the list is.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Protocol, final, runtime_checkable
from uuid import UUID

import attrs
import trio

from actorflow import clock
from actorflow.errors import ActorflowError, InvalidMemoryError
from actorflow.model import FrozenDict, StageKind, StageOutput, freeze, thaw
from actorflow.stages import DependencyIssue, IssueSeverity, StageContext

_logger: Final = logging.getLogger("actorflow.memory")

_SYSTEM: Final = "system"


def estimate_tokens(content: str) -> int:
    """About how many tokens a text is for a language model."""
    return len(content) // 4


# Entries


def _as_session_id(value: UUID | str) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidMemoryError("session_id", value, "a UUID or the text of one") from None


def _as_timestamp(value: datetime | str) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if time.utcoffset() is not None:
            return time.astimezone(timezone.utc)
    except (ValueError, TypeError, AttributeError):
        pass
    expected = "a datetime with a time zone, or the ISO 8601 text of one"
    raise InvalidMemoryError("timestamp", value, expected)


def _as_metadata(value: Mapping[str, Any]) -> FrozenDict:
    if not isinstance(value, Mapping):
        raise InvalidMemoryError("metadata", value, "a mapping")
    try:
        frozen: FrozenDict = freeze(dict(value))
    except ActorflowError as error:
        raise InvalidMemoryError("metadata", value, "made of plain JSON") from error
    return frozen


def _name(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidMemoryError(field.name, value, "a string of at least one character")


def _text(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str):
        raise InvalidMemoryError(field.name, value, "a string")


@final
@attrs.frozen
class MemoryEntry:
    """One thing that was said in a session."""

    id: str = attrs.field(validator=_name)
    session_id: UUID = attrs.field(converter=_as_session_id)
    role: str = attrs.field(validator=_name)
    content: str = attrs.field(validator=_text)
    timestamp: datetime = attrs.field(factory=clock.now, converter=_as_timestamp)
    metadata: FrozenDict = attrs.field(factory=FrozenDict, converter=_as_metadata)

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {
            "id": self.id,
            "session_id": str(self.session_id),
            "role": self.role,
            "content": self.content,
            "timestamp": self.timestamp.isoformat(),
            "metadata": thaw(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MemoryEntry:
        """The entry that `data` describes, which `to_dict` may have written.

        Raises:
          InvalidMemoryError: naming what does not fit.
        """
        if not isinstance(data, Mapping):
            raise InvalidMemoryError("entry", data, "a mapping of its fields")
        given = {}
        for field in attrs.fields(cls):
            if field.name in data:
                given[field.name] = data[field.name]
            elif field.default is attrs.NOTHING:
                raise InvalidMemoryError(field.name, attrs.NOTHING, "given")
        return cls(**given)


def exchange(
    session_id: UUID | str,
    interaction_id: UUID | str | None,
    *,
    said: str | None = None,
    answered: str | None = None,
    interrupted: bool = False,
) -> list[MemoryEntry]:
    """What is to be remembered of one turn: what the user said, then what the assistant did.

    An empty or missing text makes no entry. Of an answer that was `interrupted`,
    `answered` is only what the user got to hear.
    """
    known = interaction_id or "unknown"
    entries = []
    if said:
        entries.append(MemoryEntry(f"{known}_user", _as_session_id(session_id), "user", said))
    if answered:
        metadata = FrozenDict(interrupted=True) if interrupted else FrozenDict()
        entries.append(
            MemoryEntry(
                f"{known}_assistant",
                _as_session_id(session_id),
                "assistant",
                answered,
                metadata=metadata,
            )
        )
    return entries


# Limits


def _count(_: object, field: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidMemoryError(field.name, value, "a whole number; 0 is no limit")


def _seconds(_: object, field: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidMemoryError(field.name, value, "a number of seconds; 0 is no limit")


@final
@attrs.frozen
class MemoryConfig:
    """How much of a session is recalled; 0 switches a limit off."""

    max_entries: int = attrs.field(default=20, validator=_count)
    max_tokens: int = attrs.field(default=4000, validator=_count)
    include_system: bool = True
    recency_window_seconds: float = attrs.field(default=0.0, validator=_seconds)


def recall(entries: Sequence[MemoryEntry], config: MemoryConfig, now: float) -> list[MemoryEntry]:
    """The newest of `entries` that `config` allows at the Unix time `now`, oldest first."""
    recalled = list(entries)
    if config.recency_window_seconds > 0:
        oldest = now - config.recency_window_seconds
        recalled = [entry for entry in recalled if entry.timestamp.timestamp() > oldest]
    if not config.include_system:
        recalled = [entry for entry in recalled if entry.role != _SYSTEM]
    if config.max_entries > 0:
        recalled = recalled[-config.max_entries :]
    if config.max_tokens > 0:
        recalled = recalled[_first_that_fits(recalled, config.max_tokens) :]
    return recalled


def _first_that_fits(entries: Sequence[MemoryEntry], max_tokens: int) -> int:
    left = max_tokens
    for index in range(len(entries) - 1, -1, -1):
        left -= estimate_tokens(entries[index].content)
        if left < 0:
            return index + 1
    return 0


def trimmed(entries: Sequence[MemoryEntry], limit: int) -> list[MemoryEntry]:
    """`entries` without the oldest beyond `limit`; those of the system go last."""
    excess = len(entries) - limit
    kept = []
    for entry in entries:
        if excess > 0 and entry.role != _SYSTEM:
            excess -= 1
        else:
            kept.append(entry)
    return kept[max(excess, 0) :]


# Stores


@runtime_checkable
class MemoryStore(Protocol):
    """Keeps what was said in each session.

    A store may also have `async write_all(entries)`, which keeps all of several
    entries of a session or none of them.
    """

    async def fetch(self, session_id: UUID, config: MemoryConfig) -> list[MemoryEntry]:
        """Return what `config` allows of a session, oldest first, as a list of its own."""
        ...

    async def write(self, entry: MemoryEntry) -> None:
        """Add to the end of the entry's session."""
        ...

    async def clear(self, session_id: UUID) -> int:
        """Forget a session, and return how many entries that were."""
        ...


async def write_entries(store: MemoryStore, entries: Sequence[MemoryEntry]) -> None:
    """Write several entries, in one operation where the store can."""
    write_all = getattr(store, "write_all", None)
    if write_all is not None:
        await write_all(entries)
        return
    for entry in entries:
        await store.write(entry)


def _check_limit(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidMemoryError(name, value, "a whole number of at least 1")


@final
class InMemoryStore:
    """Keeps sessions in this process, and no more than it may.

    Of a session that is full the oldest entry goes that is not the system's. When
    there are too many sessions, the one goes that was not used for the longest time.
    """

    def __init__(self, *, max_entries_per_session: int = 1000, max_sessions: int = 10_000) -> None:
        _check_limit("max_entries_per_session", max_entries_per_session)
        _check_limit("max_sessions", max_sessions)
        self._max_entries = max_entries_per_session
        self._max_sessions = max_sessions
        # Least recently used first.
        self._sessions: OrderedDict[UUID, list[MemoryEntry]] = OrderedDict()

    async def fetch(self, session_id: UUID | str, config: MemoryConfig) -> list[MemoryEntry]:
        """Return what `config` allows of a session, oldest first."""
        await trio.lowlevel.checkpoint()
        session = _as_session_id(session_id)
        if session not in self._sessions:
            return []
        self._sessions.move_to_end(session)
        return recall(self._sessions[session], config, clock.timestamp())

    async def write(self, entry: MemoryEntry) -> None:
        """Add to the end of the entry's session."""
        await self.write_all([entry])

    async def write_all(self, entries: Sequence[MemoryEntry]) -> None:
        """Add entries in order; all of them are there before anybody else looks."""
        await trio.lowlevel.checkpoint_if_cancelled()
        # Added before anybody else runs, so that the order is that of the calls.
        for entry in entries:
            session = self._sessions.setdefault(entry.session_id, [])
            self._sessions.move_to_end(entry.session_id)
            session.append(entry)
            if len(session) > self._max_entries:
                session[:] = trimmed(session, self._max_entries)
        while len(self._sessions) > self._max_sessions:
            session_id, evicted = self._sessions.popitem(last=False)
            _logger.warning(
                "memory_session_evicted",
                extra={"session_id": str(session_id), "entries": len(evicted)},
            )
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def clear(self, session_id: UUID | str) -> int:
        """Forget a session, and return how many entries that were."""
        await trio.lowlevel.checkpoint()
        return len(self._sessions.pop(_as_session_id(session_id), ()))

    def get_all_sessions(self) -> list[UUID]:
        """The ids of all sessions, the least recently used first."""
        return list(self._sessions)


class Change(Protocol):
    """Says what becomes of the text under a key; may be asked again, so it has no effects."""

    def __call__(self, text: str | None, /) -> str | None: ...


class TextStore(Protocol):
    """Keeps a text per key, which is all that `StoreMemory` needs of a place to keep things."""

    async def get(self, key: str) -> str | None:
        """Return the text under a key, None if there is none or its time is over."""
        ...

    async def update(self, key: str, change: Change, *, ttl_seconds: float | None = None) -> None:
        """Put `change(text)` in the place of the text under a key; None removes it.

        Nobody else changes the text in between. With `ttl_seconds` it is removed
        when it was not updated for so long.
        """
        ...


@final
class StoreMemory:
    """Keeps sessions wherever a `TextStore` keeps its texts, one text per session."""

    def __init__(
        self,
        store: TextStore,
        *,
        ttl_seconds: float | None = None,
        max_entries_per_session: int = 1000,
    ) -> None:
        """Use `store`; a session is forgotten `ttl_seconds` after its last entry."""
        if ttl_seconds is not None and not ttl_seconds > 0:
            raise InvalidMemoryError("ttl_seconds", ttl_seconds, "above 0, or None for ever")
        _check_limit("max_entries_per_session", max_entries_per_session)
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries_per_session

    async def fetch(self, session_id: UUID | str, config: MemoryConfig) -> list[MemoryEntry]:
        """Return what `config` allows of a session, oldest first."""
        text = await self._store.get(_key_of(session_id))
        return recall(_read(text), config, clock.timestamp())

    async def write(self, entry: MemoryEntry) -> None:
        """Add to the end of the entry's session."""
        await self.write_all([entry])

    async def write_all(self, entries: Sequence[MemoryEntry]) -> None:
        """Add entries in order, those of one session in one operation."""
        for session_id, group in groupby(entries, attrgetter("session_id")):
            more = list(group)

            def add(text: str | None, more: list[MemoryEntry] = more) -> str:
                kept = trimmed([*_read(text), *more], self._max_entries)
                return json.dumps([entry.to_dict() for entry in kept])

            await self._store.update(_key_of(session_id), add, ttl_seconds=self._ttl_seconds)

    async def clear(self, session_id: UUID | str) -> int:
        """Forget a session, and return how many entries that were."""
        cleared = 0

        def remove(text: str | None) -> None:
            nonlocal cleared
            cleared = len(_read(text))

        await self._store.update(_key_of(session_id), remove)
        return cleared


def _key_of(session_id: UUID | str) -> str:
    return f"memory/{_as_session_id(session_id)}"


def _read(text: str | None) -> list[MemoryEntry]:
    if text is None:
        return []
    try:
        entries = json.loads(text)
    except ValueError:
        raise InvalidMemoryError("a stored session", text, "a list of entries as JSON") from None
    return [MemoryEntry.from_dict(entry) for entry in entries]


# Stages


_NO_SESSION: Final = "No session_id in context"


@final
class MemoryFetchStage:
    """Recalls what was said before in this session, for the stages that depend on it."""

    name = "memory_fetch"
    kind = StageKind.ENRICH

    def __init__(self, store: MemoryStore, config: MemoryConfig | None = None) -> None:
        self._store = store
        self._config = config or MemoryConfig()

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Return `memory_entries`, `memory_count` and `memory_tokens`."""
        if ctx.session_id is None:
            return StageOutput.skip(_NO_SESSION)
        entries = await self._store.fetch(ctx.session_id, self._config)
        return StageOutput.ok(
            memory_entries=[entry.to_dict() for entry in entries],
            memory_count=len(entries),
            memory_tokens=sum(estimate_tokens(entry.content) for entry in entries),
        )


class _Declared(Protocol):
    # What a spec says about a stage; pipelines are wired next door.
    @property
    def name(self) -> str: ...

    @property
    def dependencies(self) -> Sequence[str]: ...


@final
class MemoryWriteStage:
    """Remembers what the user said and what was answered.

    It has to depend on the stage that answers, `response_stage`.
    """

    name = "memory_write"
    kind = StageKind.WORK

    def __init__(
        self, store: MemoryStore, *, response_stage: str = "llm", response_key: str = "response"
    ) -> None:
        self._store = store
        self._response_stage = response_stage
        self._response_key = response_key

    def lint(self, spec: _Declared, pipeline: object) -> list[DependencyIssue]:
        """Say so if the stage that answers is no dependency."""
        if self._response_stage in spec.dependencies:
            return []
        return [
            DependencyIssue(
                spec.name,
                f"stage {spec.name!r} remembers what {self._response_stage!r} answers and does not"
                " depend on it",
                IssueSeverity.WARNING,
                accessed_stage=self._response_stage,
                suggestion=f"Add {self._response_stage!r} to the dependencies of {spec.name!r},"
                " or name the stage that answers with response_stage=...",
                code="MEMORY-001-RESPONSE_NOT_DECLARED",
            )
        ]

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Write both sides of the exchange, and return how many entries that were.

        Raises:
          UndeclaredDependencyError: if the stage that answers is no dependency.
        """
        if ctx.session_id is None:
            return StageOutput.skip(_NO_SESSION)
        response = ctx.inputs.get_from(self._response_stage, self._response_key)
        entries = exchange(
            ctx.session_id,
            ctx.interaction_id,
            said=ctx.snapshot.input_text,
            answered=str(response) if response else None,
            interrupted=ctx.inputs.get_from(self._response_stage, "interrupted") is True,
        )
        await write_entries(self._store, entries)
        return StageOutput.ok(entries_written=len(entries), session_id=str(ctx.session_id))
