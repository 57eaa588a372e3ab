"""Audio in log lines."""

from __future__ import annotations

import base64

from ._arguments import check_count


def encode_audio_for_logging(data: bytes, max_bytes: int = 100) -> str:
    """How much audio there is, and at most its first `max_bytes` in base64.

    Raises:
      InvalidAudioError: if `max_bytes` is negative.
    """
    check_count("max_bytes", max_bytes, least=0)
    sample = base64.b64encode(data[:max_bytes]).decode("ascii")
    if len(data) > max_bytes:
        return f"<audio:{len(data)}B,sample:{sample}...>"
    return f"<audio:{len(data)}B,data:{sample}>"
