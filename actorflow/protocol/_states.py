"""The life of a session as two tables: where what leads, and which message may come when.

The server obeys them, the client can look at them, and the diagram in the
documentation is drawn from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, final

from actorflow.errors import ProtocolViolationError

from ._codes import ErrorCode
from ._messages import (
    Ack,
    ClientMessage,
    End,
    Interrupt,
    Ping,
    Played,
    Start,
    UserAudio,
    UserText,
)


@final
class SessionState(StrEnum):
    """Where a session, or the connection that wants one, is."""

    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    WAITING_START = "waiting_start"
    IDLE = "idle"
    IN_TURN = "in_turn"
    DETACHED = "detached"
    DRAINING = "draining"
    CLOSED = "closed"


@final
class Step(StrEnum):
    """What can happen to a session."""

    REQUESTED = "requested"
    """The client has sent its HTTP request."""
    ADMITTED = "admitted"
    """It may come in, and the connection is upgraded."""
    STARTED = "started"
    TURN_BEGAN = "turn_began"
    TURN_ENDED = "turn_ended"
    LOST = "lost"
    """The connection ended, the session need not."""
    RESUMED = "resumed"
    RESUMED_IN_TURN = "resumed_in_turn"
    DRAIN = "drain"
    """The server wants to shut down."""
    CLOSED = "closed"


_S: Final = SessionState

TRANSITIONS: Final[Mapping[tuple[SessionState, Step], SessionState]] = {
    (_S.CONNECTING, Step.REQUESTED): _S.AUTHENTICATING,
    (_S.AUTHENTICATING, Step.ADMITTED): _S.WAITING_START,
    (_S.WAITING_START, Step.STARTED): _S.IDLE,
    (_S.IDLE, Step.TURN_BEGAN): _S.IN_TURN,
    (_S.IN_TURN, Step.TURN_ENDED): _S.IDLE,
    (_S.IDLE, Step.LOST): _S.DETACHED,
    (_S.IN_TURN, Step.LOST): _S.DETACHED,
    (_S.DETACHED, Step.TURN_BEGAN): _S.DETACHED,
    (_S.DETACHED, Step.TURN_ENDED): _S.DETACHED,
    (_S.DETACHED, Step.RESUMED): _S.IDLE,
    (_S.DETACHED, Step.RESUMED_IN_TURN): _S.IN_TURN,
    (_S.IDLE, Step.DRAIN): _S.CLOSED,
    (_S.IN_TURN, Step.DRAIN): _S.DRAINING,
    (_S.DETACHED, Step.DRAIN): _S.CLOSED,
    (_S.DRAINING, Step.TURN_ENDED): _S.CLOSED,
    (_S.DRAINING, Step.LOST): _S.CLOSED,
    **{(state, Step.CLOSED): _S.CLOSED for state in _S},
}
"""Where each step leads. A step that is not listed cannot be taken there."""

_OPEN: Final = frozenset({_S.IDLE, _S.IN_TURN, _S.DRAINING})

ALLOWED: Final[Mapping[type[ClientMessage], frozenset[SessionState]]] = {
    Start: frozenset({_S.WAITING_START}),
    UserAudio: _OPEN,
    UserText: _OPEN,
    Interrupt: _OPEN,
    End: _OPEN,
    Ack: _OPEN,
    Played: _OPEN,
    Ping: _OPEN,
}
"""The states in which each message of the client may come."""


def after(state: SessionState, step: Step) -> SessionState:
    """The state to which `step` leads.

    Raises:
      KeyError: if it cannot be taken in `state`, which is a mistake of ours.
    """
    return TRANSITIONS[state, step]


def check_allowed(state: SessionState, message: ClientMessage) -> None:
    """Refuse a message that may not come in `state`.

    Raises:
      ProtocolViolationError: with what was expected instead.
    """
    if state not in ALLOWED[type(message)]:
        raise ProtocolViolationError(
            f"a message {message.type!r} while the session was {state.value}",
            error_code=ErrorCode.NOT_ALLOWED,
        )


def state_diagram() -> str:
    """The table of transitions as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {_S.CONNECTING}"]
    lines += [
        f"    {state} --> {target}: {step.replace('_', ' ')}"
        for (state, step), target in TRANSITIONS.items()
        # Everything can be closed; arrows for that would hide the others.
        if step is not Step.CLOSED
    ]
    return "\n".join([*lines, f"    {_S.CLOSED} --> [*]"])
