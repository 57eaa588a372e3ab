"""Bridges to other systems. Each needs the extra that its error names."""

from __future__ import annotations

from ._otel import OTelEventSink as OTelEventSink
