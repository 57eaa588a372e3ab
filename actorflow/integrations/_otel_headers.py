"""The trace on its way out of this process, or into another run."""

from __future__ import annotations

from actorflow.errors import MissingExtraError


def trace_headers() -> dict[str, str]:
    """The W3C headers that let somebody else continue the current trace.

    Inside a stage that an `OTelEventSink` follows they name the span of the stage.
    Add them to a request, or to the metadata of a run. Without a current span
    there are none.

    Raises:
      MissingExtraError: if opentelemetry is not installed.
    """
    try:
        from opentelemetry.trace.propagation import tracecontext
    except ImportError:
        raise MissingExtraError("trace_headers", "otel") from None
    headers: dict[str, str] = {}
    tracecontext.TraceContextTextMapPropagator().inject(headers)
    return headers
