"""Who waits for whom, and whether one more wait would close a ring.

An actor has one task, so it waits for at most one other. The edge is noted only
when somebody is about to wait, which keeps the whole matter off the hot path.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final

import trio

from actorflow.errors import MailboxDeadlockError

from ._state import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._actor_cell import ActorCell
    from ._cell import Cell
    from ._system import System

# On whose behalf the current task runs. Tasks that an actor starts inherit it.
current_cell: Final[ContextVar[ActorCell | None]] = ContextVar("actorflow_cell", default=None)

# The innermost system that the current task works in: as one of its actors, or
# in the block that opened it.
_current_system: Final[ContextVar[System | None]] = ContextVar("actorflow_system", default=None)


def enter_system(system: System) -> Token[System | None]:
    """Make `system` the one that `current_system` returns."""
    return _current_system.set(system)


def leave_system(token: Token[System | None]) -> None:
    """Undo `enter_system`."""
    _current_system.reset(token)


def current_system() -> System | None:
    """Return the system that surrounds the current task, if any."""
    return _current_system.get()


def waiting_cell() -> ActorCell | None:
    """Return the actor that does nothing else while the current task waits.

    A helper task of an actor is not its loop, so its waits block nobody.
    """
    cell = current_cell.get()
    if cell is not None and cell.task is trio.lowlevel.current_task():
        return cell
    return None


@asynccontextmanager
async def waiting(
    cell: ActorCell | None, target: Cell, deadline: float = math.inf
) -> AsyncIterator[None]:
    """Note that `cell` waits for `target`.

    Raises:
      MailboxDeadlockError: if that would close a ring in which nobody ever gives up.
    """
    if cell is None:
        yield
        return
    await begin_wait(cell, target, deadline)
    try:
        yield
    finally:
        cell.waiting_on = None


async def begin_wait(cell: ActorCell, target: Cell, deadline: float) -> None:
    """As `waiting`, for those who set `waiting_on` to None themselves."""
    until = min(deadline, trio.current_effective_deadline())
    ring = _ring(cell, target)
    if ring:
        await let_go()
        ring = _ring(cell, target)
    if ring:
        if until == math.inf and not any(_gives_up(member) for member in ring):
            path = tuple(member.path for member in (*ring, cell))
            raise MailboxDeadlockError(cell.path, path)
        cell.core.count_ring(ring)
    cell.waiting_on = target
    cell.waiting_until = until


async def let_go() -> None:
    """Let everybody run whose wait is over.

    An actor whose message was just taken, or whose request was just answered,
    looks as if it waited until it runs again. After one step it has been
    scheduled before us or after; the third covers one that needs two.
    """
    for _ in range(3):
        await trio.lowlevel.cancel_shielded_checkpoint()


def stuck_in(cell: Cell) -> Cell | None:
    """Return the actor in `cell` that waits for somebody who waits for it, if nobody gives up.

    `begin_wait` sees every ring that a wait closes. This sees those that are
    closed by an actor which goes down while others wait for it.
    """
    while cell.busy_with is not None:
        cell = cell.busy_with
    if cell.waiting_on is None or cell.is_killed:
        return None
    ring = _ring(cell, cell.waiting_on)
    return None if not ring or any(_gives_up(member) for member in ring) else cell


def _gives_up(cell: Cell) -> bool:
    return cell.waiting_on is not None and cell.waiting_until < math.inf


def _ring(cell: Cell, target: Cell) -> list[Cell]:
    """Return the cells from `cell` over `target` back to it, or nothing."""
    ring = [cell]
    node: Cell | None = target
    while node is not None and node is not cell:
        if node in ring:
            # A ring that is not ours; somebody in it has a deadline.
            return []
        ring.append(node)
        node = _awaited_by(node)
    return ring if node is cell else []


def _awaited_by(cell: Cell) -> Cell | None:
    if cell.waiting_on is not None:
        return cell.waiting_on
    # Who has not started waits, like its supervisor, for the sibling that is
    # being started or stopped.
    if cell.busy_with is not None:
        return cell.busy_with
    while cell.state in (State.NEW, State.DOWN) and cell.parent is not None:
        cell = cell.parent
        if cell.busy_with is not None:
            return cell.busy_with
    return None
