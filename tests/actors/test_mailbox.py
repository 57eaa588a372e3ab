from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from actorflow.actors import (
    ActorRef,
    Backoff,
    Child,
    DeadLetter,
    DeadReason,
    Down,
    Inbox,
    Notice,
    Reply,
    Shutdown,
    System,
    conflate,
    open_actor,
    open_system,
)
from actorflow.errors import ActorStoppedError, MailboxFullError


class Gate:
    """An actor that takes one message, says so, and waits until it is let on."""

    def __init__(self) -> None:
        self.handled: list[object] = []
        self.open = trio.Event()

    async def behave(self, inbox: Inbox[Any]) -> None:
        async for message in inbox:
            self.handled.append(message)
            await self.open.wait()


def dead_letters(system: System) -> list[tuple[object, str]]:
    """Return a list that grows with every dead letter of `system`."""
    letters: list[tuple[object, str]] = []

    def listen(notice: Notice) -> None:
        if isinstance(notice, DeadLetter):
            letters.append((notice.message, notice.reason))

    system.subscribe(listen)
    return letters


async def fill(ref: ActorRef[Any], *messages: object) -> None:
    """Put the first message in hand and the others into the queue."""
    ref.tell_nowait(messages[0])
    await trio.testing.wait_all_tasks_blocked()
    for message in messages[1:]:
        ref.tell_nowait(message)


async def test_messages_arrive_in_order() -> None:
    arrived: list[int] = []

    async def behave(inbox: Inbox[int]) -> None:
        async for number in inbox:
            arrived.append(number)

    async with open_actor(behave, capacity=4) as ref:
        for number in range(100):
            await ref.tell(number)

    assert arrived == list(range(100))


async def test_tell_with_room_is_no_checkpoint() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave)) as system:
        with trio.CancelScope() as scope:
            scope.cancel()
            await system["gate"].tell("although there is no time left")
        gate.open.set()

    assert not scope.cancelled_caught
    assert gate.handled == ["although there is no time left"]


async def test_full_mailbox_makes_sender_wait() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1)) as system:
        ref = system["gate"]
        await fill(ref, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.tell, 3)
            await trio.testing.wait_all_tasks_blocked()
            blocked = ref.statistics()
            gate.open.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (blocked.depth, blocked.blocked_senders, blocked.peak_depth) == (1, 1, 1)
        assert ref.statistics().blocked_senders == 0
        assert gate.handled == [1, 2, 3]


async def test_cancelled_sender_has_not_sent() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1)) as system:
        ref = system["gate"]
        await fill(ref, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.tell, 3)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        depth = ref.statistics().depth
        gate.open.set()

    assert depth == 1
    assert gate.handled == [1, 2]


@pytest.mark.parametrize("policy", ["drop_new", "drop_old", conflate(id)])
async def test_cancelled_sender_has_displaced_nothing(policy: Any) -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1, policy=policy)) as system:
        letters = dead_letters(system)
        await fill(system["gate"], "in hand", "queued")
        with trio.CancelScope() as scope:
            scope.cancel()
            await system["gate"].tell("too late")
        gate.open.set()

    assert scope.cancelled_caught
    assert letters == []
    assert gate.handled == ["in hand", "queued"]


async def test_tell_nowait_refuses_when_full() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1)) as system:
        await fill(system["gate"], 1, 2)
        with pytest.raises(MailboxFullError) as caught:
            system["gate"].tell_nowait(3)
        gate.open.set()

    assert (caught.value.actor, caught.value.capacity, caught.value.policy) == ("gate", 1, "block")
    assert gate.handled == [1, 2]


async def test_policy_fail_refuses_the_sender() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1, policy="fail")) as system:
        await fill(system["gate"], 1, 2)
        with pytest.raises(MailboxFullError):
            await system["gate"].tell(3)
        gate.open.set()

        assert system.statistics().dead_letters == {}


async def answer_requests(inbox: Inbox[Any]) -> None:
    async for message in inbox:
        if isinstance(message, Reply):
            message.send("done")


