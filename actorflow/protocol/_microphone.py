from __future__ import annotations

from collections import deque
from typing import final

from ._shape import AudioShape


@final
class Microphone:
    """The user's audio that was not worked off yet, at most `limit_ms` in `max_pieces` of it.

    Pieces come out as they came in, except that a sample is never torn: an odd byte
    at the end of a piece waits for the rest of its sample.
    """

    def __init__(self, shape: AudioShape, limit_ms: float, max_pieces: int = 1000) -> None:
        self.shape = shape
        self.limit_ms = limit_ms
        self.max_pieces = max_pieces
        self.dropped = 0
        """Pieces dropped so far."""
        self.cleared_ms = 0.0
        """Audio that nobody wanted any more: its turn was over."""
        self.peak_ms = 0.0
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._torn = b""

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def buffered_ms(self) -> float:
        """How long what is here plays."""
        return self.shape.duration_ms(self._bytes)

    def has_room(self, byte_count: int) -> bool:
        """Whether so many bytes more are within the limit. An empty buffer takes any piece."""
        if not self._pieces:
            return True
        duration_ms = self.shape.duration_ms(self._bytes + byte_count)
        return duration_ms <= self.limit_ms and len(self._pieces) < self.max_pieces

    def put(self, data: bytes) -> None:
        """Add a piece. Look at `has_room`, or `drop_oldest`, before."""
        data = self._torn + data
        whole = len(data) // self.shape.frame_size * self.shape.frame_size
        data, self._torn = data[:whole], data[whole:]
        if data:
            self._pieces.append(data)
            self._bytes += whole
            self.peak_ms = max(self.peak_ms, self.buffered_ms)

    def drop_oldest(self, byte_count: int) -> int:
        """Drop the oldest pieces until so many bytes have room, and say how many there were."""
        before = self.dropped
        while not self.has_room(byte_count):
            self.take()
            self.dropped += 1
        return self.dropped - before

    def take(self) -> bytes:
        """Take the oldest piece out."""
        data = self._pieces.popleft()
        self._bytes -= len(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Add audio in front of all other: it was taken out too early. No limit applies."""
        if data:
            self._pieces.appendleft(data)
            self._bytes += len(data)

    def clear(self, pieces: int) -> None:
        """Forget the oldest pieces, and count them as cleared."""
        before = self.buffered_ms
        for _ in range(pieces):
            self.take()
        self.cleared_ms += before - self.buffered_ms
