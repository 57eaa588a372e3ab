"""How full a queue is, and whether its producers should slow down."""

from __future__ import annotations

from typing import Any, final

import attrs

from actorflow.errors import InvalidAudioError

from ._arguments import check_count, check_milliseconds


@final
@attrs.frozen
class BackpressureStats:
    """What a monitor had counted when it was asked."""

    total_items: int = 0
    """Items that were put, those dropped later included."""
    dropped_items: int = 0
    blocked_puts: int = 0
    max_queue_size: int = 0
    total_blocked_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The counts, and the share of items that was dropped."""
        return {
            **attrs.asdict(self),
            "drop_rate": self.dropped_items / max(self.total_items, 1),
        }


@final
class BackpressureMonitor:
    """Counts what a queue does, and says when its producers should slow down.

    Throttling begins at the high water mark and ends at the low one, both in
    percent of the queue's size, so a queue that hovers around one mark does not
    switch all the time.
    """

    __slots__ = (
        "_blocked",
        "_blocked_ms",
        "_dropped",
        "_fill",
        "_high",
        "_is_throttling",
        "_low",
        "_peak",
        "_total",
    )

    def __init__(
        self,
        *,
        high_water_mark: float = 80,
        low_water_mark: float = 20,
        threshold: float | None = None,
    ) -> None:
        """Set the marks; `threshold`, from 0 to 1, is another way to say the high one.

        Raises:
          InvalidAudioError: if the marks are not in order, or not between 0 and 100.
        """
        if threshold is not None:
            if not 0 <= threshold <= 1:
                raise InvalidAudioError("threshold", threshold, "a share between 0 and 1")
            high_water_mark = int(threshold * 100)
            low_water_mark = min(low_water_mark, high_water_mark // 2)
        if not 0 <= high_water_mark <= 100:
            raise InvalidAudioError("high_water_mark", high_water_mark, "between 0 and 100")
        if not 0 <= low_water_mark < high_water_mark:
            expected = f"between 0 and the high water mark, {high_water_mark}"
            raise InvalidAudioError("low_water_mark", low_water_mark, expected)
        self._high = high_water_mark
        self._low = low_water_mark
        self._fill = 0.0
        self._is_throttling = False
        self._total = self._dropped = self._blocked = self._peak = 0
        self._blocked_ms = 0.0

    def record_put(self, queue_size: int, max_size: int = 100, share: float = 0.0) -> None:
        """Count an item, after which the queue holds `queue_size`.

        Args:
          share: how full the queue is by another measure, such as time, as a
            part of 1; the larger of the two counts.
        """
        self._check(queue_size, max_size, share)
        self._note_put(queue_size, queue_size / max_size, share)

    def record_get(self, queue_size: int, max_size: int = 100, share: float = 0.0) -> None:
        """Note that the queue holds `queue_size` after an item was taken out."""
        self._check(queue_size, max_size, share)
        self._note_get(queue_size / max_size, share)

    # Queues of this package, which cannot be wrong about their size, call these for
    # every item. What they have in common stands in both, because a call would cost
    # as much as all of it; so would one of `max`.

    def _note_put(self, queue_size: int, fill: float, share: float) -> None:
        if share > fill:  # noqa: PLR1730
            fill = share
        self._fill = fill = fill * 100
        if fill >= self._high:
            self._is_throttling = True
        elif fill <= self._low:
            self._is_throttling = False
        self._total += 1
        if queue_size > self._peak:  # noqa: PLR1730
            self._peak = queue_size

    def _note_get(self, fill: float, share: float) -> None:
        if share > fill:  # noqa: PLR1730
            fill = share
        self._fill = fill = fill * 100
        if fill >= self._high:
            self._is_throttling = True
        elif fill <= self._low:
            self._is_throttling = False

    def record_blocked(self, blocked_ms: float) -> None:
        """Count a producer that had to wait."""
        check_milliseconds("blocked_ms", blocked_ms, is_zero_fine=True)
        self._blocked += 1
        self._blocked_ms += blocked_ms

    def record_drop(self) -> None:
        """Count an item that nobody will get."""
        self._dropped += 1

    def should_throttle(self) -> bool:
        """Whether producers should slow down."""
        return self._is_throttling

    @property
    def fill_percentage(self) -> float:
        """How full the queue was when something was recorded last."""
        return self._fill

    @property
    def stats(self) -> BackpressureStats:
        """The counts as they are now."""
        return BackpressureStats(
            self._total, self._dropped, self._blocked, self._peak, self._blocked_ms
        )

    def _check(self, queue_size: int, max_size: int, share: float) -> None:
        check_count("max_size", max_size, least=1)
        check_count("queue_size", queue_size, least=0)
        if not share >= 0:
            raise InvalidAudioError("share", share, "a part of 1")
