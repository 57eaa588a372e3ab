"""A server that echoes whole messages, for the Autobahn fuzzing client.

`docs/reference/websocket-conformance.md` tells how it is used and what came out. Run it
with a port: ``python -m tests.server.autobahn_server 9001``.
"""

from __future__ import annotations

import sys
from typing import ClassVar, final

import attrs
import trio

from actorflow.protocol import ClientMessage, Frame, ReplyText, ServerMessage, Start, UserText
from actorflow.server import ServerConfig, Session, SessionApp, Turn, open_server


@final
@attrs.frozen
class EchoFormat:
    """Every message is a text of the user, and every text of the answer a message.

    The first letter tells text from binary, whose bytes are letters of their own.
    """

    subprotocol: ClassVar[str | None] = None
    is_resumable: ClassVar[bool] = False

    def opening(self) -> tuple[ClientMessage, ...]:
        return (Start(),)

    def read(self, frame: Frame) -> tuple[EchoFormat, tuple[ClientMessage, ...]]:
        text = f"t{frame}" if isinstance(frame, str) else f"b{frame.decode('latin-1')}"
        return self, (UserText(text),)

    def write(self, seq: int, message: ServerMessage) -> tuple[Frame, ...]:
        if not isinstance(message, ReplyText):
            return ()
        kind, content = message.delta[0], message.delta[1:]
        return (content if kind == "t" else content.encode("latin-1"),)


class Echo(SessionApp):
    async def on_turn(self, session: Session, turn: Turn) -> None:
        await turn.send_text(turn.text or "")


# The client sends up to 16 MiB at once, and a thousand messages in a row.
CONFIG = ServerConfig(
    max_message_size=2**25, queued_texts=2_000, outbound_bytes=2**26, slow_client_timeout=60
)


async def main(port: int) -> None:
    async with open_server(Echo(), port=port, config=CONFIG, formats={"/": EchoFormat()}) as server:
        print(server.url, flush=True)  # noqa: T201 - it is what was asked for
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
