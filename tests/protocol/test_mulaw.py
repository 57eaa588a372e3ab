"""Mu-law, against the tables of the recommendation and the standard library's old module."""

from __future__ import annotations

import struct
import warnings

import pytest
from hypothesis import given, strategies as st

from actorflow.protocol import mulaw_from_pcm16, pcm16_from_mulaw

# Decision values of ITU-T G.711, table 2a: character signal and 16-bit sample.
GOLDEN = [(0xFF, 0), (0xFE, 8), (0xF0, 120), (0xEF, 132), (0x80, 32124), (0x00, -32124), (0x7E, -8)]


def pcm(*samples: int) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)


@pytest.mark.parametrize(("code", "sample"), GOLDEN)
def test_codes_stand_for_the_samples_of_the_table(code: int, sample: int) -> None:
    assert pcm16_from_mulaw(bytes([code])) == pcm(sample)
    assert mulaw_from_pcm16(pcm(sample)) == bytes([code])


def test_loudest_samples_are_clipped() -> None:
    assert mulaw_from_pcm16(pcm(32767, -32768)) == b"\x80\x00"


def test_half_a_sample_is_left_out() -> None:
    assert mulaw_from_pcm16(pcm(0) + b"\1") == b"\xff"
    assert mulaw_from_pcm16(b"") == b""


@given(st.binary(max_size=64))
def test_codes_survive_the_way_there_and_back(codes: bytes) -> None:
    # Minus zero is the one code that comes back as another.
    assert mulaw_from_pcm16(pcm16_from_mulaw(codes)) == codes.replace(b"\x7f", b"\xff")


@given(st.integers(-32768, 32767))
def test_samples_keep_their_size_to_within_a_step(sample: int) -> None:
    (back,) = struct.unpack("<h", pcm16_from_mulaw(mulaw_from_pcm16(pcm(sample))))

    # The two lowest bits are not encoded.
    assert abs(back - sample) <= max(abs(sample) / 16, 8) + 3


def test_every_sample_is_encoded_as_by_the_standard_library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="removed in Python 3.13")
    every = pcm(*range(-32768, 32768))

    assert mulaw_from_pcm16(every) == audioop.lin2ulaw(every, 2)
    assert pcm16_from_mulaw(bytes(range(256))) == audioop.ulaw2lin(bytes(range(256)), 2)
