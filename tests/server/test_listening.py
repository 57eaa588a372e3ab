"""Applications that listen for themselves, and what clients are told of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow.actors import Actor, Child, Inbox, Supervisor
from actorflow.errors import (
    AudioFormatMismatchError,
    InvalidArgumentError,
    UnifiedPipelineCancelled,
)
from actorflow.events import BoundEventSink
from actorflow.model import AudioChunk
from actorflow.pipeline import Pipeline, stage
from actorflow.protocol import (
    CloseCode,
    End,
    Error,
    ErrorCode,
    Interrupt,
    Interrupted,
    Played,
    ReplyAudio,
    ReplyText,
    ServerEvent,
    Start,
    TurnCompleted,
    TurnStarted,
    UserAudio,
    UserText,
)
from actorflow.server import ListeningApp, ServerConfig, Session, Turn
from actorflow.server._forwarding import is_forwarded
from actorflow.stages import StageContext
from actorflow.testing import RecordingEventSink
from tests.server.caller import PIECE, Caller, echo, open_house

Answer = Callable[[Session, Turn], Awaitable[None]]


@attrs.define
class Ears(ListeningApp):
    """Listens to everything, and answers as it is told."""

    answer: Answer = echo
    heard: list[AudioChunk] = attrs.field(factory=list)
    session: Session | None = None
    happened: list[str] = attrs.field(factory=list)

    def on_session(self, session: Session) -> Supervisor:
        self.session = session
        microphone = session.take_microphone()

        async def listen(inbox: Inbox[Any]) -> None:
            async for chunk in microphone:
                self.heard.append(chunk)
                if chunk.data == b"\4\0":
                    raise RuntimeError("broken")

        return Supervisor(Child("ears", listen, restart="transient"), max_restarts=1)

    async def on_turn(self, session: Session, turn: Turn) -> None:
        try:
            await self.answer(session, turn)
        finally:
            self.happened.append(turn.id)


async def speak_for_long(session: Session, turn: Turn) -> None:
    await turn.send_text("one ")
    await turn.send_audio(PIECE * 50)
    await turn.send_text("two ")
    await turn.send_audio(PIECE * 50)
    await turn.send_text("three")


# Listening


@pytest.mark.spec("A119d")
async def test_whoever_has_the_microphone_hears_what_begins_no_turn(
    autojump_clock: MockClock,
) -> None:
    app = Ears()
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserAudio(PIECE), UserAudio(PIECE))
        await wait_all_tasks_blocked()

        assert house.states == {"idle": 1}
        assert [chunk.data for chunk in app.heard] == [PIECE, PIECE]
        assert [chunk.timestamp_ms for chunk in app.heard] == [0, 20]


@pytest.mark.spec("A119d")
async def test_end_of_input_is_marked_where_it_came(autojump_clock: MockClock) -> None:
    app = Ears()
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserAudio(PIECE), End("turn"), UserAudio(PIECE), UserAudio(PIECE))
        await wait_all_tasks_blocked()
        await caller.say(End("turn"))
        await wait_all_tasks_blocked()

    # Who was quick enough to have read everything gets the mark on a chunk of its own.
    ends = [number for number, chunk in enumerate(c for c in app.heard) if chunk.is_final]
    marked = [sum(len(c.data) for c in app.heard[: number + 1]) for number in ends]
    assert marked == [len(PIECE), 3 * len(PIECE)]


@pytest.mark.spec("A95", "A119d")
async def test_ends_of_input_that_nobody_reads_are_bounded(autojump_clock: MockClock) -> None:
    microphones: list[AsyncIterator[AudioChunk]] = []

    class Late(Ears):
        def on_session(self, session: Session) -> Supervisor:
            microphones.append(session.take_microphone())
            return Supervisor()

    async with open_house(app=Late(), inbound_ms=100) as house:
        caller = await house.call()
        for _ in range(2000):
            await caller.say(UserAudio(PIECE), End("turn"), End("turn"))
        await wait_all_tasks_blocked()

        heard = []
        with trio.move_on_after(1):
            async for chunk in microphones[0]:
                heard.append(chunk)
    assert sum(len(chunk.data) for chunk in heard) == 5 * len(PIECE)
    assert len([chunk for chunk in heard if not chunk.data]) < 1001
    assert all(chunk.is_final for chunk in heard)


@pytest.mark.spec("A119d")
async def test_microphone_outlives_turns_and_interruptions(autojump_clock: MockClock) -> None:
    unread = {}

    async def busy(session: Session, turn: Turn) -> None:
        unread[turn.id] = len(session.microphone)
        async for _ in turn.audio():
            raise AssertionError("the microphone is not the turn's")
        if turn.text == "long":
            await trio.sleep_forever()

    class Slow(Ears):
        def on_session(self, session: Session) -> Supervisor:
            session.take_microphone()
            return Supervisor()

    app = Slow(busy)
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserAudio(PIECE), UserText("short"))
        await caller.hear_a(TurnCompleted)
        await caller.say(UserText("long"))
        await wait_all_tasks_blocked()
        await caller.say(UserAudio(PIECE))
        await wait_all_tasks_blocked()
        await caller.say(Interrupt(), UserText("short"))
        await caller.hear_a(TurnCompleted)

    assert unread == {"turn-1": 1, "turn-2": 1, "turn-3": 2}


@pytest.mark.spec("A119d")
async def test_draining_session_is_deaf(autojump_clock: MockClock) -> None:
    async def slow(session: Session, turn: Turn) -> None:
        await trio.sleep(1)

    app = Ears(slow)
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnStarted)
        house.nursery.start_soon(house.sessions.drain)
        await wait_all_tasks_blocked()
        await caller.say(UserAudio(PIECE))
        await wait_all_tasks_blocked()
        assert app.session is not None
        assert not app.session.begin_turn("another")
        await caller.hear_to_the_end()

    assert app.heard == []


# Beginning turns


@pytest.mark.spec("A119d")
async def test_application_begins_turns_about_anything(autojump_clock: MockClock) -> None:
    prompts: list[object] = []

    async def remember(session: Session, turn: Turn) -> None:
        prompts.append((turn.prompt, turn.text))
        await trio.sleep(1)

    app = Ears(remember)
    async with open_house(app=app, queued_texts=1) as house:
        caller = await house.call()
        assert app.session is not None
        assert not app.session.is_answering
        assert app.session.begin_turn(("some", "words"))
        assert app.session.is_answering
        assert app.session.begin_turn("text")
        assert not app.session.begin_turn("one too many")
        with pytest.raises(InvalidArgumentError):
            app.session.begin_turn(None)
        for _ in range(2):
            await caller.hear_a(TurnCompleted)
        app.session.close()
        assert not app.session.begin_turn("too late")

    assert prompts == [(("some", "words"), None), ("text", "text")]


@pytest.mark.spec("A97")
async def test_turn_that_a_stage_ends_early_is_canceled(autojump_clock: MockClock) -> None:
    async def end(session: Session, turn: Turn) -> None:
        raise UnifiedPipelineCancelled("listen", "nothing to say", {}, (), "answer", None)

    async with open_house(end) as house:
        caller = await house.call()
        # More of them than turns may fail.
        for number in range(1, 5):
            await caller.say(UserText("hello"))
            completed = await caller.hear_a(TurnCompleted)
            assert completed == TurnCompleted(f"turn-{number}", "canceled", 0.0)


# Company


@pytest.mark.spec("A83", "A119c")
async def test_companion_ends_after_the_turns(autojump_clock: MockClock) -> None:
    async def wait(session: Session, turn: Turn) -> None:
        await trio.sleep_forever()

    class Keeper(Ears):
        def on_session(self, session: Session) -> Supervisor:
            async def keep(inbox: Inbox[Any]) -> None:
                async for _ in inbox:
                    pass
                self.happened.append("stopped")

            return Supervisor(Child("keeper", keep))

    app = Keeper(wait)
    async with open_house(app=app) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnStarted)
        await caller.say(End("session"))
        await caller.hear_to_the_end()
        await house.sessions.drain()

        assert app.happened == ["turn-1", "stopped"]


@pytest.mark.spec("A119c")
async def test_companion_restarts_within_its_budget_and_no_longer(
    autojump_clock: MockClock,
) -> None:
    app = Ears()
    async with open_house(app=app) as house:
        caller, other = await house.call(), await house.call()
        await caller.say(UserAudio(b"\4\0"), UserAudio(PIECE), UserText("hello"))
        await caller.hear_a(TurnCompleted)
        await wait_all_tasks_blocked()
        assert [chunk.data for chunk in app.heard] == [b"\4\0", PIECE]
        await caller.say(UserAudio(b"\4\0"))

        assert await caller.hear_to_the_end() == (CloseCode.INTERNAL, "the session crashed")
        await wait_all_tasks_blocked()
        assert house.states == {"idle": 1}
        await other.say(UserText("hello"))
        assert (await other.hear_a(TurnCompleted)).status == "completed"


@attrs.define
class Unwilling(ListeningApp):
    begin: Callable[[], Supervisor]

    def on_session(self, session: Session) -> Supervisor:
        return self.begin()

    async def on_turn(self, session: Session, turn: Turn) -> None:
        raise AssertionError(turn)


def _wrong_rate() -> Supervisor:
    raise AudioFormatMismatchError("audio", (8000,), "16000 Hz")


def _broken() -> Supervisor:
    raise RuntimeError("broken")


def _never_starts() -> Supervisor:
    class Stubborn(Actor[Any]):
        async def on_start(self) -> None:
            raise RuntimeError("broken")

        async def receive(self, message: object) -> None:
            raise AssertionError(message)

    return Supervisor(Child("stubborn", Stubborn), max_restarts=0)


@pytest.mark.spec("A91", "A85", "A119c")
@pytest.mark.parametrize(
    ("begin", "code", "error"),
    [
        (_wrong_rate, CloseCode.PROTOCOL, ErrorCode.AUDIO_FORMAT),
        (_broken, CloseCode.INTERNAL, ErrorCode.TURN_FAILED),
        (_never_starts, CloseCode.INTERNAL, ErrorCode.TURN_FAILED),
    ],
)
async def test_client_is_turned_away_when_the_application_cannot_listen(
    autojump_clock: MockClock, begin: Callable[[], Supervisor], code: int, error: str
) -> None:
    async with open_house(app=Unwilling(begin)) as house:
        connection, _ = house.connect()
        caller = Caller(connection)
        await caller.say(Start())

        assert (await caller.hear_to_the_end())[0] == code
        assert [it.code for it in caller.said(Error)] == [error]
        await wait_all_tasks_blocked()
        assert house.states == {}


@attrs.define
class Ending:
    """A sink that does something when a session is opened."""

    happens: Callable[[], object]
    events: RecordingEventSink = attrs.field(factory=RecordingEventSink)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        await self.events.emit(type=type, data=data)
        if type == "session.opened":
            self.happens()

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool | None:
        return self.events.try_emit(type=type, data=data)


@pytest.mark.spec("A115", "A83")
async def test_session_that_ends_before_it_has_a_connection_closes_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = Ears()

    def close() -> None:
        assert app.session is not None
        app.session.close("closed at once")

    async with open_house(app=app, recording=Ending(close)) as house:
        caller = Caller(house.connect()[0])
        await caller.say(Start())

        assert await caller.hear_to_the_end() == (CloseCode.NORMAL, "closed at once")
    assert caplog.records == []


@pytest.mark.spec("A115", "A83")
async def test_session_that_is_drained_while_it_is_connected_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in range(40):
        async with open_house() as house:
            caller = Caller(house.connect()[0])
            await caller.say(Start())
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await house.sessions.drain()

            assert await caller.hear_to_the_end() == (CloseCode.GOING_AWAY, "server_shutdown")
    assert caplog.records == []


@pytest.mark.spec("A115", "A83")
async def test_session_whose_server_ends_while_it_is_connected_crashes_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in range(40):
        async with open_house() as house:
            caller = Caller(house.connect()[0])
            await caller.say(Start(), UserText("hello"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
    assert caplog.records == []


@pytest.mark.spec("A83", "A106")
async def test_session_that_is_closed_while_it_loses_its_connection_is_closed_in_order(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in range(20):

        async def close(session: Session, turn: Turn, steps: int = steps) -> None:
            while session.link is not None and session.link.lost is None:
                await trio.lowlevel.checkpoint()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            session.close()

        async with open_house(close) as house:
            caller = await house.call()
            await caller.say(UserText("hello"))
            await caller.hear_a(TurnStarted)
            await caller.connection.abort()
            await wait_all_tasks_blocked()

            assert house.sink.assert_emitted("session.closed")["code"] == CloseCode.NORMAL
    assert caplog.records == []


# What was heard


@attrs.define
class Scribe:
    """Notes what is known of each turn when that is all there is to know."""

    notes: dict[str, tuple[float, str, bool]] = attrs.field(factory=dict)
    nursery: trio.Nursery | None = None

    async def __call__(self, session: Session, turn: Turn) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(self.note, turn)
        await speak_for_long(session, turn)

    async def note(self, turn: Turn) -> None:
        await turn.wait_settled()
        assert turn.is_settled
        played = turn.playback
        self.notes[turn.id] = (trio.current_time(), played.heard_text(), played.is_closed)


@pytest.mark.spec("A98", "A102")
async def test_turn_is_settled_when_it_is_interrupted(autojump_clock: MockClock) -> None:
    scribe = Scribe()
    async with open_house(scribe) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        begun_at = trio.current_time()
        await caller.say(UserText("speak"))
        await trio.sleep(1.5)
        await caller.say(Interrupt())
        await wait_all_tasks_blocked()

        assert scribe.notes == {"turn-1": (begun_at + 1.5, "one ", True)}


@pytest.mark.spec("A102", "A110")
async def test_what_was_on_its_way_to_a_client_that_left_was_not_played(
    autojump_clock: MockClock,
) -> None:
    turns: list[Turn] = []

    async def speak(session: Session, turn: Turn) -> None:
        turns.append(turn)
        await turn.send_audio(PIECE * 500)

    async with open_house(speak) as house:
        caller = await house.call()
        await caller.say(UserText("speak"))
        await trio.sleep(1)
        caller.connection.cut()
        await trio.sleep(60)

        assert house.states == {}
    (turn,) = turns
    assert turn.playback.acknowledged_ms == pytest.approx(1000)


@pytest.mark.spec("A99")
async def test_what_is_said_too_late_is_counted(autojump_clock: MockClock) -> None:
    async def insist(session: Session, turn: Turn) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            await turn.send_text("late", is_final=True)

    async with open_house(insist) as house:
        caller = await house.call()
        await caller.say(UserText("speak"))
        await caller.hear_a(TurnStarted)
        await caller.say(Interrupt())
        await trio.sleep(2)

        assert house.sessions.statistics().stale == 1


async def test_session_knows_how_long_it_can_be_heard(autojump_clock: MockClock) -> None:
    app = Ears(speak_for_long)
    async with open_house(app=app) as house:
        caller = await house.call()
        assert app.session is not None
        assert app.session.audible_until < trio.current_time()
        begun_at = trio.current_time()
        await caller.say(UserText("speak"))
        await caller.hear_a(TurnCompleted)

        assert app.session.audible_until == pytest.approx(begun_at + 2)


@pytest.mark.spec("A102", "A106")
async def test_turn_of_a_client_that_comes_back_is_settled_then(
    autojump_clock: MockClock,
) -> None:
    scribe = Scribe()
    async with open_house(scribe) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        await caller.say(UserText("speak"))
        await caller.hear_a(ReplyAudio)
        await trio.sleep(0.5)
        caller.connection.cut()
        await trio.sleep(5)
        assert scribe.notes == {}

        back_at = trio.current_time()
        await house.resume(caller)
        await wait_all_tasks_blocked()
        (at, _, is_broken_off) = scribe.notes["turn-1"]
        assert (at, is_broken_off) == (back_at, False)


@pytest.mark.spec("A102", "A110")
@pytest.mark.parametrize(
    ("away_after", "heard"), [(0.5, ""), (1.5, "one "), (2.05, "one two three")]
)
async def test_what_a_client_that_does_not_come_back_has_heard(
    autojump_clock: MockClock, away_after: float, heard: str
) -> None:
    scribe = Scribe()
    async with open_house(scribe, resume_grace=30) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        await caller.say(UserText("speak"))
        await caller.hear_a(TurnStarted)
        await trio.sleep(away_after)
        caller.connection.cut()
        await trio.sleep(60)

        (_, text, is_broken_off) = scribe.notes["turn-1"]
        if is_broken_off:
            assert text == heard
        else:
            # It was over before the client left.
            assert away_after > 2
        assert house.states == {}


@pytest.mark.spec("A102", "A110")
async def test_turn_that_begins_while_nobody_is_there_was_not_heard(
    autojump_clock: MockClock,
) -> None:
    scribe = Scribe()
    async with open_house(scribe, resume_grace=30) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        await caller.say(UserText("speak"), UserText("and again"))
        await caller.hear_a(ReplyAudio)
        await trio.sleep(0.2)
        caller.connection.cut()
        await trio.sleep(60)

        assert [(text, cut) for _, text, cut in scribe.notes.values()] == [("", True), ("", True)]


@pytest.mark.spec("A102", "A110")
async def test_text_for_a_client_that_is_away_was_not_read(autojump_clock: MockClock) -> None:
    async def write(session: Session, turn: Turn) -> None:
        house.nursery.start_soon(scribe.note, turn)
        await turn.send_text("here ")
        await trio.sleep(2)
        await turn.send_text("gone ")

    scribe = Scribe()
    async with open_house(write, resume_grace=30) as house:
        caller = await house.call()
        await caller.say(UserText("write"))
        await caller.hear_a(ReplyText)
        caller.connection.cut()
        await trio.sleep(60)

        assert scribe.notes["turn-1"][1:] == ("here ", True)


@pytest.mark.spec("A102", "A107")
async def test_what_is_replayed_is_heard_when_it_is_played(autojump_clock: MockClock) -> None:
    scribe = Scribe()
    async with open_house(scribe, lead_ms=100) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        await caller.say(UserText("speak"))
        await caller.hear_a(ReplyAudio)
        await trio.sleep(0.2)
        caller.connection.cut()
        await trio.sleep(1.3)
        again = await house.resume(caller)
        # 1.5 seconds were sent, of which 0.2 had been played.
        await trio.sleep(0.5)
        await again.say(Interrupt())
        await wait_all_tasks_blocked()

        assert scribe.notes["turn-1"][1:] == ("", True)


@pytest.mark.spec("A102", "A110")
async def test_reports_of_the_client_outweigh_the_clock_when_it_is_gone(
    autojump_clock: MockClock,
) -> None:
    scribe = Scribe()
    async with open_house(scribe, resume_grace=30) as house:
        scribe.nursery = house.nursery
        caller = await house.call()
        await caller.say(UserText("speak"))
        await caller.hear_a(ReplyAudio)
        await trio.sleep(1.5)
        await caller.say(Played("turn-1", 300))
        await wait_all_tasks_blocked()
        caller.connection.cut()
        await trio.sleep(60)

        assert scribe.notes["turn-1"][1:] == ("", True)


# Events for clients


@pytest.mark.spec("A119a")
@pytest.mark.parametrize(
    ("type_", "patterns", "expected"),
    [
        ("stage.started", (), False),
        ("stage.started", ("stage.*",), True),
        ("stage.started", ("pipeline.*", "*"), True),
        ("guardrail.fail_open", ("*",), False),
        ("guardrail.fail_open", ("*.fail_open",), False),
        ("guardrail.fail_open", ("guardrail.fail_open",), True),
        ("tool.invoked", ("*", "t*"), False),
        ("tool.invoked", ("tool.*",), True),
        ("tools.counted", ("*",), True),
    ],
)
def test_client_is_told_of_what_was_asked_for(
    type_: str, patterns: tuple[str, ...], expected: bool
) -> None:
    assert is_forwarded(type_, patterns) is expected


def test_one_pattern_may_stand_alone() -> None:
    assert ServerConfig(forward_events="stage.*").forward_events == ("stage.*",)


@pytest.mark.spec("A119a", "A119b")
async def test_client_follows_the_run_of_its_turn(autojump_clock: MockClock) -> None:
    @stage
    async def listen(ctx: StageContext) -> None:
        ctx.try_emit_event("shop.noticed", {"words": 2})

    pipeline = Pipeline.from_stages(listen, name="answer")

    async def run(session: Session, turn: Turn) -> None:
        await pipeline.run(pipeline_run_id=turn.run_id, event_sink=session.event_sink)

    async with open_house(run, forward_events=("pipeline.*", "stage.*", "shop.*")) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        started = await caller.hear_a(TurnStarted)
        await caller.hear_a(TurnCompleted)

        told = caller.said(ServerEvent)
        types = [it.event for it in told]
        assert types[0] == "pipeline.started"
        assert types[-1] == "pipeline.completed"
        assert {"shop.noticed", "stage.completed"} <= set(types)
        assert {it.data["pipeline_run_id"] for it in told} == {started.pipeline_run_id}
        assert {event.type for event in house.sink.events} >= set(types)


@pytest.mark.spec("A119a")
async def test_nothing_is_forwarded_unless_asked_for(autojump_clock: MockClock) -> None:
    async def report(session: Session, turn: Turn) -> None:
        await BoundEventSink(session.event_sink).emit(type="my.event", data={})

    async with open_house(report) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnCompleted)

        assert caller.said(ServerEvent) == []


@pytest.mark.spec("A119a")
async def test_client_that_does_not_keep_up_misses_events_only(autojump_clock: MockClock) -> None:
    async def report(session: Session, turn: Turn) -> None:
        sink = BoundEventSink(session.event_sink)
        for number in range(10):
            await sink.emit(type="my.event", data={"number": number})
        await turn.send_text("done", is_final=True)

    async with open_house(report, forward_events=["my.*"], outbound_messages=4) as house:
        caller = await house.call(buffer=0)
        await caller.say(UserText("hello"))
        await wait_all_tasks_blocked()
        await caller.hear_a(TurnCompleted)

        told = [it.data["number"] for it in caller.said(ServerEvent)]
        assert told == sorted(set(told))
        assert 0 < len(told) < 10
        assert house.sessions.statistics().events_dropped == 10 - len(told)
        assert [it.delta for it in caller.said(ReplyText)] == ["done"]


@pytest.mark.spec("A119a")
async def test_session_that_is_over_tells_nothing(autojump_clock: MockClock) -> None:
    app = Ears()
    async with open_house(app=app, forward_events=("*",)) as house:
        await house.call()
        assert app.session is not None
        told: Mapping[str, Any] = {"a": 1}
        assert app.session.tell("my.event", told)
        app.session.close()
        assert not app.session.tell("my.event", told)


@pytest.mark.spec("A97")
async def test_interruption_names_the_run(autojump_clock: MockClock) -> None:
    async with open_house(speak_for_long) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        started = await caller.hear_a(TurnStarted)
        await caller.say(Interrupt())
        await wait_all_tasks_blocked()

        (event,) = [it for it in house.sink.events if it.type == "session.interrupted"]
        assert event.data["turn_run_id"] == started.pipeline_run_id


@pytest.mark.spec("A97")
async def test_interrupted_run_ends_for_the_reason_of_the_interruption(
    autojump_clock: MockClock,
) -> None:
    @stage
    async def wait(ctx: StageContext) -> None:
        await trio.sleep_forever()

    inner = Pipeline.from_stages(wait, name="inner")

    @stage
    async def ask(ctx: StageContext) -> None:
        await ctx.spawn_subpipeline(inner)

    pipeline = Pipeline.from_stages(ask, name="outer")
    endings: list[str] = []

    async def run(session: Session, turn: Turn) -> None:
        await pipeline.run(
            pipeline_run_id=turn.run_id,
            event_sink=session.event_sink,
            cancel_token=turn.cancel_token,
        )
        endings.append("never")

    async with open_house(run) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnStarted)
        await wait_all_tasks_blocked()
        await caller.say(Interrupt(reason="barge_in"))
        await caller.hear_a(Interrupted)
        await wait_all_tasks_blocked()

        events = [it for it in house.sink.events if it.type == "pipeline.canceled"]
        assert [event.data["reason"] for event in events] == ["barge_in", "barge_in"]
        assert endings == []
        assert caller.said(TurnCompleted) == []


@pytest.mark.spec("A98")
async def test_words_are_sent_although_their_sample_is_torn(autojump_clock: MockClock) -> None:
    async def torn(session: Session, turn: Turn) -> None:
        await turn.send_audio(b"\1", text="hello")
        await turn.send_audio(b"\0")

    async with open_house(torn) as house:
        caller = await house.call()
        await caller.say(UserText("hello"))
        await caller.hear_a(TurnCompleted)

        assert [it.delta for it in caller.said(ReplyText)] == ["hello"]
        assert [it.data for it in caller.said(ReplyAudio)] == [b"\1\0"]
