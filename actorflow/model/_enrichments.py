"""What was looked up about the user and the topic before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final
from uuid import UUID

import attrs

from ._frozen import (
    EMPTY,
    EMPTY_LIST,
    FrozenDict,
    FrozenList,
    as_metadata,
    frozen_mapping,
    frozen_sequence,
)
from ._value import Value, as_uuid, items_of, require_uuid


def _as_preferences(value: Mapping[str, Any]) -> FrozenDict:
    return frozen_mapping("preferences", value)


def _as_goals(value: Sequence[str]) -> tuple[str, ...]:
    return items_of("goals", str, value)


def _as_recent_topics(value: Sequence[str]) -> tuple[str, ...]:
    return items_of("recent_topics", str, value)


def _as_key_facts(value: Sequence[str]) -> tuple[str, ...]:
    return items_of("key_facts", str, value)


def _as_blocks(value: Sequence[Any]) -> FrozenList:
    return frozen_sequence("blocks", value)


def _as_documents(value: Sequence[DocumentEnrichment]) -> tuple[DocumentEnrichment, ...]:
    return items_of("documents", DocumentEnrichment, value)


def _as_web_results(value: Sequence[Mapping[str, Any]]) -> FrozenList:
    return FrozenList(items_of("web_results", FrozenDict, frozen_sequence("web_results", value)))


@final
@attrs.frozen
class ProfileEnrichment(Value):
    """Who the user is."""

    user_id: UUID | None = attrs.field(default=None, converter=as_uuid, validator=require_uuid)
    display_name: str | None = None
    preferences: FrozenDict = attrs.field(default=EMPTY, converter=_as_preferences)
    goals: tuple[str, ...] = attrs.field(default=(), converter=_as_goals)


@final
@attrs.frozen
class MemoryEnrichment(Value):
    """What is remembered of earlier sessions."""

    recent_topics: tuple[str, ...] = attrs.field(default=(), converter=_as_recent_topics)
    key_facts: tuple[str, ...] = attrs.field(default=(), converter=_as_key_facts)
    interaction_history_summary: str | None = None


@final
@attrs.frozen
class DocumentEnrichment(Value):
    """A document the run may draw on."""

    document_id: str | None = None
    document_type: str | None = None
    blocks: FrozenList = attrs.field(default=EMPTY_LIST, converter=_as_blocks)
    metadata: FrozenDict = attrs.field(default=EMPTY, converter=as_metadata)


_UNKNOWN_PROFILE = ProfileEnrichment()
_NO_MEMORY = MemoryEnrichment()


@final
@attrs.frozen
class Enrichments(Value):
    """Everything that was looked up, in four groups."""

    profile: ProfileEnrichment | None = None
    memory: MemoryEnrichment | None = None
    documents: tuple[DocumentEnrichment, ...] = attrs.field(default=(), converter=_as_documents)
    web_results: FrozenList = attrs.field(default=EMPTY_LIST, converter=_as_web_results)

    @property
    def has_any(self) -> bool:
        """Whether any group says something."""
        return (
            self.profile not in (None, _UNKNOWN_PROFILE)
            or self.memory not in (None, _NO_MEMORY)
            or bool(self.documents)
            or bool(self.web_results)
        )
