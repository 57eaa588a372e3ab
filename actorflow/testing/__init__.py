"""What tests of pipelines need: sinks that remember, doubles, probes and suites."""

from __future__ import annotations

from ._calls import (
    CallRecord as CallRecord,
    EndOfTurn as EndOfTurn,
    Heard as Heard,
    Interruption as Interruption,
    Moment as Moment,
    Outage as Outage,
    Writing as Writing,
    open_session_pair as open_session_pair,
    place_call as place_call,
    run_call as run_call,
)
from ._calls_leaks import no_leaks as no_leaks
from ._calls_speech import (
    ScriptedDetector as ScriptedDetector,
    ScriptedMic as ScriptedMic,
    ScriptedRecognizer as ScriptedRecognizer,
    Speech as Speech,
    speech_audio as speech_audio,
    words_in as words_in,
)
from ._connection import (
    MemoryConnection as MemoryConnection,
    memory_connection_pair as memory_connection_pair,
)
from ._faults import (
    Fails as Fails,
    Fault as Fault,
    Hangs as Hangs,
    Lags as Lags,
    SwallowsCancel as SwallowsCancel,
    faulty as faulty,
    with_faults as with_faults,
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
from ._sink_suite import check_event_sink as check_event_sink
from ._sinks import (
    CatalogueViolation as CatalogueViolation,
    RecordedEvent as RecordedEvent,
    RecordingEventSink as RecordingEventSink,
)
from ._stages import (
    StageRun as StageRun,
    make_snapshot as make_snapshot,
    make_stage_context as make_stage_context,
    run_stage as run_stage,
)
from ._strategies import (
    ScriptedStage as ScriptedStage,
    pipelines as pipelines,
)
