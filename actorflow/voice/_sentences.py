"""Sentences in a text that comes in pieces."""

from __future__ import annotations

import re
from typing import Final, final

# Without a space behind it, a full stop may be that of "3.14".
_END: Final = re.compile(r"(?<=[.!?…:;。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")


@final
class SentenceCutter:
    """Cuts text that comes in pieces into sentences, and loses no character of it."""

    def __init__(self) -> None:
        self._rest = ""

    def cut(self, piece: str) -> list[str]:
        """The sentences that are complete now, the space behind them included."""
        self._rest += piece
        sentences = []
        begin = 0
        for end in _END.finditer(self._rest):
            # Spaces alone are no sentence; they go with the next one.
            if self._rest[begin : end.end()].strip():
                sentences.append(self._rest[begin : end.end()])
                begin = end.end()
        self._rest = self._rest[begin:]
        return sentences

    def last(self) -> list[str]:
        """What is left."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []
