"""Mu-law, the eight bits of telephones (ITU-T G.711), to 16-bit samples and back."""

from __future__ import annotations

import sys
from functools import cache
from typing import Final

# Encoding works on the upper 14 bits of a sample; on those it agrees with telephone
# equipment (and `audioop`) for each of the 65,536 samples. The formula that many
# texts give for 16 bits does not.
_BIAS: Final = 0x21
_CLIP: Final = 8159


def _encode_sample(sample: int) -> int:
    magnitude = sample >> 2
    mask = 0xFF
    if magnitude < 0:
        magnitude, mask = -magnitude, 0x7F
    magnitude = min(magnitude, _CLIP) + _BIAS
    segment = (magnitude >> 6).bit_length()
    if segment > 7:
        return 0x7F ^ mask
    return (segment << 4 | (magnitude >> (segment + 1)) & 0x0F) ^ mask


def _decode_sample(code: int) -> int:
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


@cache
def _codes() -> bytes:
    """The code of each sample, in the order in which this machine counts its two bytes."""
    codes = bytearray(65_536)
    for sample in range(-32_768, 32_768):
        place = int.from_bytes(sample.to_bytes(2, "little", signed=True), sys.byteorder)
        codes[place] = _encode_sample(sample)
    return bytes(codes)


@cache
def _samples() -> tuple[bytes, ...]:
    return tuple(_decode_sample(code).to_bytes(2, "little", signed=True) for code in range(256))


def mulaw_from_pcm16(pcm: bytes) -> bytes:
    """Mu-law of little-endian 16-bit samples; half a sample at the end is left out."""
    whole = memoryview(pcm)[: len(pcm) // 2 * 2]
    return bytes(map(_codes().__getitem__, whole.cast("H")))


def pcm16_from_mulaw(codes: bytes) -> bytes:
    """Little-endian 16-bit samples of mu-law."""
    return b"".join(map(_samples().__getitem__, codes))
