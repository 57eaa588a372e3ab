"""How one actor starts, stops, is killed, crashes and lives again."""

from __future__ import annotations

import contextvars
import functools
import logging
from typing import Any

import pytest
import trio
import trio.testing

from actorflow.actors import (
    Actor,
    ActorContext,
    ActorEnded,
    Backoff,
    Child,
    Crashed,
    DeadReason,
    Down,
    Inbox,
    Killed,
    Normal,
    Notice,
    Reason,
    Shutdown,
    State,
    Supervisor,
    open_actor,
    open_system,
)
from actorflow.errors import (
    ActorCrashedError,
    ActorStoppedError,
    InvalidArgumentError,
    RestartBudgetExceededError,
    StartFailedError,
)

Clock = trio.testing.MockClock


class Recorder(Actor[Any]):
    """Writes down what happens to it; obeys a few words."""

    log: list[object]

    def __init__(self, log: list[object]) -> None:
        self.log = log

    async def on_start(self) -> None:
        self.log.append(f"start {self.ctx.incarnation}")

    async def receive(self, message: Any) -> None:
        self.log.append(message)
        if message == "crash":
            raise ValueError("broken")
        if message == "sleep":
            await trio.sleep(1)
        if message == "forever":
            await trio.sleep_forever()

    async def on_stop(self, reason: Reason) -> None:
        self.log.append(reason if not isinstance(reason, Crashed) else repr(reason.error))


def recorder(log: list[object]) -> functools.partial[Recorder]:
    return functools.partial(Recorder, log)


async def test_orderly_stop_finishes_drains_and_cleans_up(autojump_clock: Clock) -> None:
    log: list[object] = []

    async with open_actor(recorder(log)) as ref:
        for message in ("sleep", "a", "b"):
            ref.tell_nowait(message)
        await trio.sleep(0.5)
        ref.stop("enough")
        with pytest.raises(ActorStoppedError, match="it is stopping: enough"):
            await ref.tell("c")
        reason = await ref.wait_stopped()

    assert log == ["start 1", "sleep", "a", "b", Shutdown("enough")]
    assert reason == Shutdown("enough")


async def test_stop_without_drain_makes_dead_letters_of_the_queue(autojump_clock: Clock) -> None:
    log: list[object] = []

    async with open_system(Child("a", recorder(log), drain=False)) as system:
        ref = system["a"]
        for message in ("sleep", "a", "b"):
            ref.tell_nowait(message)
        await trio.sleep(0.5)
        ref.stop("enough")
        await ref.wait_stopped()

        assert system.statistics().dead_letters == {DeadReason.STOPPED: 2}
    assert log == ["start 1", "sleep", Shutdown("enough")]


async def test_stop_that_takes_too_long_becomes_a_kill(autojump_clock: Clock) -> None:
    log: list[object] = []

    async with open_actor(recorder(log), shutdown=2) as ref:
        ref.tell_nowait("forever")
        await trio.sleep(1)
        start = trio.current_time()
        ref.stop()
        ref.stop()
        reason = await ref.wait_stopped()

    assert trio.current_time() == start + 2
    assert reason == Killed("it did not stop within 2 s")
    assert log[-1] == reason


async def test_shutdown_of_zero_kills_at_once(autojump_clock: Clock) -> None:
    async with open_actor(recorder([]), shutdown=0) as ref:
        ref.tell_nowait("forever")
        await trio.sleep(1)
        ref.stop("now")

        assert await ref.wait_stopped() == Killed("now")


async def test_on_stop_may_await_within_the_shutdown_time(autojump_clock: Clock) -> None:
    log: list[object] = []

    class Slow(Recorder):
        async def on_stop(self, reason: Reason) -> None:
            await trio.sleep(1)
            self.log.append("flushed")

    async with open_actor(functools.partial(Slow, log)):
        pass

    assert log == ["start 1", "flushed"]


