"""What bench_voice.py measures, in a process of its own.

It reads one request per line (`{"measure": name, ...arguments}`), and answers each
with one line of JSON. `pipecat_peer.py` does the same for Pipecat.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import trio
import trio.lowlevel

from actorflow.audio import ChunkQueue
from actorflow.errors import ConnectionLostError
from actorflow.events import NoOpEventSink
from actorflow.pipeline import Pipeline, StageSpec, stage
from actorflow.protocol import (
    End,
    HouseClientFormat,
    HouseFormat,
    Interrupt,
    Interrupted,
    Ready,
    Start,
    UserText,
)
from actorflow.runtime import UnifiedStageGraph
from actorflow.server import ServerConfig, Session, SessionApp, Sessions, Turn, open_sessions
from actorflow.stages import StageContext
from actorflow.testing import (
    Interruption,
    MemoryConnection,
    MockTTSProvider,
    Moment,
    ScriptedDetector,
    ScriptedRecognizer,
    Speech,
    Writing,
    memory_connection_pair,
    run_call,
)
from actorflow.voice import SpeakStage, TranscribeStage, VoiceApp

AUDIO = bytes(640)

Runner = Callable[[StageContext], Awaitable[None]]


class App(SessionApp):
    """An application that is one function."""

    def __init__(self, answer: Callable[[Session, Turn], Awaitable[None]]) -> None:
        self.answer = answer

    async def on_turn(self, session: Session, turn: Turn) -> None:
        await self.answer(session, turn)


async def relay(ctx: StageContext) -> None:
    async for item in ctx.stream():
        await ctx.send(item)


def chain(*runners: Runner, buffers: dict[int, int] | None = None) -> UnifiedStageGraph:
    """Stages of which each streams to the next."""
    specs = [StageSpec("s0", runners[0])]
    for number, runner in enumerate(runners[1:], 1):
        buffer = (buffers or {}).get(number, 16)
        source = f"s{number - 1}"
        specs.append(StageSpec(f"s{number}", runner, stream_from=source, stream_buffer=buffer))
    return UnifiedStageGraph(specs, interceptors=())


async def run(graph: UnifiedStageGraph) -> None:
    await graph.run(event_sink=NoOpEventSink())


async def throughput(stages: int, frames: int, buffer: int = 16) -> float:
    """Frames a second of processor time through so many stages that read streams."""
    begun = ended = 0.0

    async def source(ctx: StageContext) -> None:
        nonlocal begun
        begun = time.process_time()
        for _ in range(frames):
            await ctx.send(AUDIO)

    async def sink(ctx: StageContext) -> None:
        nonlocal ended
        async for _ in ctx.stream():
            pass
        ended = time.process_time()

    buffers = dict.fromkeys(range(1, stages + 1), buffer)
    graph = chain(source, *[relay] * (stages - 1), sink, buffers=buffers)
    gc.collect()
    await run(graph)
    return frames / (ended - begun)


async def channels(stages: int, frames: int, buffer: int = 16) -> float:
    """The same over memory channels with plain `send` and `receive`."""
    pairs = [trio.open_memory_channel[bytes](buffer) for _ in range(stages)]

    async def source(into: trio.MemorySendChannel[bytes]) -> None:
        async with into:
            for _ in range(frames):
                await into.send(AUDIO)

    async def hand_on(
        out: trio.MemoryReceiveChannel[bytes], into: trio.MemorySendChannel[bytes]
    ) -> None:
        async with into:
            async for frame in out:
                await into.send(frame)

    gc.collect()
    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source, pairs[0][0])
        for (_, out), (into, _) in pairwise(pairs):
            nursery.start_soon(hand_on, out, into)
        async for _ in pairs[-1][1]:
            pass
    return frames / (time.process_time() - begun)


async def interruption(
    stages: int, times: int, queued: int = 0, microphone: int = 0, cleanup: float = 0.0
) -> list[float]:
    """Milliseconds from the interruption of a run to the end of its last stage."""
    found = []
    to_start, all_there = stages, trio.Event()

    def noting(runner: Runner, unwound: list[float]) -> Runner:
        async def noted(ctx: StageContext) -> None:
            nonlocal to_start
            to_start -= 1
            if not to_start:
                all_there.set()
            try:
                await runner(ctx)
            finally:
                if cleanup:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(cleanup)
                unwound.append(time.perf_counter())

        return noted

    async def source(ctx: StageContext) -> None:
        for _ in range(queued or microphone or 1):
            await ctx.send(AUDIO)
        await trio.sleep_forever()

    async def listen(ctx: StageContext) -> None:
        async for item in ctx.stream():
            await trio.sleep(0.005)
            await ctx.send(item)

    async def play(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            await trio.sleep(0.02)

    for _ in range(times):
        unwound: list[float] = []
        to_start, all_there = stages, trio.Event()
        middle = [relay] * (stages - 2)
        if microphone:
            middle[-1] = listen
        buffers = {stages - 1: max(queued, 16), stages - 2: max(microphone, 16)}
        runners = [noting(it, unwound) for it in (source, *middle, play)]
        graph = chain(*runners, buffers=buffers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, graph)
            await all_there.wait()
            # And until the audio lies where it waits.
            await trio.sleep(0.05)
            begun = time.perf_counter()
            nursery.cancel_scope.cancel()
        assert len(unwound) == stages
        found.append((max(unwound) - begun) * 1000)
    return found


# Calls on a virtual clock


def assistant() -> VoiceApp:
    """Hears speech, writes it down, and answers at length, sentence by sentence."""

    @stage(after="listen")
    async def answer(ctx: StageContext) -> None:
        for number in range(20):
            await ctx.send(f"You said {ctx.inputs.get('text')}, and this is sentence {number}. ")

    pipeline = Pipeline.from_stages(
        stage("listen", TranscribeStage(ScriptedRecognizer())),
        answer,
        stage("speak", SpeakStage(MockTTSProvider(bytes_per_char=1_600)), stream_from="answer"),
    )
    return VoiceApp(pipeline, says="speak", detector=ScriptedDetector)


def call(seconds: float, seed: int = 0) -> dict[str, Any]:
    """A call in which somebody speaks into the answer every ten seconds."""
    script = [
        Speech(1.0 + 10 * number, f"question {number}", 0.8) for number in range(int(seconds / 10))
    ]
    begun, cpu = time.perf_counter(), time.process_time()
    record = run_call(assistant(), *script, seconds=seconds, seed=seed)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "log": sha256(record.log().encode()).hexdigest(),
        "interruptions": len(record.messages(Interrupted)),
        "understood": len(record.understood()),
        "stale": len(record.stale),
        "events": len(record.events),
        "messages": len(record.heard),
    }


def stale(calls: int, interruptions: int, seed: int = 0) -> dict[str, int]:
    """Interrupt answers that pass through stream edges at random instants of many calls."""

    async def speak(ctx: StageContext) -> None:
        for _ in range(200):
            await ctx.send(bytes(6_400))

    async def answer(session: Session, turn: Turn) -> None:
        async def say(ctx: StageContext) -> None:
            async for audio in ctx.stream():
                await turn.send_audio(audio)

        await run(chain(speak, relay, say))

    found = {"interruptions": 0, "stale": 0}
    dice = Random(seed)
    for number in range(calls):
        moments: list[Moment] = []
        at = 0.0
        for _ in range(interruptions):
            moments.append(Writing(at, "speak"))
            # From the very instant in which it begins to some pieces later.
            at += dice.choice((0.0, 0.000_1, dice.random() * 0.1, dice.random()))
            moments.append(Interruption(at))
            at += dice.random() * 0.05
        record = run_call(App(answer), *moments, seed=seed + number)
        found["interruptions"] += sum(it.turn_id is not None for it in record.messages(Interrupted))
        found["stale"] += len(record.stale)
    return found


def bound(seconds: float) -> dict[str, float]:
    """What waits anywhere in a session whose user speaks twice as fast as it can hear."""
    config = ServerConfig(inbound_ms=2_000)
    waiting: list[float] = []
    counts = {"read": 0, "done": 0, "dropped": 0}

    async def answer(session: Session, turn: Turn) -> None:
        async def listen(ctx: StageContext) -> None:
            async for chunk in turn.audio():
                counts["read"] += 1
                await ctx.send(chunk)

        async def work(ctx: StageContext) -> None:
            async for _ in ctx.stream():
                await trio.sleep(0.04)
                counts["done"] += 1
                in_edges = 20.0 * (counts["read"] - counts["done"])
                waiting.append(session.microphone.buffered_ms + in_edges)
                counts["dropped"] = session.counters.dropped

        await run(chain(listen, relay, work))

    run_call(App(answer), Speech(0, "and so on", seconds - 1), seconds=seconds, config=config)
    # Two edges of 16 pieces, and one piece in the hands of each stage.
    return {
        "most_ms": max(waiting),
        "bound_ms": config.inbound_ms + 20 * (2 * 16 + 3),
        "most_ms_at_first": max(waiting[: len(waiting) // 10]),
        "pieces": counts["done"],
        "dropped": counts["dropped"],
    }


# Sessions


async def dial(sessions: Sessions, nursery: trio.Nursery) -> MemoryConnection:
    """A connection whose session has started."""
    here, there = memory_connection_pair(1_000)
    nursery.start_soon(sessions.serve, there, HouseFormat())
    await say(here, Start())
    await hear(here, Ready)
    return here


async def say(here: MemoryConnection, message: Any) -> None:
    for frame in HouseClientFormat().write(message):
        await here.send(frame)


async def hear(here: MemoryConnection, kind: type) -> None:
    client = HouseClientFormat()
    while True:
        client, found = client.read(await here.receive())
        if any(isinstance(it.message, kind) for it in found):
            return


def misbehave(kind: str) -> Callable[[Session, Turn], Awaitable[None]]:
    """A turn that is stuck, swallows its first cancellation, or raises in its cleanup."""

    async def answer(session: Session, turn: Turn) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if kind == "raises":
                raise ValueError(kind) from None
            if kind == "swallows":
                # The second one comes at once: trio cancels until the task obeys.
                await trio.sleep(8)  # noqa: ASYNC102 - the fault
            raise

    return answer


async def stop(kind: str) -> dict[str, float]:
    """Seconds from the client's goodbye until the session of such a turn is gone."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with (
        trio.open_nursery() as nursery,
        open_sessions(App(misbehave(kind)), event_sink=NoOpEventSink()) as sessions,
    ):
        here = await dial(sessions, nursery)
        await say(here, UserText("go"))
        await trio.sleep(0.05)
        begun = time.perf_counter()
        await say(here, End("session"))
        try:
            while True:
                await here.receive()
        except ConnectionLostError:
            pass
        while sessions.statistics().sessions:
            await trio.lowlevel.checkpoint()
        seconds = time.perf_counter() - begun
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    return {"seconds": seconds, "tasks": left}


