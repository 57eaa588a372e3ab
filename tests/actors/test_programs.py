"""Random programs keep what the runtime semantics promise.

The gate runs a few hundred of them. To run more::

    ACTORFLOW_PROGRAMS=10000 python -m pytest -o faulthandler_timeout=0 tests/actors/test_programs.py
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings, strategies as st

from actorflow.actors import (
    Actor,
    ActorContext,
    Backoff,
    Child,
    Inbox,
    Killed,
    Notice,
    Reason,
    Reply,
    RestartPlanned,
    State,
    Supervisor,
    System,
    open_system,
)
from actorflow.errors import AskTimeoutError, MailboxDeadlockError, RestartBudgetExceededError
from actorflow.testing import run_seeded
from tests.actors.programs import HORIZON, Program, World, programs, violations

PROGRAMS = int(os.environ.get("ACTORFLOW_PROGRAMS", "250"))


def examples(share: float) -> Callable[[Any], Any]:
    """Take that share of the programs; how long one takes to draw is no concern."""
    return settings(
        max_examples=max(1, int(PROGRAMS * share)), suppress_health_check=list(HealthCheck)
    )


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Let crashes go unlogged: writing tracebacks takes longer than everything else."""
    logger = logging.getLogger("actorflow.actors")
    logger.disabled = True
    yield
    logger.disabled = False


seeds = st.integers(0, 2**16)


@examples(1)
@given(programs)
def test_every_program_keeps_the_promises(program: Program) -> None:
    world = World(program)
    run_seeded(world.run, seed=program.seed)

    assert list(violations(world)) == []


# Rings of waits


@attrs.frozen
class Step:
    """One wait of an actor, while it starts or while it handles a message."""

    how: str
    target: int
    timeout: float | None
    pause: float


@attrs.frozen
class Waiter:
    """An actor that waits for others."""

    steps: tuple[Step, ...]
    capacity: int
    answers_first: bool
    at_start: Step | None


@attrs.frozen
class Errand:
    """A message between waiters."""

    depth: int
    reply: Reply[str] | None = None


steps = st.builds(
    Step,
    how=st.sampled_from(("ask", "tell")),
    target=st.integers(0, 3),
    timeout=st.sampled_from((None, None, None, 0.5)),
    pause=st.sampled_from((0.0, 0.0, 0.25, 1.0)),
)
waiters = st.builds(
    Waiter,
    steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
    capacity=st.integers(1, 2),
    answers_first=st.booleans(),
    at_start=st.none() | steps,
)


class Rings:
    """Actors that wait for each other, and who really does."""

    def __init__(self, actors: tuple[Waiter, ...]) -> None:
        self.actors = actors
        self.waits: dict[str, tuple[str, Reply[str] | None, trio.lowlevel.Task, float]] = {}
        self.wrong: list[str] = []
        self.raised = 0
        self.handled = 0

    def child(self, number: int, spec: Waiter) -> Child[Any]:
        rings = self

        class Waiting(Actor[Errand]):
            async def on_start(self) -> None:
                if spec.at_start is not None:
                    await rings.wait(self.ctx, spec.at_start, 1)

            async def receive(self, message: Errand) -> None:
                if spec.answers_first and message.reply is not None:
                    message.reply.send("early")
                for step in spec.steps if message.depth < 3 else ():
                    await rings.wait(self.ctx, step, message.depth + 1)
                rings.handled += 1
                if message.reply is not None:
                    message.reply.send("late")

        return Child(f"a{number}", Waiting, capacity=spec.capacity)

    async def wait(self, ctx: ActorContext, step: Step, depth: int) -> None:
        await trio.sleep(step.pause)
        me, target = ctx.ref.path, f"a{step.target % len(self.actors)}"
        task = trio.lowlevel.current_task()

        def make(reply: Reply[str]) -> Errand:
            limit = reply._request.deadline
            self.waits[me] = (target, reply, task, limit)
            return Errand(depth, reply)

        try:
            if step.how == "ask":
                await ctx.system[target].ask(make, timeout=step.timeout)
            else:
                limit = math.inf if step.timeout is None else step.timeout
                self.waits[me] = (target, None, task, limit)
                with trio.move_on_after(limit):
                    await ctx.system[target].tell(Errand(depth))
        except AskTimeoutError:
            pass
        except MailboxDeadlockError as error:
            self.raised += 1
            self.check(ctx.system, error)
        finally:
            del self.waits[me]

    def check(self, system: System, error: MailboxDeadlockError) -> None:
        """Complain unless nobody in the ring would ever have gone on."""
        first, *_ = error.ring
        if error.ring[-1] != first or self.waits[first][3] < math.inf:
            self.wrong.append(f"{error}: the one who was told had a deadline")
        for one, other in zip(error.ring[1:-1], error.ring[2:], strict=True):
            cell: Any = system[one]._cell
            if cell.state in (State.NEW, State.DOWN):
                continue
            target, reply, task, limit = self.waits.get(one, ("nobody", None, None, 0.0))
            if target != other or limit < math.inf:
                self.wrong.append(f"{error}: {one} waits for {target} until {limit}")
            elif reply is None:
                mailbox = system[other]._cell.mailbox
                if mailbox._send is None or task not in mailbox._send._state.send_tasks:
                    self.wrong.append(f"{error}: there is room for the message of {one}")
            elif not reply.is_open:
                self.wrong.append(f"{error}: {one} has its answer")

    async def run(self, kicks: tuple[int, ...], time_slice: float) -> None:
        children = [self.child(*item) for item in enumerate(self.actors)]
        with trio.move_on_after(HORIZON):
            async with open_system(*children, time_slice=time_slice) as system:
                for kick in kicks:
                    await system[f"a{kick % len(children)}"].tell(Errand(0))
                await trio.sleep(HORIZON / 2)
                if self.waits:
                    self.wrong.append(f"somebody waits forever:\n{system.tree()}")
                return
        self.wrong.append("the start or a sender waits forever")


