"""Stand-ins for services: they answer, wait and fail as they are told to, the same each time.

Everything that depends on chance is decided when a call begins, before it
waits. So calls that run side by side get their answers in the order they were
made, however the scheduler mixes them afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar, final

import attrs
import trio

from actorflow import clock
from actorflow.errors import MockAuthError, MockConfigError, MockProviderError
from actorflow.model import FrozenDict, calculate_audio_duration_ms, freeze, thaw
from actorflow.providers import LLMResponse, STTResponse

T = TypeVar("T")

_TOKEN_CHARACTERS: Final = 4
_TOKEN_PAUSE: Final = 0.01
_SHOWN_OF_A_TOKEN: Final = 20


# What all of them have in common


@attrs.frozen
class _Call:
    """What was decided when a call began."""

    delay: float
    fails: bool


class _Mock:
    """Counts calls, remembers the latest of them, and decides how each will go."""

    def __init__(
        self,
        *,
        latency_ms: float = 0.0,
        latency_jitter_ms: float = 0.0,
        fail_rate: float,
        max_history: int,
        seed: int | None,
        rng: random.Random | None,
    ) -> None:
        _check_not_negative("latency_ms", latency_ms)
        _check_not_negative("latency_jitter_ms", latency_jitter_ms)
        if not 0 <= fail_rate <= 1:
            raise MockConfigError("fail_rate", fail_rate, "a probability between 0 and 1")
        _check_at_least_one("max_history", max_history)
        if seed is not None and rng is not None:
            raise MockConfigError("rng", rng, "left out where there is a seed")
        self._latency_ms = latency_ms
        self._jitter_ms = latency_jitter_ms
        self._fail_rate = fail_rate
        # A test wants chance that repeats itself.
        self._rng = rng or random.Random(seed or 0)  # noqa: S311
        self._first_state = self._rng.getstate()
        self._count = 0
        self._history: deque[dict[str, Any]] = deque(maxlen=max_history)

    def reset(self) -> None:
        """Forget the calls and begin from the seed again."""
        self._rng.setstate(self._first_state)
        self._count = 0
        self._history.clear()

    def _begin(self, **record: Any) -> _Call:
        self._count += 1
        self._history.append({**deepcopy(record), "timestamp": clock.now().isoformat()})
        delay_ms = self._latency_ms
        if self._jitter_ms > 0:
            delay_ms += self._rng.uniform(-self._jitter_ms, self._jitter_ms)
        return _Call(max(delay_ms, 0.0) / 1000, self._draw_failure())

    def _draw_failure(self) -> bool:
        if 0 < self._fail_rate < 1:
            return self._rng.random() < self._fail_rate
        return self._fail_rate == 1


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise MockConfigError(name, value, "0 or more")


def _check_at_least_one(name: str, value: float) -> None:
    if not value >= 1:
        raise MockConfigError(name, value, "at least 1")


def _cycle_of(name: str, given: Sequence[T] | None, default: T) -> tuple[T, ...]:
    cycle = (default,) if given is None else tuple(given)
    if not cycle:
        raise MockConfigError(name, given, "at least one answer, or left out")
    return cycle


@final
class _Pieces(AsyncIterator[T], Generic[T]):
    """What a stream gives: an answer that is asked for once, in pieces with pauses between.

    A class and not an async generator, because nobody would clean up one of those
    that is left half read.
    """

    def __init__(self, answer: Callable[[], Awaitable[Iterable[T]]], pause: float) -> None:
        self._answer = answer
        self._pause = pause
        self._pieces: deque[T] | None = None

    async def __anext__(self) -> T:
        if self._pieces is None:
            self._pieces = deque(await self._answer())
        elif self._pieces:
            await trio.sleep(self._pause)
        else:
            await trio.lowlevel.checkpoint()
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.popleft()

    async def aclose(self) -> None:
        """Give nothing more."""
        self._pieces = deque()
        await trio.lowlevel.checkpoint()


# Language model


def _as_tool_calls(
    value: Sequence[Mapping[str, Any]] | None,
) -> tuple[Mapping[str, Any], ...] | None:
    return None if value is None else freeze(list(value))  # a FrozenList is a tuple


@final
@attrs.frozen(kw_only=True)
class MockCompletion:
    """An answer of a mock language model; one given to it sets content and tool calls."""

    id: str = "mock-00000000"
    content: str
    role: str = "assistant"
    model: str = "mock-model"
    finish_reason: str | None = "stop"
    usage: Mapping[str, int] = attrs.field(factory=FrozenDict, converter=freeze)
    tool_calls: tuple[Mapping[str, Any], ...] | None = attrs.field(
        default=None, converter=_as_tool_calls
    )
    created: datetime = attrs.field(factory=clock.now, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """The answer in the shape of a chat completion."""
        message = {
            "role": self.role,
            "content": self.content,
            "tool_calls": thaw(self.tool_calls),
        }
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": int(self.created.timestamp()),
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
            "usage": thaw(self.usage),
        }

    def to_response(self) -> LLMResponse:
        """The answer as a real adapter would give it."""
        return LLMResponse(
            self.content,
            self.model,
            "mock",
            input_tokens=self.usage.get("prompt_tokens", 0),
            output_tokens=self.usage.get("completion_tokens", 0),
            finish_reason=self.finish_reason,
            tool_calls=self.tool_calls or (),
            raw_response=self,
        )


Scripted = str | MockCompletion | Exception
"""What a mock language model can be told to answer: a text, a completion, or an error."""


def _count_tokens(text: str) -> int:
    return len(text) // _TOKEN_CHARACTERS


@final
class MockLLMProvider(_Mock):
    """A language model that says what it was told to.

    The answer is that of the first pattern found in the prompt, else the prompt
    itself with `echo`, else the next of `responses`, over and over.
    """

    def __init__(
        self,
        *,
        responses: Sequence[Scripted] | None = None,
        patterns: Mapping[str, Scripted] | None = None,
        echo: bool = False,
        latency_ms: float = 0,
        latency_jitter_ms: float = 0,
        fail_rate: float = 0.0,
        fail_error: str = "Mock LLM error",
        token_counter: Callable[[str], int] | None = None,
        max_history: int = 10_000,
        seed: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            latency_ms=latency_ms,
            latency_jitter_ms=latency_jitter_ms,
            fail_rate=fail_rate,
            max_history=max_history,
            seed=seed,
            rng=rng,
        )
        self._responses = _cycle_of("responses", responses, "Mock response")
        self._patterns = [(_compiled(it), answer) for it, answer in (patterns or {}).items()]
        self._echo = echo
        self._fail_error = fail_error
        self._count_tokens = token_counter or _count_tokens
        self._next = 0

    @property
    def call_count(self) -> int:
        """How many calls there were, streams and failures included."""
        return self._count

    @property
    def call_history(self) -> list[dict[str, Any]]:
        """The latest calls, oldest first: `prompt`, `messages` and `timestamp`."""
        return list(self._history)

    def reset(self) -> None:
        """Forget the calls, and begin from the seed and the first response again."""
        super().reset()
        self._next = 0

    async def complete(
        self,
        prompt: str,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        model: str = "mock-model",
        **options: Any,
    ) -> MockCompletion:
        """Answer a prompt.

        Raises:
          MockProviderError: for a simulated failure.
        """
        return await self._decided(prompt, messages, model)()

    def stream(
        self,
        prompt: str,
        *,
        chunk_size: int = 5,
        messages: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> _Pieces[str]:
        """Answer a prompt in pieces of `chunk_size` characters, 10 ms apart."""
        _check_at_least_one("chunk_size", chunk_size)
        answer = self._decided(prompt, messages, "mock-model")

        async def pieces() -> list[str]:
            return _cut((await answer()).content, chunk_size)

        return _Pieces(pieces, _TOKEN_PAUSE)

    def _decided(
        self, prompt: str, messages: Sequence[Mapping[str, Any]] | None, model: str
    ) -> Callable[[], Awaitable[MockCompletion]]:
        """Begin a call; what is returned carries it out."""
        call = self._begin(prompt=prompt, messages=messages)
        scripted = MockProviderError(self._fail_error) if call.fails else self._choose(prompt)
        id = f"mock-{self._rng.getrandbits(32):08x}"

        async def answer() -> MockCompletion:
            await trio.sleep(call.delay)
            if isinstance(scripted, Exception):
                raise scripted
            told = MockCompletion(content=scripted) if isinstance(scripted, str) else scripted
            return attrs.evolve(
                told,
                id=id,
                model=model,
                usage=self._usage(prompt, told.content),
                created=clock.now(),
            )

        return answer

    def _choose(self, prompt: str) -> Scripted:
        for pattern, scripted in self._patterns:
            if pattern.search(prompt):
                return scripted
        if self._echo:
            return f"Echo: {prompt}"
        scripted = self._responses[self._next % len(self._responses)]
        self._next += 1
        return scripted

    def _usage(self, prompt: str, content: str) -> dict[str, int]:
        asked, answered = self._count_tokens(prompt), self._count_tokens(content)
        return {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        }


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise MockConfigError("patterns", pattern, f"regular expressions ({error})") from None


_Sliceable = TypeVar("_Sliceable", str, bytes)


def _cut(whole: _Sliceable, size: int) -> list[_Sliceable]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


# Speech to text


@final
@attrs.frozen
class MockTranscription:
    """What a mock recogniser heard."""

    text: str
    confidence: float
    duration_ms: float
    language: str
    words: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {
            "text": self.text,
            "confidence": self.confidence,
            "duration_ms": self.duration_ms,
            "language": self.language,
            "words": thaw(self.words),
        }

    def to_response(self) -> STTResponse:
        """What was heard, as a real adapter would give it."""
        return STTResponse(
            self.text,
            self.confidence,
            self.duration_ms,
            self.language,
            "mock",
            "mock-stt",
            words=self.words,
            raw_response=self,
        )


@final
class MockSTTProvider(_Mock):
    """A recogniser that hears what it was told to: per audio, else one text after the other."""

    def __init__(
        self,
        *,
        transcriptions: Sequence[str] | None = None,
        audio_map: Mapping[str, str] | None = None,
        latency_ms: float = 100,
        latency_jitter_ms: float = 20,
        fail_rate: float = 0.0,
        simulate_confidence: bool = True,
        max_history: int = 10_000,
        seed: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            latency_ms=latency_ms,
            latency_jitter_ms=latency_jitter_ms,
            fail_rate=fail_rate,
            max_history=max_history,
            seed=seed,
            rng=rng,
        )
        self._transcriptions = _cycle_of("transcriptions", transcriptions, "Mock transcription")
        self._audio_map = dict(audio_map or {})
        self._simulate_confidence = simulate_confidence
        self._next = 0

    @staticmethod
    def audio_key(audio: bytes) -> str:
        """The key of `audio` in an `audio_map`."""
        return hashlib.md5(audio, usedforsecurity=False).hexdigest()[:16]

    @property
    def call_count(self) -> int:
        """How many calls there were, failures included."""
        return self._count

    @property
    def call_history(self) -> list[dict[str, Any]]:
        """The latest calls, oldest first: `audio_bytes`, `language` and `timestamp`."""
        return list(self._history)

    def reset(self) -> None:
        """Forget the calls, and begin from the seed and the first transcription again."""
        super().reset()
        self._next = 0

    async def transcribe(
        self, audio: bytes, *, language: str = "en", **options: Any
    ) -> MockTranscription:
        """Write down what is said in `audio`.

        Raises:
          MockProviderError: for a simulated failure.
        """
        call = self._begin(audio_bytes=len(audio), language=language)
        text = None if call.fails else self._hear(audio)
        confidence = self._rng.uniform(0.85, 0.99) if self._simulate_confidence else 0.95
        await trio.sleep(call.delay)
        if text is None:
            raise MockProviderError("Mock STT error")
        return MockTranscription(
            text, confidence, calculate_audio_duration_ms(len(audio)), language
        )

    def _hear(self, audio: bytes) -> str:
        mapped = self._audio_map.get(self.audio_key(audio))
        if mapped is not None:
            return mapped
        text = self._transcriptions[self._next % len(self._transcriptions)]
        self._next += 1
        return text


# Text to speech


@final
@attrs.frozen
class MockAudioChunk:
    """A piece of mock speech."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    sample_rate: int
    channels: int = 1
    format: str = "pcm_16"