async def dirty(count: int, badly: int) -> dict[str, float]:
    """What so many interrupted sessions, and those that end badly, leave behind."""

    async def speak(session: Session, turn: Turn) -> None:
        await turn.send_audio(bytes(320_000))

    async def some(times: int, answer: Any, *, is_dirty: bool) -> None:
        config = ServerConfig(close_timeout=0.5, resume_grace=0)
        async with (
            trio.open_nursery() as nursery,
            open_sessions(App(answer), config=config, event_sink=NoOpEventSink()) as sessions,
        ):
            for _ in range(times):
                here = await dial(sessions, nursery)
                await say(here, UserText("go"))
                await say(here, Interrupt())
                await hear(here, Interrupted)
                if is_dirty:
                    # In a turn, and without a goodbye.
                    await say(here, UserText("go"))
                    await trio.lowlevel.checkpoint()
                    here.cut()
                else:
                    await say(here, End("session"))
            await sessions.drain(10)

    async def all_kinds(clean: int, each: int) -> None:
        await some(clean, speak, is_dirty=False)
        for kind in ("stuck", "swallows", "raises", "stuck"):
            await some(each, misbehave(kind), is_dirty=True)

    def numbers() -> dict[str, int]:
        gc.collect()
        return {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "objects": len(gc.get_objects()),
        }

    await all_kinds(20, 5)
    before = numbers()
    await all_kinds(count, badly // 4)
    return {name: after - before[name] for name, after in numbers().items()}


async def sessions(count: int, stages: int, seconds: float) -> dict[str, Any]:
    """Added latency and cost of sessions with 50 + 50 frames a second each."""
    latencies: list[float] = []

    async def note(ctx: StageContext) -> None:
        async for at in ctx.stream():
            latencies.append(time.perf_counter() - at)

    def feed(offset: float) -> Runner:
        async def source(ctx: StageContext) -> None:
            begun = trio.current_time() + 0.2 + offset
            for number in range(int(seconds * 50)):
                await trio.sleep_until(begun + number * 0.02)
                # One of the microphone and one of the bot.
                await ctx.send(time.perf_counter())
                await ctx.send(time.perf_counter())

        return source

    graphs = [
        chain(feed(0.02 * number / count), *[relay] * (stages - 1), note) for number in range(count)
    ]
    gc.collect()
    async with trio.open_nursery() as nursery:
        for graph in graphs:
            nursery.start_soon(run, graph)
        await trio.sleep(0.2)
        cpu = time.process_time()
    spent = (time.process_time() - cpu) / seconds
    assert len(latencies) == count * int(seconds * 50) * 2
    return {"latencies": [round(it * 1000, 3) for it in latencies], "cpu": spent}


async def chunk_queue(size: int, items: int) -> float:
    """Microseconds of processor time for an item that is put into a queue and got."""
    queue = ChunkQueue[int](size)

    async def produce() -> None:
        for number in range(items):
            await queue.put(number)
        await queue.close()

    gc.collect()
    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async for _ in queue:
            pass
    return (time.process_time() - begun) / items * 1e6


MEASURES: dict[str, Callable[..., Awaitable[Any]]] = {
    it.__name__: it
    for it in (throughput, channels, interruption, stop, dirty, sessions, chunk_queue)
}


# Those that bring a clock of their own.
CALLS: dict[str, Callable[..., Any]] = {it.__name__: it for it in (call, stale, bound)}


def measured(measure: str, **arguments: Any) -> Any:
    if measure in CALLS:
        return CALLS[measure](**arguments)
    return trio.run(partial(MEASURES[measure], **arguments))


def main() -> None:
    # Turns fail on purpose.
    logging.disable()
    for line in sys.stdin:
        print(json.dumps(measured(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