@pytest.mark.parametrize("way", ["tell", "ask"])
async def test_producer_that_is_refused_lets_others_run(way: str) -> None:
    def request(reply: Reply[str]) -> Reply[str]:
        return reply

    async with open_system(Child("a", answer_requests, capacity=1, policy="fail")) as system:
        ref = system["a"]
        ref.tell_nowait(1)
        refused = 0
        # Trio shuffles, so the actor may come after the second try.
        while ref.statistics().depth and refused < 5:
            with pytest.raises(MailboxFullError):
                await (ref.tell(2) if way == "tell" else ref.ask(request))
            refused += 1

    assert refused in {1, 2}


async def test_policy_drop_new_keeps_what_is_queued() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1, policy="drop_new")) as system:
        letters = dead_letters(system)
        await fill(system["gate"], 1, 2)
        await system["gate"].tell(3)
        dropped = system["gate"].statistics().dropped
        gate.open.set()

    assert gate.handled == [1, 2]
    assert letters == [(3, DeadReason.DROPPED_NEW)]
    assert dropped == 1


async def test_policy_drop_old_keeps_what_is_newest() -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=2, policy="drop_old")) as system:
        letters = dead_letters(system)
        await fill(system["gate"], 1, 2, 3, 4, 5)
        gate.open.set()

    assert gate.handled == [1, 4, 5]
    assert letters == [(2, DeadReason.DROPPED_OLD), (3, DeadReason.DROPPED_OLD)]


async def test_policy_drop_old_cannot_take_back_what_is_on_its_way() -> None:
    gate = Gate()
    gate.open.set()
    async with open_system(Child("gate", gate.behave, capacity=1, policy="drop_old")) as system:
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            system["gate"].tell_nowait(number)

    assert gate.handled == [0, 2]


async def test_conflate_keeps_the_newest_of_each_key_in_the_oldest_place() -> None:
    gate = Gate()
    policy = conflate(lambda message: message[0])
    async with open_system(Child("gate", gate.behave, capacity=2, policy=policy)) as system:
        letters = dead_letters(system)
        await fill(system["gate"], "-", "a1", "b1", "a2")
        await system["gate"].tell("b2")
        gate.open.set()

    assert gate.handled == ["-", "a2", "b2"]
    assert letters == [("a1", DeadReason.CONFLATED), ("b1", DeadReason.CONFLATED)]


async def test_conflate_with_more_keys_than_room_drops_the_oldest() -> None:
    gate = Gate()
    policy = conflate(lambda message: message[0])
    async with open_system(Child("gate", gate.behave, capacity=2, policy=policy)) as system:
        letters = dead_letters(system)
        await fill(system["gate"], "-", "a1", "b1", "c1", "a2")
        gate.open.set()

    assert gate.handled == ["-", "c1", "a2"]
    assert letters == [("a1", DeadReason.DROPPED_OLD), ("b1", DeadReason.DROPPED_OLD)]


async def test_conflate_refuses_after_the_end() -> None:
    async def behave(inbox: Inbox[str]) -> None:
        await inbox.receive()

    async with open_system() as system:
        ref = await system.spawn(behave, policy=conflate(len))
        ref.stop()
        await ref.wait_stopped()
        with pytest.raises(ActorStoppedError):
            await ref.tell("x")


@pytest.mark.parametrize("policy", ["drop_new", "drop_old"])
async def test_asker_of_a_dropped_request_is_told(policy: str) -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1, policy=policy)) as system:
        ref = system["gate"]
        await fill(ref, 1)
        errors: list[MailboxFullError] = []

        async def ask() -> None:
            try:
                await ref.ask(lambda reply: reply)
            except MailboxFullError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if policy == "drop_old":
                ref.tell_nowait(2)
            else:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        gate.open.set()

    assert len(errors) == 1


