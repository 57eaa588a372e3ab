"""A picture of runs over time, made from their events."""

from __future__ import annotations

from ._model import (
    Ending as Ending,
    Mark as Mark,
    Row as Row,
    RowKind as RowKind,
    Span as Span,
    Timeline as Timeline,
    timeline_of as timeline_of,
)
from ._svg import timeline_svg as timeline_svg
from ._text import timeline_text as timeline_text
