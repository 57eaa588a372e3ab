from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, final

from actorflow.errors import AudioFormatMismatchError


class RateConverter(Protocol):
    """Changes the sample rate of one stream of 16-bit samples of one channel.

    It may hold samples back, so a call may return less than it was given, or nothing.
    """

    def convert(self, samples: bytes) -> bytes:
        """The next samples, at the other rate."""
        ...

    def flush(self) -> bytes:
        """What was held back. What is converted then begins another stream."""
        ...


Resample: TypeAlias = Callable[[int, int], RateConverter]
"""Makes a converter from one rate to another."""


@final
class _SameRate:
    def convert(self, samples: bytes) -> bytes:
        return samples

    def flush(self) -> bytes:
        return b""


def converter(from_rate: int, to_rate: int, resample: Resample | None) -> RateConverter:
    """What turns samples of one rate into those of another.

    Raises:
      AudioFormatMismatchError: if the rates differ and nothing converts them.
    """
    if from_rate == to_rate:
        return _SameRate()
    if resample is None:
        raise AudioFormatMismatchError("audio", (from_rate,), f"samples of {to_rate} Hz")
    return resample(from_rate, to_rate)
