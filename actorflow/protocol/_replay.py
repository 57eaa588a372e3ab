from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

from ._format import Frame


@final
class ReplayBuffer:
    """Numbers what is sent, and keeps it until the client says that it has arrived.

    Bounded: beyond `max_messages` or `max_bytes` the oldest goes.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._kept: deque[tuple[int, tuple[Frame, ...], int]] = deque()
        self._bytes = 0
        self._next_seq = 1

    @property
    def next_seq(self) -> int:
        """The number that the next message gets."""
        return self._next_seq

    @property
    def first_seq(self) -> int:
        """The oldest message there still is; `next_seq` if there is none."""
        return self._kept[0][0] if self._kept else self._next_seq

    @property
    def byte_count(self) -> int:
        """How much is kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def record(self, frames: Sequence[Frame]) -> None:
        """Keep the frames of the message with number `next_seq`."""
        size = sum(map(len, frames))
        self._kept.append((self._next_seq, tuple(frames), size))
        self._bytes += size
        self._next_seq += 1
        while len(self._kept) > self._max_messages or self._bytes > self._max_bytes:
            self._drop_oldest()

    def acknowledge(self, seq: int) -> None:
        """Forget everything up to `seq`."""
        while self._kept and self._kept[0][0] <= seq:
            self._drop_oldest()

    def after(self, seq: int) -> tuple[Frame, ...]:
        """The frames of all messages after `seq` that are still there, in order."""
        return tuple(frame for number, frames, _ in self._kept if number > seq for frame in frames)

    def has_gap(self, seq: int) -> bool:
        """Whether messages after `seq` are gone."""
        return seq + 1 < self.first_seq

    def _drop_oldest(self) -> None:
        self._bytes -= self._kept.popleft()[2]
