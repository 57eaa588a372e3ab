"""Where an utterance begins and ends, and when speech breaks off an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from actorflow.errors import InvalidArgumentError
from actorflow.voice import BargeIn, Endpointing, Utterance
from actorflow.voice._listening import (
    FrameCutter,
    Listener,
    Sign,
    SpeechIgnored,
    SpeechInto,
    SpeechStarted,
)

# Of one frame. A thousand samples a second make a sample a millisecond.
FRAME_MS = 10
RATE = 1000

RULES = Endpointing(
    start_probability=0.6,
    end_probability=0.4,
    min_speech_ms=30,
    silence_ms=50,
    max_utterance_ms=400,
    pre_roll_ms=40,
)


def frame(number: int) -> bytes:
    """A frame that can be told from any other."""
    return number.to_bytes(2, "little") * FRAME_MS


def listen(
    probabilities: list[float],
    *,
    rules: Endpointing = RULES,
    barge_in: BargeIn | None = None,
    answering: range = range(0),
) -> list[tuple[int, Sign]]:
    """What was found out, each with the number of the frame."""
    listener = Listener(RATE, rules, barge_in or BargeIn(min_speech_ms=60))
    return [
        (number, sign)
        for number, probability in enumerate(probabilities)
        for sign in listener.hear(frame(number), probability, is_answering=number in answering)
    ]


def numbers_in(utterance: Utterance) -> list[int]:
    audio = utterance.audio
    size = FRAME_MS * 2
    return [int.from_bytes(audio[at : at + 2], "little") for at in range(0, len(audio), size)]


# Beginnings and ends


@pytest.mark.spec("A121", "A122")
def test_utterance_begins_before_its_speech_and_ends_after_a_pause() -> None:
    signs = listen([0.1] * 10 + [0.9] * 8 + [0.1] * 10)

    started, (end, utterance) = signs
    assert started == (12, SpeechStarted(100.0))
    assert end == 22
    assert isinstance(utterance, Utterance)
    # Four frames of pre-roll, the speech, the pause.
    assert numbers_in(utterance) == list(range(6, 23))
    assert (utterance.started_ms, utterance.duration_ms) == (60, 170)
    assert utterance.ended_by == "silence"


@pytest.mark.spec("A121")
@pytest.mark.parametrize(
    "probabilities",
    [
        pytest.param([0.9, 0.9, 0.1] * 5, id="too short each time"),
        pytest.param([0.59] * 30, id="never quite speech"),
        pytest.param([], id="nothing"),
    ],
)
def test_noise_is_no_utterance(probabilities: list[float]) -> None:
    assert listen(probabilities + [0.0] * 20) == []


@pytest.mark.spec("A121")
def test_in_between_what_was_goes_on() -> None:
    hesitating = [0.9, 0.5, 0.9, 0.5, 0.9]
    speaking = [0.9] * 3 + [0.5] * 20

    # Not silent enough to begin anew ...
    assert listen(hesitating) == [(4, SpeechStarted(20.0))]
    # ... and not enough to have ended.
    assert listen(speaking) == [(2, SpeechStarted(0.0))]


@pytest.mark.spec("A121")
def test_pause_within_an_utterance_is_part_of_it() -> None:
    signs = listen([0.9] * 5 + [0.1] * 4 + [0.9] * 5 + [0.1] * 5)

    assert [type(sign) for _, sign in signs] == [SpeechStarted, Utterance]
    assert signs[-1][0] == 18


@pytest.mark.spec("A121", "A122")
def test_endless_speech_is_cut_without_losing_anything() -> None:
    signs = listen([0.9] * 100)

    utterances = [sign for _, sign in signs if isinstance(sign, Utterance)]
    assert {it.ended_by for it in utterances} == {"limit"}
    assert [it.duration_ms for it in utterances] == [400.0, 400.0]
    assert [number for it in utterances for number in numbers_in(it)] == list(range(80))


@pytest.mark.spec("A121", "A122")
def test_last_word_of_whoever_was_cut_off_is_not_lost() -> None:
    signs = listen([0.9] * 42 + [0.1] * 5 + [0.1] * 60)

    utterances = [sign for _, sign in signs if isinstance(sign, Utterance)]
    assert [it.ended_by for it in utterances] == ["limit", "silence"]
    assert numbers_in(utterances[1]) == list(range(40, 47))


@pytest.mark.spec("A121")
def test_silence_after_a_cut_is_no_utterance() -> None:
    signs = listen([0.9] * 40 + [0.1] * 60)

    assert [type(sign) for _, sign in signs] == [SpeechStarted, Utterance]


@pytest.mark.spec("A121")
def test_without_a_least_length_the_first_frame_of_speech_begins() -> None:
    rules = Endpointing(min_speech_ms=0, pre_roll_ms=0, silence_ms=10)

    signs = listen([0.1, 0.9, 0.1], rules=rules)

    assert [type(sign) for _, sign in signs] == [SpeechStarted, Utterance]
    assert isinstance(signs[1][1], Utterance)
    assert numbers_in(signs[1][1]) == [1, 2]


# The client's word


@pytest.mark.spec("A123")
@pytest.mark.parametrize("frames", [1, 2, 8])
def test_client_that_has_finished_is_believed(frames: int) -> None:
    listener = Listener(RATE, RULES, BargeIn())
    for number in range(frames):
        listener.hear(frame(number), 0.9, is_answering=False)

    (utterance,) = listener.end(is_answering=False)

    assert isinstance(utterance, Utterance)
    assert numbers_in(utterance) == list(range(frames))
    assert utterance.ended_by == "client"
    assert not listener.is_speaking


@pytest.mark.spec("A123")
def test_client_that_has_said_nothing_has_no_utterance() -> None:
    listener = Listener(RATE, RULES, BargeIn())
    listener.hear(frame(0), 0.1, is_answering=False)

    assert listener.end(is_answering=False) == ()
    for number in range(1, 10):
        listener.hear(frame(number), 0.9, is_answering=False)
    (utterance,) = listener.end(is_answering=False)
    # What was before the first end is in no utterance.
    assert isinstance(utterance, Utterance)
    assert numbers_in(utterance) == list(range(1, 10))
    assert utterance.started_ms == 10


@pytest.mark.spec("A125")
def test_what_is_forgotten_is_in_no_utterance() -> None:
    listener = Listener(RATE, RULES, BargeIn())
    for number in range(10):
        listener.hear(frame(number), 0.9, is_answering=False)
    assert listener.is_speaking
    listener.forget()
    assert not listener.is_speaking
    for number in range(10, 20):
        listener.hear(frame(number), 0.9, is_answering=False)

    (utterance,) = listener.end(is_answering=False)

    assert isinstance(utterance, Utterance)
    assert numbers_in(utterance) == list(range(10, 20))


# Barge-in


@pytest.mark.spec("A124")
def test_speech_into_an_answer_breaks_it_off_once() -> None:
    signs = listen([0.9] * 20 + [0.1] * 5, answering=range(25))

    assert [(number, type(sign)) for number, sign in signs] == [
        (2, SpeechStarted),
        (5, SpeechInto),
        (24, Utterance),
    ]


@pytest.mark.spec("A124")
def test_short_speech_into_an_answer_is_ignored() -> None:
    signs = listen([0.9] * 4 + [0.1] * 5, answering=range(9))

    assert [type(sign) for _, sign in signs] == [SpeechStarted, SpeechIgnored]
    assert isinstance(signs[1][1], SpeechIgnored)
    assert numbers_in(signs[1][1].utterance) == list(range(9))


@pytest.mark.spec("A124")
def test_speech_that_outlasts_the_answer_counts() -> None:
    signs = listen([0.9] * 4 + [0.1] * 5, answering=range(6))

    assert [type(sign) for _, sign in signs] == [SpeechStarted, Utterance]


@pytest.mark.spec("A124")
def test_answer_that_begins_into_speech_is_broken_off_too() -> None:
    signs = listen([0.9] * 20, answering=range(15, 20))

    assert [(number, type(sign)) for number, sign in signs] == [
        (2, SpeechStarted),
        (15, SpeechInto),
    ]


@pytest.mark.spec("A124")
def test_where_it_is_not_allowed_nobody_breaks_in() -> None:
    never = BargeIn(is_allowed=False)
    probabilities = [0.9] * 20 + [0.1] * 5

    into = listen(probabilities, barge_in=never, answering=range(25))
    beyond = listen(probabilities, barge_in=never, answering=range(10))

    assert [type(sign) for _, sign in into] == [SpeechStarted, SpeechIgnored]
    assert [type(sign) for _, sign in beyond] == [SpeechStarted, Utterance]


@pytest.mark.spec("A124")
def test_speech_that_is_long_enough_at_once_interrupts_when_it_is_noticed() -> None:
    signs = listen([0.9] * 5, barge_in=BargeIn(min_speech_ms=0), answering=range(5))

    assert [(number, type(sign)) for number, sign in signs] == [
        (2, SpeechStarted),
        (2, SpeechInto),
    ]


# Whatever is heard

probabilities = st.lists(st.floats(0, 1), max_size=200)
rule_sets = st.builds(
    Endpointing,
    start_probability=st.floats(0.5, 1),
    end_probability=st.floats(0.01, 0.5),
    min_speech_ms=st.sampled_from([0, 10, 25, 30, 60]),
    silence_ms=st.sampled_from([1, 10, 35, 80]),
    max_utterance_ms=st.sampled_from([131, 200, 1000]),
    pre_roll_ms=st.sampled_from([0, 5, 10, 70]),
)
barge_ins = st.builds(
    BargeIn, is_allowed=st.booleans(), min_speech_ms=st.sampled_from([0, 10, 45, 200])
)


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, Any]:
    begin, end = sorted(draw(st.tuples(st.integers(0, 200), st.integers(0, 200))))
    return {
        "probabilities": draw(probabilities),
        "rules": draw(rule_sets),
        "barge_in": draw(barge_ins),
        "answering": range(begin, end),
    }


@pytest.mark.spec("A122", "A124")
@given(scenes())
def test_utterances_are_pieces_of_the_audio_in_order(scene: dict[str, Any]) -> None:
    rules = scene["rules"]
    signs = listen(**scene)

    heard = [
        (number, it.utterance if isinstance(it, SpeechIgnored) else it)
        for number, it in signs
        if isinstance(it, Utterance | SpeechIgnored)
    ]
    last = -1
    for number, utterance in heard:
        numbers = numbers_in(utterance)
        assert numbers == list(range(numbers[0], number + 1))
        assert numbers[0] > last
        last = numbers[-1]
        assert utterance.started_ms == numbers[0] * FRAME_MS
        # One frame more than the limit may be needed to notice it.
        assert utterance.duration_ms < rules.max_utterance_ms + FRAME_MS
        assert any(scene["probabilities"][n] >= rules.end_probability for n in numbers)
    # Those that were cut are followed by others that do not begin anew.
    begun = sum(isinstance(it, SpeechStarted) for _, it in signs)
    assert len(heard) <= begun + sum(it.ended_by == "limit" for _, it in heard)


@pytest.mark.spec("A122")
@given(probabilities, rule_sets)
def test_no_long_speech_is_missed(probabilities: list[float], rules: Endpointing) -> None:
    # Whoever speaks for long enough and then stops is heard to the last frame.
    speech = [1.0] * 30
    silence = [0.0] * 120
    listened = listen(
        [*probabilities, *silence, *speech, *silence], rules=rules, barge_in=BargeIn()
    )

    first = len(probabilities) + len(silence)
    said = set(range(first, first + len(speech)))
    found = [numbers_in(it) for _, it in listened if isinstance(it, Utterance)]
    assert said <= {number for numbers in found for number in numbers}


@pytest.mark.spec("A124")
@given(scenes())
def test_answers_are_broken_off_by_enough_speech_only(scene: dict[str, Any]) -> None:
    barge_in = scene["barge_in"]
    started: int | None = None
    for number, sign in listen(**scene):
        if isinstance(sign, SpeechStarted):
            started = number
        elif isinstance(sign, SpeechInto):
            assert barge_in.is_allowed
            assert number in scene["answering"]
            assert started is not None
            spoken = number - sign_begin(scene, started) + 1
            assert spoken * FRAME_MS >= barge_in.min_speech_ms
        elif isinstance(sign, SpeechIgnored):
            assert number in scene["answering"]


def sign_begin(scene: dict[str, Any], started: int) -> int:
    """The first frame of the row that made speech of it."""
    rules, heard = scene["rules"], scene["probabilities"]
    begin = started
    while begin > 0 and heard[begin - 1] >= rules.end_probability:
        begin -= 1
    return begin


# Frames


@pytest.mark.spec("A120")
@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 40))
def test_frames_hold_every_byte_in_order(pieces: list[bytes], size: int) -> None:
    cutter = FrameCutter(size)
    frames = [frame for piece in pieces for frame in cutter.cut(piece)]
    frames += cutter.last()

    whole = b"".join(pieces)
    assert {len(frame) for frame in frames} <= {size}
    assert b"".join(frames).startswith(whole)
    assert len(b"".join(frames)) - len(whole) < size
    assert cutter.last() == []


# Settings that cannot be


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("start_probability", 1.1),
        ("start_probability", float("nan")),
        ("end_probability", -0.1),
        ("end_probability", 0),
        ("end_probability", 0.6),
        ("min_speech_ms", -1),
        ("silence_ms", 0),
        ("silence_ms", float("nan")),
        ("max_utterance_ms", float("inf")),
        ("max_utterance_ms", 400),
        ("pre_roll_ms", -1),
    ],
)
@pytest.mark.spec("A121")
def test_impossible_endpointing_is_refused(rule: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Endpointing(**{rule: value})

    assert caught.value.argument == rule


@pytest.mark.parametrize("rule", ["min_speech_ms", "echo_tail_ms"])
@pytest.mark.spec("A124")
def test_impossible_barge_in_is_refused(rule: str) -> None:
    with pytest.raises(InvalidArgumentError):
        BargeIn(**{rule: -1.0})  # type: ignore[arg-type]


def test_utterance_is_shown_without_its_audio() -> None:
    assert repr(Utterance(bytes(320))).startswith("Utterance(audio=<320 bytes>,")
