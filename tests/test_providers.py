"""Replies of language models and speech services, as values."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.errors import FrozenValueError, InvalidProviderResponseError
from actorflow.model import AudioChunk, AudioFormat
from actorflow.providers import (
    Completion,
    LLMResponse,
    SpeechDetector,
    SpeechPiece,
    STTResponse,
    Transcription,
    TTSResponse,
)

LLM = LLMResponse(
    content="Hello",
    model="m",
    provider="p",
    input_tokens=3,
    output_tokens=4,
    latency_ms=12.5,
    finish_reason="stop",
    tool_calls=[{"name": "look", "arguments": {"up": [1, 2]}}],
    cached_tokens=2,
    raw_response=object(),
)

jsons = st.dictionaries(
    st.text(max_size=5), st.integers() | st.lists(st.text(max_size=3), max_size=3), max_size=3
)
milliseconds = st.floats(0, 1e9)
llm_responses = st.builds(
    LLMResponse,
    content=st.text(),
    model=st.text(),
    provider=st.text(),
    input_tokens=st.integers(0, 1 << 40),
    output_tokens=st.integers(0, 1 << 40),
    latency_ms=milliseconds,
    finish_reason=st.none() | st.text(),
    tool_calls=st.lists(jsons, max_size=3),
    cached_tokens=st.integers(0, 1 << 40),
    raw_response=st.builds(object),
)
stt_responses = st.builds(
    STTResponse,
    text=st.text(),
    confidence=st.floats(0, 1),
    duration_ms=milliseconds,
    language=st.text(),
    provider=st.text(),
    model=st.text(),
    latency_ms=milliseconds,
    words=st.lists(jsons, max_size=3),
    is_final=st.booleans(),
    raw_response=st.builds(object),
)


@pytest.mark.spec("A40")
@given(llm_responses)
def test_total_is_the_sum_of_the_tokens(response: LLMResponse) -> None:
    assert response.total_tokens == response.input_tokens + response.output_tokens


@pytest.mark.spec("A40")
@given(st.binary())
def test_byte_count_is_that_of_the_audio(audio: bytes) -> None:
    assert TTSResponse(audio).byte_count == len(audio)


@pytest.mark.spec("A41", "A45")
def test_reply_of_a_model_as_json() -> None:
    assert list(LLM.to_dict().items()) == [
        ("content", "Hello"),
        ("model", "m"),
        ("provider", "p"),
        ("input_tokens", 3),
        ("output_tokens", 4),
        ("total_tokens", 7),
        ("latency_ms", 12.5),
        ("finish_reason", "stop"),
        ("tool_calls", [{"name": "look", "arguments": {"up": [1, 2]}}]),
        ("cached_tokens", 2),
    ]


@pytest.mark.spec("A42", "A45")
def test_transcription_as_json_has_every_field_but_the_raw_one() -> None:
    response = STTResponse("hi", words=[{"word": "hi", "start": 0.1}], raw_response=1)
    names = [field.name for field in attrs.fields(STTResponse)]

    assert list(response.to_dict()) == [name for name in names if name != "raw_response"]
    assert response.to_dict()["words"] == [{"word": "hi", "start": 0.1}]
    assert response.to_dict()["language"] == "en"


@pytest.mark.spec("A43")
def test_speech_as_json_is_about_the_audio_and_without_it() -> None:
    response = TTSResponse(b"abcd", characters_processed=2, raw_response=b"abcd")

    assert list(response.to_dict().items()) == [
        ("byte_count", 4),
        ("duration_ms", 0.0),
        ("sample_rate", 16_000),
        ("format", "pcm_16"),
        ("provider", ""),
        ("model", ""),
        ("latency_ms", 0.0),
        ("channels", 1),
        ("characters_processed", 2),
    ]


@pytest.mark.spec("A44")
def test_span_attributes_are_these_and_scalars() -> None:
    silent = attrs.evolve(LLM, finish_reason=None)

    assert silent.to_otel_attributes() == {
        "llm.model": "m",
        "llm.provider": "p",
        "llm.input_tokens": 3,
        "llm.output_tokens": 4,
        "llm.total_tokens": 7,
        "llm.latency_ms": 12.5,
        "llm.finish_reason": "",
        "llm.cached_tokens": 2,
    }
    assert STTResponse("hi", 0.5, 20, "de", "p", "m", 3, (), False).to_otel_attributes() == {
        "stt.provider": "p",
        "stt.model": "m",
        "stt.confidence": 0.5,
        "stt.duration_ms": 20,
        "stt.language": "de",
        "stt.latency_ms": 3,
        "stt.is_final": False,
    }
    assert TTSResponse(b"ab", 20, 8000, "mp3", "p", "m", 3, 1, 7).to_otel_attributes() == {
        "tts.provider": "p",
        "tts.model": "m",
        "tts.duration_ms": 20,
        "tts.sample_rate": 8000,
        "tts.format": "mp3",
        "tts.latency_ms": 3,
        "tts.byte_count": 2,
        "tts.characters_processed": 7,
    }


@pytest.mark.spec("A44", "A45")
@given(llm_responses, stt_responses)
def test_replies_come_back_from_json_as_they_were(llm: LLMResponse, stt: STTResponse) -> None:
    assert LLMResponse.from_dict(json.loads(json.dumps(llm.to_dict()))) == llm
    assert STTResponse.from_dict(json.loads(json.dumps(stt.to_dict()))) == stt
    for value in (*llm.to_otel_attributes().values(), *stt.to_otel_attributes().values()):
        assert type(value) in {str, int, float, bool}


@pytest.mark.spec("A45")
def test_tool_calls_and_words_cannot_be_changed() -> None:
    said: list[Any] = [{"name": "look", "arguments": {}}]
    response = attrs.evolve(LLM, tool_calls=said)
    said[0]["name"] = "leap"

    assert isinstance(response.tool_calls, tuple)
    assert response.tool_calls[0]["name"] == "look"
    with pytest.raises(FrozenValueError):
        response.tool_calls[0]["arguments"]["up"] = 1
    heard = STTResponse("hi", words=[{"word": "hi"}])
    with pytest.raises(FrozenValueError):
        heard.words[0]["word"] = "ho"
    for plain in (response.to_dict()["tool_calls"], heard.to_dict()["words"]):
        assert (type(plain), type(plain[0])) == (list, dict)
    assert type(response.to_dict()["tool_calls"][0]["arguments"]) is dict


@pytest.mark.spec("A45")
def test_format_is_a_string_whatever_it_came_as() -> None:
    response = TTSResponse(b"", format=AudioFormat.OGG_OPUS)

    assert type(response.format) is str
    assert response.format == "ogg_opus"
    assert TTSResponse(b"", format="g722").format == "g722"


def test_what_the_service_sent_is_no_part_of_the_value() -> None:
    assert attrs.evolve(LLM, raw_response="other") == LLM
    assert "object" not in repr(LLM)
    assert "raw_response" not in LLM.to_dict()
    assert pickle.loads(pickle.dumps(attrs.evolve(LLM, raw_response=None))) == LLM


def test_speech_is_shown_without_its_audio() -> None:
    assert "<3 bytes>" in repr(TTSResponse(b"abc"))
    assert "abc" not in repr(TTSResponse(b"abc"))


def test_replies_are_frozen_and_have_no_dict() -> None:
    for response in (LLM, STTResponse(""), TTSResponse(b"")):
        assert not hasattr(response, "__dict__")
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            response.model = "other"  # type: ignore[misc]


BAD_LLM: list[tuple[str, Any]] = [
    ("content", None),
    ("model", 3),
    ("provider", b""),
    ("input_tokens", -1),
    ("output_tokens", 1.5),
    ("cached_tokens", True),
    ("latency_ms", -0.1),
    ("latency_ms", math.nan),
    ("latency_ms", "1"),
    ("latency_ms", False),
    ("finish_reason", 0),
    ("tool_calls", {}),
    ("tool_calls", [{1: 2}]),
]
BAD_STT: list[tuple[str, Any]] = [
    ("text", None),
    ("confidence", 1.1),
    ("confidence", -0.1),
    ("confidence", math.nan),
    ("duration_ms", math.inf),
    ("words", "hi"),
    ("is_final", 1),
]
BAD_TTS: list[tuple[str, Any]] = [
    ("audio", "text"),
    ("audio", bytearray()),
    ("sample_rate", 0),
    ("channels", 0),
    ("format", None),
    ("characters_processed", -1),
]


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        *((LLMResponse, *bad) for bad in BAD_LLM),
        *((STTResponse, *bad) for bad in BAD_STT),
        *((TTSResponse, *bad) for bad in BAD_TTS),
    ],
)
def test_impossible_reply_is_refused_with_its_field(cls: Any, field: str, value: object) -> None:
    # Any: the classes have different constructors.
    required = {LLMResponse: ("content", "model", "provider"), STTResponse: ("text",)}
    fields = dict.fromkeys(required.get(cls, ()), "") if cls is not TTSResponse else {"audio": b""}

    with pytest.raises(InvalidProviderResponseError) as caught:
        cls(**{**fields, field: value})

    assert caught.value.argument == field
    assert caught.value.found is value


@pytest.mark.parametrize(
    ("data", "argument"), [({"content": "", "model": ""}, "provider"), ([], "response")]
)
def test_json_that_is_no_reply_is_refused(data: Any, argument: str) -> None:
    with pytest.raises(InvalidProviderResponseError) as caught:
        LLMResponse.from_dict(data)

    assert caught.value.argument == argument


def test_item_that_is_no_mapping_is_named() -> None:
    calls: Any = [{}, "look"]

    with pytest.raises(InvalidProviderResponseError, match=r"tool_calls\[1\] must be a mapping"):
        attrs.evolve(LLM, tool_calls=calls)


def test_error_shows_the_beginning_of_what_it_found_only() -> None:
    with pytest.raises(InvalidProviderResponseError) as caught:
        TTSResponse("?" * 100_000)  # type: ignore[arg-type]

    assert len(str(caught.value)) < 200


@pytest.mark.spec("A46")
def test_replies_are_what_the_protocols_promise() -> None:
    # mypy checks these assignments.
    completion: Completion = LLM
    transcription: Transcription = STTResponse("hi")
    piece: SpeechPiece = AudioChunk(b"ab")

    assert (completion.content, transcription.text, piece.data) == ("Hello", "hi", b"ab")


class _Loudness:
    sample_rate = 16_000
    frame_size = 4

    def probability(self, frame: bytes) -> float:
        return max(frame) / 255

    def reset(self) -> None:
        """Remember nothing anyway."""


@pytest.mark.spec("A46")
def test_detector_of_speech_is_whatever_has_its_methods() -> None:
    # mypy checks this assignment.
    detector: SpeechDetector = _Loudness()

    assert isinstance(detector, SpeechDetector)
    assert not isinstance(LLM, SpeechDetector)
    assert (detector.probability(bytes(4)), detector.probability(b"\xff" * 4)) == (0, 1)
