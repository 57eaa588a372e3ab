"""`actorflow serve`: what it serves, what it says, how it stops."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from actorflow import cli
from actorflow.client import Reconnect, open_session
from actorflow.errors import InvalidArgumentError
from actorflow.events import read_events
from actorflow.protocol import ReplyText
from actorflow.server import Session, Turn
from tests.test_layers import ROOT

pytest.importorskip("cyclopts")

from actorflow.cli import _serve

PARROT = """
import trio
from actorflow.errors import AuthDeniedError
from actorflow.server import Principal, ServerConfig

class Parrot:
    async def on_turn(self, session, turn):
        if turn.text == "slow":
            await trio.sleep(1)
        await turn.send_text(turn.text, is_final=True)

app = Parrot()
other = Parrot()
small = ServerConfig(max_sessions_per_principal=1)

async def only_ali(request):
    if request.headers.get("authorization") != "Bearer sesame":
        raise AuthDeniedError("unknown token")
    return Principal("ali")
"""

Serve = Callable[..., tuple[int, str]]


class Parrot:
    async def on_turn(self, session: Session, turn: Turn) -> None:
        if turn.text == "slow":
            await trio.sleep(0.5)
        await turn.send_text(str(turn.text), is_final=True)


@pytest.fixture
def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Serve:
    """Call the command in a directory with a parrot; returns its exit code and what went wrong."""
    monkeypatch.chdir(tmp_path)
    Path("parrot.py").write_text(PARROT, "utf-8")

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", "serve", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().err

    return call


@pytest.mark.spec("A151")
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere.py", "there is no such file"),
        ("parrot.py:bird", "there is no bird"),
        ("parrot.py:Parrot", "Parrot is not a SessionApp, found Parrot itself"),
        ("parrot.py:small", "small is not a SessionApp, found ServerConfig"),
    ],
)
def test_target_that_cannot_be_served_is_told(serve: Serve, target: str, told: str) -> None:
    code, err = serve(target)

    assert code == 2
    assert told in err
    if target != "nowhere.py":
        assert "Name one, as in parrot.py:app." in err


def test_file_without_an_application_is_told(serve: Serve) -> None:
    Path("empty.py").write_text("")

    code, err = serve("empty.py")

    assert code == 2
    assert "empty.py cannot be used: there is no app" in err
    assert "Make a SessionApp there." in err


def test_other_variables_of_the_target_have_to_be_there(serve: Serve) -> None:
    assert "there is no nobody" in serve("parrot.py", "--authenticate", "nobody")[1]
    assert "app is not a ServerConfig" in serve("parrot.py", "--config", "app")[1]


@pytest.mark.spec("A151")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--phone", "phone"], "--phone must be a path below /, such as /phone, found 'phone'"),
        (["--phone", "/"], "--phone must be a path below /"),
        (["--key", "key.pem"], "--key must be the key of a certificate (--cert)"),
        (["--cert", "none.pem"], "--cert and --key must be a certificate and its key in PEM"),
        (["--cert", "parrot.py", "--key", "parrot.py"], "found 'parrot.py, parrot.py'"),
        (["--host", "203.0.113.1"], "--host and --port must be an address to listen on"),
        (["--events", "parrot.py/x.jsonl"], "--events must be a file that can be written"),
    ],
)
def test_option_that_cannot_be_followed_is_told(
    serve: Serve, arguments: list[str], told: str
) -> None:
    code, err = serve("parrot.py", *arguments)

    assert code == 1
    assert told in err


@pytest.mark.spec("A151")
def test_port_that_is_taken_is_told(serve: Serve) -> None:
    async def hold() -> tuple[int, str]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            port = str(listener.socket.getsockname()[1])
            return await trio.to_thread.run_sync(run_serve, port)

    def run_serve(port: str) -> tuple[int, str]:
        return serve("parrot.py", "--port", port)

    code, err = trio.run(hold)

    assert code == 1
    assert "an address to listen on (Address already in use), found '127.0.0.1:" in err


def test_options_say_what_is_served(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    carried_out: list[_serve.Served] = []

    async def carry_on(served: _serve.Served, log: _serve.Log, events: Path | None) -> None:
        carried_out.append(served)

    monkeypatch.setattr(_serve, "carry_on", carry_on)
    options = ["--cert=cert.pem", "--authenticate=only_ali", "--config=small", "--drain=3"]

    code, err = serve("parrot.py:other", *options, "--phone=/phone", "--events=e.jsonl", "--json")

    (served,) = carried_out
    assert (code, err) == (0, "")
    assert (served.host, served.port, served.drain) == ("127.0.0.1", 8000, 3)
    assert served.authenticate.__name__ == "only_ali"
    assert served.config is not None
    assert served.config.max_sessions_per_principal == 1
    assert served.ssl_context is not None
    assert set(served.formats or {}) == {"/", "/phone"}


# Serving, in this process


async def lines_of(
    served: _serve.Served,
    talk: Callable[[str], Any],
    capsys: pytest.CaptureFixture[str],
    log: _serve.Log,
    events: Path | None = None,
) -> list[str]:
    """What is printed while somebody talks to the server and then interrupts it."""
    printed = ""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve.carry_on, served, log, events)
            # Nobody tells when something was printed.
            while not (printed := printed + capsys.readouterr().out):  # noqa: ASYNC110
                await trio.sleep(0.01)
            first = printed.splitlines()[0]
            url = json.loads(first)["url"] if first[0] == "{" else first.split()[-1]
            await talk(url)
            signal.raise_signal(signal.SIGINT)
    return (printed + capsys.readouterr().out).splitlines()


async def ask(url: str, text: str = "hello", **options: Any) -> None:
    async with open_session(url, **options) as session:
        await session.send_text(text)
        async for message in session:
            if isinstance(message, ReplyText):
                return


async def test_what_happens_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    served = _serve.Served(
        Parrot(), "127.0.0.1", 0, phone="/phone", formats=_serve._formats("/phone", None)
    )

    lines = await lines_of(served, ask, capsys, _serve.PlainLog("parrot.py"))

    assert lines[0].startswith("parrot.py listens at ws://127.0.0.1:")
    assert lines[1].startswith("and for phone calls at ws://127.0.0.1:")
    assert lines[1].endswith("/phone")
    assert lines[2].startswith("Talk to it: actorflow talk ws://127.0.0.1:")
    told = [line.split(" s  ", 1)[1] for line in lines[3:]]
    assert "opened from 127.0.0.1:" in told[0]
    assert told[1].endswith("closed with 1000 (ended by the client), turns: 1")
    assert told[-1] == "stopped, turns: 1"


async def test_json_has_an_object_in_each_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    served = _serve.Served(Parrot(), "127.0.0.1", 0)

    lines = await lines_of(served, ask, capsys, _serve.JSONLog(), file)

    objects = [json.loads(line) for line in lines]
    assert objects[1]["session_id"] == objects[2]["session_id"]
    assert [it["type"] for it in objects if it["type"] != "server.waiting"] == [
        "server.listening",
        "session.opened",
        "session.closed",
        "server.ended",
    ]
    assert "phone_url" not in objects[0]
    assert objects[-1]["turns"] == 1
    assert objects[-1]["sessions"] == {}
    recorded = [event.event_type for event in read_events(file)]
    assert recorded[0] == "session.opened"
    assert recorded[-1] == "session.closed"


@pytest.mark.spec("A151")
async def test_who_is_waited_for_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serve, "_PAUSE", 0.05)

    async def leave_in_a_turn(url: str) -> None:
        nursery.start_soon(ask, url, "slow")
        await trio.sleep(0.2)

    served = _serve.Served(Parrot(), "127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        lines = await lines_of(served, leave_in_a_turn, capsys, _serve.PlainLog("it"))

    waiting = "Interrupted; waiting for 1 session (draining). Ctrl-C again leaves at once."
    assert sum(line.endswith(waiting) for line in lines) == 1
    assert lines[-1].endswith("stopped, turns: 1")


def test_turned_away_clients_have_no_session(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"session_id": None, "peer": "10.0.0.1:1", "status": 426, "reason": "not a websocket"}
    log = _serve.PlainLog("it")

    log.try_emit(type="session.rejected", data=data)
    log.try_emit(type="stage.started", data=None)

    out = capsys.readouterr().out
    assert out.endswith("s  10.0.0.1:1 was turned away with status 426: not a websocket\n")
    assert out.count("\n") == 1


# The whole command, in a process of its own


def start(directory: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    (directory / "parrot.py").write_text(PARROT, "utf-8")
    program = "from actorflow.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "parrot.py", "--port=0", "--json"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first, process.communicate()[1]
    return process, json.loads(first)


@pytest.mark.spec("A151")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    process, opened = start(tmp_path)
    trio.run(ask, opened["url"])

    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["type"] == "server.ended"


@pytest.mark.spec("A151")
def test_second_interrupt_leaves_at_once(tmp_path: Path) -> None:
    process, opened = start(tmp_path)

    async def interrupt_twice() -> None:
        async with open_session(opened["url"], reconnect=Reconnect(max_attempts=0)) as session:
            await session.send_text("slow")
            await trio.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            while "server.waiting" not in await trio.to_thread.run_sync(process.stdout.readline):
                pass
            process.send_signal(signal.SIGINT)
            await trio.to_thread.run_sync(process.wait)

    trio.run(interrupt_twice)

    process.communicate(timeout=5)
    assert process.returncode == 130


def test_tls_tokens_and_limits_come_from_the_command_line(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    options = ["--cert=cert.pem", "--authenticate=only_ali", "--config=small"]
    process, opened = start(tmp_path, *options)
    try:
        assert opened["url"].startswith("wss://")
        trio.run(partial(ask, opened["url"], ssl_context=trusting, token="sesame"))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_phone_has_a_path_of_its_own() -> None:
    assert _serve._formats(None, None) is None
    with pytest.raises(InvalidArgumentError):
        _serve._formats("/", None)