async def test_on_stop_after_a_kill_cannot_await() -> None:
    log: list[object] = []

    class Slow(Recorder):
        async def on_stop(self, reason: Reason) -> None:
            self.log.append("sync cleanup")
            await trio.lowlevel.checkpoint()
            self.log.append("never")

    async with open_actor(functools.partial(Slow, log), restart="temporary") as ref:
        await trio.testing.wait_all_tasks_blocked()
        ref.kill()

        assert await ref.wait_stopped() == Killed("killed by request")
    assert log == ["start 1", "sync cleanup"]


async def test_on_stop_does_not_run_when_on_start_failed() -> None:
    log: list[object] = []

    class Broken(Recorder):
        async def on_start(self) -> None:
            raise ValueError

    with pytest.raises(StartFailedError):
        async with open_actor(functools.partial(Broken, log)):
            raise AssertionError

    assert log == []


async def test_failing_cleanup_of_an_orderly_stop_is_a_crash() -> None:
    class Broken(Recorder):
        async def on_stop(self, reason: Reason) -> None:
            raise ValueError("in cleanup")

    async with open_system(Child("a", functools.partial(Broken, []))) as system:
        system["a"].stop()
        reason = await system["a"].wait_stopped()

    assert isinstance(reason, Crashed)
    assert str(reason) == "it crashed: ValueError('in cleanup')"


async def test_failing_cleanup_does_not_take_the_place_of_a_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Recorder):
        async def on_stop(self, reason: Reason) -> None:
            raise KeyError("in cleanup")

    async with open_system() as system:
        ref = await system.spawn(functools.partial(Broken, []))
        await ref.tell("crash")
        reason = await ref.wait_stopped()

    assert isinstance(reason, Crashed)
    assert isinstance(reason.error, ValueError)
    assert [record.message for record in caplog.records] == [
        "actor_cleanup_failed: Broken-1",
        "actor_crashed: Broken-1",
    ]


async def test_crash_is_a_new_life_with_the_same_ref_and_queue() -> None:
    log: list[object] = []

    async with open_actor(recorder(log)) as ref:
        for message in ("a", "crash", "b"):
            ref.tell_nowait(message)
        await trio.testing.wait_all_tasks_blocked()

        assert ref.statistics().restarts == 1
    assert log[:6] == ["start 1", "a", "crash", "ValueError('broken')", "start 2", "b"]


async def test_message_in_hand_at_a_crash_is_not_repeated() -> None:
    log: list[object] = []

    async with open_system(Child("a", recorder(log))) as system:
        await system["a"].tell("crash")
        await trio.testing.wait_all_tasks_blocked()

        assert system.statistics().dead_letters == {DeadReason.CRASHED: 1}
    assert log.count("crash") == 1


async def test_blocked_senders_wait_through_a_restart(autojump_clock: Clock) -> None:
    log: list[object] = []
    backoff = Backoff(base=3)

    async with open_actor(recorder(log), capacity=1, backoff=backoff) as ref:
        ref.tell_nowait("crash")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await ref.tell("a")
        await ref.tell("b")

        assert trio.current_time() == start + 3
    assert [entry for entry in log if entry in ("a", "b")] == ["a", "b"]


async def test_crash_beside_a_cancel_is_a_crash_and_the_cancel_goes_on() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    async with open_system() as system:
        ref = await system.spawn(behave)
        await trio.testing.wait_all_tasks_blocked()
        ref.kill()
        reason = await ref.wait_stopped()

    assert isinstance(reason, Crashed)
    assert isinstance(reason.error, ExceptionGroup)


async def test_returning_is_a_normal_end() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        await trio.lowlevel.checkpoint()

    async with open_actor(behave) as ref:
        assert await ref.wait_stopped() == Normal()
        assert await ref.wait_stopped() == Normal()


