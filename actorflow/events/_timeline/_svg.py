"""The timeline as an SVG picture."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from ._measures import cut, duration, tick_label, ticks
from ._model import Ending, Row, RowKind, Span, Timeline

_WIDTH: Final = 1160
_RIGHT: Final = 276
_TOP: Final = 62
_ROW: Final = 26
_INDENT: Final = 16
_LETTER: Final = 6.7
_LEGEND_LETTER: Final = 5.9
_NOTE_LETTERS: Final = 24
_SHORTEST_LABEL: Final = 6
_FAR: Final = 60
_ROOM_FOR_SIGN: Final = 14
# With more rows than this, the axis at the top is out of sight.
_TALL: Final = 24
_BAR: Final = {RowKind.RUN: 6, RowKind.STAGE: 16, RowKind.DETAIL: 8}
_SHORTEST: Final = 2.5

_LEGEND: Final = {
    Ending.OK: "ok",
    Ending.RETRIED: "failed, tried again",
    Ending.WAITED: "waiting",
    Ending.FAILED: "failed",
    Ending.CANCELED: "canceled",
    Ending.SKIPPED: "skipped",
    Ending.UNFINISHED: "not seen to end",
}
_SIGN: Final = {
    Ending.OK: "✓",
    Ending.RETRIED: "↻",
    Ending.WAITED: "✓",
    Ending.FAILED: "✕",
    Ending.CANCELED: "⊘",
    Ending.SKIPPED: "–",
    Ending.UNFINISHED: "…",
}

# Endings differ by pattern as well as by colour: not everybody sees, or prints, colours.
_STYLE: Final = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #2b2f36 }
.title { font-size: 15px; font-weight: 600 }
.quiet { fill: #6b727c }
.run { font-weight: 600 }
.detail { font-size: 11px; fill: #5b616b }
.num { text-anchor: end; font-variant-numeric: tabular-nums }
.tick { font-size: 11px; text-anchor: middle; fill: #6b727c }
.paper { fill: #fff }
.grid { stroke: #e6e9ed }
.leader { stroke: #cdd2d9; stroke-dasharray: 1 4 }
.band { fill: #f3f5f8 }
.ok { fill: #3f7fb3 }
.retried { fill: url(#retried); stroke: #b57f1f }
.waited { fill: url(#waiting); stroke: #c9b98f; stroke-dasharray: 3 2 }
.failed { fill: url(#failed); stroke: #96281f }
.canceled { fill: url(#canceled); stroke: #7d7589 }
.skipped { fill: #fff; stroke: #8b929c; stroke-width: 1.3 }
.unfinished { fill: url(#fading); stroke: #3f7fb3; stroke-dasharray: 2 2 }
.failure { fill: #b23a31 }
.mark { stroke: #b23a31; stroke-dasharray: 5 3 }
.inside { font-size: 10px; font-weight: 600; fill: #fff }
.inside.dark { fill: #4a360a }
@media (prefers-color-scheme: dark) {
text { fill: #dfe3e8 }
.quiet, .tick { fill: #a2a9b3 }
.detail { fill: #b4bac3 }
.paper { fill: #16191d }
.grid { stroke: #2b3037 }
.leader { stroke: #454c55 }
.band { fill: #22272e }
.skipped { fill: #16191d; stroke: #a2a9b3 }
.failure { fill: #ff8d83 }
.mark { stroke: #ff8d83 }
.inside { fill: #fff }
.inside.dark { fill: #4a360a }
}
"""

_PATTERNS: Final = """\
<defs>
<pattern id="canceled" width="6" height="6" patternUnits="userSpaceOnUse" \
patternTransform="rotate(45)"><rect width="6" height="6" fill="#ece8f1"/>\
<rect width="3" height="6" fill="#a79db6"/></pattern>
<pattern id="failed" width="6" height="6" patternUnits="userSpaceOnUse" \
patternTransform="rotate(45)"><rect width="6" height="6" fill="#c9473d"/>\
<path d="M0 0H6M0 0V6" stroke="#86201a" stroke-width="2.4"/></pattern>
<pattern id="retried" width="5" height="5" patternUnits="userSpaceOnUse">\
<rect width="5" height="5" fill="#f0bf63"/><rect width="1.6" height="5" fill="#d3962c"/></pattern>
<pattern id="waiting" width="5" height="5" patternUnits="userSpaceOnUse">\
<rect width="5" height="5" fill="#fdf8ec"/><circle cx="2.5" cy="2.5" r="0.9" fill="#c9b274"/>\
</pattern>
<linearGradient id="fading"><stop offset="0.5" stop-color="#3f7fb3" stop-opacity="0.55"/>\
<stop offset="1" stop-color="#3f7fb3" stop-opacity="0.05"/></linearGradient>
</defs>"""


def timeline_svg(timeline: Timeline) -> str:
    """Draw a timeline as a self-contained SVG document."""
    return "\n".join(_Drawing(timeline).lines()) + "\n"


