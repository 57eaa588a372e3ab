"""Turns: what is asked, answered, interrupted and thrown away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from actorflow.errors import ActorflowError, AudioFormatMismatchError, InvalidArgumentError
from actorflow.model import AudioChunk
from actorflow.protocol import (
    AudioShape,
    CloseCode,
    End,
    Error,
    ErrorCode,
    Failure,
    Flow,
    Interrupt,
    Interrupted,
    Ping,
    Played,
    Pong,
    ReplyAudio,
    ReplyText,
    Start,
    Transcript,
    TurnCompleted,
    TurnStarted,
    UserAudio,
    UserText,
)
from actorflow.server import ServerConfig, Session, Turn
from tests.server.caller import PIECE, echo, open_house

Answer = Callable[[Session, Turn], Awaitable[None]]


async def talk(session: Session, turn: Turn) -> None:
    """Ten seconds of audio in sentences of one second."""
    for number in range(10):
        await turn.send_text(f"{number} ")
        await turn.send_audio(PIECE * 50)


async def listen(session: Session, turn: Turn) -> None:
    """Say how much was heard when the input is over."""
    heard = b"".join([chunk.data async for chunk in turn.audio()])
    await turn.send_transcript(f"{len(heard)} bytes")


# Asking and answering


@pytest.mark.spec("A88")
async def test_text_is_answered_in_a_turn(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnCompleted)

    said = [(it.seq, it.message) for it in caller.heard[1:4]]
    run_id = caller.said(TurnStarted)[0].pipeline_run_id
    assert said == [
        (1, TurnStarted("turn-1", run_id)),
        (2, ReplyText("turn-1", "hello", is_final=True)),
        (3, TurnCompleted("turn-1", "completed", 0.0)),
    ]


async def test_texts_wait_for_their_turns(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        await caller.say(UserText("one"), UserText("two"), UserText("three"))
        for _ in range(3):
            await caller.hear_a(TurnCompleted)

    assert [(it.turn_id, it.delta) for it in caller.said(ReplyText)] == [
        ("turn-1", "one"),
        ("turn-2", "two"),
        ("turn-3", "three"),
    ]


@pytest.mark.spec("A93")
async def test_too_many_texts_end_the_session(autojump_clock: MockClock) -> None:
    async def wait(session: Session, turn: Turn) -> None:
        await trio.sleep_forever()

    async with open_house(wait, queued_texts=2) as house:
        caller = await house.call()
        await caller.say(*[UserText("again")] * 4)
        code, _ = await caller.hear_to_the_end()

    assert code == CloseCode.OVERLOADED
    assert caller.said(Error)[0].code == ErrorCode.OVERLOADED


async def test_audio_begins_a_turn_that_hears_all_of_it(autojump_clock: MockClock) -> None:
    async with open_house(listen) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 5, End("turn"))
        await caller.hear_a(TurnCompleted)
        await caller.say(UserAudio(PIECE), End("turn"), End("turn"))
        await caller.hear_a(TurnCompleted)

    assert [it.text for it in caller.said(Transcript)] == ["3200 bytes", "640 bytes"]


async def test_audio_after_the_end_of_the_input_is_for_the_next_turn(
    autojump_clock: MockClock,
) -> None:
    async with open_house(listen) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 2, End("turn"), UserAudio(PIECE))
        await caller.hear_a(TurnCompleted)
        await caller.say(End("turn"))
        await caller.hear_a(TurnCompleted)

    assert [it.text for it in caller.said(Transcript)] == ["1280 bytes", "640 bytes"]


async def test_chunks_know_their_place(autojump_clock: MockClock) -> None:
    chunks: list[AudioChunk] = []

    async def keep(session: Session, turn: Turn) -> None:
        chunks.extend([chunk async for chunk in turn.audio()])

    async with open_house(keep) as house:
        caller = await house.call(Start(audio=AudioShape(8000, 2)))
        await caller.say(UserAudio(PIECE), UserAudio(PIECE), End("turn"))
        await caller.hear_a(TurnCompleted)

    assert [(it.sequence, it.timestamp_ms, it.sample_rate, it.channels) for it in chunks] == [
        (0, 0.0, 8000, 2),
        (1, 20.0, 8000, 2),
    ]


@pytest.mark.spec("A100")
async def test_audio_that_a_turn_does_not_care_for_begins_no_other(
    autojump_clock: MockClock,
) -> None:
    async with open_house(echo) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 10)
        await trio.sleep(10)

    assert house.sessions.statistics().turns <= 10
    assert house.sessions.statistics().dropped == 0


async def test_turn_tells_what_was_understood(autojump_clock: MockClock) -> None:
    async def understand(session: Session, turn: Turn) -> None:
        await turn.send_transcript("what is", is_final=False, confidence=0.5)

    async with open_house(understand) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnCompleted)

    assert caller.said(Transcript) == [
        Transcript("turn-1", "what is", is_final=False, confidence=0.5)
    ]


# Audio of the answer


async def test_audio_leaves_as_fast_as_it_plays(autojump_clock: MockClock) -> None:
    async with open_house(talk, lead_ms=100, piece_ms=20) as house:
        caller = await house.call()
        await caller.say(UserText("talk"))
        begin, early = trio.current_time(), 0.0
        for _ in range(500):
            audio = await caller.hear_a(ReplyAudio)
            played_ms = (trio.current_time() - begin) * 1000
            early = max(early, audio.ends_at_ms - played_ms)
        await caller.hear_a(TurnCompleted)

    assert early == pytest.approx(120)
    assert trio.current_time() - begin == pytest.approx(9.88)
    pieces = caller.said(ReplyAudio)
    assert [it.sequence for it in pieces] == list(range(500))
    assert sum(it.duration_ms for it in pieces) == pieces[-1].ends_at_ms == 10_000


async def test_samples_are_never_torn_on_the_way_out(autojump_clock: MockClock) -> None:
    async def stutter(session: Session, turn: Turn) -> None:
        for data in (b"a", b"b", b"cde", b"f"):
            await turn.send_audio(data)

    async with open_house(stutter) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnCompleted)

    assert [it.data for it in caller.said(ReplyAudio)] == [b"ab", b"cd", b"ef"]


async def test_audio_of_another_shape_is_refused(autojump_clock: MockClock) -> None:
    found: list[Exception] = []

    async def mismatch(session: Session, turn: Turn) -> None:
        await turn.send_audio(AudioChunk(PIECE))
        try:
            await turn.send_audio(AudioChunk(PIECE, sample_rate=8000))
        except AudioFormatMismatchError as error:
            found.append(error)

    async with open_house(mismatch) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnCompleted)

    assert "pcm_16 of 16000 Hz" in str(found[0])
    assert len(caller.said(ReplyAudio)) == 1


# Barge-in


@pytest.mark.spec("A97", "A98", "A99")
async def test_interruption_takes_no_time_and_nothing_stale_follows(
    autojump_clock: MockClock,
) -> None:
    async with open_house(talk, outbound_messages=1000, piece_ms=20) as house:
        caller = await house.call()
        await caller.say(UserText("talk"))
        begin = trio.current_time()
        await trio.sleep(3.01)
        await caller.say(Interrupt(reason="barge-in"))
        interrupted = await caller.hear_a(Interrupted)
        at = trio.current_time()
        await trio.sleep(10)
        await caller.say(Ping())
        await caller.hear_a(Pong)

    assert at == begin + 3.01
    sent = caller.said(ReplyAudio)
    assert sum(it.duration_ms for it in sent) + interrupted.discarded_ms == 10_000
    assert interrupted.turn_id == "turn-1"
    assert interrupted.last_audio_sequence == sent[-1].sequence
    last = [it.message for it in caller.heard if getattr(it.message, "turn_id", None)][-1]
    assert last is interrupted
    house.sink.assert_emitted("session.interrupted", reason="barge-in", discarded_ms=7000 - 120)


@pytest.mark.spec("A97", "A99")
async def test_interruption_cancels_whatever_the_turn_waits_for(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def wait(session: Session, turn: Turn) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(anext, turn.audio())
        finally:
            ended.append(trio.current_time())

    async with open_house(wait) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await trio.sleep(3)
        await caller.say(Interrupt())
        await caller.hear_a(Interrupted)
        await trio.testing.wait_all_tasks_blocked()
        now = trio.current_time()

    assert ended == [now]
    assert caller.said(TurnCompleted) == []


@pytest.mark.spec("A97", "A99")
async def test_application_interrupts_when_it_hears_the_user(autojump_clock: MockClock) -> None:
    heard: list[tuple[str, bytes]] = []

    async def converse(session: Session, turn: Turn) -> None:
        async def listen_for_speech() -> None:
            async for chunk in turn.audio():
                heard.append((turn.id, chunk.data[:1]))
                if turn.id == "turn-1" and chunk.data[:1] == b"!":
                    assert session.interrupt("speech", carry=chunk.data)
                    assert not session.interrupt("again")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen_for_speech)
            if turn.id == "turn-1":
                await turn.send_audio(PIECE * 500)

    async with open_house(converse) as house:
        caller = await house.call()
        await caller.say(UserAudio(b"." * 640))
        await trio.sleep(1)
        await caller.say(UserAudio(b"!" * 640), UserAudio(b"?" * 640))
        await trio.sleep(1)

    assert heard == [("turn-1", b"."), ("turn-1", b"!"), ("turn-2", b"!"), ("turn-2", b"?")]


@pytest.mark.spec("A98")
async def test_shielded_stage_cannot_speak_into_the_next_turn(autojump_clock: MockClock) -> None:
    async def stubborn(session: Session, turn: Turn) -> None:
        try:
            await turn.send_audio(PIECE * 500)
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(5):
                    await trio.sleep(0.1)
                    await turn.send_text(f"late words of {turn.id}")

    async with open_house(stubborn, outbound_messages=4) as house:
        caller = await house.call()
        await caller.say(UserText("one"), UserText("two"))
        await trio.sleep(1)
        await caller.say(Interrupt())
        begin = trio.current_time()
        await caller.hear_a(Interrupted)
        at_once = trio.current_time() - begin
        await caller.hear_a(TurnStarted)
        next_turn = trio.current_time() - begin

    assert [at_once, next_turn] == pytest.approx([0, 0.5])
    assert caller.said(ReplyText) == []
    assert house.sessions.statistics().stale >= 5


@pytest.mark.spec("A101")
async def test_interrupting_nothing_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_house(talk) as house:
        caller = await house.call()
        await caller.say(Interrupt())
        assert await caller.hear_a(Interrupted) == Interrupted()
        await caller.say(UserText("talk"), Interrupt(turn_id="turn-0"))
        assert await caller.hear_a(Interrupted) == Interrupted()
        await caller.say(Interrupt(turn_id="turn-1"), Interrupt(turn_id="turn-1"))
        first = await caller.hear_a(Interrupted)
        second = await caller.hear_a(Interrupted)

    assert (first.turn_id, second) == ("turn-1", Interrupted())
    assert house.sessions.statistics().interrupted == 1


@pytest.mark.spec("A97")
async def test_turn_can_be_interrupted_until_its_last_word_has_left(
    autojump_clock: MockClock,
) -> None:
    has_returned = trio.Event()

    async def hand_over(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE * 50)
        has_returned.set()

    async with open_house(hand_over) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await has_returned.wait()
        await trio.sleep(0.5)
        await caller.say(Interrupt())
        interrupted = await caller.hear_a(Interrupted)
        assert caller.said(TurnCompleted) == []
        await caller.say(UserText("and now?"))
        with trio.fail_after(5):
            end = await caller.hear_a(TurnCompleted)

    assert interrupted.discarded_ms == 1000 - (500 + 100 + 40)
    assert end.turn_id == "turn-2"


@pytest.mark.spec("A102")
@pytest.mark.parametrize(
    ("report", "heard"),
    [
        ([Interrupt(played_ms=2500)], "0 1 "),
        ([Played("turn-1", 1999), Interrupt()], "0 "),
        ([Played("turn-0", 9999), Interrupt()], ""),
        ([Interrupt()], "0 1 2 "),
    ],
)
async def test_ledger_knows_what_was_heard(
    autojump_clock: MockClock, report: list[Interrupt | Played], heard: str
) -> None:
    turns: list[Turn] = []

    async def keep(session: Session, turn: Turn) -> None:
        turns.append(turn)
        await talk(session, turn)

    async with open_house(keep) as house:
        caller = await house.call()
        await caller.say(UserText("talk"))
        await trio.sleep(3.5)
        await caller.say(*report)
        await caller.hear_a(Interrupted)

    record = turns[0].playback
    assert record.heard_text() == heard
    assert record.is_closed
    assert record.sent_ms == sum(it.duration_ms for it in caller.said(ReplyAudio))


@pytest.mark.spec("A100")
async def test_words_that_interrupt_are_heard_by_the_next_turn(autojump_clock: MockClock) -> None:
    heard: dict[str, int] = {}

    async def deaf_first(session: Session, turn: Turn) -> None:
        if turn.id == "turn-1":
            await trio.sleep_forever()
        async for chunk in turn.audio():
            heard[turn.id] = heard.get(turn.id, 0) + len(chunk.data)

    async with open_house(deaf_first) as house:
        caller = await house.call()
        await caller.say(UserText("talk"))
        await trio.sleep(1)
        await caller.say(*[UserAudio(PIECE)] * 3, Interrupt(), UserAudio(PIECE), End("turn"))
        await caller.hear_a(TurnCompleted)

    assert heard == {"turn-2": 4 * len(PIECE)}


async def test_speaker_is_free_after_an_interruption(autojump_clock: MockClock) -> None:
    async def say_two_pieces(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE * 100)

    async with open_house(say_two_pieces, piece_ms=1000) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(ReplyAudio)
        begin = trio.current_time()
        await caller.say(Interrupt(), UserText("y"))
        await caller.hear_a(ReplyAudio)

        assert trio.current_time() == begin


# With the large outbox turns have returned while they can still be interrupted.
@pytest.mark.parametrize("outbound_messages", [20, 1000])
async def test_zero_stale_audio_in_many_interruptions(
    autojump_clock: MockClock, outbound_messages: int
) -> None:
    async with open_house(talk, outbound_messages=outbound_messages) as house:
        caller = await house.call()
        for number in range(1, 301):
            await caller.say(UserText("talk"))
            await trio.sleep(0.0137 * (number % 29))
            await caller.say(Interrupt())
            while (await caller.hear_a(Interrupted)).turn_id is None:
                pass

    over: set[str] = set()
    for numbered in caller.heard:
        turn_id = getattr(numbered.message, "turn_id", None)
        assert turn_id not in over
        if isinstance(numbered.message, Interrupted):
            over.add(str(turn_id))
    assert len(over) == 300


# Failures


@pytest.mark.spec("A85")
async def test_failing_turn_fails_alone(autojump_clock: MockClock) -> None:
    async def fail_at_first(session: Session, turn: Turn) -> None:
        await turn.send_text("so far")
        if turn.id == "turn-1":
            raise ValueError("secret")
        if turn.id == "turn-2":
            raise InvalidArgumentError("secret", 1, "two")

    async with open_house(fail_at_first) as house:
        caller = await house.call()
        await caller.say(*[UserText("x")] * 3)
        ends = [await caller.hear_a(TurnCompleted) for _ in range(3)]

    assert [(it.status, it.error) for it in ends] == [
        ("failed", Failure(ErrorCode.TURN_FAILED, "the turn failed")),
        ("failed", Failure("ARG-001-VALUE", "the turn failed")),
        ("completed", None),
    ]
    assert len(caller.said(ReplyText)) == 3


@pytest.mark.spec("A85")
async def test_turns_that_keep_failing_end_their_own_session_only(
    autojump_clock: MockClock,
) -> None:
    async def fail(session: Session, turn: Turn) -> None:
        if turn.text == "fail":
            raise ActorflowError
        await echo(session, turn)

    async with open_house(fail, max_failed_turns=2) as house:
        other, caller = await house.call(), await house.call()
        await caller.say(*[UserText("fail")] * 2)
        code, _ = await caller.hear_to_the_end()
        await other.say(UserText("hello"))
        await other.hear_a(TurnCompleted)

    assert code == CloseCode.INTERNAL
    assert caller.said(Error)[0].code == ErrorCode.TURN_FAILED
    assert other.said(ReplyText)[0].delta == "hello"


async def test_turn_that_takes_too_long_has_failed(autojump_clock: MockClock) -> None:
    async def dawdle(session: Session, turn: Turn) -> None:
        await trio.sleep(100)

    async with open_house(dawdle, max_turn_seconds=5) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        end = await caller.hear_a(TurnCompleted)

    assert end.error is not None
    assert (end.status, end.error.code, end.duration_ms) == ("failed", "TURN_TIMEOUT", 5000)


# Backpressure


@pytest.mark.spec("A92", "A94")
async def test_full_outbox_makes_the_turn_wait(autojump_clock: MockClock) -> None:
    sent = 0

    async def produce(session: Session, turn: Turn) -> None:
        nonlocal sent
        for _ in range(500):
            await turn.send_audio(PIECE)
            sent += 1

    async with open_house(produce, outbound_messages=10) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await trio.sleep(2)
        at_two = sent
        await caller.hear_a(TurnCompleted)

    assert at_two <= 2000 / 20 + 100 / 20 + 10 + 2
    assert len(caller.said(ReplyAudio)) == sent == 500


@pytest.mark.spec("A93")
async def test_oldest_audio_is_dropped_and_counted(autojump_clock: MockClock) -> None:
    go_on = trio.Event()

    async def listen_late(session: Session, turn: Turn) -> None:
        await go_on.wait()
        await listen(session, turn)

    async with open_house(listen_late, inbound_ms=100) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 8)
        pause = await caller.hear_a(Flow)
        go_on.set()
        resume = await caller.hear_a(Flow)
        await caller.say(End("turn"))
        heard = await caller.hear_a(Transcript)

    assert (pause.state, pause.buffered_ms, pause.dropped) == ("pause", 80, 1)
    assert (resume.state, resume.buffered_ms, resume.dropped) == ("resume", 40, 3)
    assert heard.text == f"{5 * 640} bytes"
    assert house.sessions.statistics().dropped == 3
    overloads = house.sink.payloads("session.overloaded")
    assert [(it["direction"], it["policy"]) for it in overloads] == [("in", "drop_oldest")]


@pytest.mark.spec("A93")
async def test_audio_dropped_after_the_end_of_input_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async def listen_late(session: Session, turn: Turn) -> None:
        await trio.sleep(1)
        await listen(session, turn)

    async with open_house(listen_late, inbound_ms=60) as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 3, End("turn"), *[UserAudio(PIECE)] * 2)
        await caller.hear_a(TurnCompleted)
        await caller.say(End("turn"))
        await caller.hear_a(TurnCompleted)

    assert [it.text for it in caller.said(Transcript)] == ["640 bytes", "1280 bytes"]


@pytest.mark.spec("A93")
async def test_reading_stops_until_there_is_room(autojump_clock: MockClock) -> None:
    async def listen_slowly(session: Session, turn: Turn) -> None:
        async for _ in turn.audio():
            await trio.sleep(0.1)

    config = {"inbound_ms": 60, "inbound_policy": "block"}
    async with open_house(listen_slowly, **config) as house:
        caller = await house.call(buffer=4)
        begin = trio.current_time()
        for _ in range(50):
            await caller.say(UserAudio(PIECE))
        took = trio.current_time() - begin
        await caller.say(End("turn"))
        await caller.hear_a(TurnCompleted)

    assert took >= (50 - 4 - 3 - 2) * 0.1
    assert house.sessions.statistics().dropped == 0
    assert caller.said(Flow)[0].state == "pause"


@pytest.mark.spec("A93")
@pytest.mark.parametrize(
    ("config", "after"),
    [
        ({"inbound_policy": "reject"}, 0),
        ({"inbound_policy": "block", "inbound_pause_limit": 7}, 7),
    ],
)
async def test_too_much_audio_can_end_the_session(
    autojump_clock: MockClock, config: dict[str, object], after: float
) -> None:
    async def deaf(session: Session, turn: Turn) -> None:
        await trio.sleep_forever()

    async with open_house(deaf, inbound_ms=60, **config) as house:
        caller = await house.call()
        begin = trio.current_time()
        await caller.say(*[UserAudio(PIECE)] * 10)
        code, _ = await caller.hear_to_the_end()

    assert (code, trio.current_time() - begin) == (CloseCode.OVERLOADED, after)
    assert caller.said(Error)[0].code == ErrorCode.OVERLOADED


@pytest.mark.spec("A93")
async def test_end_of_the_session_wakes_a_reader_that_waits_for_room(
    autojump_clock: MockClock,
) -> None:
    async def leave(session: Session, turn: Turn) -> None:
        await trio.sleep(1)
        session.close()
        await trio.sleep_forever()

    async with open_house(leave, inbound_ms=60, inbound_policy="block") as house:
        caller = await house.call()
        await caller.say(*[UserAudio(PIECE)] * 10)
        code, reason = await caller.hear_to_the_end()

    assert (code, reason) == (CloseCode.NORMAL, "closed by the application")


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_connections": 0},
        {"resume_grace": -1},
        {"lead_ms": 0},
        {"inbound_policy": "drop"},
        {"heartbeat_timeout": 30},
        {"idle_timeout": float("nan")},
        {"max_turn_seconds": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        ServerConfig(**wrong)  # type: ignore[arg-type]


def test_origins_are_a_set() -> None:
    assert ServerConfig(allowed_origins=["a", "a"]).allowed_origins == frozenset({"a"})
