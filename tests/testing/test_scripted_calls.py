"""Scripted calls: microphone, speaker, network, and what is left afterwards."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from actorflow.errors import (
    MockConfigError,
    ResumeGapError,
    SessionClosedError,
)
from actorflow.protocol import (
    AudioShape,
    Interrupted,
    ReplyText,
    ServerMessage,
    TurnCompleted,
    TurnStarted,
    mulaw_from_pcm16,
    pcm16_from_mulaw,
)
from actorflow.providers import SpeechDetector, SpeechToText
from actorflow.server import ServerConfig, Session, Turn, open_sessions
from actorflow.testing import (
    CallRecord,
    EndOfTurn,
    Heard,
    Interruption,
    Outage,
    RecordingEventSink,
    ScriptedDetector,
    ScriptedMic,
    ScriptedRecognizer,
    Speech,
    Writing,
    memory_connection_pair,
    no_leaks,
    open_session_pair,
    place_call,
    run_call,
    speech_audio,
    words_in,
)
from tests.server.caller import App, echo

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=40)


# Speech


@given(TEXTS, st.integers(1, 3))
def test_words_are_found_again_in_the_audio(text: str, channels: int) -> None:
    shape = AudioShape(channels=channels)

    assert words_in(speech_audio(text, 1.0, shape), channels) == text


@given(TEXTS, st.integers(0, 2_000), st.integers(0, 2_000))
def test_words_survive_silence_scissors_and_the_telephone(text: str, front: int, back: int) -> None:
    audio = speech_audio(text, 0.5)
    heard = bytes(640) + audio[2 * front : len(audio) - back] + bytes(641)

    assert words_in(heard) == text
    assert words_in(pcm16_from_mulaw(mulaw_from_pcm16(heard))) == text


def test_words_that_follow_each_other_are_told_apart() -> None:
    one, two = speech_audio("one", 0.1), speech_audio("two", 0.1)

    assert words_in(one + two) == "one two"
    assert words_in(one + bytes(320) + one) == "one one"


def test_silence_and_noise_say_nothing() -> None:
    assert words_in(bytes(3_200)) == ""
    assert words_in(b"\x00\xb0\xff\x7f" * 800) == ""
    assert words_in((b"\xe0\xb1" + b"\x00\x7a" * 4) * 800) == ""


def test_microphone_hears_silence_around_speech() -> None:
    mic = ScriptedMic(Speech(0.5, "stop", 0.1), Speech(0.1, "go", 0.1))

    pieces = [mic.piece(number) for number in range(40)]
    spoken = [number for number, piece in enumerate(pieces) if any(piece)]
    assert spoken == [5, 6, 7, 8, 9, 25, 26, 27, 28, 29]
    assert words_in(b"".join(pieces)) == "go stop"
    assert {len(piece) for piece in pieces} == {640}


async def test_microphone_is_as_fast_as_the_world(autojump_clock: MockClock) -> None:
    begun_at = trio.current_time()
    times: list[float] = []

    async def note(_: bytes) -> None:
        times.append(round(trio.current_time() - begun_at, 6))

    await ScriptedMic(Speech(0, "hi")).play(note, 0.1)

    assert times == [0.02, 0.04, 0.06, 0.08, 0.1]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ScriptedMic(Speech(0, "one"), Speech(0.5, "two")),
        lambda: ScriptedMic(piece_ms=0.01),
        lambda: ScriptedDetector(script=()),
        lambda: ScriptedDetector().probability(b"\0"),
        lambda: run_call(App(echo), Writing(-1, "early")),
    ],
)
def test_scripts_that_cannot_happen_are_refused(wrong: Any) -> None:
    with pytest.raises(MockConfigError):
        wrong()


def test_detector_tells_speech_from_silence() -> None:
    detector = ScriptedDetector()
    as_such: SpeechDetector = detector
    speech = speech_audio("hello")[: detector.frame_size]

    assert as_such.probability(speech) > 0.9
    assert as_such.probability(bytes(detector.frame_size)) < 0.1
    as_such.reset()
    assert (detector.frames, detector.resets) == (2, 1)


def test_detector_says_what_it_was_told() -> None:
    detector = ScriptedDetector(sample_rate=8_000, frame_ms=10, script=(0.1, 0.7))

    assert [detector.probability(bytes(160)) for _ in range(3)] == [0.1, 0.7, 0.7]


async def test_recognizer_writes_down_what_was_said(autojump_clock: MockClock) -> None:
    recognizer = ScriptedRecognizer(latency_ms=300)
    as_such: SpeechToText = recognizer
    begun_at = trio.current_time()

    found = await as_such.transcribe(speech_audio("turn left", 0.5), language="en")

    assert (found.text, recognizer.heard) == ("turn left", ["turn left"])
    assert trio.current_time() - begun_at == pytest.approx(0.3)


# Calls


async def talk(session: Session, turn: Turn) -> None:
    await turn.send_text("Once upon a time ")
    await turn.send_audio(bytes(32_000 * 3))
    await turn.send_text("there was a king.")
    await turn.send_audio(bytes(32_000))


async def listen(session: Session, turn: Turn) -> None:
    audio = b"".join([chunk.data async for chunk in turn.audio()])
    await turn.send_transcript(words_in(audio))
    await turn.send_text(f"You said: {words_in(audio)}")


def test_call_shows_what_came_and_when() -> None:
    record = run_call(App(talk), Writing(0.5, "go on"))

    assert record.times(TurnStarted) == [0.5]
    assert record.answer("turn-1") == "Once upon a time there was a king."
    assert record.answer("turn-2") == ""
    # The audio leaves a lead ahead of the speaker, and is played to the end.
    assert record.times(TurnCompleted)[0] == pytest.approx(0.5 + 4 - 0.1, abs=0.05)
    assert record.played == {"turn-1": 4_000}
    assert (record.stale, record.errors, record.reconnects) == ((), (), 0)


def test_speech_is_heard_and_understood() -> None:
    record = run_call(App(listen), Speech(0.4, "what is the time"), EndOfTurn(1.6), seconds=1.7)

    assert record.understood() == ["what is the time"]
    assert record.messages(ReplyText)[0].delta == "You said: what is the time"


def test_barge_in_tells_what_was_played() -> None:
    record = run_call(App(talk), Writing(1, "talk"), Interruption(2.5), Writing(2.6, "go on"))

    assert record.times(Interrupted) == [2.5]
    assert record.played["turn-1"] == pytest.approx(1_500)
    (interrupted,) = (it for it in record.events if it.type == "session.interrupted")
    assert interrupted.data["played_ms"] == pytest.approx(1_500)
    assert record.times(TurnStarted) == [1.0, 2.6]
    assert record.stale == ()


def test_barge_in_into_silence_is_answered() -> None:
    record = run_call(App(talk), Interruption(1))

    assert record.messages(Interrupted) == [Interrupted()]


def test_server_that_interrupts_stops_the_speaker() -> None:
    async def change_mind(session: Session, turn: Turn) -> None:
        if turn.text == "talk":
            await turn.send_audio(bytes(32_000))
            await trio.sleep(0.25)
            session.interrupt()

    record = run_call(App(change_mind), Writing(0, "talk"))

    assert record.played == {"turn-1": pytest.approx(250)}


def test_client_may_keep_to_itself_what_it_has_played() -> None:
    played: list[float] = []

    async def note(session: Session, turn: Turn) -> None:
        await turn.send_audio(bytes(32_000))
        await trio.sleep(2)
        played.append(turn.playback.acknowledged_ms)

    run_call(App(note), Writing(0, "talk"))
    run_call(App(note), Writing(0, "talk"), reports_playback=False)

    assert played == [1_000, 0]


def test_outage_is_survived() -> None:
    async def count(session: Session, turn: Turn) -> None:
        for number in range(8):
            await turn.send_text(str(number))
            await trio.sleep(1)

    record = run_call(App(count), Writing(0, "count"), Outage(2.5, 3))

    assert record.answer("turn-1") == "01234567"
    assert record.reconnects == 1
    assert all(not 2.5 < at < 5.5 for at in record.times(ReplyText))
    types = [event.type for event in record.events]
    assert types == ["session.opened", "session.detached", "session.resumed", "session.closed"]


def test_what_was_lost_in_an_outage_is_told() -> None:
    async def count(session: Session, turn: Turn) -> None:
        for number in range(8):
            await turn.send_text(str(number))
            await trio.sleep(1)

    config = ServerConfig(replay_messages=2)
    record = run_call(App(count), Writing(0, "count"), Outage(2.5, 4), config=config)

    assert [type(error) for error in record.errors] == [ResumeGapError]
    assert record.answer("turn-1").endswith("67")


def test_session_that_the_server_ends_is_over() -> None:
    async def leave(session: Session, turn: Turn) -> None:
        session.close("enough")

    script = (Writing(0, "hello"), Writing(3, "are you there"), Speech(0, "hello?"))
    in_order = run_call(App(leave), *script)
    config = ServerConfig(idle_timeout=2)
    idle = run_call(App(leave), Writing(9, "late"), config=config)

    assert in_order.errors == ()
    assert [type(error) for error in idle.errors] == [SessionClosedError]


def test_call_that_is_not_taken_says_why() -> None:
    async def main() -> CallRecord:
        async with open_sessions(App(echo)) as sessions:
            await sessions.drain()
            return await place_call(sessions, Writing(0, "hello"))

    record = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert [str(error) for error in record.errors] == [
        "the session was closed with code 1001: server_shutdown"
    ]


async def test_many_clients_may_call(autojump_clock: MockClock) -> None:
    records: list[CallRecord] = []

    async with no_leaks(), open_sessions(App(echo)) as sessions, trio.open_nursery() as nursery:

        async def call(text: str) -> None:
            records.append(await place_call(sessions, Writing(0, text)))

        for text in ("one", "two", "three"):
            nursery.start_soon(call, text)

    assert {record.answer("turn-1") for record in records} == {"one", "two", "three"}


def test_same_seed_gives_the_same_call() -> None:
    script = (Writing(0.5, "talk"), Interruption(2), Speech(3, "hello"), Outage(4, 1))

    logs = {run_call(App(talk), *script, seed=5).log() for _ in range(2)}

    assert len(logs) == 1
    assert '"type":"interrupted"' in logs.pop()


def test_messages_after_the_interruption_are_stale() -> None:
    messages: tuple[ServerMessage, ...] = (
        Interrupted(),
        TurnStarted("turn-1"),
        Interrupted("turn-1"),
        ReplyText("turn-1", "and"),
        Interrupted(),
    )
    heard = tuple(Heard(1.0, it) for it in messages)

    assert CallRecord(heard, {}).stale == (heard[3],)


@pytest.mark.spec("A118")
async def test_session_pair_is_a_client_and_its_server(autojump_clock: MockClock) -> None:
    sink = RecordingEventSink()

    pair = open_session_pair(App(echo), metadata={"name": "Ali"}, event_sink=sink)
    async with no_leaks(), pair as (session, sessions):
        await session.send_text("hello")
        async for message in session:
            if isinstance(message, TurnCompleted):
                break
        assert dict(sessions.statistics().sessions) == {"idle": 1}

    assert sink.types() == ["session.opened", "session.closed"]


async def test_exception_in_the_block_of_a_session_pair_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(KeyError):
        async with open_session_pair(App(echo)):
            raise KeyError


# What is left


@attrs.define
class Keeper:
    kept: list[object] = attrs.field(factory=list)


async def test_task_that_is_left_is_named(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match="left behind: task trio"):
            async with no_leaks():
                nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()


async def test_channel_that_is_left_open_is_named() -> None:
    keeper = Keeper()

    with pytest.raises(AssertionError, match="left behind: open <receive channel"):
        async with no_leaks():
            keeper.kept += memory_connection_pair()


async def test_socket_that_is_left_open_is_named() -> None:
    found = trio.socket.socket()
    found.close()

    with pytest.raises(AssertionError, match="left behind: open <socket"):
        async with no_leaks():
            found = trio.socket.socket()
    found.close()


async def test_session_that_is_left_open_is_named(autojump_clock: MockClock) -> None:
    opened: list[Session] = []

    async def keep(session: Session, turn: Turn) -> None:
        opened.append(session)
        await trio.sleep_forever()

    async with open_sessions(App(keep)) as sessions, trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match="Session object"):
            async with no_leaks():
                nursery.start_soon(place_call, sessions, Writing(0, "hello"))
                await trio.sleep(1)


async def test_what_a_block_raises_is_not_hidden_by_what_it_leaves() -> None:
    keeper = Keeper()

    with pytest.raises(KeyError):
        async with no_leaks():
            keeper.kept += memory_connection_pair()
            raise KeyError


async def test_what_was_there_before_does_not_count() -> None:
    keeper = Keeper([*memory_connection_pair()])

    async with no_leaks():
        keeper.kept.clear()
