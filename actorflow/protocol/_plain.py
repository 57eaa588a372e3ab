from __future__ import annotations

from typing import ClassVar, final

import attrs

from actorflow.errors import ProtocolViolationError

from ._format import MAX_MESSAGE_SIZE, Frame
from ._json import check_size
from ._messages import ClientMessage, ReplyAudio, ServerMessage, Start, UserAudio
from ._shape import AudioShape


@final
@attrs.frozen
class PlainAudioFormat:
    """Samples in, samples out: every frame is binary, and there are no words.

    What the samples look like is settled beforehand. Since nothing can be said,
    there is no interrupting by the client, no resume, and what an interruption by
    the application has already sent is played: keep the lead of the pacing small.
    """

    shape: AudioShape = attrs.field(factory=AudioShape)
    max_message_size: int = MAX_MESSAGE_SIZE

    subprotocol: ClassVar[str | None] = None
    is_resumable: ClassVar[bool] = False

    def opening(self) -> tuple[ClientMessage, ...]:
        """A `Start` with the shape that was settled."""
        return (Start(audio=self.shape),)

    def read(self, frame: Frame) -> tuple[PlainAudioFormat, tuple[ClientMessage, ...]]:
        """The audio that a frame is, and this format."""
        check_size(frame, self.max_message_size)
        if isinstance(frame, str):
            raise ProtocolViolationError("a text frame where there is only audio")
        return self, (UserAudio(frame),)

    def write(self, seq: int, message: ServerMessage) -> tuple[Frame, ...]:
        """The audio of `message`, if it has any."""
        return (message.data,) if isinstance(message, ReplyAudio) else ()
