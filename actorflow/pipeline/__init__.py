"""How stages are declared, wired, checked, looked up, linted and drawn."""

from __future__ import annotations

from actorflow.errors import (
    ContractErrorInfo as ContractErrorInfo,
    ContractSuggestion as ContractSuggestion,
    contract_suggestion_codes as contract_suggestion_codes,
    get_contract_suggestion as get_contract_suggestion,
    register_suggestion as register_suggestion,
)
from actorflow.stages import (
    DependencyIssue as DependencyIssue,
    GuardFeedback as GuardFeedback,
    IssueSeverity as IssueSeverity,
    SkippedBy as SkippedBy,
)

from ._builder import PipelineBuilder as PipelineBuilder
from ._conditions import (
    Decision as Decision,
    Fail as Fail,
    Settled as Settled,
    Skip as Skip,
    Start as Start,
    check_branch as check_branch,
    check_outputs as check_outputs,
    decide as decide,
)
from ._dot import to_dot as to_dot
from ._engine import (
    Engine as Engine,
    LegacyGraph as LegacyGraph,
    PipelineGraph as PipelineGraph,
    Run as Run,
    RunResults as RunResults,
    Source as Source,
    install_engine as install_engine,
)
from ._failure_mode import FailureMode as FailureMode
from ._fluent import FluentPipelineBuilder as FluentPipelineBuilder
from ._graph import Wiring as Wiring
from ._guard_retry import (
    GuardRetryPolicy as GuardRetryPolicy,
    GuardRetryStrategy as GuardRetryStrategy,
    hash_retry_payload as hash_retry_payload,
)
from ._lint import (
    DependencyLintResult as DependencyLintResult,
    lint_pipeline as lint_pipeline,
)
from ._mermaid import to_mermaid as to_mermaid
from ._options import PipelineOptions as PipelineOptions
from ._patterns import (
    with_conditional_branch as with_conditional_branch,
    with_fan_out_fan_in as with_fan_out_fan_in,
    with_linear_chain as with_linear_chain,
    with_parallel_stages as with_parallel_stages,
)
from ._pipeline import Pipeline as Pipeline
from ._predicates import (
    Edge as Edge,
    all_of as all_of,
    any_of as any_of,
    chosen as chosen,
    edge as edge,
    key_is as key_is,
    key_true as key_true,
    not_ as not_,
)
from ._reads import analyze_stage_source as analyze_stage_source
from ._registry import (
    PipelineRegistry as PipelineRegistry,
    pipeline_registry as pipeline_registry,
)
from ._spec import (
    PipelineSpec as PipelineSpec,
    StageSpec as StageSpec,
    UnifiedStageSpec as UnifiedStageSpec,
)
from ._stage import stage as stage
from ._validation import validated as validated