class _Drawing:
    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        longest = max(
            (len(it.label) * _LETTER + it.depth * _INDENT for it in timeline.rows), default=0
        )
        self.left = min(max(longest + 34, 120), 340)
        self.chart = _WIDTH - self.left - _RIGHT
        self.bottom = _TOP + _ROW * len(timeline.rows)
        self.is_tall = len(timeline.rows) > _TALL

    def x(self, at: float) -> float:
        return self.left + (at / self.timeline.seconds if self.timeline.seconds else 0) * self.chart

    def lines(self) -> Iterator[str]:
        height = self.bottom + (76 if self.is_tall else 60)
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img">'
        )
        yield f"<style>{_STYLE}</style>"
        yield _PATTERNS
        yield f'<rect class="paper" width="{_WIDTH}" height="{height}"/>'
        yield from self.heading()
        yield from self.bands()
        yield from self.grid()
        for number, row in enumerate(self.timeline.rows):
            yield from self.row(row, _TOP + _ROW * number + _ROW / 2)
        yield from self.marks()
        yield from self.legend()
        yield "</svg>"

    def heading(self) -> Iterator[str]:
        timeline = self.timeline
        names = [row.label for row in timeline.rows if row.kind is RowKind.RUN and not row.depth]
        title = names[0] if len(names) == 1 else f"{len(names)} runs"
        yield f"<title>{escape(title)}</title>"
        yield _text(16, 26, title, "title")
        if timeline.start is not None:
            when = f"{timeline.start:%Y-%m-%d %H:%M:%S} · {duration(timeline.seconds)}"
            yield _text(_WIDTH - 16, 26, when, "num quiet")

    def bands(self) -> Iterator[str]:
        for number, row in enumerate(self.timeline.rows):
            if row.kind is RowKind.RUN:
                y = _TOP + _ROW * number
                yield f'<rect class="band" x="8" y="{y}" width="{_WIDTH - 16}" height="{_ROW}" rx="4"/>'

    def grid(self) -> Iterator[str]:
        for at in ticks(self.timeline.seconds, 8):
            x = self.x(at)
            yield f'<path class="grid" d="M{x:.1f} {_TOP - 4}V{self.bottom}"/>'
            label = tick_label(at, self.timeline.seconds)
            yield _text(x, _TOP - 10, label, "tick")
            if self.is_tall:
                yield _text(x, self.bottom + 14, label, "tick")

    def row(self, row: Row, y: float) -> Iterator[str]:
        indent = 16 + row.depth * _INDENT
        label = cut(row.label, max(int((self.left - 14 - indent) / _LETTER), _SHORTEST_LABEL))
        tooltip = "" if label == row.label else f"<title>{escape(row.label)}</title>"
        yield _text(indent, y + 4, label, row.kind, tooltip)
        yield from self.leader(indent + len(label) * _LETTER + 14, row, y)
        for span in row.spans:
            yield from self.span(row, span, y)
        if row.spans:
            last = row.spans[-1]
            x = self.left + self.chart + 74
            if row.seconds:
                yield _text(x, y + 4, duration(row.seconds), "num quiet")
            style = "failure" if last.ending is Ending.FAILED else "quiet"
            note = cut(last.note, _NOTE_LETTERS)
            tooltip = "" if note == last.note else f"<title>{escape(last.note)}</title>"
            yield _text(x + 10, y + 4, f"{_SIGN[last.ending]} {note}".rstrip(), style, tooltip)

    def leader(self, x: float, row: Row, y: float) -> Iterator[str]:
        """Lead the eye from a label to a bar that is far away."""
        first = min((self.x(span.start) for span in row.spans), default=0) - 6
        if first - x > _FAR:
            yield f'<path class="leader" d="M{x:.1f} {y}H{first:.1f}"/>'

    def span(self, row: Row, span: Span, y: float) -> Iterator[str]:
        height = _BAR[row.kind]
        x = self.x(span.start)
        width = max(self.x(span.end) - x, _SHORTEST)
        told = f"{row.label}: {_LEGEND[span.ending]}, {duration(span.end - span.start)}"
        tooltip = f"<title>{escape(f'{told} {span.note}'.strip())}</title>"
        if span.ending is Ending.SKIPPED and span.start == span.end:
            diamond = f"M{x:.1f} {y - 5}l5 5l-5 5l-5 -5z"
            yield f'<path class="skipped" d="{diamond}">{tooltip}</path>'
            return
        yield (
            f'<rect class="{span.ending}" x="{x:.1f}" y="{y - height / 2}" width="{width:.1f}" '
            f'height="{height}" rx="{min(3, width / 2):.1f}">{tooltip}</rect>'
        )
        if row.kind is RowKind.STAGE:
            yield from self.inscription(span, x, y, width)

    def inscription(self, span: Span, x: float, y: float, width: float) -> Iterator[str]:
        if span.note.startswith(("try ", "attempt ")) and width > len(span.note) * 6 + 8:
            yield _text(x + 6, y + 3.5, span.note, "inside")
        elif span.ending in (Ending.RETRIED, Ending.FAILED) and width > _ROOM_FOR_SIGN:
            style = "inside dark" if span.ending is Ending.RETRIED else "inside"
            yield _text(x + width / 2 - 4, y + 3.5, _SIGN[span.ending], style)

    def marks(self) -> Iterator[str]:
        for mark in self.timeline.marks:
            x = self.x(mark.at)
            yield (
                f'<path class="mark" d="M{x:.1f} {_TOP - 4}V{self.bottom}">'
                f"<title>{escape(mark.note)}</title></path>"
            )
            is_right = x > self.left + self.chart / 2
            y = self.bottom + (30 if self.is_tall else 14)
            yield _text(x, y, mark.note, "failure num" if is_right else "failure")

    def legend(self) -> Iterator[str]:
        seen = {span.ending for row in self.timeline.rows for span in row.spans}
        x, y = 16.0, self.bottom + (58 if self.is_tall else 42)
        for ending, label in _LEGEND.items():
            if ending in seen:
                yield f'<rect class="{ending}" x="{x}" y="{y - 9}" width="18" height="10" rx="3"/>'
                yield _text(x + 24, y, label, "detail")
                x += 24 + len(label) * _LEGEND_LETTER + 20


def _text(x: float, y: float, text: str, style: str, tooltip: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}{tooltip}</text>'
