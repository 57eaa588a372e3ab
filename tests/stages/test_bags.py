from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timezone
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from actorflow.errors import (
    DataConflictError,
    InvalidArgumentError,
    InvalidTypeError,
    OutputConflictError,
)
from actorflow.model import StageArtifact, StageEvent, StageOutput
from actorflow.stages import ContextBag, OutputBag

NAMES = st.sampled_from(["a", "b", "c"])


class Slow(str):
    """A key that lets other threads in whenever a dict looks at it."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0)
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        time.sleep(0)
        return super().__eq__(other)


def many_at_once(act: Callable[[int], object], number: int = 32) -> list[object]:
    """What each of `number` threads got, which start together."""
    barrier = threading.Barrier(number)

    def together(index: int) -> object:
        barrier.wait()
        try:
            return act(index)
        except (DataConflictError, OutputConflictError) as error:
            return error

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(together, range(number)))


# ContextBag


@pytest.mark.spec("10.14.1")
def test_second_write_of_a_key_conflicts_and_changes_nothing() -> None:
    bag = ContextBag()
    bag.write_sync("key", 1, "first")

    for stage in ("second", "first"):
        with pytest.raises(DataConflictError) as caught:
            bag.write_sync("key", 2, stage)
        error = caught.value
        assert (error.key, error.existing_writer, error.new_writer) == ("key", "first", stage)
        assert "'key'" in str(error)

    assert bag.read("key") == 1
    assert bag.get_writer("key") == "first"
    assert bag.get_writer("other") is None


@pytest.mark.spec("10.14.2")
def test_only_the_writer_may_replace_its_value() -> None:
    bag = ContextBag()
    bag.write_sync("key", 1, "first")

    bag.write_sync("key", 2, "first", allow_overwrite=True)
    with pytest.raises(DataConflictError):
        bag.write_sync("key", 3, "second", allow_overwrite=True)

    assert bag.read("key") == 2


@pytest.mark.spec("10.14.3")
def test_of_many_writing_threads_one_wins() -> None:
    bag = ContextBag()

    outcomes = many_at_once(lambda index: bag.write_sync(Slow("key"), index, f"stage {index}"))

    assert outcomes.count(None) == 1
    winner = outcomes.index(None)
    assert (bag.read("key"), bag.get_writer("key")) == (winner, f"stage {winner}")


@pytest.mark.spec("10.14.3")
async def test_of_many_writing_tasks_one_wins() -> None:
    bag = ContextBag()
    conflicts: list[DataConflictError] = []

    async def write(index: int) -> None:
        try:
            await bag.write("key", index, f"stage {index}")
        except DataConflictError as error:
            conflicts.append(error)

    async with trio.open_nursery() as nursery:
        for index in range(10):
            nursery.start_soon(write, index)

    assert len(conflicts) == 9
    assert bag.get_writer("key") == f"stage {bag.read('key')}"


@pytest.mark.spec("10.14.3")
def test_readers_never_see_a_half_written_state() -> None:
    bag = ContextBag()
    stop = threading.Event()

    def write(index: int) -> None:
        for number in range(200):
            bag.write_sync(f"{index}.{number}", f"stage {index}", f"stage {index}")
            if number % 50 == 49:
                bag.discard_writer(f"stage {index}")

    def read(_: int) -> None:
        while not stop.is_set():
            for key, value in bag.to_dict().items():
                assert bag.get_writer(key) in (value, None)
            bag.keys()

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, index) for index in range(2)]
        writers = [pool.submit(write, index) for index in range(2)]
        for writer in writers:
            writer.result()
        stop.set()
        for reader in readers:
            reader.result()


@pytest.mark.spec("10.14.4")
def test_bag_is_read_in_write_order_and_copied() -> None:
    bag = ContextBag()
    bag.write_sync("b", 1, "stage")
    bag.write_sync("a", 2, "stage")

    copy = bag.to_dict()
    copy["c"] = 3

    assert bag.to_dict() == {"b": 1, "a": 2}
    assert bag.keys() == ["b", "a"]
    assert ("a" in bag, bag.has("c"), len(bag)) == (True, False, 2)
    assert (bag.read("c"), bag.read("c", "nothing")) == (None, "nothing")


@pytest.mark.spec("10.14.5")
async def test_cancelled_write_has_written_nothing() -> None:
    bag = ContextBag()

    with trio.CancelScope() as scope:
        scope.cancel()
        await bag.write("key", 1, "stage")

    assert scope.cancelled_caught
    assert len(bag) == 0


@pytest.mark.spec("10.14.5")
async def test_write_lets_others_run() -> None:
    bag = ContextBag()

    with trio.testing.assert_checkpoints():
        await bag.write("key", 1, "stage")

    assert bag.read("key") == 1


def test_discarding_a_writer_forgets_its_keys_only() -> None:
    bag = ContextBag()
    bag.write_sync("a", 1, "first")
    bag.write_sync("b", 2, "second")
    bag.write_sync("c", 3, "first")

    discarded = bag.discard_writer("first")

    assert discarded == 2
    assert bag.to_dict() == {"b": 2}
    assert bag.discard_writer("first") == 0
    bag.write_sync("a", 4, "second")


@pytest.mark.spec("10.14.3")
def test_discarding_loses_nothing_that_is_written_meanwhile() -> None:
    bag = ContextBag()
    bag.write_sync(Slow("first"), 0, "stage")

    def act(index: int) -> None:
        if index % 2:
            bag.discard_writer("somebody else")
        else:
            bag.write_sync(Slow(index), index, "stage")

    many_at_once(act)

    assert len(bag) == 17


@pytest.mark.parametrize(
    ("key", "stage", "error", "argument"),
    [
        ("", "stage", InvalidArgumentError, "key"),
        ("key", "", InvalidArgumentError, "stage_name"),
        (None, "stage", InvalidTypeError, "key"),
        ("key", 5, InvalidTypeError, "stage_name"),
    ],
)
def test_bag_refuses_what_is_no_name(key: Any, stage: Any, error: type, argument: str) -> None:
    bag = ContextBag()

    with pytest.raises(error, match=f"^{argument} must be"):
        bag.write_sync(key, 1, stage)

    assert len(bag) == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), NAMES, NAMES, st.booleans()),
            st.tuples(st.just("discard"), NAMES),
        )
    )
)
@pytest.mark.spec("10.14.1", "10.14.2", "10.14.4")
def test_bag_behaves_like_its_rules(program: list[tuple[Any, ...]]) -> None:
    bag = ContextBag()
    expected: dict[str, tuple[str, int]] = {}
    for number, (operation, *arguments) in enumerate(program):
        if operation == "discard":
            [stage] = arguments
            left = {key: entry for key, entry in expected.items() if entry[0] != stage}
            assert bag.discard_writer(stage) == len(expected) - len(left)
            expected = left
            continue
        key, stage, overwrite = arguments
        if key in expected and not (overwrite and expected[key][0] == stage):
            with pytest.raises(DataConflictError):
                bag.write_sync(key, number, stage, allow_overwrite=overwrite)
        else:
            bag.write_sync(key, number, stage, allow_overwrite=overwrite)
            expected[key] = (stage, number)

        assert bag.keys() == list(expected)
        assert bag.to_dict() == {key: value for key, (_, value) in expected.items()}


# OutputBag


@pytest.mark.spec("10.15.1")
def test_second_output_of_a_stage_conflicts_and_changes_nothing() -> None:
    bag = OutputBag()
    first = bag.write_sync("stage", StageOutput.ok(n=1))

    with pytest.raises(OutputConflictError) as caught:
        bag.write_sync("stage", StageOutput.ok(n=2))

    assert (caught.value.stage_name, caught.value.existing_attempt) == ("stage", 1)
    assert first.attempt == 1
    assert bag.get("stage") is first
    assert bag.history("stage") == (first,)


@pytest.mark.spec("10.15.2")
def test_overwriting_an_output_is_the_next_attempt_and_keeps_the_earlier_ones() -> None:
    bag = OutputBag(history_limit=3)

    entries = [bag.write_sync("stage", StageOutput.ok(n=n), allow_overwrite=True) for n in range(5)]

    assert [entry.attempt for entry in entries] == [1, 2, 3, 4, 5]
    assert bag.get("stage") is entries[-1]
    assert bag.history("stage") == tuple(entries[2:])
    assert bag.get_attempt_count("stage") == 5
    assert (bag.history("other"), bag.get_attempt_count("other")) == ((), 0)


@pytest.mark.spec("10.15.2", "10.15.3")
def test_history_holds_a_hundred_attempts_unless_told_otherwise() -> None:
    bag = OutputBag()

    for n in range(102):
        bag.write_sync("stage", StageOutput.ok(n=n), allow_overwrite=True)

    kept = bag.history("stage")
    assert (len(kept), kept[0].attempt, kept[-1].attempt) == (100, 3, 102)


@pytest.mark.spec("10.15.3")
def test_of_many_threads_one_records_and_nothing_is_lost() -> None:
    bag = OutputBag()

    first = many_at_once(lambda n: bag.write_sync(Slow("one"), StageOutput.ok(n=n)))
    many_at_once(lambda n: bag.write_sync(Slow("all"), StageOutput.ok(n=n), allow_overwrite=True))

    assert sum(isinstance(outcome, OutputConflictError) for outcome in first) == 31
    assert [entry.attempt for entry in bag.history("all")] == list(range(1, 33))
    assert {entry.output.data["n"] for entry in bag.history("all")} == set(range(32))


@pytest.mark.spec("10.15.3")
async def test_outputs_are_consistent_copies_in_first_write_order() -> None:
    bag = OutputBag()
    await bag.write("b", StageOutput.ok(n=1))
    await bag.write("a", StageOutput.ok(n=2))
    await bag.write("b", StageOutput.ok(n=3), allow_overwrite=True)

    outputs, entries = bag.outputs(), bag.entries()
    bag.write_sync("c", StageOutput.ok())

    assert list(outputs) == list(entries) == ["b", "a"]
    assert outputs["b"].data == {"n": 3}
    assert entries["b"].attempt == 2
    outputs.clear()
    assert bag.keys() == ["b", "a", "c"]
    assert ("a" in bag, bag.has("d"), len(bag)) == (True, False, 3)


async def test_cancelled_write_has_recorded_nothing() -> None:
    bag = OutputBag()

    with trio.CancelScope() as scope:
        scope.cancel()
        await bag.write("stage", StageOutput.ok())

    assert scope.cancelled_caught
    assert len(bag) == 0


@pytest.mark.spec("10.15.4")
def test_retried_stages_are_those_above_their_first_attempt() -> None:
    bag = OutputBag()
    for stage in ("a", "b", "b", "c", "c", "c"):
        bag.write_sync(stage, StageOutput.ok(), allow_overwrite=True)

    assert bag.get_retry_stages() == ["b", "c"]


def test_values_of_outputs_are_read_by_stage_and_key() -> None:
    bag = OutputBag()
    output = StageOutput.ok(text="hi")
    bag.write_sync("stage", output)

    assert bag.get_output("stage") is output
    assert bag.get_value("stage", "text") == "hi"
    assert (bag.get_value("stage", "x", 1), bag.get_value("other", "x", 2)) == (1, 2)
    assert (bag.get("other"), bag.get_output("other")) == (None, None)


@pytest.mark.spec("10.15.5")
async def test_entries_are_written_as_json(mock_clock: MockClock) -> None:
    bag = OutputBag()
    failed = StageOutput.fail("broken", {"at": {1, 2}, "place": 1 + 2j}).with_duration(2.5)
    bag.write_sync("a", failed)
    entry = bag.write_sync(
        "b",
        StageOutput.ok(artifacts=[StageArtifact("file")], events=[StageEvent("x")] * 2),
    )
    bag.write_sync("a", failed, allow_overwrite=True)

    told = bag.to_dict()

    assert list(told) == ["entries", "stage_count", "total_attempts"]
    assert (told["stage_count"], told["total_attempts"]) == (2, 3)
    assert list(told["entries"]) == ["a", "b"]
    assert told["entries"]["a"] == {
        "stage_name": "a",
        "attempt": 2,
        "timestamp": entry.timestamp.isoformat(),
        "status": "fail",
        "data": {"at": [1, 2], "place": "(1+2j)"},
        "error": "broken",
        "duration_ms": 2.5,
        "artifacts_count": 0,
        "events_count": 0,
    }
    assert list(told["entries"]["a"]) == list(told["entries"]["b"])
    assert told["entries"]["b"]["artifacts_count"] == 1
    assert told["entries"]["b"]["events_count"] == 2
    assert entry.timestamp.tzinfo is timezone.utc


def test_entries_cannot_be_changed() -> None:
    entry = OutputBag().write_sync("stage", StageOutput.ok())

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        entry.attempt = 5  # type: ignore[misc]


def test_output_bag_refuses_what_is_no_output() -> None:
    bag = OutputBag()
    no_output: Any = {"a": 1}

    with pytest.raises(InvalidTypeError, match="output must be a StageOutput"):
        bag.write_sync("stage", no_output)
    with pytest.raises(InvalidArgumentError, match="stage_name must be"):
        bag.write_sync("", StageOutput.ok())
    with pytest.raises(InvalidArgumentError, match="history_limit must be at least 1"):
        OutputBag(history_limit=0)
