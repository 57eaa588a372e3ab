"""Errors, as the person at the terminal gets to see them."""

from __future__ import annotations

import os
import sys
import traceback

from actorflow.errors import ActorflowError


def wants_tracebacks() -> bool:
    """Whether the environment asks for tracebacks, with ACTORFLOW_DEBUG=1."""
    return os.environ.get("ACTORFLOW_DEBUG", "0") not in {"", "0"}


def tell(error: ActorflowError, *, in_full: bool = False) -> None:
    """Say on stderr what went wrong and what to do about it; `in_full` also where."""
    if in_full or wants_tracebacks():
        traceback.print_exception(error)
    # Where a browser finds the code, the command line has it at hand.
    notes = [note for note in error.__notes__ if note != f"see: {error.doc_url}"]
    more = f"more: actorflow explain {error.code}"
    print(f"actorflow: {error}", *notes, more, sep="\n", file=sys.stderr)
