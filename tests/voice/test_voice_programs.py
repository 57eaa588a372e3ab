"""Calls in which anything happens: what the client hears and what is remembered agree.

A program says what happens when: the user speaks, writes, interrupts, loses the
connection, comes back; the detector breaks, a stage fails or will not end. The client
keeps its own books of what its speaker plays, from what it receives and when.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import example, given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.errors import ConnectionLostError
from actorflow.memory import InMemoryStore
from actorflow.protocol import (
    End,
    Interrupt,
    Interrupted,
    ReplyAudio,
    ReplyText,
    ServerMessage,
    TurnCompleted,
    UserAudio,
    UserText,
)
from actorflow.server import ServerConfig
from actorflow.stages import StageContext
from actorflow.testing import ScriptedDetector, speech_audio
from actorflow.voice import VoiceApp, user_turn
from tests.server.caller import Caller, House, open_house
from tests.voice.assistant import answering, remembered

GRACE: Final = 8.0
POISON: Final = b"\x01\x80" * 320


class Fragile:
    """Breaks when it hears poison."""

    def __init__(self) -> None:
        self._inner = ScriptedDetector()
        self.sample_rate = self._inner.sample_rate
        self.frame_size = self._inner.frame_size

    def probability(self, frame: bytes) -> float:
        if POISON[:100] in frame:
            raise RuntimeError("broken")
        return self._inner.probability(frame)

    def reset(self) -> None:
        self._inner.reset()


@attrs.define
class Assistant:
    """Tells stories; some words make it fail, or hang on to what it does."""

    understood: dict[str, str] = attrs.field(factory=dict)

    async def __call__(self, ctx: StageContext) -> None:
        turn = user_turn(ctx).turn
        assert turn is not None
        text = ctx.inputs.get("text")
        self.understood[turn.id] = text
        for number in range(4):
            await ctx.send(f"{turn.id} says {number}".ljust(30) + "\n")
            await trio.sleep(0.2)
            if text == "fail" and number == 1:
                raise RuntimeError("failed")
        if text == "hang":
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
                await turn.send_text(f"{turn.id} is late")


# The client's own books


@attrs.define
class Answer:
    """What the client knows of the answer of one turn."""

    texts: list[tuple[float, str]] = attrs.field(factory=list)
    received_ms: float = 0.0
    played_ms: float = 0.0
    ended: str = ""

    def heard(self, played_ms: float) -> str:
        if not self.received_ms:
            return ""
        ends = [*(begin for begin, _ in self.texts[1:]), self.received_ms]
        pairs = zip(self.texts, ends, strict=False)
        return "".join(text for (_, text), end in pairs if end <= played_ms)


@attrs.define
class Speaker:
    """Plays what it gets as it comes, and knows at any moment how far it is."""

    answers: dict[str, Answer] = attrs.field(factory=dict)
    queue: deque[tuple[Answer, float]] = attrs.field(factory=deque)
    is_on: bool = True
    at: float = 0.0

    def advance(self, now: float) -> None:
        left = (now - self.at) * 1000 if self.is_on else 0.0
        self.at = now
        while self.queue and left > 0:
            answer, duration_ms = self.queue.popleft()
            played = min(left, duration_ms)
            answer.played_ms += played
            left -= played
            if played < duration_ms:
                self.queue.appendleft((answer, duration_ms - played))

    def take(self, message: ServerMessage, now: float) -> None:
        self.advance(now)
        match message:
            case ReplyText(turn_id=turn_id, delta=text):
                answer = self.answers.setdefault(turn_id, Answer())
                assert not answer.ended, message
                answer.texts.append((answer.received_ms, text))
            case ReplyAudio(turn_id=turn_id, duration_ms=duration_ms):
                answer = self.answers.setdefault(turn_id, Answer())
                assert not answer.ended, message
                answer.received_ms += duration_ms
                self.queue.append((answer, duration_ms))
            case TurnCompleted(turn_id=turn_id):
                answer = self.answers.setdefault(turn_id, Answer())
                assert not answer.ended, message
                answer.ended = "completed"
            case Interrupted(turn_id=str() as turn_id):
                answer = self.answers.setdefault(turn_id, Answer())
                assert not answer.ended, message
                answer.ended = "interrupted"
                self.queue.clear()


@attrs.define
class Phone:
    """A client that is always listening, as long as it has a connection."""

    house: House
    nursery: trio.Nursery
    speaker: Speaker = attrs.field(factory=Speaker)
    caller: Caller | None = None
    is_up: bool = False
    is_over: bool = False
    last_seq: int = 0

    async def call(self) -> None:
        self.went_up(await self.house.call())

    def went_up(self, caller: Caller) -> None:
        self.caller = caller
        self.is_up = True
        self.speaker.advance(trio.current_time())
        self.speaker.is_on = True
        self.nursery.start_soon(self.listen, caller)

    async def listen(self, caller: Caller) -> None:
        with suppress(ConnectionLostError):
            while True:
                before = len(caller.heard)
                await caller.hear()
                for numbered in caller.heard[before:]:
                    self.last_seq = max(self.last_seq, numbered.seq)
                    self.speaker.take(numbered.message, trio.current_time())
        if caller is self.caller and self.is_up:
            # Not we have cut it: the session is over.
            self.is_over, self.is_up = True, False
            self.speaker.advance(trio.current_time())
            self.speaker.is_on = False

    async def say(self, *messages: Any) -> None:
        if self.is_up and self.caller is not None:
            with suppress(ConnectionLostError):
                await self.caller.say(*messages)

    async def cut(self) -> None:
        if self.is_up and self.caller is not None:
            # What is on the line arrives before it breaks.
            await wait_all_tasks_blocked()
            self.is_up = False
            self.speaker.advance(trio.current_time())
            self.speaker.is_on = False
            self.caller.connection.cut()

    async def resume(self) -> None:
        if self.is_up or self.is_over or self.caller is None:
            return
        with suppress(ConnectionLostError):
            self.went_up(await self.house.resume(self.caller, last_seq=self.last_seq))
            return
        self.is_over = True


async def carry_out(program: list[tuple[str, float]], phone: Phone) -> None:
    for step, seconds in program:
        match step:
            case "speak" | "fail" | "hang":
                word = "abc" if step == "speak" else step
                audio = speech_audio(word, 0.6) + bytes(32 * 700)
                for begin in range(0, len(audio), 3200):
                    await trio.sleep(0.1)
                    await phone.say(UserAudio(audio[begin : begin + 3200]))
            case "write":
                await phone.say(UserText("write"))
            case "interrupt":
                await phone.say(Interrupt())
            case "end":
                await phone.say(End("turn"))
            case "poison":
                await phone.say(UserAudio(POISON))
            case "cut":
                await phone.cut()
            case "resume":
                await phone.resume()
        await trio.sleep(seconds)


async def play(program: list[tuple[str, float]]) -> None:
    store = InMemoryStore()
    assistant = Assistant()
    app = VoiceApp(
        answering(assistant),
        says="speak",
        detector=Fragile,
        memory=store,
        max_restarts=2,
        window=1000,
    )
    config: Any = {"resume_grace": GRACE, "replay_messages": 10_000, "max_failed_turns": 100}
    async with open_house(app=app, **config) as house, trio.open_nursery() as nursery:
        phone = Phone(house, nursery)
        await phone.call()
        assert phone.caller is not None
        assert phone.caller.ready is not None
        session_id = phone.caller.ready.session_id
        await trio.sleep(0.00731)
        await carry_out(program, phone)
        await trio.sleep(0.2)
        await phone.say(End("session"))
        await trio.sleep(4 * GRACE)
        assert house.states == {}
        nursery.cancel_scope.cancel()
    entries = await remembered(store, session_id)
    compare(entries, assistant, phone.speaker)


def compare(entries: list[tuple[str, str, bool]], assistant: Assistant, speaker: Speaker) -> None:
    answered = [(text, cut) for role, text, cut in entries if role == "assistant"]
    for turn_id, answer in speaker.answers.items():
        mine = [(text, cut) for text, cut in answered if text.startswith(f"{turn_id} ")]
        whole = "".join(text for _, text in answer.texts)
        if answer.ended == "completed":
            assert mine == ([(whole, False)] if whole else []), turn_id
        else:
            # To half a millisecond either way it is the same moment. Whether there would
            # have been more of the last piece the client cannot know.
            at = answer.played_ms
            heard = {answer.heard(at - 0.5), answer.heard(at + 0.5)}
            if at >= answer.received_ms - 0.5:
                heard.add("".join(text for _, text in answer.texts[:-1]))
            assert mine in [[(text, True)] if text else [] for text in heard], turn_id
    # And of no other turn anything.
    known = [f"{turn_id} " for turn_id in speaker.answers]
    assert all(text.startswith(tuple(known)) for text, _ in answered)
    said = [text for role, text, _ in entries if role == "user"]
    spoken = [text for text in said if text != "write"]
    assert spoken == [text for text in assistant.understood.values() if text != "write"]


steps = st.tuples(
    st.sampled_from(
        ["speak"] * 3
        + ["write"] * 3
        + ["interrupt"] * 3
        + ["cut", "resume"] * 2
        + ["fail", "hang", "poison", "end", "wait"]
    ),
    st.sampled_from([0.00517, 0.11317, 0.43751, 1.29133, 2.77377, 5.11939]),
)


@pytest.mark.spec("A136", "A102", "A129", "A98", "A107", "A131")
@settings(max_examples=40)
@given(st.lists(steps, max_size=10))
@example([("write", 1.29133), ("cut", 0.43751), ("resume", 0.43751), ("interrupt", 1.29133)])
@example([("write", 1.29133), ("cut", 5.11939), ("resume", 0.00517), ("write", 2.77377)])
@example([("write", 0.43751), ("write", 0.43751), ("cut", 5.11939), ("cut", 5.11939)])
@example([("hang", 1.29133), ("interrupt", 0.11317), ("speak", 1.29133), ("speak", 1.29133)])
@example([("poison", 0.11317)] * 4 + [("write", 1.29133)])
@example([("write", 2.77377), ("wait", 0.00517), ("speak", 0.0), ("fail", 2.77377)])
def test_client_and_memory_agree_on_what_was_heard(program: list[tuple[str, float]]) -> None:
    trio.run(play, program, clock=MockClock(autojump_threshold=0))


def test_settings_of_the_programs_are_possible() -> None:
    assert ServerConfig(resume_grace=GRACE).resume_grace == GRACE
