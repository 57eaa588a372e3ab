from __future__ import annotations

from typing import final

import trio


@final
class Signal:
    """Wakes everybody who waits for a change. Look at the state again after waking."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        if self._event.statistics().tasks_waiting:
            self._event.set()
            self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()
