"""The client: talking, coming back, giving up."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from actorflow.client import ClientSession, Reconnect, open_session, open_session_over
from actorflow.errors import (
    ConnectionLostError,
    InvalidArgumentError,
    ProtocolViolationError,
    ResumeGapError,
    ResumeRefusedError,
    SessionClosedError,
)
from actorflow.protocol import (
    AudioShape,
    CloseCode,
    HouseFormat,
    Interrupted,
    Ready,
    ReplyAudio,
    ReplyText,
    ServerMessage,
    SessionLimits,
    TurnCompleted,
    TurnStarted,
)
from actorflow.server import Session, Turn
from actorflow.testing import MemoryConnection, memory_connection_pair
from actorflow.transport import Connection
from tests.server.caller import PIECE, House, open_house


@attrs.define
class Line:
    """Dials a house, and can be cut."""

    house: House
    connections: list[MemoryConnection] = attrs.field(factory=list)
    is_down: bool = False

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[Connection]:
        if self.is_down:
            raise ConnectionLostError(1006, "no network")
        connection, _ = self.house.connect()
        self.connections.append(connection)
        try:
            yield connection
        finally:
            connection.cut()

    def cut(self) -> None:
        self.connections[-1].cut()

    def open(self, **options: Any) -> AbstractAsyncContextManager[ClientSession]:
        options.setdefault("reconnect", Reconnect(random=random.Random(1)))
        return open_session_over(self.dial, **options)


async def count(session: Session, turn: Turn) -> None:
    for number in range(100):
        await turn.send_text(str(number))
        await trio.sleep(1)


async def hear(session: ClientSession, kind: type[ServerMessage]) -> Any:
    async for message in session:
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind}")


async def test_client_asks_and_is_answered(autojump_clock: MockClock) -> None:
    async with open_house() as house, Line(house).open() as session:
        await session.send_text("hello")
        answer = await hear(session, ReplyText)

    assert answer.delta == "hello"
    house.sink.assert_emitted("session.closed", code=1000, reason="ended by the client")


async def test_client_speaks_listens_and_interrupts(autojump_clock: MockClock) -> None:
    metadata: list[object] = []

    async def parrot(session: Session, turn: Turn) -> None:
        metadata.append(session.metadata["name"])
        heard = b"".join([chunk.data async for chunk in turn.audio()])
        await turn.send_audio(heard * 100)

    async with open_house(parrot) as house:
        options = {"audio": AudioShape(8000), "metadata": {"name": "ada"}}
        async with Line(house).open(**options) as session:
            await session.send_audio(PIECE)
            await session.send_audio(PIECE)
            await session.end_turn()
            audio = await hear(session, ReplyAudio)
            await session.played(audio.turn_id, 20)
            await session.interrupt(played_ms=30)
            interrupted = await hear(session, Interrupted)

    assert metadata == ["ada"]
    assert (audio.data[:640], audio.duration_ms) == (PIECE, 40)
    assert interrupted.turn_id == "turn-1"
    assert house.sink.assert_emitted("session.interrupted")["played_ms"] == 30


async def test_client_in_text_hears_the_same_audio(autojump_clock: MockClock) -> None:
    async def speak(session: Session, turn: Turn) -> None:
        await turn.send_audio(PIECE)

    async with open_house(speak) as house, Line(house).open(text_only=True) as session:
        await session.send_text("x")
        audio = await hear(session, ReplyAudio)

    assert audio.data == PIECE


@pytest.mark.spec("A111")
async def test_client_comes_back_and_has_missed_nothing(autojump_clock: MockClock) -> None:
    async with open_house(count) as house:
        line = Line(house)
        async with line.open() as session:
            await session.send_text("count")
            heard = [(await hear(session, ReplyText)).delta for _ in range(5)]
            first_id = session.id
            for _ in range(3):
                line.cut()
                heard += [(await hear(session, ReplyText)).delta for _ in range(5)]

            assert session.id == first_id
            assert session.reconnects == 3

    assert heard == [str(number) for number in range(20)]


@pytest.mark.spec("A111")
async def test_text_is_kept_while_there_is_no_connection(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        line = Line(house)
        async with line.open() as session:
            line.is_down = True
            line.cut()
            await trio.sleep(1)
            for text in ("one", "two", "three"):
                await session.send_text(text)
            await trio.sleep(3)
            line.is_down = False
            answers = [(await hear(session, ReplyText)).delta for _ in range(3)]

    assert answers == ["one", "two", "three"]


@pytest.mark.spec("A111")
async def test_text_that_was_on_its_way_is_sent_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        line = Line(house)
        async with line.open() as session:
            # The writer has taken the message and finds the connection gone.
            line.connections[-1]._outgoing.close()
            await session.send_text("hello")
            answer = await hear(session, ReplyText)

    assert answer.delta == "hello"


@pytest.mark.spec("A111")
async def test_gap_is_told_and_the_session_goes_on(autojump_clock: MockClock) -> None:
    async with open_house(count, replay_messages=2) as house:
        line = Line(house)
        async with line.open() as session:
            await session.send_text("count")
            await hear(session, ReplyText)
            line.is_down = True
            line.cut()
            await trio.sleep(8)
            line.is_down = False
            with pytest.raises(ResumeGapError) as caught:
                await hear(session, ReplyText)
            after = await hear(session, ReplyText)

    assert caught.value.first_seq > 2
    assert int(after.delta) >= 5


@pytest.mark.spec("A111")
async def test_client_gives_up_after_its_tries(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        line = Line(house)
        reconnect = Reconnect(max_attempts=3, base_delay_ms=100, random=random.Random(1))
        async with line.open(reconnect=reconnect) as session:
            line.is_down = True
            line.cut()
            begin = trio.current_time()
            with pytest.raises(SessionClosedError, match="3 tries"):
                await hear(session, ReplyText)
            took = trio.current_time() - begin
            with pytest.raises(SessionClosedError, match="3 tries"):
                await session.send_text("is anybody there?")

    # Half of 100, 200 and 400 ms at least, all of them at most.
    assert 0.35 <= took <= 0.7


@pytest.mark.spec("A111")
async def test_session_that_was_not_kept_is_told_of(autojump_clock: MockClock) -> None:
    async with open_house(resume_grace=1) as house:
        line = Line(house)
        async with line.open() as session:
            line.is_down = True
            line.cut()
            await trio.sleep(2)
            line.is_down = False
            with pytest.raises(ResumeRefusedError):
                await hear(session, ReplyText)


async def test_server_that_closes_is_told_of(autojump_clock: MockClock) -> None:
    async with open_house() as house, Line(house).open() as session:
        house.nursery.start_soon(house.sessions.drain)
        with pytest.raises(SessionClosedError) as caught:
            await hear(session, ReplyText)

    assert caught.value.close_code == CloseCode.GOING_AWAY


async def test_session_that_ends_in_order_ends_the_iteration(autojump_clock: MockClock) -> None:
    async def leave(session: Session, turn: Turn) -> None:
        session.close()

    async with open_house(leave) as house, Line(house).open() as session:
        await session.send_text("bye")
        kinds = [type(message) async for message in session]
        with pytest.raises(SessionClosedError):
            await session.send_text("more")

    assert kinds[0] is TurnStarted or len(kinds) == 1


async def test_exception_of_the_block_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with pytest.raises(ZeroDivisionError):
            async with Line(house).open():
                1 / 0
        await trio.testing.wait_all_tasks_blocked()

        assert house.states == {}


async def test_who_was_never_in_does_not_try_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        with pytest.raises(ConnectionLostError, match="no network"):
            async with Line(house, is_down=True).open():
                pass  # pragma: no cover - nobody answers
        assert trio.current_time() == 0


async def test_server_that_says_nothing_is_given_up(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def dial() -> AsyncIterator[Connection]:
        yield memory_connection_pair()[0]

    with pytest.raises(ConnectionLostError, match="did not start"):
        async with open_session_over(dial, start_timeout=7):
            pass  # pragma: no cover - nobody answers
    assert trio.current_time() == 7


async def test_server_out_of_step_is_left(autojump_clock: MockClock) -> None:
    here, there = memory_connection_pair()

    @asynccontextmanager
    async def dial() -> AsyncIterator[Connection]:
        yield here

    await there.send(b"nonsense")
    with pytest.raises(ProtocolViolationError, match="without a header"):
        async with open_session_over(dial):
            pass  # pragma: no cover - nobody answers
    assert there.closed is not None
    assert there.closed[0] == CloseCode.PROTOCOL


@pytest.mark.spec("A103")
async def test_server_without_a_sign_of_life_is_called_again(autojump_clock: MockClock) -> None:
    async with open_house(count, heartbeat_interval=5, heartbeat_timeout=5) as house:
        line = Line(house)
        async with line.open() as session:
            await trio.sleep(100)
            assert session.reconnects == 0
            far_end = line.connections[-1]._far_end
            far_end.is_mute = True
            await trio.sleep(12)
            assert session.reconnects == 1
            line.connections[-1]._far_end.is_mute = True
            await trio.sleep(6)
            line.cut()
            await trio.sleep(1)

            assert session.reconnects == 2


async def test_what_was_heard_is_acknowledged(autojump_clock: MockClock) -> None:
    async def chatter(session: Session, turn: Turn) -> None:
        for _ in range(200):
            await turn.send_text("x" * 100)

    async with open_house(chatter) as house, Line(house).open() as session:
        await session.send_text("x")
        await hear(session, TurnCompleted)
        await trio.testing.wait_all_tasks_blocked()
        kept = house.sessions.statistics().replay_bytes

    assert 0 < kept < 16 * 200


async def test_acknowledgement_waits_while_there_is_much_to_say(
    autojump_clock: MockClock,
) -> None:
    here, there = memory_connection_pair(1)
    said = HouseFormat()

    @asynccontextmanager
    async def dial() -> AsyncIterator[Connection]:
        yield here

    async def serve() -> None:
        await there.receive()
        ready = HouseFormat().write(
            0, Ready("s", resumed=False, limits=SessionLimits(1000, 1, 1, 20))
        )
        await there.send(ready[0])
        for seq in range(1, 40):
            await there.send(said.write(seq, ReplyText("turn-1", "x"))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.move_on_after(20):
            async with open_session_over(dial, close_timeout=1) as session:
                with trio.move_on_after(1):
                    while True:
                        await session.send_text("on and on")
                for _ in range(39):
                    await session.__anext__()
        frames = there._incoming.statistics().current_buffer_used

    assert frames <= 1


def test_address_of_something_else_is_refused() -> None:
    for url in ("http://localhost", "localhost:80", "ws://"):
        with pytest.raises(InvalidArgumentError, match="url"):
            open_session(url)


async def test_speech_is_sent_as_fast_as_it_plays(autojump_clock: MockClock) -> None:
    arrivals: list[tuple[float, int]] = []

    async def listen(session: Session, turn: Turn) -> None:
        async for chunk in turn.audio():
            arrivals.append((trio.current_time() - start, len(chunk.data)))

    async with open_house(listen) as house, Line(house).open() as session:
        start = trio.current_time()
        await session.speak(bytes(32_000 + 100))
        took = trio.current_time() - start
        await session.end_turn()
        await hear(session, TurnCompleted)

    assert took == pytest.approx(1.003125)
    assert [size for _, size in arrivals] == [640] * 50 + [100]
    assert [at for at, _ in arrivals] == pytest.approx([number * 0.02 for number in range(51)])
