from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

from actorflow.events import AnalyticsEvent, timeline_of, timeline_svg, timeline_text
from actorflow.events._timeline import Ending, Row, RowKind, Span, Timeline
from actorflow.events._timeline._measures import duration, tick_label, ticks
from tests.events.story import story

PICTURE: Final = Path(__file__).parents[2] / "docs" / "reference" / "timeline.svg"
START: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)


def at(seconds: float, type: str, run: str | None = "r", **data: Any) -> AnalyticsEvent:
    time = START + timedelta(seconds=seconds)
    return AnalyticsEvent(type, time, {"pipeline_run_id": run, **data})


def rows_of(*events: AnalyticsEvent) -> dict[str, tuple[Span, ...]]:
    return {row.label: row.spans for row in timeline_of(events).rows}


@pytest.fixture(scope="module")
def picture() -> Timeline:
    return timeline_of(story())


def test_rows_follow_the_run_its_stages_and_what_happened_inside(picture: Timeline) -> None:
    shown = [(row.depth, row.kind, row.label) for row in picture.rows]

    assert shown[:4] == [
        (0, RowKind.RUN, "voice-turn"),
        (1, RowKind.STAGE, "vad"),
        (1, RowKind.STAGE, "transcribe"),
        (1, RowKind.STAGE, "translate"),
    ]
    answer = shown.index((1, RowKind.STAGE, "answer"))
    assert shown[answer + 1 : answer + 3] == [
        (2, RowKind.DETAIL, "approval of calendar"),
        (2, RowKind.DETAIL, "calendar"),
    ]
    research = shown.index((1, RowKind.STAGE, "research"))
    assert shown[research + 1 : research + 4] == [
        (2, RowKind.RUN, "web-search"),
        (3, RowKind.STAGE, "query"),
        (3, RowKind.STAGE, "fetch"),
    ]


def test_spans_tell_how_each_row_ended(picture: Timeline) -> None:
    endings = {row.label: [span.ending.value for span in row.spans] for row in picture.rows}

    assert endings["voice-turn"] == ["canceled"]
    assert endings["translate"] == ["skipped"]
    assert endings["remember"] == ["retried", "waited", "retried", "waited", "ok"]
    assert endings["answer"] == ["ok", "ok"]
    assert endings["approval of calendar"] == ["waited"]
    assert endings["calendar"] == ["ok"]
    assert endings["output-guard"] == ["failed", "ok"]
    assert endings["speak"] == ["canceled"]
    assert endings["web-search"] == ["failed"]
    assert [mark.note for mark in picture.marks] == ["canceled: barge_in"]


def test_retry_is_drawn_as_tries_and_delays() -> None:
    spans = rows_of(
        at(0, "stage.started", stage="a"),
        at(1, "stage.retry_scheduled", stage="a", attempt=1, delay_ms=500, error="reset"),
        at(3, "stage.completed", stage="a", status="ok"),
    )["a"]

    assert spans == (
        Span(0, 1, Ending.RETRIED, "reset"),
        Span(1, 1.5, Ending.WAITED, "before the next try"),
        Span(1.5, 3, Ending.OK, "try 2"),
    )


@pytest.mark.parametrize(
    ("last", "ending"), [("stage.failed", Ending.CANCELED), (None, Ending.UNFINISHED)]
)
def test_delay_that_is_cut_short_ends_with_the_stage(last: str | None, ending: Ending) -> None:
    final = last or "pipeline.started"

    spans = rows_of(
        at(0, "stage.started", stage="a"),
        at(1, "stage.retry_scheduled", stage="a", attempt=1, delay_ms=5000, error="reset"),
        at(2, final, stage="a", status="cancel", error="Pipeline canceled"),
    )["a"]

    assert [(span.start, span.end) for span in spans] == [(0, 1), (1, 2), (2, 2)]
    assert spans[-1].ending is ending


