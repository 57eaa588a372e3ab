"""The interceptors that a pipeline has if nobody says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import BaseInterceptor
from ._child_metrics import ChildTrackerMetricsInterceptor
from ._circuit_breaker import CircuitBreakerInterceptor
from ._idempotency import IdempotencyInterceptor
from ._logging import LoggingInterceptor
from ._metrics import MetricsInterceptor
from ._retry import RetryInterceptor
from ._timeout import TimeoutInterceptor
from ._tracing import TracingInterceptor

if TYPE_CHECKING:
    from actorflow.stores import IdempotencyStore


def get_default_interceptors(
    *,
    include_idempotency: bool = True,
    idempotency_store: IdempotencyStore | None = None,
    include_retry: bool = True,
    default_timeout_ms: float | None = None,
) -> list[BaseInterceptor]:
    """A new list, the outermost first.

    The retry in it repeats only what a stage itself asks to have repeated.
    """
    interceptors: list[BaseInterceptor] = [
        TimeoutInterceptor(default_timeout_ms),
        CircuitBreakerInterceptor(),
        TracingInterceptor(),
        MetricsInterceptor(),
        ChildTrackerMetricsInterceptor(),
        LoggingInterceptor(),
    ]
    if include_idempotency:
        interceptors.append(IdempotencyInterceptor(idempotency_store))
    if include_retry:
        interceptors.append(RetryInterceptor(retry_on=()))
    return sorted(interceptors, key=lambda interceptor: interceptor.priority)
