from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from actorflow.actors import Actor, Child, DeadReason, Inbox, Reply, open_actor, open_system
from actorflow.errors import (
    ActorCrashedError,
    ActorStoppedError,
    AskTimeoutError,
    InvalidArgumentError,
    MailboxFullError,
    NoReplyError,
)


@attrs.frozen
class Echo:
    reply: Reply[str]
    text: str = "hello"


async def echo(inbox: Inbox[Echo]) -> None:
    async for message in inbox:
        message.reply.send(message.text)


async def sleepy(inbox: Inbox[Echo]) -> None:
    async for message in inbox:
        await trio.sleep(10)
        message.reply.send(message.text)


async def test_ask_returns_the_answer() -> None:
    async with open_actor(echo) as ref:
        assert await ref.ask(Echo) == "hello"
        assert await ref.ask(lambda reply: Echo(reply, "you"), timeout=5) == "you"


async def test_answer_may_be_an_error() -> None:
    async def behave(inbox: Inbox[Echo]) -> None:
        async for message in inbox:
            message.reply.fail(KeyError("unknown"))

    async with open_system(Child("a", behave)) as system:
        with pytest.raises(KeyError, match="unknown"):
            await system["a"].ask(Echo)
        assert system["a"].statistics().restarts == 0


async def test_timeout_is_exact_and_also_a_trio_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_system(Child("a", sleepy)) as system:
        start = trio.current_time()
        with pytest.raises(trio.TooSlowError) as caught:
            await system["a"].ask(Echo, timeout=3)

        assert trio.current_time() == start + 3
        assert isinstance(caught.value, AskTimeoutError)
        assert caught.value.waited == 3


async def test_ask_that_is_over_leaves_no_timer() -> None:
    async with open_system(Child("a", echo)) as system:
        before = len(system._core.timers)
        for _ in range(3):
            await system["a"].ask(Echo, timeout=1000)

        assert len(system._core.timers) == before


async def test_late_answer_is_dropped_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def too_late(inbox: Inbox[Echo]) -> None:
        async for message in inbox:
            await trio.sleep(10)
            message.reply.send("a")
            message.reply.fail(ValueError())

    async with open_system(Child("a", too_late)) as system:
        with pytest.raises(AskTimeoutError):
            await system["a"].ask(Echo, timeout=3)
        await trio.sleep(20)

        assert system.statistics().late_answers == 2
        assert system["a"].statistics().handled == 1


async def test_queued_request_whose_asker_gave_up_is_skipped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_system(Child("a", sleepy)) as system:
        ref = system["a"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Echo)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(AskTimeoutError):
                await ref.ask(Echo, timeout=3)
        await trio.testing.wait_all_tasks_blocked()

        assert system.statistics().dead_letters == {DeadReason.EXPIRED: 1}
        assert ref.statistics().handled == 1


async def test_cancelled_asker_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_system(Child("a", sleepy)) as system:
        with trio.move_on_after(3) as scope:
            await system["a"].ask(Echo)
        await trio.sleep(20)

        assert scope.cancelled_caught
        assert system.statistics().late_answers == 1


async def test_ask_of_a_full_mailbox_waits_within_its_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_system(Child("a", sleepy, capacity=1)) as system:
        ref = system["a"]
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Echo)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ref.ask, Echo)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(AskTimeoutError):
                await ref.ask(Echo, timeout=3)
            waited = trio.current_time() - start
            assert await ref.ask(Echo, timeout=100) == "hello"

        assert waited == 3
        assert ref.statistics().blocked_senders == 0


async def test_ask_of_a_full_mailbox_may_be_refused() -> None:
    async def never(inbox: Inbox[Any]) -> None:
        await inbox.receive()
        await trio.sleep_forever()

    async with open_system(Child("a", never, capacity=1, policy="fail", shutdown=0)) as system:
        system["a"].tell_nowait(0)
        await trio.testing.wait_all_tasks_blocked()
        system["a"].tell_nowait(0)
        with pytest.raises(MailboxFullError):
            await system["a"].ask(Echo)


async def test_crash_answers_at_once_with_its_cause() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        await inbox.receive()
        raise ValueError("broken")

    async with open_system(Child("a", behave)) as system:
        with pytest.raises(ActorCrashedError) as caught:
            await system["a"].ask(Echo, timeout=1000)

        assert isinstance(caught.value.__cause__, ValueError)
        assert system.statistics().dead_letters == {DeadReason.CRASHED: 1}


