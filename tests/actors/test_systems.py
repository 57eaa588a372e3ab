"""How a system opens, closes, fails, and shows itself."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import trio
import trio.testing

from actorflow.actors import (
    Actor,
    ActorInfo,
    ActorStatistics,
    Child,
    Inbox,
    Killed,
    Reason,
    State,
    Supervisor,
    System,
    current_system,
    open_actor,
    open_system,
)
from actorflow.errors import (
    InvalidArgumentError,
    RestartBudgetExceededError,
    StartFailedError,
    UnknownActorError,
)

Clock = trio.testing.MockClock


async def idle(inbox: Inbox[Any]) -> None:
    async for _ in inbox:
        pass


async def crashing(inbox: Inbox[Any]) -> None:
    async for _ in inbox:
        raise ValueError("broken")


class Farewell(Actor[Any]):
    """Takes its time to say goodbye."""

    def __init__(self, log: list[object], seconds: float) -> None:
        self.log = log
        self.seconds = seconds

    async def receive(self, message: Any) -> None:
        raise AssertionError

    async def on_stop(self, reason: Reason) -> None:
        await trio.sleep(self.seconds)
        self.log.append(reason)


def farewell(log: list[object], seconds: float, **options: Any) -> Child[Any]:
    return Child("farewell", functools.partial(Farewell, log, seconds), **options)


async def test_nothing_is_left_when_the_block_is_over() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_system(Child("a", idle), Child("s", Supervisor(Child("b", idle)))) as system:
        await system.spawn(idle)
        assert trio.lowlevel.current_statistics().tasks_living > before

    assert trio.lowlevel.current_statistics().tasks_living == before
    assert all(info.state is State.ENDED for _, info in system.tree().walk())


async def test_exception_of_the_block_leaves_as_it_is_after_an_orderly_stop(
    autojump_clock: Clock,
) -> None:
    log: list[object] = []
    error = LookupError("in the block")

    with pytest.raises(LookupError) as caught:
        async with open_system(farewell(log, 1)):
            raise error

    assert caught.value is error
    assert error.__context__ is None
    assert len(log) == 1


async def test_group_of_the_block_leaves_as_it_is() -> None:
    group = ExceptionGroup("of the block", [ValueError()])

    with pytest.raises(ExceptionGroup) as caught:
        async with open_system(Child("a", idle)):
            raise group

    assert caught.value.message == group.message
    assert caught.value.exceptions == group.exceptions


async def test_outside_cancel_is_an_orderly_stop_within_grace(autojump_clock: Clock) -> None:
    log: list[object] = []
    start = trio.current_time()

    with trio.move_on_after(2) as scope:
        async with open_system(farewell(log, 3), grace=5):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert trio.current_time() == start + 2 + 3
    assert len(log) == 1


async def test_grace_ends_what_does_not_stop(autojump_clock: Clock) -> None:
    log: list[object] = []
    start = trio.current_time()

    async with open_system(farewell(log, 100, shutdown=math.inf), grace=2) as system:
        ref = system["farewell"]

    assert trio.current_time() == start + 2
    assert log == []
    assert isinstance(await ref.wait_stopped(), Killed)


async def test_grace_of_zero_is_plain_trio(autojump_clock: Clock) -> None:
    log: list[object] = []
    start = trio.current_time()

    with trio.move_on_after(2) as scope:
        async with open_system(farewell(log, 1), grace=0):
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    assert scope.cancelled_caught
    assert trio.current_time() == start + 5
    assert log == []


async def test_end_without_grace_is_not_told_as_one_that_took_too_long() -> None:
    async with open_system(Child("a", idle), grace=0) as system:
        ref = system["a"]

    assert await ref.wait_stopped() == Killed("the system is closing")


async def test_endless_grace_waits(autojump_clock: Clock) -> None:
    log: list[object] = []
    start = trio.current_time()

    async with open_system(farewell(log, 100, shutdown=math.inf), grace=math.inf):
        pass

    assert trio.current_time() == start + 100


@pytest.mark.parametrize("grace", [-1, math.nan])
async def test_impossible_grace_is_refused(grace: float) -> None:
    with pytest.raises(InvalidArgumentError):
        async with open_system(grace=grace):
            raise AssertionError


@pytest.mark.parametrize("time_slice", [-1, math.nan])
async def test_impossible_time_slice_is_refused(time_slice: float) -> None:
    with pytest.raises(InvalidArgumentError):
        async with open_system(time_slice=time_slice):
            raise AssertionError


async def test_cancel_while_opening_stops_what_has_started(autojump_clock: Clock) -> None:
    log: list[object] = []

    class Stuck(Actor[Any]):
        async def on_start(self) -> None:
            await trio.sleep_forever()

        async def receive(self, message: Any) -> None:
            raise AssertionError

    with trio.move_on_after(1) as scope:
        async with open_system(farewell(log, 1), Child("stuck", Stuck)):
            raise AssertionError

    assert scope.cancelled_caught
    assert len(log) == 1


async def test_failure_at_the_top_cancels_the_block_and_comes_out_of_it() -> None:
    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_system(Child("a", crashing), max_restarts=0) as system:
            await system["a"].tell("crash")
            await trio.sleep_forever()

    assert isinstance(caught.value.__cause__, ValueError)


async def test_failures_of_block_and_actors_come_out_together() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_system(Child("a", crashing), max_restarts=0) as system:
            await system["a"].tell("crash")
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("in the block")

    assert [type(error) for error in caught.value.exceptions] == [
        LookupError,
        RestartBudgetExceededError,
    ]


async def test_failure_of_the_block_itself_is_not_doubled() -> None:
    with pytest.raises(StartFailedError):
        async with open_system(Child("a", Supervisor(Child("b", _BrokenStart)))):
            raise AssertionError


class _BrokenStart(Actor[Any]):
    async def on_start(self) -> None:
        raise ValueError

    async def receive(self, message: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_crash_leaves_the_system(error: type[BaseException]) -> None:
    log: list[object] = []

    async def behave(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise error

    with pytest.raises(error):
        async with open_system(Child("a", behave), Child("s", Supervisor(farewell(log, 1)))) as s:
            await s["a"].tell("now")
            await trio.sleep_forever()


async def test_interrupt_beside_a_crash_leaves_the_system() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        raise BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_system() as system:
            await system.spawn(behave)
            await trio.sleep_forever()

    assert caught.group_contains(KeyboardInterrupt)
    assert not caught.group_contains(ValueError)


async def test_interrupts_of_two_actors_leave_together() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_system(Child("a", behave), Child("b", behave)) as system:
            system["a"].tell_nowait(1)
            system["b"].tell_nowait(1)
            await trio.sleep_forever()

    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt] * 2


async def test_block_and_interrupt_together_are_a_group() -> None:
    async def behave(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_system(Child("a", behave)) as system:
            system["a"].tell_nowait(1)
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError

    assert caught.group_contains(KeyboardInterrupt)
    assert caught.group_contains(LookupError)


async def test_system_that_cannot_close_says_so(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(inbox: Inbox[Any]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(13)

    async with open_system(Child("stubborn", stubborn), grace=1):
        await trio.testing.wait_all_tasks_blocked()

    reports = [r for r in caplog.records if r.message == "system_does_not_close"]
    assert len(reports) == 2
    assert "stubborn" in reports[0].__dict__["tree"]


async def test_system_can_be_stopped_from_within() -> None:
    async def stop(inbox: Inbox[Any]) -> None:
        inbox.ctx.system.stop("done")

    async with open_system() as system:
        await system.spawn(stop)
        await trio.sleep_forever()

    assert system.tree().state is State.ENDED


async def test_actors_are_found_by_path() -> None:
    inner = Supervisor(Child("b", idle))
    async with open_system(Child("a", idle), Child("sup", inner)) as system:
        assert system["sup/b"].path == "sup/b"
        assert system["sup/b"] is system["sup/b"]
        assert "sup/b" in system
        assert "sup/x" not in system


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("supp", "Did you mean 'sup'?"),
        ("sup/speker", "Did you mean 'sup/speaker'?"),
        ("sup/x", "Known here: sup/speaker."),
        ("a/b", "Known here: none."),
    ],
)
async def test_unknown_path_names_what_is_known(path: str, hint: str) -> None:
    inner = Supervisor(Child("speaker", idle))
    async with open_system(Child("a", idle), Child("sup", inner)) as system:
        with pytest.raises(UnknownActorError) as caught:
            system[path]

    assert caught.value.actor == path
    assert caught.value.fix_hint == hint
    assert isinstance(caught.value, KeyError)


async def test_spawned_actors_get_names_of_their_behaviours() -> None:
    async with open_system() as system:
        refs = [
            await system.spawn(idle),
            await system.spawn(functools.partial(idle)),
            await system.spawn(_Idle),
            await system.spawn(lambda: _Idle()),  # noqa: PLW0108  (a lambda is the point)
            await system.spawn(Supervisor()),
            await system.spawn(idle, name="given"),
        ]

        assert [ref.path for ref in refs] == [
            "idle-1",
            "idle-2",
            "_Idle-3",
            "actor-4",
            "Supervisor-5",
            "given",
        ]


class _Idle(Actor[Any]):
    async def receive(self, message: Any) -> None:
        pass


async def test_spawn_under_an_actor_is_refused() -> None:
    async with open_system(Child("a", idle)) as system:
        with pytest.raises(InvalidArgumentError):
            await system.spawn(idle, under="a")


async def test_failed_spawn_says_why() -> None:
    async with open_system() as system:
        with pytest.raises(StartFailedError) as caught:
            await system.spawn(_BrokenStart, name="broken")

        assert isinstance(caught.value.__cause__, ValueError)
        assert "broken" not in system


async def test_open_actor_names_and_limits_its_actor() -> None:
    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_actor(crashing, name="a", max_restarts=1, window=3) as ref:
            ref.tell_nowait(1)
            ref.tell_nowait(2)
            await trio.sleep_forever()

    assert (caught.value.child, caught.value.max_restarts, caught.value.window) == ("a", 1, 3)


async def test_current_system_is_the_innermost_one() -> None:
    seen: list[System | None] = []

    async def look(inbox: Inbox[Any]) -> None:
        seen.append(current_system())

    assert current_system() is None
    async with open_system(Child("early", look, restart="temporary")) as outer:
        assert current_system() is outer
        async with open_system() as inner:
            assert current_system() is inner
            await outer.spawn(look)
            await inner.spawn(look)
        assert current_system() is outer
    assert current_system() is None

    assert seen == [outer, outer, inner]


async def test_tree_shows_everything_and_reads_well() -> None:
    release = trio.Event()

    async def busy(inbox: Inbox[Any]) -> None:
        async for _ in inbox:
            await release.wait()

    async def asking(inbox: Inbox[Any]) -> None:
        await inbox.ctx.system["sup/busy"].ask(lambda reply: reply)

    inner = Supervisor(Child("busy", busy, capacity=1))
    async with open_system(
        Child("sup", inner), Child("asking", asking, restart="temporary")
    ) as system:
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(system["sup/busy"].tell, number)
            await trio.testing.wait_all_tasks_blocked()
            tree = system.tree()
            release.set()

        assert str(tree) == (
            "system  running\n"
            "  sup  running\n"
            "    busy  running  queue 1/1 peak 1  blocked senders 1\n"
            "  asking  running  queue 0/64 peak 0  waiting on sup/busy"
        )
        assert tree.children[0].children[0].statistics.busy_since is not None
        assert tree.children[1].waiting_on == "sup/busy"
        await trio.testing.wait_all_tasks_blocked()
        assert system["sup/busy"].statistics().busy_since is None


async def test_tree_shows_restarts() -> None:
    async with open_system(Child("a", crashing)) as system:
        await system["a"].tell(1)
        await trio.testing.wait_all_tasks_blocked()

        assert str(system.tree()).endswith("a  running  queue 0/64 peak 1  restarts 1")
        assert system.statistics().restarts == 1
        assert system.statistics().actors == 1


async def test_tree_shows_guests_where_they_work() -> None:
    def info(name: str) -> ActorInfo:
        return ActorInfo(name, name, State.RUNNING, 1, ActorStatistics())

    async def host(inbox: Inbox[Any]) -> None:
        with inbox.ctx.system.showing(lambda: info("in an actor")):
            await trio.sleep_forever()

    async with open_system(Child("host", host, shutdown=0)) as system:
        await trio.testing.wait_all_tasks_blocked()
        with system.showing(lambda: info("in the block")):
            tree = system.tree()
        async with open_system() as other:
            with system.showing(lambda: info("elsewhere")):
                assert system.tree().children[-1].name == "elsewhere"
                assert other.tree().children == ()

        assert [child.name for child in tree.children] == ["host", "in the block"]
        assert [child.name for child in tree.children[0].children] == ["in an actor"]
        assert [child.name for child in system.tree().children] == ["host"]


async def test_time_slice_under_a_real_clock_is_a_millisecond() -> None:
    ticks = 0

    async def count() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async with open_system(Child("a", idle)) as system, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for number in range(64):
            system["a"].tell_nowait(number)
        while system["a"].statistics().handled < 64:
            await trio.lowlevel.checkpoint()
        taken = ticks
        nursery.cancel_scope.cancel()

    # With a turn for the others after each message it would be more than 60.
    assert taken < 20


async def test_open_system_in_a_thread_of_its_own() -> None:
    async def main() -> str:
        async with open_actor(idle) as ref:
            return ref.path

    assert await trio.to_thread.run_sync(trio.run, main) == "idle"
