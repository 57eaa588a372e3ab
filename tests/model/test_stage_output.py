from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.model import (
    FrozenDict,
    StageArtifact,
    StageEvent,
    StageKind,
    StageOutput,
    StageStatus,
)

# Kinds and statuses


@pytest.mark.spec("10.2.1")
def test_kinds_and_statuses_are_exactly_these() -> None:
    assert {kind.name: kind.value for kind in StageKind} == {
        "TRANSFORM": "transform",
        "ENRICH": "enrich",
        "ROUTE": "route",
        "GUARD": "guard",
        "WORK": "work",
        "AGENT": "agent",
    }
    assert {status.name: status.value for status in StageStatus} == {
        "OK": "ok",
        "SKIP": "skip",
        "CANCEL": "cancel",
        "FAIL": "fail",
        "RETRY": "retry",
    }
    assert str(StageKind.WORK) == "work"


@pytest.mark.spec("10.2.2")
def test_a_status_may_be_given_by_its_value() -> None:
    assert StageOutput("skip").status is StageStatus.SKIP
    assert StageOutput.from_dict({"status": "skip"}).status is StageStatus.SKIP
    assert StageKind("guard") is StageKind.GUARD


@pytest.mark.spec("10.2.2")
@pytest.mark.parametrize("enum", [StageKind, StageStatus])
@pytest.mark.parametrize("unknown", ["OK", "good", "", None, 5])
def test_unknown_values_are_refused_with_the_known_ones(
    enum: type[StageKind], unknown: Any
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        enum(unknown)

    assert all(member.value in str(refused.value) for member in enum)
    assert refused.value.found == unknown


# Factories

ARTIFACT = StageArtifact("report")
EVENT = StageEvent("seen")
COMMON: dict[str, Any] = {"metadata": {"m": 1}, "version": "v2"}


@pytest.mark.spec("10.3.1")
@pytest.mark.parametrize(
    ("output", "status", "fields"),
    [
        (StageOutput.ok(), "ok", {}),
        (
            StageOutput.ok({"a": 1}, artifacts=[ARTIFACT], events=(EVENT,), **COMMON),
            "ok",
            {"data": {"a": 1}, "artifacts": (ARTIFACT,), "events": (EVENT,), **COMMON},
        ),
        (StageOutput.skip(), "skip", {"data": {"reason": ""}}),
        (
            StageOutput.skip("no audio", {"a": 1}, **COMMON),
            "skip",
            {"data": {"reason": "no audio", "a": 1}, **COMMON},
        ),
        (StageOutput.skip("x", {"reason": "y"}), "skip", {"data": {"reason": "y"}}),
        (StageOutput.cancel(), "cancel", {"data": {"cancel_reason": ""}}),
        (
            StageOutput.cancel("enough", {"a": 1}, **COMMON),
            "cancel",
            {"data": {"cancel_reason": "enough", "a": 1}, **COMMON},
        ),
        (StageOutput.fail(), "fail", {"error": "Unknown error"}),
        (StageOutput.fail(""), "fail", {"error": "Unknown error"}),
        (
            StageOutput.fail("broken", {"a": 1}, retryable=True, **COMMON),
            "fail",
            {"error": "broken", "data": {"a": 1}, "retryable": True, **COMMON},
        ),
        (StageOutput.retry(), "retry", {"error": "Retry requested", "retryable": True}),
        (
            StageOutput.retry("busy", {"a": 1}, retryable=False, **COMMON),
            "retry",
            {"error": "busy", "data": {"a": 1}, "retryable": False, **COMMON},
        ),
    ],
)
def test_factories_make_what_the_table_says(
    output: StageOutput, status: str, fields: dict[str, Any]
) -> None:
    defaults: dict[str, Any] = {
        "data": {},
        "artifacts": (),
        "events": (),
        "error": None,
        "error_type": None,
        "retryable": False,
        "metadata": {},
        "duration_ms": None,
        "version": None,
    }

    assert output.status == status
    for name, expected in (defaults | fields).items():
        assert getattr(output, name) == expected, name


@pytest.mark.spec("10.3.2")
def test_data_and_keywords_are_merged() -> None:
    assert StageOutput.ok({"a": 1}, b=2).data == {"a": 1, "b": 2}
    assert StageOutput.ok({}, a=1).data == {"a": 1}
    assert StageOutput.ok(a=1).data == {"a": 1}
    assert StageOutput.ok(data={"a": 1}).data == {"a": 1}
    assert StageOutput.ok(cls=1, self=2).data == {"cls": 1, "self": 2}
    assert StageOutput.ok().data == {}
    assert StageOutput.ok(MappingProxyType({"a": 1}), b=2).data == {"a": 1, "b": 2}


@pytest.mark.spec("10.3.2")
def test_a_key_given_twice_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match="a, c"):
        StageOutput.ok({"a": 1, "b": 2, "c": 3}, c=3, a=1)


