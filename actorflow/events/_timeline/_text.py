"""The timeline as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._measures import cut, duration, tick_label, ticks
from ._model import Ending, Row, RowKind, Timeline

_FILL: Final = {
    Ending.OK: "█",
    Ending.RETRIED: "▓",
    Ending.WAITED: "·",
    Ending.FAILED: "▓",
    Ending.CANCELED: "░",
    Ending.SKIPPED: "◇",
    Ending.UNFINISHED: "▒",
}
_LAST: Final = {Ending.RETRIED: "↻", Ending.FAILED: "✕", Ending.CANCELED: "⊘"}
_RESULTS: Final = 34


def timeline_text(timeline: Timeline, width: int = 110) -> str:
    """Draw a timeline with block characters, `width` columns wide."""
    return "".join(f"{line.rstrip()}\n" for line in _lines(timeline, width))


def _lines(timeline: Timeline, width: int) -> Iterator[str]:
    longest = max((len(row.label) + 2 * row.depth for row in timeline.rows), default=0)
    left = min(longest, 32) + 2
    chart = max(width - left - _RESULTS, 10)
    yield " " * left + _axis(timeline.seconds, chart)
    for row in timeline.rows:
        label = cut("  " * row.depth + row.label, left - 1).ljust(left)
        yield cut(f"{label}{_bar(row, timeline.seconds, chart)}  {_result(row)}".rstrip(), width)


def _column(at: float, seconds: float, chart: int) -> int:
    return int(at / seconds * chart) if seconds else 0


def _axis(seconds: float, chart: int) -> str:
    axis = [" "] * (chart + 10)
    for at in ticks(seconds, max(chart // 14, 1)):
        column = _column(at, seconds, chart)
        label = f"|{tick_label(at, seconds)}"
        axis[column : column + len(label)] = label
    return "".join(axis)


def _bar(row: Row, seconds: float, chart: int) -> str:
    bar = [" "] * chart
    for span in row.spans:
        # Every span has one column at least, also one that ends where the picture does.
        first = min(_column(span.start, seconds, chart), chart - 1)
        last = max(_column(span.end, seconds, chart) - 1, first)
        fill = "─" if row.kind is RowKind.RUN else _FILL[span.ending]
        bar[first : last + 1] = fill * (last + 1 - first)
        bar[last] = _LAST.get(span.ending, bar[last])
    return "".join(bar)


def _result(row: Row) -> str:
    if not row.spans:
        return ""
    last = row.spans[-1]
    took = duration(row.seconds) if row.seconds else ""
    return f"{took:>10}  {last.ending} {last.note}"
