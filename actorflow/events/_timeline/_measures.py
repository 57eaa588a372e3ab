"""Numbers as people read them on a picture."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """Write a duration: ``0.4 ms``, ``412 ms``, ``3.21 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def ticks(seconds: float, about: int) -> list[float]:
    """Return round numbers from zero up to `seconds`, close to `about` of them."""
    if seconds <= 0:
        return [0.0]
    rough = seconds / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(size * magnitude for size in (1, 2, 5, 10) if size * magnitude >= rough)
    return [number * step for number in range(int(seconds / step) + 1)]


def tick_label(seconds: float, last: float) -> str:
    """Write a tick in the unit that suits the last one."""
    if last < 1:
        return f"{seconds * 1000:g} ms"
    if last < 120:
        return f"{round(seconds, 6):g} s"
    return f"{round(seconds / 60, 6):g} min"


def cut(text: str, letters: int) -> str:
    """Shorten a text that is too long, and show that by an ellipsis."""
    return text if len(text) <= letters else text[: max(letters - 1, 0)] + "…"
