"""What a speaker would have played by now. Pure: time comes in as an argument."""

from __future__ import annotations

from typing import final

from actorflow.protocol import AudioShape


@final
class Loudspeaker:
    """Plays audio as it comes, and knows how much of it was heard."""

    def __init__(self, sample_rate: int) -> None:
        self._shape = AudioShape(sample_rate)
        self._past = b""
        self._answer = bytearray()
        self._ends_at = 0.0

    @property
    def played(self) -> bytes:
        """Everything that was heard, one answer after the other, without the pauses."""
        return self._past + bytes(self._answer)

    def begin(self) -> None:
        """Begin another answer."""
        self._past = self.played
        self._answer.clear()

    def play(self, data: bytes, now: float) -> None:
        """Play this after what is still to be played."""
        self._answer += data
        self._ends_at = max(self._ends_at, now) + self._shape.duration_ms(len(data)) / 1000

    def played_ms(self, now: float) -> float:
        """How much of the present answer was heard."""
        waiting_ms = max(0.0, self._ends_at - now) * 1000
        return max(0.0, self._shape.duration_ms(len(self._answer)) - waiting_ms)

    def stop(self, now: float) -> None:
        """Be silent now: what was not heard is not played."""
        samples = int(self.played_ms(now) * self._shape.sample_rate / 1000)
        del self._answer[samples * self._shape.frame_size :]
        self._ends_at = now
