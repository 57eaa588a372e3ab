"""The buffer between bursts of audio and even playing, as a value machine without a clock."""

from __future__ import annotations

import logging
import math
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from actorflow.audio import AudioChunk, StreamingBuffer
from actorflow.errors import AudioFormatMismatchError, InvalidAudioError
from actorflow.events import validate_event
from actorflow.testing import RecordingEventSink


def pcm(ms: float, rate: int = 16_000, fill: bytes = b"\0") -> AudioChunk:
    return AudioChunk(fill * (int(ms * rate / 1000) * 2), sample_rate=rate)


class Emitted(list[tuple[str, Mapping[str, Any]]]):
    """What a buffer said, each event checked against the catalogue."""

    def __call__(self, type: str, data: dict[str, Any]) -> None:

        assert validate_event(type, data) == []
        self.append((type, data))


def conserves(buffer: StreamingBuffer) -> bool:
    stats = buffer.stats
    return stats.total_received == (
        stats.total_read + stats.total_dropped + stats.total_cleared + stats.bytes_buffered
    )


@pytest.mark.spec("A27")
def test_buffer_is_ready_at_its_target_and_full_at_its_maximum() -> None:
    buffer = StreamingBuffer(target_duration_ms=40, max_duration_ms=60)
    seen = []
    for _ in range(3):
        buffer.add_chunk(pcm(20))
        seen.append((buffer.duration_ms, buffer.is_ready(), buffer.is_full()))

    assert seen == [(20, False, False), (40, True, False), (60, True, True)]


@pytest.mark.spec("A27")
@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("ms", [0.5, 7.3, 1000, 4094])
def test_buffer_that_can_hold_no_more_is_full_and_ready_in_spite_of_rounding(
    rate: int, ms: float
) -> None:
    buffer = StreamingBuffer(target_duration_ms=ms, max_duration_ms=ms, sample_rate=rate)
    buffer.add_chunk(pcm(ms + 100, rate))

    assert buffer.is_full()
    assert buffer.is_ready()
    assert buffer.duration_ms <= ms


@pytest.mark.spec("A27")
def test_empty_buffer_is_never_ready() -> None:
    buffer = StreamingBuffer(target_duration_ms=0.01, max_duration_ms=1)
    assert not buffer.is_ready()

    buffer.add_chunk(AudioChunk(bytes(2)))
    assert buffer.is_ready()


@pytest.mark.spec("A28", "A29")
def test_oldest_audio_makes_room_in_steps() -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(max_duration_ms=200, event_emitter=emitted)
    for fill in (b"a", b"b"):
        buffer.add_chunk(pcm(100, fill=fill))

    assert buffer.add_chunk(pcm(20, fill=b"c")) == 50 * 32
    assert buffer.duration_ms == 170
    assert buffer.read(170) == b"a" * 50 * 32 + b"b" * 100 * 32 + b"c" * 20 * 32
    assert emitted == [
        (
            "stream.buffer_overflow",
            {"bytes_dropped": 1600, "buffer_duration_ms": 170.0, "max_duration_ms": 200},
        )
    ]


@pytest.mark.spec("A28")
def test_whole_buffer_goes_when_less_than_a_step_is_left() -> None:
    buffer = StreamingBuffer(target_duration_ms=10, max_duration_ms=100)
    buffer.add_chunk(pcm(30, fill=b"a"))

    assert buffer.add_chunk(pcm(90, fill=b"b")) == 30 * 32
    assert buffer.read(100) == b"b" * 90 * 32


@pytest.mark.spec("A28")
def test_chunk_that_is_too_long_alone_loses_its_beginning() -> None:
    buffer = StreamingBuffer(target_duration_ms=10, max_duration_ms=100)
    buffer.add_chunk(pcm(20, fill=b"a"))
    long = AudioChunk(b"b" * 32 * 50 + b"c" * 32 * 100)

    assert buffer.add_chunk(long) == (20 + 50) * 32
    assert buffer.duration_ms == 100
    assert buffer.read(100) == b"c" * 32 * 100
    assert conserves(buffer)


@pytest.mark.spec("A29", "A30")
def test_dropped_bytes_are_received_bytes_too() -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(target_duration_ms=10, max_duration_ms=100, event_emitter=emitted)
    assert buffer.add_chunk(pcm(100)) == 0
    assert emitted == []
    buffer.add_chunk(pcm(150))

    assert buffer.stats.total_received == 250 * 32
    assert buffer.stats.total_dropped == 150 * 32
    assert [type for type, _ in emitted] == ["stream.buffer_overflow"]


