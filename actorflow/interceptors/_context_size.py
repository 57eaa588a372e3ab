"""Noticing contexts that grow too large."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from actorflow.compression import json_size
from actorflow.errors import ContextSizeExceededError, InvalidArgumentError
from actorflow.model import StageKind

from ._base import BaseInterceptor, InterceptorResult
from ._direct import context_for, forget

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext
    from ._context import InterceptorContext

_log: Final = logging.getLogger("actorflow.hardening")


@final
class ContextSizeInterceptor(BaseInterceptor):
    """Warns when what a stage is given is large, and when a stage adds much to it.

    The size is that of the snapshot, the run's data and the outputs the stage may
    read, written as JSON. It is also kept as the metric `context_size_bytes`.
    """

    name = "context_size"
    priority = 42

    def __init__(
        self,
        max_size_bytes: int = 1_048_576,
        warn_on_growth_bytes: int = 102_400,
        *,
        fail_on_exceed: bool = False,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        """Warn beyond these limits; with `fail_on_exceed` the first one fails the stage."""
        super().__init__(stages=stages, kinds=kinds)
        for argument, limit in (
            ("max_size_bytes", max_size_bytes),
            ("warn_on_growth_bytes", warn_on_growth_bytes),
        ):
            if not limit > 0:
                raise InvalidArgumentError(argument, limit, "more than 0 bytes")
        self._max_size = max_size_bytes
        self._max_growth = warn_on_growth_bytes
        self._fail_on_exceed = fail_on_exceed

    async def before(self, stage_name: str, ctx: HookContext) -> InterceptorResult | None:
        own = context_for(ctx, self.name, stage_name)
        try:
            data_size = _data_size(own)
            size = _snapshot_size(own) + data_size + _outputs_size(own)
            own.state["size"], own.state["data_size"] = size, data_size
            _record(own, stage_name, size)
        except Exception as error:  # noqa: BLE001 - anything may be in a context
            _could_not_measure(own, error)
            return None
        if size <= self._max_size:
            return None
        if self._fail_on_exceed:
            exceeded = ContextSizeExceededError(stage_name, size, self._max_size)
            return InterceptorResult(stage_ran=False, error=exceeded)
        told = {"stage": stage_name, "size_bytes": size, "limit_bytes": self._max_size}
        own.try_emit_event("context.size_warning", told)
        text = f"Context size warning: {_kb(size)}KB exceeds limit {_kb(self._max_size)}KB"
        _log.warning(text, extra=told)
        return None

    async def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> StageOutput | None:
        own = context_for(ctx, self.name, stage_name)
        if "size" not in own.state:
            return None
        try:
            growth = _data_size(own) - own.state["data_size"] + json_size(result.data)
        except Exception as error:  # noqa: BLE001 - anything may be in a context
            _could_not_measure(own, error)
            return None
        finally:
            size = own.state["size"]
            forget(ctx, self.name, stage_name)
        _record(own, stage_name, size + growth)
        if growth > self._max_growth:
            told = {
                "stage": stage_name,
                "size_bytes": size + growth,
                "growth_bytes": growth,
                "limit_bytes": self._max_growth,
            }
            own.try_emit_event("context.growth_warning", told)
            text = f"Significant context growth: Stage '{stage_name}' added {_kb(growth)}KB"
            _log.warning(text, extra=told)
        return None


def _snapshot_size(ctx: InterceptorContext) -> int:
    # It does not change, so once per run is enough.
    known: int | None = ctx.get_observation("snapshot_bytes")
    if known is None:
        known = json_size(ctx.snapshot.to_dict())
        ctx.add_observation("snapshot_bytes", known)
    return known


def _data_size(ctx: InterceptorContext) -> int:
    data: Mapping[str, Any] = ctx.context.data
    return json_size({key: value for key, value in data.items() if not key.startswith("_")})


def _outputs_size(ctx: InterceptorContext) -> int:
    outputs = ctx.inputs.prior_outputs
    return json_size({name: output.data for name, output in outputs.items()})


def _record(ctx: InterceptorContext, stage_name: str, size: int) -> None:
    record = getattr(ctx.context, "record_metric", None)
    if record is not None:
        record("context_size_bytes", size, {"stage": stage_name})


def _could_not_measure(ctx: InterceptorContext, error: Exception) -> None:
    if ctx.get_observation("failed") is None:
        ctx.add_observation("failed", True)
        _log.warning("context_size_not_measured", extra={"error": repr(error)})


def _kb(size: int) -> int:
    return size // 1024