@examples(1)
@given(
    st.lists(waiters, min_size=1, max_size=4).map(tuple),
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    st.sampled_from((0.0, 0.001, math.inf)),
    seeds,
)
def test_deadlock_is_raised_if_and_only_if_there_is_one(
    actors: tuple[Waiter, ...], kicks: tuple[int, ...], time_slice: float, seed: int
) -> None:
    rings = Rings(actors)
    run_seeded(rings.run, kicks, time_slice, seed=seed)

    assert rings.wrong == []


# The restart budget


def left_of_budget(spent: list[float], now: float, most: int, window: float) -> list[float] | None:
    """The rule in three lines."""
    recent = [at for at in spent if at >= now - window]
    recent.append(now)
    return recent if len(recent) <= most else None


@attrs.frozen
class Blow:
    """One child is made to crash, and then fails to start a few times."""

    after: int
    child: int
    failing_starts: int


blows = st.builds(Blow, st.integers(0, 4), st.integers(0, 2), st.sampled_from((0, 0, 0, 1, 2)))


@examples(0.6)
@given(
    plan=st.lists(blows, min_size=1, max_size=12),
    children=st.integers(1, 3),
    strategy=st.sampled_from(("one_for_one", "one_for_all", "rest_for_one")),
    most=st.integers(0, 4),
    window=st.integers(1, 8),
    wait=st.sampled_from((0, 1, 3)),
    seed=seeds,
)
def test_budget_is_spent_as_the_rule_says(
    plan: list[Blow],
    children: int,
    strategy: str,
    most: int,
    window: int,
    wait: int,
    seed: int,
) -> None:
    failing = 0
    planned: list[float] = []
    expected: list[float] = []
    gave_up: list[float] = []
    model_gave_up: list[float] = []

    class Fragile(Actor[str]):
        async def on_start(self) -> None:
            nonlocal failing
            if failing and self.ctx.ref.path.endswith(victim):
                failing -= 1
                raise ValueError("not yet")

        async def receive(self, message: str) -> None:
            raise ValueError(message)

    victim = ""

    def note(notice: Notice) -> None:
        if isinstance(notice, RestartPlanned):
            planned.append(trio.current_time())

    async def main() -> None:
        nonlocal victim, failing
        family = Supervisor(
            *(
                Child(f"c{n}", Fragile, backoff=Backoff(base=wait, factor=1) if wait else None)
                for n in range(children)
            ),
            strategy=strategy,
            max_restarts=most,
            window=window,
        )
        async with open_system(Child("s", family, restart="temporary")) as system:
            system.subscribe(note)
            watched = system["s"]
            spent: list[float] | None = []
            for blow in plan:
                await trio.sleep(blow.after)
                victim = f"c{blow.child % children}"
                failing = blow.failing_starts
                now = trio.current_time()
                await system[f"s/{victim}"].tell("break")
                # The crash, and then every start that fails, spends one restart.
                for attempt in range(blow.failing_starts + 1):
                    assert spent is not None
                    spent = left_of_budget(spent, now + attempt * wait, most, window)
                    if spent is None:
                        model_gave_up.append(now + attempt * wait)
                        break
                    expected.append(now + attempt * wait)
                if spent is None:
                    await watched.wait_stopped()
                    gave_up.append(trio.current_time())
                    return
                await trio.sleep((blow.failing_starts + 1) * wait)
                await trio.testing.wait_all_tasks_blocked()
                assert watched._cell.state is State.RUNNING
                assert failing == 0

    run_seeded(main, seed=seed)

    assert planned == expected
    assert gave_up == model_gave_up


