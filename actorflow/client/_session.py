from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Self, TypeAlias, final

import attrs
import trio

from actorflow.errors import (
    ActorflowError,
    AuthDeniedError,
    ConnectionLostError,
    ProtocolViolationError,
    ResumeGapError,
    SessionClosedError,
)
from actorflow.protocol import (
    Ack,
    AudioShape,
    ClientMessage,
    CloseCode,
    End,
    Error,
    ErrorCode,
    HouseClientFormat,
    Interrupt,
    Numbered,
    Played,
    Ready,
    ServerMessage,
    Start,
    UserAudio,
    UserText,
)
from actorflow.transport import Connection, hang_up

from ._reconnect import Reconnect, verdict_on
from ._websocket import connect_websocket, split

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
"""Makes a connection for as long as its block lasts, or raises `ConnectionLostError`."""

# How many messages may be on their way to and from the user of a session.
_QUEUE: Final = 64
_MICROPHONE_SECONDS: Final = 0.02
# The server keeps what was not acknowledged; this is how much that is, about.
_ACK_EVERY: Final = 16


@final
class ClientSession:
    """The client's end of a session. Iterate over it to hear what the server says.

    While the connection is lost, `send_*` wait for the next one. Iterating raises
    `ResumeGapError` when messages got lost on the way, and goes on afterwards. It
    ends when the session ended in order, and raises the reason when it did not.

    Keep iterating: what is not taken holds up the connection, and a server gives up
    clients that do not read.
    """

    def __init__(
        self, connect: Connect, start: Start, reconnect: Reconnect, start_timeout: float
    ) -> None:
        """Make it with `open_session`."""
        self.ready: Ready | None = None
        """What the server said last about the session."""
        self.reconnects = 0
        """How often the connection was restored."""
        self._connect = connect
        self._start = start
        self._reconnect = reconnect
        self._start_timeout = start_timeout
        self._last_seq = 0
        self._acked = 0
        self._failures = 0
        self._unsent: ClientMessage | None = None
        self._lost: ActorflowError | None = None
        self._error: ActorflowError | None = None
        self._opened = trio.Event()
        self._over = trio.Event()
        self._say, self._said = trio.open_memory_channel[ClientMessage](_QUEUE)
        self._tell, self._told = trio.open_memory_channel[ServerMessage | ResumeGapError](_QUEUE)

    @property
    def id(self) -> str:
        """The id of the session."""
        assert self.ready is not None  # nobody gets it before
        return self.ready.session_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerMessage:
        try:
            found = await self._told.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None
        if isinstance(found, ResumeGapError):
            raise found
        return found

    async def send_text(self, text: str) -> None:
        """Ask something. It begins a turn, or waits for the present one to end."""
        await self._send(UserText(text))

    async def send_audio(self, data: bytes) -> None:
        """Send a piece of what the microphone hears, in the shape of the session's audio."""
        await self._send(UserAudio(data))

    async def speak(self, data: bytes) -> None:
        """Send audio as a microphone would: piece by piece, as fast as it plays.

        Servers that listen for the end of speech find it in the silence afterwards.
        """
        shape = self._start.audio
        size = shape.frame_size * max(1, round(shape.sample_rate * _MICROPHONE_SECONDS))
        begin = trio.current_time()
        for sent in range(0, len(data), size):
            await trio.sleep_until(begin + shape.duration_ms(sent) / 1000)
            await self.send_audio(data[sent : sent + size])
        await trio.sleep_until(begin + shape.duration_ms(len(data)) / 1000)

    async def end_turn(self) -> None:
        """Say that no more input of this turn comes."""
        await self._send(End("turn"))

    async def interrupt(
        self, *, turn_id: str | None = None, played_ms: float | None = None
    ) -> None:
        """Break off the present turn; say how much of its audio was heard."""
        await self._send(Interrupt(turn_id, played_ms))

    async def played(self, turn_id: str, played_ms: float) -> None:
        """Report how far the speaker has come in the audio of a turn."""
        await self._send(Played(turn_id, played_ms))

    async def _send(self, message: ClientMessage) -> None:
        try:
            await self._say.send(message)
        except trio.BrokenResourceError:
            raise self._error or SessionClosedError(CloseCode.NORMAL) from None

    # One connection after the other

    async def run(self) -> None:
        """Keep the session going until it is over."""
        try:
            while not await self._lived_through_a_connection():
                await trio.sleep(self._reconnect.delay(self._failures))
                self._failures += 1
        finally:
            self._said.close()
            self._tell.close()
            self._opened.set()
            self._over.set()

    async def close(self, timeout: float) -> None:
        """End the session in order if that takes no longer than `timeout`."""
        with trio.move_on_after(timeout):
            try:
                await self._say.send(End("session"))
            except trio.BrokenResourceError:
                return
            # What is still said has to be taken, or the goodbye would not come through.
            async for _ in self._told:
                pass
            await self._over.wait()

    async def _lived_through_a_connection(self) -> bool:
        self._lost = None
        try:
            async with self._connect() as connection:
                await self._converse(connection)
        except (ConnectionLostError, AuthDeniedError) as error:
            self._lost = error
        assert self._lost is not None  # nothing else ends a conversation
        # Who was never in has nothing to come back to.
        tries = 0 if self.ready is None else self._reconnect.max_attempts
        verdict = verdict_on(self._lost, self._failures, tries)
        self._error = verdict.error
        return verdict.is_over

    async def _converse(self, connection: Connection) -> None:
        token = None if self.ready is None else self.ready.resume_token
        start = attrs.evolve(self._start, resume_token=token, last_seq=self._last_seq)
        format_ = HouseClientFormat()
        for frame in format_.write(start):
            await connection.send(frame)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._start_timeout
            nursery.start_soon(self._read, connection, format_, nursery)
        if self._lost is None:
            self._lost = ConnectionLostError(1006, "the server did not start the session")
        if isinstance(self._lost, ProtocolViolationError):
            await hang_up(connection, self._lost.close_code, str(self._lost), 1)

    async def _read(
        self, connection: Connection, format_: HouseClientFormat, nursery: trio.Nursery
    ) -> None:
        try:
            while True:
                format_, found = format_.read(await connection.receive())
                for numbered in found:
                    if isinstance(numbered.message, Ready):
                        self._welcome(numbered.message)
                        nursery.cancel_scope.deadline = math.inf
                        nursery.start_soon(self._write, connection, format_, nursery)
                        nursery.start_soon(self._beat, connection, nursery)
                    else:
                        await self._take(numbered)
        except (ConnectionLostError, ProtocolViolationError) as error:
            self._lose(error, nursery)

    def _welcome(self, ready: Ready) -> None:
        self.reconnects += ready.resumed
        self.ready = ready
        self._failures = 0
        self._opened.set()

    async def _take(self, numbered: Numbered) -> None:
        seq, message = numbered.seq, numbered.message
        if isinstance(message, Error) and message.code == ErrorCode.RESUME_GAP:
            await self._tell.send(ResumeGapError(message.first_seq or 0))
            return
        await self._tell.send(message)
        self._last_seq = max(self._last_seq, seq)
        if self._last_seq - self._acked >= _ACK_EVERY:
            self._acknowledge()

    def _acknowledge(self) -> None:
        # With so much to say already there will be a better moment.
        with suppress(trio.WouldBlock):
            self._say.send_nowait(Ack(self._last_seq))
            self._acked = self._last_seq

    async def _write(
        self, connection: Connection, format_: HouseClientFormat, nursery: trio.Nursery
    ) -> None:
        try:
            while True:
                # What a lost connection did not take goes over the next one.
                if self._unsent is None:
                    self._unsent = await self._said.receive()
                for frame in format_.write(self._unsent):
                    await connection.send(frame)
                self._unsent = None
        except ConnectionLostError as error:
            self._lose(error, nursery)

    async def _beat(self, connection: Connection, nursery: trio.Nursery) -> None:
        assert self.ready is not None  # it starts afterwards
        interval = self.ready.limits.heartbeat_interval
        lost = ConnectionLostError(CloseCode.HEARTBEAT, "no sign of life")
        try:
            while True:
                await trio.sleep(interval)
                with trio.move_on_after(interval):
                    await connection.ping()
                    continue
                break
        except ConnectionLostError as error:
            lost = error
        self._lose(lost, nursery)

    def _lose(self, error: ActorflowError, nursery: trio.Nursery) -> None:
        # Several tasks may notice; the first one knows best.
        self._lost = self._lost or error
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_session_over(
    connect: Connect,
    *,
    audio: AudioShape | None = None,
    metadata: Mapping[str, Any] | None = None,
    text_only: bool = False,
    reconnect: Reconnect | None = None,
    start_timeout: float = 10.0,
    close_timeout: float = 5.0,
) -> AsyncIterator[ClientSession]:
    """Hold a session over connections of any kind, as `open_session` does over websockets."""
    start = Start(audio=audio or AudioShape(), metadata=metadata or {}, text_only=text_only)
    session = ClientSession(connect, start, reconnect or Reconnect(), start_timeout)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await session._opened.wait()
        if session.ready is not None:
            try:
                yield session
            except Exception as error:  # noqa: BLE001 - raised again, outside of the nursery's group
                failure = error
            await session.close(close_timeout)
        nursery.cancel_scope.cancel()
    if session.ready is None:
        failure = session._error or SessionClosedError(CloseCode.NORMAL)
    if failure is not None:
        raise failure


