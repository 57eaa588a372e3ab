"""Audio that arrives in bursts and is played evenly: all decisions, no waiting."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

import attrs

from actorflow.errors import AudioFormatMismatchError, InvalidAudioError
from actorflow.model import AudioChunk, AudioFormat, calculate_audio_duration_ms

from ._arguments import check_count, check_milliseconds
from ._telemetry import EventEmitter, Telemetry

_SAMPLE_SIZE: Final = 2
_DROP_STEP_MS: Final = 50


@final
@attrs.frozen
class StreamingBufferStats:
    """What a buffer holds, and what became of every byte that was added to it."""

    duration_ms: float
    bytes_buffered: int
    total_received: int
    total_read: int
    total_dropped: int
    total_cleared: int
    is_ready: bool
    underrun_active: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return attrs.asdict(self)


@final
class StreamingBuffer:
    """PCM_16 audio between something that delivers as it can and something that plays.

    Playing should begin when it `is_ready()`. It never holds more than
    `max_duration_ms`: the oldest audio makes room for the newest. Frames, the
    samples of all channels at one instant, are never torn, however the chunks
    are cut.
    """

    def __init__(
        self,
        *,
        target_duration_ms: float = 200,
        max_duration_ms: float = 2000,
        sample_rate: int = 16000,
        channels: int = 1,
        event_emitter: EventEmitter | None = None,
    ) -> None:
        check_milliseconds("target_duration_ms", target_duration_ms, is_zero_fine=False)
        check_milliseconds("max_duration_ms", max_duration_ms, is_zero_fine=False)
        check_count("sample_rate", sample_rate, least=1)
        check_count("channels", channels, least=1)
        if target_duration_ms > max_duration_ms:
            expected = f"at most max_duration_ms, {max_duration_ms}"
            raise InvalidAudioError("target_duration_ms", target_duration_ms, expected)
        self._max_ms = max_duration_ms
        self._sample_rate = sample_rate
        self._channels = channels
        self._frame = _SAMPLE_SIZE * channels
        # Both in bytes of whole frames: a buffer that is as full as it can be is full
        # and ready, whatever rounding says about its milliseconds.
        self._max_bytes = self._bytes_within(max_duration_ms)
        if self._duration_of(self._max_bytes) > max_duration_ms:
            self._max_bytes -= self._frame
        if self._max_bytes < self._frame:
            raise InvalidAudioError("max_duration_ms", max_duration_ms, "enough for one sample")
        self._target_bytes = min(
            max(self._bytes_within(target_duration_ms), self._frame), self._max_bytes
        )
        self._drop_step = max(self._bytes_within(_DROP_STEP_MS), self._frame)
        self._telemetry = Telemetry(event_emitter)
        # The first piece begins at a frame, less what of it was read already.
        self._pieces: deque[bytes] = deque()
        self._head = 0
        self._buffered = 0
        self._received = self._read = self._dropped = self._cleared = 0
        self._is_underrun = False

    @property
    def duration_ms(self) -> float:
        """How long the audio in the buffer plays."""
        return self._duration_of(self._buffered)

    @property
    def stats(self) -> StreamingBufferStats:
        """The counts as they are now."""
        return StreamingBufferStats(
            duration_ms=self.duration_ms,
            bytes_buffered=self._buffered,
            total_received=self._received,
            total_read=self._read,
            total_dropped=self._dropped,
            total_cleared=self._cleared,
            is_ready=self.is_ready(),
            underrun_active=self._is_underrun,
        )

    def is_ready(self) -> bool:
        """Whether there is enough to begin playing."""
        return self._buffered >= self._target_bytes

    def is_full(self) -> bool:
        """Whether the next frame pushes something out."""
        return self._buffered >= self._max_bytes

    def add_chunk(self, chunk: AudioChunk) -> int:
        """Append a chunk, and return how many bytes were dropped to make room.

        Raises:
          AudioFormatMismatchError: if the chunk has another format, rate or number of channels.
        """
        self._check(chunk)
        data = chunk.data
        self._received += len(data)
        dropped = self._excess(len(data))
        self._dropped += dropped
        from_chunk = max(dropped - self._buffered, 0)
        self._skip(dropped - from_chunk)
        # A slice is a copy, so a huge chunk is not kept alive by its last second.
        # Nothing stands for no bytes, or empty chunks would pile up unseen.
        if kept := data[from_chunk:]:
            self._pieces.append(kept)
            self._buffered += len(kept)
        if dropped:
            self._telemetry.emit(
                "stream.buffer_overflow",
                {
                    "bytes_dropped": dropped,
                    "buffer_duration_ms": self.duration_ms,
                    "max_duration_ms": self._max_ms,
                },
            )
        return dropped

    def read(self, duration_ms: float = 20) -> bytes:
        """Take out audio of this length, or what whole frames there are if that is less.

        Raises:
          InvalidAudioError: for a time that is negative or no number.
        """
        check_milliseconds("duration_ms", duration_ms, is_zero_fine=True)
        requested = self._bytes_within(duration_ms)
        if not requested:
            return b""
        available = self._whole_frames(self._buffered)
        level_ms = self.duration_ms
        taken = self._take(min(requested, available))
        self._read += len(taken)
        if requested > available:
            self._begin_underrun(requested, available, level_ms)
        elif self._is_underrun:
            self._is_underrun = False
            self._telemetry.emit("stream.buffer_recovered", {"buffer_duration_ms": level_ms})
        return taken

    def clear(self) -> int:
        """Throw everything away, and return how many bytes that were."""
        cleared = self._buffered
        self._skip(cleared)
        self._cleared += cleared
        self._is_underrun = False
        return cleared

    def _check(self, chunk: AudioChunk) -> None:
        for name, expected in (
            ("format", AudioFormat.PCM_16),
            ("sample_rate", self._sample_rate),
            ("channels", self._channels),
        ):
            found = getattr(chunk, name)
            if found != expected:
                raise AudioFormatMismatchError(name, found, f"that of the buffer, {expected}")

    def _excess(self, added: int) -> int:
        """How many bytes have to go, from the oldest on, when so many are added.

        Old audio goes in steps, so that one long gap is heard and not many short
        ones. Only whole frames go, or all that stays would be noise.
        """
        excess = self._buffered + added - self._max_bytes
        if excess <= 0:
            return 0
        in_steps = _rounded_up(excess, self._drop_step)
        old = self._whole_frames(self._buffered)
        return min(in_steps, old) if excess <= old else _rounded_up(excess, self._frame)

    def _begin_underrun(self, requested: int, available: int, level_ms: float) -> None:
        if self._is_underrun:
            return
        self._is_underrun = True
        self._telemetry.emit(
            "stream.buffer_underrun",
            {
                "bytes_requested": requested,
                "bytes_available": available,
                "buffer_duration_ms": level_ms,
            },
        )

    def _take(self, count: int) -> bytes:
        taken = []
        while count:
            piece = self._pieces[0][self._head : self._head + count]
            taken.append(piece)
            count -= len(piece)
            self._skip(len(piece))
        return b"".join(taken)

    def _skip(self, count: int) -> None:
        self._buffered -= count
        count += self._head
        while self._pieces and count >= len(self._pieces[0]):
            count -= len(self._pieces.popleft())
        self._head = count

    def _whole_frames(self, count: int) -> int:
        return count - count % self._frame

    def _bytes_within(self, duration_ms: float) -> int:
        """The bytes of as many whole frames as play in that time."""
        return int(duration_ms * self._sample_rate / 1000) * self._frame

    def _duration_of(self, count: int) -> float:
        return calculate_audio_duration_ms(count, self._sample_rate, self._channels, _SAMPLE_SIZE)


def _rounded_up(count: int, step: int) -> int:
    return -(-count // step) * step
