"""Reports: what happened, in order, for whoever wants to know."""

from __future__ import annotations

from ._bound import BoundEventSink as BoundEventSink
from ._bound import EventCounter as EventCounter
from ._bound import bound_sink as bound_sink
from ._bound import check_event_type as check_event_type
from ._bound import report as report
from ._current import clear_event_sink as clear_event_sink
from ._current import current_event_sink as current_event_sink
from ._current import emit_event as emit_event
from ._current import event_sink_scope as event_sink_scope
from ._current import get_event_sink as get_event_sink
from ._current import set_event_sink as set_event_sink
from ._sink import ClosableSink as ClosableSink
from ._sink import EventSink as EventSink
from ._sink import FlushableSink as FlushableSink
from ._sink import NoOpEventSink as NoOpEventSink
from ._sink import SelectiveSink as SelectiveSink
from ._sink import checked_sink as checked_sink
