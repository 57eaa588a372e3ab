from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, final

import trio

from actorflow import ids
from actorflow.cancellation import CancellationToken
from actorflow.errors import AudioFormatMismatchError
from actorflow.model import AudioChunk
from actorflow.protocol import (
    AudioShape,
    Playback,
    ReplyAudio,
    ReplyText,
    Transcript,
    TurnMessage,
)
from actorflow.providers import SpeechPiece

if TYPE_CHECKING:
    from ._session import Session


@final
class Turn:
    """One thing the user wants, and the answer to it.

    What is sent here carries the turn's id from the beginning. Once the turn is
    over, because the user interrupted it or the session ended, `send_*` returns
    without doing anything: a stage that needs a moment longer to notice cannot
    speak into the next turn.
    """

    def __init__(self, session: Session, number: int, prompt: object) -> None:
        self.id: Final = f"turn-{number}"
        self.run_id: Final = ids.uuid7()
        """For the run that answers; the client is told of it."""
        self.prompt: Final = prompt
        """What the turn is about: the text that the user wrote, or what `begin_turn` was
        given; None if the turn began because there was audio."""
        self.playback = Playback(self.id)
        """What was sent and heard of the answer; final when the turn is settled."""
        self.is_over = False
        """Whether nothing more of it is sent."""
        self.scope = trio.CancelScope()
        self.cancel_token: Final = CancellationToken()
        """Cancelled with the turn, for runs to end with the reason of it."""
        self.started_at = trio.current_time()
        self.has_task = False
        self.has_finished = False
        self.stale = 0
        self.last_sequence: int | None = None
        self.input_left: int | None = None
        self.playback_when_lost = Playback(self.id)
        """The ledger when the connection was lost."""
        self.played_when_lost = 0.0
        """By the clock, how much of it had been played then."""
        self._session = session
        self._settled = trio.Event()
        self._sequence = 0
        self._ends_at_ms = 0.0
        self._torn = b""

    @property
    def text(self) -> str | None:
        """What the user wrote, if that is how the turn began."""
        return self.prompt if isinstance(self.prompt, str) else None

    @property
    def is_input_over(self) -> bool:
        """Whether the user has said that no more input of this turn comes, and it was all read."""
        return self.is_over or self.input_left == 0

    @property
    def is_settled(self) -> bool:
        """Whether it is known what was heard of it."""
        return self._settled.is_set()

    async def wait_settled(self) -> None:
        """Wait until it is known what was heard of it, so that `playback` is final.

        That is when the turn is over; but if its client was away then, only when the
        client has come back for the rest, or will not come back.
        """
        await self._settled.wait()

    def settle(self) -> None:
        """Note that the ledger is final."""
        self._settled.set()

    def audio(self) -> AsyncIterator[AudioChunk]:
        """The user's audio, as it comes, until the client ends the turn's input.

        What was not read when the turn is interrupted belongs to the next one: the
        words that interrupted are in it.
        """
        return _Hearing(self._session, self)

    async def send_transcript(
        self, text: str, *, is_final: bool = True, confidence: float | None = None
    ) -> None:
        """Tell the client what was understood."""
        await self._send(Transcript(self.id, text, is_final, confidence))

    async def send_text(self, delta: str, *, is_final: bool = False) -> None:
        """Send a piece of the answer as text; if it is spoken, before its audio."""
        await self._send(ReplyText(self.id, delta, is_final))

    async def send_audio(self, audio: SpeechPiece | bytes, *, text: str | None = None) -> None:
        """Send a piece of the answer as audio, in the shape of the session's audio.

        It is cut into pieces that leave as fast as they play. While the outbox is
        full this waits, and so does whoever makes the audio.

        Args:
          audio: samples, or a chunk of them.
          text: the words that this audio begins to speak. They go ahead of it in the
            same step, so no interruption finds them said and not spoken.

        Raises:
          AudioFormatMismatchError: if the chunk has another rate, number of
            channels or format. Convert it before.
        """
        shape = self._session.audio
        data = self._torn + _samples(audio, shape)
        size = self._session.piece_size
        whole = len(data) // shape.frame_size * shape.frame_size
        self._torn = data[whole:]
        ahead = () if text is None else (ReplyText(self.id, text),)
        for begin in range(0, whole, size):
            await self._send(*ahead, self._piece(data[begin : min(begin + size, whole)]))
            ahead = ()
        if ahead:
            await self._send(*ahead)

    def _piece(self, data: bytes) -> ReplyAudio:
        duration_ms = self._session.audio.duration_ms(len(data))
        self._ends_at_ms += duration_ms
        piece = ReplyAudio(self.id, self._sequence, duration_ms, self._ends_at_ms, data)
        self._sequence += 1
        return piece

    async def _send(self, *messages: TurnMessage) -> None:
        await trio.lowlevel.checkpoint()
        if await self._session.has_room(self):
            for message in messages:
                self._session.put(message)
        else:
            self.stale += len(messages)


@final
class _Hearing:
    def __init__(self, session: Session, turn: Turn) -> None:
        self._session = session
        self._turn = turn

    def __aiter__(self) -> _Hearing:
        return self

    async def __anext__(self) -> AudioChunk:
        await trio.lowlevel.checkpoint()
        chunk = await self._session.listen(self._turn)
        if chunk is None:
            raise StopAsyncIteration
        return chunk


def _samples(audio: SpeechPiece | bytes, shape: AudioShape) -> bytes:
    if isinstance(audio, bytes):
        return audio
    found = (audio.sample_rate, audio.channels, str(audio.format))
    expected = (shape.sample_rate, shape.channels, shape.format)
    if found != expected:
        wanted = f"{shape.format} of {shape.sample_rate} Hz with {shape.channels} channel(s)"
        raise AudioFormatMismatchError("audio", found, wanted)
    return audio.data
