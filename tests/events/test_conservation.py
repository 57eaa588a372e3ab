"""Whatever happens to a sink: every event is delivered, or somebody is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given, settings, strategies as st
from trio.testing import MockClock

from actorflow.actors import Child, Supervisor, System, open_system
from actorflow.errors import SinkClosedError, SinkNotRunningError
from actorflow.events import BackpressureAwareEventSink, BoundEventSink

# What the downstream does with the next event: seconds it takes, and whether it fails then.
Behaviour = tuple[float, bool]

OPERATIONS = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 4)),
    st.tuples(st.just("try"), st.integers(1, 4)),
    # An emission whose caller has no patience.
    st.tuples(st.just("cancel"), st.floats(0, 3)),
    st.tuples(st.just("sleep"), st.floats(0.1, 5)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("stop"), st.floats(0, 5)),
    st.tuples(st.just("discard"), st.just(0)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
)
BEHAVIOURS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.5, 2.0, 60.0]), st.booleans()), max_size=12
)


@attrs.define
class Books:
    """What became of each event, as the world outside the sink saw it."""

    behaviours: list[Behaviour]
    emitted: list[int] = attrs.field(factory=list)
    accepted: list[int] = attrs.field(factory=list)
    refused: list[int] = attrs.field(factory=list)
    handled: list[int] = attrs.field(factory=list)
    delivered: list[int] = attrs.field(factory=list)
    failed: list[int] = attrs.field(factory=list)
    told: list[int] = attrs.field(factory=list)
    cancelled: list[int] = attrs.field(factory=list)
    never_in: list[int] = attrs.field(factory=list)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        assert data is not None
        self.handled.append(data["seq"])
        seconds, fails = self.behaviours.pop(0) if self.behaviours else (0.0, False)
        if seconds:
            await trio.sleep(seconds)
        if fails:
            raise OSError(type)
        self.delivered.append(data["seq"])

    def try_emit(self, **_: Any) -> None: ...

    def on_drop(self, _: str, data: Any) -> None:
        self.told.append(data["seq"])

    def on_error(self, _: str, data: Any, __: Exception) -> None:
        self.failed.append(data["seq"])


class Player:
    def __init__(self, behaviours: list[Behaviour], size: int, nursery: trio.Nursery) -> None:
        self.books = Books(list(behaviours))
        self.sink = BackpressureAwareEventSink(
            self.books,
            max_queue_size=size,
            on_drop=self.books.on_drop,
            on_error=self.books.on_error,
            stop_timeout=3,
        )
        self.nursery = nursery
        self.seq = 0

    def check(self) -> None:
        now = self.sink.statistics()
        settled = now.delivered + now.failed + now.abandoned
        assert now.accepted == settled + now.pending + now.in_flight
        assert now.pending <= self.sink._queue.max_size
        assert (now.delivered, now.failed) == (len(self.books.delivered), len(self.books.failed))

    def next_event(self) -> dict[str, int]:
        self.seq += 1
        self.books.emitted.append(self.seq)
        return {"seq": self.seq}

    async def emit(self, patience: float = float("inf")) -> None:
        event = self.next_event()
        must_wait = self.sink.is_running and self.sink.queue_size >= self.sink._queue.max_size
        try:
            with trio.move_on_after(patience) as scope:
                await self.sink.emit(type="a", data=event)
        except (SinkClosedError, SinkNotRunningError):
            self.books.refused.append(event["seq"])
        else:
            if scope.cancelled_caught:
                self.books.cancelled.append(event["seq"])
                if must_wait:
                    self.books.never_in.append(event["seq"])
            else:
                self.books.accepted.append(event["seq"])

    async def play(self, system: System, operation: str, value: float) -> None:
        match operation:
            case "emit":
                for _ in range(int(value)):
                    self.nursery.start_soon(self.emit)
            case "cancel":
                self.nursery.start_soon(self.emit, value)
            case "try":
                for _ in range(int(value)):
                    event = self.next_event()
                    if self.sink.try_emit(type="a", data=event):
                        self.books.accepted.append(event["seq"])
            case "sleep":
                await trio.sleep(value)
            case "flush" if self.sink.is_running:
                with trio.move_on_after(10):
                    await self.sink.flush()
            case "stop":
                await self.sink.stop(timeout=value)
            case "discard":
                self.nursery.start_soon(lambda: self.sink.stop(drain=False, timeout=1))
            case "start":
                await self.sink.start()
            case "kill":
                for _, info in system.tree().walk():
                    if info.name.startswith("event_sink") and info.path in system:
                        system[info.path].kill()
        self.check()


@pytest.mark.spec("E46", "E53", "E121")
@given(st.lists(OPERATIONS, max_size=14), BEHAVIOURS, st.integers(1, 4), st.booleans())
# Room for an emission comes in the moment in which its caller gives up.
@example([("start", 0), ("emit", 1), ("emit", 1), ("cancel", 0.0)], [], 1, False)
@settings(max_examples=120)
def test_every_event_is_delivered_or_somebody_is_told(
    program: list[tuple[str, float]], behaviours: list[Behaviour], size: int, hurried: bool
) -> None:
    async def main() -> Player:
        async with trio.open_nursery() as nursery:
            player = Player(behaviours, size, nursery)
            with trio.CancelScope() as scope:
                sinks: Child[None] = Child("sinks", Supervisor())
                async with open_system(sinks, grace=4) as system:
                    for operation, value in program:
                        await player.play(system, operation, value)
                    if hurried:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            with trio.CancelScope(shield=True):
                await player.sink.stop()
            player.check()
        return player

    player = trio.run(main, clock=MockClock(autojump_threshold=0))
    books, now = player.books, player.sink.statistics()

    # Nothing is left inside, and what came in went out exactly once.
    assert (now.pending, now.in_flight) == (0, 0)
    assert now.accepted == now.delivered + now.failed + now.abandoned
    assert len(books.told) == now.abandoned + now.dropped
    out = Counter([*books.delivered, *books.failed, *books.told])
    assert set(out.values()) <= {1}
    # Everything emitted is out, or refused to its emitter, or given up by its emitter.
    assert set(books.accepted) <= set(out)
    assert set(books.emitted) == {*out, *books.refused, *books.cancelled}
    assert not set(books.refused) & set(out)
    # Whoever gave up while it waited has handed over nothing.
    assert not set(books.never_in) & set(out)


@pytest.mark.spec("E11", "E43")
@given(
    st.lists(st.sampled_from(["emit", "try", "sleep"]), max_size=25),
    BEHAVIOURS,
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_numbers_of_a_run_grow_at_the_downstream(
    program: list[str], behaviours: list[Behaviour], size: int
) -> None:
    books = Books(list(behaviours))

    async def main() -> BoundEventSink:
        async with BackpressureAwareEventSink(books, max_queue_size=size, stop_timeout=1e6) as sink:
            bound = BoundEventSink(sink, emit_timeout=1e6)
            async with trio.open_nursery() as nursery:
                for operation in program:
                    if operation == "emit":
                        nursery.start_soon(lambda: bound.emit(type="a", data=None))
                    elif operation == "try":
                        bound.try_emit(type="b", data=None)
                    else:
                        await trio.sleep(1)
            return bound

    bound = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert books.handled == sorted(set(books.handled))
    assert bound.undelivered == 0
    assert bound.last_seq == sum(operation != "sleep" for operation in program)
