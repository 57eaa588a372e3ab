"""The language of client and server over a websocket: messages and how they are written."""

from __future__ import annotations

from ._codes import CloseCode as CloseCode, ErrorCode as ErrorCode
from ._format import MAX_MESSAGE_SIZE as MAX_MESSAGE_SIZE, Frame as Frame, WireFormat as WireFormat
from ._house import HouseClientFormat as HouseClientFormat, HouseFormat as HouseFormat
from ._ledger import Playback as Playback
from ._messages import (
    CLIENT_MESSAGES as CLIENT_MESSAGES,
    PROTOCOL as PROTOCOL,
    SERVER_MESSAGES as SERVER_MESSAGES,
    Ack as Ack,
    ClientMessage as ClientMessage,
    Closing as Closing,
    End as End,
    Error as Error,
    Failure as Failure,
    Flow as Flow,
    Interrupt as Interrupt,
    Interrupted as Interrupted,
    Numbered as Numbered,
    Ping as Ping,
    Played as Played,
    Pong as Pong,
    Ready as Ready,
    ReplyAudio as ReplyAudio,
    ReplyText as ReplyText,
    ServerEvent as ServerEvent,
    ServerMessage as ServerMessage,
    SessionLimits as SessionLimits,
    Start as Start,
    Transcript as Transcript,
    TurnCompleted as TurnCompleted,
    TurnStarted as TurnStarted,
    UserAudio as UserAudio,
    UserText as UserText,
)
from ._microphone import Microphone as Microphone
from ._mulaw import mulaw_from_pcm16 as mulaw_from_pcm16, pcm16_from_mulaw as pcm16_from_mulaw
from ._outbox import Discarded as Discarded, Outbox as Outbox, TurnMessage as TurnMessage
from ._pacing import DEFAULT_LEAD_MS as DEFAULT_LEAD_MS, Pacer as Pacer
from ._plain import PlainAudioFormat as PlainAudioFormat
from ._replay import ReplayBuffer as ReplayBuffer
from ._shape import AudioShape as AudioShape
from ._states import (
    ALLOWED as ALLOWED,
    TRANSITIONS as TRANSITIONS,
    SessionState as SessionState,
    Step as Step,
    after as after,
    check_allowed as check_allowed,
    state_diagram as state_diagram,
)
from ._twilio import TwilioFormat as TwilioFormat
