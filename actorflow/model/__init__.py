"""The values that flow through a pipeline. All of them are frozen, all the way down."""

from __future__ import annotations

from ._audio import (
    AudioChunk as AudioChunk,
    AudioFormat as AudioFormat,
    StreamConfig as StreamConfig,
    calculate_audio_duration_ms as calculate_audio_duration_ms,
)
from ._conversation import (
    Conversation as Conversation,
    Message as Message,
    RoutingDecision as RoutingDecision,
)
from ._enrichments import (
    DocumentEnrichment as DocumentEnrichment,
    Enrichments as Enrichments,
    MemoryEnrichment as MemoryEnrichment,
    ProfileEnrichment as ProfileEnrichment,
)
from ._extensions import (
    ExtensionBundle as ExtensionBundle,
    ExtensionRegistry as ExtensionRegistry,
    UnknownExtension as UnknownExtension,
    default_extension_registry as default_extension_registry,
    get_extension as get_extension,
    register_extension as register_extension,
)
from ._frozen import (
    FrozenDict as FrozenDict,
    FrozenList as FrozenList,
    freeze as freeze,
    thaw as thaw,
)
from ._identity import RunIdentity as RunIdentity
from ._output import (
    StageArtifact as StageArtifact,
    StageEvent as StageEvent,
    StageOutput as StageOutput,
)
from ._snapshot import ContextSnapshot as ContextSnapshot
from ._stage import StageKind as StageKind, StageStatus as StageStatus
from ._value import converter as _converter
from ._wire import HOOKS as _HOOKS

_converter.configure(*_HOOKS)