# Order and time of starts and stops


@attrs.frozen
class Slow:
    """A leaf that takes its time."""

    start: float
    stop: float
    shutdown: float


@attrs.frozen
class Family:
    """A supervisor of slow leaves."""

    members: tuple[Slow | Family, ...]
    shutdown: float


# No two sums of these are equal, so that no time limit ties with an end.
slow = st.builds(
    Slow,
    start=st.sampled_from((0.0, 0.5)),
    stop=st.sampled_from((0.0, 0.51, 1.503, 2.507)),
    shutdown=st.sampled_from((0.0, 1.0, 2.0, math.inf)),
)


def families(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Family]:
    return st.builds(
        Family,
        members=st.lists(below, min_size=1, max_size=4).map(tuple),
        shutdown=st.sampled_from((math.inf, math.inf, 1.251)),
    )


def leaf_paths(family: Family, prefix: str = "") -> Iterator[tuple[str, Slow]]:
    for number, member in enumerate(family.members):
        path = f"{prefix}m{number}"
        if isinstance(member, Family):
            yield from leaf_paths(member, f"{path}/")
        else:
            yield path, member


def expected_ends(
    family: Family, now: float, limit: float, prefix: str = ""
) -> Iterator[tuple[str, float, bool]]:
    """Yield path, time and orderliness of each end: members in reverse, nothing after `limit`."""
    for number, member in reversed(list(enumerate(family.members))):
        path = f"{prefix}m{number}"
        own_limit = min(limit, now + member.shutdown)
        if isinstance(member, Family):
            ends = list(expected_ends(member, now, own_limit, f"{path}/"))
            yield from ends
            now = max(at for _, at, _ in ends)
        else:
            orderly = now + member.stop <= own_limit and member.shutdown > 0 and now < limit
            now = now + member.stop if orderly else min(own_limit, now + member.stop)
            yield path, now, orderly


@examples(0.6)
@given(
    family=families(slow | families(slow | families(slow))),
    grace=st.sampled_from((0.0, 2.2509, 1000.0)),
    seed=seeds,
)
def test_starts_in_order_and_stops_in_reverse_within_the_limits(
    family: Family, grace: float, seed: int
) -> None:
    starts: list[tuple[str, float]] = []
    ends: dict[str, tuple[float, bool]] = {}
    closed = []

    def child(name: str, member: Slow | Family) -> Child[Any]:
        if isinstance(member, Family):
            inner = [child(f"m{n}", below) for n, below in enumerate(member.members)]
            return Child(name, Supervisor(*inner), shutdown=member.shutdown)

        leaf = member

        class Timed(Actor[Any]):
            async def on_start(self) -> None:
                starts.append((self.ctx.ref.path, trio.current_time()))
                await trio.sleep(leaf.start)

            async def receive(self, message: Any) -> None: ...

            async def on_stop(self, reason: Reason) -> None:
                orderly = False
                try:
                    await trio.sleep(leaf.stop)
                    orderly = not isinstance(reason, Killed)
                finally:
                    ends[self.ctx.ref.path] = (trio.current_time(), orderly)

        return Child(name, Timed, shutdown=member.shutdown)

    async def main() -> float:
        children = [child(f"m{n}", member) for n, member in enumerate(family.members)]
        async with open_system(*children, grace=grace):
            ready = trio.current_time()
        closed.append(trio.current_time())
        return ready

    ready = run_seeded(main, seed=seed)

    now, expected_starts = 0.0, []
    for path, leaf in leaf_paths(family):
        expected_starts.append((path, now))
        now += leaf.start
    assert starts == expected_starts
    assert ready == now
    expected = list(expected_ends(family, ready, ready + grace))
    if grace == 0:
        expected = [(path, ready, False) for path, _, _ in expected]
    assert {path: orderly for path, (_, orderly) in ends.items()} == {
        path: orderly for path, _, orderly in expected
    }
    assert {path: at for path, (at, _) in ends.items()} == pytest.approx(
        {path: at for path, at, _ in expected}
    )
    orderly = [path for path, _, orderly in expected if orderly]
    assert [path for path in ends if ends[path][1]] == orderly
    assert closed == [pytest.approx(max(at for _, at, _ in expected))]


