from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

import actorflow
from actorflow.events import CATALOGUE, BoundEventSink, Delivery, validate_event
from actorflow.events._catalogue import FAMILIES
from actorflow.testing import CatalogueViolation, RecordingEventSink
from docs import write_events

PACKAGE: Final = Path(actorflow.__file__).parent
GOLDEN: Final = Path(__file__).parent.parent / "golden" / "catalogue.json"

JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

COMPLETED: Final[Mapping[str, Any]] = {
    "stage": "llm",
    "kind": None,
    "attempt": 1,
    "status": "ok",
    "tries": 1,
    "duration_ms": 1.5,
}
SUMMARY: Final[Mapping[str, Any]] = {
    "stage": "llm",
    "status": "completed",
    "started_at": "2026-01-01T00:00:00+00:00",
    "ended_at": "2026-01-01T00:00:01+00:00",
    "duration_ms": 1000,
    "error": None,
    "data_keys": ["answer"],
}
IDS: Final = (
    *("pipeline_run_id", "request_id", "session_id", "user_id", "org_id"),
    *("topology", "execution_mode", "service"),
)
WIDE: Final[Mapping[str, Any]] = {
    **dict.fromkeys(IDS),
    "pipeline_name": "p",
    "status": "completed",
    "duration_ms": None,
    "stage_counts": {"completed": 1},
    "stage_details": [SUMMARY],
}

NAMED_LIKE_AN_EVENT: Final = re.compile(rf"(?:{'|'.join(sorted(FAMILIES))})\.[a-z_]*[a-z]")


def event_names(source: str) -> Iterator[str]:
    """Every literal that reads like a type of the catalogue, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Constant(value=str(text)) if NAMED_LIKE_AN_EVENT.fullmatch(text):
                yield text


def positional_emissions(source: str) -> Iterator[int]:
    """Lines of calls that hand an event to a sink by position."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="emit" | "try_emit", value=sink), args=[_, *_]):
                if ast.unparse(sink).endswith(("sink", "downstream")):
                    yield node.lineno


def package_sources() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8")


@pytest.mark.spec("E67")
def test_every_type_the_package_names_is_in_the_catalogue() -> None:
    unknown = {
        f"{path}: {name}"
        for path, source in package_sources()
        # Attributes of spans are called alike.
        if not path.endswith(("_tracing.py", "_otel.py"))
        for name in event_names(source)
        if name not in CATALOGUE
    }

    assert not unknown


def test_collector_sees_types_and_positions() -> None:
    source = (
        "sink.try_emit(type='stage.danced', data={}); self._sink.emit('a', {}); x = 'order.placed'"
    )

    assert list(event_names(source)) == ["stage.danced"]
    assert list(positional_emissions(source)) == [1]


@pytest.mark.spec("E1", "E5")
def test_nothing_in_the_package_emits_by_position() -> None:
    positional = [
        f"{path}:{line}"
        for path, source in package_sources()
        for line in positional_emissions(source)
    ]

    assert not positional


def test_catalogue_rows_are_complete() -> None:
    assert {
        "pipeline.started",
        "stage.failed",
        "work.in_doubt",
        "session.closed",
    } < CATALOGUE.keys()
    for type, spec in CATALOGUE.items():
        assert spec.type == type
        assert spec.doc.endswith("."), type
        assert spec.keys, type
    assert CATALOGUE["stage.completed"].delivery is Delivery.TRY
    assert CATALOGUE["pipeline.completed"].delivery is Delivery.WAIT


@pytest.mark.spec("E120")
def test_catalogue_changes_on_purpose_only() -> None:
    pinned = {
        type: {
            "delivery": spec.delivery.value,
            "keys": {key.name: key.type for key in spec.keys if key.required},
            "keys_at_times": {key.name: key.type for key in spec.keys if not key.required},
        }
        for type, spec in CATALOGUE.items()
    }
    text = json.dumps(pinned, indent=2, sort_keys=True) + "\n"
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(text, "utf-8")

    assert GOLDEN.read_text("utf-8") == text, "users read these keys; see WRITE_GOLDEN=1"


def test_reference_page_shows_the_catalogue() -> None:
    assert write_events.PAGE.read_text("utf-8") == write_events.page(), (
        "run `python -m docs.write_events`"
    )


@pytest.mark.spec("E116")
def test_payload_as_promised_has_no_complaints() -> None:
    assert validate_event("stage.completed", COMPLETED) == []
    assert validate_event("stage.completed", {**COMPLETED, "duration_ms": 2}) == []
    assert validate_event("stage.skipped", None) != []


