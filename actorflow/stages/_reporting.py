"""What contexts put into the events they report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID


def id_text(identifier: UUID | str | None) -> str | None:
    """An id as events and dicts carry it."""
    return None if identifier is None else str(identifier)


class _Session(Protocol):
    @property
    def session_id(self) -> UUID | None: ...

    @property
    def user_id(self) -> UUID | None: ...

    @property
    def org_id(self) -> UUID | None: ...

    @property
    def topology(self) -> str | None: ...


def stage_event_data(
    session: _Session,
    service: str | None,
    stage: str,
    status: str,
    payload: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The payload of `<stage>.<status>`; what the caller adds wins."""
    return {
        "stage": stage,
        "status": status,
        "session_id": id_text(session.session_id),
        "user_id": id_text(session.user_id),
        "org_id": id_text(session.org_id),
        "service": service,
        "topology": session.topology,
        **(payload or {}),
    }
