"""What a turn is told, what it says, and how that reaches the client."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import (
    AudioFormatMismatchError,
    InvalidArgumentError,
    NotInVoiceTurnError,
    PipelineValidationError,
    UnifiedPipelineCancelled,
    UnifiedStageExecutionError,
)
from actorflow.model import AudioChunk, AudioFormat
from actorflow.pipeline import Pipeline, stage
from actorflow.protocol import (
    AudioShape,
    CloseCode,
    End,
    Error,
    ErrorCode,
    Interrupt,
    Interrupted,
    ReplyAudio,
    ReplyText,
    ServerMessage,
    Start,
    Transcript,
    TurnCompleted,
    TurnStarted,
    UserAudio,
    UserText,
)
from actorflow.server import ANONYMOUS, ListeningApp, Principal
from actorflow.stages import CorePorts, StageContext
from actorflow.testing import MockSTTProvider, ScriptedRecognizer
from actorflow.voice import (
    Endpointing,
    SpeakStage,
    Spoken,
    TranscribeStage,
    UserTurn,
    Utterance,
    VoiceApp,
    turn_ports,
    user_turn,
)
from actorflow.voice._rates import RateConverter
from tests.server.caller import Caller, open_house
from tests.voice.assistant import assistant, spoken


@attrs.define
class Says:
    """A stage whose stream is a list."""

    items: list[Any]

    async def execute(self, ctx: StageContext) -> None:
        for item in self.items:
            await ctx.send(item)


def saying(*items: Any, **options: Any) -> VoiceApp:
    return VoiceApp(Pipeline.from_stages(stage("answer", Says([*items]))), says="answer", **options)


async def answers_of(app: VoiceApp, start: Start | None = None) -> list[ServerMessage]:
    """What comes back when something was written, but the beginning and the end of the turn."""
    async with open_house(app=app) as house:
        caller = await house.call(start)
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnCompleted)
        return [it.message for it in caller.heard[2:]]


async def talk_to(caller: Caller, *pieces: bytes) -> None:
    for piece in pieces:
        await trio.sleep(0.02)
        await caller.say(UserAudio(piece))


def test_application_listens() -> None:
    assert isinstance(assistant(), ListeningApp)


# The answer


@pytest.mark.spec("A126")
async def test_text_and_audio_reach_the_client_in_order(autojump_clock: MockClock) -> None:
    said = await answers_of(
        saying("It ", "rains", bytes(1280), Spoken("Take a coat", AudioChunk(bytes(640))))
    )

    turn = "turn-1"
    assert said[:-1] == [
        ReplyText(turn, "It "),
        ReplyText(turn, "rains"),
        ReplyAudio(turn, 0, 40.0, 40.0, bytes(1280)),
        ReplyText(turn, "Take a coat"),
        ReplyAudio(turn, 1, 20.0, 60.0, bytes(640)),
        ReplyText(turn, "", is_final=True),
    ]


@pytest.mark.spec("A126")
async def test_answer_of_audio_alone_has_no_text(autojump_clock: MockClock) -> None:
    said = await answers_of(saying(bytes(640)))

    assert [type(it) for it in said] == [ReplyAudio, TurnCompleted]


@pytest.mark.spec("A126")
@pytest.mark.parametrize(
    "item",
    [
        pytest.param({"text": "hello"}, id="neither text nor audio"),
        pytest.param(AudioChunk(bytes(8), channels=2), id="two channels"),
        pytest.param(AudioChunk(bytes(8), 8000), id="another rate"),
        pytest.param(AudioChunk(bytes(8), format=AudioFormat.FLOAT_32), id="another format"),
    ],
)
async def test_answer_that_cannot_be_sent_fails_its_turn(
    autojump_clock: MockClock, item: Any
) -> None:
    (completed,) = await answers_of(saying(item))

    assert isinstance(completed, TurnCompleted)
    assert completed.status == "failed"


@pytest.mark.spec("A126")
def test_answer_of_a_stage_that_is_not_there_is_refused_at_once() -> None:
    pipeline = Pipeline.from_stages(stage("answer", Says([])))

    with pytest.raises(PipelineValidationError, match="answr"):
        VoiceApp(pipeline, says="answr")


@pytest.mark.spec("A129", "A131")
@pytest.mark.parametrize("option", [{"memory_timeout": 0}, {"max_restarts": -1}, {"window": 0}])
def test_impossible_limit_is_refused_at_once(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        saying(**option)

    assert caught.value.argument in option


@pytest.mark.spec("A126", "30.15.12")
def test_spoken_words_play_as_long_as_their_audio() -> None:
    assert Spoken("hi", AudioChunk(bytes(640))).duration_ms == 20
    assert Spoken("hi", bytes(640)).duration_ms == 0


@pytest.mark.spec("A126", "A98")
async def test_words_and_their_audio_are_not_torn_apart(autojump_clock: MockClock) -> None:
    # However an interruption comes between: words without audio would count as read.
    async with open_house(app=saying(Spoken("It rains.", bytes(640)))) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(ReplyText)

        assert isinstance(await caller.hear(), ReplyAudio)


@pytest.mark.spec("A126a", "A92", "A94")
async def test_stages_are_at_most_so_much_audio_ahead_of_the_client(
    autojump_clock: MockClock,
) -> None:
    made_ms = 0.0

    async def make(ctx: StageContext) -> None:
        nonlocal made_ms
        while True:
            await ctx.send(AudioChunk(bytes(6400)))
            made_ms += 200

    async def relay(ctx: StageContext) -> None:
        async for piece in ctx.stream():
            await ctx.send(piece)

    pipeline = Pipeline.from_stages(
        stage("make", make),
        stage("relay", relay, stream_from="make", stream_buffer=100),
        stage("answer", relay, stream_from="relay", stream_buffer=100, stream_ms=300),
    )
    app = VoiceApp(pipeline, says="answer", edge_ms=600)
    async with open_house(app=app, outbound_messages=10, piece_ms=40) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        for _ in range(10):
            await trio.sleep(1)
            (session,) = house.sessions._all()
            assert session.turn is not None
            ahead_ms = made_ms - session.turn.playback.sent_ms
            # Two edges of 600 ms, one of 300, the outbox, and a piece in each hand.
            assert 1000 < ahead_ms <= 2 * 600 + 300 + 10 * 40 + 4 * 200


# What a turn knows


@pytest.mark.spec("A127")
@pytest.mark.parametrize(
    ("principal", "user_id"),
    [
        (ANONYMOUS, None),
        (
            Principal("0197a000-0000-7000-8000-00000000000c"),
            UUID("0197a000-0000-7000-8000-00000000000c"),
        ),
        (
            Principal("ada", {"user_id": "0197a000-0000-7000-8000-00000000000d"}),
            UUID("0197a000-0000-7000-8000-00000000000d"),
        ),
        (Principal("ada"), uuid5(NAMESPACE_URL, "actorflow:user:ada")),
    ],
)
async def test_run_knows_whose_turn_it_is(
    autojump_clock: MockClock, principal: Principal, user_id: UUID | None
) -> None:
    seen: list[Any] = []

    async def answer(ctx: StageContext) -> None:
        seen.append(ctx.snapshot)
        await ctx.send("yes")

    app = VoiceApp(Pipeline.from_stages(stage("answer", answer)), says="answer")
    async with open_house(app=app) as house:
        caller = await house.call(principal=principal)
        await caller.say(UserText("hello"))
        started = await caller.hear_a(TurnStarted)
        await caller.hear_a(TurnCompleted)
        (snapshot,) = seen
        assert caller.ready is not None
        assert str(snapshot.session_id) == caller.ready.session_id
        assert str(snapshot.pipeline_run_id) == started.pipeline_run_id
        assert snapshot.interaction_id == snapshot.pipeline_run_id
        assert snapshot.user_id == user_id
        assert snapshot.input_text == "hello"
        assert snapshot.input_audio_duration_ms is None
        assert snapshot.metadata == {"turn_id": "turn-1", "principal": principal.id}
        runs = [it for it in house.sink.events if it.type == "pipeline.started"]
        assert [it.data["pipeline_run_id"] for it in runs] == [started.pipeline_run_id]


@pytest.mark.spec("A130")
async def test_stages_find_the_user_and_the_services(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    async def answer(ctx: StageContext) -> None:
        said = user_turn(ctx)
        assert said.session is not None
        assert said.turn is not None
        seen.extend([said.text, said.utterance, said.turn.id, ctx.ports.db])
        with pytest.raises(AttributeError):
            _ = ctx.ports.stars
        await ctx.send("yes")

    app = VoiceApp(
        Pipeline.from_stages(stage("answer", answer)), says="answer", ports=CorePorts(db="sqlite")
    )
    await answers_of(app)

    assert seen == ["hello", None, "turn-1", "sqlite"]


@pytest.mark.spec("A130")
async def test_turn_pipeline_runs_without_a_session() -> None:
    seen: list[Any] = []

    async def look(ctx: StageContext) -> None:
        seen.append(user_turn(ctx))
        await user_turn(ctx).understood("hullo", is_final=False)
        assert user_turn(ctx).understood_text is None
        await user_turn(ctx).understood("hello")

    said = UserTurn(Utterance(bytes(640)))
    await Pipeline.from_stages(stage("look", look)).run(ports=turn_ports(said))

    assert seen == [said]
    assert said.understood_text == "hello"
    assert said.session is None
    assert said.turn is None


@pytest.mark.spec("A130")
async def test_other_runs_have_no_user() -> None:
    async def look(ctx: StageContext) -> None:
        user_turn(ctx)

    with pytest.raises(UnifiedStageExecutionError) as caught:
        await Pipeline.from_stages(stage("look", look)).run("hello")

    assert isinstance(caught.value.original, NotInVoiceTurnError)
    assert "look" in str(caught.value.original)


@pytest.mark.spec("A130")
@pytest.mark.parametrize("given", [{}, {"text": "a", "utterance": Utterance(b"")}])
def test_user_either_speaks_or_writes(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        UserTurn(**given)


def test_ports_of_a_turn_alone_have_nothing_else() -> None:
    ports = turn_ports(UserTurn(text="hello"))

    with pytest.raises(AttributeError):
        _ = ports.db


# Words out of audio


@pytest.mark.spec("A134")
async def test_utterance_becomes_text_that_the_client_sees(autojump_clock: MockClock) -> None:
    recognizer = MockSTTProvider(transcriptions=[" what is it "], latency_ms=0)
    pipeline = Pipeline.from_stages(stage("listen", TranscribeStage(recognizer, language="de")))
    said = UserTurn(Utterance(bytes(640)))

    results = await pipeline.run(ports=turn_ports(said))

    assert results.data("listen")["text"] == said.understood_text == "what is it"
    assert 0.85 <= results.data("listen")["confidence"] <= 0.99


@pytest.mark.spec("A134")
async def test_what_was_written_needs_no_recognizer() -> None:
    recognizer = MockSTTProvider()
    pipeline = Pipeline.from_stages(stage("listen", TranscribeStage(recognizer)))

    results = await pipeline.run(ports=turn_ports(UserTurn(text="hello")))

    assert results.data("listen") == {"text": "hello", "confidence": 1.0}
    assert recognizer.call_count == 0


@pytest.mark.spec("A134")
async def test_where_nothing_was_understood_nothing_is_answered() -> None:
    recognizer = MockSTTProvider(transcriptions=["  "], latency_ms=0, latency_jitter_ms=0)
    pipeline = Pipeline.from_stages(stage("listen", TranscribeStage(recognizer)))

    with pytest.raises(UnifiedPipelineCancelled, match="nothing was understood"):
        await pipeline.run(ports=turn_ports(UserTurn(Utterance(bytes(640)))))


# Audio out of words


@attrs.define
class Mouth:
    """A synthesizer that notes what it was to say and whether it was left in order."""

    said: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    closed: int = 0
    pieces: int = 2

    async def synthesize(self, text: str, **options: Any) -> bytes:
        raise AssertionError(text)

    # What users write, and what has to be closed whatever happens.
    async def stream(  # noqa: ASYNC900
        self, text: str, **options: Any
    ) -> AsyncIterator[AudioChunk]:
        self.said.append((text, options))
        try:
            for _ in range(self.pieces):
                await trio.sleep(0.01)
                yield AudioChunk(bytes(640))
        finally:
            self.closed += 1


@pytest.mark.spec("A134")
async def test_sentences_are_spoken_as_soon_as_they_are_complete(
    autojump_clock: MockClock,
) -> None:
    mouth = Mouth()
    heard: list[tuple[float, object]] = []

    async def write(ctx: StageContext) -> None:
        for piece in ("It ra", "ins. Ta", "ke a coat", ".  "):
            await ctx.send(piece)
            await trio.sleep(1)

    async def hear(ctx: StageContext) -> None:
        begun_at = trio.current_time()
        async for item in ctx.stream():
            words = item.text if isinstance(item, Spoken) else "..."
            heard.append((round(trio.current_time() - begun_at, 2), words))

    speak = stage("speak", SpeakStage(mouth, speed=2), stream_from="write")
    pipeline = Pipeline.from_stages(
        stage("write", write), speak, stage("hear", hear, stream_from="speak")
    )
    results = await pipeline.run()

    assert heard == [
        (1.01, "It rains. "),
        (1.02, "..."),
        (3.01, "Take a coat.  "),
        (3.02, "..."),
    ]
    assert [text for text, _ in mouth.said] == ["It rains. ", "Take a coat.  "]
    assert {options["speed"] for _, options in mouth.said} == {2}
    assert results.data("speak") == {"characters": 24}
    assert mouth.closed == 2


@pytest.mark.spec("A134")
@pytest.mark.parametrize(("text", "calls"), [("   ", 0), ("Hm.", 1)])
async def test_what_cannot_be_spoken_is_shown(text: str, calls: int) -> None:
    mouth = Mouth(pieces=0)
    heard: list[object] = []

    async def hear(ctx: StageContext) -> None:
        heard.extend([item async for item in ctx.stream()])

    pipeline = Pipeline.from_stages(
        stage("write", Says([text])),
        stage("speak", SpeakStage(mouth), stream_from="write"),
        stage("hear", hear, stream_from="speak"),
    )
    await pipeline.run()

    assert heard == [text]
    assert len(mouth.said) == calls


@pytest.mark.spec("A134")
async def test_synthesizer_is_left_in_order_when_it_is_interrupted(
    autojump_clock: MockClock,
) -> None:
    mouth = Mouth(pieces=1000)
    pipeline = Pipeline.from_stages(
        stage("write", Says(["It rains."])),
        stage("speak", SpeakStage(mouth), stream_from="write"),
    )
    async with open_house(app=VoiceApp(pipeline, says="speak")) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await trio.sleep(1)
        await caller.say(Interrupt())
        await caller.hear_a(Interrupted)
        await wait_all_tasks_blocked()

        assert mouth.closed == 1


# Rates


@attrs.define
class Doubling:
    """Each sample twice, or every other one; one sample is always held back."""

    factor: float
    made: list[tuple[int, int]]
    held: bytes = b""

    def convert(self, samples: bytes) -> bytes:
        data = self.held + samples
        self.held = data[-2:]
        return self._changed(data[:-2])

    def flush(self) -> bytes:
        held, self.held = self.held, b""
        return self._changed(held)

    def _changed(self, data: bytes) -> bytes:
        pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
        if self.factor > 1:
            return b"".join(pair * int(self.factor) for pair in pairs)
        return b"".join(pairs[:: int(1 / self.factor)])


@attrs.define
class Doublings:
    made: list[tuple[int, int]] = attrs.field(factory=list)

    def __call__(self, from_rate: int, to_rate: int) -> RateConverter:
        self.made.append((from_rate, to_rate))
        return Doubling(to_rate / from_rate, self.made)


@pytest.mark.spec("A135")
async def test_answer_is_converted_to_the_rate_of_the_client(autojump_clock: MockClock) -> None:
    loud, soft = b"\1\0" * 320, b"\2\0" * 320
    resample = Doublings()
    app = saying(
        Spoken("one ", AudioChunk(loud, 8000)),
        AudioChunk(loud, 8000),
        Spoken("two ", AudioChunk(soft, 8000)),
        Spoken("three", AudioChunk(soft[:2], 32_000)),
        "four",
        AudioChunk(soft, 16_000),
        resample=resample,
    )
    said = await answers_of(app)

    # In the order of the answer, nothing held back behind the next words.
    texts, audio = [], b""
    for message in said:
        if isinstance(message, ReplyText):
            texts.append((len(audio), message.delta))
        elif isinstance(message, ReplyAudio):
            audio += message.data
    assert texts == [
        (0, "one "),
        (2560, "two "),
        (3840, "three"),
        (3842, "four"),
        (4482, ""),
    ]
    assert audio == loud * 4 + soft * 2 + soft[:2] + soft
    # One to see at the beginning that it can be done.
    assert resample.made == [(8000, 16_000), (8000, 16_000), (32_000, 16_000)]


@pytest.mark.spec("A135")
async def test_audio_that_needs_no_conversion_waits_for_what_was_held_back(
    autojump_clock: MockClock,
) -> None:
    slow, raw, fitting = b"\1\0" * 320, b"\2\0" * 320, b"\3\0" * 320
    app = saying(
        AudioChunk(slow, 8000),
        raw,
        AudioChunk(slow, 8000),
        AudioChunk(fitting),
        resample=Doublings(),
    )
    said = await answers_of(app)

    audio = b"".join(it.data for it in said if isinstance(it, ReplyAudio))
    assert audio == slow * 2 + raw + slow * 2 + fitting


@pytest.mark.spec("A135")
async def test_words_are_said_although_their_audio_vanishes(autojump_clock: MockClock) -> None:
    class Silent:
        def convert(self, samples: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return b""

    app = saying(Spoken("one ", AudioChunk(bytes(2), 8000)), "two", resample=lambda _, __: Silent())
    said = await answers_of(app)

    assert [it.delta for it in said if isinstance(it, ReplyText)] == ["one ", "two", ""]


@pytest.mark.spec("A135")
async def test_caller_at_another_rate_is_understood(autojump_clock: MockClock) -> None:
    resample = Doublings()
    app = assistant(resample=resample)
    async with open_house(app=app) as house:
        caller = await house.call(Start(audio=AudioShape(8000)))
        pieces = spoken("abc")
        await talk_to(caller, *[_every_other(piece) for piece in pieces])
        completed = await caller.hear_a(TurnCompleted)

        assert completed.status == "completed"
        assert (8000, 16_000) in resample.made
        assert (16_000, 8000) in resample.made
        # Halved and doubled again, the words are hard to understand.
        assert len(caller.said(Transcript)) == 1


def _every_other(piece: bytes) -> bytes:
    return b"".join(piece[at : at + 2] for at in range(0, len(piece), 4))


@pytest.mark.spec("A135", "A91")
@pytest.mark.parametrize("shape", [AudioShape(8000), AudioShape(16_000, channels=2)])
async def test_caller_whose_audio_cannot_be_used_is_turned_away(
    autojump_clock: MockClock, shape: AudioShape
) -> None:
    async with open_house(app=assistant()) as house:
        caller = Caller(house.connect()[0])
        await caller.say(Start(audio=shape))

        assert (await caller.hear_to_the_end())[0] == CloseCode.PROTOCOL
        assert [it.code for it in caller.said(Error)] == [ErrorCode.AUDIO_FORMAT]


# Without a detector


def listening_only(**options: Any) -> VoiceApp:
    async def answer(ctx: StageContext) -> None:
        await ctx.send(ctx.inputs.get("text"))

    pipeline = Pipeline.from_stages(
        stage("listen", TranscribeStage(ScriptedRecognizer())),
        stage("answer", answer, after="listen"),
    )
    return VoiceApp(pipeline, says="answer", **options)


@pytest.mark.spec("A128")
async def test_without_a_detector_the_client_says_when_it_has_spoken(
    autojump_clock: MockClock,
) -> None:
    async with open_house(app=listening_only()) as house:
        caller = await house.call()
        for text in ("abc", "def"):
            await talk_to(caller, *spoken(text))
            await caller.say(End("turn"))
            await caller.hear_a(TurnCompleted)

        assert [it.text for it in caller.said(Transcript)] == ["abc", "def"]


@pytest.mark.spec("A128")
async def test_without_a_detector_an_utterance_ends_at_its_limit(
    autojump_clock: MockClock,
) -> None:
    app = listening_only(endpointing=Endpointing(max_utterance_ms=500, pre_roll_ms=0))
    async with open_house(app=app) as house:
        caller = await house.call()
        await talk_to(caller, *spoken("abc", seconds=0.5))
        await caller.hear_a(TurnCompleted)

        assert caller.said(Transcript)[0].text == "abc"


@pytest.mark.spec("A128", "A135")
async def test_without_a_detector_two_channels_fail_the_turn(autojump_clock: MockClock) -> None:
    async with open_house(app=listening_only(), max_failed_turns=math.inf) as house:
        caller = await house.call(Start(audio=AudioShape(16_000, channels=2)))
        await caller.say(UserAudio(bytes(640)))
        completed = await caller.hear_a(TurnCompleted)

        assert completed.error is not None
        assert completed.error.code == AudioFormatMismatchError.code