@pytest.mark.parametrize("policy", ["drop_new", "drop_old", conflate(lambda _: 0)])
async def test_producer_that_drops_lets_others_run(policy: Any) -> None:
    gate = Gate()
    async with open_system(Child("gate", gate.behave, capacity=1, policy=policy)) as system:
        with trio.move_on_after(0.01) as scope:
            while True:
                await system["gate"].tell(1)
        gate.open.set()

    assert scope.cancelled_caught


async def test_busy_actor_lets_others_run() -> None:
    async def behave(inbox: Inbox[int]) -> None:
        async for number in inbox:
            inbox.ctx.ref.tell_nowait(number + 1)

    async with open_system(Child("busy", behave, shutdown=0)) as system:
        system["busy"].tell_nowait(0)
        with trio.move_on_after(0.02) as scope:
            await trio.sleep_forever()

        assert scope.cancelled_caught
        assert system["busy"].statistics().handled > 10


async def test_time_slice_of_zero_lets_others_run_after_each_message() -> None:
    order: list[str] = []

    async def behave(inbox: Inbox[str]) -> None:
        async for message in inbox:
            order.append(message)

    async with open_system(Child("a", behave), Child("b", behave), time_slice=0) as system:
        for number in range(3):
            system["a"].tell_nowait(f"a{number}")
            system["b"].tell_nowait(f"b{number}")

    rounds = [set(order[at : at + 2]) for at in (0, 2, 4)]
    assert rounds == [{"a0", "b0"}, {"a1", "b1"}, {"a2", "b2"}]


async def test_messages_to_an_ended_actor_are_refused() -> None:
    async def behave(inbox: Inbox[int]) -> None:
        await inbox.receive()

    async with open_system() as system:
        ref = await system.spawn(behave)
        await ref.tell(1)
        await ref.wait_stopped()
        with pytest.raises(ActorStoppedError, match="it returned"):
            await ref.tell(2)
        with pytest.raises(ActorStoppedError):
            ref.tell_nowait(2)
        with pytest.raises(ActorStoppedError):
            await ref.ask(lambda reply: 2)


async def test_asker_of_a_conflated_request_is_told() -> None:
    gate = Gate()
    errors: list[str] = []

    async with open_system(
        Child("gate", gate.behave, capacity=1, policy=conflate(lambda _: 0))
    ) as system:
        ref = system["gate"]
        await fill(ref, 1)

        async def ask() -> None:
            try:
                await ref.ask(lambda reply: reply)
            except MailboxFullError as error:
                errors.append(error.policy)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            ref.tell_nowait(2)
        gate.open.set()

    assert errors == ["conflate"]
    assert gate.handled == [1, 2]


