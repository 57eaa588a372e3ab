"""Streams inside a run, and sessions around runs."""

from __future__ import annotations

from typing import Literal, TypedDict

from .._spec import Delivery, Millis, event


@event("stream.chunk_dropped", Delivery.TRY)
class StreamChunkDropped(TypedDict):
    """A queue was full and something had to go."""

    queue_size: int
    max_size: int
    reason: Literal["overflow", "queue_full"]


@event("stream.producer_blocked", Delivery.TRY)
class StreamProducerBlocked(TypedDict):
    """A producer waited for room for more than a millisecond."""

    blocked_ms: float
    queue_size: int


class Throttle(TypedDict):
    """How full the queue is."""

    fill_percentage: float
    queue_size: int


@event("stream.throttle_started", Delivery.TRY)
class StreamThrottleStarted(Throttle, TypedDict):
    """Producers are asked to slow down."""


@event("stream.throttle_ended", Delivery.TRY)
class StreamThrottleEnded(Throttle, TypedDict):
    """Producers may go at full speed again."""


@event("stream.queue_closed", Delivery.TRY)
class StreamQueueClosed(TypedDict):
    """A queue was closed for the first time."""

    total_items: int
    dropped_items: int
    blocked_puts: int
    max_queue_size: int
    total_blocked_ms: float
    drop_rate: float


@event("stream.buffer_overflow", Delivery.TRY)
class StreamBufferOverflow(TypedDict):
    """Audio was dropped to make room."""

    bytes_dropped: int
    buffer_duration_ms: float
    max_duration_ms: float


@event("stream.buffer_underrun", Delivery.TRY)
class StreamBufferUnderrun(TypedDict):
    """A buffer ran out of audio."""

    bytes_requested: int
    bytes_available: int
    buffer_duration_ms: float


@event("stream.buffer_recovered", Delivery.TRY)
class StreamBufferRecovered(TypedDict):
    """A buffer has enough audio again."""

    buffer_duration_ms: float


class Session(TypedDict):
    """Which session; `seq` is counted per session and `pipeline_run_id` is null."""

    session_id: str


@event("session.opened", Delivery.WAIT)
class SessionOpened(Session, TypedDict):
    """A client was admitted."""

    principal: str | None
    subprotocol: str | None
    peer: str


@event("session.rejected", Delivery.WAIT)
class SessionRejected(TypedDict):
    """A client was turned away, before there was a session."""

    session_id: None
    reason: str
    status: int
    peer: str


@event("session.interrupted", Delivery.TRY)
class SessionInterrupted(Session, TypedDict):
    """The user spoke into the answer."""

    turn_id: str
    turn_run_id: str | None
    reason: str
    discarded_ms: float
    played_ms: float | None


@event("session.speech_started", Delivery.TRY)
class SessionSpeechStarted(Session, TypedDict):
    """Somebody has begun to speak; times are those of the session's audio."""

    at_ms: float


@event("session.speech_ended", Delivery.TRY)
class SessionSpeechEnded(Session, TypedDict):
    """Somebody has said something; `is_ignored` says that it was not meant as a turn."""

    at_ms: float
    duration_ms: float
    ended_by: Literal["silence", "limit", "client"]
    is_ignored: bool


@event("session.hearing_restarted", Delivery.TRY)
class SessionHearingRestarted(Session, TypedDict):
    """A stage that listens for a session broke; all of them have begun anew."""

    restarts: int


@event("session.overloaded", Delivery.TRY)
class SessionOverloaded(Session, TypedDict):
    """A direction could not keep up and something was dropped."""

    direction: Literal["in", "out"]
    policy: str
    dropped: int


@event("session.detached", Delivery.WAIT)
class SessionDetached(Session, TypedDict):
    """The connection was lost; the session waits for the client to come back."""

    reason: str
    grace_seconds: float


@event("session.resumed", Delivery.WAIT)
class SessionResumed(Session, TypedDict):
    """The client came back."""

    replayed: int
    gap: bool
    detached_seconds: float


@event("session.closed", Delivery.WAIT)
class SessionClosed(Session, TypedDict):
    """The session is over."""

    code: int
    reason: str
    duration_ms: Millis
    turns: int
    bytes_in: int
    bytes_out: int