# What is not a crash


PLACES = ("factory", "on_start", "receive", "on_stop", "nested", "beside a crash")


@contextmanager
def raises_inside(error: type[BaseException]) -> Iterator[None]:
    """As `pytest.raises`, also if others were raised beside it."""
    with pytest.raises(BaseException) as caught:
        yield
    found = caught.value
    inside = found.split(error)[0] if isinstance(found, BaseExceptionGroup) else found
    assert isinstance(inside, error | BaseExceptionGroup)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("restart", ["permanent", "temporary"])
def test_interrupts_leave_the_system_from_everywhere(
    error: type[BaseException], place: str, restart: str
) -> None:
    lives: list[int] = []

    class Interrupted(Actor[Any]):
        def __init__(self) -> None:
            lives.append(1)
            if place == "factory":
                raise error

        async def on_start(self) -> None:
            if place == "on_start":
                raise error

        async def receive(self, message: Any) -> None:
            if place == "receive":
                raise error
            if place == "nested":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.receive_nested)
            if place == "beside a crash":
                raise BaseExceptionGroup("both", [ValueError(), error()])

        async def receive_nested(self) -> None:
            raise error

        async def on_stop(self, reason: Reason) -> None:
            if place == "on_stop":
                raise error

    async def main() -> None:
        inner = Supervisor(Child("a", Interrupted, restart=restart))
        async with open_system(Child("s", inner)) as system:
            await system["s/a"].tell(1)
            if place == "on_stop":
                system["s/a"].stop()
            await trio.sleep(100)

    for seed in range(5):
        lives.clear()
        with raises_inside(error):
            run_seeded(main, seed=seed)
        assert lives == [1]


@examples(0.3)
@given(
    after=st.sampled_from((0.0, 0.5, 1.0, 2.5)),
    takes=st.sampled_from((0.0, 0.5, 1.0, 2.5)),
    grace=st.sampled_from((0.0, 1.0, 5.0)),
    fails=st.booleans(),
    seed=seeds,
)
def test_cancelled_is_neither_swallowed_nor_invented(
    after: float, takes: float, grace: float, fails: bool, seed: int
) -> None:
    inside: list[str] = []

    async def actor(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            pass
        await trio.sleep(0.25)
        if fails:
            raise ValueError("at the end")

    async def main() -> tuple[bool, bool]:
        with trio.CancelScope(deadline=after) as scope:
            async with open_system(Child("a", actor), grace=grace) as system:
                try:
                    await system["a"].tell(1)
                    await trio.sleep(takes)
                    inside.append("passed")
                except trio.Cancelled:
                    inside.append("cancelled")
                    raise
            inside.append("behind")
            await trio.lowlevel.checkpoint()
        return scope.cancelled_caught, scope.cancel_called

    caught, called = run_seeded(main, seed=seed)

    assert caught == called
    if takes > after:
        # At 0 it is the start that is cancelled.
        assert inside == (["cancelled"] if after else [])
    if takes < after - 0.25:
        assert inside == ["passed", "behind"]
        assert not called


@examples(0.1)
@given(seed=seeds, depth=st.integers(1, 3))
def test_failure_moves_up_to_the_top_and_out(seed: int, depth: int) -> None:
    async def crash(inbox: Inbox[Any]) -> None:
        async for message in inbox:
            raise ValueError(message)

    async def main() -> None:
        child: Child[Any] = Child("a", crash)
        for _ in range(depth):
            child = Child("a", Supervisor(child, max_restarts=0), restart="transient")
        async with open_system(child, max_restarts=0) as system:
            await system["/".join("a" * (depth + 1))].tell(1)
            await trio.sleep(100)

    with pytest.raises(RestartBudgetExceededError) as caught:
        run_seeded(main, seed=seed)

    cause: BaseException | None = caught.value
    for _ in range(depth + 1):
        assert isinstance(cause, RestartBudgetExceededError)
        cause = cause.__cause__
    assert isinstance(cause, ValueError)
