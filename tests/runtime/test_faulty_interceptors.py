"""A fault at every await of a stage call: whatever hooks and stage do, the run keeps its promises."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.errors import (
    CriticalInterceptorError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.interceptors import BaseInterceptor, ErrorAction, InterceptorResult
from actorflow.model import StageOutput
from actorflow.pipeline import FailureMode, StageSpec
from actorflow.runtime import UnifiedStageGraph
from actorflow.stages import PipelineContext, StageContext
from actorflow.testing import RecordingEventSink

from .stages import PROGRAMS

HOOKS = ("before", "after", "on_error", "fallback", "release")
FAULTS = ("none", "none", "none", "raise", "critical", "hang", "cancel", "wait")


@attrs.frozen
class Faults:
    """What goes wrong in each hook of one interceptor, and what it answers otherwise."""

    of: dict[str, str]
    answer: str
    observer: bool


def faults() -> st.SearchStrategy[Faults]:
    return st.builds(
        Faults,
        st.fixed_dictionaries({hook: st.sampled_from(FAULTS) for hook in HOOKS}),
        st.sampled_from(["pass", "short", "retry", "fallback"]),
        st.booleans(),
    )


class Faulty(BaseInterceptor):
    def __init__(self, number: int, faults: Faults, entered: list[str]) -> None:
        super().__init__()
        self.name = f"i{number}"
        self.priority = number
        self.observer = faults.observer
        self.faults = faults
        # Names of layers whose `before` has begun and whose `release` has not.
        self.entered = entered

    async def _suffer(self, hook: str, ctx: Any) -> None:
        match self.faults.of[hook]:
            case "raise":
                raise OSError(f"{hook} broke")
            case "critical":
                raise CriticalInterceptorError(self.name, hook, "no way")
            case "hang":
                await trio.sleep_forever()
            case "cancel":
                ctx.context.mark_canceled(f"by {hook}")
                await trio.lowlevel.checkpoint()
            case "wait":
                await trio.sleep(0.1)

    async def before(self, stage_name: str, ctx: Any) -> InterceptorResult | None:
        self.entered.append(f"{stage_name} {self.name}")
        await self._suffer("before", ctx)
        if self.faults.answer == "short":
            self.entered.remove(f"{stage_name} {self.name}")
            return InterceptorResult(stage_ran=False, result={"short": True})
        return None

    async def after(self, stage_name: str, result: Any, ctx: Any) -> StageOutput | None:
        await self._suffer("after", ctx)
        return None

    async def on_error(self, stage_name: str, error: Exception, ctx: Any) -> ErrorAction:
        await self._suffer("on_error", ctx)
        asked = ctx.state["asked"] = ctx.state.get("asked", 0) + 1
        match self.faults.answer:
            case "retry" if asked < 3:
                return ErrorAction.RETRY
            case "fallback":
                return ErrorAction.FALLBACK
        return ErrorAction.FAIL

    async def fallback(self, stage_name: str, error: Exception, ctx: Any) -> StageOutput:
        await self._suffer("fallback", ctx)
        return StageOutput.ok(fallback=True)

    async def release(self, stage_name: str, ctx: Any) -> None:
        self.entered.remove(f"{stage_name} {self.name}")
        await self._suffer("release", ctx)


@attrs.frozen
class Behaviour:
    end: str

    async def execute(self, ctx: StageContext) -> StageOutput | None:
        ctx.add_cleanup(lambda: ctx.ports.append(ctx.stage_name))
        match self.end:
            case "raise":
                raise LookupError("broken")
            case "fail":
                return StageOutput.fail("no")
            case "retry":
                return StageOutput.retry("busy")
            case "hang":
                await trio.sleep_forever()
            case "wait":
                await trio.sleep(0.2)
        return None


@pytest.mark.spec("30.1.1", "30.3.2", "30.7.5", "30.11.8", "30.11.9")
@settings(max_examples=PROGRAMS)
@given(
    layers=st.lists(faults(), max_size=3),
    ends=st.lists(
        st.sampled_from(["ok", "wait", "raise", "fail", "retry", "hang"]), min_size=1, max_size=3
    ),
    mode=st.sampled_from(FailureMode),
    timeout=st.sampled_from([None, 0.5]),
)
def test_no_fault_of_an_interceptor_breaks_the_run(
    layers: list[Faults], ends: list[str], mode: FailureMode, timeout: float | None
) -> None:
    entered: list[str] = []
    graph = UnifiedStageGraph(
        [StageSpec(f"s{i}", Behaviour(end), timeout=timeout) for i, end in enumerate(ends)],
        interceptors=[Faulty(number, one, entered) for number, one in enumerate(layers)],
        failure_mode=mode,
        cleanup_timeout=1.0,
    )

    async def main() -> None:
        sink = RecordingEventSink(strict=True)
        context = PipelineContext(ports=[])
        before = trio.lowlevel.current_statistics().tasks_living
        begun_at = trio.current_time()
        with (
            trio.move_on_after(30),
            suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled),
        ):
            await graph.run(context, event_sink=sink)

        assert trio.lowlevel.current_statistics().tasks_living == before
        # Hooks that hang are ended by the scope, hanging `release` hooks by their limit.
        assert trio.current_time() - begun_at <= 30 + 2.0
        assert entered == []
        check_events(sink)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def check_events(sink: RecordingEventSink) -> None:
    types = sink.types()
    assert types[0] == "pipeline.started"
    assert [t for t in types if t in ENDINGS] == types[-1:]
    under_way: set[str] = set()
    for event in sink.events:
        stage = event.data.get("stage")
        if event.type == "stage.started":
            assert stage not in under_way
            under_way.add(str(stage))
        elif event.type in ("stage.completed", "stage.failed", "stage.skipped"):
            under_way.remove(str(stage))
    assert under_way == set()


ENDINGS = ("pipeline.completed", "pipeline.failed", "pipeline.canceled")
