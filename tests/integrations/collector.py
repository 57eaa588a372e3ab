"""An SDK of OpenTelemetry that keeps what it is told."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actorflow.integrations import OTelEventSink


class Collector:
    """An SDK of its own, in memory, and a sink that reports to it."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.sink = OTelEventSink(
            tracer_provider=self.tracers,
            meter_provider=MeterProvider(metric_readers=[self._reader]),
            **options,
        )

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in that order."""
        return self._exporter.get_finished_spans()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The last one of each name."""
        return {span.name: span for span in self.finished}

    def parent(self, name: str) -> str | None:
        """The name of a span's parent."""
        parent = self.spans[name].parent
        names = {
            span.context.span_id: span.name for span in self.finished if span.context is not None
        }
        return None if parent is None else names.get(parent.span_id, "elsewhere")

    def trace_of(self, name: str) -> int:
        """The id of the trace that a span is part of."""
        context = self.spans[name].context
        assert context is not None
        trace_id: int = context.trace_id
        return trace_id

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Labels and value, or sum, of each data point, by metric."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (
                            dict(point.attributes or {}),
                            getattr(point, "value", None) or getattr(point, "sum", None),
                        )
                        for point in metric.data.data_points
                    ]
        return found