@pytest.mark.parametrize("policy", ["block", conflate(lambda _: 0)])
@pytest.mark.parametrize("lives_on", [True, False])
async def test_wake_that_nobody_took_is_no_message(
    policy: Any, lives_on: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The actor stops waiting for another reason just when a report wakes it."""
    seen: list[object] = []
    scopes: list[trio.CancelScope] = []

    async def watching(inbox: Inbox[Any]) -> None:
        inbox.ctx.monitor(inbox.ctx.system["watched"])
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await inbox.receive()
        if lives_on:
            async for message in inbox:
                seen.append(message)

    async def crashing(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise ValueError

    async with open_system(Child("watched", crashing, backoff=Backoff(base=10))) as system:
        ref = await system.spawn(watching, policy=policy)
        await system["watched"].tell(0)
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        system["watched"].stop("enough")
        await trio.testing.wait_all_tasks_blocked()
        if lives_on:
            await ref.tell("real")

        assert system.statistics().dead_letters == {"crashed": 1}
    down = Down(system["watched"], Shutdown("enough"))
    assert seen == ([down, "real"] if lives_on else [])


@pytest.mark.parametrize("policy", ["drop_old", conflate(id)])
async def test_wake_gives_way_to_a_message(
    policy: Any, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[object] = []
    scopes: list[trio.CancelScope] = []

    async def watching(inbox: Inbox[Any]) -> None:
        inbox.ctx.monitor(inbox.ctx.system["watched"])
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await inbox.receive()
        async for message in inbox:
            seen.append(message)

    async def crashing(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise ValueError

    async with open_system(Child("watched", crashing, backoff=Backoff(base=10))) as system:
        ref = await system.spawn(watching, policy=policy, capacity=1)
        await system["watched"].tell(0)
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        system["watched"].stop("enough")
        ref.tell_nowait("real")
        await trio.testing.wait_all_tasks_blocked()

        assert system.statistics().dead_letters == {"crashed": 1}
    assert seen == [Down(system["watched"], Shutdown("enough")), "real"]


async def test_end_for_good_accounts_for_the_queue_and_blocked_senders() -> None:
    gate = Gate()
    refused: list[ActorStoppedError] = []

    async with open_system() as system:
        letters = dead_letters(system)
        ref = await system.spawn(gate.behave, capacity=1)
        await fill(ref, 1, 2)

        async def send() -> None:
            try:
                await ref.tell(3)
            except ActorStoppedError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            ref.kill()

        assert letters == [(1, DeadReason.KILLED), (2, DeadReason.STOPPED)]
        assert len(refused) == 1


async def test_receive_nowait_takes_what_is_there() -> None:
    seen: list[object] = []

    async def behave(inbox: Inbox[Any]) -> None:
        seen.append(await inbox.receive())
        seen.append(inbox.receive_nowait())
        try:
            inbox.receive_nowait()
        except trio.WouldBlock:
            seen.append("would block")
        try:
            while True:
                await inbox.receive()
        finally:
            try:
                inbox.receive_nowait()
            except trio.EndOfChannel:
                seen.append("end")

    async with open_actor(behave) as ref:
        ref.tell_nowait(None)
        ref.tell_nowait("second")
        await trio.testing.wait_all_tasks_blocked()

    assert seen == [None, "second", "would block", "end"]


async def test_receive_nowait_skips_requests_nobody_waits_for() -> None:
    seen: list[object] = []
    ready = trio.Event()

    async def behave(inbox: Inbox[Any]) -> None:
        await ready.wait()
        seen.append(inbox.receive_nowait())

    async with open_actor(behave) as ref:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: ref.ask(lambda reply: reply))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        ref.tell_nowait("alive")
        ready.set()
        await trio.testing.wait_all_tasks_blocked()

    assert seen == ["alive"]


async def test_message_sent_while_the_wait_is_cancelled_is_not_lost() -> None:
    seen: list[object] = []
    scopes: list[trio.CancelScope] = []

    async def behave(inbox: Inbox[int]) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            seen.append(await inbox.receive())
        seen.append(await inbox.receive())

    async with open_actor(behave, capacity=1) as ref:
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        ref.tell_nowait(7)
        await trio.testing.wait_all_tasks_blocked()

        assert seen == [7]
        assert ref.statistics().depth == 0


async def test_tell_after_the_wait_was_cancelled_still_counts_as_queued() -> None:
    woken = trio.Event()
    scopes: list[trio.CancelScope] = []

    async def behave(inbox: Inbox[int]) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await inbox.receive()
        await woken.wait()
        await inbox.receive()

    async with open_actor(behave, capacity=1) as ref:
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        ref.tell_nowait(7)
        with pytest.raises(MailboxFullError):
            ref.tell_nowait(8)
        woken.set()


async def test_reply_of_a_request_says_whether_it_is_open() -> None:
    kept: list[Reply[int]] = []

    async def behave(inbox: Inbox[Reply[int]]) -> None:
        async for reply in inbox:
            kept.append(reply)
            assert repr(reply) == "<Reply of behave, open>"
            reply.send(1)

    async with open_actor(behave) as ref:
        assert await ref.ask(lambda reply: reply, timeout=math.inf) == 1

    assert not kept[0].is_open
    assert repr(kept[0]) == "<Reply of behave, done>"
