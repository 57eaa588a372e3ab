"""`actorflow serve`: sessions with an application of a file."""

from __future__ import annotations

import inspect
import json
import signal
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, final

import attrs
import trio
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from actorflow import clock
from actorflow.errors import InvalidArgumentError, TargetError
from actorflow.events import TeeEventSink
from actorflow.protocol import HouseFormat, TwilioFormat, WireFormat
from actorflow.server import Server, ServerConfig, SessionApp, open_server

from ._interrupts import Interrupts, waiting_for
from ._run import _check_writable, _recording
from ._target import UNUSABLE, Target, _guarded, _load
from ._tell import tell

_PAUSE: Final = 0.5

# What is told of an event while sessions go on, per type.
_LINES: Final[Mapping[str, str]] = {
    "session.opened": "opened from {peer} by {principal}",
    "session.rejected": "{peer} was turned away with status {status}: {reason}",
    "session.interrupted": "{turn_id} was interrupted: {reason}",
    "session.overloaded": "cannot keep up ({direction}): {dropped} dropped",
    "session.hearing_restarted": "hearing broke and began anew",
    "session.detached": "lost its connection ({reason}), waits {grace_seconds:g} s",
    "session.resumed": "came back after {detached_seconds:.1f} s",
    "session.closed": "closed with {code} ({reason}), turns: {turns}",
}


@final
@attrs.frozen
class Served:
    """What is asked of a server."""

    app: SessionApp
    host: str
    port: int
    config: ServerConfig | None = None
    authenticate: Any = None
    formats: Mapping[str, WireFormat] | None = None
    ssl_context: ssl.SSLContext | None = None
    drain: float = 30.0
    phone: str | None = None


