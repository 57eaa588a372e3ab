"""Actors on trio: tasks with bounded mailboxes, and supervisors that know what to do when they end."""

from ._actor import Actor as Actor
from ._inbox import ActorContext as ActorContext, Down as Down, Inbox as Inbox, Tick as Tick
from ._letters import DeadLetter as DeadLetter, DeadReason as DeadReason
from ._notices import (
    ActorEnded as ActorEnded,
    ActorStarted as ActorStarted,
    Notice as Notice,
    RestartPlanned as RestartPlanned,
    SupervisorGaveUp as SupervisorGaveUp,
)
from ._policy import Policy as Policy, conflate as conflate
from ._reasons import (
    Crashed as Crashed,
    Killed as Killed,
    Normal as Normal,
    Reason as Reason,
    Shutdown as Shutdown,
)
from ._ref import ActorRef as ActorRef
from ._reply import Reply as Reply
from ._spec import Child as Child, SpawnOptions as SpawnOptions, Supervisor as Supervisor
from ._state import State as State
from ._supervision import Backoff as Backoff, RestartType as RestartType, Strategy as Strategy
from ._system import System as System, open_actor as open_actor, open_system as open_system
from ._tree import (
    ActorInfo as ActorInfo,
    ActorStatistics as ActorStatistics,
    SystemStatistics as SystemStatistics,
)
from ._waits import current_system as current_system
