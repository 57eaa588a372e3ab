"""What tests of pipelines need: sinks that remember, doubles, probes and suites."""

from __future__ import annotations

from ._connection import (
    MemoryConnection as MemoryConnection,
    memory_connection_pair as memory_connection_pair,
)
from ._idempotency_suite import check_idempotency_store as check_idempotency_store
from ._memory_suite import check_memory_store as check_memory_store
from ._providers import (
    MockAudioChunk as MockAudioChunk,
    MockAuthProvider as MockAuthProvider,
    MockCompletion as MockCompletion,
    MockJWTClaims as MockJWTClaims,
    MockLLMProvider as MockLLMProvider,
    MockSTTProvider as MockSTTProvider,
    MockToolExecutor as MockToolExecutor,
    MockToolResult as MockToolResult,
    MockTranscription as MockTranscription,
    MockTTSProvider as MockTTSProvider,
)
from ._seeded import run_seeded as run_seeded
from ._sinks import (
    CatalogueViolation as CatalogueViolation,
    RecordedEvent as RecordedEvent,
    RecordingEventSink as RecordingEventSink,
)
