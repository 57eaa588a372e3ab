"""Services that stages call, handed to every stage of a run as `ctx.ports`.

A pipeline may attach any object. These classes name what the shipped stages look
for; what is not there is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, final

import attrs

from actorflow.errors import InvalidArgumentError


@final
@attrs.frozen
class CorePorts:
    """Storage, logs and reports."""

    db: Any = None
    db_lock: Any = None
    call_logger_db: Any = None
    send_status: Any = None
    call_logger: Any = None
    retry_fn: Any = None
    realtime_bus: Any = None


@final
@attrs.frozen
class LLMPorts:
    """Language models and where their tokens go."""

    llm_provider: Any = None
    chat_service: Any = None
    llm_chunk_queue: Any = None
    send_token: Any = None


@final
@attrs.frozen
class AudioPorts:
    """Speech in and out."""

    tts_provider: Any = None
    stt_provider: Any = None
    send_audio_chunk: Any = None
    send_transcript: Any = None
    audio_data: Any = None
    audio_format: Any = None
    tts_text_queue: Any = None
    recording: Any = None


def _read_only(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(extra))


@final
@attrs.frozen
class Ports:
    """Several groups at once, read as if they were one object.

    A name is looked up in `core`, `llm`, `audio` and then `extra`; the first that
    has set it answers.
    """

    core: CorePorts | None = None
    llm: LLMPorts | None = None
    audio: AudioPorts | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_read_only)

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for special names before there are groups to look at.
        if name.startswith("__"):
            raise AttributeError(name)
        groups = (self.core, self.llm, self.audio)
        for group in groups:
            if (port := getattr(group, name, None)) is not None:
                return port
        if name in self.extra:
            return self.extra[name]
        if any(hasattr(group, name) for group in groups):
            return None
        found = ", ".join(self._names_that_are_set()) or "nothing"
        raise AttributeError(f"there is no port {name!r}, set are: {found}")

    def _names_that_are_set(self) -> list[str]:
        groups = (group for group in (self.core, self.llm, self.audio) if group is not None)
        of_groups = [
            field.name
            for group in groups
            for field in attrs.fields(type(group))
            if getattr(group, field.name) is not None
        ]
        return [*of_groups, *self.extra]


def create_core_ports(**ports: Any) -> CorePorts:
    """Make `CorePorts`, every argument by name."""
    return CorePorts(**ports)


def create_llm_ports(**ports: Any) -> LLMPorts:
    """Make `LLMPorts`, every argument by name."""
    return LLMPorts(**ports)


_AUDIO_ALIASES: Final = {
    "tts_client": "tts_provider",
    "stt_client": "stt_provider",
    "audio_callback": "send_audio_chunk",
}


def create_audio_ports(**ports: Any) -> AudioPorts:
    """Make `AudioPorts`; `tts_client`, `stt_client` and `audio_callback` are other names.

    Raises:
      InvalidArgumentError: if a port is given under both of its names.
    """
    for alias, name in _AUDIO_ALIASES.items():
        if alias in ports:
            if name in ports:
                raise InvalidArgumentError(alias, ports[alias], f"left out when {name} is given")
            ports[name] = ports.pop(alias)
    return AudioPorts(**ports)
