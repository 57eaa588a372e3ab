"""Places where a kernel like this one breaks. Each of these tests has failed once."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import (
    Actor,
    Backoff,
    Child,
    Crashed,
    DeadLetter,
    Inbox,
    Notice,
    Reason,
    Reply,
    RestartPlanned,
    Shutdown,
    State,
    Supervisor,
    System,
    conflate,
    open_system,
)
from actorflow.errors import (
    ActorCrashedError,
    ActorStoppedError,
    AskTimeoutError,
    MailboxDeadlockError,
    RestartBudgetExceededError,
    StartFailedError,
)
from actorflow.testing import run_seeded


async def obey(inbox: Inbox[Any]) -> None:
    """Crash when told to."""
    async for message in inbox:
        if message == "crash":
            raise ValueError(message)


async def never_read(inbox: Inbox[Any]) -> None:
    await trio.sleep_forever()


def by_seed(scenario: Callable[[], Awaitable[None]], seeds: int = 20) -> None:
    for seed in range(seeds):
        run_seeded(scenario, seed=seed)


def state(system: System, path: str) -> State:
    return {info.path: info.state for _, info in system.tree().walk()}[path]


# Restarts


async def test_transient_actor_comes_back_with_its_group(autojump_clock: MockClock) -> None:
    async with open_system(
        Child("a", obey), Child("b", obey, restart="transient"), strategy="one_for_all"
    ) as system:
        await system["a"].tell("crash")
        await wait_all_tasks_blocked()

        assert state(system, "b") is State.RUNNING


async def test_transient_actor_keeps_its_ref_when_its_supervisor_is_restarted(
    autojump_clock: MockClock,
) -> None:
    async with open_system(
        Child("a", obey),
        Child("s", Supervisor(Child("b", obey, restart="transient"))),
        strategy="one_for_all",
    ) as system:
        ref = system["s/b"]
        await system["a"].tell("crash")
        await wait_all_tasks_blocked()

        assert system["s/b"] is ref
        await ref.tell("hello")


def test_spawned_actor_whose_first_start_fails_is_gone_for_good() -> None:
    async def scenario() -> None:
        starts = []

        class Late(Actor[Any]):
            async def on_start(self) -> None:
                starts.append(1)
                if len(starts) == 1:
                    raise ValueError("not today")

            async def receive(self, message: Any) -> None: ...

        async with open_system() as system:
            with pytest.raises(StartFailedError):
                await system.spawn(Late, name="late", restart="permanent")
            await trio.sleep(1)
            assert "late" not in system
        assert len(starts) == 1

    by_seed(scenario)


async def test_static_child_stopped_before_its_turn_is_not_started(
    autojump_clock: MockClock,
) -> None:
    lives = []

    class First(Actor[Any]):
        async def on_start(self) -> None:
            self.ctx.system["second"].stop()

        async def receive(self, message: Any) -> None: ...

    async def second(inbox: Inbox[Any]) -> None:
        lives.append(inbox)

    async with open_system(Child("first", First), Child("second", second)) as system:
        assert state(system, "second") is State.ENDED
    assert not lives


async def test_supervisor_that_gives_up_takes_no_more_children(autojump_clock: MockClock) -> None:
    async def slow_to_stop(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            pass
        await trio.sleep(2)

    family = Supervisor(Child("slow", slow_to_stop), Child("bad", obey), max_restarts=0)
    async with open_system(Child("s", family, restart="temporary")) as system:
        await system["s/bad"].tell("crash")
        await trio.sleep(1)
        with pytest.raises(ActorStoppedError):
            await system.spawn(obey, under="s")
        with trio.fail_after(2):
            reason = await system["s"].wait_stopped()

        assert isinstance(reason, Crashed)
        assert isinstance(reason.error, RestartBudgetExceededError)


async def test_killed_supervisor_takes_no_more_children(autojump_clock: MockClock) -> None:
    async def stubborn(inbox: Inbox[Any]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    family = Supervisor(Child("stubborn", stubborn))
    async with open_system(Child("s", family, restart="temporary")) as system:
        system["s"].kill()
        await trio.sleep(1)
        with pytest.raises(ActorStoppedError):
            await system.spawn(obey, under="s")


async def test_every_life_of_a_supervisor_has_a_budget_of_its_own(
    autojump_clock: MockClock,
) -> None:
    async with open_system(Child("s", Supervisor(Child("a", obey), max_restarts=1))) as system:
        for _ in range(3):
            await system["s/a"].tell("crash")
            await wait_all_tasks_blocked()

        # The second crash went up; the third is the first of the new life.
        assert system["s"].statistics().restarts == 1
        assert state(system, "s/a") is State.RUNNING


async def keep_busy(inbox: Inbox[Any], handled: list[Any]) -> None:
    async for message in inbox:
        await trio.sleep(1)
        handled.append(message)


async def test_temporary_actor_drains_when_its_group_is_restarted(
    autojump_clock: MockClock,
) -> None:
    handled: list[Any] = []
    busy = partial(keep_busy, handled=handled)
    async with open_system(
        Child("a", obey), Child("busy", busy, restart="temporary"), strategy="one_for_all"
    ) as system:
        for number in range(3):
            await system["busy"].tell(number)
        await system["a"].tell("crash")
        await trio.sleep(5)

        assert handled == [0, 1, 2]
        assert state(system, "busy") is State.ENDED


async def test_temporary_actor_does_not_survive_its_supervisor(autojump_clock: MockClock) -> None:
    """What its supervisor starts in its next life is another actor of the same name."""
    async with open_system(
        Child("a", obey),
        Child("s", Supervisor(Child("b", obey, restart="temporary"))),
        strategy="one_for_all",
    ) as system:
        ref = system["s/b"]
        await system["a"].tell("crash")
        await wait_all_tasks_blocked()

        assert isinstance(await ref.wait_stopped(), Shutdown)
        assert system["s/b"] is not ref
        assert state(system, "s/b") is State.RUNNING


async def test_stop_for_good_during_a_group_restart_counts_at_once(
    autojump_clock: MockClock,
) -> None:
    handled: list[Any] = []
    busy = partial(keep_busy, handled=handled)
    async with open_system(Child("a", obey), Child("busy", busy), strategy="one_for_all") as system:
        ref = system["busy"]
        for number in range(3):
            await ref.tell(number)
        await system["a"].tell("crash")
        await wait_all_tasks_blocked()
        ref.stop()
        with pytest.raises(ActorStoppedError):
            ref.tell_nowait(3)
        await trio.sleep(5)

        assert handled == [0, 1, 2]
        assert state(system, "busy") is State.ENDED
        assert state(system, "a") is State.RUNNING


# What ends everything


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_nothing_begins_after_an_interrupt(error: type[BaseException]) -> None:
    async def scenario() -> None:
        lives = []
        handled = []

        async def interrupted(inbox: Inbox[int]) -> None:
            lives.append(inbox.ctx.incarnation)
            async for message in inbox:
                handled.append(message)
                if message == 0:
                    raise error

        inner = Supervisor(Child("a", interrupted))
        with pytest.raises(error):
            async with open_system(Child("s", Supervisor(Child("t", inner)))) as system:
                for number in range(4):
                    await system["s/t/a"].tell(number)
                await trio.sleep(100)
        assert (lives, handled) == ([1], [0])

    by_seed(scenario)


def test_interrupt_survives_a_killed_clean_up() -> None:
    async def scenario() -> None:
        class Interrupted(Actor[Any]):
            async def receive(self, message: Any) -> None:
                self.ctx.ref.kill()
                raise KeyboardInterrupt

            async def on_stop(self, reason: Reason) -> None:
                await trio.sleep(1)

        with pytest.raises(KeyboardInterrupt):
            async with open_system(Child("a", Interrupted)) as system:
                await system["a"].tell(1)
                await trio.sleep(100)

    by_seed(scenario, 3)


async def test_cancelled_start_stops_in_order_what_had_started(autojump_clock: MockClock) -> None:
    stopped = []

    class Careful(Actor[Any]):
        async def receive(self, message: Any) -> None: ...

        async def on_stop(self, reason: Reason) -> None:
            await trio.sleep(1)
            stopped.append((self.ctx.ref.path, type(reason)))

    class Hanging(Careful):
        async def on_start(self) -> None:
            await trio.sleep_forever()

    inner = Supervisor(Child("b", Careful), Child("hangs", Hanging))
    with trio.move_on_after(1) as scope:
        async with open_system(Child("a", Careful), Child("s", inner)):
            pytest.fail("it is not ready")

    assert scope.cancelled_caught
    assert stopped == [("s/b", Shutdown), ("a", Shutdown)]
    assert trio.current_time() == 3


async def test_nothing_counts_as_alive_after_the_close() -> None:
    async with open_system(Child("a", obey)) as system:
        assert system.statistics().actors == 1

    assert system.statistics().actors == 0


# Crashes and kills


async def test_false_exception_is_a_crash_too(autojump_clock: MockClock) -> None:
    class EmptyError(Exception):
        def __len__(self) -> int:
            return 0

    async def crash(inbox: Inbox[Any]) -> None:
        raise EmptyError

    async with open_system(Child("a", crash, restart="temporary")) as system:
        assert isinstance(await system["a"].wait_stopped(), Crashed)


class SlowToClean(Actor[Any]):
    async def receive(self, message: Any) -> None:
        raise ValueError(message)

    async def on_stop(self, reason: Reason) -> None:
        await trio.sleep(100)


async def test_asker_hears_of_a_crash_before_the_clean_up(autojump_clock: MockClock) -> None:
    async with open_system(Child("a", SlowToClean)) as system:
        with pytest.raises(ActorCrashedError) as caught:
            await system["a"].ask(lambda reply: reply)

        assert trio.current_time() == 0
        assert isinstance(caught.value.__cause__, ValueError)


async def test_clean_up_after_a_crash_has_the_shutdown_time(autojump_clock: MockClock) -> None:
    async with open_system(Child("a", SlowToClean, shutdown=2)) as system:
        await system["a"].tell(1)
        await trio.sleep(1.9)
        assert system["a"].statistics().restarts == 0
        await trio.sleep(0.2)
        assert system["a"].statistics().restarts == 1


async def test_killed_clean_up_does_not_hide_the_crash(autojump_clock: MockClock) -> None:
    async with open_system(Child("a", SlowToClean, restart="temporary")) as system:
        await system["a"].tell(1)
        await trio.sleep(1)
        system["a"].kill()
        reason = await system["a"].wait_stopped()

        assert isinstance(reason, Crashed)
        assert isinstance(reason.error, ValueError)
        assert trio.current_time() == 1


async def test_crash_beside_a_cancel_is_a_crash(autojump_clock: MockClock) -> None:
    async def both(inbox: Inbox[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while being cancelled")

    async with open_system(Child("a", both, restart="temporary")) as system:
        await wait_all_tasks_blocked()
        system["a"].kill()
        reason = await system["a"].wait_stopped()

    assert isinstance(reason, Crashed)


def complaints(caplog: pytest.LogCaptureFixture) -> int:
    said = [it for it in caplog.records if it.message.startswith("actor_ignores_kill: ")]
    return sum(record.__dict__["actor"] == "a" for record in said)


async def test_complaints_about_a_stubborn_task_go_on_during_a_stop(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(inbox: Inbox[Any]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(61)

    async with open_system(Child("a", stubborn)) as system:
        system["a"].kill()
        await trio.sleep(1)

    assert complaints(caplog) == 12


async def test_complaints_go_on_when_a_killed_start_is_ready(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Actor[Any]):
        async def on_start(self) -> None:
            self.ctx.ref.kill()

        async def run(self, inbox: Inbox[Any]) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(11)

    async with open_system(Child("a", Stubborn, restart="temporary")):
        pass

    assert complaints(caplog) == 2


# Waiting


async def test_actor_that_was_answered_does_not_count_as_waiting(
    autojump_clock: MockClock,
) -> None:
    got = []

    async def first(inbox: Inbox[Any]) -> None:
        async for message in inbox:
            if message == "go":
                got.append(await inbox.ctx.system["second"].ask(lambda reply: reply))
            else:
                message.send("there")

    async def second(inbox: Inbox[Reply[str]]) -> None:
        async for reply in inbox:
            reply.send("here")
            got.append(await inbox.ctx.system["first"].ask(lambda reply: reply))

    async with open_system(Child("first", first), Child("second", second)) as system:
        await system["first"].tell("go")
        await trio.sleep(1)

    assert got == ["here", "there"]


def test_sender_whose_message_was_taken_does_not_count_as_waiting() -> None:
    async def scenario() -> None:
        got = []
        gate = trio.Event()

        async def source(inbox: Inbox[Any]) -> None:
            async for message in inbox:
                if message == "go":
                    for number in range(3):
                        await inbox.ctx.system["sink"].tell(number)
                else:
                    message.send("there")

        async def sink(inbox: Inbox[int]) -> None:
            async for number in inbox:
                await gate.wait()
                if number == 1:
                    got.append(await inbox.ctx.system["source"].ask(lambda reply: reply))

        children = Child("source", source), Child("sink", sink, capacity=1)
        async with open_system(*children) as system:
            await system["source"].tell("go")
            await wait_all_tasks_blocked()
            gate.set()
            await trio.sleep(1)
        assert got == ["there"]

    by_seed(scenario)


@pytest.mark.parametrize("supervised", [False, True])
async def test_spawning_an_actor_that_asks_its_spawner_is_a_ring(
    supervised: bool, autojump_clock: MockClock
) -> None:
    failures = []

    class Curious(Actor[Any]):
        async def on_start(self) -> None:
            await self.ctx.system["parent"].ask(lambda reply: reply)

        async def receive(self, message: Any) -> None: ...

    behaviour: Any = Supervisor(Child("curious", Curious)) if supervised else Curious

    async def parent(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            try:
                await inbox.ctx.system.spawn(behaviour)
            except StartFailedError as error:
                failures.append(error)

    async with open_system(Child("parent", parent)) as system:
        await system["parent"].tell(1)
        await wait_all_tasks_blocked()

    cause: BaseException | None = failures[0]
    while isinstance(cause, StartFailedError):
        cause = cause.__cause__
    assert isinstance(cause, MailboxDeadlockError)


async def test_nested_ask_after_the_deadline_waited_no_time(autojump_clock: MockClock) -> None:
    waited = []

    async def late(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            await trio.sleep(2)
            try:
                await inbox.ctx.system["other"].ask(lambda reply: reply)
            except AskTimeoutError as error:
                waited.append(error.waited)

    async with open_system(Child("late", late), Child("other", never_read)) as system:
        with pytest.raises(AskTimeoutError):
            await system["late"].ask(lambda reply: reply, timeout=1)
        await trio.sleep(2)

    assert waited == [0]


# Mailboxes


def test_report_reaches_an_actor_although_a_cancelled_sender_has_not_run_yet() -> None:
    async def scenario() -> None:
        downs = []
        gate = trio.Event()

        async def watcher(inbox: Inbox[Any]) -> None:
            inbox.ctx.monitor(inbox.ctx.system["mortal"])
            async for message in inbox:
                if message == "wait":
                    await gate.wait()
                elif message != "more":
                    downs.append(message)

        async def mortal(inbox: Inbox[Any]) -> None:
            await gate.wait()

        scope = trio.CancelScope()

        async def blocked() -> None:
            with scope:
                await system["watcher"].tell("more")

        async with (
            open_system(
                Child("mortal", mortal, restart="temporary"),
                Child("watcher", watcher, capacity=1),
                time_slice=math.inf,
            ) as system,
            trio.open_nursery() as nursery,
        ):
            await system["watcher"].tell("wait")
            await wait_all_tasks_blocked()
            await system["watcher"].tell("more")
            nursery.start_soon(blocked)
            await wait_all_tasks_blocked()
            # The actor empties its mailbox, parks, and hears of the end, all
            # before the sender finds out that it was cancelled.
            gate.set()
            scope.cancel()
            await trio.sleep(1)
            assert len(downs) == 1

    by_seed(scenario, 60)


async def test_kernel_wakes_do_not_show_in_the_peak(autojump_clock: MockClock) -> None:
    async def ticking(inbox: Inbox[Any]) -> None:
        inbox.ctx.send_every(1, "tick")
        async for _ in inbox:
            pass

    async with open_system(Child("a", ticking)) as system:
        await trio.sleep(3.5)

        assert system["a"].statistics().peak_depth == 0
        assert system["a"].statistics().handled == 3


async def test_slice_of_zero_lets_others_run_at_time_zero(autojump_clock: MockClock) -> None:
    async def endless(inbox: Inbox[int]) -> None:
        async for number in inbox:
            inbox.ctx.ref.tell_nowait(number + 1)

    async with open_system(Child("a", endless)) as system:
        await system["a"].tell(0)
        for _ in range(5):
            await trio.lowlevel.checkpoint()

        assert 0 < system["a"].statistics().handled < 10
        system["a"].kill()
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("before", [False, True])
async def test_group_restart_does_not_wait_for_a_ring(
    before: bool, nested: bool, autojump_clock: MockClock
) -> None:
    """The one that is being stopped waits for one that was stopped before it."""

    async def asking(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            if not before:
                await trio.sleep(1)
            await inbox.ctx.system["last"].ask(lambda reply: reply)

    async def last(inbox: Inbox[Any]) -> None:
        async for message in inbox:
            if message == "be slow":
                await trio.sleep(1)

    first: Child[Any] = Child("asking", asking, shutdown=math.inf)
    path = "asking"
    if nested:
        first, path = Child("s", Supervisor(first)), "s/asking"
    async with open_system(
        first,
        Child("fragile", obey),
        Child("last", last, shutdown=math.inf),
        strategy="one_for_all",
    ) as system:
        await system["last"].tell("be slow")
        await system[path].tell("ask")
        await wait_all_tasks_blocked()
        await system["fragile"].tell("crash")
        await trio.sleep(1.5)

        assert all(info.state is State.RUNNING for _, info in system.tree().walk())
        assert system[path].statistics().handled == 0


async def test_slow_ticks_do_not_keep_messages_from_an_actor(autojump_clock: MockClock) -> None:
    handled = []

    async def ticking(inbox: Inbox[Any]) -> None:
        inbox.ctx.send_every(1, "tick")
        async for message in inbox:
            await trio.sleep(3)
            handled.append(message)

    async with open_system(Child("a", ticking, shutdown=100), grace=100) as system:
        await trio.sleep(1.5)
        for number in range(5):
            await system["a"].tell(number)
        await trio.sleep(15)
        assert [message for message in handled if message != "tick"] == [0, 1]
        closes_at = trio.current_time()

    assert [message for message in handled if message != "tick"] == [0, 1, 2, 3, 4]
    # What was begun, and no more than one tick beside the messages that were left.
    assert trio.current_time() - closes_at <= 3 + 3 + 3 * 3


async def test_single_tick_that_is_due_during_a_stop_still_comes(
    autojump_clock: MockClock,
) -> None:
    seen = []

    async def busy(inbox: Inbox[Any]) -> None:
        inbox.ctx.send_after(1.5, "late")
        inbox.ctx.send_after(100, "too late")
        async for message in inbox:
            seen.append(message)
            await trio.sleep(1)

    async with open_system(Child("busy", busy)) as system:
        for number in range(3):
            await system["busy"].tell(number)

    assert seen == [0, 1, "late", 2]
    assert trio.current_time() == 4


async def test_reports_are_for_the_life_that_asked_for_them(autojump_clock: MockClock) -> None:
    seen = []

    async def busy(inbox: Inbox[Any]) -> None:
        if inbox.ctx.incarnation == 1:
            inbox.ctx.monitor(inbox.ctx.system["mortal"])
            inbox.ctx.send_after(1, "late")
            await trio.sleep(2)
            raise ValueError("with two reports unread")
        async for message in inbox:
            seen.append(message)

    async with open_system(
        Child("mortal", obey, restart="temporary"), Child("busy", busy)
    ) as system:
        system["mortal"].stop()
        await trio.sleep(3)
        await system["busy"].tell("hello")
        await trio.sleep(1)

    assert seen == ["hello"]


async def test_backoff_counts_the_life_and_not_the_wait_for_its_supervisor(
    autojump_clock: MockClock,
) -> None:
    delays = []

    class SlowToStart(Actor[Any]):
        async def on_start(self) -> None:
            if self.ctx.incarnation > 1:
                await trio.sleep(10)

        async def receive(self, message: Any) -> None:
            raise ValueError(message)

    def note(notice: Notice) -> None:
        if isinstance(notice, RestartPlanned) and notice.actors == ("fragile",):
            delays.append(notice.delay)

    backoff = Backoff(base=1, factor=2, reset_after=5)
    async with open_system(
        Child("slow", SlowToStart), Child("fragile", obey, backoff=backoff)
    ) as system:
        system.subscribe(note)
        await system["fragile"].tell("crash")
        await trio.sleep(2)
        await system["slow"].tell("crash")
        await trio.sleep(1)
        await system["fragile"].tell("crash")
        await trio.sleep(30)

    assert delays == [1, 2]


@pytest.mark.parametrize("policy", ["drop_old", "drop_new", conflate(id)], ids=str)
async def test_listener_may_feed_an_actor_whose_mailbox_is_full(
    policy: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    others: list[Notice] = []

    async with open_system(Child("sink", never_read, policy=policy, capacity=2)) as system:
        sink = system["sink"]
        system.subscribe(sink.tell_nowait)
        system.subscribe(others.append)
        for number in range(5):
            sink.tell_nowait(number)

        assert sink.statistics().depth == 2
        # Whatever had to go went once, and everybody but the cause has heard of it.
        dead = [notice for notice in others if isinstance(notice, DeadLetter)]
        assert len(dead) == sink.statistics().dropped
        assert len(dead) == sum(system.statistics().dead_letters.values())
        assert "listener_failed" not in [record.message for record in caplog.records]


async def test_listener_may_stop_an_actor_whose_letters_are_dead(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_system() as system:
        backoff = Backoff(base=10)
        ref = await system.spawn(obey, restart="permanent", backoff=backoff)

        def stop(notice: Notice) -> None:
            if isinstance(notice, DeadLetter):
                ref.stop("nobody reads it")

        for message in ("crash", "queued", "queued"):
            ref.tell_nowait(message)
        await trio.sleep(1)
        system.subscribe(stop)
        ref.stop("first")

        assert await ref.wait_stopped() == Shutdown("first")
        assert system.statistics().dead_letters == {"crashed": 1, "stopped": 2}
        assert "listener_failed" not in [record.message for record in caplog.records]


async def test_supervisor_that_gives_up_says_how_the_last_life_ended() -> None:
    async def returns(inbox: Inbox[Any]) -> None:
        pass

    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_system(Child("brief", returns), max_restarts=1):
            await trio.sleep_forever()

    # There is no cause to read: nothing crashed.
    assert caught.value.__cause__ is None
    assert caught.value.why == "it returned"
    assert str(caught.value).endswith(
        "more than 1 restarts within 5 s, at last because it returned"
    )
