"""Who a run belongs to."""

from __future__ import annotations

from datetime import datetime
from typing import final
from uuid import UUID

import attrs

from actorflow import clock

from ._value import Value, as_utc, as_uuid


@final
@attrs.frozen
class RunIdentity(Value):
    """The ids of a run and of what it is part of. None of them is made here."""

    pipeline_run_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    request_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    session_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    user_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    org_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    interaction_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    created_at: datetime = attrs.field(
        factory=clock.now, converter=attrs.Converter(as_utc, takes_field=True)
    )

    def with_pipeline_run_id(self, pipeline_run_id: UUID | str) -> RunIdentity:
        """The same identity for another run."""
        return attrs.evolve(self, pipeline_run_id=pipeline_run_id)
