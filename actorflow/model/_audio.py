"""Audio as it flows: a piece of it, what it is encoded as, and what to agree on before."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Never, Self, final

import attrs

from actorflow.errors import InvalidAudioError, InvalidTypeError, WireFormatError

from ._frozen import EMPTY, FrozenDict, as_metadata
from ._value import Value


@final
class AudioFormat(StrEnum):
    """How audio is written as bytes."""

    PCM_16 = "pcm_16"
    PCM_24 = "pcm_24"
    PCM_32 = "pcm_32"
    FLOAT_32 = "float_32"
    MP3 = "mp3"
    OGG_OPUS = "ogg_opus"
    WAV = "wav"
    WEBM = "webm"

    @classmethod
    def _missing_(cls, value: object) -> Never:
        raise InvalidAudioError("format", value, "one of " + ", ".join(cls))

    @property
    def bytes_per_sample(self) -> int | None:
        """Bytes of one sample of one channel; None where that depends on the audio."""
        return _BYTES_PER_SAMPLE.get(self)

    @property
    def is_pcm(self) -> bool:
        """Whether the bytes are samples and nothing else."""
        return self in _BYTES_PER_SAMPLE


_BYTES_PER_SAMPLE: Final[Mapping[str, int]] = {
    AudioFormat.PCM_16: 2,
    AudioFormat.PCM_24: 3,
    AudioFormat.PCM_32: 4,
    AudioFormat.FLOAT_32: 4,
}


def calculate_audio_duration_ms(
    byte_count: int, sample_rate: int = 16000, channels: int = 1, bytes_per_sample: int = 2
) -> float:
    """How long so many bytes of samples play, in milliseconds.

    Raises:
      InvalidAudioError: for a negative count, or a rate, channels or sample size below 1.
    """
    _require_at_least(0, "byte_count", byte_count)
    _require_at_least(1, "sample_rate", sample_rate)
    _require_at_least(1, "channels", channels)
    _require_at_least(1, "bytes_per_sample", bytes_per_sample)
    return _duration_ms(byte_count, sample_rate, channels * bytes_per_sample)


def _duration_ms(byte_count: int, sample_rate: int, frame_size: int) -> float:
    return byte_count / frame_size / sample_rate * 1000


def _require_at_least(least: int, name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidAudioError(name, value, f"a whole number of at least {least}")


# Validators of fields


def _not_negative(_: object, field: attrs.Attribute[int], value: int) -> None:
    _require_at_least(0, field.name, value)


def _positive(_: object, field: attrs.Attribute[int], value: int) -> None:
    _require_at_least(1, field.name, value)


def _duration(_: object, field: attrs.Attribute[float], value: float) -> None:
    if not _is_duration(value):
        raise InvalidAudioError(field.name, value, "a number of milliseconds, not below 0")


def _is_duration(value: object) -> bool:
    # Neither infinite, nor a whole number that no float can hold.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= sys.float_info.max
    )


def _as_bytes(value: bytes | bytearray | memoryview) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise InvalidAudioError("data", value, "bytes, a bytearray or a memoryview")


def _as_metadata(value: Mapping[str, Any]) -> FrozenDict:
    try:
        return as_metadata(value)
    except InvalidTypeError as error:
        raise InvalidAudioError(error.argument, error.found, error.expected) from None


@final
@attrs.frozen
class StreamConfig(Value):
    """What both ends of an audio stream agree on."""

    chunk_size: int = attrs.field(default=4096, validator=_positive)
    """Bytes per chunk."""
    sample_rate: int = attrs.field(default=16000, validator=_positive)
    channels: int = attrs.field(default=1, validator=_positive)
    format: AudioFormat = attrs.field(default=AudioFormat.PCM_16, converter=AudioFormat)
    buffer_duration_ms: float = attrs.field(default=100.0, validator=_duration)


@final
@attrs.frozen(repr=False)
class AudioChunk(Value):
    """A piece of an audio stream."""

    data: bytes = attrs.field(converter=_as_bytes)
    sample_rate: int = attrs.field(default=16000, validator=_positive)
    channels: int = attrs.field(default=1, validator=_positive)
    format: AudioFormat = attrs.field(default=AudioFormat.PCM_16, converter=AudioFormat)
    timestamp_ms: float = attrs.field(default=0.0, validator=_duration)
    """Where the chunk begins in its stream."""
    sequence: int = attrs.field(default=0, validator=_not_negative)
    is_final: bool = False
    metadata: FrozenDict = attrs.field(default=EMPTY, converter=_as_metadata)

    @property
    def duration_ms(self) -> float:
        """How long it plays.

        The bytes of an encoded format do not tell. There it is what
        `metadata["duration_ms"]` says, or 0.0: look at `is_duration_known`.
        """
        size = self.format.bytes_per_sample
        if size is not None:
            return _duration_ms(len(self.data), self.sample_rate, size * self.channels)
        return float(self.metadata["duration_ms"]) if self.is_duration_known else 0.0

    @property
    def is_duration_known(self) -> bool:
        """Whether `duration_ms` is more than a stand-in."""
        return self.format.is_pcm or _is_duration(self.metadata.get("duration_ms"))

    @property
    def samples(self) -> int:
        """How many samples of each channel are complete; 0 for encoded formats."""
        size = self.format.bytes_per_sample
        return 0 if size is None else len(self.data) // (size * self.channels)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, strict: bool = False) -> Self:
        """The chunk that `data` describes, which `to_dict` may have written.

        Raises:
          InvalidAudioError: naming what does not fit.
        """
        try:
            return super().from_dict(data, strict=strict)
        except WireFormatError as error:
            raise InvalidAudioError(error.path or "chunk", error.found, error.expected) from error

    # A log full of base64 helps nobody.
    def __repr__(self) -> str:
        final = ", final" if self.is_final else ""
        return (
            f"<AudioChunk {self.sequence}: {len(self.data)} bytes of {self.format},"
            f" {self.duration_ms:g} ms{final}>"
        )
