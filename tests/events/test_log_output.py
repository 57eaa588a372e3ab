from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import CapturingLogger

from actorflow.errors import InvalidEventSinkError
from actorflow.events import BoundEventSink, JsonLogFormatter, StructlogEventSink, setup_logging
from actorflow.events._log_output import _handlers


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """Leave logging as it was."""
    root, own = logging.getLogger(), logging.getLogger("actorflow")
    before = (list(root.handlers), own.level)
    root_level = root.level
    yield
    for handler in _handlers:
        handler.close()
    _handlers.clear()
    root.handlers[:], level = before
    own.setLevel(level)
    root.setLevel(root_level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def logged(logger: CapturingLogger) -> list[tuple[Any, Any]]:
    return [(call.args, call.kwargs) for call in logger.calls]


# StructlogEventSink


@pytest.mark.spec("E105")
async def test_event_becomes_an_entry() -> None:
    logger = CapturingLogger()
    sink = StructlogEventSink(logger)

    sink.try_emit(type="order.placed", data={"amount": 3})
    await sink.emit(type="order.placed", data=None)
    assert sink.offer(type="order.placed", data=None)

    assert logged(logger) == [
        ((logging.INFO, "order.placed"), {"amount": 3}),
        ((logging.INFO, "order.placed"), {}),
        ((logging.INFO, "order.placed"), {}),
    ]


@pytest.mark.spec("E105")
def test_keys_that_are_taken_are_renamed() -> None:
    logger = CapturingLogger()

    StructlogEventSink(logger).try_emit(
        type="a", data={"event": 1, "level": 2, "logger": 3, "timestamp": 4, "stage": 5}
    )

    assert logged(logger)[0][1] == {
        "data_event": 1,
        "data_level": 2,
        "data_logger": 3,
        "event_timestamp": 4,
        "stage": 5,
    }


@pytest.mark.spec("E105")
@pytest.mark.parametrize(
    ("type", "level"),
    [
        ("stage.failed", logging.WARNING),
        ("work.compensation_failed", logging.WARNING),
        ("guard_retry.exhausted", logging.WARNING),
        ("stage.retry_exhausted", logging.WARNING),
        ("guardrail.fail_open", logging.WARNING),
        ("memory.growth_warning", logging.WARNING),
        ("uuid.collision", logging.WARNING),
        ("stream.chunk_dropped", logging.DEBUG),
        ("memory.sample", logging.DEBUG),
        ("stage.completed", logging.INFO),
        ("failed", logging.INFO),
    ],
)
def test_type_decides_the_level(type: str, level: int) -> None:
    logger = CapturingLogger()

    StructlogEventSink(logger).try_emit(type=type, data=None)

    assert logged(logger) == [((level, type), {})]


@pytest.mark.spec("E105")
def test_levels_may_be_chosen_by_prefix() -> None:
    logger = CapturingLogger()
    sink = StructlogEventSink(logger, levels={"stage.": "debug", "stage.failed": "error", "x": 35})

    for type in ("stage.started", "stage.failed", "xyz", "pipeline.failed"):
        sink.try_emit(type=type, data=None)

    assert [args[0] for args, _ in logged(logger)] == [10, 40, 35, 30]
    with pytest.raises(InvalidEventSinkError):
        StructlogEventSink(levels={"a": "loud"})


@pytest.mark.spec("E7", "E105")
async def test_structlog_sink_may_be_used_from_any_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sink = StructlogEventSink()

    await trio.to_thread.run_sync(lambda: sink.try_emit(type="order.placed", data={"amount": 3}))

    assert "order.placed" in capsys.readouterr().out


# setup_logging


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.spec("E107")
def test_record_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    setup_logging(log_file=path)

    logging.getLogger("mine").error("it broke: %s", "badly", extra={"stage": "llm"})
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("mine").exception("failed")

    first, second = lines(path)
    assert first.pop("timestamp").endswith("+00:00")
    assert first == {
        "level": "error",
        "logger": "mine",
        "message": "it broke: badly",
        "stage": "llm",
    }
    assert second["exception"].splitlines()[-1] == "ValueError: no"


@pytest.mark.spec("E107")
async def test_lines_of_users_carry_what_is_bound(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    setup_logging(log_file=path)

    with structlog.contextvars.bound_contextvars(pipeline_run_id="r-1", stage="llm"):
        structlog.get_logger("mine").info("by structlog", tokens=3)
        logging.getLogger("mine").warning("by logging")
    structlog.get_logger("actorflow.mine").info("outside")

    entries = lines(path)
    assert [entry["message"] for entry in entries] == ["by structlog", "by logging", "outside"]
    for entry in entries[:2]:
        assert entry.items() >= {"pipeline_run_id": "r-1", "stage": "llm"}.items()
    assert entries[0]["tokens"] == 3
    assert "stage" not in entries[2]


@pytest.mark.spec("E107")
@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_shows_what_is_for_debugging(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(verbose=verbose, json_format=True)

    logging.getLogger("actorflow.events").debug("event_not_emitted")
    logging.getLogger("actorflow.events").info("shown")
    logging.getLogger("others").info("shown too")
    logging.getLogger("others").debug("not shown")

    messages = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert messages == [*(["event_not_emitted"] if verbose else []), "shown", "shown too"]


@pytest.mark.spec("E107")
def test_entries_for_people_are_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()

    logging.getLogger("actorflow.events").warning("event_emit_failed", extra={"event_type": "a"})

    (line,) = capsys.readouterr().err.splitlines()
    assert "event_emit_failed" in line
    assert "event_type=a" in line
    assert "\x1b" not in line


USERS_PROGRAM = """
import sys, structlog, trio
from actorflow import Pipeline, StageContext, stage
from actorflow.events import setup_logging

setup_logging(json_format=sys.argv[1] == "json")
log = structlog.get_logger("shop")

@stage
async def pay(ctx: StageContext) -> None:
    card = "4111 1111 1111 1111"
    log.info("charging", amount=3, coupon=None)
    try:
        raise LookupError("no such card")
    except LookupError:
        log.exception("refused")

trio.run(Pipeline.from_stages(pay, name="checkout").run)
log.info("over")
"""


def written_by_users(kind: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", USERS_PROGRAM, kind], check=True, capture_output=True, text=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.spec("E106", "E107")
def test_in_development_a_stage_writes_lines_for_people() -> None:
    lines = written_by_users("readable")

    (charging,) = [line for line in lines if "charging" in line]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[info +\] charging +\[shop\] amount=3 ", charging)
    assert re.search(r" attempt=1 .*pipeline_run_id=[\w-]{36} .*stage=pay", charging)
    assert "coupon" not in charging
    assert "\x1b" not in "".join(lines)
    assert "LookupError: no such card" in lines
    # Local variables belong to users, and a log is no place for them.
    assert "4111" not in "".join(lines)
    assert "stage=" not in lines[-1]


@pytest.mark.spec("E106", "E107")
def test_in_production_a_stage_writes_json() -> None:
    entries = [*map(json.loads, written_by_users("json"))]

    (charging,) = [entry for entry in entries if entry["message"] == "charging"]
    expected = {"level": "info", "logger": "shop", "amount": 3, "stage": "pay", "attempt": 1}
    assert charging.items() >= expected.items()
    assert {"pipeline_run_id", "request_id", "timestamp"} <= charging.keys()
    (refused,) = [entry for entry in entries if entry["message"] == "refused"]
    assert refused["exception"].splitlines()[-1] == "LookupError: no such card"
    assert entries[-1]["message"] == "over"
    assert "stage" not in entries[-1]


@pytest.mark.spec("E107")
@pytest.mark.parametrize(("before", "after"), [("DEBUG", "DEBUG"), ("WARNING", "INFO")])
def test_whoever_wants_to_know_more_still_does(before: str, after: str) -> None:
    root = logging.getLogger()
    root.setLevel(before)

    setup_logging()

    assert logging.getLevelName(root.level) == after


@pytest.mark.spec("E107")
def test_setting_up_again_replaces_only_what_was_set_up(tmp_path: Path) -> None:
    root = logging.getLogger()
    others = logging.NullHandler()
    root.addHandler(others)
    before = list(root.handlers)

    setup_logging(log_file=tmp_path / "first.jsonl")
    setup_logging(log_file=tmp_path / "second.jsonl")
    logging.getLogger("mine").error("once")
    assert len(root.handlers) == len(before) + 2
    setup_logging()

    assert len(root.handlers) == len(before) + 1
    assert root.handlers[: len(before)] == before
    assert (tmp_path / "first.jsonl").read_text() == ""
    assert len(lines(tmp_path / "second.jsonl")) == 1


def test_structlog_of_others_is_left_alone() -> None:
    structlog.configure(processors=[])

    setup_logging()

    assert structlog.get_config()["processors"] == []


@pytest.mark.spec("E104")
def test_importing_configures_nothing() -> None:
    program = (
        "import logging, actorflow, actorflow.events, structlog\n"
        "assert not structlog.is_configured()\n"
        "assert not logging.getLogger().handlers\n"
        "loggers = logging.Logger.manager.loggerDict.items()\n"
        "own = [(n, l) for n, l in loggers if isinstance(l, logging.Logger) and 'actorflow' in n]\n"
        "assert own and all(not l.handlers and l.level == 0 for _, l in own), own\n"
        "assert all(name.startswith('actorflow') for name, _ in own), own\n"
    )

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.spec("E104")
def test_records_of_events_are_key_values(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def emit(self, **_: Any) -> None: ...

        def try_emit(self, **_: Any) -> None:
            raise OSError("full")

    BoundEventSink(Broken()).try_emit(type="a", data=None)

    (record,) = caplog.records
    written = json.loads(JsonLogFormatter().format(record))
    assert written["message"] == "event_emit_failed"
    assert written["event_type"] == "a"
    assert written["error"] == "OSError('full')"
