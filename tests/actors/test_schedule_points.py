"""Whatever comes at any schedule point, nothing is left undone or done twice.

Each scenario runs once to count the steps that trio takes, and then once for
each of them with a disturbance just before it: the caller is cancelled, or an
actor is killed or stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
import trio

from actorflow.actors import (
    Actor,
    Child,
    DeadLetter,
    Inbox,
    Notice,
    Reason,
    Reply,
    State,
    Supervisor,
    System,
    open_actor,
    open_system,
)
from actorflow.errors import (
    ActorCrashedError,
    ActorStoppedError,
    AskTimeoutError,
    RestartBudgetExceededError,
    StartFailedError,
    UnknownActorError,
)
from actorflow.testing import run_seeded

Scenario: TypeAlias = Callable[["Books"], Awaitable[None]]

SEEDS = range(2)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Let crashes go unlogged."""
    logger = logging.getLogger("actorflow.actors")
    logger.disabled = True
    yield
    logger.disabled = False


class DisturbAt(trio.abc.Instrument):
    """Makes a call just before the task step with a given number."""

    def __init__(self, step: int | None, disturb: Callable[[], None]) -> None:
        self.disturb = disturb
        self.step = step
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.step:
            self.disturb()


class Books:
    """What was sent, what was handled and what died."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.unsure: list[object] = []
        self.handled: list[object] = []
        self.dead: list[object] = []
        self.open = 0
        self.systems: list[System] = []

    def note(self, notice: Notice) -> None:
        if isinstance(notice, DeadLetter):
            self.dead.append(_content(notice.message))

    def watch(self, system: System) -> None:
        self.systems.append(system)
        system.subscribe(self.note)

    async def tell(self, system: System, path: str, message: object) -> None:
        """Send; what was cancelled must never arrive."""
        await system[path].tell(message)
        self.sent.append(message)

    async def ask(self, system: System, path: str, number: int, timeout: float | None) -> None:
        self.unsure.append(number)
        try:
            answer: int = await system[path].ask(lambda reply: (number, reply), timeout=timeout)
        except AskTimeoutError:
            return
        assert answer == number

    def close(self) -> None:
        """Check that the books balance."""
        assert self.open == 0
        for system in self.systems:
            assert {info.state for _, info in system.tree().walk()} == {State.ENDED}
            assert not any(info.statistics.blocked_senders for _, info in system.tree().walk())
        fates = [*self.handled, *self.dead]
        assert len(fates) == len(set(fates))
        assert set(self.sent) <= set(fates)
        assert set(fates) <= {*self.sent, *self.unsure}


def _content(message: object) -> object:
    return message[0] if isinstance(message, tuple) else message


def keeper(books: Books, *, pause: float = 0.0) -> Any:
    """Return an actor class that writes down what it handles and answers."""

    class Keeper(Actor[Any]):
        async def on_start(self) -> None:
            books.open += 1
            try:
                await trio.sleep(pause)
            except BaseException:
                books.open -= 1
                raise

        async def receive(self, message: Any) -> None:
            await trio.sleep(pause)
            books.handled.append(_content(message))
            if isinstance(message, tuple):
                reply: Reply[Any] = message[1]
                reply.send(message[0])

        async def on_stop(self, reason: Reason) -> None:
            books.open -= 1
            await trio.sleep(pause)

    return Keeper


# Scenarios


async def line_of_full_mailboxes(books: Books) -> None:
    children = (
        Child("slow", keeper(books, pause=0.5), capacity=1),
        Child("quick", keeper(books), capacity=2),
    )
    async with open_system(*children) as system:
        books.watch(system)
        for number in range(4):
            await books.tell(system, "slow", number)
            await books.tell(system, "quick", -number - 1)


async def asks_with_and_without_a_deadline(books: Books) -> None:
    children = (Child("slow", keeper(books, pause=0.5), capacity=1),)
    async with open_system(*children) as system, trio.open_nursery() as nursery:
        books.watch(system)
        for number, timeout in enumerate((None, 0.25, 0.75, 2.0)):
            nursery.start_soon(books.ask, system, "slow", number, timeout)


async def spawning_and_stopping(books: Books) -> None:
    async with open_system(Child("s", Supervisor(max_children=2)), max_children=2) as system:
        books.watch(system)
        for number, under in enumerate(("", "s", "")):
            ref = await system.spawn(keeper(books, pause=0.25), name="x", under=under)
            await books.tell(system, ref.path, number)
            ref.stop()
            await ref.wait_stopped()


async def spawning_a_family(books: Books) -> None:
    async with open_system(grace=1) as system:
        books.watch(system)
        inner = Supervisor(
            Child("a", keeper(books, pause=0.25)), Child("b", keeper(books, pause=0.25))
        )
        await system.spawn(inner, name="s")
        await books.tell(system, "s/b", 1)


async def crashing_all_the_time(books: Books) -> None:
    class Crashing(Actor[Any]):
        async def receive(self, message: Any) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError(message)

    family = Supervisor(
        Child("a", Crashing),
        Child("b", keeper(books)),
        strategy="one_for_all",
        max_restarts=100,
    )
    async with open_system(Child("s", family)) as system:
        books.watch(system)
        for number in range(3):
            await books.tell(system, "s/a", number)
            await books.tell(system, "s/b", -number - 1)
            with suppress(ActorCrashedError):
                await books.ask(system, "s/a", 10 + number, 1)


async def a_failing_start(books: Books) -> None:
    class Unable(Actor[Any]):
        async def on_start(self) -> None:
            await trio.sleep(0.5)
            raise ValueError("no")

        async def receive(self, message: Any) -> None: ...

    with pytest.raises(StartFailedError):
        async with open_system(Child("a", keeper(books)), Child("b", Unable)):
            pytest.fail("it cannot start")


async def a_system_within_an_actor(books: Books) -> None:
    async def outer(inbox: Inbox[Any]) -> None:
        async for number in inbox:
            async with open_actor(keeper(books, pause=0.25), grace=0.5) as ref:
                await ref.tell(number * 10)
            books.handled.append(number)

    async with open_system(Child("outer", outer)) as system:
        books.watch(system)
        for number in (1, 2):
            await books.tell(system, "outer", number)
            books.unsure.append(number * 10)


async def no_grace(books: Books) -> None:
    async with open_system(Child("a", keeper(books, pause=0.5), capacity=1), grace=0) as system:
        books.watch(system)
        for number in range(3):
            await books.tell(system, "a", number)


async def closing_over_a_blocked_sender(books: Books) -> None:
    async def send(system: System) -> None:
        with pytest.raises(ActorStoppedError):
            for number in range(9):
                await books.tell(system, "a", number)

    child = Child("a", keeper(books, pause=1), capacity=1)
    async with trio.open_nursery() as nursery, open_system(child) as system:
        books.watch(system)
        nursery.start_soon(send, system)
        await trio.sleep(1.5)


SCENARIOS = (
    line_of_full_mailboxes,
    asks_with_and_without_a_deadline,
    spawning_and_stopping,
    spawning_a_family,
    crashing_all_the_time,
    a_failing_start,
    a_system_within_an_actor,
    no_grace,
    closing_over_a_blocked_sender,
)


def steps_of(scenario: Scenario, seed: int) -> int:
    books = Books()
    instrument = DisturbAt(None, lambda: None)

    async def main() -> None:
        trio.lowlevel.add_instrument(instrument)
        await scenario(books)

    run_seeded(main, seed=seed)
    books.close()
    assert instrument.steps > 10
    return instrument.steps


def run_cancelled(scenario: Scenario, seed: int, step: int) -> Books:
    books = Books()

    async def main() -> None:
        with trio.CancelScope() as scope:
            instrument = DisturbAt(step, scope.cancel)
            trio.lowlevel.add_instrument(instrument)
            await scenario(books)
            trio.lowlevel.remove_instrument(instrument)
            await trio.lowlevel.checkpoint()
        # Whatever raises Cancelled has to pass it on.
        assert scope.cancelled_caught == scope.cancel_called
        # Whoever was still to come back has its time; nobody may need more.
        await trio.sleep(10)

    run_seeded(main, seed=seed)
    return books


def run_hurt(scenario: Scenario, seed: int, step: int, how: str) -> Books:
    books = Books()

    def hurt() -> None:
        """Kill or stop one actor or supervisor, another one at every step."""
        if books.systems:
            system = books.systems[0]
            paths = [info.path for _, info in system.tree().walk() if info.path]
            if paths:
                ref = system[paths[step % len(paths)]]
                ref.kill() if how == "kill" else ref.stop()

    async def main() -> None:
        trio.lowlevel.add_instrument(DisturbAt(step, hurt))
        try:
            await scenario(books)
        except* (
            ActorCrashedError,
            ActorStoppedError,
            RestartBudgetExceededError,
            StartFailedError,
            UnknownActorError,
        ):
            pass

    run_seeded(main, seed=seed)
    return books


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_cancelled_at_any_point_the_books_balance(scenario: Scenario) -> None:
    for seed in SEEDS:
        for step in range(1, steps_of(scenario, seed) + 1):
            run_cancelled(scenario, seed, step).close()


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_hurt_at_any_point_the_books_balance(scenario: Scenario, how: str) -> None:
    for step in range(1, steps_of(scenario, 0) + 1):
        run_hurt(scenario, 0, step, how).close()
