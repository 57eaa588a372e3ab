"""Streaming sessions over websockets: who talks, in turns, over connections that may break."""

from __future__ import annotations

from ._admission import (
    ANONYMOUS as ANONYMOUS,
    Authenticate as Authenticate,
    HandshakeRequest as HandshakeRequest,
    Principal as Principal,
)
from ._config import ServerConfig as ServerConfig
from ._server import Server as Server, open_server as open_server
from ._session import (
    ListeningApp as ListeningApp,
    Session as Session,
    SessionApp as SessionApp,
)
from ._sessions import (
    ServerStatistics as ServerStatistics,
    Sessions as Sessions,
    open_sessions as open_sessions,
)
from ._turn import Turn as Turn
