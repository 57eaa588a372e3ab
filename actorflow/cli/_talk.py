"""`actorflow talk`: speak to a server of sessions, from a file or a microphone."""

from __future__ import annotations

import json
import signal
import ssl
import wave
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, final

import attrs
import trio
from cyclopts import Parameter
from rich.console import Console

from actorflow.client import ClientSession, Reconnect, open_session
from actorflow.errors import ActorflowError, InvalidArgumentError, InvalidAudioError
from actorflow.integrations import Resampler, Speaker, open_microphone, open_speaker
from actorflow.protocol import (
    AudioShape,
    Error,
    Interrupted,
    ReplyAudio,
    ReplyText,
    ServerEvent,
    ServerMessage,
    Transcript,
    TurnCompleted,
    TurnStarted,
)

from ._interrupts import INTERRUPTED, Interrupts
from ._loudspeaker import Loudspeaker

RATE: Final = 16_000
NO_ANSWER: Final = 3
FAILED: Final = 1

# How long to wait for an answer to begin, and whether another one follows.
_PATIENCE: Final = 10.0
_PAUSE: Final = 0.5
# After a file: long enough for a server to notice that nobody speaks any more.
_SILENCE: Final = bytes(RATE * 2)

Say: TypeAlias = Callable[[ClientSession], Awaitable[None]]


def talk(
    url: str,
    /,
    *,
    wav: Path | None = None,
    text: str | None = None,
    out: Path | None = None,
    interrupt_after: float | None = None,
    token: str | None = None,
    cacert: Path | None = None,
    headphones: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
) -> int:
    """Talk to a server of sessions and show what it understands and answers.

    It says what is in a file, as fast as it plays, or a text; without either it listens to
    the microphone and answers from the speaker, until Ctrl-C (extra `audio`).

    Args:
        url: Where the server is: ws://host:port/path, or wss://.
        wav: A WAV file with 16-bit samples of one channel. Rates other than 16,000 Hz need the
            extra `voice`.
        text: Write this instead of speaking.
        out: Write what was heard of the answers to this WAV file.
        interrupt_after: Break off the first answer after so many seconds of it.
        token: Goes into the header `Authorization: Bearer`.
        cacert: Certificates to trust with wss:// (PEM), besides those of the system.
        headphones: The microphone does not hear the speaker, so answers can be spoken into.
        as_json: Print one JSON object per line: the messages of the server, without audio.
    """
    if wav is not None and text is not None:
        raise InvalidArgumentError("--text", text, "left out where there is a --wav")
    said = None if wav is None else _samples_of(wav)
    if out is not None:
        _check_writable(out)
    call = Call(
        view=JSONView() if as_json else PlainView(),
        loudspeaker=Loudspeaker(RATE),
        interrupt_after=interrupt_after,
    )
    say = _say_with(said, text)
    options = {
        "token": token,
        # Some three seconds: the person at the terminal waits as well.
        "reconnect": Reconnect(max_attempts=4),
        "ssl_context": _ssl_context(cacert),
        "audio": AudioShape(RATE),
        # A server listens to nobody while it speaks to somebody who would hear that.
        "metadata": {"echo": say is None and not headphones},
    }
    try:
        return trio.run(partial(_hold, call, url, say, options))
    finally:
        # What was heard before a connection broke is no less worth.
        if out is not None:
            _write_wave(out, call.loudspeaker.played)


def _say_with(said: bytes | None, text: str | None) -> Say | None:
    async def speak(session: ClientSession) -> None:
        assert said is not None
        await session.speak(said + _SILENCE)
        # Servers that do not listen for the end are told.
        await session.end_turn()

    async def write(session: ClientSession) -> None:
        assert text is not None
        await session.send_text(text)

    if said is not None:
        return speak
    return None if text is None else write


