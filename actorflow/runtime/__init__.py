"""Running pipelines: graphs, runs, and what comes out of them."""

from __future__ import annotations

from actorflow.pipeline import install_engine as _install_engine

from ._bus import RealtimeStageBus as RealtimeStageBus
from ._children import (
    ChildRunTracker as ChildRunTracker,
    clear_child_tracker as clear_child_tracker,
    get_child_tracker as get_child_tracker,
    set_child_tracker as set_child_tracker,
)
from ._engine import PipelineEngine as _PipelineEngine
from ._failures import (
    FailureCollector as FailureCollector,
    FailureSummary as FailureSummary,
)
from ._graph import UnifiedStageGraph as UnifiedStageGraph
from ._handle import RunHandle as RunHandle
from ._legacy import StageGraph as StageGraph
from ._results import FailureRecord as FailureRecord, PipelineResults as PipelineResults
from ._run_result import RunResult as RunResult
from ._runner import PipelineRunner as PipelineRunner, run_simple_pipeline as run_simple_pipeline
from ._runtime import Runtime as Runtime
from ._stage_life import StageState as StageState
from ._status import RunPhase as RunPhase, RunStatus as RunStatus
from ._subpipeline import (
    DEFAULT_MAX_SUBPIPELINE_DEPTH as DEFAULT_MAX_SUBPIPELINE_DEPTH,
    SubpipelineSpawner as SubpipelineSpawner,
    clear_subpipeline_spawner as clear_subpipeline_spawner,
    get_subpipeline_spawner as get_subpipeline_spawner,
    set_subpipeline_spawner as set_subpipeline_spawner,
)

_install_engine(_PipelineEngine())
