"""The house format: control messages as JSON text, audio as binary frames.

The audio of the server goes as a header in JSON followed by exactly one binary
frame, so a client that reads knows which turn the bytes belong to. The audio of
the user needs no header: it always is for now.
"""

from __future__ import annotations

from typing import ClassVar, final

import attrs

from actorflow.errors import ProtocolViolationError

from ._format import MAX_MESSAGE_SIZE, Frame
from ._json import check_size, message_from, parse_object, write_object
from ._messages import (
    CLIENT_MESSAGES,
    PROTOCOL,
    SERVER_MESSAGES,
    ClientMessage,
    Numbered,
    ReplyAudio,
    ServerMessage,
    Start,
    UserAudio,
)


@final
@attrs.frozen
class HouseFormat:
    """The server's end of the house format."""

    max_message_size: int = MAX_MESSAGE_SIZE
    text_only: bool = False

    subprotocol: ClassVar[str | None] = PROTOCOL
    is_resumable: ClassVar[bool] = True

    def opening(self) -> tuple[ClientMessage, ...]:
        """Nothing: the client introduces itself."""
        return ()

    def read(self, frame: Frame) -> tuple[HouseFormat, tuple[ClientMessage, ...]]:
        """What a frame of the client says, and the format to read the next one with."""
        check_size(frame, self.max_message_size)
        if isinstance(frame, bytes):
            return self, (UserAudio(frame),)
        message = message_from(CLIENT_MESSAGES, parse_object(frame))
        if isinstance(message, Start):
            return attrs.evolve(self, text_only=message.text_only), (message,)
        return self, (message,)

    def write(self, seq: int, message: ServerMessage) -> tuple[Frame, ...]:
        """The frames that say `message`."""
        number = {"seq": seq} if seq else {}
        if not isinstance(message, ReplyAudio) or self.text_only:
            return (write_object(message, **number),)
        header = write_object(attrs.evolve(message, data=b""), **number)
        return (header, message.data)


@final
@attrs.frozen
class HouseClientFormat:
    """The client's end of the house format."""

    max_message_size: int = MAX_MESSAGE_SIZE
    expected: Numbered | None = None
    """The header of the audio that the next frame has to be."""

    def read(self, frame: Frame) -> tuple[HouseClientFormat, tuple[Numbered, ...]]:
        """What a frame of the server says, and the format to read the next one with."""
        check_size(frame, self.max_message_size)
        if isinstance(frame, bytes):
            return attrs.evolve(self, expected=None), (self._with_audio(frame),)
        if self.expected is not None:
            raise ProtocolViolationError("a text frame where the audio of a header should follow")
        data = parse_object(frame)
        seq = data.get("seq", 0)
        if type(seq) is not int or seq < 0:
            raise ProtocolViolationError("a message whose seq is not a whole number")
        numbered = Numbered(seq, message_from(SERVER_MESSAGES, data))
        if isinstance(numbered.message, ReplyAudio) and not numbered.message.data:
            return attrs.evolve(self, expected=numbered), ()
        return self, (numbered,)

    def _with_audio(self, data: bytes) -> Numbered:
        header = self.expected
        if header is None:
            raise ProtocolViolationError("a binary frame without a header before it")
        assert isinstance(header.message, ReplyAudio)  # nothing else is expected
        return Numbered(header.seq, attrs.evolve(header.message, data=data))

    def write(self, message: ClientMessage) -> tuple[Frame, ...]:
        """The frames that say `message`."""
        if isinstance(message, UserAudio):
            return (message.data,)
        return (write_object(message),)
