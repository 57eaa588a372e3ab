"""A span around each try."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol, final

from actorflow.model import StageKind

from ._base import DONE, BaseInterceptor, ErrorAction
from ._direct import context_for, forget

if TYPE_CHECKING:
    from ._base import HookContext, InterceptorResult


class Span(Protocol):
    """What is asked of a span; OpenTelemetry's has it."""

    def record_exception(self, exception: BaseException) -> object: ...
    def end(self) -> object: ...


class Tracer(Protocol):
    """What opens spans; OpenTelemetry's tracers do."""

    def start_span(self, name: str, *, attributes: Mapping[str, Any]) -> Span: ...


@final
class TracingInterceptor(BaseInterceptor):
    """Opens the span `stage.<name>` around each try, and closes it however that ends.

    Without a tracer it does nothing.
    """

    name = "tracing"
    priority = 20
    observer = True

    def __init__(
        self,
        tracer: Tracer | None = None,
        *,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        self._tracer = tracer

    def applies_to(self, stage_name: str, kind: StageKind) -> bool:
        return self._tracer is not None and super().applies_to(stage_name, kind)

    def before(self, stage_name: str, ctx: HookContext) -> Awaitable[InterceptorResult | None]:
        if self._tracer is None:
            return DONE
        own = context_for(ctx, self.name, stage_name)
        kind = own.stage_kind
        attributes = {
            "pipeline.name": own.pipeline_name,
            "pipeline.run_id": str(own.pipeline_run_id),
            "stage.name": stage_name,
            "stage.kind": "" if kind is None else str(kind),
            "stage.attempt": own.attempt,
            "stage.try": own.try_number,
        }
        span = self._tracer.start_span(f"stage.{stage_name}", attributes=attributes)
        own.state["span"] = span
        return DONE

    async def on_error(self, stage_name: str, error: Exception, ctx: HookContext) -> ErrorAction:
        span = context_for(ctx, self.name, stage_name).state.get("span")
        if span is not None:
            span.record_exception(error)
        return ErrorAction.FAIL

    def release(self, stage_name: str, ctx: HookContext) -> Awaitable[None]:
        span = context_for(ctx, self.name, stage_name).state.pop("span", None)
        forget(ctx, self.name, stage_name)
        if span is not None:
            span.end()
        return DONE
