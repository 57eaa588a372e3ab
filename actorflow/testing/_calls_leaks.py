"""Nothing is left behind: tasks, sockets, channels and sessions, each named if it is."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from actorflow.server import Session

from ._seeded import living_tasks


def _is_passable(channel: trio.MemoryChannelStatistics) -> bool:
    # With one side closed nobody can wait for the other any more.
    return channel.open_receive_channels > 0 and channel.open_send_channels > 0


# Any: each function takes what its kind is.
_IS_OPEN: Final[Mapping[type, Callable[[Any], bool]]] = {
    socket.socket: lambda it: it.fileno() != -1,
    trio.MemoryReceiveChannel: lambda it: _is_passable(it.statistics()),
    Session: lambda it: it.ending is None,
}


def _open_objects() -> list[object]:
    gc.collect()
    kinds = tuple(_IS_OPEN)
    # By their types: an instance may pretend to be of another class, or fail to tell.
    found = [it for it in gc.get_objects() if issubclass(type(it), kinds)]
    return [it for it in found if any(is_open(it) for is_open in _checks_of(it))]


def _checks_of(found: object) -> Iterable[Callable[[Any], bool]]:
    return (check for kind, check in _IS_OPEN.items() if issubclass(type(found), kind))


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Check that a block leaves nothing behind that was not there before it.

    What counts are tasks that live, and sockets, memory channels (on both sides) and
    sessions that are open and that something still refers to. If the block raises, that is raised
    and nothing is checked.

    Raises:
      AssertionError: naming what was left.
    """
    tasks = set(living_tasks())
    # The objects themselves, not their ids, which others may get later.
    before = _open_objects()
    yield
    left = [f"task {task.name}" for task in living_tasks() if task not in tasks]
    known = {id(it) for it in before}
    left += [f"open {it!r}" for it in _open_objects() if id(it) not in known]
    assert not left, f"left behind: {', '.join(left)}"
