"""Audio between tasks: queues that push back, a buffer that smooths, and what they count."""

from __future__ import annotations

from actorflow.model import (
    AudioChunk as AudioChunk,
    AudioFormat as AudioFormat,
    StreamConfig as StreamConfig,
    calculate_audio_duration_ms as calculate_audio_duration_ms,
)

from ._buffer import (
    StreamingBuffer as StreamingBuffer,
    StreamingBufferStats as StreamingBufferStats,
)
from ._logging import encode_audio_for_logging as encode_audio_for_logging
from ._monitor import (
    BackpressureMonitor as BackpressureMonitor,
    BackpressureStats as BackpressureStats,
)
from ._queue import (
    ChunkQueue as ChunkQueue,
    ChunkQueueStatistics as ChunkQueueStatistics,
)
