from __future__ import annotations

import ast
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import actorflow
from actorflow import clock

PACKAGE = Path(actorflow.__file__).parent
START = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc).timestamp()


@pytest.mark.spec("G86")
def test_now_is_the_machines_time_in_utc() -> None:
    before = time.time()
    now = clock.now()
    after = time.time()

    assert now.tzinfo is timezone.utc
    # A datetime holds microseconds.
    assert before - 1e-6 <= now.timestamp() <= after + 1e-6


@pytest.mark.spec("G86")
async def test_now_is_the_machines_time_inside_a_run_as_well() -> None:
    assert clock.timestamp() == pytest.approx(time.time(), abs=60)


@pytest.mark.spec("G86")
async def test_an_hour_on_the_mock_clock_is_an_hour_between_timestamps(
    mock_clock: MockClock,
) -> None:
    before, monotonic_before = clock.now(), clock.monotonic()

    mock_clock.jump(3600)

    assert clock.now() - before == timedelta(hours=1)
    assert clock.monotonic() - monotonic_before == 3600


@pytest.mark.spec("G86")
async def test_monotonic_is_trios_time_inside_a_run() -> None:
    assert clock.monotonic() == pytest.approx(trio.current_time(), abs=60)


@pytest.mark.spec("G86")
def test_monotonic_is_the_machines_outside_of_a_run() -> None:
    assert time.monotonic() <= clock.monotonic() <= time.monotonic()


async def test_setting_the_machines_clock_leaves_a_running_clock_alone(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = clock.timestamp()

    monkeypatch.setattr(time, "time", lambda: 0.0)
    mock_clock.jump(1)

    assert clock.timestamp() == pytest.approx(before + 1)


def test_wall_time_stands_still_outside_of_a_run_once_it_has_a_start() -> None:
    with clock.starting_at(START):
        first = clock.now()
        second = clock.now()

    assert first == second == datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
    assert clock.timestamp() > START + 86_400


def test_wall_time_moves_with_trio_from_its_start() -> None:
    async def main() -> None:
        assert clock.timestamp() == START
        await trio.sleep(90)
        assert clock.timestamp() == START + 90

    with clock.starting_at(START):
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_starts_nest_and_give_the_time_from_before_back(mock_clock: MockClock) -> None:
    before = clock.timestamp()
    with clock.starting_at(START):
        mock_clock.jump(1)
        # The first look ties wall time to the clock.
        assert clock.timestamp() == START
        with clock.starting_at(0):
            assert clock.timestamp() == 0
        mock_clock.jump(1)
        assert clock.timestamp() == START + 1

    assert clock.timestamp() == before + 2


def test_start_is_undone_by_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), clock.starting_at(0):
        raise ZeroDivisionError

    assert clock.timestamp() > START


# Ways around `clock` and `ids`.
FORBIDDEN = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "monotonic"),
    ("time", "monotonic_ns"),
    ("time", "perf_counter"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
}


def readings(source: str) -> list[str]:
    """Where a source reads the machine's clock or makes ids by itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if (owner, node.attr) in FORBIDDEN:
                found.append(f"{node.lineno}: {owner}.{node.attr}")
        if isinstance(node, ast.ImportFrom):
            found += [
                f"{node.lineno}: from {node.module} import {name.name}"
                for name in node.names
                if (node.module, name.name) in FORBIDDEN
            ]
    return found


@pytest.mark.spec("G86")
def test_readings_are_found() -> None:
    source = """
import time, datetime
from uuid import UUID, uuid4
time.time(); datetime.datetime.now(); clock.now(); trio.current_time()
"""

    assert readings(source) == [
        "3: from uuid import uuid4",
        "4: time.time",
        "4: datetime.now",
    ]


@pytest.mark.spec("G86")
def test_every_time_and_id_of_the_package_comes_from_clock_and_ids() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "clock.py" and (lines := readings(path.read_text("utf-8")))
    }

    assert found == {}


@pytest.mark.spec("G86")
def test_each_clock_keeps_the_wall_time_it_was_tied_to() -> None:
    first, second = MockClock(), MockClock()
    second.jump(50)

    async def look() -> float:
        return clock.timestamp()

    with clock.starting_at(1000):
        assert trio.run(look, clock=first) == 1000
        assert trio.run(look, clock=second) == 1000
        first.jump(5)
        assert trio.run(look, clock=first) == 1005
