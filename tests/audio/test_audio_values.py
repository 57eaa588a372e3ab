"""Chunks, formats and what can be said about them."""

from __future__ import annotations

import base64
import json
import math
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.audio import (
    AudioChunk,
    AudioFormat,
    StreamConfig,
    calculate_audio_duration_ms,
    encode_audio_for_logging,
)
from actorflow.errors import FrozenValueError, InvalidAudioError

ENCODED = [AudioFormat.MP3, AudioFormat.OGG_OPUS, AudioFormat.WAV, AudioFormat.WEBM]
WIDTHS = {
    AudioFormat.PCM_16: 2,
    AudioFormat.PCM_24: 3,
    AudioFormat.PCM_32: 4,
    AudioFormat.FLOAT_32: 4,
}

chunks = st.builds(
    AudioChunk,
    data=st.binary(max_size=50),
    sample_rate=st.integers(1, 96_000),
    channels=st.integers(1, 8),
    format=st.sampled_from(AudioFormat),
    timestamp_ms=st.floats(0, 1e9),
    sequence=st.integers(0, 1 << 40),
    is_final=st.booleans(),
    metadata=st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False)),
)


@pytest.mark.spec("A1")
@pytest.mark.parametrize("format", WIDTHS)
def test_pcm_plays_as_long_as_its_bytes_say(format: AudioFormat) -> None:
    frames = bytes(WIDTHS[format] * 2 * 882)
    chunk = AudioChunk(frames, sample_rate=44_100, channels=2, format=format)

    assert chunk.duration_ms == pytest.approx(20.0)
    assert chunk.samples == 882
    assert chunk.is_duration_known
    assert (format.is_pcm, format.bytes_per_sample) == (True, WIDTHS[format])


@pytest.mark.spec("A1")
def test_sample_that_is_not_complete_counts_for_time_only() -> None:
    chunk = AudioChunk(bytes(5), sample_rate=1000)

    assert chunk.samples == 2
    assert chunk.duration_ms == pytest.approx(2.5)


@pytest.mark.spec("A2")
@pytest.mark.parametrize("format", ENCODED)
def test_encoded_audio_plays_as_long_as_its_metadata_says(format: AudioFormat) -> None:
    known = AudioChunk(b"x", format=format, metadata={"duration_ms": 40})
    unknown = AudioChunk(bytes(32_000), format=format)

    assert (known.duration_ms, known.is_duration_known) == (40.0, True)
    assert (unknown.duration_ms, unknown.is_duration_known) == (0.0, False)
    assert unknown.samples == 0
    assert (format.is_pcm, format.bytes_per_sample) == (False, None)


@pytest.mark.spec("A2")
@pytest.mark.parametrize("said", ["40", None, True, -1, math.nan, math.inf, 10**400])
def test_duration_that_is_no_number_of_milliseconds_is_not_believed(said: object) -> None:
    chunk = AudioChunk(b"x", format="mp3", metadata={"duration_ms": said})

    assert (chunk.duration_ms, chunk.is_duration_known) == (0.0, False)


@pytest.mark.spec("A3")
def test_chunk_as_json_has_its_fields_and_the_data_in_base64() -> None:
    chunk = AudioChunk(b"\x00\xff", 8000, 2, "pcm_24", 20, 1, True, {"mic": 3})

    assert list(chunk.to_dict().items()) == [
        ("data", "AP8="),
        ("sample_rate", 8000),
        ("channels", 2),
        ("format", "pcm_24"),
        ("timestamp_ms", 20),
        ("sequence", 1),
        ("is_final", True),
        ("metadata", {"mic": 3}),
    ]


@pytest.mark.spec("A4")
def test_data_is_all_that_json_must_have() -> None:
    chunk = AudioChunk.from_dict({"data": base64.b64encode(b"abcd").decode()})

    assert chunk == AudioChunk(b"abcd")
    assert attrs.asdict(AudioChunk(b"")) == {
        "data": b"",
        "sample_rate": 16_000,
        "channels": 1,
        "format": AudioFormat.PCM_16,
        "timestamp_ms": 0.0,
        "sequence": 0,
        "is_final": False,
        "metadata": {},
    }


@pytest.mark.spec("A4")
@given(chunks)
def test_chunk_comes_back_from_json_as_it_was(chunk: AudioChunk) -> None:
    assert AudioChunk.from_dict(json.loads(json.dumps(chunk.to_dict()))) == chunk
    assert pickle.loads(pickle.dumps(chunk)) == chunk


@pytest.mark.spec("A5")
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_data_is_stored_as_bytes_whatever_it_came_in(kind: Any) -> None:
    # Any: the two have no constructor in common.
    came = kind(bytearray(b"ab"))
    chunk = AudioChunk(came)
    came[0] = 0

    assert type(chunk.data) is bytes
    assert chunk.data == b"ab"


