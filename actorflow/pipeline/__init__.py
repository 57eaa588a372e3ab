"""How stages are declared, wired, checked, looked up, linted and drawn."""

from ._conditions import (
    Decision as Decision,
    Fail as Fail,
    Settled as Settled,
    Skip as Skip,
    SkippedBy as SkippedBy,
    Start as Start,
    check_branch as check_branch,
    check_outputs as check_outputs,
    decide as decide,
)
from ._failure_mode import FailureMode as FailureMode
from ._graph import Wiring as Wiring
from ._guard_retry import (
    GuardRetryPolicy as GuardRetryPolicy,
    GuardRetryStrategy as GuardRetryStrategy,
    hash_retry_payload as hash_retry_payload,
)
from ._options import PipelineOptions as PipelineOptions
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
from ._spec import (
    PipelineSpec as PipelineSpec,
    StageSpec as StageSpec,
    UnifiedStageSpec as UnifiedStageSpec,
)
from ._stage import stage as stage
from ._validation import validated as validated
