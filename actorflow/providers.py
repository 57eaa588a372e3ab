"""What stages ask of language models and speech services, and what those reply.

The protocols say what a stage may call; adapters for services implement them.
The replies are values that an adapter may hand on, with the numbers that
tracing wants.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, final, runtime_checkable

import attrs

from actorflow.errors import ActorflowError, InvalidProviderResponseError
from actorflow.model import FrozenDict, FrozenList, thaw

_Response = TypeVar("_Response", bound=attrs.AttrsInstance)

_NOTHING: Final = FrozenList()


# Fields


def _text(_: object, field: attrs.Attribute[str], value: str) -> None:
    if not isinstance(value, str):
        raise InvalidProviderResponseError(field.name, value, "a string")


def _text_or_none(_: object, field: attrs.Attribute[str | None], value: str | None) -> None:
    if not isinstance(value, str | None):
        raise InvalidProviderResponseError(field.name, value, "a string or None")


def _count(_: object, field: attrs.Attribute[int], value: int) -> None:
    _require_integer(field.name, value, least=0)


def _positive(_: object, field: attrs.Attribute[int], value: int) -> None:
    _require_integer(field.name, value, least=1)


def _require_integer(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidProviderResponseError(name, value, f"a whole number of at least {least}")


def _milliseconds(_: object, field: attrs.Attribute[float], value: float) -> None:
    if not (_is_number(value) and 0 <= value < math.inf):
        expected = "a number of milliseconds, not below 0"
        raise InvalidProviderResponseError(field.name, value, expected)


def _share(_: object, field: attrs.Attribute[float], value: float) -> None:
    if not (_is_number(value) and 0 <= value <= 1):
        raise InvalidProviderResponseError(field.name, value, "a number between 0 and 1")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_bool(_: object, field: attrs.Attribute[bool], value: bool) -> None:
    if not isinstance(value, bool):
        raise InvalidProviderResponseError(field.name, value, "True or False")


def _audio(_: object, field: attrs.Attribute[bytes], value: bytes) -> None:
    if not isinstance(value, bytes):
        raise InvalidProviderResponseError(field.name, value, "bytes")


def _as_tool_calls(value: Iterable[Mapping[str, Any]]) -> tuple[FrozenDict, ...]:
    return _mappings("tool_calls", value)


def _as_words(value: Iterable[Mapping[str, Any]]) -> tuple[FrozenDict, ...]:
    return _mappings("words", value)


def _mappings(name: str, value: Iterable[Mapping[str, Any]]) -> tuple[FrozenDict, ...]:
    if not isinstance(value, (list, tuple)):
        raise InvalidProviderResponseError(name, value, "a list or tuple of mappings")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise InvalidProviderResponseError(f"{name}[{index}]", item, "a mapping")
    try:
        return FrozenList([dict(item) for item in value])
    except ActorflowError as error:
        raise InvalidProviderResponseError(name, value, "made of plain JSON") from error


def _as_format(value: str) -> str:
    # Of an `AudioFormat` this is the value.
    return str(value) if isinstance(value, str) else value


def _from_dict(cls: type[_Response], data: Mapping[str, Any]) -> _Response:
    if not isinstance(data, Mapping):
        raise InvalidProviderResponseError("response", data, "a mapping of its fields")
    given = {}
    for field in attrs.fields(cls):
        if field.name in data:
            given[field.name] = data[field.name]
        elif field.default is attrs.NOTHING:
            raise InvalidProviderResponseError(field.name, attrs.NOTHING, "given")
    return cls(**given)


# Replies


@final
@attrs.frozen
class LLMResponse:
    """What a language model said, and what that took."""

    content: str = attrs.field(validator=_text)
    model: str = attrs.field(validator=_text)
    provider: str = attrs.field(validator=_text)
    input_tokens: int = attrs.field(default=0, validator=_count)
    output_tokens: int = attrs.field(default=0, validator=_count)
    latency_ms: float = attrs.field(default=0.0, validator=_milliseconds)
    finish_reason: str | None = attrs.field(default=None, validator=_text_or_none)
    tool_calls: tuple[FrozenDict, ...] = attrs.field(default=_NOTHING, converter=_as_tool_calls)
    cached_tokens: int = attrs.field(default=0, validator=_count)
    raw_response: Any = attrs.field(default=None, eq=False, repr=False)
    """What the service sent, for who needs more; it stays in this process."""

    @property
    def total_tokens(self) -> int:
        """Tokens of the prompt and of the answer."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, Any]:
        """The reply as JSON, without what the service sent."""
        return {
            "content": self.content,
            "model": self.model,
            "provider": self.provider,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "latency_ms": self.latency_ms,
            "finish_reason": self.finish_reason,
            "tool_calls": thaw(self.tool_calls),
            "cached_tokens": self.cached_tokens,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LLMResponse:
        """The reply that `data` describes, which `to_dict` may have written.

        Raises:
          InvalidProviderResponseError: naming the field that does not fit.
        """
        return _from_dict(cls, data)

    def to_otel_attributes(self) -> dict[str, str | int | float | bool]:
        """The numbers of the reply as span attributes; no text of the conversation."""
        return {
            "llm.model": self.model,
            "llm.provider": self.provider,
            "llm.input_tokens": self.input_tokens,
            "llm.output_tokens": self.output_tokens,
            "llm.total_tokens": self.total_tokens,
            "llm.latency_ms": self.latency_ms,
            "llm.finish_reason": self.finish_reason or "",
            "llm.cached_tokens": self.cached_tokens,
        }


@final
@attrs.frozen
class STTResponse:
    """What a recogniser heard, and how sure it is."""

    text: str = attrs.field(validator=_text)
    confidence: float = attrs.field(default=1.0, validator=_share)
    duration_ms: float = attrs.field(default=0.0, validator=_milliseconds)
    """How long the audio is."""
    language: str = attrs.field(default="en", validator=_text)
    provider: str = attrs.field(default="", validator=_text)
    model: str = attrs.field(default="", validator=_text)
    latency_ms: float = attrs.field(default=0.0, validator=_milliseconds)
    words: tuple[FrozenDict, ...] = attrs.field(default=_NOTHING, converter=_as_words)
    is_final: bool = attrs.field(default=True, validator=_is_bool)
    raw_response: Any = attrs.field(default=None, eq=False, repr=False)
    """What the service sent, for who needs more; it stays in this process."""

    def to_dict(self) -> dict[str, Any]:
        """The reply as JSON, without what the service sent."""
        return {
            "text": self.text,
            "confidence": self.confidence,
            "duration_ms": self.duration_ms,
            "language": self.language,
            "provider": self.provider,
            "model": self.model,
            "latency_ms": self.latency_ms,
            "words": thaw(self.words),
            "is_final": self.is_final,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> STTResponse:
        """The reply that `data` describes, which `to_dict` may have written.

        Raises:
          InvalidProviderResponseError: naming the field that does not fit.
        """
        return _from_dict(cls, data)

    def to_otel_attributes(self) -> dict[str, str | int | float | bool]:
        """The numbers of the reply as span attributes; not what was said."""
        return {
            "stt.provider": self.provider,
            "stt.model": self.model,
            "stt.confidence": self.confidence,
            "stt.duration_ms": self.duration_ms,
            "stt.language": self.language,
            "stt.latency_ms": self.latency_ms,
            "stt.is_final": self.is_final,
        }


@final
@attrs.frozen
class TTSResponse:
    """Speech that a synthesiser made."""

    audio: bytes = attrs.field(validator=_audio, repr=lambda audio: f"<{len(audio)} bytes>")
    duration_ms: float = attrs.field(default=0.0, validator=_milliseconds)
    sample_rate: int = attrs.field(default=16000, validator=_positive)
    format: str = attrs.field(default="pcm_16", converter=_as_format, validator=_text)
    """The value of an `AudioFormat`, or what the service calls its own."""
    provider: str = attrs.field(default="", validator=_text)
    model: str = attrs.field(default="", validator=_text)
    latency_ms: float = attrs.field(default=0.0, validator=_milliseconds)
    channels: int = attrs.field(default=1, validator=_positive)
    characters_processed: int = attrs.field(default=0, validator=_count)
    raw_response: Any = attrs.field(default=None, eq=False, repr=False)
    """What the service sent, for who needs more; it stays in this process."""

    @property
    def byte_count(self) -> int:
        """How much audio there is."""
        return len(self.audio)

    def to_dict(self) -> dict[str, Any]:
        """The reply as JSON, without the audio and what the service sent."""
        return {
            "byte_count": self.byte_count,
            "duration_ms": self.duration_ms,
            "sample_rate": self.sample_rate,
            "format": self.format,
            "provider": self.provider,
            "model": self.model,
            "latency_ms": self.latency_ms,
            "channels": self.channels,
            "characters_processed": self.characters_processed,
        }

    def to_otel_attributes(self) -> dict[str, str | int | float | bool]:
        """The numbers of the reply as span attributes."""
        return {
            "tts.provider": self.provider,
            "tts.model": self.model,
            "tts.duration_ms": self.duration_ms,
            "tts.sample_rate": self.sample_rate,
            "tts.format": self.format,
            "tts.latency_ms": self.latency_ms,
            "tts.byte_count": self.byte_count,
            "tts.characters_processed": self.characters_processed,
        }


# What a stage reads of a reply, whatever class an adapter returns


class Completion(Protocol):
    """An answer of a language model; an `LLMResponse` is one."""

    @property
    def content(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def finish_reason(self) -> str | None: ...


class Transcription(Protocol):
    """What a recogniser heard; an `STTResponse` is one."""

    @property
    def text(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def duration_ms(self) -> float: ...

    @property
    def language(self) -> str: ...


class SpeechPiece(Protocol):
    """A piece of synthesised speech; an `actorflow.model.AudioChunk` is one."""

    @property
    def data(self) -> bytes: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def format(self) -> str: ...


# Services


@runtime_checkable
class LanguageModel(Protocol):
    """Answers prompts. Cancelling a call ends it; nothing is owed to the service."""

    async def complete(
        self, prompt: str, *, messages: Sequence[Mapping[str, Any]] | None = None, **options: Any
    ) -> Completion:
        """Return the whole answer; `messages` is the conversation before the prompt."""
        ...

    def stream(self, prompt: str, **options: Any) -> AsyncIterator[str]:
        """Give the answer piece by piece as it is made."""
        ...


@runtime_checkable
class SpeechToText(Protocol):
    """Writes down what was said."""

    async def transcribe(
        self, audio: bytes, *, language: str = "en", **options: Any
    ) -> Transcription:
        """Return what is said in `audio`, PCM_16 unless the service was told otherwise."""
        ...


@runtime_checkable
class TextToSpeech(Protocol):
    """Speaks."""

    async def synthesize(self, text: str, **options: Any) -> bytes:
        """Return the whole of `text` as audio."""
        ...

    def stream(self, text: str, **options: Any) -> AsyncIterator[SpeechPiece]:
        """Give the audio piece by piece as it is made."""
        ...


@runtime_checkable
class SpeechDetector(Protocol):
    """Tells speech from silence, frame by frame.

    It listens to one speaker and may remember what it heard, so whoever has several
    needs one for each. Called on the event loop, thirty times a second and more:
    a frame has to take a millisecond rather than ten.
    """

    @property
    def sample_rate(self) -> int:
        """Of the frames, in hertz."""
        ...

    @property
    def frame_size(self) -> int:
        """Bytes of one frame: 16-bit samples of one channel."""
        ...

    def probability(self, frame: bytes) -> float:
        """How likely the next frame is speech, from 0 to 1."""
        ...

    def reset(self) -> None:
        """Forget what was heard: what follows does not continue it."""
        ...
