"""Twilio Media Streams: a phone call as JSON frames with mu-law audio in base64.

Twilio gathers what it is sent and plays it. `mark` is its only word about how far
it has come, so a mark follows each piece of audio; `clear` throws away what it has
gathered, and sends the marks of that back as well.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, final

import attrs

from actorflow.errors import ProtocolViolationError

from ._codes import ErrorCode
from ._format import MAX_MESSAGE_SIZE, Frame
from ._json import check_size, parse_object, read_as
from ._messages import (
    ClientMessage,
    End,
    Interrupted,
    Played,
    ReplyAudio,
    ServerMessage,
    Start,
    UserAudio,
    UserText,
)
from ._mulaw import mulaw_from_pcm16, pcm16_from_mulaw
from ._shape import AudioShape

_PHONE: Final = AudioShape(sample_rate=8_000, channels=1)


@attrs.frozen
class _MediaFormat:
    encoding: str
    sampleRate: int  # noqa: N815 - the names are Twilio's
    channels: int


_SPOKEN: Final = _MediaFormat("audio/x-mulaw", 8_000, 1)


@attrs.frozen
class _StartOfCall:
    streamSid: str  # noqa: N815
    mediaFormat: _MediaFormat  # noqa: N815
    callSid: str | None = None  # noqa: N815
    customParameters: Mapping[str, Any] = attrs.field(factory=dict)  # noqa: N815


@attrs.frozen
class _Media:
    payload: bytes
    track: str = "inbound"


@attrs.frozen
class _Mark:
    name: str


@attrs.frozen
class _Key:
    digit: str


@final
@attrs.frozen
class TwilioFormat:
    """The server's end of a Twilio media stream.

    To the session it is a client with one channel of 8 kHz. Pressed keys arrive as
    text. Sessions over it cannot be resumed: Twilio hangs up when a socket is lost.
    """

    max_message_size: int = MAX_MESSAGE_SIZE
    stream_sid: str | None = None

    subprotocol: ClassVar[str | None] = None
    is_resumable: ClassVar[bool] = False

    def opening(self) -> tuple[ClientMessage, ...]:
        """Nothing: Twilio says when the stream starts."""
        return ()

    def read(self, frame: Frame) -> tuple[TwilioFormat, tuple[ClientMessage, ...]]:
        """What a frame of Twilio says, and the format to read the next one with."""
        check_size(frame, self.max_message_size)
        if isinstance(frame, bytes):
            raise ProtocolViolationError("a binary frame in a Twilio media stream")
        data = parse_object(frame)
        event = data.get("event")
        if event == "start":
            return self._started(read_as(_StartOfCall, data.get("start"), "start"))
        read = _READERS.get(event) if isinstance(event, str) else None
        if read is None:
            raise ProtocolViolationError("a Twilio event of an unknown kind")
        return self, read(data)

    def _started(self, call: _StartOfCall) -> tuple[TwilioFormat, tuple[ClientMessage, ...]]:
        if call.mediaFormat != _SPOKEN:
            raise ProtocolViolationError(
                "a Twilio stream that is not mu-law of 8000 Hz", error_code=ErrorCode.AUDIO_FORMAT
            )
        metadata = {
            "stream_sid": call.streamSid,
            "call_sid": call.callSid,
            "parameters": call.customParameters,
        }
        start = Start(audio=_PHONE, metadata=metadata)
        return attrs.evolve(self, stream_sid=call.streamSid), (start,)

    def write(self, seq: int, message: ServerMessage) -> tuple[Frame, ...]:
        """The frames that say `message`; only audio and interruptions have any."""
        match message:
            case ReplyAudio(turn_id=turn_id, ends_at_ms=ends_at_ms, data=data):
                payload = base64.b64encode(mulaw_from_pcm16(data)).decode("ascii")
                mark = {"name": f"{turn_id}@{ends_at_ms:.3f}"}
                return (
                    self._event("media", media={"payload": payload}),
                    self._event("mark", mark=mark),
                )
            case Interrupted(turn_id=str()):
                return (self._event("clear"),)
            case _:
                return ()

    def _event(self, name: str, **content: object) -> str:
        event = {"event": name, "streamSid": self.stream_sid, **content}
        return json.dumps(event, separators=(",", ":"))


def _nothing(_: Mapping[str, Any]) -> tuple[ClientMessage, ...]:
    return ()


def _media(data: Mapping[str, Any]) -> tuple[ClientMessage, ...]:
    media = read_as(_Media, data.get("media"), "media")
    # The other track is our own voice.
    return (UserAudio(pcm16_from_mulaw(media.payload)),) if media.track == "inbound" else ()


def _mark(data: Mapping[str, Any]) -> tuple[ClientMessage, ...]:
    turn_id, at, place = read_as(_Mark, data.get("mark"), "mark").name.rpartition("@")
    try:
        played_ms = float(place)
    except ValueError:
        played_ms = -1.0
    # A mark of somebody else is none of our business.
    if not (at and played_ms >= 0 and math.isfinite(played_ms)):
        return ()
    return (Played(turn_id, played_ms),)


def _key(data: Mapping[str, Any]) -> tuple[ClientMessage, ...]:
    return (UserText(read_as(_Key, data.get("dtmf"), "dtmf").digit),)


def _stop(_: Mapping[str, Any]) -> tuple[ClientMessage, ...]:
    return (End("session"),)


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[ClientMessage, ...]]]] = {
    "connected": _nothing,
    "media": _media,
    "mark": _mark,
    "dtmf": _key,
    "stop": _stop,
}
