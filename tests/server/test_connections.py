"""Connections: how sessions begin, go on, lose their connection, come back and end."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actorflow.actors import ActorInfo, current_system
from actorflow.errors import ConnectionLostError
from actorflow.protocol import (
    Ack,
    AudioShape,
    CloseCode,
    Closing,
    End,
    Error,
    ErrorCode,
    HouseFormat,
    Interrupt,
    Interrupted,
    Ping,
    PlainAudioFormat,
    Pong,
    ReplyAudio,
    ReplyText,
    Start,
    TurnCompleted,
    TurnStarted,
    TwilioFormat,
    UserAudio,
    UserText,
)
from actorflow.server import Principal, Session, Turn
from actorflow.testing import run_seeded
from tests.server.caller import PIECE, Caller, House, echo, open_house


async def count(session: Session, turn: Turn) -> None:
    """One number every second, for ever."""
    number = 0
    while True:
        await turn.send_text(str(number))
        number += 1
        await trio.sleep(1)


async def wait(session: Session, turn: Turn) -> None:
    await trio.sleep_forever()


def deltas(caller: Caller) -> list[str]:
    return [it.delta for it in caller.said(ReplyText)]


# Beginning


@pytest.mark.spec("A83")
async def test_session_is_a_small_tree_of_actors(autojump_clock: MockClock) -> None:
    trees: list[ActorInfo] = []

    async def look(session: Session, turn: Turn) -> None:
        system = current_system()
        assert system is not None
        trees.append(system.tree())

    async with open_house(look) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnCompleted)

    assert caller.ready is not None
    (sessions,) = trees[0].children
    (session,) = sessions.children
    assert (sessions.name, session.name) == ("sessions", caller.ready.session_id)
    names = {child.name for child in session.children}
    assert names == {"session", "writer-1", "reader-1", "heartbeat-1", "turn-1"}


@pytest.mark.spec("A89", "A91")
@pytest.mark.parametrize(
    ("frame", "code", "error"),
    [
        (b"\0\0", CloseCode.PROTOCOL, ErrorCode.NOT_ALLOWED),
        ('{"type":"ping"}', CloseCode.PROTOCOL, ErrorCode.NOT_ALLOWED),
        ('{"type":"start","audio":{"format":"mp3"}}', CloseCode.PROTOCOL, ErrorCode.AUDIO_FORMAT),
        ("hello", CloseCode.BAD_DATA, ErrorCode.PROTOCOL),
        ("x" * 2000, CloseCode.TOO_BIG, ErrorCode.TOO_BIG),
    ],
)
async def test_connection_that_starts_wrongly_is_closed(
    autojump_clock: MockClock, frame: str | bytes, code: CloseCode, error: ErrorCode
) -> None:
    async with open_house(max_message_size=1000) as house:
        connection, _ = house.connect()
        await connection.send(frame)
        caller = Caller(connection)
        found, _ = await caller.hear_to_the_end()

    assert found == code
    assert [(it.code, it.fatal) for it in caller.said(Error)] == [(error, True)]


@pytest.mark.spec("A89", "A90")
@pytest.mark.parametrize(
    ("frame", "code", "error"),
    [
        ('{"type":"start"}', CloseCode.PROTOCOL, ErrorCode.NOT_ALLOWED),
        ('{"type":"sing"}', CloseCode.PROTOCOL, ErrorCode.PROTOCOL),
        ("{", CloseCode.BAD_DATA, ErrorCode.PROTOCOL),
    ],
)
async def test_session_that_goes_on_wrongly_is_closed_alone(
    autojump_clock: MockClock, frame: str, code: CloseCode, error: ErrorCode
) -> None:
    async with open_house(count) as house:
        other, caller = await house.call(), await house.call()
        await caller.say(UserText("x"))
        await trio.sleep(2.5)
        await caller.connection.send(frame)
        found, _ = await caller.hear_to_the_end()
        await other.say(Ping())
        await other.hear_a(Pong)

    assert found == code
    assert caller.said(Error)[0].code == error
    assert isinstance(caller.heard[-1].message, Closing)


async def test_refused_client_that_does_not_read_holds_nothing(autojump_clock: MockClock) -> None:
    async with open_house(close_timeout=5) as house:
        begin = trio.current_time()
        full, refused = house.connect(buffer=0)
        await full.send("{")
        await refused.wait()
        took = trio.current_time() - begin
        gone, refused = house.connect(buffer=1)
        await gone.send("{")
        gone.cut()
        await refused.wait()

    assert took == 5
    assert trio.current_time() - begin == 5


@pytest.mark.spec("A86", "A115")
async def test_frame_that_is_half_sent_is_followed_by_nothing(autojump_clock: MockClock) -> None:
    async def flood(session: Session, turn: Turn) -> None:
        while True:
            await turn.send_text("x" * 100)

    async with open_house(flood) as house:
        caller = await house.call(buffer=1)
        await caller.say(UserText("x"))
        await trio.sleep(1)
        begin = trio.current_time()

    assert caller.connection.closed == (1006, "")
    assert trio.current_time() == begin


async def test_connection_may_break_while_the_server_closes(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        begin = trio.current_time()
        caller.connection.cut()

    assert trio.current_time() == begin


@pytest.mark.spec("A104")
async def test_nobody_may_hold_a_connection_without_a_start(autojump_clock: MockClock) -> None:
    async with open_house(start_timeout=7) as house:
        begin = trio.current_time()
        caller = Caller(house.connect()[0])
        code, _ = await caller.hear_to_the_end()
        gone, _ = house.connect()
        await gone.abort()

    assert (code, trio.current_time() - begin) == (CloseCode.NO_START, 7)


@pytest.mark.spec("A114")
async def test_principal_has_so_many_sessions_and_no_more(autojump_clock: MockClock) -> None:
    async with open_house(max_sessions_per_principal=2) as house:
        ada, bob = Principal("ada"), Principal("bob")
        first = await house.call(principal=ada)
        await house.call(principal=ada)
        third = Caller(house.connect(principal=ada)[0])
        await third.say(Start())
        code, _ = await third.hear_to_the_end()
        await house.call(principal=bob)
        await first.say(End("session"))
        await first.hear_to_the_end()
        await trio.testing.wait_all_tasks_blocked()
        await house.call(principal=ada)

    assert code == CloseCode.POLICY


# Words and other formats


@pytest.mark.spec("A87")
async def test_pings_are_answered_during_a_long_turn(autojump_clock: MockClock) -> None:
    async with open_house(wait) as house:
        caller = await house.call()
        await caller.say(UserText("x"), Ping("7"))
        answer = await caller.hear_a(Pong)

    assert answer == Pong("7")


@pytest.mark.spec("A88")
async def test_answers_to_pings_are_no_part_of_the_conversation(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        await caller.say(Ping("1"), UserText("x"), Ping("2"))
        await caller.hear_a(TurnCompleted)
        await caller.connection.abort()
        await trio.sleep(1)
        again = await house.resume(caller, last_seq=0)
        await again.hear_a(TurnCompleted)

    assert [it.seq for it in caller.heard if isinstance(it.message, Pong)] == [0, 0]
    # Who comes back gets what was said, and nothing of what was asked of the connection.
    assert [it.seq for it in again.heard] == [0, 1, 2, 3]


@pytest.mark.spec("A92", "A95")
async def test_client_that_asks_and_never_reads_is_given_up(autojump_clock: MockClock) -> None:
    async with open_house(slow_client_timeout=1000, outbound_messages=10, close_timeout=1) as house:
        caller = await house.call(buffer=5)
        with suppress(ConnectionLostError), trio.move_on_after(100):
            for _ in range(100):
                await caller.say(Ping())
        await trio.sleep(5)

        assert house.states == {}
        closed = house.sink.assert_emitted("session.closed")
    assert (closed["code"], closed["reason"]) == (CloseCode.SLOW_CLIENT, "the client does not read")


async def test_answers_to_pings_do_not_wait_behind_audio(autojump_clock: MockClock) -> None:
    async def talk(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE * 500)

    async with open_house(talk) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await trio.sleep(0.5)
        begin = trio.current_time()
        await caller.say(Ping())
        await caller.hear_a(Pong)
        assert trio.current_time() == begin


async def test_telephone_talks_to_the_same_application(autojump_clock: MockClock) -> None:
    shapes: list[AudioShape] = []

    async def answer(session: Session, turn: Turn) -> None:
        shapes.append(session.audio)
        async for chunk in turn.audio():
            await turn.send_audio(chunk)
            await turn.send_audio(PIECE * 500)

    async with open_house(answer) as house:
        phone, done = house.connect(TwilioFormat())
        media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"event": "start", "start": {"streamSid": "MZ1", "mediaFormat": media}}
        await phone.send('{"event":"connected"}')
        await phone.send(json.dumps(start))
        await phone.send('{"event":"media","media":{"payload":"/////w=="}}')
        frames = [json.loads(await phone.receive()) for _ in range(2)]
        await phone.send('{"event":"stop"}')
        await done.wait()

    assert shapes == [AudioShape(8000, 1)]
    assert [it["event"] for it in frames] == ["media", "mark"]
    assert frames[0]["media"]["payload"] == "/////w=="


async def test_lost_telephone_ends_the_session(autojump_clock: MockClock) -> None:
    async with open_house(count) as house:
        wire, done = house.connect(PlainAudioFormat())
        await wire.send(PIECE)
        await trio.sleep(1)
        await wire.abort()
        begin = trio.current_time()
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()

        assert house.states == {}
        assert trio.current_time() == begin
    assert "session.detached" not in house.sink.types()


async def test_plain_audio_goes_in_and_out(autojump_clock: MockClock) -> None:
    async def parrot(session: Session, turn: Turn) -> None:
        async for chunk in turn.audio():
            await turn.send_audio(chunk)

    async with open_house(parrot) as house:
        wire, _ = house.connect(PlainAudioFormat(AudioShape(8000)))
        await wire.send(PIECE)
        assert await wire.receive() == PIECE


# Liveness


@pytest.mark.spec("A103")
async def test_silent_peer_is_given_up(autojump_clock: MockClock) -> None:
    config = {"heartbeat_interval": 20, "heartbeat_timeout": 10, "resume_grace": 5}
    async with open_house(wait, **config) as house:
        caller = await house.call()
        begin = trio.current_time()
        caller.connection.is_mute = True
        await trio.sleep(29)
        assert house.states == {"idle": 1}
        await trio.sleep(2)
        assert house.states == {"detached": 1}
        assert caller.connection.closed == (1006, "")
        await trio.sleep(5)
        assert house.states == {}

    assert house.sink.assert_emitted("session.detached")["reason"] == "no sign of life"
    assert trio.current_time() - begin == 36


@pytest.mark.spec("A103")
async def test_any_frame_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with open_house(wait, heartbeat_interval=20, heartbeat_timeout=10) as house:
        caller = await house.call()
        caller.connection.is_mute = True
        for _ in range(20):
            await caller.say(Ack(0))
            await trio.sleep(5)
        assert house.states == {"idle": 1}
        caller.connection.is_mute = False
        caller.connection.cut()
        await trio.sleep(0.1)

        assert house.states == {"detached": 1}


@pytest.mark.spec("A103")
async def test_answered_pings_keep_a_quiet_connection(autojump_clock: MockClock) -> None:
    async with open_house(wait, idle_timeout=1000) as house:
        await house.call()
        await trio.sleep(900)

        assert house.states == {"idle": 1}


@pytest.mark.spec("A103")
async def test_peer_is_not_given_up_while_it_waits_for_room(autojump_clock: MockClock) -> None:
    config = {"inbound_ms": 60, "inbound_policy": "block", "inbound_pause_limit": 100}
    async with open_house(wait, heartbeat_interval=5, heartbeat_timeout=5, **config) as house:
        caller = await house.call()
        caller.connection.is_mute = True
        await caller.say(*[UserAudio(PIECE)] * 10)
        await trio.sleep(90)

        assert house.states == {"in_turn": 1}


@pytest.mark.spec("A104")
async def test_client_that_says_nothing_is_asked_to_leave(autojump_clock: MockClock) -> None:
    async def think(session: Session, turn: Turn) -> None:
        await trio.sleep(100)

    async with open_house(think, idle_timeout=60) as house:
        caller = await house.call()
        await trio.sleep(50)
        await caller.say(UserText("x"))
        begin = trio.current_time()
        code, _ = await caller.hear_to_the_end()

    assert (code, trio.current_time() - begin) == (CloseCode.IDLE, 160)
    assert isinstance(caller.heard[-1].message, Closing)


@pytest.mark.spec("A105")
async def test_peer_that_does_not_say_goodbye_holds_nothing(autojump_clock: MockClock) -> None:
    async def leave(session: Session, turn: Turn) -> None:
        session.close()

    async with open_house(leave, close_timeout=5) as house:
        caller = await house.call()
        caller.connection.is_mute = True
        begin = trio.current_time()
        await caller.say(UserText("x"))
        await house.served[0].wait()
        took = trio.current_time() - begin
        await trio.testing.wait_all_tasks_blocked()

        assert house.states == {}
    assert took == 5


@pytest.mark.spec("A86", "A94", "A105")
async def test_client_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    async def flood(session: Session, turn: Turn) -> None:
        while True:
            await turn.send_text("x" * 100)

    async with open_house(flood, slow_client_timeout=10) as house:
        caller = await house.call(buffer=3)
        await caller.say(UserText("x"))
        begin = trio.current_time()
        await caller.connection.wait_closed().wait()
        took = trio.current_time() - begin
        await trio.testing.wait_all_tasks_blocked()
        # A frame was begun, so nothing could follow it, not even a goodbye.
        assert caller.connection.closed == (1006, "")
        assert house.states == {}

    assert took == 10
    assert house.sink.assert_emitted("session.closed")["code"] == CloseCode.SLOW_CLIENT


@pytest.mark.spec("A95")
async def test_client_that_only_asks_is_dropped(autojump_clock: MockClock) -> None:
    async with open_house(outbound_messages=50) as house:
        caller = await house.call(buffer=3)
        with pytest.raises(ConnectionLostError):
            while True:
                await caller.say(Ping())
                await trio.sleep(0.001)
        await trio.sleep(20)

        assert house.states == {}
    assert house.sink.assert_emitted("session.closed")["code"] == CloseCode.SLOW_CLIENT


@pytest.mark.spec("A92", "A95")
async def test_memory_of_a_session_is_bounded(autojump_clock: MockClock) -> None:
    peaks: list[float] = []

    async def answer(session: Session, turn: Turn) -> None:
        while True:
            await turn.send_audio(PIECE * 10)
            peaks.append(session.microphone.peak_ms)
            peaks.append(session.replay.byte_count / 1000)

    config = {"outbound_bytes": 5000, "replay_bytes": 20_000, "inbound_ms": 500}
    async with open_house(answer, **config) as house:
        caller = await house.call()

        async def send_for_ever() -> None:
            for _ in range(5000):
                await caller.say(UserAudio(PIECE))
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for_ever)
            for _ in range(300):
                await caller.hear()
        replayed = house.sessions.statistics().replay_bytes

    assert max(peaks) <= 500
    assert 0 < replayed <= 20_000


@pytest.mark.spec("A96")
async def test_slow_client_delays_nobody(autojump_clock: MockClock) -> None:
    async def chat(session: Session, turn: Turn) -> None:
        while turn.text == "flood":
            await turn.send_text("x" * 100)
        await trio.sleep(0.25)
        await turn.send_text("done")

    async with open_house(chat, slow_client_timeout=1000) as house:
        slow, quick = await house.call(buffer=2), await house.call()
        await slow.say(UserText("flood"))
        times = []
        for _ in range(20):
            begin = trio.current_time()
            await quick.say(UserText("x"))
            await quick.hear_a(TurnCompleted)
            times.append(trio.current_time() - begin)
        slow.connection.cut()

    assert times == pytest.approx([0.25] * 20)


# Coming back


@pytest.mark.spec("A106", "A107")
async def test_client_that_comes_back_has_missed_nothing(autojump_clock: MockClock) -> None:
    async with open_house(count) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        for _ in range(3):
            await caller.hear_a(ReplyText)
        caller.connection.cut()
        await trio.sleep(5.5)
        again = await house.resume(caller)
        for _ in range(8):
            await again.hear_a(ReplyText)

    assert deltas(caller) + deltas(again) == [str(number) for number in range(11)]
    numbers = [it.seq for it in (*caller.heard, *again.heard) if it.seq]
    assert numbers == list(range(1, len(numbers) + 1))
    assert again.ready is not None
    assert caller.ready is not None
    assert again.ready.resumed
    assert again.ready.session_id == caller.ready.session_id
    assert again.ready.resume_token != caller.ready.resume_token
    resumed = house.sink.assert_emitted("session.resumed", gap=False, replayed=5)
    assert resumed["detached_seconds"] == pytest.approx(5.5)


@pytest.mark.spec("A107")
async def test_lost_messages_are_announced(autojump_clock: MockClock) -> None:
    async with open_house(count, replay_messages=4) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(ReplyText)
        caller.connection.cut()
        await trio.sleep(10.5)
        again = await house.resume(caller)
        gap = await again.hear_a(Error)
        await again.hear_a(ReplyText)

    assert (gap.code, gap.fatal, gap.first_seq) == (ErrorCode.RESUME_GAP, False, 9)
    assert again.heard[-1].seq == 9
    house.sink.assert_emitted("session.resumed", gap=True)


@pytest.mark.spec("A106")
async def test_acknowledged_messages_are_forgotten(autojump_clock: MockClock) -> None:
    async with open_house(echo) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnCompleted)
        before = house.sessions.statistics().replay_bytes
        await caller.acknowledge()
        await trio.testing.wait_all_tasks_blocked()

        assert before > 0
        assert house.sessions.statistics().replay_bytes == 0


@pytest.mark.spec("A106")
async def test_audio_is_paced_also_while_nobody_listens(autojump_clock: MockClock) -> None:
    async def talk(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE * 500)

    async with open_house(talk) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(ReplyAudio)
        caller.connection.cut()
        await trio.sleep(5)
        again = await house.resume(caller)
        await again.say(Interrupt())
        interrupted = await again.hear_a(Interrupted)

    assert interrupted.discarded_ms == pytest.approx(5000 - 120, abs=41)


@pytest.mark.spec("A108")
async def test_wrong_used_and_foreign_tokens_are_refused_alike(autojump_clock: MockClock) -> None:
    async def attempt(house: House, principal: str = "ada", **start: object) -> tuple[int, str]:
        stranger = Caller(house.connect(principal=Principal(principal))[0])
        await stranger.say(Start(**start))  # type: ignore[arg-type]
        return await stranger.hear_to_the_end()

    async with open_house() as house:
        caller = await house.call(principal=Principal("ada"))
        assert caller.ready is not None
        token = str(caller.ready.resume_token)
        endings = [
            await attempt(house, resume_token="nonsense"),
            await attempt(house, resume_token=token + "x"),
            await attempt(house, resume_token="é" + token[1:]),
            await attempt(house, resume_token=token, principal="bob"),
            await attempt(house, resume_token=token, last_seq=99),
        ]
        good = Caller(house.connect(principal=Principal("ada"))[0])
        await good.start(Start(resume_token=token))
        endings.append(await attempt(house, resume_token=token))

    assert set(endings) == {(CloseCode.RESUME_REFUSED, "the session cannot be resumed")}
    assert len(token.partition(".")[2]) * 6 >= 128


@pytest.mark.spec("A108", "A119")
async def test_neither_logs_nor_events_hold_what_was_said(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(session: Session, turn: Turn) -> None:
        await turn.send_text("an answer")
        raise ValueError("broken")

    caplog.set_level(logging.DEBUG, logger="actorflow")
    async with open_house(fail) as house:
        caller = await house.call()
        await caller.say(UserText("a question"), UserAudio(b"sound" * 100), Interrupt())
        await caller.hear_a(TurnStarted)
        await caller.connection.send('{"type":"text","text":["a question"]}')
        await caller.hear_to_the_end()

    assert caller.ready is not None
    told = repr(house.sink.events) + caplog.text
    for secret in ("a question", "an answer", "sound", str(caller.ready.resume_token)):
        assert secret not in told


@pytest.mark.spec("A109")
async def test_resuming_replaces_a_connection_that_lives(autojump_clock: MockClock) -> None:
    async with open_house(count) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(ReplyText)
        again = await house.resume(caller)
        code, _ = await caller.hear_to_the_end()
        await again.hear_a(ReplyText)

    assert code == CloseCode.REPLACED
    assert deltas(again)[-1] == "1"


@pytest.mark.spec("A109")
async def test_of_two_that_resume_one_wins(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        caller.connection.cut()
        await trio.sleep(1)
        assert caller.ready is not None
        both = [Caller(house.connect()[0]) for _ in range(2)]
        codes: list[int] = []

        async def attempt(one: Caller) -> None:
            assert caller.ready is not None
            await one.say(Start(resume_token=caller.ready.resume_token))
            with trio.move_on_after(5):
                codes.append((await one.hear_to_the_end())[0])

        async with trio.open_nursery() as nursery:
            for one in both:
                nursery.start_soon(attempt, one)

    assert codes == [CloseCode.RESUME_REFUSED]


@pytest.mark.spec("A110")
async def test_session_ends_when_nobody_comes_back(autojump_clock: MockClock) -> None:
    cancelled: list[float] = []

    async def note(session: Session, turn: Turn) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    async with open_house(note, resume_grace=30) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnStarted)
        caller.connection.cut()
        begin = trio.current_time()
        await trio.sleep(31)

        assert house.states == {}
    assert cancelled == [begin + 30]
    assert house.sink.assert_emitted("session.closed")["reason"] == "client_gone"
    house.sink.assert_order("session.opened", "session.detached", "session.closed")


async def test_session_may_end_while_its_client_comes_back(autojump_clock: MockClock) -> None:
    class SlowSink:
        async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            await trio.sleep(3 if type == "session.resumed" else 0)

        def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
            raise AssertionError(type)

    async with open_house(recording=SlowSink(), resume_grace=2) as house:
        caller = await house.call()
        caller.connection.cut()
        await trio.sleep(1)
        assert caller.ready is not None
        late = Caller(house.connect()[0])
        await late.say(Start(resume_token=caller.ready.resume_token))
        code, _ = await late.hear_to_the_end()

    assert code == CloseCode.GOING_AWAY


async def test_session_that_was_lost_twice_waits_the_full_time(autojump_clock: MockClock) -> None:
    async with open_house(resume_grace=30) as house:
        caller = await house.call()
        caller.connection.cut()
        await trio.sleep(20)
        again = await house.resume(caller)
        await trio.sleep(1)
        again.connection.cut()
        await trio.sleep(29)
        assert house.states == {"detached": 1}
        await trio.sleep(2)
        assert house.states == {}


async def test_text_in_the_queue_is_answered_while_the_client_is_away(
    autojump_clock: MockClock,
) -> None:
    async def slowly(session: Session, turn: Turn) -> None:
        await trio.sleep(1)
        await echo(session, turn)

    async with open_house(slowly) as house:
        caller = await house.call()
        await caller.say(UserText("one"), UserText("two"))
        await caller.hear_a(TurnStarted)
        caller.connection.cut()
        await trio.sleep(5)
        again = await house.resume(caller)
        for _ in range(2):
            await again.hear_a(TurnCompleted)

    assert deltas(again) == ["one", "two"]


async def test_client_that_hangs_up_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_house(count) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(ReplyText)
        await caller.connection.aclose(CloseCode.NORMAL, "bye")
        await trio.testing.wait_all_tasks_blocked()

        assert house.states == {}
    house.sink.assert_emitted("session.closed", code=1000, reason="bye")


# Ending


@pytest.mark.spec("A115")
async def test_drain_lets_turns_end(autojump_clock: MockClock) -> None:
    async def slowly(session: Session, turn: Turn) -> None:
        await trio.sleep(5)
        await echo(session, turn)

    async with open_house(slowly) as house:
        idle, busy, away = [await house.call() for _ in range(3)]
        await busy.say(UserText("x"), UserText("not any more"))
        away.connection.cut()
        await trio.sleep(1)
        begin = trio.current_time()
        await house.sessions.drain(timeout=30)
        took = trio.current_time() - begin
        endings = [await it.hear_to_the_end() for it in (idle, busy)]
        late = Caller(house.connect()[0])
        await late.say(Start())
        endings.append(await late.hear_to_the_end())

    assert took == 4
    assert [code for code, _ in endings] == [CloseCode.GOING_AWAY] * 3
    assert deltas(busy) == ["x"]
    assert busy.said(Closing)[0].deadline_seconds == 30
    assert house.states == {}


@pytest.mark.spec("A115")
async def test_drain_cancels_what_takes_too_long(autojump_clock: MockClock) -> None:
    async with open_house(wait) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnStarted)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.drain, 30)
            await caller.hear_a(Closing)
            await caller.say(UserText("ignored"), UserAudio(PIECE), End("turn"), UserAudio(PIECE))
            code, reason = await caller.hear_to_the_end()

    assert (code, reason) == (CloseCode.GOING_AWAY, "server_shutdown")
    assert trio.current_time() - begin == 30


@pytest.mark.spec("A115")
async def test_connection_lost_in_a_drain_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_house(wait) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        await caller.hear_a(TurnStarted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.drain, math.inf)
            await caller.hear_a(Closing)
            caller.connection.cut()


@pytest.mark.spec("A115")
async def test_closing_the_server_says_goodbye(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, open_house(wait) as house:
        callers = [await house.call() for _ in range(3)]
        await callers[0].say(UserText("x"))
        await callers[0].hear_a(TurnStarted)
        callers[1].connection.is_mute = True
        begin = trio.current_time()
        endings: list[tuple[int, str]] = []

        async def collect(caller: Caller) -> None:
            endings.append(await caller.hear_to_the_end())

        for caller in callers:
            nursery.start_soon(collect, caller)
        nursery.start_soon(trio.sleep, 0)

    codes = sorted(code for code, _ in endings)
    assert codes == [CloseCode.GOING_AWAY, CloseCode.GOING_AWAY, 1006]
    assert trio.current_time() - begin == house.sessions.config.close_timeout


@pytest.mark.spec("A117")
async def test_statistics_count(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        one, two = await house.call(), await house.call()
        await one.say(UserText("hello"))
        await one.hear_a(TurnCompleted)
        await trio.testing.wait_all_tasks_blocked()
        now = house.sessions.statistics()
        await two.say(End("session"))
        await two.hear_to_the_end()
        await trio.testing.wait_all_tasks_blocked()
        then = house.sessions.statistics()

    assert (now.connections, now.sessions, now.turns) == (2, {"idle": 2}, 1)
    # Hello, and what was answered: ready twice, turn, text and end of the turn.
    assert (now.messages_in, now.messages_out) == (1, 5)
    assert now.bytes_in == len('{"type":"text","text":"hello"}')
    assert (then.connections, then.sessions) == (1, {"idle": 1})
    assert then.messages_in == 2


@pytest.mark.spec("A119")
async def test_events_tell_the_life_of_a_session(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call(principal=Principal("ada"))
        await caller.say(UserText("x"))
        await caller.hear_a(TurnCompleted)
        await trio.sleep(2)
        await caller.say(End("session"))
        await caller.hear_to_the_end()

    opened = house.sink.assert_emitted(
        "session.opened", principal="ada", subprotocol="actorflow.v1"
    )
    closed = house.sink.assert_emitted("session.closed", code=1000, turns=1, duration_ms=2000)
    assert opened["pipeline_run_id"] is None
    assert (opened["seq"], closed["seq"]) == (1, 2)
    assert opened["session_id"] == closed["session_id"]


@pytest.mark.spec("A85")
async def test_crash_of_our_own_ends_one_session(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house() as house:
        other, caller = await house.call(), await house.call()

        # It stands for a mistake in the actor.
        monkeypatch.setattr(Session, "detach", None)
        caller.connection.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert house.states == {"idle": 1}
        await other.say(UserText("hello"))
        await other.hear_a(TurnCompleted)

    house.sink.assert_emitted("session.closed", code=1011)
    assert "actor_crashed" in caplog.text


@pytest.mark.spec("A85")
async def test_message_that_cannot_be_written_ends_its_session(autojump_clock: MockClock) -> None:
    async def guess(session: Session, turn: Turn) -> None:
        # Whoever does not check types finds out here.
        await turn.send_transcript("x", confidence=object())  # type: ignore[arg-type]

    async with open_house(guess) as house:
        caller = await house.call()
        await caller.say(UserText("x"))
        code, reason = await caller.hear_to_the_end()

    assert (code, reason) == (CloseCode.INTERNAL, "the session crashed")


async def test_client_that_is_deaf_gets_no_last_words(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        caller = await house.call()
        begin = trio.current_time()
        # What is sent to it fails, and nothing else has told the server yet.
        caller.connection._incoming.close()

    assert caller.connection.closed is not None
    assert trio.current_time() == begin


# Whatever happens


async def chaos(seed: int) -> None:
    dice = random.Random(seed)

    async def answer(session: Session, turn: Turn) -> None:
        for _ in range(dice.randrange(5)):
            await turn.send_text("word ")
            await turn.send_audio(PIECE * dice.randrange(30))
            await trio.sleep(dice.random())
        if dice.random() < 0.2:
            raise ValueError
        if dice.random() < 0.2:
            session.interrupt()

    async def act(house: House, caller: Caller) -> None:
        for _ in range(12):
            await trio.sleep(dice.random())
            choice = dice.choice("tttaaaeikpcmx")
            try:
                match choice:
                    case "t":
                        await caller.say(UserText("x"))
                    case "a":
                        await caller.say(*[UserAudio(PIECE)] * dice.randrange(200))
                    case "e":
                        await caller.say(End("turn"))
                    case "i":
                        await caller.say(Interrupt())
                    case "k":
                        await caller.acknowledge()
                    case "p":
                        await caller.say(Ping())
                    case "c":
                        caller.connection.cut()
                    case "m":
                        caller.connection.is_mute = True
                    case "x":
                        nonsense: list[str | bytes] = ["{", b"\0", '{"type":"end"}']
                        await caller.connection.send(dice.choice(nonsense))
            except ConnectionLostError:
                if dice.random() < 0.5:
                    return
                again = Caller(house.connect()[0])
                assert caller.ready is not None
                again.ready = caller.ready
                await again.say(
                    Start(resume_token=caller.ready.resume_token, last_seq=caller.last_seq)
                )
                caller = again

    async with trio.open_nursery() as nursery:
        config = {"resume_grace": 2, "slow_client_timeout": 1, "heartbeat_timeout": 3}
        async with open_house(
            answer, inbound_ms=500, outbound_messages=20, max_failed_turns=2, **config
        ) as house:
            for _ in range(8):
                nursery.start_soon(act, house, await house.call(buffer=dice.choice([3, 1000])))
            await trio.sleep(6)
            if dice.random() < 0.5:
                await house.sessions.drain(3)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_left_after_any_disorder(seed: int) -> None:
    # `open_house` looks for tasks, connections and sessions that were left.
    run_seeded(chaos, seed, seed=seed)


async def test_format_of_the_house_has_the_limit_of_the_server(autojump_clock: MockClock) -> None:
    async with open_house(max_message_size=300) as house:
        caller = await house.call()
        await caller.connection.send(b"\0" * 301)
        code, _ = await caller.hear_to_the_end()

    assert code == CloseCode.TOO_BIG
    assert HouseFormat().max_message_size == 1_048_576
