"""Which events clients are told of, and the sink that tells one client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, final

import trio

if TYPE_CHECKING:
    from ._session import Session

# What was refused and why, and what tools were given and returned, are the client's
# business only where somebody has said so.
_DISCREET: Final = ("guardrail.", "tool.")


def is_forwarded(type_: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` asks for an event. Those of guardrails and tools must be named."""
    families = [family for family in _DISCREET if type_.startswith(family)]
    return any(
        fnmatchcase(type_, pattern) and all(pattern.startswith(family) for family in families)
        for pattern in patterns
    )


@final
class ClientSink:
    """Tells the client of a session what happens, as far as it may know, and never waits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._patterns: Final = session.config.forward_events

    def takes(self, type: str) -> bool:
        """Whether the client is told of events of this type."""
        return is_forwarded(type, self._patterns)

    async def emit(self, *, type: str, data: Mapping[str, Any] | None) -> None:
        """Tell the client; a client that does not keep up misses events."""
        self.try_emit(type=type, data=data)
        await trio.lowlevel.checkpoint()

    def try_emit(self, *, type: str, data: Mapping[str, Any] | None) -> bool:
        """Tell the client, unless too much waits for it."""
        return not self.takes(type) or self._session.tell(type, data or {})
