"""Supervised pipelines on trio: every stage is supervised, every wait can be cancelled.

This is the front door with the names of the tutorial. Each of them lives in a
package, where its neighbours are.
"""

from actorflow.actors import (
    Actor as Actor,
    ActorRef as ActorRef,
    Backoff as Backoff,
    Child as Child,
    Inbox as Inbox,
    Reply as Reply,
    Supervisor as Supervisor,
    open_actor as open_actor,
    open_system as open_system,
)
from actorflow.cancellation import (
    CancellationToken as CancellationToken,
    CleanupRegistry as CleanupRegistry,
)
from actorflow.errors import (
    ActorflowError as ActorflowError,
    ContractErrorInfo as ContractErrorInfo,
    CycleDetectedError as CycleDetectedError,
    PipelineValidationError as PipelineValidationError,
    UnifiedPipelineCancelled as UnifiedPipelineCancelled,
    UnifiedStageExecutionError as UnifiedStageExecutionError,
)
from actorflow.events import (
    EventSink as EventSink,
    event_sink_scope as event_sink_scope,
)
from actorflow.interceptors import BaseInterceptor as BaseInterceptor
from actorflow.model import (
    ContextSnapshot as ContextSnapshot,
    Conversation as Conversation,
    Enrichments as Enrichments,
    Message as Message,
    RunIdentity as RunIdentity,
    StageArtifact as StageArtifact,
    StageEvent as StageEvent,
    StageKind as StageKind,
    StageOutput as StageOutput,
    StageStatus as StageStatus,
)
from actorflow.pipeline import (
    FailureMode as FailureMode,
    Pipeline as Pipeline,
    PipelineBuilder as PipelineBuilder,
    StageSpec as StageSpec,
    all_of as all_of,
    any_of as any_of,
    chosen as chosen,
    edge as edge,
    key_is as key_is,
    key_true as key_true,
    not_ as not_,
    stage as stage,
)
from actorflow.runtime import (
    PipelineResults as PipelineResults,
    PipelineRunner as PipelineRunner,
    RunHandle as RunHandle,
    RunResult as RunResult,
)
from actorflow.stages import (
    DictContextAdapter as DictContextAdapter,
    ExecutionContext as ExecutionContext,
    PipelineContext as PipelineContext,
    Stage as Stage,
    StageContext as StageContext,
    StageInputs as StageInputs,
)

from ._version import __version__ as __version__