@final
class MockTTSProvider(_Mock):
    """A voice whose audio follows from the text: the same text, the same bytes, everywhere."""

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        latency_ms: float = 50,
        bytes_per_char: int = 100,
        fail_rate: float = 0.0,
        max_history: int = 10_000,
        seed: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            latency_ms=latency_ms, fail_rate=fail_rate, max_history=max_history, seed=seed, rng=rng
        )
        _check_at_least_one("sample_rate", sample_rate)
        _check_at_least_one("bytes_per_char", bytes_per_char)
        self._sample_rate = sample_rate
        self._bytes_per_char = bytes_per_char

    @property
    def call_count(self) -> int:
        """How many calls there were, streams and failures included."""
        return self._count

    @property
    def call_history(self) -> list[dict[str, Any]]:
        """The latest calls, oldest first: `text` and `timestamp`."""
        return list(self._history)

    async def synthesize(self, text: str, **options: Any) -> bytes:
        """Speak a text.

        Raises:
          MockProviderError: for a simulated failure.
        """
        return await self._decided(text)()

    def stream(
        self, text: str, *, chunk_duration_ms: float = 100, **options: Any
    ) -> _Pieces[MockAudioChunk]:
        """Speak a text in pieces, each coming when the one before has been played."""
        _check_at_least_one("chunk_duration_ms", chunk_duration_ms)
        answer = self._decided(text)
        # A sample rate so low that a piece had no whole sample would never get anywhere.
        size = max(int(self._sample_rate * 2 / 1000 * chunk_duration_ms) // 2 * 2, 2)

        async def pieces() -> list[MockAudioChunk]:
            return [MockAudioChunk(it, self._sample_rate) for it in _cut(await answer(), size)]

        return _Pieces(pieces, chunk_duration_ms / 1000)

    def _decided(self, text: str) -> Callable[[], Awaitable[bytes]]:
        """Begin a call; what is returned carries it out."""
        call = self._begin(text=text)

        async def answer() -> bytes:
            await trio.sleep(call.delay)
            if call.fails:
                raise MockProviderError("Mock TTS error")
            return self._speak(text)

        return answer

    def _speak(self, text: str) -> bytes:
        digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
        size = len(text) * self._bytes_per_char
        # The formula repeats itself every 256 bytes.
        period = bytes(digest[i % 16] ^ i for i in range(256))
        return (period * (size // 256 + 1))[:size]


# Auth


def _in_an_hour() -> datetime:
    return clock.now() + timedelta(hours=1)


def _as_roles(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@final
@attrs.frozen
class MockJWTClaims:
    """What a mock token says about its bearer."""

    sub: str
    aud: str = "actorflow"
    iss: str = "mock-auth"
    exp: datetime = attrs.field(factory=_in_an_hour)
    iat: datetime = attrs.field(factory=clock.now)
    roles: tuple[str, ...] = attrs.field(default=(), converter=_as_roles)
    org_id: str | None = None
    custom: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=freeze)

    def to_dict(self) -> dict[str, Any]:
        """The claims as a token carries them, the custom ones among the others."""
        return {
            "sub": self.sub,
            "aud": self.aud,
            "iss": self.iss,
            "exp": int(self.exp.timestamp()),
            "iat": int(self.iat.timestamp()),
            "roles": list(self.roles),
            "org_id": self.org_id,
            **thaw(self.custom),
        }


@final
class MockAuthProvider(_Mock):
    """Knows the tokens it was given and the ones it made, and when they expire."""

    def __init__(
        self,
        *,
        valid_tokens: Mapping[str, MockJWTClaims] | None = None,
        default_claims: MockJWTClaims | None = None,
        accept_any: bool = False,
        fail_rate: float = 0.0,
        max_history: int = 10_000,
        seed: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(fail_rate=fail_rate, max_history=max_history, seed=seed, rng=rng)
        self._valid = dict(valid_tokens or {})
        self._default_claims = default_claims or MockJWTClaims("mock-user")
        self._accept_any = accept_any

    @property
    def validation_count(self) -> int:
        """How many validations there were, failures included."""
        return self._count

    @property
    def validation_history(self) -> list[dict[str, Any]]:
        """The latest validations, oldest first: `token`, cut short, and `timestamp`."""
        return list(self._history)

    async def validate(self, token: str, *, audience: str | None = None) -> MockJWTClaims:
        """Return what a token says.

        Raises:
          MockAuthError: if the token is not known, not for this audience or expired, or
            for a simulated failure.
        """
        is_long = len(token) > _SHOWN_OF_A_TOKEN
        call = self._begin(token=token[:_SHOWN_OF_A_TOKEN] + "..." if is_long else token)
        await trio.sleep(call.delay)
        if call.fails:
            raise MockAuthError("Mock auth failure")
        claims = self._claims_of(token)
        if audience is not None and claims.aud != audience:
            raise MockAuthError("Invalid audience")
        return claims

    def create_token(
        self,
        sub: str,
        *,
        roles: Iterable[str] | None = None,
        org_id: str | None = None,
        expires_in_hours: float = 1,
    ) -> tuple[str, MockJWTClaims]:
        """Make a token that is valid for so long, and return it with its claims."""
        token = f"mock-{self._rng.getrandbits(128):032x}"
        now = clock.now()
        self._valid[token] = claims = MockJWTClaims(
            sub,
            exp=now + timedelta(hours=expires_in_hours),
            iat=now,
            roles=roles or (),
            org_id=org_id,
        )
        return token, claims

    def _claims_of(self, token: str) -> MockJWTClaims:
        claims = self._valid.get(token)
        if claims is not None:
            if claims.exp <= clock.now():
                raise MockAuthError("Token expired")
            return claims
        if self._accept_any:
            return self._default_claims
        raise MockAuthError("Invalid token")


# Tools


ToolHandler = Callable[[Mapping[str, Any]], Any]
"""Takes the arguments of a tool and returns its output; may be async."""


@final
@attrs.frozen
class MockToolResult:
    """How a mock tool fared."""

    success: bool
    output: Any
    error: str | None = None
    duration_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {
            "success": self.success,
            "output": self.output,
            "error": self.error,
            "duration_ms": self.duration_ms,
        }


@final
class MockToolExecutor(_Mock):
    """Runs the handlers it was given; a tool it does not know gives the default output."""

    def __init__(
        self,
        *,
        tools: Mapping[str, ToolHandler] | None = None,
        default_output: Any = None,
        latency_ms: float = 10,
        fail_rate: float = 0.0,
        max_history: int = 10_000,
        seed: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            latency_ms=latency_ms, fail_rate=fail_rate, max_history=max_history, seed=seed, rng=rng
        )
        self._tools = dict(tools or {})
        self._default_output = {"status": "ok"} if default_output is None else default_output

    @property
    def execution_count(self) -> int:
        """How many executions there were, failures included."""
        return self._count

    @property
    def execution_history(self) -> list[dict[str, Any]]:
        """The latest executions, oldest first: `tool`, `arguments` and `timestamp`."""
        return list(self._history)

    def register_tool(self, name: str, handler: ToolHandler) -> None:
        """Add a tool, or replace the one of that name."""
        self._tools[name] = handler

    async def execute(self, tool_name: str, arguments: Mapping[str, Any]) -> MockToolResult:
        """Run a tool; a failure, simulated or real, is in the result."""
        call = self._begin(tool=tool_name, arguments=arguments)
        began_at = clock.monotonic()
        await trio.sleep(call.delay)
        output = error = None
        if call.fails:
            error = "Mock tool execution failed"
        else:
            try:
                output = await self._run(tool_name, arguments)
            except Exception as failure:  # noqa: BLE001 - handlers are user code
                error = str(failure)
        duration_ms = round((clock.monotonic() - began_at) * 1000, 3)
        return MockToolResult(error is None, output, error, duration_ms)

    async def _run(self, tool_name: str, arguments: Mapping[str, Any]) -> Any:
        handler = self._tools.get(tool_name)
        if handler is None:
            return deepcopy(self._default_output)
        output = handler(arguments)
        return await output if inspect.isawaitable(output) else output