class MuteError(Exception):
    def __str__(self) -> str:
        raise ArithmeticError("has no text")


class EmptyError(Exception):
    pass


@pytest.mark.spec("10.3.3")
@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        (ValueError("wrong"), "wrong", "ValueError"),
        (EmptyError(), "EmptyError", "EmptyError"),
        (KeyboardInterrupt("stop"), "stop", "KeyboardInterrupt"),
        (MuteError(), "MuteError", "MuteError"),
    ],
)
def test_an_exception_says_what_failed(error: BaseException, text: str, kind: str) -> None:
    output = StageOutput.fail(error)

    assert (output.error, output.error_type) == (text, kind)


@pytest.mark.spec("10.3.4")
@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (StageOutput.ok(reason="none of this"), ""),
        (StageOutput.skip("why"), "why"),
        (StageOutput("skip"), ""),
        (StageOutput.cancel("why"), "why"),
        (StageOutput("cancel"), ""),
        (StageOutput.fail("why"), "why"),
        (StageOutput.retry("why"), "why"),
        (StageOutput("fail"), ""),
    ],
)
def test_the_reason_is_where_the_status_keeps_it(output: StageOutput, reason: str) -> None:
    assert output.reason == reason


@pytest.mark.spec("10.3.5")
@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda output: output.with_duration(1.5), "duration_ms", 1.5),
        (lambda output: output.with_version("v3"), "version", "v3"),
        (lambda output: output.with_metadata(b=2, a=3), "metadata", {"a": 3, "b": 2}),
    ],
)
def test_with_gives_another_output_that_shares_the_data(
    change: Callable[[StageOutput], StageOutput], field: str, value: object
) -> None:
    output = StageOutput.ok({"big": ["data"]}, artifacts=[ARTIFACT], metadata={"a": 1})
    before = output.to_dict()

    changed = change(output)

    assert output.to_dict() == before
    assert getattr(changed, field) == value
    assert changed.data is output.data
    assert changed.to_dict() | {field: None} == before | {field: None}


@pytest.mark.spec("10.3.6")
def test_an_output_is_written_in_ten_fields() -> None:
    output = StageOutput.ok(
        {"uid": b"x"}, artifacts=[ARTIFACT], events=[EVENT], **COMMON
    ).with_duration(2)

    written = output.to_dict()

    assert list(written) == [
        "status",
        "data",
        "artifacts",
        "events",
        "error",
        "error_type",
        "retryable",
        "metadata",
        "duration_ms",
        "version",
    ]
    assert written["artifacts"] == [ARTIFACT.to_dict()]
    assert StageOutput.from_dict(written).artifacts == (ARTIFACT,)
    assert StageOutput.from_dict({"status": "ok"}) == StageOutput.ok()


@pytest.mark.spec("10.3.7")
@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (None, StageOutput.ok()),
        ({"a": 1}, StageOutput.ok(a=1)),
        (MappingProxyType({"a": 1}), StageOutput.ok(a=1)),
        # Keys that `ok` has arguments for are data like any other.
        ({"data": 1, "metadata": 2}, StageOutput("ok", {"data": 1, "metadata": 2})),
    ],
)
def test_what_a_stage_returns_is_an_output(returned: object, output: StageOutput) -> None:
    assert StageOutput.from_returned(returned) == output


@pytest.mark.spec("10.3.7")
def test_an_output_that_is_returned_stays_itself() -> None:
    output = StageOutput.skip("x")

    assert StageOutput.from_returned(output) is output


@pytest.mark.spec("10.3.7")
@pytest.mark.parametrize("returned", [5, "text", [1], [("a", 1)], StageOutput])
def test_anything_else_returned_is_refused(returned: object) -> None:
    with pytest.raises(InvalidTypeError, match="a StageOutput, a mapping or None"):
        StageOutput.from_returned(returned)


