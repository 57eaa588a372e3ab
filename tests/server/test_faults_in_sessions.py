"""What can go wrong in sessions, and what is left of it: nothing, and the others notice nothing.

The correctness of the figures in docs/reference/benchmarks.md is shown here in small:
nothing stale after interruptions, bounded queues under a slow stage, the same call twice,
and everything back to where it was.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow.pipeline import Pipeline, StageSpec, stage
from actorflow.protocol import (
    Interrupted,
    ReplyText,
    TurnCompleted,
    UserAudio,
    UserText,
)
from actorflow.runtime import UnifiedStageGraph
from actorflow.server import ServerConfig, Session, Turn, open_sessions
from actorflow.stages import StageContext
from actorflow.testing import (
    Interruption,
    MockTTSProvider,
    Moment,
    Outage,
    ScriptedDetector,
    ScriptedRecognizer,
    Speech,
    Writing,
    no_leaks,
    place_call,
    run_call,
    run_seeded,
)
from actorflow.voice import SpeakStage, TranscribeStage, VoiceApp
from tests.server.caller import PIECE, App, open_house

Answer = Callable[[Session, Turn], Awaitable[None]]


async def relay(ctx: StageContext) -> None:
    async for item in ctx.stream():
        await ctx.send(item)


def chain(*runners: Callable[[StageContext], Awaitable[None]]) -> UnifiedStageGraph:
    return UnifiedStageGraph(
        [
            StageSpec(f"s{number}", runner, stream_from=(f"s{number - 1}",) if number else ())
            for number, runner in enumerate(runners)
        ]
    )


async def speak(session: Session, turn: Turn) -> None:
    """Answer at length, through stages that stream."""

    async def make(ctx: StageContext) -> None:
        for _ in range(100):
            await ctx.send(PIECE * 10)

    async def say(ctx: StageContext) -> None:
        async for audio in ctx.stream():
            await turn.send_audio(audio)

    await chain(make, relay, say).run()


# Providers that do not cooperate


async def hangs(ctx: StageContext) -> None:
    await trio.sleep_forever()


async def swallows_one_cancellation(ctx: StageContext) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        # The next await is cancelled as well: in trio a cancellation stays.
        await trio.sleep(8)  # noqa: ASYNC102 - the fault
        raise


async def raises_in_cleanup(ctx: StageContext) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise OSError("the provider is gone")


async def takes_its_time(ctx: StageContext) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)


PROVIDERS = [hangs, swallows_one_cancellation, raises_in_cleanup, takes_its_time]


def asking(provider: Callable[[StageContext], Awaitable[None]]) -> Answer:
    """Ask the provider, unless the user wants something else."""

    async def answer(session: Session, turn: Turn) -> None:
        if turn.text == "ask":
            await chain(relayed, provider).run()
        await turn.send_text("done")

    async def relayed(ctx: StageContext) -> None:
        await ctx.send(1)

    return answer


@pytest.mark.spec("A85", "A97", "A99")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_turn_whose_provider_does_not_cooperate_is_interrupted_at_once(
    provider: Callable[[StageContext], Awaitable[None]],
) -> None:
    record = run_call(
        App(asking(provider)), Writing(0, "ask"), Interruption(1), Writing(2, "something else")
    )

    assert record.times(Interrupted) == [1.0]
    assert record.answer("turn-2") == "done"
    assert record.times(ReplyText) == [2.0]
    assert record.stale == ()


@pytest.mark.spec("A85")
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_session_whose_provider_does_not_cooperate_ends_and_others_go_on(
    provider: Callable[[StageContext], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async with open_house(asking(provider)) as house:
        stuck = await house.call()
        await stuck.say(UserText("ask"))
        other = await house.call()
        await trio.sleep(1)
        begun_at = trio.current_time()
        stuck.connection.cut()
        await other.say(UserText("hello"))
        await other.hear_a(TurnCompleted)

        assert trio.current_time() == begun_at
        await trio.sleep(31)
        assert house.states == {"idle": 1}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_server_closes_although_no_provider_cooperates(
    provider: Callable[[StageContext], Awaitable[None]], autojump_clock: MockClock
) -> None:
    begun_at = trio.current_time()

    async with no_leaks(), open_house(asking(provider)) as house:
        for _ in range(5):
            caller = await house.call()
            await caller.say(UserText("ask"))
        await trio.sleep(1)

    assert trio.current_time() - begun_at < 1 + 0.6


# Connections


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.floats(0.2, 3), st.floats(0.01, 4)), max_size=4),
    st.integers(0, 1_000),
)
def test_answer_survives_any_outages(gaps: list[tuple[float, float]], seed: int) -> None:
    async def count(session: Session, turn: Turn) -> None:
        for number in range(60):
            await turn.send_text(f"{number} ")
            await trio.sleep(0.25)

    at, outages = 0.0, []
    for pause, seconds in gaps:
        at += pause
        outages.append(Outage(at, seconds))
        at += seconds

    record = run_call(App(count), Writing(0, "count"), *outages, seconds=60, seed=seed)

    assert record.answer("turn-1") == "".join(f"{number} " for number in range(60))
    assert record.errors == ()


async def test_half_open_connection_is_noticed_and_others_are_not_held_up(
    autojump_clock: MockClock,
) -> None:
    async with no_leaks(), open_house(resume_grace=5) as house:
        # A machine that was unplugged: it reads nothing and answers nothing.
        gone = await house.call(buffer=2)
        gone.connection.is_mute = True
        begun_at = trio.current_time()
        other = await house.call()
        for number in range(8):
            await other.say(UserText(f"question {number}"))
            await other.hear_a(TurnCompleted)
            await trio.sleep(5)

        # Long enough for the interval, the patience and the grace.
        assert trio.current_time() - begun_at == 40
        assert house.states == {"idle": 1}
        assert [it["code"] for it in house.sink.payloads("session.closed")] == [1001]
        assert len(house.sink.payloads("session.detached")) == 1


async def test_slow_readers_do_not_slow_down_anybody_else(autojump_clock: MockClock) -> None:
    async with no_leaks(), open_house(speak, slow_client_timeout=3) as house:
        for _ in range(5):
            slow = await house.call(buffer=1)
            await slow.say(UserText("talk"))
        other = await house.call()
        begun_at = trio.current_time()
        await other.say(UserText("talk"))
        await other.hear_a(TurnCompleted)

        # Twenty seconds of audio, sent a lead ahead of the speaker.
        assert trio.current_time() - begun_at == pytest.approx(20 - 0.1, abs=0.05)
        codes = [it["code"] for it in house.sink.payloads("session.closed")]
        assert codes == [4006] * 5


@pytest.mark.spec("A115")
@pytest.mark.parametrize("seed", range(2))
def test_server_drains_under_load(seed: int) -> None:
    dice = Random(seed)
    late: list[Any] = []
    config = ServerConfig(max_sessions_per_principal=20)

    async def call(sessions: Any, pause: float) -> None:
        await trio.sleep(pause)
        record = await place_call(sessions, *(Writing(0.3 * n, "talk") for n in range(9)))
        late.append(record)

    async def main() -> None:
        async with (
            no_leaks(),
            trio.open_nursery() as nursery,
            open_sessions(App(speak), config=config) as sessions,
        ):
            for _ in range(20):
                nursery.start_soon(call, sessions, dice.random() * 2)
            await trio.sleep(1.5)
            assert sum(sessions.statistics().sessions.values()) > 5
            begun_at = trio.current_time()
            await sessions.drain(4)
            assert trio.current_time() - begun_at <= 4 + 1
            statistics = sessions.statistics()
            assert dict(statistics.sessions) == {}
            assert statistics.turns > 5

    run_seeded(main, seed=seed)

    # Everybody was told: those who were there, and those who came too late.
    assert len(late) == 20
    assert {str(error).split(":")[0] for record in late for error in record.errors} == {
        "the session was closed with code 1001"
    }


# The figures, in small


@pytest.mark.spec("A98")
@pytest.mark.parametrize("seed", range(2))
def test_nothing_stale_after_interruptions_at_any_instant(seed: int) -> None:
    dice = Random(seed)
    at, moments = 0.0, list[Moment]()
    for _ in range(50):
        moments.append(Writing(at, "speak"))
        at += dice.choice((0.0, 0.000_1, dice.random() * 0.1, dice.random()))
        moments.append(Interruption(at))
        at += dice.random() * 0.05

    record = run_call(App(speak), *moments, seed=seed)

    # The last texts may come at the very instant of an interruption, and wait.
    assert sum(it.turn_id is not None for it in record.messages(Interrupted)) > 40
    assert record.stale == ()


@pytest.mark.spec("A92", "A93")
def test_what_waits_does_not_grow_behind_a_stage_that_is_too_slow() -> None:
    counts = {"read": 0, "done": 0}
    waiting: list[float] = []

    async def answer(session: Session, turn: Turn) -> None:
        async def listen(ctx: StageContext) -> None:
            async for chunk in turn.audio():
                counts["read"] += 1
                await ctx.send(chunk)

        async def work(ctx: StageContext) -> None:
            async for _ in ctx.stream():
                # Twice as long as it plays.
                await trio.sleep(0.04)
                counts["done"] += 1
                in_edges_ms = 20.0 * (counts["read"] - counts["done"])
                waiting.append(session.microphone.buffered_ms + in_edges_ms)

        await chain(listen, relay, work).run()

    config = ServerConfig(inbound_ms=1_000)
    run_call(App(answer), Speech(0, "and so on", 60), seconds=60, config=config)

    # Two edges of 16 pieces, and a piece in the hands of each stage.
    assert max(waiting) <= 1_000 + 20 * (2 * 16 + 3)
    assert max(waiting) == max(waiting[: len(waiting) // 4])
    assert counts["done"] > 1_400


def assistant() -> VoiceApp:
    @stage(after="listen")
    async def answer(ctx: StageContext) -> None:
        for number in range(9):
            await ctx.send(f"You said {ctx.inputs.get('text')}, and this is sentence {number}. ")

    pipeline = Pipeline.from_stages(
        stage("listen", TranscribeStage(ScriptedRecognizer())),
        answer,
        stage("speak", SpeakStage(MockTTSProvider(bytes_per_char=1_600)), stream_from="answer"),
    )
    return VoiceApp(pipeline, says="speak", detector=ScriptedDetector)


def test_call_with_speech_into_the_answers_is_the_same_twice() -> None:
    script = [Speech(1 + 5 * number, f"question {number}", 0.8) for number in range(5)]

    first, second = (run_call(assistant(), *script, seed=3) for _ in range(2))

    assert first.understood() == [f"question {number}" for number in range(5)]
    assert len(first.messages(Interrupted)) == 4
    assert first.stale == ()
    assert first.log() == second.log()


async def test_interrupted_and_dirty_sessions_leave_nothing(autojump_clock: MockClock) -> None:
    async def some(times: int) -> None:
        for number in range(times):
            provider = PROVIDERS[number % len(PROVIDERS)]
            async with open_house(asking(provider), resume_grace=1) as house:
                caller = await house.call()
                await caller.say(UserText("ask"), UserAudio(PIECE))
                await trio.sleep(0.1)
                caller.connection.cut()
                await trio.sleep(2)

    async with no_leaks():
        await some(8)
        gc.collect()
        before = len(gc.get_objects())
        await some(40)
        gc.collect()

    # One session has hundreds of objects.
    assert len(gc.get_objects()) - before < 100
