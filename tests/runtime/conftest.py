from __future__ import annotations

import pytest

from actorflow.testing import RecordingEventSink


@pytest.fixture
def sink() -> RecordingEventSink:
    """Remembers the events of a run, and refuses those that the catalogue does not know."""
    return RecordingEventSink(strict=True)
