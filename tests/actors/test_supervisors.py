"""How supervisors start, restart, give up and stop."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
import trio.testing

from actorflow.actors import (
    Actor,
    Backoff,
    Child,
    Crashed,
    Inbox,
    Killed,
    Notice,
    Reason,
    RestartPlanned,
    Shutdown,
    State,
    Supervisor,
    SupervisorGaveUp,
    System,
    open_system,
)
from actorflow.errors import (
    ActorStoppedError,
    InvalidArgumentError,
    NameTakenError,
    RestartBudgetExceededError,
    StartFailedError,
    TooManyChildrenError,
)

Clock = trio.testing.MockClock


class Member(Actor[str]):
    """Logs its starts and stops, fails on command."""

    def __init__(self, log: list[str], name: str, start: float = 0, stop: float = 0) -> None:
        self.log = log
        self.name = name
        self.start = start
        self.stop = stop

    async def on_start(self) -> None:
        await trio.sleep(self.start)
        self.log.append(f"+{self.name}")

    async def receive(self, message: str) -> None:
        raise ValueError(message)

    async def on_stop(self, reason: Reason) -> None:
        if isinstance(reason, Shutdown):
            await trio.sleep(self.stop)
        self.log.append(f"-{self.name}")


def member(log: list[str], name: str, **options: Any) -> Child[str]:
    times = {key: options.pop(key) for key in ("start", "stop") if key in options}
    return Child(name, functools.partial(Member, log, name, **times), **options)


async def crash(system: System, path: str) -> None:
    await system[path].tell("broken")
    await trio.testing.wait_all_tasks_blocked()


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a"),
        Child("sup", Supervisor(member(log, "b"), member(log, "c"))),
        member(log, "d"),
    ):
        assert log == ["+a", "+b", "+c", "+d"]

    assert log[4:] == ["-d", "-c", "-b", "-a"]


async def test_child_starts_when_the_one_before_is_ready(autojump_clock: Clock) -> None:
    log: list[str] = []
    start = trio.current_time()

    async with open_system(member(log, "a", start=2), member(log, "b", start=3)):
        assert log == ["+a", "+b"]
        assert trio.current_time() == start + 5


async def test_failed_first_start_stops_the_started_in_reverse() -> None:
    log: list[str] = []

    class Broken(Member):
        async def on_start(self) -> None:
            raise ValueError("broken")

    with pytest.raises(StartFailedError, match="c did not start") as caught:
        async with open_system(
            member(log, "a"),
            member(log, "b"),
            Child("c", functools.partial(Broken, log, "c")),
            member(log, "d"),
        ):
            raise AssertionError

    assert isinstance(caught.value.__cause__, ValueError)
    assert log == ["+a", "+b", "-b", "-a"]


async def test_failed_start_of_a_child_supervisor_is_a_failed_start() -> None:
    log: list[str] = []

    async def factory_that_fails(inbox: Inbox[Any]) -> None:
        raise AssertionError

    class Broken(Member):
        async def on_start(self) -> None:
            raise ValueError("broken")

    inner = Supervisor(member(log, "a"), Child("b", functools.partial(Broken, log, "b")))
    with pytest.raises(StartFailedError) as caught:
        async with open_system(Child("sup", inner)):
            raise AssertionError

    assert caught.value.actor == "sup"
    cause = caught.value.__cause__
    assert isinstance(cause, StartFailedError)
    assert cause.actor == "sup/b"
    assert log == ["+a", "-a"]


@pytest.mark.parametrize(
    ("strategy", "needs", "restarted"),
    [
        ("one_for_one", {}, ["-b", "+b"]),
        ("one_for_all", {}, ["-b", "-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
        ("rest_for_one", {}, ["-b", "-d", "-c", "+b", "+c", "+d"]),
        ("rest_for_one", {"d": "b"}, ["-b", "-d", "+b", "+d"]),
        ("rest_for_one", {"c": "b", "d": ("a", "c")}, ["-b", "-d", "-c", "+b", "+c", "+d"]),
        ("rest_for_one", {"d": "a"}, ["-b", "+b"]),
    ],
)
async def test_strategy_decides_who_is_restarted(
    strategy: str, needs: dict[str, Any], restarted: list[str]
) -> None:
    log: list[str] = []
    children = [member(log, name, needs=needs.get(name, ())) for name in "abcd"]

    async with open_system(*children, strategy=strategy) as system:
        log.clear()
        await crash(system, "b")

        assert log == restarted


async def test_queue_survives_a_group_restart() -> None:
    seen: list[str] = []
    gate = trio.Event()

    async def keep(inbox: Inbox[str]) -> None:
        async for message in inbox:
            seen.append(f"{inbox.ctx.incarnation}:{message}")
            await gate.wait()

    async with open_system(Child("keep", keep), member([], "b"), strategy="one_for_all") as system:
        for message in ("x", "y", "z"):
            await system["keep"].tell(message)
        await crash(system, "b")
        gate.set()
        await trio.testing.wait_all_tasks_blocked()

        assert seen == ["1:x", "2:y", "2:z"]
        assert system.statistics().dead_letters == {"crashed": 1}


async def test_waiting_actor_leaves_its_inbox_at_a_group_restart() -> None:
    lives: list[int] = []

    async def idle(inbox: Inbox[str]) -> None:
        lives.append(inbox.ctx.incarnation)
        async for _ in inbox:
            pass
        lives.append(-inbox.ctx.incarnation)

    async with open_system(Child("idle", idle), member([], "b"), strategy="one_for_all") as system:
        await trio.testing.wait_all_tasks_blocked()
        await crash(system, "b")

        assert lives == [1, -1, 2]


async def test_temporary_members_are_not_restarted_with_their_group() -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a", restart="temporary"), member(log, "b"), strategy="one_for_all"
    ) as system:
        log.clear()
        await crash(system, "b")
        states = [info.state for info in system.tree().children]
        await crash(system, "b")

        assert states == [State.ENDED, State.RUNNING]
        assert log == ["-b", "-a", "+b", "-b", "+b"]


async def test_final_stop_during_a_group_restart_is_final(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a", stop=2), member(log, "b"), strategy="one_for_all"
    ) as system:
        await system["b"].tell("broken")
        await trio.sleep(1)
        system["a"].stop("enough")
        reason = await system["a"].wait_stopped()
        await trio.sleep(1)

        assert reason == Shutdown("its group is restarted")
        assert [info.state for info in system.tree().children] == [State.ENDED, State.RUNNING]


async def test_budget_runs_out_exactly(autojump_clock: Clock) -> None:
    log: list[str] = []

    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_system(member(log, "a"), max_restarts=2, window=10) as system:
            await crash(system, "a")
            await trio.sleep(5)
            await crash(system, "a")
            await trio.sleep(5)
            # The first one is exactly at the edge of the window, so it counts.
            await crash(system, "a")
            raise AssertionError

    error = caught.value
    assert (error.actor, error.child, error.max_restarts, error.window) == (
        "the system",
        "a",
        2,
        10,
    )
    assert isinstance(error.__cause__, ValueError)
    assert log.count("+a") == 3


async def test_budget_forgives_what_is_long_ago(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(member(log, "a"), max_restarts=1, window=10) as system:
        for _ in range(5):
            await crash(system, "a")
            await trio.sleep(10.5)

    assert log.count("+a") == 6


async def test_max_restarts_of_zero_refuses_the_first() -> None:
    log: list[str] = []

    with pytest.raises(RestartBudgetExceededError):
        async with open_system(member(log, "a"), max_restarts=0) as system:
            await crash(system, "a")

    assert log == ["+a", "-a"]


async def test_group_restart_counts_once() -> None:
    log: list[str] = []

    async with open_system(
        *(member(log, name) for name in "abc"), strategy="one_for_all", max_restarts=1
    ) as system:
        await crash(system, "b")

    assert log.count("+a") == 2


async def test_failed_restart_counts_again() -> None:
    starts: list[int] = []

    class Broken(Actor[str]):
        async def on_start(self) -> None:
            starts.append(self.ctx.incarnation)
            if self.ctx.incarnation > 1:
                raise ValueError

        async def receive(self, message: str) -> None:
            raise ValueError

    with pytest.raises(RestartBudgetExceededError):
        async with open_system(Child("a", Broken), max_restarts=3) as system:
            await system["a"].tell("crash")
            await trio.sleep_forever()

    assert starts == [1, 2, 3, 4]


async def test_giving_up_stops_the_rest_and_fails_upwards() -> None:
    log: list[str] = []
    notices: list[Notice] = []
    inner = Supervisor(member(log, "a"), member(log, "b"), member(log, "c"), max_restarts=0)

    async with open_system(Child("sup", inner), member(log, "z")) as system:
        system.subscribe(notices.append)
        log.clear()
        await crash(system, "sup/b")

        assert log == ["-b", "-c", "-a", "+a", "+b", "+c"]
        assert system["sup"].statistics().restarts == 1
        assert system["sup/a"].statistics().restarts == 0
    gave_up = [notice for notice in notices if isinstance(notice, SupervisorGaveUp)]
    assert [(notice.supervisor, notice.actor) for notice in gave_up] == [("sup", "sup/b")]


async def test_refs_and_queues_survive_the_restart_of_their_supervisor() -> None:
    seen: list[str] = []

    async def keep(inbox: Inbox[str]) -> None:
        async for message in inbox:
            if message == "hold":
                await trio.sleep_forever()
            seen.append(f"{inbox.ctx.incarnation}:{message}")

    inner = Supervisor(Child("keep", keep, shutdown=0), member([], "b"), max_restarts=0)
    async with open_system(Child("sup", inner)) as system:
        ref = system["sup/keep"]
        for message in ("hold", "x", "y"):
            await ref.tell(message)
        await crash(system, "sup/b")

        assert system["sup/keep"] is ref
    assert seen == ["2:x", "2:y"]


async def test_child_that_ended_for_good_is_new_under_a_restarted_supervisor() -> None:
    lives: list[int] = []

    async def once(inbox: Inbox[str]) -> None:
        lives.append(inbox.ctx.incarnation)

    inner = Supervisor(Child("once", once, restart="transient"), member([], "b"), max_restarts=0)
    async with open_system(Child("sup", inner)) as system:
        ref = system["sup/once"]
        await ref.wait_stopped()
        await crash(system, "sup/b")

        assert system["sup/once"] is not ref
    assert lives == [1, 1]


async def test_backoff_waits_longer_after_every_failure(autojump_clock: Clock) -> None:
    times: list[float] = []
    planned: list[float] = []

    class Broken(Actor[str]):
        async def on_start(self) -> None:
            times.append(trio.current_time() - start)
            if 1 < self.ctx.incarnation < 5:
                raise ValueError

        async def receive(self, message: str) -> None:
            raise ValueError

    def listen(notice: Notice) -> None:
        if isinstance(notice, RestartPlanned):
            planned.append(notice.delay)

    start = trio.current_time()
    backoff = Backoff(base=1, factor=2, cap=3)
    async with open_system(
        Child("a", Broken, backoff=backoff), max_restarts=10, window=100
    ) as system:
        system.subscribe(listen)
        await system["a"].tell("crash")
        await trio.sleep(50)
        await system["a"].tell("crash")
        await trio.sleep(50)

    assert times == [0, 1, 3, 6, 9, 51]
    assert planned == [1, 2, 3, 3, 1]


async def test_supervisor_serves_others_during_a_backoff(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(member(log, "a", backoff=Backoff(base=10)), member(log, "b")) as system:
        await crash(system, "a")
        await crash(system, "b")
        soon = list(log)
        await trio.sleep(11)

    assert soon == ["+a", "+b", "-a", "-b", "+b"]
    assert log[5] == "+a"


async def test_stopped_initiator_does_not_strand_its_group(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a"),
        member(log, "b", backoff=Backoff(base=10)),
        member(log, "c"),
        strategy="rest_for_one",
    ) as system:
        await crash(system, "b")
        system["b"].stop("not needed")
        await trio.sleep(20)

        assert [info.state for info in system.tree().children] == [
            State.RUNNING,
            State.ENDED,
            State.RUNNING,
        ]


async def test_newer_plan_overtakes_an_older_one(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a", backoff=Backoff(base=30)),
        member(log, "b", backoff=Backoff(base=10)),
        member(log, "c"),
        strategy="rest_for_one",
    ) as system:
        log.clear()
        await crash(system, "b")
        await trio.sleep(5)
        await crash(system, "a")
        await trio.sleep(10)
        early = list(log)
        await trio.sleep(30)

    assert early == ["-b", "-c", "-a"]
    assert log[3:6] == ["+a", "+b", "+c"]


async def test_rest_of_a_plan_follows_after_a_failed_start(autojump_clock: Clock) -> None:
    log: list[str] = []

    class Reluctant(Member):
        async def on_start(self) -> None:
            if self.ctx.incarnation == 2:
                raise ValueError
            await super().on_start()

    async with open_system(
        member(log, "a"),
        Child("b", functools.partial(Reluctant, log, "b"), needs="a"),
        member(log, "c", needs="a"),
        strategy="rest_for_one",
    ) as system:
        log.clear()
        await crash(system, "a")

        assert log == ["-a", "-c", "-b", "+a", "+c", "+b"]
        assert [info.incarnation for info in system.tree().children] == [2, 3, 2]


async def test_stop_during_a_start_ends_the_start(autojump_clock: Clock) -> None:
    log: list[str] = []
    inner = Supervisor(member(log, "a"), member(log, "b", start=100), member(log, "c"))

    async with open_system() as system, trio.open_nursery() as nursery:

        async def stop_soon() -> None:
            await trio.sleep(1)
            system["sup"].stop("no more")

        nursery.start_soon(stop_soon)
        with pytest.raises(StartFailedError, match="no more"):
            await system.spawn(inner, name="sup")

    assert log == ["+a", "-a"]


async def test_system_that_closes_while_a_child_restarts(autojump_clock: Clock) -> None:
    log: list[str] = []

    class SlowAgain(Member):
        async def on_start(self) -> None:
            await trio.sleep(0 if self.ctx.incarnation == 1 else 100)
            await super().on_start()

    start = trio.current_time()
    async with open_system(
        Child("a", functools.partial(SlowAgain, log, "a")),
        member(log, "b"),
        strategy="one_for_all",
    ) as system:
        await system["a"].tell("broken")
        await trio.sleep(1)

    assert trio.current_time() == start + 1
    assert log == ["+a", "+b", "-a", "-b"]


async def test_system_that_closes_between_two_restarts_of_a_plan(autojump_clock: Clock) -> None:
    log: list[str] = []
    systems: list[System] = []

    class Closer(Member):
        async def on_start(self) -> None:
            await super().on_start()
            if self.ctx.incarnation == 2:
                self.ctx.system.stop("seen enough")

    async with open_system(
        Child("a", functools.partial(Closer, log, "a")),
        member(log, "b"),
        strategy="one_for_all",
    ) as system:
        systems.append(system)
        await system["b"].tell("broken")
        await trio.sleep_forever()

    assert log == ["+a", "+b", "-b", "-a", "+a", "-a"]
    assert all(info.state is State.ENDED for _, info in systems[0].tree().walk())


async def test_stop_time_is_the_sum_of_the_shutdown_times(autojump_clock: Clock) -> None:
    async def stubborn(inbox: Inbox[Any]) -> None:
        await trio.sleep_forever()

    children = [Child(str(number), stubborn, shutdown=number) for number in (1, 2, 3)]
    start = trio.current_time()
    async with open_system(*children, grace=100):
        await trio.testing.wait_all_tasks_blocked()

    assert trio.current_time() == start + 6


async def test_spawned_children_stop_together_before_the_others(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(member(log, "a"), grace=100) as system:
        for name in ("x", "y", "z"):
            await system.spawn(functools.partial(Member, log, name, 0, 2), name=name)
        start = trio.current_time()

    assert trio.current_time() == start + 2
    assert log[-1] == "-a"
    assert sorted(log[4:7]) == ["-x", "-y", "-z"]


async def test_spawned_child_is_forgotten_when_it_ends() -> None:
    async def quick(inbox: Inbox[Any]) -> None:
        await inbox.receive()

    async with open_system(max_children=1) as system:
        for _ in range(3):
            ref = await system.spawn(quick, name="quick")
            with pytest.raises(TooManyChildrenError):
                await system.spawn(quick, name="other")
            with pytest.raises(NameTakenError):
                await system.spawn(quick, name="quick")
            await ref.tell("end")
            await ref.wait_stopped()
            assert "quick" not in system


async def test_spawned_child_may_be_restarted() -> None:
    log: list[str] = []

    async with open_system(member(log, "a"), strategy="one_for_all") as system:
        ref = await system.spawn(functools.partial(Member, log, "x"), restart="transient")
        await ref.tell("broken")
        await trio.testing.wait_all_tasks_blocked()

        assert ref.statistics().restarts == 1
    assert log[:4] == ["+a", "+x", "-x", "+x"]


async def test_spawned_children_end_with_their_supervisor(autojump_clock: Clock) -> None:
    log: list[str] = []
    inner = Supervisor(member(log, "a"), max_restarts=0)

    async with open_system(Child("sup", inner)) as system:
        ref = await system.spawn(
            functools.partial(Member, log, "x"), under="sup", restart="permanent"
        )
        await crash(system, "sup/a")
        reason = await ref.wait_stopped()

        assert reason == Shutdown("its supervisor gave up")
        assert [info.path for info in system.tree().children[0].children] == ["sup/a"]


async def test_spawn_under_a_stopping_supervisor_is_refused(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system(Child("sup", Supervisor(member(log, "a", stop=1)))) as system:
        system["sup"].stop()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorStoppedError, match="takes no children: it is stopping"):
            await system.spawn(functools.partial(Member, log, "x"), under="sup")
        await system["sup"].wait_stopped()
        with pytest.raises(ActorStoppedError, match="takes no children: it is stopping"):
            await system.spawn(functools.partial(Member, log, "x"), under="sup")


async def test_cancelled_spawn_takes_the_child_back(autojump_clock: Clock) -> None:
    log: list[str] = []

    async with open_system() as system:
        with trio.move_on_after(1):
            await system.spawn(functools.partial(Member, log, "x", 100), name="x")
        await trio.testing.wait_all_tasks_blocked()

        assert "x" not in system
        assert system.statistics().actors == 0


@pytest.mark.parametrize("option", ["needs", "sends_to"])
async def test_spawned_actor_cannot_speak_of_siblings(option: str) -> None:
    wrong: Any = {option: "a"}

    async with open_system(member([], "a")) as system:
        with pytest.raises(InvalidArgumentError, match=f"{option} must be left out"):
            await system.spawn(lambda: Member([], "b"), **wrong)


async def test_killed_supervisor_takes_everything_below_with_it() -> None:
    log: list[str] = []
    reasons: list[Reason] = []

    inner = Supervisor(member(log, "a"), Child("deep", Supervisor(member(log, "b"))))
    async with open_system(Child("sup", inner, restart="temporary")) as system:
        refs = [system[path] for path in ("sup/a", "sup/deep/b")]
        system["sup"].kill("away")
        reasons.append(await system["sup"].wait_stopped())
        reasons.extend([await ref.wait_stopped() for ref in refs])

    assert reasons == [Killed("away")] * 3
    assert sorted(log) == ["+a", "+b", "-a", "-b"]


async def test_supervisor_crash_is_logged_as_its_own(caplog: pytest.LogCaptureFixture) -> None:
    inner = Supervisor(member([], "a"), max_restarts=0)

    async with open_system(Child("sup", inner, restart="temporary")) as system:
        await crash(system, "sup/a")
        reason = await system["sup"].wait_stopped()

    assert isinstance(reason, Crashed)
    assert isinstance(reason.error, RestartBudgetExceededError)
    assert [record.__dict__["actor"] for record in caplog.records] == ["sup/a", "sup"]


async def test_child_stopped_before_its_turn_does_not_start() -> None:
    log: list[str] = []

    class Stopper(Member):
        async def on_start(self) -> None:
            self.ctx.system["b"].stop("not needed")

    async with open_system(
        Child("a", functools.partial(Stopper, log, "a")), member(log, "b"), member(log, "c")
    ) as system:
        assert log == ["+c"]
        assert await system["b"].wait_stopped() == Shutdown("not needed")


async def test_spawn_while_a_supervisor_gives_up_is_refused(autojump_clock: Clock) -> None:
    log: list[str] = []
    inner = Supervisor(member(log, "a", stop=2), member(log, "b"), max_restarts=0)

    async with open_system(Child("sup", inner, restart="temporary")) as system:
        await system["sup/b"].tell("broken")
        await trio.sleep(1)
        with pytest.raises(ActorStoppedError, match="takes no children: it is stopping"):
            await system.spawn(functools.partial(Member, log, "x"), under="sup")
        await system["sup"].wait_stopped()


async def test_kill_that_uses_up_the_budget_has_no_cause(autojump_clock: Clock) -> None:
    with pytest.raises(RestartBudgetExceededError) as caught:
        async with open_system(member([], "a"), max_restarts=0) as system:
            system["a"].kill()
            await trio.sleep_forever()

    assert caught.value.__cause__ is None


async def test_spawned_child_of_a_killed_supervisor_ends_too() -> None:
    log: list[str] = []

    async with open_system(Child("sup", Supervisor())) as system:
        ref = await system.spawn(
            functools.partial(Member, log, "x"), under="sup", restart="permanent"
        )
        system["sup"].kill("away")
        await ref.wait_stopped()
        await trio.testing.wait_all_tasks_blocked()

        assert "sup/" + ref.path.split("/")[-1] not in system
        assert system["sup"].statistics().restarts == 1


async def test_crash_of_two_members_is_one_group_restart() -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a"), member(log, "b"), strategy="one_for_all", max_restarts=1
    ) as system:
        log.clear()
        system["a"].tell_nowait("broken")
        system["b"].tell_nowait("broken")
        await trio.testing.wait_all_tasks_blocked()

        assert sorted(log[:2]) == ["-a", "-b"]
        assert log[2:] == ["+a", "+b"]


async def test_group_restart_leaves_a_member_that_is_stopping_anyway(
    autojump_clock: Clock,
) -> None:
    log: list[str] = []

    async with open_system(
        member(log, "a", stop=2), member(log, "b"), strategy="one_for_all"
    ) as system:
        system["a"].stop("enough")
        await trio.sleep(1)
        await system["b"].tell("broken")
        await trio.sleep(5)

        assert [info.state for info in system.tree().children] == [State.ENDED, State.RUNNING]
    assert log == ["+a", "+b", "-b", "-a", "+b", "-b"]


async def test_member_that_does_not_wait_learns_of_a_group_restart() -> None:
    seen: list[str] = []

    async def polling(inbox: Inbox[str]) -> None:
        with inbox.ctx.until_stop():
            await trio.sleep_forever()
        try:
            inbox.receive_nowait()
        except trio.EndOfChannel:
            seen.append(f"end of life {inbox.ctx.incarnation}")

    async with open_system(
        Child("polling", polling), member([], "b"), strategy="one_for_all"
    ) as system:
        await system["polling"].tell("for a later life")
        await crash(system, "b")

        assert seen == ["end of life 1"]
        assert system["polling"].statistics().depth == 1
