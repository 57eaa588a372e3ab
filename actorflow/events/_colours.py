"""How events look in a terminal: their colours, by what their name contains, and their signs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TextIO

RED: Final = "\x1b[91m"
GREEN: Final = "\x1b[92m"
YELLOW: Final = "\x1b[93m"
BLUE: Final = "\x1b[94m"
CYAN: Final = "\x1b[96m"
GREY: Final = "\x1b[90m"
RESET: Final = "\x1b[0m"

# The first part of a name that is found decides.
Palette = Iterable[tuple[str, str]]


def painted(text: str, type: str, palette: Palette) -> str:
    """Return `text` in the colour of an event type."""
    colour = next((code for part, code in palette if part in type), CYAN)
    return f"{colour}{text}{RESET}"


def legible(text: str, stream: TextIO | None) -> str:
    """Return `text` with question marks for what the encoding of `stream` has no sign for."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
