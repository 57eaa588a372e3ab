"""Who a run belongs to."""

from __future__ import annotations

from datetime import datetime
from typing import final
from uuid import UUID

import attrs

from actorflow import clock

from ._value import Value, as_created_at, as_uuid, require_uuid


@final
@attrs.frozen
class RunIdentity(Value):
    """The ids of a run and of what it is part of. None of them is made here."""

    pipeline_run_id: UUID | None = attrs.field(
        default=None, converter=as_uuid, validator=require_uuid
    )
    request_id: UUID | None = attrs.field(default=None, converter=as_uuid, validator=require_uuid)
    session_id: UUID | None = attrs.field(default=None, converter=as_uuid, validator=require_uuid)
    user_id: UUID | None = attrs.field(default=None, converter=as_uuid, validator=require_uuid)
    org_id: UUID | None = attrs.field(default=None, converter=as_uuid, validator=require_uuid)
    interaction_id: UUID | None = attrs.field(
        default=None, converter=as_uuid, validator=require_uuid
    )
    created_at: datetime = attrs.field(factory=clock.now, converter=as_created_at)

    def with_pipeline_run_id(self, pipeline_run_id: UUID | str) -> RunIdentity:
        """The same identity for another run."""
        return attrs.evolve(self, pipeline_run_id=pipeline_run_id)
