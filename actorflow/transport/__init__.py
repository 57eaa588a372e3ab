"""How the frames of a session travel: connections, and websockets as such."""

from __future__ import annotations

from ._connection import Connection as Connection, hang_up as hang_up
from ._websocket import WebsocketConnection as WebsocketConnection
