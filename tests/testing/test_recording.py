"""The sink that remembers: waiting for events, and what its complaints show."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import InvalidArgumentError
from actorflow.testing import RecordingEventSink


@pytest.fixture
def sink() -> RecordingEventSink:
    sink = RecordingEventSink()
    sink.try_emit(type="a", data={"n": 1, "who": "me"})
    sink.try_emit(type="b", data=None)
    sink.try_emit(type="a", data={"n": 2})
    return sink


async def test_waiting_ends_with_the_event(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        found = {}

        async def wait(n: int) -> None:
            found[n] = await sink.wait_for("a", n=n)

        nursery.start_soon(wait, 3)
        nursery.start_soon(wait, 4)
        await wait_all_tasks_blocked()
        for n in (5, 3):
            sink.try_emit(type="a", data={"n": n})
        await wait_all_tasks_blocked()
        assert found == {3: {"n": 3}}
        await sink.emit(type="a", data={"n": 4})

    assert found == {3: {"n": 3}, 4: {"n": 4}}


async def test_what_was_there_before_counts(sink: RecordingEventSink) -> None:
    assert await sink.wait_for("a", timeout=0) == {"n": 1, "who": "me"}
    assert await sink.wait_for("a", times=2, timeout=0) == {"n": 2}
    assert await sink.wait_for("b", timeout=0) == {}


async def test_waiting_for_no_event_is_refused(sink: RecordingEventSink) -> None:
    with pytest.raises(InvalidArgumentError, match="times must be 1 or more"):
        await sink.wait_for("a", times=0)


async def test_waiting_lets_others_run(sink: RecordingEventSink) -> None:
    with trio.testing.assert_checkpoints():
        await sink.wait_for("a")


async def test_waiting_gives_up_in_time(
    sink: RecordingEventSink, autojump_clock: MockClock
) -> None:
    start = trio.current_time()

    with pytest.raises(AssertionError) as caught:
        await sink.wait_for("a", times=2, n=2, timeout=5)

    assert trio.current_time() - start == 5
    assert str(caught.value) == (
        "after 5 s: a with n=2 was not emitted 2 times; of those that were\n"
        "  1. n=1\n"
        "  2. one as wanted"
    )


async def test_cancelled_wait_is_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await RecordingEventSink().wait_for("a")

    assert scope.cancelled_caught
    assert trio.current_time() == 1


def test_complaint_shows_in_what_events_differ(sink: RecordingEventSink) -> None:
    with pytest.raises(AssertionError) as caught:
        sink.assert_emitted("a", n=2, who="you")

    assert str(caught.value) == (
        "a with n=2, who='you' was not emitted; of those that were\n  1. n=1, who='me'\n  2. no who"
    )


def test_complaint_shows_which_types_there_are(sink: RecordingEventSink) -> None:
    with pytest.raises(AssertionError) as caught:
        sink.assert_emitted("c", n=1)
    assert str(caught.value) == "c with n=1 was not emitted, only a, b"

    with pytest.raises(AssertionError) as caught:
        RecordingEventSink().assert_emitted("c")
    assert str(caught.value) == "c was not emitted, only nothing"


def test_event_that_should_not_be_there_is_shown(sink: RecordingEventSink) -> None:
    sink.assert_not_emitted("a", n=3)

    with pytest.raises(AssertionError, match=r"a was emitted: \{'n': 2\}"):
        sink.assert_not_emitted("a", n=2)


async def test_many_may_wait_for_one_event(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(partial(sink.wait_for, "a", timeout=1))
        await wait_all_tasks_blocked()
        sink.try_emit(type="a", data={})

    assert trio.current_time() == 0


def test_order_of_nothing_is_no_order() -> None:
    with pytest.raises(TypeError, match="first"):
        # Types refuse it as well.
        RecordingEventSink().assert_order()  # type: ignore[call-arg]
