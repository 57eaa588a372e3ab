from __future__ import annotations

from typing import Final, Protocol, Self, TypeAlias

from ._messages import ClientMessage, ServerMessage

Frame: TypeAlias = str | bytes
"""A whole websocket message: text, or binary."""

MAX_MESSAGE_SIZE: Final = 1_048_576


class WireFormat(Protocol):
    """How the server's end of a connection turns frames into messages and back.

    A format is a value: what it has to remember from one frame to the next is in
    the format that `read` returns, and nothing here waits for anything.
    """

    @property
    def subprotocol(self) -> str | None:
        """What the client has to ask for in its handshake; None if nothing."""
        ...

    @property
    def is_resumable(self) -> bool:
        """Whether a client can come back after its connection was lost."""
        ...

    def opening(self) -> tuple[ClientMessage, ...]:
        """What the client says by connecting, before its first frame."""
        ...

    def read(self, frame: Frame) -> tuple[Self, tuple[ClientMessage, ...]]:
        """What a frame of the client says, and the format to read the next one with.

        Raises:
          ProtocolViolationError: if it says nothing that can be understood. Nothing
            else is raised, whatever the frame is.
        """
        ...

    def write(self, seq: int, message: ServerMessage) -> tuple[Frame, ...]:
        """The frames that say `message`; none if the format has no words for it."""
        ...
