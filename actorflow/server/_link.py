from __future__ import annotations

from typing import final

import attrs
import trio

from actorflow.errors import ConnectionLostError
from actorflow.protocol import ServerMessage, WireFormat
from actorflow.transport import Connection


@final
@attrs.define(eq=False)
class Link:
    """One connection of a session, from `start` to its end."""

    connection: Connection
    format: WireFormat
    greeting: tuple[ServerMessage, ...] = ()
    """What is said first, outside of the numbers."""
    after_seq: int = 0
    """What the client has of the session already."""
    is_sending: bool = False
    """Whether a frame was begun: nothing but an abort may follow if it is given up."""
    is_pinging: bool = False
    """Whether a ping has no answer yet."""
    is_paused: bool = False
    """Whether reading waits for room, so that the client cannot be heard."""
    lost: ConnectionLostError | None = None
    """How it ended, if it has."""
    last_heard: float = attrs.field(factory=trio.current_time)
    done: trio.Event = attrs.field(factory=trio.Event)
    """Set when the session has no more use for the connection."""
