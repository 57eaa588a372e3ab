"""How an actor can end."""

from __future__ import annotations

from typing import TypeAlias, final

import attrs


@final
@attrs.frozen
class Normal:
    """The behaviour returned by itself."""

    def __str__(self) -> str:
        return "it returned"


@final
@attrs.frozen
class Shutdown:
    """An orderly stop was asked for and obeyed."""

    why: str = "stopped"

    def __str__(self) -> str:
        return f"it was stopped: {self.why}"


@final
@attrs.frozen
class Killed:
    """Its cancel scope fired: a kill, a time limit, or cancellation from outside."""

    why: str = "killed"

    def __str__(self) -> str:
        return f"it was killed: {self.why}"


@final
@attrs.frozen(eq=False)
class Crashed:
    """An exception left the behaviour."""

    error: Exception

    def __str__(self) -> str:
        return f"it crashed: {self.error!r}"


Reason: TypeAlias = Normal | Shutdown | Killed | Crashed


def split_crash(error: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Return what of `error` is a crash and what has to travel on.

    Cancelled, KeyboardInterrupt and SystemExit belong to whoever opened a
    scope or pressed the key, also when they share a group with a crash.
    """
    if isinstance(error, Exception):
        return error, None
    if isinstance(error, BaseExceptionGroup):
        return error.split(Exception)
    return None, error
