from __future__ import annotations

from collections import deque
from typing import TypeAlias, final

import attrs

from ._messages import ReplyAudio, ReplyText, ServerMessage, Transcript, TurnCompleted, TurnStarted

TurnMessage: TypeAlias = TurnStarted | Transcript | ReplyText | ReplyAudio | TurnCompleted
"""What belongs to a turn, and waits its turn."""


@final
@attrs.frozen
class Discarded:
    """What an interruption found in the outbox."""

    messages: int
    audio_ms: float


@final
class Outbox:
    """What is still to be sent: control messages, which go first, and those of turns, in order.

    Turns may fill it up to `max_messages` and `max_bytes`. Control messages have the
    same number of places of their own.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._control: deque[ServerMessage] = deque()
        self._data: deque[TurnMessage] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._control) + len(self._data)

    @property
    def is_full(self) -> bool:
        """Whether a turn has to wait before it puts anything more in."""
        return len(self._data) >= self._max_messages or self._bytes >= self._max_bytes

    @property
    def is_crowded(self) -> bool:
        """Whether control messages that nobody relies on had better be left out."""
        return len(self._control) > self._max_messages // 2

    @property
    def is_flooded(self) -> bool:
        """Whether there are more control messages than a client that reads ever leaves."""
        return len(self._control) > self._max_messages

    def put_control(self, message: ServerMessage) -> None:
        """Add a message that overtakes those of turns."""
        self._control.append(message)

    def put(self, message: TurnMessage) -> None:
        """Add a message of a turn behind the others. Look at `is_full` before."""
        self._data.append(message)
        self._bytes += _size(message)

    def next_control(self) -> ServerMessage | None:
        """Take the next control message out."""
        return self._control.popleft() if self._control else None

    def peek(self) -> TurnMessage | None:
        """The next message of a turn, which stays."""
        return self._data[0] if self._data else None

    def take(self) -> TurnMessage:
        """Take the next message of a turn out."""
        message = self._data.popleft()
        self._bytes -= _size(message)
        return message

    def discard(self) -> Discarded:
        """Throw away what turns have put in; control messages stay."""
        found = Discarded(
            messages=len(self._data),
            audio_ms=sum(
                message.duration_ms for message in self._data if isinstance(message, ReplyAudio)
            ),
        )
        self._data.clear()
        self._bytes = 0
        return found


def _size(message: TurnMessage) -> int:
    match message:
        case ReplyAudio(data=data):
            return len(data)
        case ReplyText(delta=text) | Transcript(text=text):
            return len(text)
        case _:
            return 0
