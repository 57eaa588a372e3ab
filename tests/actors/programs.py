"""Random programs for the actor kernel, and a ledger of what became of every message.

A program is a value: a supervision tree and the operations of a few senders. It
runs on a virtual clock under a seeded scheduler, so it gives the same run every
time. The actors only write into the ledger. What they should not do is asserted
outside of them, because an assertion that fails inside an actor is one more
crash, and crashes are what a supervisor takes care of.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import trio
from hypothesis import strategies as st

from actorflow.actors import (
    Actor,
    ActorContext,
    ActorEnded,
    ActorRef,
    Backoff,
    Child,
    Crashed,
    DeadLetter,
    DeadReason,
    Inbox,
    Notice,
    Policy,
    Reason,
    Reply,
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
    MailboxFullError,
    NoReplyError,
    RestartBudgetExceededError,
    StartFailedError,
    UnknownActorError,
)

SECONDS = (0.0, 0.25, 0.5, 1.0, 3.0)
# Long after everything that a program does by itself.
HORIZON = 10_000.0


class Boom(Exception):
    """What actors of a program crash with."""


@attrs.frozen
class Script:
    """What an actor does with one message."""

    act: str = "ok"
    seconds: float = 0.0
    target: int = 0
    timeout: float | None = None
    then: Script | None = None
    """What the target of a forwarded message does."""


@attrs.frozen
class Op:
    """What one sender does next."""

    sender: int
    do: str
    target: int = 0
    script: Script = Script()
    seconds: float = 0.0
    timeout: float | None = None
    times: int = 1
    spec: Leaf | Branch | None = None


@attrs.frozen
class Leaf:
    """An actor of a tree."""

    restart: str = "permanent"
    policy: str = "block"
    capacity: int = 2
    drain: bool = True
    shutdown: float = 1.0
    backoff: float = 0.0
    needs: frozenset[int] = frozenset()
    is_class: bool = False
    failing_starts: frozenset[int] = frozenset()
    start_seconds: float = 0.0
    stop_seconds: float = 0.0
    stop_fails: bool = False
    start_asks: int | None = None
    """Whom it asks before it is ready, from its second life on."""

    stop_asks: int | None = None
    """Whom it asks when it cleans up."""


@attrs.frozen
class Branch:
    """A supervisor of a tree."""

    children: tuple[Leaf | Branch, ...]
    strategy: str = "one_for_one"
    restart: str = "permanent"
    max_restarts: int = 3


Tree: TypeAlias = Branch


@attrs.frozen
class Program:
    """Everything that decides a run."""

    tree: Branch
    ops: tuple[Op, ...]
    grace: float = 5.0
    time_slice: float = 0.0
    seed: int = 0


# Strategies

ACTS = (
    "ok", "slow", "quiet", "crash", "slow_crash", "answer_and_crash", "cleanup_error", "slow",
    "leave", "defer", "tell", "tell", "tell_nowait", "ask", "ask", "until_stop", "kill_self",
    "stop_self",
)  # fmt: skip
OPS = (
    "sleep", "tell", "tell", "tell", "tell_nowait", "ask", "ask", "ask", "stop", "kill", "spawn",
    "cancel",
)  # fmt: skip

seconds = st.sampled_from(SECONDS)
timeouts = st.none() | st.sampled_from((0.0, 0.25, 1.0, 2.0))
targets = st.integers(0, 4)
plain_scripts = st.builds(Script, st.sampled_from(ACTS[:6]), seconds)
scripts = st.builds(Script, st.sampled_from(ACTS), seconds, targets, timeouts, plain_scripts)
leaves = st.builds(
    Leaf,
    restart=st.sampled_from(("permanent", "permanent", "transient", "transient", "temporary")),
    policy=st.sampled_from(("block", "block", "fail", "drop_new", "drop_old", "conflate")),
    capacity=st.sampled_from((1, 1, 2, 4)),
    drain=st.booleans(),
    shutdown=st.sampled_from((0.0, 0.5, 2.0)),
    backoff=st.sampled_from((0.0, 0.0, 0.5, 2.0)),
    needs=st.frozensets(st.integers(0, 1), max_size=1),
    is_class=st.booleans(),
    failing_starts=st.frozensets(st.integers(2, 4), max_size=2),
    start_seconds=st.sampled_from((0.0, 0.0, 0.5)),
    stop_seconds=st.sampled_from((0.0, 0.0, 1.0)),
    stop_fails=st.booleans(),
    start_asks=st.none() | st.none() | targets,
    stop_asks=st.none() | st.none() | targets,
)


def branches(below: st.SearchStrategy[Leaf | Branch]) -> st.SearchStrategy[Branch]:
    return st.builds(
        Branch,
        children=st.lists(below, min_size=1, max_size=3).map(tuple),
        strategy=st.sampled_from(("one_for_one", "one_for_all", "rest_for_one")),
        restart=st.sampled_from(("permanent", "permanent", "transient", "temporary")),
        max_restarts=st.sampled_from((100, 5, 2, 0)),
    )


trees = branches(leaves | branches(leaves | branches(leaves)))
ops = st.builds(
    Op,
    sender=st.integers(0, 2),
    do=st.sampled_from(OPS),
    target=targets,
    script=scripts,
    seconds=seconds,
    timeout=timeouts,
    times=st.integers(1, 4),
    spec=leaves | leaves | branches(leaves),
)
programs = st.builds(
    Program,
    tree=trees,
    ops=st.lists(ops, min_size=12, max_size=40).map(tuple),
    grace=st.sampled_from((0.0, 1.0, 5.0, 100.0)),
    time_slice=st.sampled_from((0.0, 0.001, math.inf)),
    seed=st.integers(0, 2**16),
)


# What happened


@attrs.define(eq=False)
class Letter:
    """A message, and all that became of it."""

    number: int
    sender: str
    to: str
    script: Script
    is_ask: bool
    sent_at: float
    timeout: float | None = None
    reply: Reply[int] | None = None
    began: int = 0
    done: int = 0
    dead: list[DeadReason] = attrs.Factory(list)
    outcome: object = "unknown"
    ended_at: float = math.nan
    """What its sender got: "sent", a number, or an exception."""

    @property
    def key(self) -> int:
        return self.number % 2


@attrs.frozen
class Answer:
    """What an actor sends itself to keep a promise."""

    letter: Letter


class World:
    """One run of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.letters: list[Letter] = []
        self.arrivals: defaultdict[tuple[str, str], list[Letter]] = defaultdict(list)
        self.complaints: list[str] = []
        self.lives: Counter[str] = Counter()
        self.hands: Counter[str] = Counter()
        self.refs: list[ActorRef[Any]] = []
        self.supervisors: list[str] = []
        self.policies: dict[str, str] = {}
        self.scopes: dict[int, trio.CancelScope] = {}
        self.names = itertools.count()
        self.all_sent = trio.Event()
        self.system: System
        self.is_closed = False
        self.is_stuck = False
        self.closing_took = 0.0
        self.failure: Exception | None = None

    # The tree

    def child(self, spec: Leaf | Branch, prefix: str, elder: Sequence[str]) -> Child[Any]:
        name = f"n{next(self.names)}"
        path = f"{prefix}{name}"
        if isinstance(spec, Branch):
            self.supervisors.append(path)
            return Child(
                name,
                Supervisor(
                    *self.children(spec, f"{path}/"),
                    strategy=spec.strategy,
                    max_restarts=spec.max_restarts,
                ),
                restart=spec.restart,
            )
        needs = tuple(elder[index] for index in spec.needs if index < len(elder))
        return Child(name, self.behaviour(spec, path), needs=needs, **self.options(spec))

    def children(self, branch: Branch, prefix: str) -> Iterator[Child[Any]]:
        elder: list[str] = []
        for spec in branch.children:
            child = self.child(spec, prefix, elder)
            elder.append(child.name)
            yield child

    def options(self, leaf: Leaf) -> dict[str, Any]:
        return {
            "restart": leaf.restart,
            "policy": conflate(_key) if leaf.policy == "conflate" else Policy(leaf.policy),
            "capacity": leaf.capacity,
            "drain": leaf.drain,
            "shutdown": leaf.shutdown,
            "backoff": Backoff(base=leaf.backoff, factor=1) if leaf.backoff else None,
        }

    def behaviour(self, leaf: Leaf, path: str) -> Any:
        self.policies[path] = leaf.policy
        world = self

        async def behave(inbox: Inbox[Any]) -> None:
            with world.living(path):
                async for item in inbox:
                    if await world.handle(inbox.ctx, item):
                        return

        class Worker(Actor[Any]):
            async def on_start(self) -> None:
                await trio.sleep(leaf.start_seconds)
                if leaf.start_asks is not None and self.ctx.incarnation > 1:
                    await world.ask_from(self.ctx, leaf.start_asks)
                if self.ctx.incarnation in leaf.failing_starts:
                    raise Boom("at the start")

            async def run(self, inbox: Inbox[Any]) -> None:
                with world.living(path):
                    await super().run(inbox)

            async def receive(self, message: Any) -> None:
                await world.handle(self.ctx, message)

            async def on_stop(self, reason: Reason) -> None:
                await trio.sleep(leaf.stop_seconds)
                if leaf.stop_asks is not None:
                    await world.ask_from(self.ctx, leaf.stop_asks)
                if leaf.stop_fails:
                    raise Boom("at the stop")

        return Worker if leaf.is_class else behave

    def living(self, path: str) -> trio.CancelScope | Any:
        return _Counted(self.lives, path, self.complaints)

    # What actors do

    async def handle(self, ctx: ActorContext, item: Letter | Answer) -> bool:
        """Handle one message; tell whether the actor shall return."""
        if isinstance(item, Answer):
            self.answer(item.letter)
            return False
        item.began += 1
        self.arrivals[item.sender, item.to].append(item)
        if self.is_closed:
            self.complaints.append(f"{item} was handled after the close")
        with _Counted(self.hands, item.to, self.complaints):
            leaves = await self.perform(ctx, item)
        item.done += 1
        return leaves

    async def perform(self, ctx: ActorContext, letter: Letter) -> bool:
        script = letter.script
        match script.act:
            case "quiet":
                return False
            case "slow":
                await trio.sleep(script.seconds)
            case "crash":
                raise Boom(letter.number)
            case "slow_crash":
                await trio.sleep(script.seconds)
                raise Boom(letter.number)
            case "answer_and_crash":
                self.answer(letter)
                raise Boom(letter.number)
            case "cleanup_error":
                try:
                    await trio.sleep(script.seconds)
                except trio.Cancelled:
                    raise Boom("while cancelled") from None
            case "defer":
                if letter.reply is not None:
                    letter.reply.defer()
                    ctx.send_after(script.seconds, Answer(letter))
                return False
            case "tell" | "tell_nowait" | "ask":
                await self.send(
                    _name(ctx), script.act, script.target, script.then or Script(), script.timeout
                )
            case "until_stop":
                with ctx.until_stop():
                    await trio.sleep(script.seconds)
            case "kill_self":
                ctx.ref.kill()
            case "stop_self":
                ctx.ref.stop()
        self.answer(letter)
        return script.act == "leave"

    def answer(self, letter: Letter) -> None:
        if letter.reply is not None:
            letter.reply.send(letter.number)

    async def ask_from(self, ctx: ActorContext, target: int) -> None:
        await self.send(_name(ctx), "ask", target, Script(), None)

    # What senders do

    async def send(
        self, sender: str, how: str, target: int, script: Script, timeout: float | None
    ) -> None:
        ref = self.refs[target % len(self.refs)]
        now = trio.current_time()
        letter = Letter(len(self.letters), sender, ref.path, script, how == "ask", now, timeout)
        self.letters.append(letter)

        def make(reply: Reply[int]) -> Letter:
            letter.reply = reply
            return letter

        try:
            if how == "ask":
                answer: int = await ref.ask(make, timeout=timeout)
                letter.outcome = answer
            elif how == "tell":
                await ref.tell(letter)
                letter.outcome = "sent"
            else:
                ref.tell_nowait(letter)
                letter.outcome = "sent"
        except (
            ActorCrashedError,
            ActorStoppedError,
            AskTimeoutError,
            MailboxDeadlockError,
            MailboxFullError,
            NoReplyError,
        ) as error:
            letter.outcome = error
        except BaseException as error:
            letter.outcome = error
            raise
        finally:
            letter.ended_at = trio.current_time()

    async def do(self, op: Op) -> None:
        everybody = [*(ref.path for ref in self.refs), *self.supervisors]
        match op.do:
            case "tell" | "tell_nowait" | "ask":
                for _ in range(op.times):
                    await self.send(f"sender {op.sender}", op.do, op.target, op.script, op.timeout)
            case "sleep":
                await trio.sleep(op.seconds)
            case "stop" | "kill":
                try:
                    ref = self.system[everybody[op.target % len(everybody)]]
                except UnknownActorError:
                    return
                ref.stop() if op.do == "stop" else ref.kill()
            case "spawn":
                await self.spawn(op)
            case "cancel":
                scope = self.scopes.get(op.target % 3)
                if scope is not None:
                    scope.cancel()

    async def spawn(self, op: Op) -> None:
        assert op.spec is not None
        owners = ["", *self.supervisors]
        under = owners[op.target % len(owners)]
        child = self.child(op.spec, f"{under}/" if under else "", ())
        options = {
            field.name: getattr(child, field.name)
            for field in attrs.fields(Child)
            if field.name not in ("name", "behaviour")
        }
        try:
            ref: ActorRef[Any] = await self.system.spawn(
                child.behaviour, name=child.name, under=under, **options
            )
        except (ActorStoppedError, StartFailedError, UnknownActorError):
            return
        self.refs += [self.system[path] for path in self.policies if self.is_below(path, ref)]

    def is_below(self, path: str, ref: ActorRef[Any]) -> bool:
        return f"{path}/".startswith(f"{ref.path}/") and path in self.system

    async def all_senders(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(self.sender, number)
        self.all_sent.set()

    async def sender(self, number: int) -> None:
        for op in self.program.ops:
            if op.sender == number:
                with trio.CancelScope() as self.scopes[number]:
                    await self.do(op)
                if not self.is_closed:
                    await trio.lowlevel.checkpoint()

    # The run

    def note(self, notice: Notice) -> None:
        if isinstance(notice, DeadLetter):
            if isinstance(notice.message, Letter):
                notice.message.dead.append(notice.reason)
            elif not isinstance(notice.message, Answer):
                self.complaints.append(f"nobody sent what died: {notice}")
        elif isinstance(notice, ActorEnded) and isinstance(notice.reason, Crashed):
            error = notice.reason.error
            if not isinstance(error, Boom | RestartBudgetExceededError | StartFailedError):
                self.complaints.append(f"{notice.actor} crashed with {error!r}")

    async def run(self) -> None:
        program = self.program
        tree = program.tree
        children = list(self.children(tree, ""))
        try:
            async with trio.open_nursery() as senders:
                async with open_system(
                    *children,
                    grace=program.grace,
                    strategy=tree.strategy,
                    max_restarts=tree.max_restarts,
                    time_slice=program.time_slice,
                ) as self.system:
                    self.system.subscribe(self.note)
                    paths = [path for path in self.policies if path in self.system]
                    self.refs = [self.system[path] for path in paths]
                    senders.start_soon(self.all_senders)
                    with trio.move_on_after(HORIZON) as patience:
                        await self.all_sent.wait()
                        # What is still queued gets its time too.
                        await trio.sleep(100)
                    self.is_stuck = patience.cancelled_caught
                    self.tree_at_the_end = str(self.system.tree())
                    began_to_close = trio.current_time()
                self.closing_took = trio.current_time() - began_to_close
                self.is_closed = True
        except* (RestartBudgetExceededError, StartFailedError) as group:
            self.failure = group
        if self.is_stuck:
            self.complaints.append(f"somebody waits forever:\n{self.tree_at_the_end}")


def _name(ctx: ActorContext) -> str:
    return f"{ctx.ref.path}#{ctx.incarnation}"


def _key(message: Any) -> object:
    return message.key


class _Counted:
    """Count who is inside, and complain about the second."""

    def __init__(self, counter: Counter[str], key: str, complaints: list[str]) -> None:
        self.counter, self.key, self.complaints = counter, key, complaints

    def __enter__(self) -> None:
        self.counter[self.key] += 1
        if self.counter[self.key] > 1:
            self.complaints.append(f"{self.key} is there twice")

    def __exit__(self, *_: object) -> None:
        self.counter[self.key] -= 1


# What must hold


def violations(world: World) -> Iterator[str]:
    """Yield everything about a run that must not be."""
    yield from world.complaints
    for letter in world.letters:
        for complaint in _letter_violations(letter):
            yield f"{complaint}: {letter}"
    for (sender, to), arrived in world.arrivals.items():
        conflating = world.policies[to] == "conflate"
        for key in (0, 1) if conflating else (None,):
            numbers = [letter.number for letter in arrived if key is None or letter.key == key]
            if numbers != sorted(numbers):
                yield f"{sender} -> {to} out of order: {numbers}"
    if not hasattr(world, "system"):
        return
    for _, info in world.system.tree().walk():
        if info.state is not State.ENDED:
            yield f"{info.path} is {info.state} after the close"
        if info.statistics.blocked_senders or info.statistics.depth:
            yield f"{info.path} still has {info.statistics}"
    counted = Counter(world.system.statistics().dead_letters)
    noted = Counter(str(reason) for letter in world.letters for reason in letter.dead)
    if noted - counted:
        yield f"dead letters: {noted} noted, {counted} counted"
    if world.closing_took > world.program.grace:
        yield f"closing took {world.closing_took} s, grace is {world.program.grace} s"


IN_HAND = {DeadReason.CRASHED, DeadReason.KILLED}
DROPS = {DeadReason.DROPPED_NEW, DeadReason.DROPPED_OLD, DeadReason.CONFLATED}


def _letter_violations(letter: Letter) -> Iterator[str]:
    fates = letter.done + len(letter.dead)
    outcome = letter.outcome
    if letter.began > 1:
        yield "handled twice"
    if fates > 1:
        yield "it ended twice"
    if letter.began > fates:
        yield "it vanished in somebody's hands"
    if bool(letter.began and not letter.done) != bool(IN_HAND.intersection(letter.dead)):
        yield "the reason does not say whether it was in hand"
    if letter.ended_at != letter.ended_at:
        yield "its sender never came back"
    if not letter.is_ask:
        expected = 1 if outcome == "sent" else 0
        if fates != expected:
            yield f"conservation: {fates} fates, {expected} expected"
        return
    ok = {
        int: letter.began == 1 and fates == 1 and outcome == letter.number,
        AskTimeoutError: _timed_out_on_time(letter),
        ActorCrashedError: letter.began == 1,
        ActorStoppedError: letter.began == 0 and letter.dead in ([], [DeadReason.STOPPED]),
        MailboxFullError: letter.began == 0 and (not letter.dead or letter.dead[0] in DROPS),
        NoReplyError: letter.done == 1,
        MailboxDeadlockError: fates == 0,
        trio.Cancelled: True,
        Boom: False,
    }
    if not ok.get(type(outcome), False):
        yield "the ask ended in a way it cannot"
    if DeadReason.EXPIRED in letter.dead and not isinstance(
        outcome, AskTimeoutError | trio.Cancelled
    ):
        yield "expired, although its asker waited"


def _timed_out_on_time(letter: Letter) -> bool:
    waited = letter.ended_at - letter.sent_at
    if letter.sender.startswith("sender"):
        return waited == letter.timeout
    # An actor's own asks inherit the deadline of what it handles.
    return letter.timeout is None or waited <= letter.timeout
