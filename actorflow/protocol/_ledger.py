from __future__ import annotations

from typing import final

import attrs


@final
@attrs.frozen
class Playback:
    """What became of the audio of one turn, and with it of what was said in it.

    Milliseconds are counted from the beginning of the turn's audio. Text belongs to
    the audio that is sent after it, up to the next piece of text; a turn without
    audio is read rather than heard.
    """

    turn_id: str
    sent_ms: float = 0.0
    """Audio handed to the connection."""
    acknowledged_ms: float = 0.0
    """Audio of which the client said that it was played."""
    discarded_ms: float = 0.0
    """Audio that an interruption kept from being sent."""
    is_closed: bool = False
    """Whether the turn is over, so that what is reported late no longer counts."""
    is_complete: bool = False
    """Whether the turn had said all it wanted to."""
    texts: tuple[tuple[float, str], ...] = attrs.field(default=(), repr=False)
    """Pieces of text, each with the place in the audio where it begins."""

    def sent(self, duration_ms: float) -> Playback:
        """The record after a piece of audio was handed to the connection."""
        return attrs.evolve(self, sent_ms=self.sent_ms + duration_ms)

    def said(self, text: str) -> Playback:
        """The record after a piece of text was handed to the connection."""
        texts = self.texts
        # Pieces without audio between them are spoken together, by what follows.
        if texts and texts[-1][0] == self.sent_ms:
            *earlier, (_, begun) = texts
            return attrs.evolve(self, texts=(*earlier, (self.sent_ms, begun + text)))
        return attrs.evolve(self, texts=(*texts, (self.sent_ms, text)))

    def acknowledged(self, played_ms: float) -> Playback:
        """The record after the client reported how far its speaker has come.

        Reports that come after the end are stale: a telephone also sends the marks
        of what it threw away. No report goes back, or beyond what was sent.
        """
        if self.is_closed:
            return self
        played = max(self.acknowledged_ms, min(played_ms, self.sent_ms))
        return attrs.evolve(self, acknowledged_ms=played)

    def completed(self) -> Playback:
        """The record after the last piece of the turn was handed over."""
        return attrs.evolve(self, is_complete=True)

    def interrupted(self, discarded_ms: float, played_ms: float | None = None) -> Playback:
        """The record of a turn that was broken off, with what the client heard if it says so."""
        record = self if played_ms is None else self.acknowledged(played_ms)
        return attrs.evolve(record, discarded_ms=discarded_ms, is_closed=True)

    @property
    def cleared_ms(self) -> float:
        """Audio that was sent and, as far as is known, not played."""
        return self.sent_ms - self.acknowledged_ms

    def heard_text(self, played_ms: float | None = None) -> str:
        """What the user has heard of the turn's text.

        A piece counts when all of its audio was played. `played_ms` stands in for
        acknowledgements where a client gives none.
        """
        if not self.sent_ms and not self.discarded_ms:
            return "".join(text for _, text in self.texts)
        played = self.acknowledged_ms if played_ms is None else min(played_ms, self.sent_ms)
        # The audio of the last piece may still be in the making.
        end = [self.sent_ms] if self.is_complete else []
        ends = [*(begin for begin, _ in self.texts[1:]), *end]
        return "".join(
            text for (_, text), end_ms in zip(self.texts, ends, strict=False) if end_ms <= played
        )
