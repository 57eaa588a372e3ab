"""Tests of a pipeline that waits for hours, in no time.

`run_seeded` runs under a virtual clock: when nothing else is to be done, time
jumps to the next deadline. The same seed gives the same order of events, so what
failed once can be looked at again.

Prints:
  the reminder was sent after 24.0 hours
  the stage was retried after 1.0, 2.0 and 4.0 seconds
  the stage alone gives {'text': 'PLEASE REPLY'}
"""

from __future__ import annotations

import trio

from actorflow import ContextSnapshot, Pipeline, RunIdentity, StageContext, stage
from actorflow.interceptors import RetryInterceptor
from actorflow.stages import StageInputs, create_stage_context
from actorflow.testing import RecordingEventSink, run_seeded


@stage
async def remind(_: StageContext) -> dict[str, str]:
    await trio.sleep(24 * 3600)
    return {"text": "please reply"}


@stage(after="remind")
async def shout(ctx: StageContext) -> dict[str, str]:
    return {"text": str(ctx.inputs.get("text", "please reply")).upper()}


async def a_reminder_takes_a_day() -> None:
    start = trio.current_time()
    await Pipeline.from_stages(remind, shout).run()
    print(f"the reminder was sent after {(trio.current_time() - start) / 3600:.1f} hours")


async def a_flaky_stage_is_retried() -> None:
    async def flaky(ctx: StageContext) -> None:
        if ctx.try_number < 4:
            raise ConnectionError("nobody there")

    retry = RetryInterceptor(
        max_attempts=4, base_delay_ms=1000, jitter_strategy="none", retry_on=(ConnectionError,)
    )
    recorded = RecordingEventSink()
    await Pipeline.from_stages(stage("flaky", flaky)).run(event_sink=recorded, interceptors=[retry])
    delays = [event["delay_ms"] / 1000 for event in recorded.payloads("stage.retry_scheduled")]
    print("the stage was retried after {}, {} and {} seconds".format(*delays))
    recorded.assert_order("stage.started", "stage.retry_scheduled", "stage.completed")


async def a_stage_can_be_called_by_hand() -> None:
    # Decorated functions stay functions; a context for them is made in one call.
    snapshot = ContextSnapshot(RunIdentity(), input_text="")
    ctx = create_stage_context(snapshot=snapshot, inputs=StageInputs(snapshot), stage_name="shout")
    print(f"the stage alone gives {await shout(ctx)}")


if __name__ == "__main__":
    run_seeded(a_reminder_takes_a_day)
    run_seeded(a_flaky_stage_is_retried, seed=7)
    run_seeded(a_stage_can_be_called_by_hand)
