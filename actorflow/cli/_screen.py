"""Where commands that run something show how it goes."""

from __future__ import annotations

from contextlib import suppress
from typing import final

from rich.console import Console


@final
class Screen(Console):
    """A console that is `quiet` from the moment on when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Go on without a reader: what runs is not over because `head` has seen enough."""
        # rich would leave from here, in the middle of a stage or a sink.
        with suppress(SystemExit):
            super().on_broken_pipe()


def can_draw(console: Console) -> bool:
    """Whether a picture can be drawn over the one before."""
    return console.is_terminal and not console.is_dumb_terminal
