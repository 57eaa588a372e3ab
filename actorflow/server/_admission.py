from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, final

import attrs

from actorflow.model import freeze


@final
@attrs.frozen
class HandshakeRequest:
    """What a client says about itself before it is let in."""

    path: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Names in lower case; of a repeated header the last one."""
    query: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    peer: str = ""
    subprotocols: tuple[str, ...] = ()


@final
@attrs.frozen
class Principal:
    """Who is at the other end."""

    id: str
    claims: Mapping[str, Any] = attrs.field(factory=dict, converter=freeze, repr=False)


ANONYMOUS = Principal("anonymous")
"""Who is at the other end where nobody asks."""

Authenticate: TypeAlias = Callable[[HandshakeRequest], Awaitable[Principal]]
"""Says who a client is, or raises `AuthDeniedError`."""
