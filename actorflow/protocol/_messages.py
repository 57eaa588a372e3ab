"""What client and server say to each other.

The fields are those of the JSON objects, `type` apart. A message knows nothing
of how it travels; that is what the formats are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias, final

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.model import freeze

from ._shape import AudioShape

PROTOCOL: Final = "actorflow.v1"


# What users say has no place in logs.
def _length(content: str | bytes) -> str:
    return f"<{len(content)}>"


# `Attribute[Any]`: the fields are of several kinds of number, and may be None.
def _not_negative(_: object, field: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:
        raise InvalidArgumentError(field.name, value, "a number of at least 0")


def _known_protocol(_: object, field: attrs.Attribute[str], value: str) -> None:
    if value != PROTOCOL:
        raise InvalidArgumentError(field.name, value, repr(PROTOCOL))


# Client to server


@final
@attrs.frozen
class Start:
    """The first message of a connection; it opens a session or resumes one."""

    type: ClassVar[str] = "start"

    protocol: str = attrs.field(default=PROTOCOL, validator=_known_protocol)
    audio: AudioShape = attrs.field(factory=AudioShape)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=freeze)
    text_only: bool = False
    """Whether audio shall come as base64 in JSON instead of as binary frames."""
    resume_token: str | None = attrs.field(default=None, repr=False)
    last_seq: int = attrs.field(default=0, validator=_not_negative)


@final
@attrs.frozen
class UserAudio:
    """A piece of what the microphone hears."""

    type: ClassVar[str] = "audio"

    data: bytes = attrs.field(repr=_length)


@final
@attrs.frozen
class UserText:
    """Something the user wrote; it begins a turn, or waits for the next one."""

    type: ClassVar[str] = "text"

    text: str = attrs.field(repr=_length)


@final
@attrs.frozen
class Interrupt:
    """The user speaks into the answer."""

    type: ClassVar[str] = "interrupt"

    turn_id: str | None = None
    """The turn that is meant; the present one if there is none."""
    played_ms: float | None = attrs.field(default=None, validator=_not_negative)
    """How much of the turn's audio was heard."""
    reason: str = "interrupted"


@final
@attrs.frozen
class End:
    """No more input for this turn, or for the session."""

    type: ClassVar[str] = "end"

    scope: Literal["turn", "session"]


@final
@attrs.frozen
class Ack:
    """Everything up to `seq` has arrived."""

    type: ClassVar[str] = "ack"

    seq: int = attrs.field(validator=_not_negative)


@final
@attrs.frozen
class Played:
    """The speaker has come so far in the audio of a turn."""

    type: ClassVar[str] = "played"

    turn_id: str
    played_ms: float = attrs.field(validator=_not_negative)


@final
@attrs.frozen
class Ping:
    """Asks for a `pong` with the same id."""

    type: ClassVar[str] = "ping"

    id: str | None = None


ClientMessage: TypeAlias = Start | UserAudio | UserText | Interrupt | End | Ack | Played | Ping

CLIENT_MESSAGES: Final[Mapping[str, type[ClientMessage]]] = {
    kind.type: kind for kind in (Start, UserAudio, UserText, Interrupt, End, Ack, Played, Ping)
}


# Server to client


@final
@attrs.frozen
class SessionLimits:
    """What the server will put up with."""

    max_message_size: int
    inbound_ms: float
    idle_timeout: float
    heartbeat_interval: float


@final
@attrs.frozen
class Ready:
    """The session is open."""

    type: ClassVar[str] = "ready"

    session_id: str
    resumed: bool
    limits: SessionLimits
    resume_token: str | None = attrs.field(default=None, repr=False)


@final
@attrs.frozen
class TurnStarted:
    """A turn has begun."""

    type: ClassVar[str] = "turn_started"

    turn_id: str
    pipeline_run_id: str | None = None
    """The run that answers, as it is called in events."""


@final
@attrs.frozen
class Failure:
    """What went wrong, for the client."""

    code: str
    message: str


@final
@attrs.frozen
class TurnCompleted:
    """A turn is over and everything it had to say is sent. Interrupted turns get none."""

    type: ClassVar[str] = "turn_completed"

    turn_id: str
    status: Literal["completed", "failed", "canceled"]
    duration_ms: float
    error: Failure | None = None


@final
@attrs.frozen
class Transcript:
    """What was understood of the user's audio."""

    type: ClassVar[str] = "transcript"

    turn_id: str
    text: str = attrs.field(repr=_length)
    is_final: bool = True
    confidence: float | None = None


@final
@attrs.frozen
class ReplyText:
    """A piece of the answer as text."""

    type: ClassVar[str] = "text"

    turn_id: str
    delta: str = attrs.field(repr=_length)
    is_final: bool = False


@final
@attrs.frozen
class ReplyAudio:
    """A piece of the answer as audio."""

    type: ClassVar[str] = "audio"

    turn_id: str
    sequence: int
    """Counts the pieces of a turn from 0."""
    duration_ms: float
    ends_at_ms: float
    """Where it ends in the audio of its turn; what `played` speaks of."""
    data: bytes = attrs.field(default=b"", repr=_length)


@final
@attrs.frozen
class Interrupted:
    """The turn was broken off; this is the last message of it.

    Without `turn_id` there was nothing to interrupt.
    """

    type: ClassVar[str] = "interrupted"

    turn_id: str | None = None
    discarded_ms: float = 0.0
    last_audio_sequence: int | None = None


@final
@attrs.frozen
class Flow:
    """The user's audio comes faster than it is worked off, or no longer."""

    type: ClassVar[str] = "flow"

    direction: Literal["in"]
    state: Literal["pause", "resume"]
    buffered_ms: float
    dropped: int
    """Pieces of audio dropped so far."""


@final
@attrs.frozen
class ServerEvent:
    """Something that happened, for clients that show what goes on."""

    type: ClassVar[str] = "event"

    event: str
    """Its type in the catalogue of events."""
    data: Mapping[str, Any] = attrs.field(factory=dict, converter=freeze)


@final
@attrs.frozen
class Error:
    """Something went wrong; if `fatal`, the connection is closed next."""

    type: ClassVar[str] = "error"

    code: str
    message: str
    fatal: bool = True
    turn_id: str | None = None
    first_seq: int | None = None
    """For `RESUME_GAP`: the first message there still is."""


@final
@attrs.frozen
class Closing:
    """The session will be closed."""

    type: ClassVar[str] = "closing"

    reason: str
    deadline_seconds: float | None = None
    """How long what is under way may take; None if there is no limit, or nothing is."""


@final
@attrs.frozen
class Pong:
    """The answer to a `ping`."""

    type: ClassVar[str] = "pong"

    id: str | None = None


ServerMessage: TypeAlias = (
    Ready
    | TurnStarted
    | TurnCompleted
    | Transcript
    | ReplyText
    | ReplyAudio
    | Interrupted
    | Flow
    | ServerEvent
    | Error
    | Closing
    | Pong
)

SERVER_MESSAGES: Final[Mapping[str, type[ServerMessage]]] = {
    kind.type: kind
    for kind in (
        Ready,
        TurnStarted,
        TurnCompleted,
        Transcript,
        ReplyText,
        ReplyAudio,
        Interrupted,
        Flow,
        ServerEvent,
        Error,
        Closing,
        Pong,
    )
}


@final
@attrs.frozen
class Numbered:
    """A message of the server with its number.

    Messages of the connection rather than the session (`ready`, `pong`, the error
    `RESUME_GAP`) have the number 0: they are not repeated after a resume.
    """

    seq: int
    message: ServerMessage
