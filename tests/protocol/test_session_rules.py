"""What a session decides without waiting: states, pacing, playback, queues, replay."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import InvalidArgumentError, ProtocolViolationError
from actorflow.protocol import (
    ALLOWED,
    CLIENT_MESSAGES,
    TRANSITIONS,
    Ack,
    AudioShape,
    ClientMessage,
    Discarded,
    Error,
    ErrorCode,
    Frame,
    Microphone,
    Outbox,
    Pacer,
    Ping,
    Playback,
    Pong,
    ReplayBuffer,
    ReplyAudio,
    ReplyText,
    SessionState,
    Start,
    Step,
    TurnCompleted,
    TurnStarted,
    UserAudio,
    after,
    check_allowed,
    state_diagram,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"


# States


def state_after(*steps: Step) -> SessionState:
    state = SessionState.CONNECTING
    for step in steps:
        state = after(state, step)
    return state


STARTED = (Step.REQUESTED, Step.ADMITTED, Step.STARTED)


@pytest.mark.spec("A84", "A90")
def test_session_goes_through_its_states() -> None:
    assert state_after() is SessionState.CONNECTING
    assert state_after(Step.REQUESTED) is SessionState.AUTHENTICATING
    assert state_after(Step.REQUESTED, Step.ADMITTED) is SessionState.WAITING_START
    assert state_after(*STARTED) is SessionState.IDLE
    assert state_after(*STARTED, Step.TURN_BEGAN) is SessionState.IN_TURN
    assert state_after(*STARTED, Step.TURN_BEGAN, Step.TURN_ENDED) is SessionState.IDLE
    assert state_after(*STARTED, Step.LOST, Step.RESUMED) is SessionState.IDLE
    assert state_after(*STARTED, Step.TURN_BEGAN, Step.DRAIN) is SessionState.DRAINING


@pytest.mark.spec("A90")
def test_every_state_but_the_last_leads_somewhere() -> None:
    for state in SessionState:
        assert after(state, Step.CLOSED) is SessionState.CLOSED
    leading = {state for state, step in TRANSITIONS if step is not Step.CLOSED}

    assert leading == set(SessionState) - {SessionState.CLOSED}


@pytest.mark.spec("A90")
def test_each_message_has_its_row_of_states() -> None:
    assert set(ALLOWED) == set(CLIENT_MESSAGES.values())
    check_allowed(SessionState.WAITING_START, Start())
    check_allowed(SessionState.IDLE, Ping())

    refusals: list[tuple[SessionState, ClientMessage]] = [
        (SessionState.IDLE, Start()),
        (SessionState.WAITING_START, UserAudio(b"")),
        (SessionState.DETACHED, Ack(1)),
    ]
    for state, message in refusals:
        with pytest.raises(ProtocolViolationError, match=f"{state}") as caught:
            check_allowed(state, message)
        assert caught.value.error_code == ErrorCode.NOT_ALLOWED


@pytest.mark.spec("A84")
def test_diagram_shows_the_table() -> None:
    diagram = state_diagram()

    assert "    idle --> in_turn: turn began" in diagram
    assert diagram.count("-->") == 2 + sum(step is not Step.CLOSED for _, step in TRANSITIONS)
    assert f"```mermaid\n{diagram}\n```" in REFERENCE.read_text("utf-8")


# Pacing


@given(
    st.lists(st.floats(0, 60).map(lambda ms: round(ms, 3)), min_size=1, max_size=30),
    st.floats(0, 5),
    st.floats(1, 500),
)
def test_audio_leaves_a_lead_ahead_of_the_speaker(
    pieces: list[float], begin: float, lead_ms: float
) -> None:
    pacer, now, sent_ms = Pacer(lead_ms), begin, 0.0
    for duration_ms in pieces:
        now = max(now, pacer.due)
        played_ms = (now - begin) * 1000
        # Never more than the lead is with the client, and the speaker never runs dry.
        assert sent_ms - played_ms <= lead_ms + 1e-6
        assert sent_ms - played_ms >= -1e-6
        pacer = pacer.sent(duration_ms, now)
        sent_ms += duration_ms
    assert pacer.ends_at == pytest.approx(begin + sent_ms / 1000)


def test_pieces_without_a_sample_do_not_let_others_pass() -> None:
    pacer = Pacer(100).sent(1000, now=0)
    due = pacer.due

    for _ in range(10):
        pacer = pacer.sent(0, now=0)

    assert pacer.due == due == 0.9


def test_slow_sends_do_not_add_up() -> None:
    pacer, now, late = Pacer(100), 0.0, 0.003
    for _ in range(1000):
        now = max(now, pacer.due) + late
        pacer = pacer.sent(20, now)

    assert pacer.ends_at == pytest.approx(late + 20)


def test_speaker_that_ran_dry_starts_again_at_once() -> None:
    pacer = Pacer(100).sent(20, now=0).sent(20, now=5)

    assert pacer.ends_at == 5.02
    assert pacer.cleared().due < 0
    assert pacer.cleared().lead_ms == 100


def test_lead_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="lead_ms"):
        Pacer(0)


# Playback


@pytest.mark.spec("A102")
def test_only_text_whose_audio_was_played_was_heard() -> None:
    record = Playback("turn-1").said("One. ").sent(1000).said("Two. ").sent(1000).said("Three.")

    assert record.heard_text(0) == ""
    assert record.heard_text(999) == ""
    assert record.heard_text(1000) == "One. "
    assert record.heard_text(1999) == "One. "
    assert record.heard_text(2000) == "One. Two. "
    assert record.completed().heard_text(2000) == "One. Two. Three."


@pytest.mark.spec("A102")
def test_words_before_the_same_audio_are_heard_together() -> None:
    record = Playback("turn-1").said("It ").said("rains.").sent(900).said(" Take a coat.").sent(9)

    assert record.heard_text(0) == record.heard_text(899) == ""
    assert record.heard_text(900) == "It rains."


@pytest.mark.spec("A102")
def test_text_whose_audio_never_left_was_not_heard() -> None:
    assert Playback("turn-1").said("It rains.").interrupted(900).heard_text() == ""


@pytest.mark.spec("A102")
def test_acknowledgement_says_what_was_heard() -> None:
    record = Playback("turn-1").said("One. ").sent(40).said("Two.").sent(40).acknowledged(40)

    assert record.heard_text() == "One. "
    assert record.completed().acknowledged(80).heard_text() == "One. Two."
    assert record.interrupted(500).cleared_ms == 40


def test_turn_without_audio_is_read() -> None:
    assert Playback("turn-1").said("Hello ").said("there").heard_text() == "Hello there"


def test_marks_of_what_was_thrown_away_are_stale() -> None:
    record = Playback("turn-1").said("a").sent(100).interrupted(50, played_ms=30)

    assert (record.acknowledged_ms, record.discarded_ms) == (30, 50)
    assert record.acknowledged(100) is record


@given(st.lists(st.tuples(st.sampled_from("sac"), st.floats(0, 1000)), max_size=20))
def test_ledger_adds_up(program: list[tuple[str, float]]) -> None:
    record, sent = Playback("turn-1"), 0.0
    for what, ms in program:
        before = record
        if what == "s":
            record, sent = record.sent(ms), sent + ms
        elif what == "a":
            record = record.acknowledged(ms)
        else:
            record = record.interrupted(ms, ms)
        assert 0 <= before.acknowledged_ms <= record.acknowledged_ms <= record.sent_ms == sent
        assert record.cleared_ms == record.sent_ms - record.acknowledged_ms


# What is still to be sent


def audio(number: int, size: int = 640) -> ReplyAudio:
    duration_ms = AudioShape().duration_ms(size)
    return ReplyAudio("turn-1", number, duration_ms, duration_ms, b"\0" * size)


def test_control_overtakes_and_survives() -> None:
    outbox = Outbox(10, 10_000)
    outbox.put(TurnStarted("turn-1"))
    outbox.put(audio(0))
    outbox.put(audio(1))
    outbox.put(ReplyText("turn-1", "text"))
    outbox.put_control(Pong("1"))

    assert len(outbox) == 5
    assert outbox.peek() == outbox.take() == TurnStarted("turn-1")
    assert outbox.discard() == Discarded(messages=3, audio_ms=40.0)
    assert outbox.peek() is None
    assert [outbox.next_control(), outbox.next_control()] == [Pong("1"), None]


@pytest.mark.spec("A92")
def test_outbox_is_full_by_messages_or_bytes() -> None:
    outbox = Outbox(2, 1000)
    assert not outbox.is_full
    outbox.put(audio(0, size=1000))
    assert outbox.is_full
    assert outbox.take() == audio(0, size=1000)
    outbox.put(TurnStarted("turn-1"))
    assert not outbox.is_full
    outbox.put(TurnCompleted("turn-1", "completed", 1.0))

    assert outbox.is_full
    outbox.discard()
    assert not outbox.is_full


def test_outbox_is_flooded_by_control_messages() -> None:
    outbox = Outbox(2, 1000)
    for _ in range(2):
        outbox.put_control(Pong())
    assert not outbox.is_flooded
    outbox.put_control(Error("PROTOCOL", "no"))

    assert outbox.is_flooded
    assert not outbox.is_full


# What the user says


@pytest.mark.spec("A91")
def test_samples_are_not_torn() -> None:
    microphone = Microphone(AudioShape(channels=2), 1000)
    microphone.put(b"abcde")
    microphone.put(b"f")
    microphone.put(b"g")
    microphone.put(b"h")

    assert [microphone.take(), microphone.take()] == [b"abcd", b"efgh"]
    assert len(microphone) == 0


@pytest.mark.spec("A92")
def test_oldest_audio_gives_room() -> None:
    microphone = Microphone(AudioShape(), 60)
    for number in range(3):
        microphone.put(bytes([number]) * 640)

    assert not microphone.has_room(640)
    assert microphone.drop_oldest(640) == 1
    microphone.put(b"\3" * 640)
    assert (microphone.buffered_ms, microphone.dropped, microphone.peak_ms) == (60, 1, 60)
    assert microphone.take() == b"\1" * 640


def test_many_small_pieces_are_too_much_as_well() -> None:
    microphone = Microphone(AudioShape(), 1000, max_pieces=2)
    microphone.put(b"ab")
    microphone.put(b"cd")

    assert not microphone.has_room(2)


@pytest.mark.spec("A100")
def test_cleared_audio_is_not_counted_as_dropped() -> None:
    microphone = Microphone(AudioShape(), 60)
    microphone.put(b"\0" * 640)
    microphone.put(b"ab")
    microphone.clear(1)

    assert (microphone.cleared_ms, microphone.dropped) == (20, 0)
    assert microphone.take() == b"ab"


@pytest.mark.spec("A100")
def test_audio_that_was_read_too_early_goes_back_to_the_front() -> None:
    microphone = Microphone(AudioShape(), 60)
    microphone.put(b"cd")
    microphone.put_back(b"ab")
    microphone.put_back(b"")

    assert microphone.buffered_ms == AudioShape().duration_ms(4)
    assert [microphone.take(), microphone.take()] == [b"ab", b"cd"]


@given(st.lists(st.binary(max_size=9), max_size=20), st.integers(1, 4))
def test_audio_comes_out_in_whole_samples_and_in_order(pieces: list[bytes], channels: int) -> None:
    microphone = Microphone(AudioShape(channels=channels), 1e6)
    for piece in pieces:
        microphone.put(piece)
    out = [microphone.take() for _ in range(len(microphone))]
    everything = b"".join(pieces)

    size = 2 * channels
    assert b"".join(out) == everything[: len(everything) // size * size]
    assert all(len(piece) % size == 0 for piece in out)


@pytest.mark.spec("A92")
@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=30))
def test_microphone_never_holds_more_than_its_limit(pieces: list[bytes]) -> None:
    microphone = Microphone(AudioShape(), 50)
    for piece in pieces:
        microphone.drop_oldest(len(piece))
        microphone.put(piece)
        # The torn byte is not counted; a single piece may be larger than the limit.
        assert microphone.buffered_ms <= max(50, AudioShape().duration_ms(len(piece) + 1)) + 1


# What was sent


def frames(number: int) -> list[Frame]:
    return [f"frame {number}"]


@pytest.mark.spec("A88")
def test_numbers_count_from_one() -> None:
    replay = ReplayBuffer(10, 1000)
    numbers = []
    for number in range(3):
        numbers.append(replay.next_seq)
        replay.record(frames(number))

    assert numbers == [1, 2, 3]


@pytest.mark.spec("A106")
def test_what_was_not_acknowledged_is_sent_again() -> None:
    replay = ReplayBuffer(10, 1000)
    for number in range(1, 6):
        replay.record([f"header {number}", b"audio"])
    replay.acknowledge(2)

    assert replay.first_seq == 3
    assert replay.after(3) == ("header 4", b"audio", "header 5", b"audio")
    assert not replay.has_gap(2)
    assert replay.has_gap(1)
    assert replay.after(5) == ()


@pytest.mark.spec("A106")
@pytest.mark.parametrize(("max_messages", "max_bytes"), [(2, 1000), (10, 15)])
def test_oldest_messages_go_first(max_messages: int, max_bytes: int) -> None:
    replay = ReplayBuffer(max_messages, max_bytes)
    for number in range(1, 5):
        replay.record(frames(number))

    assert replay.after(0) in (("frame 3", "frame 4"), ("frame 4",))
    assert replay.has_gap(0)
    assert not replay.has_gap(3)


@given(
    st.lists(st.tuples(st.sampled_from("ra"), st.integers(0, 30)), max_size=60),
    st.integers(1, 10),
    st.integers(0, 60),
)
def test_replay_holds_the_newest_without_holes(
    program: list[tuple[str, int]], max_messages: int, max_bytes: int
) -> None:
    replay = ReplayBuffer(max_messages, max_bytes)
    for what, number in program:
        if what == "r":
            replay.record(["x" * number, b""])
        else:
            replay.acknowledge(number)
        kept = list(range(replay.first_seq, replay.next_seq))
        assert len(kept) == len(replay) <= max_messages
        assert replay.byte_count == sum(map(len, replay.after(0))) <= max_bytes
        assert all(later == earlier + 1 for earlier, later in pairwise(kept))
