from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, final

import attrs

from actorflow.errors import InvalidAudioError

_RATES: Final = range(4_000, 192_001)
_CHANNELS: Final = range(1, 9)


def _within(allowed: range) -> Callable[[Any, attrs.Attribute[int], int], None]:
    def check(_: object, field: attrs.Attribute[int], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            between = f"a whole number from {allowed.start} to {allowed.stop - 1}"
            raise InvalidAudioError(field.name, value, between)

    return check


@final
@attrs.frozen
class AudioShape:
    """What the audio of a session looks like: 16-bit little-endian samples, interleaved.

    Rates and channels are bounded because buffers are measured in milliseconds: a
    client that announces a billion samples a second would otherwise get the memory
    for them.
    """

    sample_rate: int = attrs.field(default=16_000, validator=_within(_RATES))
    channels: int = attrs.field(default=1, validator=_within(_CHANNELS))
    format: Literal["pcm_16"] = attrs.field(default="pcm_16")

    bytes_per_sample: ClassVar[int] = 2

    @format.validator
    def _only_samples(self, field: attrs.Attribute[str], value: object) -> None:
        if value != "pcm_16":
            raise InvalidAudioError(field.name, value, "'pcm_16'")

    @property
    def frame_size(self) -> int:
        """Bytes of one sample of all channels."""
        return self.bytes_per_sample * self.channels

    def duration_ms(self, byte_count: int) -> float:
        """How long so many bytes play."""
        return byte_count * 1000 / (self.frame_size * self.sample_rate)
