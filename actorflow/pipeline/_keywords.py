"""Keywords as people type them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from actorflow.errors import InvalidTypeError


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote `name` most likely meant."""
    by_folded = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None


def check_keywords(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a keyword that `call` does not have."""
    for keyword in given:
        if keyword not in known:
            meant = closest(keyword, known)
            rest = ", ".join(sorted(known))
            expected = f"{meant!r} perhaps, or another of {rest}" if meant else f"one of {rest}"
            raise InvalidTypeError(f"keyword of {call}", keyword, expected)