async def test_kill_answers_what_is_in_hand_and_what_is_queued() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        await inbox.receive()
        await trio.sleep_forever()

    errors: list[Exception] = []

    async with open_system() as system:
        ref = await system.spawn(behave)

        async def ask() -> None:
            try:
                await ref.ask(Echo)
            except (ActorCrashedError, ActorStoppedError) as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
            ref.kill("enough")

    assert sorted(type(error).__name__ for error in errors) == [
        "ActorCrashedError",
        "ActorStoppedError",
    ]
    assert all("enough" in str(error) for error in errors)


async def test_request_without_answer_ends() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            pass

    async with open_system(Child("a", behave)) as system:
        with pytest.raises(NoReplyError) as caught:
            await system["a"].ask(Echo)

        assert caught.value.request == "Echo"


async def test_deferred_answer_may_come_from_a_later_message() -> None:
    class Collector(Actor[Any]):
        def __init__(self) -> None:
            self.waiting: list[Reply[str]] = []

        async def receive(self, message: Any) -> None:
            if isinstance(message, Echo):
                message.reply.defer()
                message.reply.defer()
                self.waiting.append(message.reply)
            else:
                self.waiting.pop().send(message)

    async with open_actor(Collector) as ref:
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await ref.ask(Echo))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await ref.tell("later")

        assert answers == ["later"]


async def test_deferred_answer_ends_with_the_life_that_promised_it() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        async for message in inbox:
            if message == "crash":
                raise ValueError("broken")
            message.reply.defer()

    errors: list[ActorCrashedError] = []

    async with open_system(Child("a", behave)) as system:
        ref = system["a"]

        async def ask() -> None:
            try:
                await ref.ask(Echo)
            except ActorCrashedError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await ref.tell("crash")

    assert isinstance(errors[0].__cause__, ValueError)


async def test_deferring_what_is_answered_already_changes_nothing() -> None:
    async def behave(inbox: Inbox[Echo]) -> None:
        async for message in inbox:
            message.reply.send("early")
            message.reply.defer()

    async with open_system(Child("a", behave)) as system:
        assert await system["a"].ask(Echo) == "early"
        assert system.statistics().late_answers == 0


async def test_nested_asks_inherit_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    deadlines: list[float] = []
    failures: list[float] = []

    async def front(inbox: Inbox[Echo]) -> None:
        back = inbox.ctx.system["back"]
        async for message in inbox:
            deadlines.append(inbox.ctx.deadline)
            try:
                message.reply.send(await back.ask(Echo))
            except AskTimeoutError as error:
                failures.append(error.waited)
                message.reply.send("back was too slow")

    async with open_system(Child("back", sleepy), Child("front", front)) as system:
        start = trio.current_time()
        with pytest.raises(AskTimeoutError):
            await system["front"].ask(Echo, timeout=4)
        await trio.testing.wait_all_tasks_blocked()
        ended = trio.current_time()
        assert await system["front"].ask(Echo) == "hello"

    assert deadlines == [start + 4, math.inf]
    assert failures == [4]
    assert ended == start + 4


async def test_own_timeout_shorter_than_the_inherited_one_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def front(inbox: Inbox[Echo]) -> None:
        back = inbox.ctx.system["back"]
        async for message in inbox:
            try:
                await back.ask(Echo, timeout=1)
            except AskTimeoutError:
                message.reply.send("gave up")

    async with open_system(Child("back", sleepy), Child("front", front)) as system:
        assert await system["front"].ask(Echo, timeout=4) == "gave up"


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_impossible_timeout_is_refused(timeout: float) -> None:
    async with open_actor(echo) as ref:
        with pytest.raises(InvalidArgumentError):
            await ref.ask(Echo, timeout=timeout)


async def test_timeout_of_zero_has_no_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_actor(sleepy) as ref:
        with pytest.raises(AskTimeoutError):
            await ref.ask(Echo, timeout=0)


async def test_what_make_message_raises_reaches_the_asker() -> None:
    def refuse(reply: Reply[str]) -> Echo:
        raise LookupError

    async with open_actor(echo) as ref:
        with pytest.raises(LookupError):
            await ref.ask(refuse)
        assert await ref.ask(Echo) == "hello"
