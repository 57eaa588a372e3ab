"""Where each event of the catalogue comes from: the component that emits it, at work.

A scene is played twice: once with ids and everything that may be in a payload,
once with as little as possible. Each has a clock and ids of its own, so what
one scene does changes no other.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, TypeAlias, final
from unittest.mock import patch

import attrs
import trio
from trio.testing import MockClock, memory_stream_pair

from actorflow import clock, ids
from actorflow.audio import ChunkQueue, StreamingBuffer
from actorflow.diagnostics import MemoryTracker, UuidCollisionMonitor
from actorflow.errors import (
    InvalidArgumentError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.events import (
    BoundEventSink,
    FilterEventSink,
    emit_pipeline_wide_event,
    emit_stage_wide_event,
)
from actorflow.interceptors import (
    CircuitBreakerInterceptor,
    ContextSizeInterceptor,
    IdempotencyInterceptor,
    IdempotencyKey,
    ImmutabilityInterceptor,
    RetryInterceptor,
)
from actorflow.model import AudioChunk, StageOutput
from actorflow.pipeline import (
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    StageSpec,
    stage as as_stage,
)
from actorflow.protocol import End, Interrupt, TurnStarted, UserAudio, UserText
from actorflow.providers import LLMResponse
from actorflow.runtime import PipelineResults, UnifiedStageGraph
from actorflow.server import ANONYMOUS, Principal, Server, Session, Turn
from actorflow.stages import PipelineContext, StageContext
from actorflow.stores import InMemoryIdempotencyStore
from actorflow.testing import RecordingEventSink
from actorflow.voice import VoiceApp
from tests.server.caller import PIECE, open_house

NEW_YEAR: Final = 1_767_225_600.0

PEOPLE: Final[Mapping[str, Any]] = {
    "request_id": "0197a000-0000-7000-8000-00000000000a",
    "session_id": "0197a000-0000-7000-8000-00000000000b",
    "user_id": "0197a000-0000-7000-8000-00000000000c",
    "org_id": "0197a000-0000-7000-8000-00000000000d",
    "topology": "chat_fast",
    "execution_mode": "strict",
    "metadata": {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "acme=1",
    },
}
REPLY: Final = LLMResponse("life", "small", "acme", 10, 20, 5.5, "stop")


@final
@attrs.frozen
class Stage:
    """Where a scene is played."""

    is_full: bool
    """Whether payloads have all they can have, or only what they must."""
    sink: RecordingEventSink = attrs.field(factory=lambda: RecordingEventSink(strict=True))

    def context(self, **more: Any) -> PipelineContext:
        return PipelineContext(**(PEOPLE if self.is_full else {}), **more)

    async def run(self, *specs: StageSpec, **options: Any) -> PipelineResults | None:
        """Run these stages, whatever becomes of them."""
        context = options.pop("context", None) or self.context()
        options.setdefault("interceptors", ())
        graph = UnifiedStageGraph(specs, **{"pipeline_name": "shop", **options})
        with suppress(UnifiedStageExecutionError, UnifiedPipelineCancelled):
            return await graph.run(context, event_sink=self.sink)
        return None


Scene: TypeAlias = Callable[[Stage], Awaitable[None]]


# Stages


async def slow(ctx: StageContext) -> StageOutput:
    await trio.sleep(0.1234567)
    reply = {"reply": REPLY} if ctx.request_id else {}
    return StageOutput.ok({"answer": "yes", "about": "life", **reply})


async def skipping(ctx: StageContext) -> StageOutput:
    return StageOutput.skip("nothing to do")


async def breaking(ctx: StageContext) -> StageOutput:
    if ctx.request_id:
        return StageOutput.fail(InvalidArgumentError("n", 3, "4"), {"reply": REPLY})
    raise LookupError("no such key")


async def cancelling(ctx: StageContext) -> StageOutput:
    await trio.sleep(0.5)
    return StageOutput.cancel("enough")


async def improving(ctx: StageContext) -> StageOutput:
    return StageOutput.ok() if ctx.attempt > 1 else StageOutput.fail("not good enough")


async def refusing(ctx: StageContext) -> StageOutput:
    return StageOutput.fail("never good enough")


async def unreachable(ctx: StageContext) -> None:
    raise OSError("connection reset")


# Scenes: runs and stages


async def completing(stage: Stage) -> None:
    await stage.run(StageSpec("think", slow, kind="agent"), StageSpec("rest", skipping))


async def telling_all(stage: Stage) -> None:
    specs = (StageSpec("think", slow, kind="agent"), StageSpec("rest", skipping))
    if not stage.is_full:
        await stage.run(*specs, emit_stage_wide_events=True, emit_pipeline_wide_event=True)
        return
    context = stage.context(service="shop-eu")
    results = await stage.run(*specs, context=context)
    assert results is not None
    found, extra = results.stage_results, {"build": "1.4.2"}
    context.event_sink = BoundEventSink(
        stage.sink,
        pipeline_run_id=context.pipeline_run_id,
        request_id=context.request_id,
        execution_mode=context.execution_mode,
        topology=context.topology,
    )
    emit_stage_wide_event(ctx=context, result=found["think"], extra=extra)
    emit_pipeline_wide_event(ctx=context, stage_results=found, duration_ms=123.4567, extra=extra)


async def failing(stage: Stage) -> None:
    await stage.run(StageSpec("break", breaking))


async def being_canceled(stage: Stage) -> None:
    if stage.is_full:
        await stage.run(StageSpec("stop", cancelling), StageSpec("on", slow))
        return
    graph = UnifiedStageGraph([StageSpec("stop", cancelling)])
    with suppress(UnifiedPipelineCancelled):
        async with graph.start(stage.context(), event_sink=stage.sink) as run:
            await trio.sleep(0.2)
            run.cancel()
            await run.wait()


async def spawning(stage: Stage) -> None:
    correlation = "0197a000-0000-7000-8000-00000000000e" if stage.is_full else None

    async def parent(ctx: StageContext) -> None:
        for name, runner in (("good", slow), ("bad", breaking)):
            child = UnifiedStageGraph([StageSpec("only", runner)], pipeline_name=name)
            await ctx.spawn_subpipeline(child, correlation_id=correlation)

    await stage.run(StageSpec("spawn", parent))


async def retrying(stage: Stage) -> None:
    retry = RetryInterceptor(2, 150, jitter_strategy="none")
    await stage.run(StageSpec("charge", unreachable, kind="work"), interceptors=[retry])


async def guarding(stage: Stage) -> None:
    policy = GuardRetryPolicy("write", timeout_seconds=30.0 if stage.is_full else None)
    for guard in (improving, refusing):
        await stage.run(
            StageSpec("write", slow),
            StageSpec("check", guard, dependencies=("write",), kind="guard"),
            guard_retry_strategy=GuardRetryStrategy({"check": policy}),
        )


async def growing(stage: Stage) -> None:
    async def grow(ctx: StageContext) -> StageOutput:
        return StageOutput.ok(text="x" * 1000)

    await stage.run(StageSpec("grow", grow), interceptors=[ContextSizeInterceptor(100, 500)])


async def mutating(stage: Stage) -> None:
    async def mutate(ctx: StageContext) -> None:
        ctx.snapshot.metadata["of"].names.append("mallory")

    context = stage.context()
    context.metadata["of"] = SimpleNamespace(names=["ada"])
    await stage.run(
        StageSpec("mutate", mutate), context=context, interceptors=[ImmutabilityInterceptor()]
    )


# Scenes: streams


async def queueing(stage: Stage) -> None:
    async def play(ctx: StageContext) -> None:
        queue: ChunkQueue[int] = ChunkQueue(
            2, drop_on_overflow=True, event_emitter=ctx.try_emit_event
        )
        for number in range(3):
            await queue.put(number)
        waiting: ChunkQueue[int] = ChunkQueue(1, event_emitter=ctx.try_emit_event)
        await waiting.put(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.put, 2)
            await trio.sleep(0.25)
            await waiting.get()
        for full in (queue, waiting):
            full.clear()
            await full.close()

    await stage.run(StageSpec("play", play))


async def buffering(stage: Stage) -> None:
    async def play(ctx: StageContext) -> None:
        buffer = StreamingBuffer(
            target_duration_ms=20, max_duration_ms=100, event_emitter=ctx.try_emit_event
        )
        for _ in range(6):
            buffer.add_chunk(AudioChunk(PIECE))
        buffer.read(200)
        buffer.add_chunk(AudioChunk(PIECE))
        buffer.read(20)

    await stage.run(StageSpec("play", play))


# Scenes: work


async def charging_twice(stage: Stage) -> None:
    once = IdempotencyInterceptor()
    for amount in (3, 3, 4):
        data = {"idempotency_key": "order-7", "idempotency_params": {"amount": amount}}
        await stage.run(
            StageSpec("charge", slow, kind="work"),
            context=stage.context(data=data),
            interceptors=[once],
        )
        await trio.sleep(5)


async def doubting(stage: Stage) -> None:
    store = InMemoryIdempotencyStore()
    client = PEOPLE["user_id"] if stage.is_full else "anonymous"
    key = IdempotencyKey(client, "shop/charge", "order-7").storage_key
    await store.claim(key, owner="gone", params_hash=None, lease_seconds=10, run_id=None)
    await trio.sleep(20)
    await stage.run(
        StageSpec("charge", slow, kind="work"),
        context=stage.context(data={"idempotency_key": "order-7"}),
        interceptors=[IdempotencyInterceptor(store)],
    )


async def losing_the_lease(stage: Stage) -> None:
    store = InMemoryIdempotencyStore()
    client = PEOPLE["user_id"] if stage.is_full else "anonymous"

    async def charge(ctx: StageContext) -> None:
        await store.delete(IdempotencyKey(client, "shop/charge", "order-7").storage_key)
        await trio.sleep_forever()

    await stage.run(
        StageSpec("charge", charge, kind="work"),
        context=stage.context(data={"idempotency_key": "order-7"}),
        interceptors=[IdempotencyInterceptor(store, lease_seconds=3)],
    )


async def breaking_the_circuit(stage: Stage) -> None:
    breaker = CircuitBreakerInterceptor(1, 30.0)
    for runner, pause in ((unreachable, 1), (slow, 60), (slow, 0)):
        await stage.run(StageSpec("call", runner), interceptors=[breaker])
        await trio.sleep(pause)


# Scenes: sessions


async def talk(session: Session, turn: Turn) -> None:
    await turn.send_audio(PIECE * 50)
    await turn.send_audio(PIECE * 50)


async def think(session: Session, turn: Turn) -> None:
    await trio.sleep_forever()


async def talking(stage: Stage) -> None:
    async with open_house(talk, recording=stage.sink, piece_ms=20) as house:
        caller = await house.call(principal=Principal("ada") if stage.is_full else ANONYMOUS)
        await caller.say(UserText("talk"))
        await caller.hear_a(TurnStarted)
        await trio.sleep(0.51)
        await caller.say(Interrupt(reason="barge-in", played_ms=300 if stage.is_full else None))
        await trio.sleep(1)
        await caller.say(End("session"))
        await caller.hear_to_the_end()


LOUDEST: Final = b"\xff\x7f" * 320


@final
class Edgy:
    """Hears everything as speech, except that it cannot stand the loudest sound."""

    sample_rate = 16_000
    frame_size = len(PIECE)

    def probability(self, frame: bytes) -> float:
        if frame == LOUDEST:
            raise RuntimeError("too loud")
        return float(frame != bytes(self.frame_size))

    def reset(self) -> None:
        """Remember nothing anyway."""


async def say_nothing(ctx: StageContext) -> None:
    await trio.sleep_forever()


async def speaking(stage: Stage) -> None:
    app = VoiceApp(
        Pipeline.from_stages(as_stage("answer", say_nothing)), says="answer", detector=Edgy
    )
    # The runs of a session report on several tasks, in any order.
    sink = FilterEventSink(stage.sink, include=["session."])
    async with open_house(app=app, recording=sink) as house:
        caller = await house.call()
        await caller.say(UserAudio(LOUDEST))
        await trio.sleep(1)
        await caller.say(*[UserAudio(PIECE)] * 10, *[UserAudio(bytes(len(PIECE)))] * 30)
        await trio.sleep(1)
        await caller.say(End("session"))
        await caller.hear_to_the_end()


async def coming_back(stage: Stage) -> None:
    async with open_house(think, recording=stage.sink) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnStarted)
        caller.connection.cut()
        await trio.sleep(2.5)
        again = await house.resume(caller)
        await again.say(End("session"))
        await again.hear_to_the_end()


async def shouting(stage: Stage) -> None:
    async with open_house(think, recording=stage.sink, inbound_ms=100) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 8)
        await trio.sleep(1)
        await caller.say(End("session"))
        await caller.hear_to_the_end()


@final
@attrs.define(eq=False)
class Street(trio.abc.Listener[Any]):
    """Somebody with an address of the documentation comes once."""

    # Any: streams in memory have no socket.
    _comer: Any

    async def accept(self) -> Any:
        comer, self._comer = self._comer, None
        if comer is None:
            await trio.sleep_forever()
        comer.socket = SimpleNamespace(getpeername=lambda: ("192.0.2.7", 50_000))
        return comer

    async def aclose(self) -> None: ...


async def being_turned_away(stage: Stage) -> None:
    async with open_house(recording=stage.sink) as house, trio.open_nursery() as nursery:
        server = Server(house.sessions, ("192.0.2.1", 80), None, None, None, stage.sink)
        here, there = memory_stream_pair()
        # Any: it is no listener of sockets.
        street: Any = Street(there)
        nursery.start_soon(nursery.start, lambda **it: server.listen([street], nursery, **it))
        await here.send_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        await here.receive_some()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


# Scenes: diagnostics


async def measuring(stage: Stage) -> None:
    in_use = iter([(1024 * 1000, 1024 * 1100), (1024 * 20_000, 1024 * 21_000)])

    async def measure(ctx: StageContext) -> None:
        tracker = MemoryTracker(event_sink=ctx.event_sink)
        with patch.object(tracemalloc, "get_traced_memory", in_use.__next__):
            for _ in range(2):
                tracker.observe("after load" if stage.is_full else None)
        tracker.stop()

    await stage.run(StageSpec("measure", measure))


async def seeing_double(stage: Stage) -> None:
    async def observe(ctx: StageContext) -> None:
        monitor = UuidCollisionMonitor(check_skew=True, event_sink=ctx.event_sink)
        for _ in range(2):
            monitor.observe("0197a000-0000-7000-8000-000000000001")

    await stage.run(StageSpec("observe", observe))


SCENES: Final[Mapping[str, Scene]] = {
    **dict.fromkeys(
        ("pipeline.started", "pipeline.completed", "stage.started", "stage.completed"), completing
    ),
    "stage.skipped": completing,
    **dict.fromkeys(("pipeline.wide", "stage.wide"), telling_all),
    **dict.fromkeys(("pipeline.failed", "stage.failed"), failing),
    "pipeline.canceled": being_canceled,
    **dict.fromkeys(
        ("pipeline.spawned_child", "pipeline.child_completed", "pipeline.child_failed"), spawning
    ),
    **dict.fromkeys(
        ("stage.retry_scheduled", "stage.retry_exhausted", "work.retry_attempt"), retrying
    ),
    **dict.fromkeys(
        (
            "guard_retry.attempt",
            "guard_retry.scheduled",
            "guard_retry.exhausted",
            "guard_retry.recovered",
        ),
        guarding,
    ),
    **dict.fromkeys(("context.size_warning", "context.growth_warning"), growing),
    "context.mutation_detected": mutating,
    **dict.fromkeys(
        (
            "stream.chunk_dropped",
            "stream.producer_blocked",
            "stream.throttle_started",
            "stream.throttle_ended",
            "stream.queue_closed",
        ),
        queueing,
    ),
    **dict.fromkeys(
        ("stream.buffer_overflow", "stream.buffer_underrun", "stream.buffer_recovered"), buffering
    ),
    **dict.fromkeys(("work.idempotency_hit", "work.idempotency_conflict"), charging_twice),
    "work.in_doubt": doubting,
    "work.lease_lost": losing_the_lease,
    **dict.fromkeys(
        (
            "work.circuit_opened",
            "work.circuit_rejected",
            "work.circuit_half_open",
            "work.circuit_closed",
        ),
        breaking_the_circuit,
    ),
    **dict.fromkeys(("session.opened", "session.interrupted", "session.closed"), talking),
    **dict.fromkeys(("session.detached", "session.resumed"), coming_back),
    **dict.fromkeys(
        ("session.speech_started", "session.speech_ended", "session.hearing_restarted"), speaking
    ),
    "session.overloaded": shouting,
    "session.rejected": being_turned_away,
    **dict.fromkeys(("memory.sample", "memory.growth_warning"), measuring),
    **dict.fromkeys(("uuid.collision", "uuid.clock_skew"), seeing_double),
}
"""The scene in which each event is seen."""


def play(scene: Scene, *, is_full: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """Type and payload of everything that is emitted in a scene."""
    stage = Stage(is_full)

    async def main() -> None:
        await scene(stage)

    with clock.starting_at(NEW_YEAR), ids.seeded(4):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    return [(event.type, event.data) for event in stage.sink.events]


@cache
def _played(scene: Scene, is_full: bool) -> list[tuple[str, Mapping[str, Any]]]:
    return play(scene, is_full=is_full)


def payload_of(type: str, *, is_full: bool) -> Mapping[str, Any]:
    """The payload of an event in its scene, the first if there are several."""
    scene = SCENES[type]
    played = _played(scene, is_full)
    payloads = [data for emitted, data in played if emitted == type]
    assert payloads, f"no {type} in {scene.__name__}, only {[emitted for emitted, _ in played]}"
    return payloads[0]
