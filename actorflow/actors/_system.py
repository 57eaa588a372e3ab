from __future__ import annotations

import difflib
import functools
import itertools
import logging
import math
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar, Unpack, final, overload

import trio

from actorflow.errors import InvalidArgumentError, UnknownActorError

from ._actor import Actor
from ._core import Core
from ._groups import unwrapped
from ._reasons import Crashed
from ._spec import Child, Supervisor
from ._state import State
from ._supervision import RestartType, Strategy
from ._supervisor import SupervisorCell, start_failure
from ._tree import ActorInfo, SystemStatistics
from ._waits import current_cell, enter_system, leave_system, waiting, waiting_cell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ._cell import Cell
    from ._notices import Notice
    from ._ref import ActorRef
    from ._spec import Behaviour, Factory, Function, SpawnOptions

M = TypeVar("M")

_log: Final = logging.getLogger("actorflow.actors")

# How often to say what is still there when a system does not close.
_CLOSE_WARNING: Final = 5.0


@final
class System:
    """A tree of actors, open for as long as the `open_system` block that made it."""

    def __init__(self, supervisor: Supervisor, *, grace: float, time_slice: float | None) -> None:
        self._core = Core(self, time_slice)
        self._grace = grace
        self._names = itertools.count(1)
        root: Child[Any] = Child("system", supervisor, restart=RestartType.TEMPORARY)
        self._root = SupervisorCell(self._core, None, root, dynamic=False)
        self._body = trio.CancelScope()
        # A system that ended by itself leaves nothing for its block to do.
        self._core.root_ended = self._body.cancel

    def __getitem__(self, path: str) -> ActorRef[Any]:
        """Return the actor with this path, for example ``system["call/speaker"]``."""
        return self._find(path).ref

    def __contains__(self, path: str) -> bool:
        try:
            self._find(path)
        except UnknownActorError:
            return False
        return True

    def _find(self, path: str) -> Cell:
        cell: Cell = self._root
        for name in path.split("/"):
            children = cell.children if isinstance(cell, SupervisorCell) else {}
            if name not in children:
                close = difflib.get_close_matches(name, children, n=1)
                known = tuple(child.path for child in children.values())
                raise UnknownActorError(path, known, children[close[0]].path if close else None)
            cell = children[name]
        return cell

    @overload
    async def spawn(
        self,
        behaviour: Function[M],
        *,
        name: str | None = ...,
        under: str = ...,
        **options: Unpack[SpawnOptions],
    ) -> ActorRef[M]: ...
    @overload
    async def spawn(
        self,
        behaviour: Factory[M],
        *,
        name: str | None = ...,
        under: str = ...,
        **options: Unpack[SpawnOptions],
    ) -> ActorRef[M]: ...
    @overload
    async def spawn(
        self,
        behaviour: Supervisor,
        *,
        name: str | None = ...,
        under: str = ...,
        **options: Unpack[SpawnOptions],
    ) -> ActorRef[Never]: ...
    async def spawn(
        self,
        behaviour: Behaviour[Any],
        *,
        name: str | None = None,
        under: str = "",
        **options: Unpack[SpawnOptions],
    ) -> ActorRef[Any]:
        """Start one more actor and return its ref when it is ready.

        Args:
          behaviour: as for `Child`.
          name: its name; made up from the behaviour's if there is none.
          under: path of the supervisor that shall own it; the system's by default.
          options: as for `Child`, but a spawned actor is ``temporary`` by default.
            It has no part in group restarts, so there are no `needs`.

        Cancelled while it waits, it takes the actor back.

        Raises:
          StartFailedError: if the actor ended before it was ready.
          NameTakenError: if its supervisor has a child of this name.
          TooManyChildrenError: if its supervisor has as many as it may.
          ActorStoppedError: if its supervisor is stopping, or down.
          UnknownActorError: if there is nobody at `under`.
        """
        owner = self._find(under) if under else self._root
        if not isinstance(owner, SupervisorCell):
            raise InvalidArgumentError("under", under, "the path of a supervisor")
        if name is None:
            name = f"{_name_of(behaviour)}-{next(self._names)}"
        options.setdefault("restart", RestartType.TEMPORARY)
        cell = owner.spawn(Child(name, behaviour, **options))
        try:
            async with waiting(waiting_cell(), cell):
                await cell.until(lambda: cell.is_settled or cell.incarnation > 1)
        except BaseException:
            cell.stop("whoever spawned it did not wait for it", final=True)
            raise
        # A second life means that the first one was ready.
        if cell.incarnation == 1 and not cell.was_ready:
            raise start_failure(cell)
        return cell.ref

    def stop(self, why: str = "stopped by request") -> None:
        """Ask the whole system to stop in order. Its block is cancelled when it has."""
        self._root.stop(why, final=True)

    def subscribe(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `listener` with everything that happens in the tree; return how to end that.

        It is called synchronously, so it has to be quick: `tell_nowait` to an
        actor is.
        """
        listeners = self._core.listeners
        listeners.append(listener)

        def unsubscribe() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return unsubscribe

    @contextmanager
    def showing(self, describe: Callable[[], ActorInfo]) -> Iterator[None]:
        """Let `tree` show something that is no actor, below the actor that runs it.

        For work with a structure of its own inside one task. `describe` is called
        only when somebody looks.
        """
        cell = current_cell.get()
        guests = self._root.guests if cell is None or cell.core.system is not self else cell.guests
        guests.append(describe)
        try:
            yield
        finally:
            guests.remove(describe)

    def tree(self) -> ActorInfo:
        """Return all actors as they are now. `str()` of it is for people."""
        return _info(self._root)

    def statistics(self) -> SystemStatistics:
        """Return the counters of the system."""
        core = self._core
        return SystemStatistics(
            actors=sum(cell.state is not State.ENDED for cell in _below(self._root)),
            restarts=core.restarts,
            dead_letters=MappingProxyType({str(why): n for why, n in core.dead_letters.items()}),
            late_answers=core.late_answers,
            rings=core.rings,
        )

    async def _open(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._core.timers.run, name="actorflow timers")
        # In the kernel nothing else is shielded: an outside cancel ends the block,
        # leaving the block stops the tree in order, and `grace` limits that.
        self._root.start(nursery, shield=self._grace > 0)
        await self._root.until(lambda: self._root.is_settled)
        if not self._root.was_ready:
            raise self._failure() or start_failure(self._root)

    async def _close(self) -> None:
        root = self._root
        why = "the system is closing"
        with trio.CancelScope(shield=True):
            if self._grace > 0:
                root.stop(why, final=True)
                with trio.move_on_after(self._grace):
                    await root.until_ended()
                why = f"the system did not close within {self._grace:g} s"
            root.kill(why)
            while root.state is not State.ENDED:
                with trio.move_on_after(_CLOSE_WARNING):
                    await root.until_ended()
                    break
                _log.warning("system_does_not_close", extra={"tree": str(self.tree())})
            self._core.timers.scope.cancel()

    def _failure(self) -> Exception | None:
        reason = self._root.reason
        return reason.error if isinstance(reason, Crashed) else None


def _below(cell: Cell) -> Iterator[Cell]:
    for child in cell.children.values() if isinstance(cell, SupervisorCell) else ():
        yield child
        yield from _below(child)


def _info(cell: Cell) -> ActorInfo:
    waiting_on = cell.waiting_on
    # Recursion as deep as the tree of supervisors, which people write by hand.
    below = cell.children.values() if isinstance(cell, SupervisorCell) else ()
    return ActorInfo(
        name=cell.child.name if cell.parent is not None else "",
        path=cell.path,
        state=cell.state,
        incarnation=cell.incarnation,
        statistics=cell.statistics(),
        waiting_on=None if waiting_on is None else waiting_on.path,
        is_supervisor=isinstance(cell, SupervisorCell),
        children=(*(_info(child) for child in below), *(guest() for guest in cell.guests)),
    )


def _name_of(behaviour: object) -> str:
    while isinstance(behaviour, functools.partial):
        behaviour = behaviour.func
    name = getattr(behaviour, "__name__", type(behaviour).__name__)
    return name if name.isidentifier() else "actor"


@asynccontextmanager
async def open_system(
    *children: Child[Any],
    grace: float = 5.0,
    strategy: str | Strategy = Strategy.ONE_FOR_ONE,
    max_restarts: int = 3,
    window: float = 5.0,
    max_children: float = math.inf,
    time_slice: float | None = None,
) -> AsyncIterator[System]:
    """Run a tree of actors for as long as the block lasts.

    The block begins when all `children` are ready. However it is left, normally,
    by an exception or cancelled from outside, the tree is then stopped in order,
    which takes at most `grace` seconds; what is left is cancelled. So cancelling
    a block that holds a system may take up to `grace`; with ``grace=0`` it is
    plain trio.

    Args:
      children: what the system's own supervisor starts, in this order.
      grace: see above.
      strategy: as for `Supervisor`.
      max_restarts: as for `Supervisor`.
      window: as for `Supervisor`.
      max_children: as for `Supervisor`.
      time_slice: seconds an actor may go on reading messages before the others
        get a turn; 0 is after each message.

    Raises:
      StartFailedError: if a child did not start.
      RestartBudgetExceededError: if a failure reached the top. The block is
        cancelled then.
    """
    if not grace >= 0:
        raise InvalidArgumentError("grace", grace, "a number of seconds, 0 or more")
    if time_slice is not None and not time_slice >= 0:
        raise InvalidArgumentError("time_slice", time_slice, "a number of seconds, 0 or more")
    supervisor = Supervisor(
        *children,
        strategy=strategy,
        max_restarts=max_restarts,
        window=window,
        max_children=max_children,
    )
    system = System(supervisor, grace=grace, time_slice=time_slice)
    with unwrapped():
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            try:
                await system._open(nursery)
                token = enter_system(system)
                try:
                    with system._body:
                        yield system
                finally:
                    leave_system(token)
            except Exception as error:
                await system._close()
                failure = system._failure()
                if failure is None or failure is error:
                    raise
                both = "the block and the actors of its system failed"
                raise ExceptionGroup(both, [error, failure]) from None
            finally:
                # It shields itself, for `grace` seconds.
                await system._close()  # noqa: ASYNC102
    failure = system._failure()
    if failure is not None:
        raise failure


@overload
def open_actor(
    behaviour: Function[M],
    *,
    name: str | None = ...,
    grace: float = ...,
    max_restarts: int = ...,
    window: float = ...,
    **options: Unpack[SpawnOptions],
) -> AbstractAsyncContextManager[ActorRef[M]]: ...
@overload
def open_actor(
    behaviour: Factory[M] | Actor[M],
    *,
    name: str | None = ...,
    grace: float = ...,
    max_restarts: int = ...,
    window: float = ...,
    **options: Unpack[SpawnOptions],
) -> AbstractAsyncContextManager[ActorRef[M]]: ...
def open_actor(
    behaviour: Function[Any] | Factory[Any] | Actor[Any],
    *,
    name: str | None = None,
    grace: float = 5.0,
    max_restarts: int = 3,
    window: float = 5.0,
    **options: Unpack[SpawnOptions],
) -> AbstractAsyncContextManager[ActorRef[Any]]:
    """Run one supervised actor for as long as the block lasts and yield its ref.

    It is ``transient`` by default: it may return, and is restarted when it
    crashes. An `Actor` object instead of a class has one life, whatever
    `max_restarts` says; its first crash ends the block. `options` are those of
    `Child`, the others those of `open_system`.
    """
    options.setdefault("restart", RestartType.TRANSIENT)
    if isinstance(behaviour, Actor):
        actor = behaviour
        name = name or type(actor).__name__
        max_restarts = 0
        behaviour = lambda: actor  # noqa: E731  (its name is taken already)
    child = Child(name or _name_of(behaviour), behaviour, **options)
    return _open_single(child, grace, max_restarts, window)


@asynccontextmanager
async def _open_single(
    child: Child[Any], grace: float, max_restarts: int, window: float
) -> AsyncIterator[ActorRef[Any]]:
    async with open_system(child, grace=grace, max_restarts=max_restarts, window=window) as system:
        yield system[child.name]
