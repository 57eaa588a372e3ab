"""How often stages are tried, how that ends, and how long it takes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Mapping
from typing import TYPE_CHECKING, Final, final

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.model import FrozenDict, StageKind

from ._base import DONE, PlainFacts
from ._direct import context_for

if TYPE_CHECKING:
    from actorflow.model import StageOutput
    from actorflow.stages import StageResult

    from ._base import HookContext
    from ._context import InterceptorContext
    from ._outcome import Outcome

_log: Final = logging.getLogger("actorflow.interceptors")


@final
@attrs.frozen
class StageMetrics:
    """The tries of one stage so far."""

    counts: Mapping[str, int] = FrozenDict()
    """How many ended with each status."""
    total_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts.values())


@final
class _Tally:
    # Changed in place on the path of every try; who asks gets a frozen copy.
    __slots__ = ("counts", "max_ms", "min_ms", "total_ms")

    def __init__(self, duration_ms: float) -> None:
        self.counts: dict[str, int] = {}
        self.total_ms = 0.0
        self.min_ms = self.max_ms = duration_ms

    def add(self, status: str, duration_ms: float) -> None:
        self.counts[status] = self.counts.get(status, 0) + 1
        self.total_ms += duration_ms
        if duration_ms < self.min_ms:
            self.min_ms = duration_ms
        elif duration_ms > self.max_ms:
            self.max_ms = duration_ms

    def frozen(self) -> StageMetrics:
        return StageMetrics(FrozenDict(self.counts), self.total_ms, self.min_ms, self.max_ms)


@final
class MetricsInterceptor(PlainFacts):
    """Counts tries per pipeline and stage, and logs a record `stage_metrics` for each.

    Beyond `max_keys` stages the one that was tried least recently is forgotten.
    """

    name = "metrics"
    priority = 40
    observer = True

    def __init__(
        self,
        *,
        max_keys: int = 10_000,
        stages: Collection[str] | None = None,
        kinds: Collection[StageKind | str] | None = None,
    ) -> None:
        super().__init__(stages=stages, kinds=kinds)
        if not max_keys >= 1:
            raise InvalidArgumentError("max_keys", max_keys, "1 or more")
        self._max_keys = max_keys
        self._tallies: OrderedDict[tuple[str, str], _Tally] = OrderedDict()

    def after(
        self, stage_name: str, result: StageResult, ctx: HookContext
    ) -> Awaitable[StageOutput | None]:
        own = context_for(ctx, self.name, stage_name)
        self._note(stage_name, result.status, result.duration_ms, own)
        return DONE

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        self._note(stage_name, outcome.status, duration_ms, ctx)
        return DONE

    def _note(
        self, stage_name: str, status: str, duration_ms: float, ctx: InterceptorContext
    ) -> None:
        key = (ctx.pipeline_name, stage_name)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally(duration_ms)
            if len(self._tallies) > self._max_keys:
                self._tallies.popitem(last=False)
        else:
            self._tallies.move_to_end(key)
        tally.add(status, duration_ms)
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "stage_metrics",
                extra={
                    "stage": stage_name,
                    "status": status,
                    "duration_ms": duration_ms,
                    "pipeline_run_id": str(ctx.pipeline_run_id),
                },
            )

    def snapshot(self) -> dict[tuple[str, str], StageMetrics]:
        """What was counted so far, by pipeline and stage."""
        return {key: tally.frozen() for key, tally in self._tallies.items()}
