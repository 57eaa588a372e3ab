"""Tests of a pipeline that waits for hours, in no time.

`run_seeded` runs under a virtual clock: when nothing else is to be done, time
jumps to the next deadline. The same seed gives the same order of events, so what
failed once can be looked at again.

Prints:
  the stage alone gives {'text': 'PLEASE REPLY'}
  the reminder was sent after 24.0 hours
  the stage was retried after 1.0, 2.0 and 4.0 seconds
  the reminder was called off after 12.0 hours
"""

from __future__ import annotations

from functools import partial

import trio

from actorflow import Pipeline, StageContext, stage
from actorflow.errors import UnifiedPipelineCancelled
from actorflow.interceptors import RetryInterceptor
from actorflow.testing import Fails, Lags, RecordingEventSink, run_seeded, run_stage, with_faults


@stage
async def remind(_: StageContext) -> dict[str, str]:
    await trio.sleep(24 * 3600)
    return {"text": "please reply"}


@stage(after="remind")
async def shout(ctx: StageContext) -> dict[str, str]:
    return {"text": str(ctx.inputs.get("text")).upper()}


pipeline = Pipeline.from_stages(remind, shout, name="reminder")


async def a_stage_runs_alone() -> None:
    ran = await run_stage(shout, inputs={"remind": {"text": "please reply"}})
    print(f"the stage alone gives {dict(ran.data)}")


async def a_reminder_takes_a_day() -> None:
    start = trio.current_time()
    await pipeline.run()
    print(f"the reminder was sent after {(trio.current_time() - start) / 3600:.1f} hours")


async def a_stage_that_fails_is_retried() -> None:
    down = Fails(ConnectionError("nobody there"), calls=(1, 2, 3))
    retry = RetryInterceptor(
        max_attempts=4, base_delay_ms=1000, jitter_strategy="none", retry_on=[ConnectionError]
    )
    recorded = RecordingEventSink()
    await with_faults(pipeline, {"shout": down}).run(event_sink=recorded, interceptors=[retry])
    delays = [event["delay_ms"] / 1000 for event in recorded.payloads("stage.retry_scheduled")]
    print("the stage was retried after {}, {} and {} seconds".format(*delays))
    recorded.assert_order("stage.started", "stage.retry_scheduled", "stage.completed")


async def a_reminder_is_called_off_while_it_waits() -> None:
    start = trio.current_time()
    recorded = RecordingEventSink()
    try:
        async with with_faults(pipeline, {"remind": Lags(100)}).start(event_sink=recorded) as run:
            await recorded.wait_for("stage.started", stage="remind")
            await trio.sleep(12 * 3600)
            run.cancel("they replied")
            await run.wait()
    except UnifiedPipelineCancelled:
        print(f"the reminder was called off after {(trio.current_time() - start) / 3600} hours")
    recorded.assert_not_emitted("stage.started", stage="shout")


if __name__ == "__main__":
    run = partial(run_seeded, seed=7)
    run(a_stage_runs_alone)
    run(a_reminder_takes_a_day)
    run(a_stage_that_fails_is_retried)
    run(a_reminder_is_called_off_while_it_waits)
