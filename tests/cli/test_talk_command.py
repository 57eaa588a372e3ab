"""`actorflow talk`: what it says, shows and writes. Its server is in this process."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import trio
import trustme

from actorflow import cli
from actorflow.protocol import (
    Error as ErrorMessage,
    ErrorCode,
    Interrupted,
    Pong,
    ReplyAudio,
    ServerEvent,
    TurnStarted,
)
from actorflow.server import ServerConfig, Session, Turn, open_server

pytest.importorskip("cyclopts")

from actorflow.cli import _talk
from actorflow.cli._loudspeaker import Loudspeaker

SECOND = 32_000
Talk = Callable[..., tuple[int, str, str]]


class Echo:
    """Answers a text with a second of audio, and audio with itself."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.heard = b""

    async def on_turn(self, session: Session, turn: Turn) -> None:
        self.metadata = dict(session.metadata)
        match turn.text:
            case None:
                self.heard = b"".join([chunk.data async for chunk in turn.audio()])
                await turn.send_transcript("something")
                await turn.send_audio(self.heard[: SECOND // 2])
            case "fail":
                raise ValueError("no")
            case "short":
                await turn.send_audio(bytes(SECOND // 10))
                await turn.send_text("", is_final=True)
            case "silence":
                await trio.lowlevel.checkpoint()
            case "leave":
                session.close("enough")
                await trio.sleep_forever()
            case "break":
                await turn.send_text("You said ")
                await turn.send_audio(b"\x01\x00" * (SECOND // 2))
                await trio.sleep(0.3)
                session.fail()
            case _:
                await turn.send_text("You said ")
                await turn.send_text(f"{turn.text}.", is_final=True)
                await turn.send_audio(b"\x01\x00" * (SECOND // 2))


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """A server in a thread of its own, for a command that has the main one."""
    ready = threading.Event()
    urls: list[str] = []
    tokens: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def serve() -> None:
        async with open_server(app, **options) as server:
            urls.append(server.url)
            with trio.CancelScope() as scope:
                tokens.append((trio.lowlevel.current_trio_token(), scope))
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(10)
        yield urls[0]
    finally:
        token, scope = tokens[0]
        token.run_sync_soon(scope.cancel)
        thread.join(20)


@pytest.fixture
def talk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Talk:
    """Call the command; returns its exit code, what it printed, and what went wrong."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", "talk", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return call


def write_wave(samples: bytes, rate: int = 16_000, channels: int = 1, width: int = 2) -> None:
    with wave.open("question.wav", "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples)


def read_wave() -> tuple[int, bytes]:
    with wave.open("answer.wav") as file:
        return file.getframerate(), file.readframes(file.getnframes())


@pytest.mark.spec("A152")
def test_text_is_answered_and_the_answer_written(talk: Talk) -> None:
    with serving(Echo()) as url:
        code, out, err = talk(url, "--text", "hello", "--out", "answer.wav")

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("   session  ")
    assert lines[0].endswith(f" at {url}")
    assert lines[1] == "    answer  You said hello."
    assert lines[2].startswith(" completed  the first audio came ")
    assert read_wave() == (16_000, b"\x01\x00" * (SECOND // 2))


@pytest.mark.spec("A152")
def test_wave_file_is_spoken_as_fast_as_it_plays(talk: Talk) -> None:
    app = Echo()
    write_wave(b"\x02\x00" * 8000)
    with serving(app) as url:
        code, out, _ = talk(url, "--wav", "question.wav", "--json", "--out", "answer.wav")

    assert code == 0
    # A second of silence follows, in which servers find the end.
    assert app.heard == b"\x02\x00" * 8000 + bytes(SECOND)
    assert app.metadata == {"echo": False}
    objects = [json.loads(line) for line in out.splitlines()]
    kinds = [it["type"] for it in objects if it["type"] != "audio"]
    assert kinds == ["opened", "turn_started", "transcript", "turn_completed", "ended"]
    transcript = objects[kinds.index("transcript")]
    assert transcript["text"] == "something"
    assert transcript["at"] > 1.4
    audio = [it for it in objects if it["type"] == "audio"]
    assert sum(it["duration_ms"] for it in audio) == 500
    assert "data" not in audio[0]
    assert objects[-1] | {"at": 0} == {
        "type": "ended",
        "at": 0,
        "answered": 1,
        "failed": 0,
        "heard_ms": 500.0,
    }
    assert read_wave() == (16_000, b"\x02\x00" * 8000)


@pytest.mark.spec("A152")
def test_answer_can_be_broken_off(talk: Talk) -> None:
    with serving(Echo()) as url:
        code, out, _ = talk(url, "--text=hi", "--interrupt-after=0.3", "--out=answer.wav")

    assert code == 0
    assert "   stopped  0." in out
    # What was on its way to the speaker is not heard either.
    heard = len(read_wave()[1])
    assert 0.25 * SECOND < heard < 0.8 * SECOND
    unsent = re.search(r"stopped  ([\d.]+) s were not sent", out)
    assert unsent is not None
    assert heard < (1 - float(unsent[1])) * SECOND - SECOND // 200


def test_answer_that_is_over_is_not_broken_off(talk: Talk) -> None:
    with serving(Echo()) as url:
        code, out, _ = talk(url, "--text=short", "--interrupt-after=0.3", "--out=answer.wav")

    assert code == 0
    assert "stopped" not in out
    assert "answer" not in out
    assert len(read_wave()[1]) == SECOND // 10


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("silence", 0, " completed  without audio"),
        ("fail", 1, "    failed  "),
    ],
)
def test_turn_without_an_answer_is_told(talk: Talk, text: str, code: int, line: str) -> None:
    with serving(Echo()) as url:
        found, out, _ = talk(url, "--text", text)

    assert found == code
    assert line in out


@pytest.mark.spec("A152")
def test_session_that_the_server_ends_is_told(talk: Talk) -> None:
    with serving(Echo()) as url:
        code, out, err = talk(url, "--text", "leave")

    assert code == 3
    assert "     ended  nothing was answered\n" in out
    assert err == ""


@pytest.mark.spec("A152")
def test_nobody_there_is_one_error(talk: Talk) -> None:
    code, out, err = talk("ws://127.0.0.1:9", "--text", "hello")

    assert (code, out) == (1, "")
    assert "nobody answers at 127.0.0.1:9" in err


def test_silence_of_the_server_ends_some_time(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        async def on_turn(self, session: Session, turn: Turn) -> None:
            await trio.sleep_forever()

        def on_session(self, session: Session) -> None:
            session.take_microphone()

    monkeypatch.setattr(_talk, "_PATIENCE", 0.2)
    monkeypatch.setattr(_talk, "_SILENCE", b"")
    write_wave(bytes(640))
    with serving(Deaf()) as url:
        code, out, _ = talk(url, "--wav", "question.wav")

    assert code == 3
    assert out.endswith("     ended  nothing was answered\n")


def test_session_that_breaks_is_one_error(talk: Talk) -> None:
    class Rude:
        async def on_turn(self, session: Session, turn: Turn) -> None:
            raise ValueError("no")

    with serving(Rude(), config=ServerConfig(max_failed_turns=1)) as url:
        code, out, err = talk(url, "--text", "hello")

    assert code == 1
    assert "     error  1 turns in a row failed (TURN_FAILED)\n" in out
    assert "actorflow: the session was closed with code 1011" in err


@pytest.mark.spec("A152")
def test_answer_that_breaks_off_is_written_as_far_as_it_was_heard(talk: Talk) -> None:
    with serving(Echo()) as url:
        code, out, err = talk(url, "--text", "break", "--out", "answer.wav")

    assert code == 1
    assert "    answer  You said \n" in out
    assert "     ended  in the middle of an answer\n" in out
    assert err.startswith("actorflow: the session was closed with code 1011")
    _, heard = read_wave()
    assert SECOND // 10 < len(heard) < SECOND
    assert set(heard) == {1, 0}


# Files and options


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--wav", "none.wav"], "--wav must be a file that can be read (No such file"),
        (["--wav", "text.wav"], "--wav must be a WAV file (file does not start with RIFF id)"),
        (["--wav", "empty.wav"], "--wav must be a WAV file (it ends early)"),
        (["--wav", "stereo.wav"], "--wav must be one channel of 16-bit samples, found '2 channels"),
        (["--wav", "text.wav", "--text", "x"], "--text must be left out where there is a --wav"),
        (["--text", "x", "--out", "no/answer.wav"], "--out must be a file that can be written"),
        (["--text", "x", "--cacert", "text.wav"], "--cacert must be certificates in PEM"),
    ],
)
def test_option_that_cannot_be_followed_is_told(
    talk: Talk, arguments: list[str], told: str
) -> None:
    Path("text.wav").write_text("hello, hello, hello")
    Path("empty.wav").write_text("")
    write_wave(bytes(80), channels=2)
    Path("question.wav").rename("stereo.wav")

    code, out, err = talk("ws://127.0.0.1:9", *arguments)

    assert (code, out) == (1, "")
    assert told in err


def test_file_of_another_rate_is_converted(talk: Talk) -> None:
    pytest.importorskip("soxr")
    app = Echo()
    write_wave(bytes(8000), rate=8000)
    with serving(app) as url:
        assert talk(url, "--wav", "question.wav")[0] == 0

    assert len(app.heard) == 2 * 8000 + SECOND


def test_certificates_to_trust_can_be_given(talk: Talk, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(Echo(), ssl_context=context) as url:
        assert talk(url, "--text", "hello", "--cacert", "ca.pem")[0] == 0

        assert "is not trusted" in talk(url, "--text", "hello")[2]


# Microphone and speaker


class Devices:
    """A microphone that hears one frame again and again, and a speaker that notes."""

    def __init__(self) -> None:
        self.played = b""
        self.cleared = 0
        self.microphone_rate = 0

    def play(self, samples: bytes) -> None:
        self.played += samples

    def clear(self) -> float:
        self.cleared += 1
        return 0.0

    @asynccontextmanager
    async def open_speaker(self, rate: int) -> Any:
        yield self

    @asynccontextmanager
    async def open_microphone(self, rate: int) -> Any:
        self.microphone_rate = rate
        yield self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.sleep(0.02)
        return b"\x03\x00" * 320


class Chatty:
    """Speaks as soon as it hears something, and breaks that off."""

    metadata: Any = None

    async def on_turn(self, session: Session, turn: Turn) -> None:
        self.metadata = dict(session.metadata)
        async for _ in turn.audio():
            await turn.send_audio(b"\x04\x00" * 4800)
            await trio.sleep(0.3)
            session.interrupt("enough")
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()


@pytest.mark.spec("A152")
@pytest.mark.parametrize(("option", "echo"), [([], True), (["--headphones"], False)])
def test_microphone_is_heard_and_the_speaker_plays_until_ctrl_c(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, option: list[str], echo: bool
) -> None:
    app, devices = Chatty(), Devices()
    monkeypatch.setattr(_talk, "open_microphone", devices.open_microphone)
    monkeypatch.setattr(_talk, "open_speaker", devices.open_speaker)

    with serving(app) as url:
        code, _, _ = talk(url, *option)

    assert code == 130
    assert app.metadata == {"echo": echo}
    assert devices.microphone_rate == 16_000
    assert devices.played
    assert set(devices.played) == {4, 0}


def test_machine_without_a_microphone_is_told(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    code, _, err = talk("ws://127.0.0.1:9")

    assert code == 1
    assert "The microphone needs packages that are not installed" in err
    assert "actorflow[audio]" in err


# What is shown, and what is heard


async def test_rare_messages_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    view = _talk.PlainView()

    view.show(ServerEvent("stage.started", {"stage": "listen"}))
    view.show(ErrorMessage(ErrorCode.AUDIO_FORMAT, "other audio"))
    view.show(Interrupted())
    view.show(Pong())

    shown = "     event  stage.started\n     error  other audio (AUDIO_FORMAT)\n"
    assert capsys.readouterr().out == shown


async def test_speaker_of_a_call_is_silent_after_an_interruption() -> None:
    devices = Devices()
    call = _talk.Call(_talk.PlainView(), Loudspeaker(16_000), speaker=devices)  # type: ignore[arg-type]

    call._note(TurnStarted("turn-1"))
    call._note(ReplyAudio("turn-1", 0, 1000.0, 1000.0, bytes(SECOND)))
    call._note(Interrupted("turn-1"))
    call._note(Interrupted())

    assert devices.cleared == 1
    assert call.loudspeaker.played == b""
    assert call.answered == 1


def test_loudspeaker_knows_what_was_heard() -> None:
    speaker = Loudspeaker(4000)
    speaker.begin()
    speaker.play(b"ab" * 4000, now=10.0)
    speaker.play(b"cd" * 4000, now=10.5)

    assert speaker.played_ms(10.0) == 0
    assert speaker.played_ms(11.25) == pytest.approx(1250)
    assert speaker.played_ms(99.0) == 2000
    speaker.stop(11.5)
    assert speaker.played == b"ab" * 4000 + b"cd" * 2000

    speaker.begin()
    speaker.play(b"ef" * 40, now=12.0)
    assert speaker.played_ms(12.005) == pytest.approx(5)
    assert speaker.played == b"ab" * 4000 + b"cd" * 2000 + b"ef" * 40
