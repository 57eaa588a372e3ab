"""What every event sink promises, as a suite for those who write one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, TypeAlias, final

import attrs
import trio

from actorflow.events import EventSink

from ._promises import expect

OpenSink: TypeAlias = Callable[[EventSink], AbstractAsyncContextManager[EventSink]]

_TYPE: Final = "check.sink"
_PATIENCE: Final = 60.0


async def check_event_sink(open_sink: OpenSink, *, hands_on: bool = True) -> None:
    """Check that a sink keeps what `EventSink` promises.

    `open_sink(behind)` opens a sink, anew for each promise, that hands what it
    accepts to the sink `behind` and has done so when the block ends. A sink that
    keeps events elsewhere is checked with ``hands_on=False``: the end of the block
    copies what was kept to `behind`, and what happens when that is slow or
    raises is not looked at. Run it on a `MockClock`, because it waits for things
    that should not happen; but not if the sink works in threads.

    Raises:
      AssertionError: with the promise that is not kept, and what was found.
    """
    for check in (*_CHECKS, *(_CHECKS_BEHIND if hands_on else ())):
        with trio.move_on_after(_PATIENCE) as scope:
            await check(open_sink)
        if scope.cancelled_caught:
            promise = check.__name__.strip("_").replace("_", " ")
            raise AssertionError(f"{promise}: still waiting after {_PATIENCE:g} s")


@final
@attrs.define(eq=False)
class _Behind:
    """The sink that events end up in: it can be slow, shut, or raise."""

    seconds: float = 0.0
    raises_at: int | None = None
    numbers: list[int] = attrs.field(factory=list, init=False)
    door: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        await trio.sleep(self.seconds)
        await self.door.wait()
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        number = (data or {}).get("n")
        if isinstance(number, int):
            if number == self.raises_at:
                raise OSError("the sink behind is broken")
            self.numbers.append(number)
        return True


def _open_behind(seconds: float = 0.0, raises_at: int | None = None) -> _Behind:
    behind = _Behind(seconds, raises_at)
    behind.door.set()
    return behind


def _try(sink: EventSink, number: int) -> bool:
    answer: object = sink.try_emit(type=_TYPE, data={"n": number})
    expect("try_emit answers True, False or None, at once", answer in (True, False, None), True)
    return answer is not False


async def _emit(sink: EventSink, number: int) -> None:
    await sink.emit(type=_TYPE, data={"n": number})


async def _payloads_are_left_alone(open_sink: OpenSink) -> None:
    payload = {"n": 1, "nested": {"list": [1]}}
    async with open_sink(_open_behind()) as sink:
        await sink.emit(type=_TYPE, data=payload)
        await sink.emit(type=_TYPE, data=None)
        sink.try_emit(type=_TYPE, data=payload)
        sink.try_emit(type=_TYPE, data=None)
    expect("a payload is not changed", payload, {"n": 1, "nested": {"list": [1]}})


async def _what_is_accepted_comes_out_in_order(open_sink: OpenSink) -> None:
    behind = _open_behind(seconds=0.01)
    accepted = []
    async with open_sink(behind) as sink:
        offer: Any = getattr(sink, "offer", lambda **_: False)
        for number in range(60):
            if number % 3 == 0:
                taken = _try(sink, number)
            else:
                taken = number % 3 == 1 and offer(type=_TYPE, data={"n": number})
                if not taken:
                    await _emit(sink, number)
                    taken = True
            accepted += [number] if taken else []
    promise = "what was accepted comes out once, in order, before the sink is closed"
    expect(promise, behind.numbers, accepted)


async def _nothing_is_lost_between_emitters(open_sink: OpenSink) -> None:
    behind = _open_behind(seconds=0.01)

    async def emit(emitter: int) -> None:
        for number in range(10):
            await _emit(sink, emitter * 10 + number)

    async with open_sink(behind) as sink, trio.open_nursery() as nursery:
        for emitter in range(10):
            nursery.start_soon(emit, emitter)
    expect("what was emitted comes out once", sorted(behind.numbers), list(range(100)))
    for emitter in range(10):
        mine = [number for number in behind.numbers if number // 10 == emitter]
        expect("events of one emitter keep their order", mine, sorted(mine))


async def _what_is_refused_does_not_come_out(open_sink: OpenSink) -> None:
    behind = _Behind()
    async with open_sink(behind) as sink:
        accepted = [number for number in range(3000) if _try(sink, number)]
        behind.door.set()
    promise = "what try_emit accepted comes out, and nothing that it refused"
    expect(promise, behind.numbers, accepted)


async def _a_flush_lets_everything_out(open_sink: OpenSink) -> None:
    behind = _open_behind(seconds=0.01)
    async with open_sink(behind) as sink:
        for number in range(5):
            await _emit(sink, number)
        if hasattr(sink, "flush"):
            await sink.flush()
            expect("a flush lets everything out", behind.numbers, list(range(5)))


async def _a_failure_behind_costs_one_event(open_sink: OpenSink) -> None:
    behind = _open_behind(raises_at=3)
    async with open_sink(behind) as sink:
        for number in range(6):
            with suppress(Exception):
                await _emit(sink, number)
    promise = "what the sink behind raises costs that event and no other"
    expect(promise, behind.numbers, [0, 1, 2, 4, 5])


async def _a_cancelled_emit_ends(open_sink: OpenSink) -> None:
    behind = _Behind()
    emitted = 0
    async with open_sink(behind) as sink:
        begun_at = trio.current_time()
        with trio.move_on_after(1):
            while emitted < 3000:
                await _emit(sink, emitted)
                emitted += 1
        waited = trio.current_time() - begun_at
        expect("a cancelled emit ends at its next checkpoint", waited < 2, True)
        behind.door.set()
        await _emit(sink, -1)
    done = list(range(emitted))
    expect(
        "a cancelled emit comes out once or not at all, and the sink goes on",
        behind.numbers in ([*done, -1], [*done, emitted, -1]),
        True,
    )


_Check: TypeAlias = Callable[[OpenSink], Awaitable[None]]
_CHECKS: Final[tuple[_Check, ...]] = (
    _payloads_are_left_alone,
    _what_is_accepted_comes_out_in_order,
    _nothing_is_lost_between_emitters,
)
_CHECKS_BEHIND: Final[tuple[_Check, ...]] = (
    _what_is_refused_does_not_come_out,
    _a_flush_lets_everything_out,
    _a_failure_behind_costs_one_event,
    _a_cancelled_emit_ends,
)