@pytest.mark.parametrize(
    ("restart", "deed", "lives"),
    [
        ("permanent", "return", 2),
        ("permanent", "crash", 2),
        ("permanent", "kill", 2),
        ("permanent", "stop", 1),
        ("transient", "return", 1),
        ("transient", "crash", 2),
        ("transient", "kill", 2),
        ("transient", "stop", 1),
        ("temporary", "return", 1),
        ("temporary", "crash", 1),
        ("temporary", "kill", 1),
        ("temporary", "stop", 1),
    ],
)
async def test_restart_type_decides_about_the_next_life(
    restart: str, deed: str, lives: int
) -> None:
    born: list[int] = []

    async def behave(inbox: Inbox[str]) -> None:
        born.append(inbox.ctx.incarnation)
        async for message in inbox:
            if message == "return":
                return
            raise ValueError

    async with open_system(Child("a", behave, restart=restart)) as system:
        ref = system["a"]
        await trio.testing.wait_all_tasks_blocked()
        match deed:
            case "kill":
                ref.kill()
            case "stop":
                ref.stop()
            case _:
                await ref.tell(deed)
        await trio.testing.wait_all_tasks_blocked()

        assert system.tree().children[0].state is (State.RUNNING if lives == 2 else State.ENDED)
    assert born == [1, 2][:lives]


async def test_endless_loop_over_receive_stops_in_order() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        while True:
            await inbox.receive()

    class Loop(Actor[Any]):
        async def run(self, inbox: Inbox[Any]) -> None:
            while True:
                await inbox.receive()

    for behaviour in (behave, Loop):
        async with open_system(Child("a", behaviour)) as system:
            system["a"].stop("enough")
            assert await system["a"].wait_stopped() == Shutdown("enough")


@pytest.mark.parametrize("as_class", [False, True])
async def test_end_of_another_channel_is_a_crash(as_class: bool) -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        raise trio.EndOfChannel

    class Loop(Actor[Any]):
        async def run(self, inbox: Inbox[Any]) -> None:
            raise trio.EndOfChannel

    async with open_system() as system:
        ref = await system.spawn(Loop if as_class else behave)
        assert isinstance(await ref.wait_stopped(), Crashed)


async def test_until_stop_abandons_a_wait_at_an_orderly_stop(autojump_clock: Clock) -> None:
    log: list[object] = []

    async def behave(inbox: Inbox[Any]) -> None:
        with inbox.ctx.until_stop() as scope:
            await trio.sleep_forever()
        log.append(scope.cancelled_caught)
        with inbox.ctx.until_stop():
            await trio.sleep_forever()
        log.append(inbox.ctx.is_stopping)

    async with open_actor(behave) as ref:
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()

    assert log == [True, True]
    assert trio.current_time() == start
    assert ref.path == "behave"


async def test_stop_during_the_start_kills_the_half_started() -> None:
    class Stuck(Recorder):
        async def on_start(self) -> None:
            await trio.sleep_forever()

    async with open_system() as system, trio.open_nursery() as nursery:
        with pytest.raises(StartFailedError, match="no more"):
            nursery.start_soon(_stop_when_there, system, "stuck")
            await system.spawn(functools.partial(Stuck, []), name="stuck")


async def _stop_when_there(system: Any, path: str) -> None:
    await trio.testing.wait_all_tasks_blocked()
    system[path].stop("no more")


async def test_stop_between_two_lives_ends_for_good(autojump_clock: Clock) -> None:
    log: list[object] = []

    async with open_system(Child("a", recorder(log), backoff=Backoff(base=10))) as system:
        ref = system["a"]
        ref.tell_nowait("crash")
        ref.tell_nowait("a")
        await trio.sleep(1)
        state = system.tree().children[0].state
        ref.kill()
        ref.stop("enough")
        ref.stop("twice")
        reason = await ref.wait_stopped()
        await trio.sleep(20)

        assert state is State.DOWN
        assert reason == Shutdown("enough")
        assert system.statistics().dead_letters == {"crashed": 1, "stopped": 1}
    assert log.count("start 2") == 0


