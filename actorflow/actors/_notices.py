"""What a system tells its listeners."""

from __future__ import annotations

from typing import TypeAlias, final

import attrs

from ._letters import DeadLetter
from ._reasons import Reason


@final
@attrs.frozen
class ActorStarted:
    """An actor is ready."""

    actor: str
    incarnation: int


@final
@attrs.frozen
class ActorEnded:
    """A life of an actor is over; another one may follow."""

    actor: str
    incarnation: int
    reason: Reason


@final
@attrs.frozen
class RestartPlanned:
    """A supervisor will start these actors again, in this order, `delay` seconds from now."""

    supervisor: str
    actors: tuple[str, ...]
    delay: float


@final
@attrs.frozen
class SupervisorGaveUp:
    """A supervisor has used up its restarts; the failure moves up."""

    supervisor: str
    actor: str
    reason: Reason


Notice: TypeAlias = ActorStarted | ActorEnded | RestartPlanned | SupervisorGaveUp | DeadLetter
