from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Generator, Mapping
from itertools import cycle
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import InvalidArgumentError, InvalidEventSinkError
from actorflow.events import (
    BoundEventSink,
    FilterEventSink,
    LoggingEventSink,
    NoOpEventSink,
    TeeEventSink,
)
from actorflow.testing import RecordingEventSink


class Slow:
    """Takes `seconds` per emission and notes the order in which it was called."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.called: list[str] = []
        self.delivered: list[str] = []
        self.numbers: list[int] = []

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)
        await trio.sleep(self.seconds)
        self.delivered.append(type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        self.called.append(type)
        self.numbers.append((data or {}).get("seq", 0))
        return None


class Choosy(Slow):
    """Takes some of what it is offered at once, and the rest in its time."""

    def __init__(self, seconds: float, answers: list[bool]) -> None:
        super().__init__(seconds)
        self._answers = cycle(answers)

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        if answer := next(self._answers):
            self.try_emit(type=type, data=data)
        return answer


class Broken:
    def __init__(self) -> None:
        self.flushes = 0

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        raise OSError(type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        raise OSError(type)

    async def flush(self) -> None:
        raise OSError("flush")

    async def aclose(self) -> None:
        raise OSError("close")


class BrokenOffer(Broken):
    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        raise OSError(type)


class Full:
    """Declines offers and refuses; waits for nothing when emitted into."""

    def __init__(self) -> None:
        self.emitted: list[str] = []
        self.flushed = self.closed = False

    def offer(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        return False

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.emitted.append(type)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        return False

    async def flush(self) -> None:
        self.flushed = True

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.spec("E61")
async def test_tee_waits_for_all_sinks_at_once(autojump_clock: MockClock) -> None:
    slow, slower = Slow(2), Slow(3)
    start = trio.current_time()

    await TeeEventSink(slow, slower).emit(type="a", data=None)

    assert trio.current_time() - start == 3
    assert slow.delivered == slower.delivered == ["a"]


@pytest.mark.spec("E61")
async def test_failing_sink_does_not_keep_the_others_from_receiving() -> None:
    recorded, slow = RecordingEventSink(), Slow(0)
    tee = TeeEventSink(Broken(), recorded, BrokenOffer(), slow)

    with pytest.raises(ExceptionGroup) as emitted:
        await tee.emit(type="a", data=None)
    with pytest.raises(ExceptionGroup) as tried:
        tee.try_emit(type="b", data=None)

    assert emitted.group_contains(OSError)
    assert len(emitted.value.exceptions) == len(tried.value.exceptions) == 2
    assert recorded.types() == slow.called == ["a", "b"]


@pytest.mark.spec("E3", "E61")
async def test_tee_says_when_any_sink_refused() -> None:
    recorded, full = RecordingEventSink(), Full()

    assert TeeEventSink(full, recorded).try_emit(type="a", data=None) is False
    assert TeeEventSink(Slow(0), recorded).try_emit(type="b", data=None) is True
    await TeeEventSink(full, recorded).emit(type="c", data=None)

    assert recorded.types() == ["a", "b", "c"]
    assert full.emitted == ["c"]


@pytest.mark.spec("E11", "E61")
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 0, 1, 2])), max_size=12),
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.booleans(), min_size=1, max_size=3)),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=200)
def test_every_sink_of_a_tee_sees_growing_numbers(
    program: list[tuple[bool, int]], choices: list[tuple[int, list[bool]]]
) -> None:
    async def run() -> None:
        sinks = [Choosy(*choice) for choice in choices]
        bound = BoundEventSink(TeeEventSink(RecordingEventSink(), *sinks))
        async with trio.open_nursery() as nursery:
            for waits, pause in program:
                if waits:
                    nursery.start_soon(lambda: bound.emit(type="a", data=None))
                else:
                    nursery.start_soon(lambda: _try(bound))
                if pause:
                    await trio.sleep(pause)
        for sink in sinks:
            assert sink.numbers == list(range(1, len(program) + 1))

    async def _try(sink: BoundEventSink) -> None:
        sink.try_emit(type="a", data=None)

    trio.run(run, clock=MockClock(autojump_threshold=0))


class Emission:
    """Awaits `emission` and calls `meanwhile` at its first wait, before anybody else runs."""

    def __init__(self, emission: Coroutine[Any, Any, None], meanwhile: Callable[[], None]) -> None:
        self.emission = emission
        self.meanwhile = meanwhile

    def __await__(self) -> Generator[Any, Any, None]:
        trap = self.emission.send(None)
        self.meanwhile()
        while True:
            try:
                trap = self.emission.send((yield trap))
            except StopIteration:
                return


@pytest.mark.spec("E11")
async def test_event_that_comes_while_others_are_on_their_way_lines_up() -> None:
    sinks = Slow(0), Slow(0)
    tee = TeeEventSink(*sinks)
    answers: list[bool] = []

    def meanwhile() -> None:
        answers.append(tee.try_emit(type="second", data=None))
        assert sinks[0].called == []
        nursery.start_soon(lambda: tee.emit(type="third", data=None))

    async with trio.open_nursery() as nursery:
        await Emission(tee.emit(type="first", data=None), meanwhile)
        tee.try_emit(type="last", data=None)

    assert answers == [True]
    assert [sink.called[:2] for sink in sinks] == [["first", "second"]] * 2
    assert [sorted(sink.called[2:]) for sink in sinks] == [["last", "third"]] * 2


@pytest.mark.spec("E16")
async def test_exception_for_an_event_in_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Moody(Slow):
        def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
            if type == "second":
                raise OSError(type)
            return super().try_emit(type=type, data=data)

    moody, slow = Moody(0), Slow(0)
    tee = TeeEventSink(moody, slow)

    def meanwhile() -> None:
        tee.try_emit(type="second", data=None)
        tee.try_emit(type="third", data=None)

    await Emission(tee.emit(type="first", data=None), meanwhile)

    assert moody.called == ["first", "third"]
    assert slow.called == ["first", "second", "third"]
    assert [record.__dict__["event_type"] for record in caplog.records] == ["second"]


@pytest.mark.spec("E11")
async def test_cancelled_emission_leaves_the_line(autojump_clock: MockClock) -> None:
    sinks = Slow(0), Slow(0)
    tee = TeeEventSink(*sinks)

    def meanwhile() -> None:
        scope.cancel()
        tee.try_emit(type="second", data=None)

    with trio.CancelScope() as scope:
        await Emission(tee.emit(type="first", data=None), meanwhile)
    await tee.emit(type="third", data=None)

    assert [sink.called for sink in sinks] == [["first", "second", "third"]] * 2


class Caring(Slow):
    """Notes the stages it was told to enter, and raises for one of them."""

    def __init__(self) -> None:
        super().__init__(0)
        self.entered: list[tuple[str | None, str]] = []

    def enter_stage(self, *, pipeline_run_id: str | None, stage: str) -> None:
        self.entered.append((pipeline_run_id, stage))
        if stage == "cursed":
            raise OSError(stage)


@pytest.mark.spec("E16", "E61")
def test_every_sink_that_cares_is_told_of_the_stage(caplog: pytest.LogCaptureFixture) -> None:
    one, other = Caring(), Caring()
    sink = BoundEventSink(TeeEventSink(one, NoOpEventSink(), FilterEventSink(other)))
    enter = sink.enter_stage
    assert enter is not None

    for stage in ("plain", "cursed"):
        enter(pipeline_run_id="r", stage=stage)

    assert one.entered == other.entered == [("r", "plain"), ("r", "cursed")]
    assert [record.msg for record in caplog.records] == ["event_emit_failed"] * 2
    assert TeeEventSink(NoOpEventSink()).enter_stage is None


async def test_tee_flushes_and_closes_what_it_can() -> None:
    full = Full()
    tee = TeeEventSink(NoOpEventSink(), Broken(), full)

    with pytest.raises(ExceptionGroup):
        await tee.flush()
    with pytest.raises(ExceptionGroup):
        await tee.aclose()
    await TeeEventSink(NoOpEventSink(), full).flush()

    assert full.flushed
    assert full.closed


def test_tee_takes_what_any_sink_takes() -> None:
    assert not TeeEventSink(NoOpEventSink()).takes("a")
    assert TeeEventSink(NoOpEventSink(), RecordingEventSink()).takes("a")


def test_tee_and_filter_refuse_what_is_no_sink() -> None:
    wrong: Any = object()

    with pytest.raises(InvalidEventSinkError, match="sinks must be"):
        TeeEventSink(NoOpEventSink(), wrong)
    with pytest.raises(InvalidEventSinkError, match="sink must be"):
        FilterEventSink(wrong)


@pytest.mark.spec("E62")
def test_patterns_are_no_bare_string() -> None:
    with pytest.raises(InvalidArgumentError, match="include"):
        FilterEventSink(NoOpEventSink(), include="stage")
    with pytest.raises(InvalidArgumentError, match="exclude"):
        FilterEventSink(NoOpEventSink(), exclude="stage")


@pytest.mark.spec("E62", "E100")
@pytest.mark.parametrize(
    ("include", "exclude", "passed"),
    [
        (None, (), ["stage.started", "tool.started", "stage.failed"]),
        (["stage."], (), ["stage.started", "stage.failed"]),
        (["stage.", "tool"], ["started"], ["stage.failed"]),
        ([], (), []),
        (None, ["stage"], ["tool.started"]),
    ],
)
async def test_filter_passes_what_matches(
    include: list[str] | None, exclude: list[str], passed: list[str]
) -> None:
    emitted, tried, offered = RecordingEventSink(), RecordingEventSink(), Full()
    types = ["stage.started", "tool.started", "stage.failed"]

    for type in types:
        await FilterEventSink(emitted, include=include, exclude=exclude).emit(type=type, data=None)
        answer = FilterEventSink(tried, include=include, exclude=exclude).try_emit(
            type=type, data=None
        )
        assert answer is not False
    declined = [
        type
        for type in types
        if not FilterEventSink(offered, include=include, exclude=exclude).offer(
            type=type, data=None
        )
    ]

    assert emitted.types() == tried.types() == declined == passed
    filtering = FilterEventSink(emitted, include=include, exclude=exclude)
    assert [type for type in types if filtering.takes(type)] == passed
    assert not FilterEventSink(NoOpEventSink()).takes("stage.started")


async def test_filter_flushes_and_closes_the_sink_behind() -> None:
    full = Full()

    await FilterEventSink(full).flush()
    await FilterEventSink(full).aclose()

    assert (full.flushed, full.closed) == (True, True)
    await FilterEventSink(RecordingEventSink()).flush()
    await FilterEventSink(RecordingEventSink()).aclose()


async def test_offered_event_needs_no_waiting(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "actorflow.events"):
        await BoundEventSink(LoggingEventSink(), emit_timeout=0).emit(type="a", data=None)

    assert [r.message for r in caplog.records] == ["Event: a"]


async def test_no_task_is_needed_while_one_sink_at_most_has_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Full()
    monkeypatch.setattr(trio, "open_nursery", lambda: pytest.fail("a nursery was opened"))

    with caplog.at_level(logging.INFO, "actorflow.events"):
        await TeeEventSink(LoggingEventSink(), full).emit(type="a", data=None)
        await TeeEventSink(LoggingEventSink()).emit(type="b", data=None)

    assert full.emitted == ["a"]
    assert [r.message for r in caplog.records] == ["Event: a", "Event: b"]
