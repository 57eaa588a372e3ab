"""Numbers and words that both ends have agreed on."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import final


@final
class CloseCode(IntEnum):
    """Why a websocket was closed. Those from 4000 on are our own."""

    NORMAL = 1000
    """Somebody was done."""
    GOING_AWAY = 1001
    """The server is shutting down."""
    BAD_DATA = 1007
    """A frame was not JSON, or not UTF-8."""
    POLICY = 1008
    """The principal has as many sessions as it may."""
    TOO_BIG = 1009
    """A message was larger than the limit."""
    INTERNAL = 1011
    """The application failed."""
    OVERLOADED = 1013
    """More came in than could be worked off."""
    NO_START = 4000
    """No `start` message in time."""
    IDLE = 4001
    """Nothing was said for too long."""
    HEARTBEAT = 4002
    """The peer no longer answers."""
    PROTOCOL = 4003
    """A message had the wrong form, or came at the wrong time."""
    RESUME_REFUSED = 4004
    """There is no such session to resume, or not with this token."""
    REPLACED = 4005
    """Another connection has resumed the session."""
    SLOW_CLIENT = 4006
    """The client does not read what it is sent."""


@final
class ErrorCode(StrEnum):
    """What an `error` message is about."""

    PROTOCOL = "PROTOCOL"
    AUDIO_FORMAT = "AUDIO_FORMAT"
    NOT_ALLOWED = "NOT_ALLOWED"
    RESUME_GAP = "RESUME_GAP"
    TURN_FAILED = "TURN_FAILED"
    OVERLOADED = "OVERLOADED"
    TOO_BIG = "TOO_BIG"
