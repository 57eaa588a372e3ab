from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, final

import attrs

from actorflow.errors import InvalidArgumentError
from actorflow.protocol import DEFAULT_LEAD_MS, MAX_MESSAGE_SIZE


def _at_least(least: float) -> Any:
    # Any: fields of both kinds of number use it.
    def check(_: object, field: attrs.Attribute[Any], value: float | None) -> None:
        if value is not None and not value >= least:
            raise InvalidArgumentError(field.name, value, f"a number of at least {least:g}")

    return check


def _positive(_: object, field: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise InvalidArgumentError(field.name, value, "a number above 0")


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    # A string is an iterable of patterns of one letter.
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _origins(origins: Iterable[str] | None) -> frozenset[str] | None:
    return None if origins is None else frozenset(origins)


@final
@attrs.frozen(kw_only=True)
class ServerConfig:
    """What a server allows, and how long it waits. Times are in seconds unless they end in `_ms`."""

    max_connections: int = attrs.field(default=1000, validator=_at_least(1))
    max_sessions_per_principal: int = attrs.field(default=10, validator=_at_least(1))
    allowed_origins: frozenset[str] | None = attrs.field(default=None, converter=_origins)
    """Origins of browser pages that may connect; None allows all."""
    handshake_timeout: float = attrs.field(default=10.0, validator=_positive)
    start_timeout: float = attrs.field(default=10.0, validator=_positive)
    close_timeout: float = attrs.field(default=5.0, validator=_positive)
    """How long closing may wait for the other end."""
    max_message_size: int = attrs.field(default=MAX_MESSAGE_SIZE, validator=_at_least(1))
    heartbeat_interval: float = attrs.field(default=20.0, validator=_positive)
    heartbeat_timeout: float = attrs.field(default=10.0, validator=_positive)
    idle_timeout: float = attrs.field(default=300.0, validator=_positive)
    resume_grace: float = attrs.field(default=30.0, validator=_at_least(0))
    """How long a session waits for its client to come back."""
    replay_messages: int = attrs.field(default=1000, validator=_at_least(1))
    replay_bytes: int = attrs.field(default=4_194_304, validator=_at_least(1))
    inbound_ms: float = attrs.field(default=2000.0, validator=_positive)
    """How much audio of the user may wait to be worked off."""
    inbound_policy: Literal["drop_oldest", "block", "reject"] = attrs.field(default="drop_oldest")
    """What happens to more than that."""
    inbound_pause_limit: float = attrs.field(default=30.0, validator=_positive)
    """With `block`: how long the client may be kept waiting."""
    outbound_messages: int = attrs.field(default=256, validator=_at_least(1))
    outbound_bytes: int = attrs.field(default=1_048_576, validator=_at_least(1))
    slow_client_timeout: float = attrs.field(default=10.0, validator=_positive)
    """How long a client may take to take one frame."""
    lead_ms: float = attrs.field(default=DEFAULT_LEAD_MS, validator=_positive)
    """How far audio is sent ahead of the speaker."""
    piece_ms: float = attrs.field(default=40.0, validator=_at_least(1))
    """How long the pieces are in which audio is sent."""
    queued_texts: int = attrs.field(default=16, validator=_at_least(1))
    """How many messages of the user may wait for the present turn to end."""
    max_turn_seconds: float | None = attrs.field(default=None, validator=_positive)
    max_failed_turns: int = attrs.field(default=3, validator=_at_least(1))
    """So many failed turns in a row end the session."""
    forward_events: tuple[str, ...] = attrs.field(default=(), converter=_patterns)
    """Which events clients are told of: patterns of types, such as `stage.*`."""

    @inbound_policy.validator
    def _known(self, field: attrs.Attribute[str], value: str) -> None:
        if value not in ("drop_oldest", "block", "reject"):
            allowed = "'drop_oldest', 'block' or 'reject'"
            raise InvalidArgumentError(field.name, value, allowed)

    def __attrs_post_init__(self) -> None:
        if self.heartbeat_timeout > self.heartbeat_interval:
            at_most = f"at most heartbeat_interval ({self.heartbeat_interval:g})"
            raise InvalidArgumentError("heartbeat_timeout", self.heartbeat_timeout, at_most)