@pytest.mark.parametrize(
    ("type", "data", "ending", "note"),
    [
        ("stage.completed", {"status": "cancel"}, Ending.CANCELED, ""),
        ("stage.failed", {"status": "retry", "error": "no"}, Ending.FAILED, "no"),
        ("stage.skipped", {"reason": "enough"}, Ending.SKIPPED, "enough"),
    ],
)
def test_stage_ends_as_its_event_says(
    type: str, data: Mapping[str, Any], ending: Ending, note: str
) -> None:
    spans = rows_of(at(0, "stage.started", stage="a"), at(1, type, stage="a", **data))["a"]

    assert spans == (Span(0, 1, ending, note),)


def test_tool_calls_that_overlap_stay_apart() -> None:
    call = {"tool_name": "search", "stage": "a"}

    rows = rows_of(
        at(0, "tool.started", action_id="1", **call),
        at(1, "tool.started", action_id="2", **call),
        at(2, "tool.completed", action_id="1", **call),
        at(4, "tool.failed", action_id="2", error_message="no", **call),
        at(4, "tool.started", action_id="3", tool_name="outside"),
        at(5, "approval.expired", approval_id="9", tool_name="outside", reason="late"),
    )

    assert rows["search"] == (Span(0, 2, Ending.OK), Span(1, 4, Ending.FAILED, "no"))
    assert rows["outside"] == (Span(4, 5, Ending.UNFINISHED),)
    assert rows["approval of outside"] == (Span(5, 5, Ending.WAITED, "late"),)


def test_runs_stand_beside_each_other_and_orphans_on_their_own() -> None:
    timeline = timeline_of([
        at(0, "pipeline.started", "one", pipeline_name="first"),
        at(1, "pipeline.completed", "one"),
        at(1, "pipeline.started", "two", pipeline_name="second"),
        at(2, "pipeline.spawned_child", "two", child_run_id="three", parent_stage_id="unseen",
           pipeline_name="third"),
        at(3, "pipeline.canceled", "three", reason="parent", cascade_depth=1),
        at(4, "order.placed", "four"),
    ])  # fmt: skip

    assert [(row.depth, row.label) for row in timeline.rows] == [
        (0, "first"),
        (0, "second"),
        (0, "third"),
    ]
    assert timeline.rows[0].spans == (Span(0, 1, Ending.OK),)
    assert timeline.rows[2].spans == (Span(3, 3, Ending.CANCELED, "parent"),)
    assert timeline.marks == ()
    assert timeline.seconds == 4


def test_ring_of_parents_is_drawn_once() -> None:
    rows = timeline_of([
        at(0, "stage.started", "r", stage="a"),
        at(1, "pipeline.spawned_child", "r", child_run_id="s", parent_stage_id="a"),
        at(2, "stage.started", "s", stage="b"),
        at(3, "pipeline.spawned_child", "s", child_run_id="r", parent_stage_id="b"),
    ]).rows  # fmt: skip

    assert [(row.depth, row.label) for row in rows] == [(0, "run"), (1, "a"), (2, "run"), (3, "b")]


EVENTS = st.builds(
    at,
    st.integers(0, 20),
    st.sampled_from(
        "pipeline.started pipeline.completed pipeline.failed pipeline.canceled stage.started "
        "pipeline.spawned_child stage.completed stage.failed stage.skipped stage.retry_scheduled "
        "tool.started tool.completed tool.failed approval.requested approval.decided x.y".split()
    ),
    st.sampled_from(["r", "s", None]),
    stage=st.sampled_from(["a", "b", "<&>"]),
    tool_name=st.sampled_from(["t", "u"]),
    action_id=st.sampled_from(["1", "2"]),
    approval_id=st.sampled_from(["1", "2"]),
    delay_ms=st.integers(0, 5000),
    child_run_id=st.sampled_from(["r", "s", "c"]),
    parent_stage_id=st.sampled_from(["a", "z"]),
    attempt=st.integers(1, 3),
)