@pytest.mark.spec("E116", "E68")
@pytest.mark.parametrize(
    ("type", "data", "complaint"),
    [
        ("stage.completed", {**COMPLETED, "kind": 3}, "kind must be str, found 3"),
        ("stage.completed", {**COMPLETED, "attempt": True}, "attempt must be int, found True"),
        ("stage.completed", {**COMPLETED, "attempt": "1"}, "attempt must be int, found '1'"),
        ("stage.completed", {**COMPLETED, "tokens": 3}, "tokens is not a key of this event"),
        (
            "stage.completed",
            {key: value for key, value in COMPLETED.items() if key != "tries"},
            "tries is missing",
        ),
        (
            "stage.completed",
            {**COMPLETED, "status": "fail"},
            "status must be one of 'ok', 'cancel', found 'fail'",
        ),
        (
            "stage.completed",
            {**COMPLETED, "duration_ms": 1.23456},
            "duration_ms must be rounded to 3 decimals, found 1.23456",
        ),
        (
            "stage.completed",
            {**COMPLETED, "duration_ms": float("inf")},
            "duration_ms must be a finite number, found inf",
        ),
        (
            "stage.completed",
            {**COMPLETED, "seq": 1, "timestamp": "2026-01-01T00:00:00+00:00", "request_id": None,
             "execution_mode": None},
            "pipeline_run_id is missing beside seq",
        ),
        (
            "pipeline.wide",
            {**WIDE, "stage_details": [{**SUMMARY, "data_keys": ["a", 1]}]},
            "stage_details[0].data_keys[1] must be str, found 1",
        ),
        (
            "pipeline.wide",
            {**WIDE, "stage_details": ["x"]},
            "stage_details[0] must be an object, found 'x'",
        ),
        (
            "pipeline.wide",
            {**WIDE, "stage_details": "x"},
            "stage_details must be a list, found 'x'",
        ),
        (
            "pipeline.wide",
            {**WIDE, "stage_details": [], "extra": {3: 1}},
            "extra has the key 3, which is not a string",
        ),
        (
            "pipeline.completed",
            {"pipeline_name": "p", "duration_ms": 1, "stage_counts": []},
            "stage_counts must be an object, found []",
        ),
        ("stage.danced", None, "there is no stage.danced, and its first part belongs to actorflow"),
        ("order.placed", {"at": {1, 2}}, "at must be a JSON value, found {1, 2}"),
        ("order.placed", {"at": (1,)}, "at must be a JSON value, found (1,)"),
        ("order.placed", {"at": [b""]}, "at[0] must be a JSON value, found b''"),
        ("order.placed", {"at": {"x": float("nan")}}, "at.x must be a finite number, found nan"),
    ],
)  # fmt: skip
def test_payload_that_breaks_a_promise_is_named(
    type: str, data: Mapping[str, Any] | None, complaint: str
) -> None:
    assert validate_event(type, data) == [complaint]


@pytest.mark.spec("E116")
def test_parts_of_payloads_are_fine_as_described() -> None:
    assert not validate_event("pipeline.wide", WIDE)
    assert not validate_event("pipeline.wide", {**WIDE, "extra": {"rule": ["a", None]}})


@pytest.mark.spec("E68")
@given(st.dictionaries(st.text(), JSON, max_size=4))
@settings(max_examples=50)
def test_user_events_may_carry_any_json(data: dict[str, Any]) -> None:
    assert validate_event("order.placed", data) == []
    json.dumps(data, allow_nan=False)


@pytest.mark.spec("E116", "E66")
@pytest.mark.made_up_payloads
async def test_strict_sink_ends_the_test_where_the_event_was_emitted() -> None:
    recorded = RecordingEventSink(strict=True)
    sink = BoundEventSink(recorded)

    sink.try_emit(type="stage.completed", data=COMPLETED)
    with pytest.raises(CatalogueViolation, match=r"stage\.completed: tries is missing"):
        sink.try_emit(
            type="stage.completed",
            data={key: value for key, value in COMPLETED.items() if key != "tries"},
        )
    with pytest.raises(CatalogueViolation, match="duration_ms must be float"):
        await sink.emit(type="stage.completed", data={**COMPLETED, "duration_ms": "1"})


@pytest.mark.spec("E66")
def test_recording_sink_finds_what_was_emitted() -> None:
    recorded = RecordingEventSink()
    for type, data in (("a", {"x": 1, "y": []}), ("b", None), ("a", {"x": 2})):
        assert recorded.try_emit(type=type, data=data) is True

    assert recorded.types() == ["a", "b", "a"]
    assert recorded.payloads("a") == [{"x": 1, "y": []}, {"x": 2}]
    assert recorded.payloads("b") == [{}]
    assert recorded.assert_emitted("a", x=2) == {"x": 2}
    assert recorded.assert_emitted("a", y=[])["x"] == 1
    with pytest.raises(AssertionError, match=r"a with x=3 was not emitted"):
        recorded.assert_emitted("a", x=3)
    with pytest.raises(AssertionError, match="only a, b"):
        recorded.assert_emitted("c")


@pytest.mark.spec("E66")
def test_recording_sink_knows_the_order() -> None:
    recorded = RecordingEventSink()
    for type in ("a", "b", "a", "c"):
        recorded.try_emit(type=type, data=None)

    recorded.assert_order("a", "a", "c")
    with pytest.raises(AssertionError, match="b did not arrive after c"):
        recorded.assert_order("a", "c", "b")
    with pytest.raises(AssertionError, match="d did not arrive at all"):
        recorded.assert_order("d")


@pytest.mark.spec("E66")
def test_recording_sink_notices_a_gap_in_the_numbers() -> None:
    recorded = RecordingEventSink()
    sink = BoundEventSink(recorded, pipeline_run_id="r", first_seq=7)
    other = BoundEventSink(recorded, pipeline_run_id="other")
    for each in (sink, other, sink):
        each.try_emit(type="a", data=None)

    recorded.assert_seq_contiguous("r")
    with pytest.raises(AssertionError, match=r"run nobody are numbered \[\]"):
        recorded.assert_seq_contiguous("nobody")
    sink.try_emit(type="a", data=None)
    del recorded.events[2]
    with pytest.raises(AssertionError, match=r"run r are numbered \[7, 9\]"):
        recorded.assert_seq_contiguous("r")
