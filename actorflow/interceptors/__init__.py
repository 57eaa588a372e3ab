"""What happens around the call of a stage: retry, timeout, idempotency, breakers, checks."""

from __future__ import annotations

from ._base import (
    BaseInterceptor as BaseInterceptor,
    ErrorAction as ErrorAction,
    InterceptorResult as InterceptorResult,
)
from ._chain import StageChain as StageChain
from ._child_metrics import (
    ChildTracker as ChildTracker,
    ChildTrackerMetricsInterceptor as ChildTrackerMetricsInterceptor,
)
from ._circuit_breaker import (
    CircuitBreakerInterceptor as CircuitBreakerInterceptor,
    CircuitBreakerState as CircuitBreakerState,
)
from ._configuration import (
    check_graph as check_graph,
    compile_chains as compile_chains,
    ordered as ordered,
)
from ._context import (
    InterceptorContext as InterceptorContext,
    StageCallPort as StageCallPort,
)
from ._context_size import ContextSizeInterceptor as ContextSizeInterceptor
from ._defaults import get_default_interceptors as get_default_interceptors
from ._direct import run_with_interceptors as run_with_interceptors
from ._idempotency import IdempotencyInterceptor as IdempotencyInterceptor, WorkKey as WorkKey
from ._idempotency_rules import IdempotencyKey as IdempotencyKey
from ._immutability import ImmutabilityInterceptor as ImmutabilityInterceptor
from ._logging import LoggingInterceptor as LoggingInterceptor
from ._metrics import MetricsInterceptor as MetricsInterceptor, StageMetrics as StageMetrics
from ._outcome import CallEnd as CallEnd, Outcome as Outcome
from ._retry import RetryInterceptor as RetryInterceptor
from ._retry_policy import RetryPolicy as RetryPolicy
from ._timeout import TimeoutInterceptor as TimeoutInterceptor
from ._tracing import Span as Span, Tracer as Tracer, TracingInterceptor as TracingInterceptor