async def _hold(call: Call, url: str, say: Say | None, options: dict[str, Any]) -> int:
    async with AsyncExitStack() as stack:
        if say is None:
            microphone = await stack.enter_async_context(open_microphone(RATE))
            call.speaker = await stack.enter_async_context(open_speaker(RATE))
            say = partial(_pass_on, microphone)
        session = await stack.enter_async_context(open_session(url, **options))
        call.view.opened(session, url)
        with trio.CancelScope() as scope:
            interrupts = Interrupts(scope.cancel, Console(stderr=True))
            with interrupts.caught(signal.SIGTERM):
                try:
                    await call.hold(session, say)
                finally:
                    call.view.ended(call)
        return INTERRUPTED if interrupts.came else call.exit_code


async def _pass_on(microphone: AsyncIterator[bytes], session: ClientSession) -> None:
    async for frame in microphone:
        await session.send_audio(frame)


@final
@attrs.define(eq=False)
class Call:
    """A session, from the first word to the last answer."""

    view: View
    loudspeaker: Loudspeaker
    interrupt_after: float | None = None
    speaker: Speaker | None = None
    turn_id: str | None = None
    has_ended: bool = False
    """Whether a turn has."""
    answered: int = 0
    failed: int = 0
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _error: ActorflowError | None = attrs.field(default=None, init=False)

    @property
    def exit_code(self) -> int:
        """0 if something was answered."""
        if self.failed:
            return FAILED
        return 0 if self.answered else NO_ANSWER

    async def hold(self, session: ClientSession, say: Say) -> None:
        """Say something, hear the answers, and leave when there are no more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, session, nursery)
            await say(session)
            await self._until_answered()
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    async def _until_answered(self) -> None:
        while True:
            changed = self._changed
            if self.turn_id is None:
                with trio.move_on_after(_PAUSE if self.has_ended else _PATIENCE):
                    await changed.wait()
                    continue
                return
            await changed.wait()

    async def _listen(self, session: ClientSession, nursery: trio.Nursery) -> None:
        try:
            async for message in session:
                self._note(message)
                self.view.show(message)
                if isinstance(message, ReplyAudio):
                    await self._heard(message, session, nursery)
        except ActorflowError as error:
            # Raised again outside of the nursery, which would make a group of it.
            self._error = error
        # Nobody is there to answer any more.
        nursery.cancel_scope.cancel()

    async def _heard(
        self, piece: ReplyAudio, session: ClientSession, nursery: trio.Nursery
    ) -> None:
        if self.interrupt_after is not None:
            nursery.start_soon(self._interrupt, session, self.interrupt_after)
            self.interrupt_after = None
        await session.played(piece.turn_id, self._played_ms())

    async def _interrupt(self, session: ClientSession, seconds: float) -> None:
        await trio.sleep(seconds)
        if self.turn_id is not None:
            await session.interrupt(turn_id=self.turn_id, played_ms=self._played_ms())

    def _played_ms(self) -> float:
        return self.loudspeaker.played_ms(trio.current_time())

    def _note(self, message: ServerMessage) -> None:
        now = trio.current_time()
        match message:
            case TurnStarted(turn_id=turn_id):
                self.turn_id = turn_id
                self.loudspeaker.begin()
            case ReplyAudio(data=data):
                self.loudspeaker.play(data, now)
                if self.speaker is not None:
                    self.speaker.play(data)
            case Interrupted(turn_id=str()):
                self.loudspeaker.stop(now)
                if self.speaker is not None:
                    self.speaker.clear()
                self.answered += 1
                self._over()
            case TurnCompleted(status=status):
                self.failed += status == "failed"
                self.answered += status == "completed"
                self._over()
            case _:
                return
        self._changed.set()
        self._changed = trio.Event()

    def _over(self) -> None:
        self.turn_id = None
        self.has_ended = True


class View(ABC):
    """Where a call is shown. Subclasses print."""

    @abstractmethod
    def opened(self, session: ClientSession, url: str) -> None: ...

    @abstractmethod
    def show(self, message: ServerMessage) -> None: ...

    @abstractmethod
    def ended(self, call: Call) -> None: ...


@final
class PlainView(View):
    """Lines for people; an answer grows while it comes."""

    def __init__(self) -> None:
        self._is_open = False
        self._turn_began = 0.0
        self._first_audio: float | None = None

    def opened(self, session: ClientSession, url: str) -> None:
        self._line("session", f"{session.id} at {url}")

    def show(self, message: ServerMessage) -> None:
        match message:
            case TurnStarted():
                self._turn_began, self._first_audio = trio.current_time(), None
            case Transcript(text=text):
                self._line("heard", text)
            case ReplyText(delta=delta):
                self._grow(delta)
            case ReplyAudio() if self._first_audio is None:
                self._first_audio = trio.current_time() - self._turn_began
            case Interrupted(turn_id=str(), discarded_ms=discarded_ms):
                self._line("stopped", f"{discarded_ms / 1000:.2f} s were not sent any more")
            case TurnCompleted():
                self._complete(message)
            case ServerEvent(event=event):
                self._line("event", event)
            case Error(code=code, message=why):
                self._line("error", f"{why} ({code})")
            case _:
                pass

    def _complete(self, turn: TurnCompleted) -> None:
        if turn.error is not None:
            self._line(turn.status, f"{turn.error.message} ({turn.error.code})")
        elif self._first_audio is None:
            self._line(turn.status, "without audio")
        else:
            self._line(
                turn.status,
                f"the first audio came {self._first_audio * 1000:.0f} ms after the turn began",
            )

    def ended(self, call: Call) -> None:
        if call.turn_id is not None and (self._is_open or self._first_audio is not None):
            self._line("ended", "in the middle of an answer")
        elif not call.answered:
            self._line("ended", "nothing was answered")

    def _grow(self, delta: str) -> None:
        if delta:
            print(delta if self._is_open else f"{'answer':>10}  {delta}", end="", flush=True)
            self._is_open = True

    def _line(self, what: str, text: str) -> None:
        if self._is_open:
            print()
            self._is_open = False
        print(f"{what:>10}  {text}", flush=True)


@final
class JSONView(View):
    """One object per line: the messages of the server, audio by its header."""

    def opened(self, session: ClientSession, url: str) -> None:
        self._start = trio.current_time()
        self._line("opened", {"session_id": session.id, "url": url})

    def show(self, message: ServerMessage) -> None:
        fields = attrs.asdict(message, filter=lambda _, value: not isinstance(value, bytes))
        self._line(message.type, fields)

    def ended(self, call: Call) -> None:
        heard_ms = AudioShape(RATE).duration_ms(len(call.loudspeaker.played))
        numbers = {"answered": call.answered, "failed": call.failed, "heard_ms": heard_ms}
        self._line("ended", numbers)

    def _line(self, what: str, fields: dict[str, Any]) -> None:
        at = {"at": round(trio.current_time() - self._start, 4)}
        print(json.dumps({"type": what, **at, **fields}, default=dict), flush=True)


# Files


def _samples_of(file: Path) -> bytes:
    try:
        with wave.open(str(file)) as found:
            rate, shape = found.getframerate(), (found.getnchannels(), found.getsampwidth())
            samples: bytes = found.readframes(found.getnframes())
    except OSError as error:
        expected = f"a file that can be read ({error.strerror})"
        raise InvalidArgumentError("--wav", str(file), expected) from error
    except (wave.Error, EOFError) as error:
        raise InvalidArgumentError(
            "--wav", str(file), f"a WAV file ({str(error) or 'it ends early'})"
        ) from error
    if shape != (1, 2):
        described = f"{shape[0]} channels of {shape[1] * 8}-bit samples"
        raise InvalidAudioError("--wav", described, "one channel of 16-bit samples")
    if rate == RATE:
        return samples
    resampler = Resampler(rate, RATE)
    return resampler.convert(samples) + resampler.flush()


def _check_writable(file: Path) -> None:
    # Now, because afterwards the answer would be lost.
    try:
        file.open("ab").close()
    except OSError as error:
        expected = f"a file that can be written ({error.strerror})"
        raise InvalidArgumentError("--out", str(file), expected) from error


def _write_wave(file: Path, samples: bytes) -> None:
    with wave.open(str(file), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(samples)


def _ssl_context(cacert: Path | None) -> ssl.SSLContext | None:
    if cacert is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cacert)
    except OSError as error:
        expected = f"certificates in PEM ({error.strerror or error})"
        raise InvalidArgumentError("--cacert", str(cacert), expected) from error
    return context
