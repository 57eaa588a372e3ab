"""`actorflow run`: run a pipeline of a file and show how it goes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, final
from uuid import UUID

import attrs
import trio
from cyclopts import Parameter
from rich.console import Console

from actorflow.errors import (
    ActorflowError,
    InvalidArgumentError,
    PipelineValidationError,
    TargetError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.events import (
    AnalyticsSink,
    BufferedExporter,
    EventSink,
    JSONFileExporter,
    TeeEventSink,
)
from actorflow.runtime import (
    PipelineResults,
    RunHandle,
    RunPhase,
    RunStatus,
    StageGraph,
    UnifiedStageGraph,
)

from ._interrupts import INTERRUPTED, Interrupts, waiting_for
from ._reload import run_again, this_command
from ._run_view import View, as_json, open_view
from ._screen import Screen
from ._target import UNUSABLE, Target, find_pipeline
from ._tell import tell, wants_tracebacks

CANCELED: Final = 3
EXIT_CODES: Final = {RunPhase.COMPLETED: 0, RunPhase.FAILED: 1, RunPhase.CANCELED: CANCELED}

# How often a live view is drawn.
_PAUSE: Final = 0.1
_PACKAGE: Final = str(Path(__file__).parents[1])

RunError = UnifiedStageExecutionError | UnifiedPipelineCancelled


@final
@attrs.frozen
class Ended:
    """A run that is over."""

    status: RunStatus
    results: PipelineResults
    error: RunError | None
    interrupted: bool

    @property
    def exit_code(self) -> int:
        if self.interrupted and self.status.state is RunPhase.CANCELED:
            return INTERRUPTED
        return EXIT_CODES[self.status.state]


def run(
    target: str | Path,
    /,
    *,
    input: Annotated[str | None, Parameter(alias="-i")] = None,
    call: str | None = None,
    watch: Annotated[bool, Parameter(alias="-w", negative="")] = False,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    events: Annotated[Path | None, Parameter(alias="-e")] = None,
    traceback: Annotated[bool, Parameter(negative="")] = False,
    reload: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a pipeline and show what its stages returned.

    In a terminal the stages are shown while they run. Ctrl-C stops the run in order: stages
    are cancelled, and what they clean up is waited for. A second one leaves at once.

    Args:
        target: `file.py`, `file.py:variable`, `package.module` or `package.module:variable`.
        input: The text the run begins with; stages read it as `ctx.snapshot.input_text`.
        call: A function in the target that makes the pipeline.
        watch: Watch the run: also show what happens on the way, step by step.
        as_json: Print one JSON object. Steps, and what stages print, then go to stderr.
        events: Add the events of the run to this file; `actorflow timeline FILE` draws it.
        traceback: If a stage fails or the target cannot be used, show where in full.
        reload: Run again whenever a Python file beside the target changes, until interrupted.
    """
    if reload:
        folder = Target.parse(str(target)).folder
        return trio.run(run_again, this_command("--reload"), folder, Console(stderr=True))
    try:
        graph = _graph_of(Target.parse(str(target)), call)
    except (TargetError, PipelineValidationError) as error:
        if as_json:
            _print_json(_report("unusable", error))
        tell(error, in_full=traceback)
        return UNUSABLE
    if events is not None:
        _check_writable(events)
    console = Screen(stderr=as_json, highlight=False)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        ended = trio.run(
            lambda: carry_out(graph, input, console, steps=watch, stages=not as_json, events=events)
        )
    if as_json:
        _print_json(_report_of(ended))
    if ended.error is not None:
        _explain(ended.error, has_text=input is not None, in_full=traceback)
    elif ended.status.state is RunPhase.FAILED:
        names = ", ".join(ended.results.failed())
        print(f"actorflow: failed: {names}; best_effort went on without", file=sys.stderr)
    return ended.exit_code


def _graph_of(target: Target, call: str | None) -> UnifiedStageGraph:
    pipeline = find_pipeline(target, call)
    if isinstance(pipeline, StageGraph):
        raise TargetError(
            str(target), "it has a StageGraph of old", "Name the Pipeline it was built from."
        )
    graph: UnifiedStageGraph = (
        pipeline if isinstance(pipeline, UnifiedStageGraph) else pipeline.build()
    )
    return graph


