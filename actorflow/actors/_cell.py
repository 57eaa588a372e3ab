"""One place in a supervision tree, and what happens in it.

A cell stays while the actors in it come and go. Each life ("incarnation") is a
task of its own with a cancel scope of its own; its shell turns whatever ends it
into a reason and never lets a crash reach the nursery, where it would cancel
the siblings.
"""

from __future__ import annotations

import contextvars
import logging
import math
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from ._inbox import Down
from ._letters import DeadLetter, DeadReason
from ._mailbox import Mailbox
from ._notices import ActorEnded, ActorStarted
from ._reasons import Crashed, Killed, Normal, Reason, Shutdown, split_crash
from ._ref import ActorRef
from ._reply import Request, message_of
from ._state import State
from ._supervision import RestartType, should_restart
from ._tree import ActorInfo, ActorStatistics
from ._waits import current_cell, enter_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._actor_cell import ActorCell
    from ._core import Core
    from ._spec import Child
    from ._supervisor import Plan, SupervisorCell
    from ._timers import Timer

_log: Final = logging.getLogger("actorflow.actors")

# How often to complain about a task that was killed and goes on.
_KILL_WARNING: Final = 5.0


class Cell(ABC):
    """What actors and supervisors have in common: lives, states and ends."""

    __slots__ = (
        "__weakref__",
        "_context",
        "_limit",
        "_turn",
        "_watchers",
        "busy_with",
        "child",
        "core",
        "deferred",
        "dynamic",
        "failures",
        "final",
        "guests",
        "incarnation",
        "lived",
        "mailbox",
        "parent",
        "path",
        "plan",
        "reason",
        "ref",
        "restarts",
        "scope",
        "started_at",
        "state",
        "stop_reason",
        "task",
        "waiting_on",
        "waiting_until",
        "was_ready",
        "why_killed",
    )

    # Whether an orderly stop makes sense before it is ready.
    _stops_mid_start: ClassVar[bool] = False

    mailbox: Mailbox
    path: str
    incarnation: int

    def __init__(
        self, core: Core, parent: SupervisorCell | None, child: Child[Any], *, dynamic: bool
    ) -> None:
        self.core = core
        self.parent = parent
        self.child = child
        self.dynamic = dynamic
        if parent is None:
            self.path = ""
        else:
            self.path = f"{parent.path}/{child.name}" if parent.path else child.name
        self.state = State.NEW
        self.incarnation = 0
        self.restarts = 0
        # Failures in a row, which the backoff counts.
        self.failures = 0
        self.started_at = -math.inf
        self.lived = 0.0
        self.was_ready = False
        # Why the last life ended, once there was one.
        self.reason: Reason | None = None
        # Set while a stop is under way. A stop that is not final is part of a
        # group restart: the queue is kept for the next life.
        self.stop_reason: Shutdown | None = None
        self.final = False
        self.why_killed = "cancelled from outside"
        self.plan: Plan | None = None
        self.scope: trio.CancelScope | None = None
        self.task: trio.lowlevel.Task | None = None
        self.ref: ActorRef[Any] = ActorRef(self)
        # The child of a supervisor that everybody in it who is not up yet waits for.
        self.busy_with: Cell | None = None
        self.waiting_on: Cell | None = None
        self.waiting_until = math.inf
        # Every life starts with the context variables of whoever asked for the
        # first one, not with those of the supervisor that restarts it.
        self._context = contextvars.copy_context()
        # Runs out when a start, and later a stop, takes too long.
        self._limit: Timer | None = None
        # Set at the next change of state.
        self._turn: trio.Event | None = None
        self._watchers: list[ActorCell] = []
        # What works inside this one without being an actor, for `System.tree`.
        self.guests: list[Callable[[], ActorInfo]] = []
        # Requests of the present life that will be answered later.
        self.deferred: set[Request] = set()

    def start(self, nursery: trio.Nursery, *, shield: bool = False) -> None:
        """Begin a new life in `nursery`."""
        self.incarnation += 1
        self.was_ready = False
        self.stop_reason = None
        self.plan = None
        self.started_at = self.core.clock()
        self.scope = trio.CancelScope(shield=shield)
        self._enter(State.STARTING)
        self._kill_in(self.child.start_timeout, "it was not ready after {:g} s")
        self._context.run(partial(nursery.start_soon, self._shell, name=self.path))

    async def _shell(self) -> None:
        """Live once. The only frame of its task, so a life and a task are the same thing."""
        current_cell.set(self._as_actor())
        enter_system(self.core.system)
        self.task = trio.lowlevel.current_task()
        assert self.scope is not None
        crash = travels_on = reason = None
        leaves_task = True
        try:
            with self.scope:
                try:
                    await self._live()
                    reason = self.stop_reason or Normal()
                # What is no crash travels on, whatever the clean-up does.
                except BaseException as error:  # noqa: BLE001, ASYNC103
                    crash, travels_on = split_crash(error)
                    try:
                        # After a kill it may not await, and is not meant to.
                        await self._clean_up(self._reason_of(crash))  # noqa: ASYNC102
                    except trio.Cancelled:  # noqa: ASYNC103
                        if travels_on is None:
                            raise
                    # Not even the kill of a clean-up may take its place.
                    if travels_on is not None:
                        raise travels_on  # noqa: B904  (the same error, or a part of it)
            leaves_task = False
        finally:
            # A crash beside a cancel is still a crash.
            self._end(reason or self._reason_of(crash), leaves_task=leaves_task)
            # An exception holds this frame, so the frame must not hold the exception.
            del crash, travels_on, reason

    def _reason_of(self, crash: Exception | None) -> Reason:
        # An exception may be false, for example if it has a length.
        return Killed(self.why_killed) if crash is None else Crashed(crash)

    @abstractmethod
    async def _live(self) -> None:
        """Do what the cell is there for; call `_ready` when it is up."""

    @abstractmethod
    def _as_actor(self) -> ActorCell | None:
        """Return who waits when this task waits."""

    @abstractmethod
    async def _clean_up(self, reason: Reason) -> None:
        """Do what is to be done when a life ends before its time; raise no Exception."""

    @abstractmethod
    def _begin_stop(self, why: str) -> None:
        """Make a running life end by itself."""

    @abstractmethod
    def _settle(self, reason: Reason) -> None:
        """Account for everything that belonged to the life that just ended."""

    @abstractmethod
    def _close(self, reason: Reason) -> None:
        """Give up what would have passed to the next life."""

    @abstractmethod
    def statistics(self) -> ActorStatistics: ...

    def _enter(self, state: State) -> None:
        self.state = state
        if self._turn is not None:
            self._turn.set()
            self._turn = None
        if self.parent is not None:
            self.parent.child_changed()

    def _ready(self) -> None:
        self.was_ready = True
        if not self.is_killed:
            self._lift_limit()
        self._enter(State.RUNNING)
        if self.core.listeners:
            self.core.notify(ActorStarted(self.path, self.incarnation))

    def stop(self, why: str, *, final: bool) -> None:
        """Ask this life to end in order; a final stop is the end of the cell too."""
        if self.state is State.ENDED:
            return
        self.final = self.final or final
        if not self.state.is_alive:
            if final:
                self.bury(Shutdown(why))
        elif self.stop_reason is None:
            self.stop_reason = Shutdown(why)
            half_started = self.state is State.STARTING and not self._stops_mid_start
            if half_started or self.child.shutdown <= 0:
                self.kill(why)
            else:
                self._enter(State.STOPPING)
                self._kill_in(self.child.shutdown, "it did not stop within {:g} s")
                self._begin_stop(why)
        elif final:
            self._begin_stop(why)

    @property
    def is_killed(self) -> bool:
        # Then `_limit` is no limit but the time of the next complaint.
        return self.scope is not None and self.scope.cancel_called

    def _kill_in(self, seconds: float, why: str) -> None:
        if seconds < math.inf and not self.is_killed:
            self._lift_limit()
            when = trio.current_time() + seconds
            self._limit = self.core.timers.at(when, lambda: self.kill(why.format(seconds)))

    def _lift_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def kill(self, why: str) -> None:
        """Cancel this life, if there is one."""
        if self.scope is not None and not self.is_killed:
            self.why_killed = why
            self.scope.cancel()
            self._lift_limit()
            self._watch_the_dying()

    def _watch_the_dying(self) -> None:
        # Nobody can end a task that never comes to a checkpoint or swallows the
        # cancel. It is not abandoned either: say so until it is gone.
        when = trio.current_time() + _KILL_WARNING
        self._limit = self.core.timers.at(when, self._complain)

    def _complain(self) -> None:
        # A task without a stack was not even let begin, by others who hold up the loop.
        stack = [] if self.task is None else _stack(self.task)
        _log.warning(
            "actor_ignores_kill: %s",
            self.path,
            extra={"actor": self.path, "why": self.why_killed, "stack": stack},
        )
        self._watch_the_dying()

    def _end(self, reason: Reason, *, leaves_task: bool) -> None:
        """Put a life on record. Nothing in here waits, so nothing can come between."""
        self._lift_limit()
        self.lived = self.core.clock() - self.started_at
        self.reason = reason
        self.why_killed = "cancelled from outside"
        self.scope = None
        self.task = None
        self.waiting_on = None
        self._settle(reason)
        if isinstance(reason, Crashed):
            _log.warning(
                "actor_crashed: %s",
                self.path or "the system",
                exc_info=reason.error,
                extra={"actor": self.path, "incarnation": self.incarnation},
            )
        if self.core.listeners:
            self.core.notify(ActorEnded(self.path, self.incarnation, reason))
        if self.parent is None or self._was_last_life(reason):
            self.bury(reason)
        else:
            self._enter(State.DOWN)
            # Stopped for a group restart it is part of a plan already. And what
            # leaves the task, a KeyboardInterrupt or a cancel of them all, ends
            # the supervisor too: it must not start anything any more.
            if self.stop_reason is None and not leaves_task:
                self.parent.report(self, reason)

    def _was_last_life(self, reason: Reason) -> bool:
        if self.final:
            return True
        if self.dynamic and self.incarnation == 1 and not self.was_ready:
            # It never came up, and whoever spawned it is told so.
            return True
        if self.stop_reason is not None:
            # Others decided that this life was over, and they start the next.
            return self.child.restart is RestartType.TEMPORARY
        return not should_restart(self.child.restart, reason)

    def bury(self, reason: Reason) -> None:
        """End for good."""
        if self.state is State.ENDED:
            return
        self.reason = reason
        self.final = True
        # First, because listeners hear of dead letters and may ask for a stop.
        self._enter(State.ENDED)
        self._close(reason)
        for watcher in self._watchers:
            watcher.mailbox.post(Down(self.ref, reason))
        self._watchers.clear()
        if self.parent is None:
            self.core.root_ended()
        elif self.dynamic:
            self.parent.forget(self)

    def bury_letter(self, item: object, dead: DeadReason, reason: Reason | None = None) -> None:
        """Account for a message that nobody handled, and tell its asker if there is one."""
        if type(item) is Request:
            item.undelivered(dead, reason)
        self.core.dead_letters[dead] += 1
        if self.core.listeners:
            self.core.notify(DeadLetter(message_of(item), self.path, dead))

    @property
    def is_settled(self) -> bool:
        """Whether the start is over, one way or the other."""
        return self.was_ready or not self.state.is_alive

    async def until(self, arrived: Callable[[], bool]) -> None:
        """Wait until a change of state makes `arrived` true."""
        while not arrived():
            if self._turn is None:
                self._turn = trio.Event()
            await self._turn.wait()

    async def until_ended(self) -> Reason:
        """Wait for the end for good."""
        await self.until(lambda: self.state is State.ENDED)
        assert self.reason is not None
        return self.reason

    def add_watcher(self, watcher: ActorCell) -> None:
        if self.state is State.ENDED:
            assert self.reason is not None
            watcher.mailbox.post(Down(self.ref, self.reason))
        else:
            self._watchers.append(watcher)

    def remove_watcher(self, watcher: ActorCell) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)


def _stack(task: trio.lowlevel.Task) -> list[str]:
    """Return where `task` waits, outermost frame first."""
    return [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
        for frame, line in task.iter_await_frames()
    ]
