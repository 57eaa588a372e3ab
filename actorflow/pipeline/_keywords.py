"""Keywords as people type them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from actorflow.errors import UnknownKeywordError


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote `name` most likely meant."""
    by_folded = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None


def check_keywords(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a keyword that `call` does not have."""
    for keyword in given:
        if keyword not in known:
            expected = ", ".join(sorted(known))
            raise UnknownKeywordError(call, keyword, expected, closest(keyword, known))
