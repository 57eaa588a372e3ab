"""Who has `tracemalloc` switched on. There is one for the whole process."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Final, final


@final
class Tracing:
    """Switches tracing on for the first user and off after the last.

    If it was on before the first one came, somebody else needs it and it stays on.
    """

    def __init__(self) -> None:
        # Trackers of several trio runs, each in a thread of its own, share it. And the
        # garbage collector may end one while its thread is in here.
        self._lock: Final = threading.RLock()
        self._users = 0
        self._is_ours = False

    def begin(self) -> None:
        with self._lock:
            self._users += 1
            if not tracemalloc.is_tracing():
                tracemalloc.start()
                self._is_ours = True

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._is_ours and not self._users:
                tracemalloc.stop()
                self._is_ours = False


tracing: Final = Tracing()