async def test_start_timeout_counts_as_a_failed_start(autojump_clock: Clock) -> None:
    class Stuck(Recorder):
        async def on_start(self) -> None:
            await trio.sleep_forever()

    start = trio.current_time()
    with pytest.raises(StartFailedError, match="it was not ready after 2 s"):
        async with open_actor(functools.partial(Stuck, []), start_timeout=2):
            raise AssertionError

    assert trio.current_time() == start + 2


async def test_start_in_time_lifts_the_limit(autojump_clock: Clock) -> None:
    async with open_actor(recorder([]), start_timeout=2) as ref:
        await trio.sleep(10)

        assert ref.statistics().restarts == 0


async def test_task_that_ignores_a_kill_is_reported_again_and_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(inbox: Inbox[Any]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(12)

    async with open_system() as system:
        ref = await system.spawn(stubborn)
        await trio.testing.wait_all_tasks_blocked()
        ref.kill()
        ref.kill()
        await ref.wait_stopped()

    messages = [record.message for record in caplog.records]
    assert messages == ["actor_ignores_kill: stubborn-1"] * 2
    assert any("stubborn" in frame for frame in vars(caplog.records[0])["stack"])


async def test_crashes_are_logged_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with open_actor(recorder([])) as ref:
        await ref.tell("crash")
        await trio.testing.wait_all_tasks_blocked()

    record = caplog.records[0]
    assert (record.name, record.levelno, record.message) == (
        "actorflow.actors",
        logging.WARNING,
        "actor_crashed: Recorder",
    )
    assert (record.__dict__["actor"], record.__dict__["incarnation"]) == ("Recorder", 1)
    assert record.exc_info is not None


async def test_every_life_has_the_context_of_whoever_asked_for_the_first() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="-")
    seen: list[str] = []

    async def behave(inbox: Inbox[Any]) -> None:
        seen.append(variable.get())
        variable.set("changed by a life")
        async for _ in inbox:
            raise ValueError

    async with open_system() as system:
        variable.set("mine")
        ref = await system.spawn(behave, restart="permanent")
        variable.set("later")
        await ref.tell(0)
        await trio.testing.wait_all_tasks_blocked()

    assert seen == ["mine", "mine"]


async def test_tick_comes_once_and_is_tied_to_the_life(autojump_clock: Clock) -> None:
    seen: list[tuple[float, object]] = []

    class Timed(Actor[Any]):
        async def on_start(self) -> None:
            if self.ctx.incarnation == 1:
                self.ctx.send_after(1, "one")
                self.ctx.send_after(3, "of a life that is over")
                self.ctx.send_after(2, "cancelled").cancel()

        async def receive(self, message: Any) -> None:
            seen.append((trio.current_time(), message))
            if message == "crash":
                raise ValueError

    async with open_actor(Timed) as ref:
        start = trio.current_time()
        await trio.sleep(2.5)
        await ref.tell("crash")
        await trio.sleep(10)

    assert seen == [(start + 1, "one"), (start + 2.5, "crash")]


async def test_repeated_tick_keeps_its_pace_and_does_not_pile_up(autojump_clock: Clock) -> None:
    seen: list[float] = []

    async def behave(inbox: Inbox[str]) -> None:
        tick = inbox.ctx.send_every(1, "tick")
        async for _ in inbox:
            seen.append(trio.current_time() - start)
            if len(seen) == 2:
                await trio.sleep(2.5)
            if len(seen) == 5:
                tick.cancel()
                tick.cancel()

    start = trio.current_time()
    async with open_actor(behave):
        await trio.sleep(20)

    assert seen == [1, 2, 4.5, 5, 6]


