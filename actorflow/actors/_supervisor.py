from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, final

import trio

from actorflow.errors import (
    ActorflowError,
    ActorStoppedError,
    InvalidArgumentError,
    NameTakenError,
    RestartBudgetExceededError,
    StartFailedError,
    TooManyChildrenError,
)

from ._actor_cell import ActorCell
from ._cell import Cell
from ._groups import unwrapped
from ._mailbox import Mailbox
from ._notices import RestartPlanned, SupervisorGaveUp
from ._policy import Policy
from ._reasons import Crashed, Killed, Shutdown
from ._spec import Supervisor
from ._state import State
from ._supervision import RestartType, affected
from ._tree import ActorStatistics
from ._waits import let_go, stuck_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._core import Core
    from ._reasons import Reason
    from ._spec import Child
    from ._supervision import RestartBudget


@final
class Plan:
    """A restart that is still to be carried out.

    A plan of its own, not a property of the child that caused it: that child may
    be stopped meanwhile, and the others must not be forgotten with it. A cell
    belongs to its newest plan.
    """

    __slots__ = ("cells",)

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells


@final
class SupervisorCell(Cell):
    """The place of a supervisor: it starts, watches, restarts and stops its children.

    Whatever happens to a child is noted by a synchronous call and rings the
    bell. The supervisor's own task does one thing at a time: a restart is over
    before the next one begins.
    """

    __slots__ = (
        "_bell",
        "_budget",
        "_due",
        "_exits",
        "_looks_at_children",
        "_nursery",
        "children",
        "spec",
    )

    def __init__(
        self, core: Core, parent: SupervisorCell | None, child: Child[Any], *, dynamic: bool
    ) -> None:
        super().__init__(core, parent, child, dynamic=dynamic)
        assert isinstance(child.behaviour, Supervisor)
        self.spec: Supervisor = child.behaviour
        self.mailbox = Mailbox(self, 1, Policy.FAIL)
        self.mailbox.close("it is a supervisor; talk to its children")
        self.children: dict[str, Cell] = {
            spec.name: make_cell(core, self, spec) for spec in self.spec.children
        }
        self._budget: RestartBudget = self.spec.budget
        # At most one report for each life of a child.
        self._exits: deque[tuple[Cell, int, Reason]] = deque()
        self._due: deque[Plan] = deque()
        self._bell: trio.Event | None = None
        self._looks_at_children = False
        # While it takes children.
        self._nursery: trio.Nursery | None = None

    def _as_actor(self) -> None:
        return None

    # Told by others, at any time

    def ring(self) -> None:
        """Make the supervisor look around."""
        if self._bell is not None:
            self._bell.set()
            self._bell = None

    def child_changed(self) -> None:
        """Note that a child has another state, which seldom matters."""
        if self._looks_at_children:
            self.ring()

    def report(self, cell: Cell, reason: Reason) -> None:
        """Note that a child ended and may be restarted."""
        self._exits.append((cell, cell.incarnation, reason))
        self.ring()

    def forget(self, cell: Cell) -> None:
        """Free the name of a spawned child that has ended for good."""
        del self.children[cell.child.name]

    def spawn(self, child: Child[Any]) -> Cell:
        """Start one more child, which is not waited for."""
        if self._nursery is None or self.stop_reason is not None:
            raise ActorStoppedError(
                self.path or "the system", "it is stopping, or down", "children"
            )
        if child.name in self.children:
            raise NameTakenError(self.children[child.name].path)
        if child.needs or child.sends_to:
            option, found = ("needs", child.needs) if child.needs else ("sends_to", child.sends_to)
            raise InvalidArgumentError(option, found, "left out: it is for declared siblings")
        if len(self.children) - len(self.spec.children) >= self.spec.max_children:
            raise TooManyChildrenError(self.path, int(self.spec.max_children))
        cell = make_cell(self.core, self, child, dynamic=True)
        self.children[child.name] = cell
        cell.start(self._nursery)
        return cell

    # The supervisor's own task

    _stops_mid_start = True

    async def _live(self) -> None:
        self._budget = self.spec.budget
        for name, cell in self.children.items():
            if cell.state is State.ENDED:
                self.children[name] = make_cell(self.core, self, cell.child)
        failure = None
        with unwrapped():
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                self._nursery = nursery
                try:
                    failure = await self._supervise()
                finally:
                    # Killed, it may still wait for its children, but takes none.
                    self._nursery = None
        if failure is not None:
            raise failure

    async def _supervise(self) -> ActorflowError | None:
        failure = await self._start_all()
        if failure is None and self.stop_reason is None:
            self._ready()
            failure = await self._watch()
        await self._stop_all()
        return failure

    async def _start_all(self) -> ActorflowError | None:
        for cell in self._static():
            # It may have been stopped before its turn came.
            if cell.state is State.ENDED:
                continue
            await self._start(cell)
            if self.stop_reason is not None:
                break
            if not cell.was_ready and not cell.final:
                return start_failure(cell)
        return None

    async def _start(self, cell: Cell) -> None:
        """Start a child and wait until it is ready, or its life is over again."""
        assert self._nursery is not None
        cell.start(self._nursery)
        await self._see_through(cell, lambda: cell.is_settled or self.stop_reason is not None)
        if not cell.is_settled:
            cell.stop("its supervisor is stopping", final=False)
            await self._see_down(cell)

    async def _watch(self) -> ActorflowError | None:
        while self.stop_reason is None:
            if self._exits:
                failure = await self._handle_exit(*self._exits.popleft())
                if failure is not None:
                    return failure
            elif self._due:
                await self._carry_out(self._due.popleft())
            else:
                await self._rest()
        return None

    async def _handle_exit(
        self, cell: Cell, incarnation: int, reason: Reason
    ) -> ActorflowError | None:
        # A report may be older than what was done about it: the child was
        # restarted with its group, or stopped for good.
        if cell.incarnation != incarnation or cell.state is not State.DOWN or cell.plan is not None:
            return None
        now = trio.current_time()
        left = self._budget.spend(now)
        if left is None:
            return self._give_up(cell, reason)
        self._budget = left
        backoff = cell.child.backoff
        delay = 0.0
        if backoff is not None:
            cell.failures = backoff.failures_after(cell.failures, cell.lived)
            delay = backoff.delay(cell.failures, self.core.random.random())
        plan = Plan(self._group(cell))
        for member in plan.cells:
            member.plan = plan
        await self._stop_group(plan.cells)
        self.core.notify(
            RestartPlanned(self.path, tuple(member.path for member in plan.cells), delay)
        )
        if delay > 0:
            self.core.timers.at(now + delay, lambda: self._fall_due(plan))
        else:
            self._fall_due(plan)
        return None

    def _give_up(self, cell: Cell, reason: Reason) -> ActorflowError:
        self.core.notify(SupervisorGaveUp(self.path, cell.path, reason))
        budget = self.spec.budget
        error = RestartBudgetExceededError(
            self.path or "the system", cell.path, budget.max_restarts, budget.window, str(reason)
        )
        if isinstance(reason, Crashed):
            error.__cause__ = reason.error
        return error

    def _group(self, cell: Cell) -> list[Cell]:
        if cell.dynamic:
            return [cell]
        needs = {
            member.child.name: member.child.needs
            for member in self._static()
            if member.state is not State.ENDED
        }
        names = affected(self.spec.strategy, needs, cell.child.name)
        return [self.children[name] for name in names]

    async def _stop_group(self, cells: list[Cell]) -> None:
        for cell in reversed(cells):
            if cell.state.is_alive:
                temporary = cell.child.restart is RestartType.TEMPORARY
                cell.stop("its group is restarted", final=temporary)
                await self._see_down(cell)

    def _fall_due(self, plan: Plan) -> None:
        self._due.append(plan)
        self.ring()

    async def _carry_out(self, plan: Plan) -> None:
        for cell in plan.cells:
            if self.stop_reason is not None:
                return
            if cell.plan is plan and cell.state is State.DOWN:
                cell.restarts += 1
                self.core.restarts += 1
                await self._start(cell)
                if not cell.was_ready:
                    # Its report comes first; the rest of the plan follows, unless
                    # a newer plan takes them over.
                    self._due.append(plan)
                    return

    async def _stop_all(self) -> None:
        """Stop the spawned children together, then the others in reverse."""
        self._nursery = None
        why = self.stop_reason.why if self.stop_reason else "its supervisor gave up"
        spawned = [cell for cell in self.children.values() if cell.dynamic]
        for cell in spawned:
            cell.stop(why, final=True)
        await self._until(lambda: all(cell.state is State.ENDED for cell in spawned))
        for cell in reversed(self._static()):
            cell.stop(why, final=self.final)
            await self._see_down(cell)

    async def _until(self, arrived: Callable[[], bool]) -> None:
        self._looks_at_children = True
        try:
            while not arrived():
                await self._rest()
        finally:
            self._looks_at_children = False

    async def _see_down(self, cell: Cell) -> None:
        await self._see_through(cell, lambda: not cell.state.is_alive)

    async def _see_through(self, cell: Cell, arrived: Callable[[], bool]) -> None:
        """Wait for one child, on which all that are to be started wait with us."""
        self.busy_with = cell
        while not arrived():
            await self._until(lambda: arrived() or stuck_in(cell) is not None)
            if stuck_in(cell) is not None:
                await let_go()
                stuck = stuck_in(cell)
                if stuck is not None:
                    stuck.kill("it waits for an actor that waits for it in turn")
        self.busy_with = None

    async def _rest(self) -> None:
        # One task rests here, and it looked around before it did: between that
        # look and this wait nobody else ran.
        self._bell = trio.Event()
        await self._bell.wait()

    def _static(self) -> list[Cell]:
        return [cell for cell in self.children.values() if not cell.dynamic]

    # Ends

    async def _clean_up(self, reason: Reason) -> None:
        """Nothing: its children cleaned up after themselves, inside its nursery."""

    def _begin_stop(self, why: str) -> None:
        self.ring()

    def _settle(self, reason: Reason) -> None:
        self._nursery = None
        self.busy_with = None
        self._exits.clear()
        self._due.clear()
        for cell in tuple(self.children.values()):
            cell.plan = None
            if cell.dynamic:
                cell.bury(_passed_on(reason))

    def _close(self, reason: Reason) -> None:
        for cell in tuple(self.children.values()):
            cell.bury(_passed_on(reason))

    def statistics(self) -> ActorStatistics:
        return ActorStatistics(restarts=self.restarts)


def _passed_on(reason: Reason) -> Reason:
    """Return why the children of a supervisor that ended for `reason` have no further life."""
    return reason if isinstance(reason, Killed) else Shutdown(str(reason))


def make_cell(
    core: Core, parent: SupervisorCell | None, child: Child[Any], *, dynamic: bool = False
) -> Cell:
    """Return the right kind of cell for `child`."""
    kind = SupervisorCell if isinstance(child.behaviour, Supervisor) else ActorCell
    return kind(core, parent, child, dynamic=dynamic)


def start_failure(cell: Cell) -> StartFailedError:
    """Say why `cell` did not come up."""
    error = StartFailedError(cell.path, str(cell.reason))
    if isinstance(cell.reason, Crashed):
        error.__cause__ = cell.reason.error
    return error
