"""Named channels between stages that are not declared as stream edges."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, final

from actorflow.audio import ChunkQueue
from actorflow.errors import InvalidArgumentError


@final
class RealtimeStageBus:
    """Channels by name, made when they are first used.

    Each is a `ChunkQueue`: bounded, first in first out, every item to one of its
    subscribers. A run has a bus of its own and closes it at its end.
    """

    def __init__(
        self,
        *,
        default_max_size: int = 100,
        default_drop_on_overflow: bool = False,
        event_emitter: Callable[[str, dict[str, Any]], Any] | None = None,
        max_channels: int = 1000,
    ) -> None:
        if max_channels < 1:
            raise InvalidArgumentError("max_channels", max_channels, "at least 1")
        self._defaults = (default_max_size, default_drop_on_overflow)
        self._event_emitter = event_emitter
        self._max_channels = max_channels
        self._channels: dict[str, ChunkQueue[Any]] = {}
        self._options: dict[str, tuple[int, bool]] = {}

    def channel(
        self, name: str, *, max_size: int | None = None, drop_on_overflow: bool | None = None
    ) -> ChunkQueue[Any]:
        """The channel of this name; options may be left out once it exists.

        Raises:
          InvalidArgumentError: if the options are not those it was made with, or
            there are too many channels.
        """
        options = self._options.get(name)
        if options is None:
            return self._open(name, max_size, drop_on_overflow)
        for option, wanted, made_with in zip(
            ("max_size", "drop_on_overflow"), (max_size, drop_on_overflow), options, strict=True
        ):
            if wanted is not None and wanted != made_with:
                raise InvalidArgumentError(option, wanted, f"{made_with}, as {name!r} has it")
        return self._channels[name]

    def _open(
        self, name: str, max_size: int | None, drop_on_overflow: bool | None
    ) -> ChunkQueue[Any]:
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError("name", name, "the name of a channel")
        if len(self._channels) >= self._max_channels:
            raise InvalidArgumentError(
                "name", name, f"one of at most {self._max_channels} channels"
            )
        size, drops = self._defaults
        size = size if max_size is None else max_size
        drops = drops if drop_on_overflow is None else drop_on_overflow
        queue = ChunkQueue[Any](size, drop_on_overflow=drops, event_emitter=self._event_emitter)
        self._options[name] = (size, drops)
        self._channels[name] = queue
        return queue

    async def publish(self, name: str, item: Any) -> bool:
        """Put an item on a channel once there is room; False if the channel is closed."""
        return await self.channel(name).put(item)

    def subscribe(self, name: str) -> AsyncIterator[Any]:
        """The items of a channel until it is closed; each goes to one subscriber."""
        return self.channel(name)

    def close_channel(self, name: str) -> None:
        """Take no more items on a channel; what is in it can still be read."""
        self.channel(name).close_nowait()

    def close_all(self) -> None:
        """Close every channel."""
        for queue in self._channels.values():
            queue.close_nowait()

    def stats(self) -> dict[str, dict[str, Any]]:
        """What each channel holds and has counted."""
        return {name: _about(queue) for name, queue in self._channels.items()}


def _about(queue: ChunkQueue[Any]) -> dict[str, Any]:
    statistics = queue.statistics()
    return {
        "size": statistics.size,
        "max_size": statistics.max_size,
        "closed": statistics.is_closed,
        "backpressure": statistics.backpressure.to_dict(),
    }
