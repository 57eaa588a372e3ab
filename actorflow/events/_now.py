"""The time of an event, as text."""

from __future__ import annotations

from datetime import datetime, timezone

from actorflow import clock

# The second that was written last and its text. Events come many to a second,
# and writing one out takes longer than everything else about stamping.
_second: tuple[float, str] = (-1.0, "")


def iso_now() -> str:
    """Return ``clock.now()`` in ISO 8601, always with six decimals."""
    global _second  # noqa: PLW0603 - a cache, replaced as a whole
    second, fraction = divmod(clock.timestamp(), 1.0)
    # Rounded as `timedelta` does it, which is how `clock.now` comes about.
    microsecond = round(fraction * 1e6)
    if microsecond == 1_000_000:
        second, microsecond = second + 1, 0
    cached, text = _second
    if cached != second:
        text = datetime.fromtimestamp(second, timezone.utc).isoformat()[:19]
        _second = (second, text)
    return f"{text}.{microsecond:06}+00:00"
