"""The contract a user implements: what a stage is, gets and gives."""

from __future__ import annotations

from ._bags import (
    ContextBag as ContextBag,
    OutputBag as OutputBag,
    OutputEntry as OutputEntry,
)
from ._execution_context import (
    DictContextAdapter as DictContextAdapter,
    ExecutionContext as ExecutionContext,
    adapt_context as adapt_context,
)
from ._inputs import (
    StageInputs as StageInputs,
    create_stage_inputs as create_stage_inputs,
)
from ._issues import (
    DependencyIssue as DependencyIssue,
    IssueSeverity as IssueSeverity,
)
from ._payloads import (
    StagePayloadResult as StagePayloadResult,
    cancel_output as cancel_output,
    fail_output as fail_output,
    ok_output as ok_output,
    payload_from_inputs as payload_from_inputs,
    payload_from_results as payload_from_results,
    summary_from_output as summary_from_output,
)
from ._pipeline_context import (
    PipelineContext as PipelineContext,
    extract_service as extract_service,
)
from ._ports import (
    AudioPorts as AudioPorts,
    CorePorts as CorePorts,
    LLMPorts as LLMPorts,
    Ports as Ports,
    create_audio_ports as create_audio_ports,
    create_core_ports as create_core_ports,
    create_llm_ports as create_llm_ports,
)
from ._protocol import Stage as Stage
from ._result import (
    ResultStatus as ResultStatus,
    SkippedBy as SkippedBy,
    StageResult as StageResult,
)
from ._run_port import (
    GuardFeedback as GuardFeedback,
    IdempotencyInfo as IdempotencyInfo,
    RunPort as RunPort,
    StageBus as StageBus,
    SubpipelineResult as SubpipelineResult,
)
from ._stage_context import (
    StageContext as StageContext,
    create_stage_context as create_stage_context,
)
from ._timer import PipelineTimer as PipelineTimer