def open_session(
    url: str,
    *,
    token: str | None = None,
    audio: AudioShape | None = None,
    metadata: Mapping[str, Any] | None = None,
    text_only: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    reconnect: Reconnect | None = None,
    connect_timeout: float = 10.0,
    close_timeout: float = 5.0,
) -> AbstractAsyncContextManager[ClientSession]:
    """Hold a session with a server for as long as the block lasts.

    When the connection is lost, the session is resumed by itself. Leaving the block
    ends the session.

    Args:
      url: ``ws://host:port/path``, or ``wss://``.
      token: goes into the header ``Authorization: Bearer``.
      audio: what the audio looks like, in both directions.
      metadata: what the server's application may want to know.
      text_only: get audio as base64 in JSON instead of binary frames.
      ssl_context: which certificates to trust with ``wss://``; by default those the
        system trusts.
      reconnect: how often and when to try again.
      connect_timeout: how long connecting may take, and again until the session starts.
      close_timeout: how long leaving may wait for the server.

    Raises:
      ConnectionLostError: if nobody answers.
      AuthDeniedError: if the server does not let us in.
      SessionClosedError: if the server closes at once.
    """
    split(url)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return open_session_over(
        partial(connect_websocket, url, headers, ssl_context, connect_timeout),
        audio=audio,
        metadata=metadata,
        text_only=text_only,
        reconnect=reconnect,
        start_timeout=connect_timeout,
        close_timeout=close_timeout,
    )