@given(st.lists(EVENTS, max_size=25))
@settings(max_examples=60)
def test_whatever_was_recorded_can_be_drawn(events: list[AnalyticsEvent]) -> None:
    timeline = timeline_of(events)

    for row in timeline.rows:
        for span in row.spans:
            assert 0 <= span.start <= span.end <= timeline.seconds
    stages = {event.data["stage"] for event in events if event.event_type == "stage.started"}
    assert stages <= {row.label for row in timeline.rows}
    ET.fromstring(timeline_svg(timeline))
    assert len(timeline_text(timeline).splitlines()) == len(timeline.rows) + 1


def test_svg_shows_labels_tooltips_and_a_legend(picture: Timeline) -> None:
    root = ET.fromstring(timeline_svg(picture))
    said = [element.text for element in root.iter() if element.text]

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for row in picture.rows:
        assert row.label in said
    assert "remember: failed, tried again, 120 ms connection reset" in said
    assert "canceled: barge_in" in said
    assert {"ok", "failed, tried again", "waiting", "skipped"} <= set(said)
    assert "not seen to end" not in said


def test_endings_can_be_told_apart_without_colours(picture: Timeline) -> None:
    svg = timeline_svg(picture)
    # Fill, outline and dashes, with every colour replaced by one.
    looks = {
        found[1]: re.sub(r"(?<!\()#\w+", "colour", found[2])
        for found in re.finditer(
            r"^\.(\w+) \{ (fill: .*) \}$", svg.partition("@media")[0], re.MULTILINE
        )
        if found[1] in set(Ending)
    }

    assert looks.keys() == set(Ending)
    assert len(set(looks.values())) == len(looks)
    patterns = dict(re.findall(r'<pattern id="(\w+)" (.*)</pattern>', svg))
    assert patterns.keys() | {"fading"} == set(re.findall(r"url\(#(\w+)\)", svg))
    assert len({re.sub(r"#\w+", "", drawn) for drawn in patterns.values()}) == len(patterns) == 4
    assert {"↻", "✕"} <= {element.text for element in ET.fromstring(svg).iter()}


def test_picture_brings_its_own_paper_for_light_and_dark(picture: Timeline) -> None:
    light, dark = timeline_svg(picture).split("@media (prefers-color-scheme: dark)")

    assert '<rect class="paper" ' in dark
    for part in (light, dark):
        assert ".paper { fill: #" in part
        assert "\ntext { " in part


def test_tall_picture_has_a_second_axis() -> None:
    def labels(stages: int) -> int:
        starts = [at(0, "stage.started", stage=f"s{number}") for number in range(stages)]
        svg = timeline_svg(timeline_of([*starts, at(4, "pipeline.canceled", reason="no")]))
        return svg.count(">2 s</text>")

    assert (labels(10), labels(100)) == (1, 2)


def test_what_is_too_long_is_cut_and_shown_as_a_tooltip() -> None:
    name, error = "transcribe_" * 9, "connection reset while the headers were read"
    failed = [
        at(0, "stage.started", stage=name),
        at(1, "stage.failed", stage=name, status="fail", error=error),
    ]

    svg, text = timeline_svg(timeline_of(failed)), timeline_text(timeline_of(failed), 80)

    root = ET.fromstring(svg)
    titles = {element.text for element in root.iter("{http://www.w3.org/2000/svg}title")}
    assert {name, error} <= titles
    assert "✕ connection reset while …" in {element.text for element in root.iter()}
    (line,) = [line for line in text.splitlines() if "transcribe" in line]
    assert len(line) == 80
    assert line.startswith("  transcribe_transcribe_transcri… ")
    assert line.endswith("…")


def test_far_bars_are_led_to() -> None:
    many = [at(number, "stage.started", stage=f"s{number}") for number in range(9)]

    leaders = re.findall(
        r'class="leader" d="M([\d.]+) [\d.]+H([\d.]+)"', timeline_svg(timeline_of(many))
    )

    # All begin beside the labels, and each leads farther than the one before.
    assert len({start for start, _ in leaders}) == 1
    ends = [float(end) for _, end in leaders]
    assert len(ends) >= 8
    assert ends == sorted(set(ends))