@pytest.mark.spec("A31")
def test_frame_in_two_chunks_is_read_when_it_is_complete() -> None:
    buffer = StreamingBuffer(channels=2)
    buffer.add_chunk(AudioChunk(b"abcdef", channels=2))

    assert buffer.read() == b"abcd"
    assert buffer.read() == b""
    assert buffer.stats.bytes_buffered == 2
    buffer.add_chunk(AudioChunk(b"gh", channels=2))
    assert buffer.read() == b"efgh"
    assert buffer.stats.total_read == 8


@pytest.mark.spec("A31")
def test_read_takes_no_more_than_was_asked_for() -> None:
    buffer = StreamingBuffer()
    buffer.add_chunk(pcm(50))

    assert len(buffer.read(20)) == 640
    assert len(buffer.read()) == 640
    assert len(buffer.read(1e6)) == 320
    assert buffer.stats.total_read == 1600


@pytest.mark.spec("A32")
def test_underrun_is_said_once_and_so_is_its_end() -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(event_emitter=emitted)
    buffer.add_chunk(pcm(10))
    for _ in range(3):
        buffer.read(20)
    assert buffer.stats.underrun_active
    buffer.add_chunk(pcm(10))
    buffer.read(20)
    buffer.add_chunk(pcm(60))
    buffer.read(20)
    buffer.read(20)

    assert emitted == [
        (
            "stream.buffer_underrun",
            {"bytes_requested": 640, "bytes_available": 320, "buffer_duration_ms": 10.0},
        ),
        ("stream.buffer_recovered", {"buffer_duration_ms": 60.0}),
    ]
    assert not buffer.stats.underrun_active


@pytest.mark.spec("A32")
def test_asking_for_nothing_neither_begins_nor_ends_an_underrun() -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(event_emitter=emitted)

    assert buffer.read(0) == b""
    assert emitted == []
    buffer.read()
    assert buffer.read(0.01) == b""
    assert [type for type, _ in emitted] == ["stream.buffer_underrun"]
    assert buffer.stats.underrun_active


@pytest.mark.spec("A33")
def test_stats_tell_everything_about_the_buffer() -> None:
    buffer = StreamingBuffer(target_duration_ms=20, max_duration_ms=100)
    buffer.add_chunk(pcm(100))
    buffer.add_chunk(pcm(10))
    buffer.read(30)

    assert buffer.stats.to_dict() == {
        "duration_ms": 30.0,
        "bytes_buffered": 960,
        "total_received": 3520,
        "total_read": 960,
        "total_dropped": 1600,
        "total_cleared": 0,
        "is_ready": True,
        "underrun_active": False,
    }


@pytest.mark.spec("A34")
def test_clear_empties_and_ends_an_underrun_without_a_word() -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(event_emitter=emitted)
    buffer.read()
    buffer.add_chunk(pcm(20))
    buffer.add_chunk(AudioChunk(b"x"))

    assert buffer.clear() == 641
    assert buffer.stats.total_cleared == 641
    assert buffer.duration_ms == 0
    assert not buffer.stats.underrun_active
    assert buffer.clear() == 0
    assert [type for type, _ in emitted] == ["stream.buffer_underrun"]


