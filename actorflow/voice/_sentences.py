"""Sentences in a text that comes in pieces."""

from __future__ import annotations

import re
from typing import Final, final

# Without a space behind it, a full stop may be that of "3.14".
_END: Final = re.compile(r"(?<=[.!?…:;。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")


# Who writes without a full stop is spoken all the same, and no synthesizer has to take it
# all in at once.
LONGEST: Final = 300


@final
class SentenceCutter:
    """Cuts text that comes in pieces into sentences, and loses no character of it.

    What has no end after `LONGEST` characters is cut, at a space if it has one.
    """

    def __init__(self) -> None:
        self._rest = ""

    def cut(self, piece: str) -> list[str]:
        """The sentences that are complete now, the space behind them included."""
        self._rest += piece
        sentences: list[str] = []
        begin = 0
        for end in _END.finditer(self._rest):
            # Spaces alone are no sentence; they go with the next one.
            if self._rest[begin : end.end()].strip():
                sentences += _shortened(self._rest[begin : end.end()])
                begin = end.end()
        *parts, self._rest = _shortened(self._rest[begin:])
        return [*sentences, *parts]

    def last(self) -> list[str]:
        """What is left."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []


def _shortened(text: str) -> list[str]:
    parts = []
    while len(text) > LONGEST:
        end = text.rfind(" ", 0, LONGEST) + 1
        if not text[:end].strip():
            end = LONGEST
        parts.append(text[:end])
        text = text[end:]
    return [*parts, text]