def test_what_no_picture_has_a_place_for_is_a_space() -> None:
    told = "\x1b[31mred\x00\nof\ud800alarm"
    events = [
        at(0, "pipeline.started", pipeline_name=told),
        at(1, "stage.started", stage=told),
        at(2, "stage.failed", stage=told, status="fail", error=told),
        at(3, "pipeline.canceled", reason=told, cascade_depth=0),
    ]

    timeline = timeline_of(events)

    assert "[31mred of alarm" in "".join(ET.fromstring(timeline_svg(timeline)).itertext())
    text = timeline_text(timeline)
    assert len(text.splitlines()) == 1 + len(timeline.rows)
    assert text.replace("\n", "").isprintable()


def test_picture_in_the_documentation_is_up_to_date(picture: Timeline) -> None:
    svg = timeline_svg(picture)
    if os.environ.get("WRITE_GOLDEN"):
        PICTURE.write_text(svg, "utf-8")

    assert PICTURE.read_text("utf-8") == svg, "see WRITE_GOLDEN"


def test_text_is_as_wide_as_told() -> None:
    timeline = Timeline(
        START,
        4.0,
        (
            Row("run", RowKind.RUN, 0, (Span(0, 4, Ending.FAILED, "boom"),)),
            Row("a", RowKind.STAGE, 1, (Span(0, 1, Ending.RETRIED), Span(1, 2, Ending.WAITED))),
            Row("b", RowKind.STAGE, 1, (Span(4, 4, Ending.SKIPPED, "enough"),)),
            Row("c", RowKind.STAGE, 1, ()),
        ),
    )

    assert timeline_text(timeline, 60) == (
        "     |0 s\n"
        "run  ────────────────────✕      4.00 s  failed boom\n"
        "  a  ▓▓▓▓↻·····                 2.00 s  waited\n"
        "  b                      ◇              skipped enough\n"
        "  c\n"
    )
    assert all(len(line) <= 60 for line in timeline_text(timeline_of(story()), 60).splitlines())


def test_svg_of_several_runs_counts_them() -> None:
    svg = timeline_svg(timeline_of([at(0, "stage.started", "r"), at(1, "stage.started", "s")]))

    assert "<title>2 runs</title>" in svg


def test_mark_near_the_beginning_is_labelled_to_its_right() -> None:
    early = timeline_svg(
        timeline_of([at(0, "pipeline.canceled", reason="no"), at(9, "stage.started", stage="a")])
    )
    late = timeline_svg(
        timeline_of([at(0, "stage.started", stage="a"), at(9, "pipeline.canceled", reason="no")])
    )

    assert '<text class="failure" ' in early
    assert '<text class="failure num" ' in late


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.412, "412 ms"),
        (0.9996, "1.00 s"),
        (3.214, "3.21 s"),
        (59.999, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(1e-6, 1e6), st.integers(1, 12))
def test_ticks_are_round_and_cover_the_whole(seconds: float, about: int) -> None:
    marks = ticks(seconds, about)

    assert marks[0] == 0
    assert 1 <= len(marks) <= about + 2
    assert marks[-1] <= seconds * (1 + 1e-9)


def test_ticks_have_the_unit_that_suits() -> None:
    assert ticks(0, 5) == [0.0]
    assert [tick_label(at, 0.5) for at in (0.0, 0.1)] == ["0 ms", "100 ms"]
    assert [tick_label(at, 5) for at in (0.0, 0.5)] == ["0 s", "0.5 s"]
    assert [tick_label(at, 600) for at in (0.0, 90)] == ["0 min", "1.5 min"]


def test_parent_comes_first_also_when_it_was_seen_last() -> None:
    rows = timeline_of([
        at(0, "stage.started", "child", stage="inner"),
        at(1, "stage.started", "parent", stage="outer"),
        at(2, "pipeline.spawned_child", "parent", child_run_id="child", parent_stage_id="outer"),
    ]).rows  # fmt: skip

    assert [(row.depth, row.label) for row in rows] == [
        (0, "run"),
        (1, "outer"),
        (2, "run"),
        (3, "inner"),
    ]