async def test_repeated_tick_steps_over_what_was_missed(mock_clock: Clock) -> None:
    beats: list[float] = []

    async def behave(inbox: Inbox[Any]) -> None:
        start = trio.current_time()
        inbox.ctx.send_every(0.25, "beat")
        async for _ in inbox:
            beats.append(trio.current_time() - start)

    async with open_actor(behave):
        # Four billion calls, one by one, would take an hour.
        for leap in (1e9 + 0.125, 0.125, 0.125):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(leap)
        await trio.testing.wait_all_tasks_blocked()

    assert beats == [1e9 + 0.125, 1e9 + 0.25]


async def test_tick_comes_before_what_is_queued(autojump_clock: Clock) -> None:
    seen: list[str] = []

    async def behave(inbox: Inbox[str]) -> None:
        inbox.ctx.send_after(1, "tick")
        async for message in inbox:
            seen.append(message)
            await trio.sleep(2)

    async with open_actor(behave) as ref:
        ref.tell_nowait("a")
        ref.tell_nowait("b")

        await trio.sleep(10)
    assert seen == ["a", "tick", "b"]


@pytest.mark.parametrize("delay", [-1, float("nan")])
async def test_impossible_delays_are_refused(delay: float) -> None:
    refused: list[str] = []

    async def behave(inbox: Inbox[str]) -> None:
        for send in (inbox.ctx.send_after, inbox.ctx.send_every):
            try:
                send(delay, "")
            except InvalidArgumentError as error:
                refused.append(str(error))

    async with open_actor(behave) as ref:
        await ref.wait_stopped()

    assert len(refused) == 2


async def test_context_of_a_life_that_is_over_sends_nothing() -> None:
    kept: list[ActorContext] = []

    async def behave(inbox: Inbox[str]) -> None:
        kept.append(inbox.ctx)
        async for _ in inbox:
            raise ValueError

    async with open_actor(behave) as ref:
        await ref.tell("crash")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorStoppedError):
            kept[0].send_after(1, "")
        ref.stop()
        await ref.wait_stopped()
        with pytest.raises(ActorStoppedError):
            kept[1].send_after(1, "")


