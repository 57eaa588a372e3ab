"""What mypy knows of an actor; `assert_type` checks nothing when it runs."""

from __future__ import annotations

import functools
from typing import Never, assert_type

import attrs

from actorflow.actors import (
    Actor,
    ActorRef,
    Child,
    Inbox,
    Reply,
    SpawnOptions,
    Supervisor,
    open_actor,
    open_system,
)


@attrs.frozen
class Total:
    reply: Reply[int]


class Counter(Actor[int | Total]):
    def __init__(self, total: int = 0) -> None:
        self._total = total

    async def receive(self, message: int | Total) -> None:
        match message:
            case Total(reply):
                reply.send(self._total)
            case _:
                self._total += message


async def shout(inbox: Inbox[str]) -> None:
    async for text in inbox:
        assert_type(text, str)


async def test_opened_actor_has_a_typed_ref() -> None:
    async with open_actor(Counter) as counter, open_actor(Counter(7)) as seven:
        assert_type(counter, ActorRef[int | Total])
        assert_type(seven, ActorRef[int | Total])
        await counter.tell(3)
        assert_type(await counter.ask(Total), int)

    async with open_actor(shout, capacity=1) as shouter:
        assert_type(shouter, ActorRef[str])


async def test_spawned_actor_has_a_typed_ref() -> None:
    async with open_system() as system:
        assert_type(await system.spawn(Counter), ActorRef[int | Total])
        assert_type(await system.spawn(lambda: Counter(2)), ActorRef[int | Total])
        assert_type(await system.spawn(functools.partial(Counter, 2)), ActorRef[int | Total])
        assert_type(await system.spawn(shout, policy="fail"), ActorRef[str])
        # Nobody can send anything to a supervisor.
        assert_type(await system.spawn(Supervisor()), ActorRef[Never])


def test_declared_child_has_the_type_of_its_messages() -> None:
    assert_type(Child("a", Counter), Child[int | Total])
    assert_type(Child("a", shout, needs="b"), Child[str])


def test_options_of_a_spawned_actor_are_those_of_a_child() -> None:
    options = {field.name for field in attrs.fields(Child) if field.kw_only}

    assert set(SpawnOptions.__annotations__) == options - {"needs", "sends_to"}
