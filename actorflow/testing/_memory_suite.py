"""What every store of conversations has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

import trio

from actorflow import clock
from actorflow.memory import MemoryConfig, MemoryEntry, MemoryStore, write_entries

_SESSION = UUID(int=1)
_OTHER = UUID(int=2)
_EVERYTHING = MemoryConfig(max_entries=0, max_tokens=0)


async def check_memory_store(make: Callable[[int], MemoryStore]) -> None:
    """Check a store; `make(limit)` gives an empty one of at most `limit` entries a session.

    Run it on a `MockClock`: it looks at entries that are hours old.

    Raises:
      AssertionError: naming what the store does not do.
    """
    await _check_limits(make(1000))
    await _check_sessions(make(1000))
    await _check_order(make(1000))
    await _check_bound(make(4))


def _entry(
    content: str, *, role: str = "user", session: UUID = _SESSION, age: float = 0
) -> MemoryEntry:
    at = clock.now() - timedelta(seconds=age)
    return MemoryEntry(f"id-{content}", session, role, content, at, {"about": content})


async def _contents(
    store: MemoryStore, config: MemoryConfig = _EVERYTHING, session: UUID = _SESSION
) -> Sequence[str]:
    return [entry.content for entry in await store.fetch(session, config)]


async def _check_limits(store: MemoryStore) -> None:
    written = [
        _entry("0" * 40, role="system", age=7200),
        _entry("1" * 40, age=3600),
        _entry("2" * 40, role="assistant", age=60),
        _entry("3" * 3, age=0),
    ]
    for entry in written:
        await store.write(entry)
    assert await store.fetch(_SESSION, _EVERYTHING) == written, "entries come back as they were"
    for config, numbers in [
        (MemoryConfig(), "0123"),
        (MemoryConfig(max_entries=2), "23"),
        (MemoryConfig(include_system=False), "123"),
        (MemoryConfig(include_system=False, max_entries=3), "123"),
        (MemoryConfig(recency_window_seconds=3500), "23"),
        (MemoryConfig(recency_window_seconds=3700), "123"),
        (MemoryConfig(max_tokens=20), "123"),
        (MemoryConfig(max_tokens=19), "23"),
        (MemoryConfig(max_tokens=9), "3"),
    ]:
        found = [content[0] for content in await _contents(store, config)]
        assert found == list(numbers), f"{config} recalls {numbers}, found {found}"


async def _check_sessions(store: MemoryStore) -> None:
    assert await _contents(store) == [], "an unknown session is empty"
    assert await store.clear(_SESSION) == 0, "there is nothing to clear in an unknown session"
    await write_entries(store, [_entry("a"), _entry("b")])
    await store.write(_entry("c", session=_OTHER))
    assert await _contents(store) == ["a", "b"], "sessions are isolated"
    fetched = await store.fetch(_SESSION, _EVERYTHING)
    fetched.clear()
    assert await _contents(store) == ["a", "b"], "fetch gives a list of its own"
    assert await store.clear(_SESSION) == 2, "clear says how many entries there were"
    assert await _contents(store) == [], "a cleared session is empty"
    assert await _contents(store, session=_OTHER) == ["c"], "clear leaves other sessions alone"


async def _check_order(store: MemoryStore) -> None:
    async def write(name: str) -> None:
        for number in range(10):
            await store.write(_entry(f"{name}{number}"))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(write, name)
    contents = await _contents(store)
    assert len(contents) == 30, "no entry is lost between writers"
    for name in "abc":
        mine = [content for content in contents if content[0] == name]
        assert mine == [f"{name}{number}" for number in range(10)], "writes keep their order"


async def _check_bound(store: MemoryStore) -> None:
    await store.write(_entry("s", role="system"))
    for content in "abcd":
        await store.write(_entry(content))
    assert await _contents(store) == ["s", "b", "c", "d"], "the oldest goes, not the system's"
    await write_entries(store, [_entry(content, role="system") for content in "tuv"])
    assert await _contents(store) == ["s", "t", "u", "v"], "users' entries go before the system's"
    await store.write(_entry("w", role="system"))
    assert await _contents(store) == ["t", "u", "v", "w"], "the oldest goes if all are the system's"
