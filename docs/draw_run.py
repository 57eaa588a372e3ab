"""Draw what `actorflow demo` runs: `python -m docs.draw_run` writes docs/run.svg.

Time is virtual, and the schedule and the ids follow from a seed: the picture is always the same.
"""

from __future__ import annotations

import io
import logging
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

from actorflow import clock, ids
from actorflow.cli import _demo
from actorflow.events import read_events, timeline_of, timeline_svg
from actorflow.testing import run_seeded

NEW_YEAR: Final = 1_767_225_600.0
PICTURE: Final = Path(__file__).with_name("run.svg")


def picture() -> str:
    logging.getLogger("actorflow").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as folder:
        files = _demo.Files(Path(folder))
        with ids.seeded(0), clock.starting_at(NEW_YEAR):
            run_seeded(_demo.play, Console(file=io.StringIO()), files)
        return timeline_svg(timeline_of(read_events(files.events)))


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
