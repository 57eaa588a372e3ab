"""Running pipelines: graphs, runs, and what comes out of them."""

from __future__ import annotations

from actorflow.pipeline import install_engine as _install_engine

from ._engine import PipelineEngine as _PipelineEngine
from ._failures import (
    FailureCollector as FailureCollector,
    FailureSummary as FailureSummary,
)
from ._graph import UnifiedStageGraph as UnifiedStageGraph
from ._handle import RunHandle as RunHandle
from ._legacy import StageGraph as StageGraph
from ._results import FailureRecord as FailureRecord, PipelineResults as PipelineResults
from ._stage_life import StageState as StageState
from ._status import RunPhase as RunPhase, RunStatus as RunStatus

_install_engine(_PipelineEngine())