@pytest.mark.spec("A28", "A29", "A30", "A31", "A32", "A34", "A35")
@settings(max_examples=150)
@given(
    channels=st.integers(1, 3),
    rate=st.sampled_from([1000, 8000, 11_025]),
    max_ms=st.floats(1, 150),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 700)),
            st.tuples(st.just("read"), st.floats(0, 200)),
            st.tuples(st.just("clear"), st.just(0)),
        ),
        max_size=30,
    ),
)
def test_no_byte_is_lost_or_torn_or_too_much(
    channels: int, rate: int, max_ms: float, steps: list[tuple[str, float]]
) -> None:
    emitted = Emitted()
    buffer = StreamingBuffer(
        target_duration_ms=1,
        max_duration_ms=max_ms,
        sample_rate=rate,
        channels=channels,
        event_emitter=emitted,
    )
    frame = 2 * channels
    # What should be in the buffer: numbered bytes, so that an order can be seen.
    number = 0
    held: list[int] = []
    was_underrun = False
    for step, amount in steps:
        emitted.clear()
        level_ms = buffer.duration_ms
        if step == "add":
            added = [(number + i) % 251 for i in range(int(amount))]
            number += len(added)
            dropped = buffer.add_chunk(AudioChunk(bytes(added), rate, channels))
            assert dropped % frame == 0
            held = (held + added)[dropped:]
            expected = ["stream.buffer_overflow"] if dropped else []
        elif step == "read":
            asked = int(amount * rate / 1000) * frame
            there = len(held) - len(held) % frame
            got = buffer.read(amount)
            assert len(got) == min(asked, there)
            assert list(got) == held[: len(got)]
            held = held[len(got) :]
            is_underrun = asked > there if asked else was_underrun
            began, ended = is_underrun and not was_underrun, was_underrun and not is_underrun
            expected = ["stream.buffer_underrun"] * began + ["stream.buffer_recovered"] * ended
            was_underrun = is_underrun
            assert all(data["buffer_duration_ms"] == level_ms for _, data in emitted)
        else:
            assert buffer.clear() == len(held)
            held, expected, was_underrun = [], [], False

        assert [type for type, _ in emitted] == expected
        assert buffer.stats.bytes_buffered == len(held)
        assert buffer.stats.underrun_active is was_underrun
        assert buffer.duration_ms <= max_ms
        assert conserves(buffer)


@pytest.mark.spec("A36")
def test_emitter_that_fails_is_logged_once_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(type: str, data: dict[str, Any]) -> None:
        raise RuntimeError(type)

    caplog.set_level(logging.DEBUG, "actorflow.audio")
    buffer = StreamingBuffer(target_duration_ms=10, max_duration_ms=100, event_emitter=broken)
    for _ in range(3):
        buffer.add_chunk(pcm(100))

    assert buffer.stats.total_dropped == 200 * 32
    assert [record.getMessage() for record in caplog.records] == ["audio_event_failed"]
    assert vars(caplog.records[0])["event_type"] == "stream.buffer_overflow"


@pytest.mark.spec("A36")
def test_reading_copies_what_is_read_and_not_what_stays() -> None:
    buffer = StreamingBuffer(max_duration_ms=600_000)
    buffer.add_chunk(pcm(600_000))
    tracemalloc.start()
    try:
        for _ in range(10):
            buffer.read(20)
            buffer.add_chunk(pcm(20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # 19 MB are in the buffer.
    assert peak < 100_000


@pytest.mark.spec("A36")
def test_short_end_of_a_huge_chunk_does_not_keep_the_rest_in_memory() -> None:
    buffer = StreamingBuffer(target_duration_ms=10, max_duration_ms=20)
    tracemalloc.start()
    try:
        buffer.add_chunk(pcm(100_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert buffer.duration_ms == 20
    assert held < 100_000


@pytest.mark.spec("A36")
def test_chunks_without_audio_do_not_pile_up() -> None:
    buffer = StreamingBuffer()
    buffer.add_chunk(pcm(20))
    empty = AudioChunk(b"")
    tracemalloc.start()
    try:
        for _ in range(10_000):
            buffer.add_chunk(empty)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 10_000


@pytest.mark.parametrize(
    ("chunk", "name"),
    [
        (AudioChunk(b"", sample_rate=8000), "sample_rate"),
        (AudioChunk(b"", channels=2), "channels"),
        (AudioChunk(b"", format="mp3"), "format"),
    ],
)
def test_audio_of_another_kind_is_refused(chunk: AudioChunk, name: str) -> None:
    buffer = StreamingBuffer()

    with pytest.raises(AudioFormatMismatchError) as caught:
        buffer.add_chunk(chunk)

    assert caught.value.argument == name
    assert caught.value.found == getattr(chunk, name)
    assert buffer.stats.total_received == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"target_duration_ms": 0},
        {"target_duration_ms": math.nan},
        {"max_duration_ms": math.inf},
        {"target_duration_ms": 2001},
        {"target_duration_ms": 0.01, "max_duration_ms": 0.01},
        {"sample_rate": 0},
        {"channels": 0},
        {"event_emitter": "no function"},
        {"event_emitter": RecordingEventSink().emit},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidAudioError):
        StreamingBuffer(**settings)


@pytest.mark.parametrize("ms", [-1, math.nan, math.inf])
def test_time_that_is_none_cannot_be_read(ms: float) -> None:
    with pytest.raises(InvalidAudioError):
        StreamingBuffer().read(ms)