# Bad input


@pytest.mark.parametrize(
    "make",
    [
        lambda: StageOutput.ok([1]),  # type: ignore[arg-type]
        lambda: StageOutput.ok("text", a=1),  # type: ignore[arg-type]
        lambda: StageOutput.skip("x", [1]),  # type: ignore[arg-type]
        lambda: StageOutput.cancel("x", "text"),  # type: ignore[arg-type]
        lambda: StageOutput.fail("x", 5),  # type: ignore[arg-type]
        lambda: StageOutput("ok", None),  # type: ignore[arg-type]
    ],
)
def test_data_has_to_be_a_mapping(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidTypeError, match="data must be a mapping"):
        make()


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: StageOutput.ok(artifacts=[EVENT]), "artifacts[0]"),  # type: ignore[list-item]
        (lambda: StageOutput.ok(artifacts=ARTIFACT), "artifacts"),  # type: ignore[arg-type]
        (lambda: StageOutput.ok(events=[EVENT, {"type": "x"}]), "events[1]"),  # type: ignore[list-item]
        (lambda: StageOutput.ok(events="x"), "events"),  # type: ignore[arg-type]
    ],
)
def test_artifacts_and_events_have_their_types(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(InvalidTypeError) as refused:
        make()

    assert refused.value.argument == argument


@pytest.mark.parametrize("status", ["ok", "skip", "cancel"])
def test_only_failures_may_be_retryable(status: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"status {status}"):
        StageOutput(status, retryable=True)


@pytest.mark.spec("W50")
def test_retry_says_how_long_to_wait() -> None:
    output = StageOutput.retry("busy", {"queue": 7}, retry_after_ms=250)

    assert output.data == {"queue": 7, "retry_after_ms": 250}
    assert StageOutput.retry("busy", retry_after_ms=0).data == {"retry_after_ms": 0}


@pytest.mark.parametrize("wait", [-1, math.nan, math.inf])
def test_retry_refuses_waits_that_are_none(wait: float) -> None:
    with pytest.raises(InvalidArgumentError, match="retry_after_ms must be 0 or more, finite"):
        StageOutput.retry(retry_after_ms=wait)


def test_retry_refuses_two_waits() -> None:
    with pytest.raises(InvalidArgumentError, match="retry_after_ms must be in only one"):
        StageOutput.retry(data={"retry_after_ms": 1}, retry_after_ms=2)


# Artifacts and events


@pytest.mark.spec("10.4.1")
@pytest.mark.parametrize("cls", [StageArtifact, StageEvent])
async def test_timestamps_follow_the_clock(cls: type[StageArtifact], mock_clock: MockClock) -> None:
    before = cls("x").timestamp
    assert before == clock.now()

    mock_clock.jump(60)

    assert cls("x").timestamp - before == timedelta(minutes=1)
    assert before.tzinfo is timezone.utc


@pytest.mark.spec("10.4.2")
def test_artifacts_and_events_are_written_by_field() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)

    assert StageArtifact("report", {"n": (1,)}, noon).to_dict() == {
        "type": "report",
        "payload": {"n": [1]},
        "timestamp": "2024-05-01T12:00:00+00:00",
    }
    assert list(StageEvent("seen", {"n": 1}, noon).to_dict()) == ["type", "data", "timestamp"]
    assert StageEvent("seen").data == FrozenDict()


@pytest.mark.parametrize("cls", [StageArtifact, StageEvent])
def test_artifacts_and_events_are_checked(cls: type[StageArtifact]) -> None:
    with pytest.raises(InvalidArgumentError, match="type"):
        cls("")
    with pytest.raises(InvalidTypeError, match="type must be a string"):
        cls(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="timestamp must be a datetime"):
        cls("x", {}, "now")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="timestamp"):
        cls("x", {}, datetime(2024, 5, 1))  # noqa: DTZ001
    with pytest.raises(InvalidArgumentError, match="timestamp"):
        cls("x", {}, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))


def test_times_are_kept_in_utc() -> None:
    cet = timezone(timedelta(hours=1))
    event = StageEvent("x", {}, datetime(2024, 5, 1, 13, tzinfo=cet))

    assert event.timestamp.isoformat() == "2024-05-01T12:00:00+00:00"