def serve(
    target: str | Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))] = 8000,
    cert: Path | None = None,
    key: Path | None = None,
    phone: str | None = None,
    authenticate: str | None = None,
    config: str | None = None,
    drain: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0,
    events: Annotated[Path | None, Parameter(alias="-e")] = None,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
    traceback: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Hold sessions over websockets with an application of a file.

    It serves until Ctrl-C or SIGTERM. Then it lets no one in, lets the present turns end, says
    for whom it waits, and closes every session. A second Ctrl-C leaves at once.

    Args:
        target: `file.py:variable` or `package.module:variable`; the variable is a `SessionApp`,
            such as a `VoiceApp`. Without one it is `app`.
        host: The interface to listen on: 127.0.0.1 (the default) for this machine, 0.0.0.0 for
            everybody.
        port: The port, by default 8000; 0 takes any that is free.
        cert: A certificate (PEM), to speak TLS. It may have its key with it.
        key: The private key of the certificate (PEM).
        phone: A path, such as /phone, at which Twilio Media Streams are spoken.
        authenticate: The function in the target that says who a client is.
        config: The variable in the target that is a `ServerConfig`.
        drain: Seconds that turns may take to end once the server stops, by default 30.
        events: Add the events of sessions and their runs to this file.
        as_json: Print one JSON object per line, for programs.
        traceback: If the target cannot be used, show where in full.
    """
    try:
        wanted = _find(Target.parse(str(target)), authenticate, config)
    except TargetError as error:
        tell(error, in_full=traceback)
        return UNUSABLE
    served = attrs.evolve(
        wanted,
        host=host,
        port=port,
        drain=drain,
        ssl_context=_ssl_context(cert, key),
        formats=_formats(phone, wanted.config),
        phone=phone,
    )
    if events is not None:
        _check_writable(events)
    log = JSONLog() if as_json else PlainLog(str(target))
    trio.run(partial(carry_on, served, log, events))
    return 0


def _find(target: Target, authenticate: str | None, config: str | None) -> Served:
    module = _guarded(target, partial(_load, target.source))
    name = target.variable or "app"
    app = _variable(target, module, name, _is_app, "a SessionApp")
    served = Served(app, "", 0)
    if authenticate is not None:
        known = _variable(target, module, authenticate, callable, "a function")
        served = attrs.evolve(served, authenticate=known)
    if config is not None:
        expected = partial(_is_a, ServerConfig)
        served = attrs.evolve(
            served, config=_variable(target, module, config, expected, "a ServerConfig")
        )
    return served


def _is_app(value: object) -> bool:
    return not inspect.isclass(value) and callable(getattr(value, "on_turn", None))


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind)


def _variable(
    target: Target,
    module: ModuleType,
    path: str,
    fits: Callable[[Any], bool],
    expected: str,
) -> Any:
    fitting = [name for name, value in vars(module).items() if fits(value) and name[0] != "_"]
    hint = (
        f"Name one, as in {target.source}:{fitting[0]}." if fitting else f"Make {expected} there."
    )
    try:
        value = reduce(getattr, path.split("."), module)
    except AttributeError:
        raise TargetError(str(target), f"there is no {path}", hint) from None
    if not fits(value):
        kind = value.__name__ + " itself" if inspect.isclass(value) else type(value).__name__
        raise TargetError(str(target), f"{path} is not {expected}, found {kind}", hint)
    return value


def _ssl_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise InvalidArgumentError("--key", str(key), "the key of a certificate (--cert)")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        found = str(cert) if key is None else f"{cert}, {key}"
        expected = f"a certificate and its key in PEM ({error.strerror or error})"
        raise InvalidArgumentError("--cert and --key", found, expected) from error
    return context


def _formats(phone: str | None, config: ServerConfig | None) -> Mapping[str, WireFormat] | None:
    if phone is None:
        return None
    if not phone.startswith("/") or phone == "/":
        raise InvalidArgumentError("--phone", phone, "a path below /, such as /phone")
    limit = (config or ServerConfig()).max_message_size
    return {"/": HouseFormat(limit), phone: TwilioFormat(limit)}


async def carry_on(served: Served, log: Log, events: Path | None = None) -> None:
    """Serve until somebody interrupts, then stop in order."""
    async with _recording(events) as sinks:
        async with _listening(served, TeeEventSink(log, *sinks)) as server:
            log.listening(server, served.phone)
            asked = trio.Event()
            with Interrupts(asked.set, log.console).caught(signal.SIGTERM):
                await asked.wait()
                async with trio.open_nursery() as beside:
                    beside.start_soon(_watch, server, log)
                    await server.drain(served.drain)
                    beside.cancel_scope.cancel()
        log.ended(server)


@asynccontextmanager
async def _listening(served: Served, sink: TeeEventSink) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(
                open_server(
                    served.app,
                    served.host,
                    served.port,
                    config=served.config,
                    authenticate=served.authenticate,
                    formats=served.formats,
                    ssl_context=served.ssl_context,
                    event_sink=sink,
                )
            )
        except OSError as error:
            expected = f"an address to listen on ({error.strerror})"
            found = f"{served.host}:{served.port}"
            raise InvalidArgumentError("--host and --port", found, expected) from error
        yield server


async def _watch(server: Server, log: Log) -> None:
    said = None
    while True:
        left = server.statistics().sessions
        if left != said:
            log.waiting(left)
            said = left
        await trio.sleep(_PAUSE)


class Log(ABC):
    """Where the server says what happens, and an event sink of its sessions. Subclasses print."""

    console: Final = Console(stderr=True, highlight=False)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        self.try_emit(type=type, data=data)

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        if type in _LINES:
            self.happened(type, data or {})

    @abstractmethod
    def listening(self, server: Server, phone: str | None) -> None: ...

    @abstractmethod
    def happened(self, type: str, data: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def waiting(self, sessions: Mapping[str, int]) -> None:
        """Tell who is left of those that a server which stops waits for."""

    @abstractmethod
    def ended(self, server: Server) -> None: ...


@final
class PlainLog(Log):
    """Lines for people."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = 0.0

    def listening(self, server: Server, phone: str | None) -> None:
        self._start = clock.monotonic()
        _say(f"{self._name} listens at {server.url}")
        if phone is not None:
            _say(f"and for phone calls at {server.url}{phone}")
        _say(f"Talk to it: actorflow talk {server.url} --text hello. Ctrl-C stops it in order.")

    def happened(self, type: str, data: Mapping[str, Any]) -> None:
        session = data["session_id"]
        # The end of the id is what differs.
        who = "" if session is None else f"session {session[-8:]} "
        self._line(who + _LINES[type].format_map(data))

    def waiting(self, sessions: Mapping[str, int]) -> None:
        names = [
            f"{count} session{'s'[: count != 1]} ({state})" for state, count in sessions.items()
        ]
        self._line(waiting_for(names))

    def ended(self, server: Server) -> None:
        self._line(f"stopped, turns: {server.statistics().turns}")

    def _line(self, text: str) -> None:
        _say(f"{clock.monotonic() - self._start:8.2f} s  {text}")


@final
class JSONLog(Log):
    """One object per line, for programs."""

    def listening(self, server: Server, phone: str | None) -> None:
        url = None if phone is None else server.url + phone
        self.happened("server.listening", {"url": server.url, "phone_url": url})

    def happened(self, type: str, data: Mapping[str, Any]) -> None:
        known = {key: value for key, value in data.items() if value is not None}
        _say(json.dumps({"type": type, **known}, default=str))

    def waiting(self, sessions: Mapping[str, int]) -> None:
        self.happened("server.waiting", {"sessions": dict(sessions)})

    def ended(self, server: Server) -> None:
        numbers = attrs.asdict(server.statistics(), recurse=False)
        self.happened("server.ended", numbers | {"sessions": dict(numbers["sessions"])})


def _say(line: str) -> None:
    # Whoever waits for the address reads it from a pipe.
    print(line, flush=True)