@pytest.mark.spec("A5")
def test_bytes_are_not_copied_and_metadata_cannot_be_changed() -> None:
    data = b"abc"
    chunk = AudioChunk(data, metadata={"tags": ["a"]})

    assert chunk.data is data
    with pytest.raises(FrozenValueError):
        chunk.metadata["more"] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        chunk.sequence = 2  # type: ignore[misc]


@pytest.mark.spec("A6")
def test_chunk_is_shown_without_its_audio() -> None:
    chunk = AudioChunk(b"secret" * 100, sequence=7, is_final=True)

    assert repr(chunk) == "<AudioChunk 7: 600 bytes of pcm_16, 18.75 ms, final>"
    assert "secret" not in f"{chunk}{[chunk]}"
    assert repr(AudioChunk(b"")) == "<AudioChunk 0: 0 bytes of pcm_16, 0 ms>"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", "text"),
        ("data", None),
        ("sample_rate", 0),
        ("sample_rate", 16e3),
        ("channels", 0),
        ("channels", True),
        ("sequence", -1),
        ("timestamp_ms", -0.1),
        ("timestamp_ms", math.nan),
        ("format", "aiff"),
        ("metadata", 3),
    ],
)
def test_chunk_that_cannot_be_is_refused_with_field_and_value(field: str, value: object) -> None:
    fields: dict[str, Any] = {"data": b"", field: value}

    with pytest.raises(InvalidAudioError) as caught:
        AudioChunk(**fields)

    assert caught.value.argument == field
    assert caught.value.found is value


@pytest.mark.parametrize(
    ("data", "argument"),
    [
        ({}, "data"),
        ({"data": "no base64"}, "data"),
        ({"data": "", "format": "aiff"}, "format"),
        ({"data": "", "sample_rate": 0}, "sample_rate"),
        (None, "chunk"),
    ],
)
def test_json_that_is_no_chunk_is_refused_with_the_field(data: Any, argument: str) -> None:
    # Any: it is the point that it may be anything.
    with pytest.raises(InvalidAudioError) as caught:
        AudioChunk.from_dict(data)

    assert caught.value.argument == argument


def test_error_shows_the_beginning_of_what_it_found_only() -> None:
    with pytest.raises(InvalidAudioError) as caught:
        AudioChunk.from_dict({"data": "?" * 100_000})

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("field", ["chunk_size", "sample_rate", "channels", "buffer_duration_ms"])
def test_stream_is_agreed_on_with_possible_values_only(field: str) -> None:
    impossible: dict[str, Any] = {field: -1}

    with pytest.raises(InvalidAudioError):
        StreamConfig(**impossible)


def test_stream_has_defaults_and_comes_back_from_json() -> None:
    config = StreamConfig(format="float_32", channels=2)

    assert StreamConfig() == StreamConfig(4096, 16_000, 1, AudioFormat.PCM_16, 100)
    assert StreamConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# Utilities


@pytest.mark.spec("A37")
@pytest.mark.parametrize(
    ("data", "max_bytes", "shown"),
    [
        (b"abc", 100, "<audio:3B,data:YWJj>"),
        (b"abc", 3, "<audio:3B,data:YWJj>"),
        (b"abcd", 3, "<audio:4B,sample:YWJj...>"),
        (b"abcd", 0, "<audio:4B,sample:...>"),
    ],
)
def test_log_line_has_the_size_and_a_sample(data: bytes, max_bytes: int, shown: str) -> None:
    assert encode_audio_for_logging(data, max_bytes) == shown


@pytest.mark.spec("A38")
@given(
    count=st.integers(0, 1 << 40),
    rate=st.integers(1, 200_000),
    channels=st.integers(1, 16),
    size=st.integers(1, 8),
)
def test_duration_follows_from_the_bytes(count: int, rate: int, channels: int, size: int) -> None:
    duration_ms = calculate_audio_duration_ms(count, rate, channels, size)

    assert duration_ms == count / (size * channels) / rate * 1000
    assert calculate_audio_duration_ms(32_000) == 1000.0


@pytest.mark.spec("A39")
def test_no_audio_has_no_duration_and_an_empty_log_line() -> None:
    assert encode_audio_for_logging(b"") == "<audio:0B,data:>"
    assert calculate_audio_duration_ms(0) == 0.0


@pytest.mark.spec("A39")
@pytest.mark.parametrize("arguments", [(-1,), (0, 0), (0, 1, 0), (0, 1, 1, 0), (1.5,)])
def test_duration_of_the_impossible_is_refused(arguments: Any) -> None:
    # Any: it is the point that it may be anything.
    with pytest.raises(InvalidAudioError):
        calculate_audio_duration_ms(*arguments)


@pytest.mark.spec("A39")
def test_negative_sample_of_a_log_line_is_refused() -> None:
    with pytest.raises(InvalidAudioError, match="max_bytes"):
        encode_audio_for_logging(b"", -1)