async def test_monitor_reports_the_end_for_good(autojump_clock: Clock) -> None:
    seen: list[object] = []

    async def watch(inbox: Inbox[Down]) -> None:
        for name in ("early", "late", "late"):
            inbox.ctx.monitor(inbox.ctx.system[name])
        async for message in inbox:
            seen.append((message.ref.path, message.reason))

    async def quick(inbox: Inbox[Any]) -> None:
        await trio.lowlevel.checkpoint()

    async def crashing(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise ValueError

    async with open_system(
        Child("early", quick, restart="temporary"),
        Child("late", crashing),
    ) as system:
        await system["early"].wait_stopped()
        await system.spawn(watch)
        await trio.testing.wait_all_tasks_blocked()
        await system["late"].tell("crash")
        await trio.testing.wait_all_tasks_blocked()
        before = list(seen)
        system["late"].stop("enough")
        await trio.testing.wait_all_tasks_blocked()

    assert before == [("early", Normal())]
    assert seen[1:] == [("late", Shutdown("enough"))]


async def test_monitors_end_with_the_life_that_asked() -> None:
    seen: list[object] = []

    async def watch(inbox: Inbox[Any]) -> None:
        if inbox.ctx.incarnation == 1:
            inbox.ctx.monitor(inbox.ctx.system["watched"])
        async for message in inbox:
            seen.append(message)
            raise ValueError

    async def idle(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            pass

    async with open_system(Child("watched", idle), Child("watch", watch)) as system:
        await trio.testing.wait_all_tasks_blocked()
        await system["watch"].tell("crash")
        await trio.testing.wait_all_tasks_blocked()
        system["watched"].stop()
        await system["watched"].wait_stopped()
        await trio.testing.wait_all_tasks_blocked()

    assert seen == ["crash"]


async def test_factory_that_makes_no_actor_fails_the_start() -> None:
    def factory() -> Any:
        return "no actor"

    with pytest.raises(StartFailedError) as caught:
        async with open_actor(factory):
            raise AssertionError

    assert isinstance(caught.value.__cause__, TypeError)
    assert "a function that makes an Actor, found str" in str(caught.value.__cause__)


async def test_actor_object_has_one_life() -> None:
    log: list[object] = []

    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_actor(Recorder(log)) as ref:
            await ref.tell("crash")
            await trio.sleep_forever()

    assert isinstance(caught.value.__cause__, ValueError)
    assert log == ["start 1", "crash", "ValueError('broken')"]


async def test_callable_object_with_async_call_is_a_behaviour() -> None:
    class Behave:
        async def __call__(self, inbox: Inbox[Any]) -> None:
            self.seen = await inbox.receive()

    behave = Behave()
    async with open_actor(behave) as ref:
        await ref.tell("hello")
        await ref.wait_stopped()

    assert behave.seen == "hello"
    assert ref.path == "Behave"


async def test_base_actor_refuses_messages() -> None:
    class Forgetful(Actor[Any]):
        async def run(self, inbox: Inbox[Any]) -> None:
            async for message in inbox:
                await self.receive(message)

    async with open_system() as system:
        ref = await system.spawn(Forgetful)
        with pytest.raises(ActorCrashedError):
            await ref.ask(lambda reply: reply)


async def test_listener_hears_of_every_end() -> None:
    heard: list[Notice] = []

    async with open_system(Child("a", recorder([]))) as system:
        unsubscribe = system.subscribe(heard.append)
        await system["a"].tell("crash")
        await trio.testing.wait_all_tasks_blocked()
        unsubscribe()
        unsubscribe()

    ends = [notice for notice in heard if isinstance(notice, ActorEnded)]
    assert [(end.actor, end.incarnation) for end in ends] == [("a", 1)]


async def test_failing_listener_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(notice: Notice) -> None:
        raise ValueError

    heard: list[Notice] = []
    async with open_system() as system:
        system.subscribe(broken)
        system.subscribe(heard.append)
        await system.spawn(recorder([]))

    assert "listener_failed" in [record.message for record in caplog.records]
    assert heard


async def test_supervisor_takes_no_messages() -> None:
    async with open_system(Child("sup", Supervisor())) as system:
        with pytest.raises(ActorStoppedError, match="it is a supervisor"):
            await system["sup"].tell(1)
        with pytest.raises(ActorStoppedError, match="it is a supervisor"):
            await system["sup"].ask(lambda reply: reply)
        assert system["sup"].statistics().handled == 0


async def test_behaviour_that_reads_after_the_end_is_told() -> None:
    seen: list[str] = []
    stopping = trio.Event()

    async def behave(inbox: Inbox[Any]) -> None:
        await stopping.wait()
        for receive in (inbox.receive_nowait, inbox.receive):
            try:
                result = receive()
                if result is not None:
                    await result
            except trio.EndOfChannel:
                seen.append("end")

    async with open_actor(behave) as ref:
        await trio.testing.wait_all_tasks_blocked()
        ref.stop()
        stopping.set()
        await ref.wait_stopped()

    assert seen == ["end", "end"]


async def test_cancelled_tick_does_not_come_even_if_it_was_due(autojump_clock: Clock) -> None:
    seen: list[str] = []

    async def behave(inbox: Inbox[str]) -> None:
        tick = inbox.ctx.send_after(1, "tick")
        async for message in inbox:
            seen.append(message)
            if message == "work":
                await trio.sleep(2)
                tick.cancel()

    async with open_actor(behave) as ref:
        ref.tell_nowait("work")
        ref.tell_nowait("more")
        await trio.sleep(5)

    assert seen == ["work", "more"]


async def test_ref_shows_its_path_and_state() -> None:
    async with open_actor(recorder([]), name="a") as ref:
        assert repr(ref) == "<ActorRef a running>"
    assert repr(ref) == "<ActorRef a ended>"
