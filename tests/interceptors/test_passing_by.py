"""What a chain leaves out when there is nothing to do, and that nobody can tell."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

import pytest
import trio

from actorflow.interceptors import (
    BaseInterceptor,
    ChildTrackerMetricsInterceptor,
    InterceptorContext,
    LoggingInterceptor,
    Outcome,
    run_with_interceptors,
)
from actorflow.interceptors._base import DONE, PlainFacts
from actorflow.stages import PipelineContext, StageResult


async def work() -> dict[str, int]:
    return {"n": 1}


async def call(*interceptors: Any, ctx: PipelineContext | None = None) -> StageResult:
    return await run_with_interceptors("stage", work, ctx or PipelineContext(), interceptors)


class Told(PlainFacts):
    name = "told"
    is_wanted = True

    def __init__(self) -> None:
        super().__init__()
        self.endings: list[str] = []

    def is_needed(self, call: object) -> bool:
        return self.is_wanted

    def ended(
        self, stage_name: str, outcome: Outcome, duration_ms: float, ctx: InterceptorContext
    ) -> Awaitable[None]:
        self.endings.append(outcome.status)
        return DONE


async def test_who_is_not_needed_is_passed_by() -> None:
    told = Told()

    told.is_wanted = False
    await call(told)
    told.is_wanted = True
    result = await call(told)

    assert told.endings == ["completed"]
    assert result.data == {"n": 1}
    assert PlainFacts.is_needed(told, told)  # type: ignore[arg-type]  # it looks at nothing


async def test_interceptors_of_the_package_are_needed_while_somebody_reads_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, child = PipelineContext(), PipelineContext(depth=1)
    about: list[tuple[Any, PipelineContext]] = [
        (LoggingInterceptor(), run),
        (ChildTrackerMetricsInterceptor(), run),
        (ChildTrackerMetricsInterceptor(), child),
    ]

    class Call:
        def __init__(self, context: PipelineContext) -> None:
            self.context = context

    def needed() -> list[bool]:
        return [interceptor.is_needed(Call(context)) for interceptor, context in about]

    with caplog.at_level(logging.WARNING, "actorflow.interceptors"):
        assert needed() == [False, False, False]
    with caplog.at_level(logging.INFO, "actorflow.interceptors"):
        assert needed() == [True, False, True]


async def test_hooks_called_by_hand_say_nothing_that_nobody_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ctx = PipelineContext()
    result = await call()

    with caplog.at_level(logging.WARNING, "actorflow.interceptors"):
        for interceptor in (LoggingInterceptor(), ChildTrackerMetricsInterceptor()):
            await interceptor.before("stage", ctx)
            await interceptor.after("stage", result, ctx)
    with caplog.at_level(logging.INFO, "actorflow.interceptors"):
        await ChildTrackerMetricsInterceptor().after("stage", result, ctx)

    assert caplog.records == []


@pytest.mark.spec("30.11.8")
@pytest.mark.parametrize("waits", [False, True])
async def test_hook_may_fail_before_it_has_anything_to_wait_for(waits: bool) -> None:
    async def fail_later() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("broken")

    def fail() -> Awaitable[None]:
        if waits:
            return fail_later()
        raise LookupError("broken")

    class EndsBadly(PlainFacts):
        name = "ends_badly"

        def ended(self, *_: object) -> Awaitable[None]:
            return fail()

    class LetsGoBadly(BaseInterceptor):
        name = "lets_go_badly"

        def release(self, *_: object) -> Awaitable[None]:
            return fail()

    result = await call(EndsBadly(), LetsGoBadly())

    assert result.status == "completed"
    assert sorted(result.warnings) == [
        "interceptor 'ends_badly' failed in after: LookupError: broken",
        "interceptor 'lets_go_badly' failed in release: LookupError: broken",
    ]


@pytest.mark.spec("30.11.8")
async def test_before_that_fails_at_once_keeps_the_call_out_unless_it_only_watches() -> None:
    class FailsAtOnce(BaseInterceptor):
        name = "fails_at_once"

        def before(self, *_: object) -> Awaitable[None]:
            raise LookupError("broken")

    class Watches(FailsAtOnce):
        name = "watches"
        observer = True

    kept_out, watched = await call(FailsAtOnce()), await call(Watches())

    assert (kept_out.status, kept_out.error_type) == ("failed", "InterceptorError")
    assert watched.data == {"n": 1}
    assert watched.warnings == ("interceptor 'watches' failed in before: LookupError: broken",)
