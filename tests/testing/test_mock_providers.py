"""Mock services: they answer, wait and fail as they are told to, the same each time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import ActorflowError, MockAuthError, MockConfigError, MockProviderError
from actorflow.providers import (
    LanguageModel,
    LLMResponse,
    SpeechToText,
    STTResponse,
    TextToSpeech,
)
from actorflow.testing import (
    MockAuthProvider,
    MockCompletion,
    MockJWTClaims,
    MockLLMProvider,
    MockSTTProvider,
    MockToolExecutor,
    MockToolResult,
    MockTTSProvider,
    run_seeded,
)

# Each makes a mock with these settings; each call is one call of such a mock.
MAKERS: dict[str, Any] = {
    "llm": MockLLMProvider,
    "stt": MockSTTProvider,
    "tts": MockTTSProvider,
    "auth": MockAuthProvider,
    "tools": MockToolExecutor,
}
CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "llm": lambda mock: mock.complete("hello"),
    "stt": lambda mock: mock.transcribe(b"hello"),
    "tts": lambda mock: mock.synthesize("hello"),
    "auth": lambda mock: mock.validate("hello"),
    "tools": lambda mock: mock.execute("hello", {}),
}
COUNTS = {
    "llm": "call",
    "stt": "call",
    "tts": "call",
    "auth": "validation",
    "tools": "execution",
}

Names = pytest.mark.parametrize("name", MAKERS)


def count_of(name: str, mock: Any) -> int:
    count: int = getattr(mock, f"{COUNTS[name]}_count")
    return count


def history_of(name: str, mock: Any) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = getattr(mock, f"{COUNTS[name]}_history")
    return history


def made(name: str, **options: Any) -> Any:
    return MAKERS[name](**({"accept_any": True} if name == "auth" else {}), **options)


async def outcome(call: Awaitable[Any]) -> str:
    try:
        return repr(await call)
    except MockProviderError as error:
        return f"failed: {error}"


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in stream]


async def elapsed(call: Awaitable[object]) -> float:
    begun_at = trio.current_time()
    await call
    return trio.current_time() - begun_at


# What all have in common


@pytest.mark.spec("A47")
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), fail_rate=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_same_seed_and_same_calls_give_the_same(seed: int, fail_rate: float) -> None:
    async def story() -> list[object]:
        llm = MockLLMProvider(latency_ms=50, latency_jitter_ms=50, fail_rate=fail_rate, seed=seed)
        stt = MockSTTProvider(fail_rate=fail_rate, rng=random.Random(seed))
        auth = MockAuthProvider(accept_any=True, fail_rate=fail_rate, seed=seed)
        seen: list[object] = []
        for _ in range(2):
            for _ in range(5):
                began_at = trio.current_time()
                seen += [
                    await outcome(_id(llm)),
                    await outcome(stt.transcribe(b"x")),
                    (await outcome(auth.validate("x"))).startswith("failed"),
                    auth.create_token("me")[0],
                    round(trio.current_time() - began_at, 9),
                ]
            for mock in (llm, stt, auth):
                mock.reset()
        # What follows the reset is what was before it.
        assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
        return seen

    random.seed(1)
    before = random.getstate()
    first = run_seeded(story)
    assert random.getstate() == before
    assert run_seeded(story) == first


async def _id(llm: MockLLMProvider) -> str:
    return (await llm.complete("x")).id


@pytest.mark.spec("A47")
async def test_other_seed_gives_other_ids() -> None:
    ids = {(await MockLLMProvider(seed=seed).complete("x")).id for seed in range(20)}

    assert len(ids) == 20
    assert (await MockLLMProvider().complete("x")).id in ids


@pytest.mark.spec("A48")
async def test_chance_is_asked_for_jitter_then_failure_then_the_result(
    autojump_clock: MockClock,
) -> None:
    llm = MockLLMProvider(latency_ms=100, latency_jitter_ms=100, fail_rate=0.5, seed=3)
    for _ in range(5):
        dice = random.Random(3)
        for _ in range(llm.call_count):
            dice.uniform(0, 1), dice.random(), dice.getrandbits(32)
        delay = (100 + dice.uniform(-100, 100)) / 1000
        fails = dice.random() < 0.5
        id = f"mock-{dice.getrandbits(32):08x}"

        began_at = trio.current_time()
        try:
            assert (await llm.complete("x")).id == id
        except MockProviderError:
            assert fails
        else:
            assert not fails
        assert trio.current_time() - began_at == pytest.approx(delay)


@pytest.mark.spec("A48")
@Names
async def test_certain_success_and_certain_failure_need_no_chance(
    name: str, autojump_clock: MockClock
) -> None:
    class Loaded(random.Random):
        def random(self) -> float:
            raise AssertionError

    options: dict[str, Any] = {"simulate_confidence": False} if name == "stt" else {}
    options |= {"latency_jitter_ms": 0} if name in {"llm", "stt"} else {}
    dice = Loaded()

    for _ in range(20):
        assert "failed" not in await outcome(CALLS[name](made(name, rng=dice, **options)))
    failing = await outcome(CALLS[name](made(name, fail_rate=1, rng=dice, **options)))
    assert "failed" in failing


@pytest.mark.spec("A48")
@pytest.mark.parametrize("seed", range(3))
def test_calls_side_by_side_are_answered_in_the_order_they_were_made(seed: int) -> None:
    async def main() -> list[str]:
        llm = MockLLMProvider(responses=list("abcdef"), latency_ms=50, latency_jitter_ms=50)
        heard: dict[int, str] = {}

        async def ask(number: int) -> None:
            heard[number] = (await llm.complete("x")).content

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
        return [heard[number] for number in range(6)]

    assert run_seeded(main, seed=seed) == list("abcdef")


@pytest.mark.spec("A49", "A52")
@Names
async def test_failing_and_cancelled_calls_are_in_the_books(
    name: str, autojump_clock: MockClock
) -> None:
    failing = made(name, fail_rate=1)
    slow = made(name, **({} if name == "auth" else {"latency_ms": 1000}))
    await outcome(CALLS[name](failing))
    # A validation does not take time, but it can be cancelled at once.
    with trio.move_on_after(0 if name == "auth" else 0.5) as scope:
        await CALLS[name](slow)

    assert scope.cancelled_caught
    for mock in (failing, slow):
        assert count_of(name, mock) == len(history_of(name, mock)) == 1
        stamp = datetime.fromisoformat(history_of(name, mock)[0]["timestamp"])
        assert stamp.utcoffset() == timedelta(0)


@pytest.mark.spec("A50")
@Names
async def test_call_takes_exactly_its_latency(name: str, autojump_clock: MockClock) -> None:
    if name == "auth":
        assert await elapsed(CALLS[name](made(name))) == 0
        return
    options: dict[str, Any] = {"latency_jitter_ms": 0} if name in {"llm", "stt"} else {}
    mock = made(name, latency_ms=250, **options)

    assert await elapsed(CALLS[name](mock)) == pytest.approx(0.25)


@pytest.mark.spec("A50")
async def test_jitter_is_even_around_the_latency_and_never_below_nothing(
    autojump_clock: MockClock,
) -> None:
    llm = MockLLMProvider(latency_ms=100, latency_jitter_ms=60)
    taken = [await elapsed(llm.complete("x")) * 1000 for _ in range(200)]
    assert all(40 <= it <= 160 for it in taken)
    assert min(taken) < 50
    assert max(taken) > 150

    hasty = MockLLMProvider(latency_ms=10, latency_jitter_ms=100)
    assert 0 in {await elapsed(hasty.complete("x")) for _ in range(20)}


@pytest.mark.spec("A50")
@Names
async def test_call_without_latency_is_a_checkpoint(name: str) -> None:
    options: dict[str, Any] = {"latency_jitter_ms": 0} if name == "stt" else {}
    options |= {} if name == "auth" else {"latency_ms": 0}
    mock = made(name, **options)

    with trio.testing.assert_checkpoints():
        await CALLS[name](mock)


@pytest.mark.spec("A51", "A56", "A62", "A64", "A67")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llm", "Mock LLM error"),
        ("stt", "Mock STT error"),
        ("tts", "Mock TTS error"),
        ("auth", "Mock auth failure"),
    ],
)
async def test_simulated_failure_says_exactly_this(
    name: str, text: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(MockProviderError) as caught:
        await CALLS[name](made(name, fail_rate=1))

    assert str(caught.value) == text
    assert isinstance(caught.value, ActorflowError)
    assert isinstance(caught.value, ValueError) is (name == "auth")


@pytest.mark.spec("A53")
@Names
async def test_history_is_bounded_and_the_count_is_not(
    name: str, autojump_clock: MockClock
) -> None:
    mock = made(name, max_history=3)
    for _ in range(5):
        await CALLS[name](mock)

    assert count_of(name, mock) == 5
    assert len(history_of(name, mock)) == 3
    mock.reset()
    assert count_of(name, mock) == len(history_of(name, mock)) == 0


@pytest.mark.spec("A53")
async def test_history_keeps_the_newest() -> None:
    llm = MockLLMProvider(max_history=2)
    for prompt in "abc":
        await llm.complete(prompt)

    assert [call["prompt"] for call in llm.call_history] == ["b", "c"]


@pytest.mark.spec("A46")
def test_mocks_are_what_the_protocols_promise() -> None:
    # mypy checks these assignments.
    model: LanguageModel = MockLLMProvider()
    recogniser: SpeechToText = MockSTTProvider()
    voice: TextToSpeech = MockTTSProvider()

    assert isinstance(model, LanguageModel)
    assert isinstance(recogniser, SpeechToText)
    assert isinstance(voice, TextToSpeech)


@Names
@pytest.mark.parametrize(
    "options",
    [
        {"fail_rate": 1.1},
        {"fail_rate": -0.1},
        {"fail_rate": float("nan")},
        {"max_history": 0},
        {"seed": 0, "rng": random.Random()},
    ],
)
def test_impossible_chance_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(MockConfigError):
        made(name, **options)


# Language model


@pytest.mark.spec("A54")
async def test_first_pattern_that_matches_answers() -> None:
    llm = MockLLMProvider(
        responses=["one", "two"], patterns={"weather": "sunny", "WEATHER|time": "late"}
    )
    prompts = ["the Weather?", "first", "what time", "second", "third"]

    answers = [(await llm.complete(prompt)).content for prompt in prompts]
    assert answers == ["sunny", "one", "late", "two", "one"]


@pytest.mark.spec("A54")
async def test_echo_and_default_answer() -> None:
    echo = MockLLMProvider(echo=True, patterns={"hi": "hello"}, responses=["never"])

    assert (await echo.complete("hi")).content == "hello"
    assert (await echo.complete("you")).content == "Echo: you"
    assert (await MockLLMProvider().complete("you")).content == "Mock response"


@pytest.mark.spec("A55")
async def test_answer_may_be_a_completion_or_an_error() -> None:
    call = {"name": "look", "arguments": {}}
    scripted = MockCompletion(content="calling", tool_calls=[call], finish_reason="tool_calls")
    error = KeyError("gone")
    llm = MockLLMProvider(responses=[scripted, error], patterns={"stop": TimeoutError()})
    completion = await llm.complete("x", model="big")

    assert (completion.content, completion.finish_reason) == ("calling", "tool_calls")
    assert completion.model == "big"
    assert completion.to_dict()["choices"][0]["message"]["tool_calls"] == [call]
    with pytest.raises(KeyError) as caught:
        await llm.complete("x")
    assert caught.value is error
    with pytest.raises(TimeoutError):
        await llm.complete("stop")


@pytest.mark.spec("A56")
async def test_failure_takes_no_answer_away() -> None:
    llm = MockLLMProvider(responses=["a", "b", "c"], fail_rate=0.5, fail_error="boom", seed=5)
    answers = [await outcome(_content(llm)) for _ in range(12)]

    failed = [it for it in answers if it == "failed: boom"]
    assert 2 < len(failed) < 10
    assert [it for it in answers if it not in failed][:3] == ["'a'", "'b'", "'c'"]


async def _content(llm: MockLLMProvider) -> str:
    return (await llm.complete("x")).content


@pytest.mark.spec("A57")
async def test_calls_are_remembered_as_they_were() -> None:
    llm = MockLLMProvider()
    messages = [{"role": "user", "content": "before"}]
    with clock.starting_at(1_000_000_000):
        await llm.complete("one", messages=messages)
        llm.stream("two")
    messages[0]["content"] = "changed"

    assert llm.call_count == 2
    assert [(it["prompt"], it["messages"]) for it in llm.call_history] == [
        ("one", [{"role": "user", "content": "before"}]),
        ("two", None),
    ]
    assert llm.call_history[0]["timestamp"].startswith("2001-09-09T01:46:40")
    llm.call_history.clear()
    assert len(llm.call_history) == 2


@pytest.mark.spec("A58")
async def test_completion_has_the_shape_of_a_chat_completion() -> None:
    llm = MockLLMProvider(responses=["12345678"])
    with clock.starting_at(1_000_000_000):
        completion = await llm.complete("1234", temperature=0)

    assert completion.id.startswith("mock-")
    assert len(completion.id) == 13
    assert int(completion.id[5:], 16) >= 0
    assert completion.tool_calls is None
    assert completion.to_dict() == {
        "id": completion.id,
        "object": "chat.completion",
        "created": 1_000_000_000,
        "model": "mock-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "12345678", "tool_calls": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    assert completion.to_response() == LLMResponse(
        "12345678", "mock-model", "mock", 1, 2, finish_reason="stop"
    )


@pytest.mark.spec("A58")
async def test_tokens_are_counted_by_who_is_asked() -> None:
    llm = MockLLMProvider(token_counter=len, echo=True)
    usage = (await llm.complete("hi")).usage

    assert usage == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
    assert MockCompletion(content="unused").to_response().total_tokens == 0


@pytest.mark.spec("A59")
async def test_stream_pauses_between_its_pieces_only(autojump_clock: MockClock) -> None:
    llm = MockLLMProvider(responses=["Hello, world"], latency_ms=100)
    begun_at = trio.current_time()
    pieces = []
    async for piece in llm.stream("x"):
        pieces.append((piece, round(trio.current_time() - begun_at, 3)))

    assert pieces == [("Hello", 0.1), (", wor", 0.11), ("ld", 0.12)]
    assert trio.current_time() - begun_at == pytest.approx(0.12)


@pytest.mark.spec("A59")
@given(content=st.text(max_size=30), size=st.integers(1, 10))
def test_pieces_make_up_the_answer(content: str, size: int) -> None:
    async def main() -> list[str]:
        return await collected(MockLLMProvider(responses=[content]).stream("x", chunk_size=size))

    pieces = run_seeded(main)
    assert "".join(pieces) == content
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.spec("A59", "A49")
async def test_failing_stream_fails_before_its_first_piece(autojump_clock: MockClock) -> None:
    llm = MockLLMProvider(fail_rate=1, latency_ms=100)
    stream = llm.stream("x")
    assert llm.call_count == 1

    with pytest.raises(MockProviderError):
        await anext(stream)
    assert llm.call_count == 1


@pytest.mark.spec("A52", "A59")
async def test_cancelled_stream_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    stream = MockLLMProvider(responses=["abcdef"]).stream("x", chunk_size=2)
    assert await anext(stream) == "ab"
    with trio.move_on_after(0.001) as scope:
        await anext(stream)

    assert scope.cancelled_caught
    assert await collected(stream) == ["cd", "ef"]
    with trio.testing.assert_checkpoints():
        assert await collected(stream) == []


async def test_closed_stream_gives_nothing_more() -> None:
    async with aclosing(MockLLMProvider().stream("x")) as stream:
        await anext(stream)

    assert await collected(stream) == []


@pytest.mark.spec("A60")
async def test_reset_begins_from_the_first_answer_again() -> None:
    llm = MockLLMProvider(responses=["a", "b"])
    first = await llm.complete("x")
    llm.reset()

    assert (llm.call_count, llm.call_history) == (0, [])
    again = await llm.complete("x")
    assert (again.content, again.id) == (first.content, first.id)


# Speech to text


@pytest.mark.spec("A61")
async def test_known_audio_is_heard_as_what_it_is(autojump_clock: MockClock) -> None:
    key = MockSTTProvider.audio_key(b"hello")
    stt = MockSTTProvider(transcriptions=["a", "b"], audio_map={key: "hello"})
    heard = [(await stt.transcribe(audio)).text for audio in (b"x", b"hello", b"y", b"z")]

    assert key == hashlib.md5(b"hello").hexdigest()[:16]
    assert heard == ["a", "hello", "b", "a"]
    assert (await MockSTTProvider().transcribe(b"")).text == "Mock transcription"


@pytest.mark.spec("A62")
async def test_confidence_is_simulated_or_fixed(autojump_clock: MockClock) -> None:
    stt = MockSTTProvider()
    sure = {(await stt.transcribe(b"")).confidence for _ in range(50)}
    fixed = await MockSTTProvider(simulate_confidence=False).transcribe(bytes(32_000))

    assert len(sure) == 50
    assert all(0.85 <= it <= 0.99 for it in sure)
    assert (fixed.confidence, fixed.duration_ms) == (0.95, 1000)


@pytest.mark.spec("A63")
async def test_transcription_as_json_and_as_response(autojump_clock: MockClock) -> None:
    stt = MockSTTProvider(transcriptions=["hallo", "welt"], simulate_confidence=False)
    heard = await stt.transcribe(bytes(320), language="de")

    assert heard.to_dict() == {
        "text": "hallo",
        "confidence": 0.95,
        "duration_ms": 10.0,
        "language": "de",
        "words": [],
    }
    assert heard.to_response() == STTResponse("hallo", 0.95, 10, "de", "mock", "mock-stt")
    assert stt.call_history[0]["language"] == "de"
    stt.reset()
    assert stt.call_count == 0
    assert (await stt.transcribe(b"")).text == "hallo"


# Text to speech


@pytest.mark.spec("A64")
@given(st.text(max_size=8), st.integers(1, 200))
def test_speech_follows_from_the_text(text: str, bytes_per_char: int) -> None:
    async def main() -> bytes:
        return await MockTTSProvider(bytes_per_char=bytes_per_char).synthesize(text)

    digest = hashlib.md5(text.encode()).digest()
    expected = bytes(digest[i % 16] ^ (i % 256) for i in range(len(text) * bytes_per_char))
    assert run_seeded(main) == expected


@pytest.mark.spec("A65")
async def test_speech_comes_as_fast_as_it_is_played(autojump_clock: MockClock) -> None:
    tts = MockTTSProvider(latency_ms=0)
    whole = await tts.synthesize("hello there" * 10)
    begun_at = trio.current_time()
    pieces = await collected(tts.stream("hello there" * 10, chunk_duration_ms=50))

    assert b"".join(piece.data for piece in pieces) == whole
    assert [len(piece.data) for piece in pieces] == [1600] * 6 + [1400]
    assert trio.current_time() - begun_at == pytest.approx(6 * 0.05)
    assert (pieces[0].sample_rate, pieces[0].channels, pieces[0].format) == (16_000, 1, "pcm_16")
    assert "1600 bytes" in repr(pieces[0])
    assert tts.call_count == 2
    assert [call["text"] for call in tts.call_history] == ["hello there" * 10] * 2


@pytest.mark.spec("A65")
async def test_nothing_to_say_makes_no_piece(autojump_clock: MockClock) -> None:
    assert await collected(MockTTSProvider().stream("")) == []


@pytest.mark.spec("A65")
@pytest.mark.parametrize(("rate", "ms", "size"), [(11_025, 1, 22), (11_025, 25, 550), (100, 1, 2)])
async def test_pieces_have_whole_samples(
    rate: int, ms: int, size: int, autojump_clock: MockClock
) -> None:
    tts = MockTTSProvider(sample_rate=rate)
    pieces = await collected(tts.stream("abcdefghij", chunk_duration_ms=ms))

    assert len(pieces[0].data) == size


# Auth


@pytest.mark.spec("A66")
async def test_validations_are_remembered_without_the_secret() -> None:
    auth = MockAuthProvider(accept_any=True)
    await auth.validate("short")
    await auth.validate("x" * 20)
    await auth.validate("y" * 21)

    assert auth.validation_count == 3
    assert [it["token"] for it in auth.validation_history] == [
        "short",
        "x" * 20,
        "y" * 20 + "...",
    ]


@pytest.mark.spec("A67")
async def test_token_is_refused_for_the_first_reason() -> None:
    past = datetime(2000, 1, 1, tzinfo=timezone.utc)
    known = MockJWTClaims("me", aud="here")
    auth = MockAuthProvider(
        valid_tokens={"good": known, "old": MockJWTClaims("me", aud="here", exp=past)},
    )

    assert await auth.validate("good") is known
    assert await auth.validate("good", audience="here") is known
    for token, audience, text in [
        ("old", "there", "Token expired"),
        ("good", "there", "Invalid audience"),
        ("bad", None, "Invalid token"),
    ]:
        with pytest.raises(MockAuthError) as caught:
            await auth.validate(token, audience=audience)
        assert str(caught.value) == text


@pytest.mark.spec("A67")
async def test_any_token_is_accepted_with_default_claims() -> None:
    claims = await MockAuthProvider(accept_any=True).validate("x")
    assert claims.sub == "mock-user"

    mine = MockJWTClaims("someone")
    auth = MockAuthProvider(accept_any=True, default_claims=mine)
    assert await auth.validate("x") is mine
    with pytest.raises(MockAuthError, match="Invalid audience"):
        await auth.validate("x", audience="elsewhere")


@pytest.mark.spec("A68")
async def test_token_that_was_made_is_valid_until_it_expires(autojump_clock: MockClock) -> None:
    auth = MockAuthProvider()
    token, claims = auth.create_token("me", roles=["admin"], org_id="o", expires_in_hours=2)

    assert await auth.validate(token) is claims
    assert (claims.sub, claims.roles, claims.org_id) == ("me", ("admin",), "o")
    await trio.sleep(2 * 3600 - 1)
    await auth.validate(token)
    auth.reset()
    assert auth.validation_count == 0
    await auth.validate(token)
    await trio.sleep(1)
    with pytest.raises(MockAuthError, match="Token expired"):
        await auth.validate(token)


@pytest.mark.spec("A68")
def test_claims_as_a_token_carries_them() -> None:
    with clock.starting_at(1_000_000_000.5):
        claims = MockJWTClaims("me", custom={"plan": "gold", "aud": "mine"})

    assert claims.to_dict() == {
        "sub": "me",
        "aud": "mine",
        "iss": "mock-auth",
        "exp": 1_000_003_600,
        "iat": 1_000_000_000,
        "roles": [],
        "org_id": None,
        "plan": "gold",
    }
    assert (claims.aud, claims.roles, claims.org_id) == ("actorflow", (), None)


# Tools


@pytest.mark.spec("A69")
async def test_execution_is_remembered_and_timed(autojump_clock: MockClock) -> None:
    tools = MockToolExecutor(tools={"add": lambda it: it["a"] + it["b"]}, latency_ms=30)
    arguments = {"a": 1, "b": 2}
    result = await tools.execute("add", arguments)
    arguments["a"] = 5

    assert result == MockToolResult(True, 3, None, 30.0)
    assert tools.execution_count == 1
    assert tools.execution_history[0]["tool"] == "add"
    assert tools.execution_history[0]["arguments"] == {"a": 1, "b": 2}
    assert result.to_dict() == {"success": True, "output": 3, "error": None, "duration_ms": 30.0}


@pytest.mark.spec("A70")
async def test_failures_are_in_the_result(autojump_clock: MockClock) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no")

    failing = await MockToolExecutor(fail_rate=1).execute("any", {})
    raising = await MockToolExecutor(tools={"x": broken}).execute("x", {})

    assert failing == MockToolResult(False, None, "Mock tool execution failed", 10.0)
    assert raising == MockToolResult(False, None, "no", 10.0)


@pytest.mark.spec("A70")
async def test_unknown_tool_gives_a_fresh_default(autojump_clock: MockClock) -> None:
    tools = MockToolExecutor()
    first = (await tools.execute("x", {})).output
    first["status"] = "changed"

    assert (await tools.execute("x", {})).output == {"status": "ok"}
    assert (await MockToolExecutor(default_output=[]).execute("x", {})).output == []


@pytest.mark.spec("A70")
async def test_handler_may_be_async_and_is_cancelled_with_its_caller(
    autojump_clock: MockClock,
) -> None:
    async def slow(arguments: Any) -> str:
        await trio.sleep(arguments["seconds"])
        return "done"

    tools = MockToolExecutor(tools={"slow": slow})

    assert await tools.execute("slow", {"seconds": 1}) == MockToolResult(True, "done", None, 1010)
    with trio.move_on_after(1) as scope:
        await tools.execute("slow", {"seconds": 100})
    assert scope.cancelled_caught


@pytest.mark.spec("A71")
async def test_tool_can_be_added_replaced_and_survives_a_reset(autojump_clock: MockClock) -> None:
    tools = MockToolExecutor()
    tools.register_tool("x", lambda _: 1)
    tools.register_tool("x", lambda _: 2)
    await tools.execute("x", {})
    tools.reset()

    assert (tools.execution_count, tools.execution_history) == (0, [])
    assert (await tools.execute("x", {})).output == 2


# Bad input


@pytest.mark.parametrize(
    "make",
    [
        lambda: MockLLMProvider(latency_ms=-1),
        lambda: MockLLMProvider(latency_jitter_ms=-1),
        lambda: MockLLMProvider(responses=[]),
        lambda: MockLLMProvider(patterns={"(": "x"}),
        lambda: MockSTTProvider(transcriptions=[]),
        lambda: MockSTTProvider(latency_ms=-1),
        lambda: MockTTSProvider(sample_rate=0),
        lambda: MockTTSProvider(bytes_per_char=0),
        lambda: MockToolExecutor(latency_ms=-1),
        lambda: MockLLMProvider().stream("x", chunk_size=0),
        lambda: MockTTSProvider().stream("x", chunk_duration_ms=0.5),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(MockConfigError):
        make()
