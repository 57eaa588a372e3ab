"""Supervised pipelines on trio: every stage is supervised, every wait can be cancelled.

This is the front door with the names of the tutorial. Each of them lives in a
package, where its neighbours are.
"""

from actorflow.actors import Actor as Actor
from actorflow.actors import ActorRef as ActorRef
from actorflow.actors import Backoff as Backoff
from actorflow.actors import Child as Child
from actorflow.actors import Inbox as Inbox
from actorflow.actors import Reply as Reply
from actorflow.actors import Supervisor as Supervisor
from actorflow.actors import open_actor as open_actor
from actorflow.actors import open_system as open_system
from actorflow.cancellation import CancellationToken as CancellationToken
from actorflow.cancellation import CleanupRegistry as CleanupRegistry
from actorflow.errors import ActorflowError as ActorflowError
from actorflow.errors import ContractErrorInfo as ContractErrorInfo
from actorflow.errors import CycleDetectedError as CycleDetectedError
from actorflow.errors import PipelineValidationError as PipelineValidationError
from actorflow.model import ContextSnapshot as ContextSnapshot
from actorflow.model import Conversation as Conversation
from actorflow.model import Enrichments as Enrichments
from actorflow.model import Message as Message
from actorflow.model import RunIdentity as RunIdentity
from actorflow.model import StageArtifact as StageArtifact
from actorflow.model import StageEvent as StageEvent
from actorflow.model import StageKind as StageKind
from actorflow.model import StageOutput as StageOutput
from actorflow.model import StageStatus as StageStatus
from actorflow.pipeline import FailureMode as FailureMode
from actorflow.pipeline import Pipeline as Pipeline
from actorflow.pipeline import PipelineBuilder as PipelineBuilder
from actorflow.pipeline import StageSpec as StageSpec
from actorflow.pipeline import all_of as all_of
from actorflow.pipeline import any_of as any_of
from actorflow.pipeline import chosen as chosen
from actorflow.pipeline import edge as edge
from actorflow.pipeline import key_is as key_is
from actorflow.pipeline import key_true as key_true
from actorflow.pipeline import not_ as not_
from actorflow.pipeline import stage as stage
from actorflow.runtime import PipelineResults as PipelineResults
from actorflow.stages import DictContextAdapter as DictContextAdapter
from actorflow.stages import ExecutionContext as ExecutionContext
from actorflow.stages import PipelineContext as PipelineContext
from actorflow.stages import Stage as Stage
from actorflow.stages import StageContext as StageContext
from actorflow.stages import StageInputs as StageInputs

from ._version import __version__ as __version__