def _check_writable(file: Path) -> None:
    # Now, because an exporter would only log it, and after the run.
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    except OSError as error:
        expected = f"a file that can be written ({error.strerror})"
        raise InvalidArgumentError("--events", str(file), expected) from error


async def carry_out(
    graph: UnifiedStageGraph,
    text: str | None,
    console: Console,
    *,
    steps: bool = False,
    stages: bool = True,
    events: Path | None = None,
) -> Ended:
    """Run a graph and show how it goes. How it ends is returned, not raised."""
    async with _recording(events) as sinks:
        with open_view(console, steps=steps, stages=stages) as view:
            async with graph.start(text, event_sink=TeeEventSink(view, *sinks)) as run:
                interrupts = Interrupts(lambda: _stop(run, view), console)
                async with trio.open_nursery() as beside:
                    beside.start_soon(_redraw, run, view)
                    with interrupts.caught():
                        error = await _error_of(run)
                    beside.cancel_scope.cancel()
                view.draw_end(run)
                return Ended(run.status(), run.results, error, interrupts.came)


@asynccontextmanager
async def _recording(file: Path | None) -> AsyncIterator[list[EventSink]]:
    if file is None:
        yield []
    else:
        async with AnalyticsSink(BufferedExporter(JSONFileExporter(file))) as sink:
            yield [sink]


async def _redraw(run: RunHandle, view: View) -> None:
    while True:
        view.draw(run)
        await trio.sleep(_PAUSE)


async def _error_of(run: RunHandle) -> RunError | None:
    try:
        await run.wait()
    except (UnifiedStageExecutionError, UnifiedPipelineCancelled) as error:
        return error
    return None


def _stop(run: RunHandle, view: View) -> None:
    status = run.status()
    if status.ended_at is not None:
        return
    run.cancel("interrupted")
    busy = [name for name, state in status.stages.items() if state == "running"]
    view.say(waiting_for(busy))
    view.draw(run)


def _print_json(report: Mapping[str, Any]) -> None:
    print(as_json(report, indent=2))


def _report_of(ended: Ended) -> dict[str, Any]:
    status = ended.status
    stages = {
        name: {"state": str(state), **_details(ended.results, name)}
        for name, state in status.stages.items()
    }
    return _report(
        str(status.state),
        ended.error,
        pipeline=status.pipeline_name,
        run_id=status.run_id,
        stages=stages,
    )


def _report(
    state: str,
    error: ActorflowError | None,
    *,
    pipeline: str | None = None,
    run_id: UUID | None = None,
    stages: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    return {
        "pipeline": pipeline,
        "run_id": run_id,
        "state": state,
        "error": None if error is None else str(error),
        "code": None if error is None else error.code,
        "stages": dict(stages),
    }


def _details(results: PipelineResults, name: str) -> dict[str, Any]:
    result = results.stage_results.get(name)
    if result is None:
        return {}
    reason = result.error if result.output is None else result.output.reason
    return {
        "duration_ms": result.duration_ms,
        "tries": result.tries,
        "attempt": result.attempt,
        "data": result.data,
        "reason": reason or None,
        "error_type": result.error_type,
    }


def _explain(error: RunError, *, has_text: bool, in_full: bool) -> None:
    if not isinstance(error, UnifiedStageExecutionError):
        print(f"actorflow: {error}", file=sys.stderr)
        return
    original = error.original
    if in_full or wants_tracebacks():
        traceback.print_exception(original)
    frames = traceback.extract_tb(original.__traceback__)
    # The first step out of actorflow is the stage; what it calls may be anybody's code.
    outside = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    print(f"actorflow: {error}", file=sys.stderr)
    if hint := _hint_of(original, has_text=has_text):
        print(f"fix: {hint}", file=sys.stderr)
    if outside:
        place = f"{os.path.relpath(outside[0].filename)}, line {outside[0].lineno}"
        more = "" if in_full else "; --traceback shows more"
        print(f"in {place}{more}", file=sys.stderr)


def _hint_of(error: Exception, *, has_text: bool) -> str:
    if not has_text and "NoneType" in str(error):
        return "The run began without a text; --input TEXT gives it one."
    return getattr(error, "fix_hint", "")
