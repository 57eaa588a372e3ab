"""A client of streaming sessions that comes back by itself when its connection breaks."""

from __future__ import annotations

from ._reconnect import Reconnect as Reconnect
from ._session import (
    ClientSession as ClientSession,
    Connect as Connect,
    open_session as open_session,
    open_session_over as open_session_over,
)
