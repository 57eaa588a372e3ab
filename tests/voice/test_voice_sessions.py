"""Listening between turns, breaking in, being remembered, and breaking down."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import Child, Inbox
from actorflow.errors import ConnectionLostError
from actorflow.memory import InMemoryStore, MemoryConfig, MemoryEntry, MemoryFetchStage
from actorflow.pipeline import Pipeline, stage
from actorflow.protocol import (
    AudioShape,
    CloseCode,
    End,
    Flow,
    Interrupt,
    Interrupted,
    Played,
    ReplyAudio,
    ReplyText,
    Start,
    Transcript,
    TurnCompleted,
    TurnStarted,
    UserAudio,
    UserText,
)
from actorflow.server import Session
from actorflow.stages import StageContext
from actorflow.testing import ScriptedDetector, ScriptedRecognizer, Speech, run_call
from actorflow.voice import (
    BargeIn,
    Endpointing,
    SpeakStage,
    TranscribeStage,
    UserTurn,
    VoiceApp,
    user_turn,
)
from tests.server.caller import Caller, House, open_house
from tests.voice.assistant import SILENCE, answering, assistant, parrot, remembered, spoken, voice


async def talk(caller: Caller, *pieces: bytes) -> None:
    """Speak as fast as people do."""
    for piece in pieces:
        await trio.sleep(0.02)
        await caller.say(UserAudio(piece))


STORY = [str(number).ljust(49, "-") + "\n" for number in range(10)]


async def long_story(ctx: StageContext) -> None:
    """Ten sentences of a second each."""
    for sentence in STORY:
        await ctx.send(sentence)


def session_id_of(caller: Caller) -> str:
    assert caller.ready is not None
    return caller.ready.session_id


def events_of(house: House, type_: str) -> list[dict[str, Any]]:
    return [dict(it.data) for it in house.sink.events if it.type == type_]


# Listening


@pytest.mark.spec("A120", "A121")
async def test_what_is_said_is_understood_and_answered_aloud(autojump_clock: MockClock) -> None:
    async with open_house(app=assistant()) as house:
        caller = await house.call()
        await talk(caller, *[SILENCE] * 50, *spoken("abc"))
        await caller.hear_a(TurnCompleted)
        await talk(caller, *spoken("def"))
        await caller.hear_a(TurnCompleted)

        assert [it.text for it in caller.said(Transcript)] == ["abc", "def"]
        texts = [it.delta for it in caller.said(ReplyText)]
        assert (
            "".join(texts) == "You have said abc. What else is itYou have said def. What else is it"
        )
        played = sum(it.duration_ms for it in caller.said(ReplyAudio))
        assert played == sum(map(len, texts)) * 20
        (first, _) = events_of(house, "session.speech_started")
        assert first["at_ms"] == pytest.approx(1000, abs=32)
        ended = events_of(house, "session.speech_ended")
        assert [(it["ended_by"], it["is_ignored"]) for it in ended] == [("silence", False)] * 2
        assert ended[0]["at_ms"] == pytest.approx(1500 + 600, abs=64)


@pytest.mark.spec("A120", "A122")
async def test_detector_hears_every_byte_of_the_microphone_in_frames(
    autojump_clock: MockClock,
) -> None:
    @attrs.define
    class Recorder:
        sample_rate: int = 16_000
        frame_size: int = 100
        heard: bytes = b""
        resets: int = 0

        def probability(self, frame: bytes) -> float:
            assert len(frame) == 100
            self.heard += frame
            return 0.0

        def reset(self) -> None:
            self.resets += 1

    recorder = Recorder()
    async with open_house(app=assistant(detector=lambda: recorder)) as house:
        caller = await house.call()
        pieces = [bytes([number]) * (2 * number) for number in range(1, 30)]
        await talk(caller, *pieces)
        await caller.say(End("turn"))
        await wait_all_tasks_blocked()

        whole = b"".join(pieces)
        assert recorder.heard == whole.ljust(len(recorder.heard), b"\0")
        assert len(recorder.heard) - len(whole) < 100
        assert recorder.resets == 1


@pytest.mark.spec("A123")
async def test_client_that_ends_its_input_is_answered_at_once(autojump_clock: MockClock) -> None:
    async with open_house(app=assistant()) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc", pause=0))
        ended_at = trio.current_time()
        await caller.say(End("turn"))
        await caller.hear_a(TurnStarted)

        assert trio.current_time() == ended_at
        assert (await caller.hear_a(Transcript)).text == "abc"
        await caller.say(End("turn"))
        await caller.hear_a(TurnCompleted)
        assert house.sessions.statistics().turns == 1


@pytest.mark.spec("A120")
async def test_filters_stand_between_microphone_and_detector(autojump_clock: MockClock) -> None:
    async def quiet(ctx: StageContext) -> None:
        async for chunk in ctx.stream():
            await ctx.send(attrs.evolve(chunk, data=bytes(len(chunk.data))))

    async def count(ctx: StageContext) -> None:
        async for chunk in ctx.stream():
            counted.append(len(chunk.data))
            await ctx.send(chunk)

    counted: list[int] = []
    app = assistant(filters=[("count", count), ("quiet", quiet)])
    async with open_house(app=app) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc"))
        await wait_all_tasks_blocked()

        assert sum(counted) == sum(map(len, spoken("abc")))
        assert house.sessions.statistics().turns == 0


@pytest.mark.spec("A133", "A92")
async def test_audio_that_nobody_works_off_is_bounded_and_counted(
    autojump_clock: MockClock,
) -> None:
    async def stuck(ctx: StageContext) -> None:
        async for _ in ctx.stream():
            await trio.sleep_forever()

    app = assistant(filters=[("stuck", stuck)])
    async with open_house(app=app, inbound_ms=500) as house:
        caller = await house.call()
        await talk(caller, *[SILENCE] * 500)
        await wait_all_tasks_blocked()
        (session,) = house.sessions._all()

        assert session.microphone.peak_ms <= 500
        # Twenty-five pieces in the microphone; the edges hold a few.
        dropped = house.sessions.statistics().dropped
        assert 500 - 25 - 20 <= dropped <= 500 - 25
        assert [it.state for it in caller.said(Flow)] == []
        await caller.hear_a(Flow)


# Breaking in


@pytest.mark.spec("A124", "A97", "A98", "A100")
async def test_speech_into_an_answer_ends_it_and_is_answered(autojump_clock: MockClock) -> None:
    async with open_house(app=assistant(long_story)) as house:
        caller = await house.call()
        await caller.say(UserText("tell"))
        await trio.sleep(2)
        await talk(caller, *spoken("abc"))
        await caller.hear_a(Transcript)

        (interrupted,) = caller.said(Interrupted)
        assert interrupted.turn_id == "turn-1"
        # All of the words that interrupted are in the next turn.
        assert [it.text for it in caller.said(Transcript)] == ["abc"]
        (event,) = events_of(house, "session.interrupted")
        assert event["reason"] == "speech"
        assert event["played_ms"] == pytest.approx(2000 + 250, abs=64)
        canceled = events_of(house, "pipeline.canceled")
        assert [it["reason"] for it in canceled] == ["speech"]
        assert canceled[0]["pipeline_run_id"] == event["turn_run_id"]
        at = next(index for index, it in enumerate(caller.heard) if it.message == interrupted)
        later = [it.message for it in caller.heard[at + 1 :]]
        assert {getattr(it, "turn_id", "turn-2") for it in later} == {"turn-2"}


@pytest.mark.spec("A124")
async def test_mumbling_does_not_stop_the_answer(autojump_clock: MockClock) -> None:
    app = assistant(long_story, barge_in=BargeIn(min_speech_ms=400))
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserText("tell"))
        await talk(caller, *[SILENCE] * 50, *spoken("mhm", seconds=0.2))
        await caller.hear_a(TurnCompleted)

        assert caller.said(Interrupted) == []
        assert [it["is_ignored"] for it in events_of(house, "session.speech_ended")] == [True]
        assert house.sessions.statistics().turns == 1


@pytest.mark.spec("A125")
async def test_echo_of_the_answer_interrupts_nothing(autojump_clock: MockClock) -> None:
    async def over_the_speaker(caller: Caller) -> None:
        # What the client plays comes back through its microphone, half a second long.
        await caller.say(UserText("tell"))
        await trio.sleep(0.1)
        await talk(caller, *spoken("xyz", seconds=0.9, pause=0))
        await talk(caller, *[SILENCE] * 60)

    async def short(ctx: StageContext) -> None:
        await ctx.send("a second, or so, of what it is to say here now\n".ljust(50))

    for echo, turns, deaf in ((True, 1, True), (None, 2, False), ("yes", 2, False)):
        async with open_house(app=assistant(short)) as house:
            caller = await house.call(Start(metadata={"echo": echo}))
            await over_the_speaker(caller)
            assert house.sessions.statistics().turns == turns
            if deaf:
                assert events_of(house, "session.speech_started") == []
                # When it is over, people are listened to again.
                await talk(caller, *spoken("abc"))
                await wait_all_tasks_blocked()
                assert house.sessions.statistics().turns == 2


@pytest.mark.spec("A125")
async def test_protected_answer_is_heard_to_its_end(autojump_clock: MockClock) -> None:
    async def warn(ctx: StageContext) -> None:
        with user_turn(ctx).uninterrupted():
            await ctx.send("This call may be recorded, for whatever reason.".ljust(50) + "\n")
            await trio.sleep(1.5)
        await ctx.send("Now say something, that is what I am here for.".ljust(50) + "\n")
        await trio.sleep(2)

    async with open_house(app=assistant(warn)) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await talk(caller, *spoken("no"))
        assert caller.said(Interrupted) == []
        assert house.sessions.statistics().interrupted == 0
        await talk(caller, *spoken("abc"))

        assert house.sessions.statistics().interrupted == 1
        await caller.hear_a(Transcript)
        assert [it.text for it in caller.said(Transcript)] == ["abc"]


@pytest.mark.spec("A125")
async def test_protection_drops_what_was_begun_before_it(autojump_clock: MockClock) -> None:
    async def warn(ctx: StageContext) -> None:
        await trio.sleep(0.5)
        with user_turn(ctx).uninterrupted():
            await trio.sleep(2)

    app = assistant(warn, barge_in=BargeIn(is_allowed=False))
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await talk(caller, *spoken("cut", seconds=1, pause=0.5))
        assert len(events_of(house, "session.speech_started")) == 1
        await caller.hear_a(TurnCompleted)
        await talk(caller, *[SILENCE] * 50, *spoken("abc"))

        assert (await caller.hear_a(Transcript)).text == "abc"


@pytest.mark.spec("A125")
async def test_protection_ends_with_the_turn(autojump_clock: MockClock) -> None:
    async def hold(ctx: StageContext) -> None:
        with user_turn(ctx).uninterrupted(), trio.CancelScope(shield=True):
            await trio.sleep(3)

    async with open_house(app=assistant(hold)) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await trio.sleep(0.1)
        await caller.say(Interrupt())
        await caller.hear_a(Interrupted)
        await talk(caller, *spoken("abc"))
        await wait_all_tasks_blocked()

        assert len(events_of(house, "session.speech_started")) == 1


def test_protection_without_a_session_is_none_of_anybodys_business() -> None:
    said = UserTurn(text="hello")

    assert not said.is_uninterrupted
    with said.uninterrupted():
        assert said.is_uninterrupted
    assert not said.is_uninterrupted


@pytest.mark.spec("A124")
async def test_more_than_may_wait_is_not_answered(autojump_clock: MockClock) -> None:
    async def stubborn(ctx: StageContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    async with open_house(app=assistant(stubborn), queued_texts=1) as house:
        caller = await house.call()
        for text in ("abc", "def", "ghi"):
            await talk(caller, *spoken(text))
        await wait_all_tasks_blocked()

        # The first is being answered, though nobody wants it any more; the second waits.
        (overloaded,) = events_of(house, "session.overloaded")
        assert (overloaded["policy"], overloaded["dropped"]) == ("reject", 1)


# Memory


@pytest.mark.spec("A129", "A82")
async def test_exchange_is_remembered_for_the_next_turn(autojump_clock: MockClock) -> None:
    store = InMemoryStore()
    recalled: list[Any] = []

    async def answer(ctx: StageContext) -> None:
        entries = ctx.inputs.get_from("memory", "memory_entries")
        recalled.append([(it["role"], it["content"]) for it in entries])
        await ctx.send("It rains. ")
        await ctx.send("Take a coat.")

    pipeline = Pipeline.from_stages(
        stage("memory", MemoryFetchStage(store)),
        stage("listen", TranscribeStage(ScriptedRecognizer())),
        stage("answer", answer, after=("memory", "listen")),
        stage("speak", SpeakStage(voice()), stream_from="answer"),
    )
    app = VoiceApp(pipeline, says="speak", memory=store, detector=ScriptedDetector)
    async with open_house(app=app) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc"))
        await caller.hear_a(TurnCompleted)
        await caller.say(UserText("and now?"))
        await caller.hear_a(TurnCompleted)
        await wait_all_tasks_blocked()
        (run_id, _) = [it.pipeline_run_id for it in caller.said(TurnStarted)]
        entries = await store.fetch(session_id_of(caller), MemoryConfig())

        exchange = [("user", "abc"), ("assistant", "It rains. Take a coat.")]
        assert recalled == [[], exchange]
        assert [it.id for it in entries[:2]] == [f"{run_id}_user", f"{run_id}_assistant"]
        assert await remembered(store, session_id_of(caller)) == [
            ("user", "abc", False),
            ("assistant", "It rains. Take a coat.", False),
            ("user", "and now?", False),
            ("assistant", "It rains. Take a coat.", False),
        ]


@pytest.mark.spec("A129", "A82", "A102")
@pytest.mark.parametrize("reported", [None, 1100])
async def test_of_an_answer_that_is_broken_off_only_what_was_heard_is_remembered(
    autojump_clock: MockClock, reported: float | None
) -> None:
    store = InMemoryStore()
    async with open_house(app=assistant(long_story, memory=store)) as house:
        caller = await house.call()
        await caller.say(UserText("tell"))
        await trio.sleep(2.5)
        if reported is not None:
            await caller.say(Played("turn-1", reported))
        await caller.say(Interrupt())
        await caller.hear_a(Interrupted)
        await wait_all_tasks_blocked()

        heard = STORY[0] + STORY[1] if reported is None else STORY[0]
        assert await remembered(store, session_id_of(caller)) == [
            ("user", "tell", False),
            ("assistant", heard, True),
        ]


@pytest.mark.spec("A129", "A110", "A82")
@pytest.mark.parametrize("away", ["for good", "for a while", "saying goodbye", "server closed"])
async def test_memory_knows_what_a_client_that_left_has_heard(
    autojump_clock: MockClock, away: str
) -> None:
    store = InMemoryStore()
    app = assistant(long_story, memory=store)
    # Little room, so that there is a run to end.
    async with open_house(app=app, outbound_messages=8, resume_grace=6) as house:
        caller = await house.call()
        session_id = session_id_of(caller)
        await caller.say(UserText("tell"))
        await trio.sleep(1.5)
        if away == "saying goodbye":
            await caller.say(End("session"))
            await caller.hear_to_the_end()
        elif away in ("for good", "for a while"):
            caller.connection.cut()
            await trio.sleep(5)
            assert await remembered(store, session_id) == []
        if away == "for good":
            await trio.sleep(60)
        elif away == "for a while":
            again = await house.resume(caller)
            await again.hear_a(TurnCompleted)
            await wait_all_tasks_blocked()

    heard = ("".join(STORY), False) if away == "for a while" else (STORY[0], True)
    assert await remembered(store, session_id) == [
        ("user", "tell", False),
        ("assistant", *heard),
    ]
    reasons = {
        "for good": ["client_gone"],
        "for a while": [],
        "saying goodbye": ["ended by the client"],
        # Its task is ended from around it.
        "server closed": ["Cancelled by enclosing scope"],
    }
    canceled = events_of(house, "pipeline.canceled")
    assert [it["reason"] for it in canceled if it["topology"] == "assistant"] == reasons[away]


@pytest.mark.spec("A129")
async def test_nothing_is_remembered_of_what_was_neither_understood_nor_answered(
    autojump_clock: MockClock,
) -> None:
    store = InMemoryStore()

    async def slow(ctx: StageContext) -> None:
        await trio.sleep(5)
        await ctx.send("too late")

    async with open_house(app=assistant(slow, memory=store)) as house:
        caller = await house.call()
        # Noise: the recognizer finds no word in it.
        await talk(caller, *[b"\xff\x7f" * 320] * 30, *[SILENCE] * 50)
        completed = await caller.hear_a(TurnCompleted)
        assert completed.status == "canceled"
        await talk(caller, *spoken("abc"))
        await talk(caller, *spoken("def"))
        await caller.hear_a(TurnCompleted)
        await wait_all_tasks_blocked()

        assert await remembered(store, session_id_of(caller)) == [
            ("user", "abc", False),
            ("user", "def", False),
            ("assistant", "too late", False),
        ]


@attrs.define
class Unreliable:
    """A store that fails, hangs, and then works."""

    moods: list[str]
    written: list[list[str]] = attrs.field(factory=list)

    async def fetch(self, session_id: UUID, config: MemoryConfig) -> list[MemoryEntry]:
        raise AssertionError(session_id)

    async def write(self, entry: MemoryEntry) -> None:
        raise AssertionError(entry)

    async def write_all(self, entries: Sequence[MemoryEntry]) -> None:
        mood = self.moods.pop(0)
        if mood == "fail":
            raise OSError("no space left")
        if mood == "hang":
            await trio.sleep_forever()
        self.written.append([entry.content for entry in entries])

    async def clear(self, session_id: UUID) -> int:
        raise AssertionError(session_id)


@pytest.mark.spec("A129", "A132")
async def test_store_that_fails_or_hangs_ends_no_session(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unreliable(["fail", "hang", "work"])
    async with open_house(app=assistant(memory=store, memory_timeout=3)) as house:
        caller = await house.call()
        took = []
        for text in ("one", "two", "three"):
            begun_at = trio.current_time()
            await caller.say(UserText(text))
            await caller.hear_a(TurnCompleted)
            took.append(round(trio.current_time() - begun_at, 1))
        await wait_all_tasks_blocked()

        assert store.written == [["three", "You have said three. What else is it"]]
        # The third turn has waited for the second to be remembered.
        assert took[2] > took[0] + 2.5
        messages = [it.message for it in caplog.records if it.name == "actorflow.voice"]
        assert messages == ["exchange_not_remembered", "exchange_not_remembered_in_time"]
        # Not what was said.
        assert "three" not in caplog.text


# Breaking down


@attrs.define
class Fragile:
    """A detector that breaks when it hears a certain frame."""

    made: list[Fragile]
    inner: ScriptedDetector = attrs.field(factory=ScriptedDetector)

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def frame_size(self) -> int:
        return self.inner.frame_size

    def probability(self, frame: bytes) -> float:
        if b"\x01\x80" * 40 in frame:
            raise RuntimeError("broken")
        return self.inner.probability(frame)

    def reset(self) -> None:
        self.inner.reset()

    @classmethod
    def maker(cls, made: list[Fragile]) -> Fragile:
        made.append(cls(made))
        return made[-1]


POISON = b"\x01\x80" * 320


@pytest.mark.spec("A131")
async def test_hearing_that_breaks_begins_anew_and_the_call_goes_on(
    autojump_clock: MockClock,
) -> None:
    made: list[Fragile] = []
    app = assistant(long_story, detector=partial(Fragile.maker, made))
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserText("tell"))
        # In the middle of a word, which is not lost.
        words = spoken("abc", seconds=0.4)
        await talk(caller, *words[:10], POISON, *words[10:])
        await wait_all_tasks_blocked()

        assert [it["restarts"] for it in events_of(house, "session.hearing_restarted")] == [1]
        assert len(made) == 2
        await caller.hear_a(Interrupted)
        assert (await caller.hear_a(Transcript)).text.startswith("abc")
        assert house.states == {"in_turn": 1}


@pytest.mark.spec("A131")
async def test_second_life_of_hearing_has_a_converter_of_its_own(autojump_clock: MockClock) -> None:
    class Breaking:
        """What once has broken stays broken."""

        is_broken = False

        def convert(self, samples: bytes) -> bytes:
            self.is_broken = self.is_broken or samples == POISON
            if self.is_broken:
                raise RuntimeError("broken")
            return b"".join(samples[at : at + 2] * 2 for at in range(0, len(samples), 2))

        def flush(self) -> bytes:
            return b""

    app = assistant(resample=lambda _, __: Breaking())
    async with open_house(app=app) as house:
        caller = await house.call(Start(audio=AudioShape(8000)))
        await talk(caller, POISON, *[SILENCE] * 10)
        await wait_all_tasks_blocked()

        assert [it["restarts"] for it in events_of(house, "session.hearing_restarted")] == [1]
        assert house.states == {"idle": 1}


@pytest.mark.spec("A131", "A85")
async def test_hearing_that_breaks_too_often_ends_its_session_only(
    autojump_clock: MockClock,
) -> None:
    store = InMemoryStore()
    app = assistant(
        long_story, detector=partial(Fragile.maker, []), memory=store, max_restarts=2, window=10
    )
    async with open_house(app=app) as house:
        caller, other = await house.call(), await house.call()
        await caller.say(UserText("tell"))
        await trio.sleep(1.5)
        with suppress(ConnectionLostError):
            await talk(caller, *[POISON] * 20)
        code, _ = await caller.hear_to_the_end()

        assert code == CloseCode.INTERNAL
        await wait_all_tasks_blocked()
        assert house.states == {"idle": 1}
        # What was heard is remembered all the same.
        (_, (role, _, is_broken_off)) = await remembered(store, session_id_of(caller))
        assert (role, is_broken_off) == ("assistant", True)
        await other.say(UserText("hello"))
        await other.hear_a(ReplyAudio)


@pytest.mark.spec("A132", "A85")
async def test_stage_that_breaks_fails_its_turn_only(autojump_clock: MockClock) -> None:
    async def sometimes(ctx: StageContext) -> None:
        if ctx.inputs.get("text") == "abc":
            raise RuntimeError("broken")
        await parrot(ctx)

    store = InMemoryStore()
    async with open_house(app=assistant(sometimes, memory=store)) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc"))
        failed = await caller.hear_a(TurnCompleted)
        await talk(caller, *spoken("def"))
        completed = await caller.hear_a(TurnCompleted)
        await wait_all_tasks_blocked()

        assert (failed.status, completed.status) == ("failed", "completed")
        assert events_of(house, "session.hearing_restarted") == []
        roles = [role for role, _, _ in await remembered(store, session_id_of(caller))]
        assert roles == ["user", "user", "assistant"]


@pytest.mark.spec("A132")
async def test_companions_live_and_die_with_the_session(autojump_clock: MockClock) -> None:
    happened: list[str] = []

    def companions(session: Session) -> list[Child[Any]]:
        async def count(inbox: Inbox[Any]) -> None:
            happened.append(f"began for {session.id}")
            async for _ in inbox:
                raise AssertionError
            happened.append("ended")

        return [Child("counter", count)]

    async with open_house(app=assistant(companions=companions)) as house:
        caller = await house.call()
        tree = str(house.sessions._system.tree())
        assert "counter" in tree
        assert "hearing" in tree
        await caller.say(End("session"))
        await caller.hear_to_the_end()
        await wait_all_tasks_blocked()

    assert happened == [f"began for {session_id_of(caller)}", "ended"]


@pytest.mark.spec("A120", "A136")
def test_call_by_script_is_the_same_every_time() -> None:
    def call() -> tuple[Any, ...]:
        app = VoiceApp(answering(long_story), says="speak", detector=ScriptedDetector)
        script = (Speech(1, "hello"), Speech(4, "stop", 0.5), Speech(9, "again", 0.8))
        record = run_call(app, *script, seed=7)
        return record.heard, record.events

    assert call() == call()


@pytest.mark.spec("A121")
async def test_endpointing_can_be_chosen(autojump_clock: MockClock) -> None:
    patient = Endpointing(silence_ms=2000)
    async with open_house(app=assistant(endpointing=patient)) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc", pause=1), *spoken("def", pause=2.1))
        await caller.hear_a(TurnCompleted)

        assert [it.text for it in caller.said(Transcript)] == ["abc def"]


@pytest.mark.spec("A136", "A105")
async def test_nothing_holds_on_to_a_session_that_is_over(autojump_clock: MockClock) -> None:
    app = assistant(memory=InMemoryStore())
    async with open_house(app=app) as house:
        caller = await house.call()
        await talk(caller, *spoken("abc"))
        await caller.hear_a(TurnCompleted)
        (session,) = house.sessions._all()
        gone = weakref.ref(session)
        del session
        await caller.say(End("session"))
        await caller.hear_to_the_end()
        await wait_all_tasks_blocked()
        gc.collect()

        assert gone() is None
