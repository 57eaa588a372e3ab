"""What bench_pipecat.py measures, in the interpreter that has Pipecat.

It reads one request per line (`{"measure": name, ...arguments}`), and answers each
with one line of JSON. Pipecat runs as lean as it can: no observers, no turn tracking,
no RTVI, no metrics, no log.
"""

# Nothing of it is typed: the package is in another interpreter.
# mypy: ignore-errors
from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from loguru import logger
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner

AUDIO = bytes(640)


def microphone_frame():
    return InputAudioRawFrame(audio=AUDIO, sample_rate=16_000, num_channels=1)


def bot_frame():
    return OutputAudioRawFrame(audio=AUDIO, sample_rate=16_000, num_channels=1)


class Relay(FrameProcessor):
    """Hands every frame on; `handle` may do something with audio first."""

    def __init__(self, handle=None):
        super().__init__()
        self.handle = handle
        self.interrupted_at = 0.0
        self.is_interrupted = asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            # What was under way has been unwound by now.
            self.interrupted_at = time.perf_counter()
            self.is_interrupted.set()
        elif self.handle is not None and isinstance(
            frame, (InputAudioRawFrame, OutputAudioRawFrame)
        ):
            await self.handle(frame)
        await self.push_frame(frame, direction)


class Running:
    """A pipeline of these processors for as long as the block lasts."""

    def __init__(self, processors):
        self.worker = PipelineWorker(
            Pipeline(processors),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            enable_turn_tracking=False,
            observers=[],
        )
        self.started = asyncio.Event()

        @self.worker.event_handler("on_pipeline_started")
        async def on_pipeline_started(worker, frame):
            self.started.set()

    async def __aenter__(self):
        self.runner = WorkerRunner(handle_sigint=False)
        await self.runner.add_workers(self.worker)
        self.task = asyncio.create_task(self.runner.run())
        await asyncio.wait_for(self.started.wait(), 10)
        return self.worker

    async def __aexit__(self, *_):
        await self.worker.cancel()
        await self.task


async def throughput(stages, frames, kind="bot"):
    make = bot_frame if kind == "bot" else microphone_frame
    done = asyncio.Event()
    left = frames

    async def count(frame):
        nonlocal left
        left -= 1
        if not left:
            done.set()

    relays = [Relay() for _ in range(stages - 1)]
    async with Running([*relays, Relay(count)]) as worker:
        batch = [make() for _ in range(frames)]
        gc.collect()
        begun = time.process_time()
        for frame in batch:
            await worker.queue_frame(frame)
        await done.wait()
        return frames / (time.process_time() - begun)


async def interruption(stages, times, queued=0, microphone=0, cleanup=0.0):
    """Milliseconds from the interruption to the last stage that has unwound."""
    found = []

    async def play(frame):
        if isinstance(frame, OutputAudioRawFrame):
            await asyncio.sleep(0.02)

    async def listen(frame):
        if isinstance(frame, InputAudioRawFrame):
            await asyncio.sleep(0.005)

    async def tidy(frame):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(cleanup)

    class Tidy(Relay):
        async def process_frame(self, frame, direction):
            if isinstance(frame, OutputAudioRawFrame):
                # The others shall have something to unwind as well.
                await self.push_frame(frame, direction)
                await tidy(frame)
            else:
                await super().process_frame(frame, direction)

    for _ in range(times):
        if cleanup:
            relays = [Tidy() for _ in range(stages)]
        else:
            slow = [Relay(listen)] if microphone else []
            relays = [*(Relay() for _ in range(stages - 1 - len(slow))), *slow, Relay(play)]
        async with Running(relays) as worker:
            for _ in range(queued or 1):
                await worker.queue_frame(bot_frame())
            await asyncio.sleep(0.3)
            for _ in range(microphone):
                await worker.queue_frame(microphone_frame())
            await asyncio.sleep(0.01 if microphone else 0)
            begun = time.perf_counter()
            await worker.queue_frame(InterruptionFrame())
            await relays[-1].is_interrupted.wait()
            found.append((relays[-1].interrupted_at - begun) * 1000)
    return found


async def stop(kind):
    """Seconds from `cancel` until the pipeline of a stage that does not cooperate is over."""

    async def stuck(frame):
        if kind == "raises":
            try:
                await asyncio.sleep(3600)
            finally:
                raise ValueError(kind)
        if kind == "swallows":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:  # noqa: ASYNC103 - the fault
                await asyncio.sleep(8)
        await asyncio.sleep(3600)

    running = Running([Relay(), Relay(stuck), Relay()])
    worker = await running.__aenter__()
    frame = microphone_frame() if kind == "stuck on the microphone" else bot_frame()
    await worker.queue_frame(frame)
    await asyncio.sleep(0.2)
    begun = time.perf_counter()
    await worker.cancel()
    await running.task
    seconds = time.perf_counter() - begun
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return {"seconds": seconds, "tasks": len(left)}


async def sessions(count, stages, seconds):
    """Added latency and cost of sessions with 50 + 50 frames a second each."""
    latencies = []
    all_there = asyncio.Event()

    async def note(frame):
        latencies.append(time.perf_counter() - frame.metadata["at"])
        if len(latencies) == count * int(seconds * 50) * 2:
            all_there.set()

    async def feed(worker, offset):
        begun = time.perf_counter() + offset
        for number in range(int(seconds * 50)):
            await asyncio.sleep(max(0.0, begun + number * 0.02 - time.perf_counter()))
            for frame in (microphone_frame(), bot_frame()):
                frame.metadata["at"] = time.perf_counter()
                await worker.queue_frame(frame)

    running = [Running([*(Relay() for _ in range(stages - 1)), Relay(note)]) for _ in range(count)]
    workers = [await one.__aenter__() for one in running]
    gc.collect()
    cpu = time.process_time()
    await asyncio.gather(
        *(feed(worker, 0.02 * number / count) for number, worker in enumerate(workers))
    )
    # What has not arrived by now is late, and counts all the same.
    await all_there.wait()
    cpu = (time.process_time() - cpu) / seconds
    for one in running:
        await one.__aexit__()
    return {"latencies": [round(it * 1000, 3) for it in latencies], "cpu": cpu}


async def dirty(count):
    """Tasks and objects that so many interrupted sessions leave."""

    async def some(times):
        for _ in range(times):
            async with Running([Relay() for _ in range(5)]) as worker:
                for _ in range(20):
                    await worker.queue_frame(bot_frame())
                await worker.queue_frame(InterruptionFrame())
                await asyncio.sleep(0)

    await some(20)
    gc.collect()
    tasks, objects = len(asyncio.all_tasks()), len(gc.get_objects())
    await some(count)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()) - tasks,
        "objects": len(gc.get_objects()) - objects,
    }


MEASURES = {it.__name__: it for it in (throughput, interruption, stop, sessions, dirty)}


def main():
    logger.remove()
    for line in sys.stdin:
        request = json.loads(line)
        measure = MEASURES[request.pop("measure")]
        print(json.dumps(asyncio.run(measure(**request))), flush=True)


if __name__ == "__main__":
    main()
