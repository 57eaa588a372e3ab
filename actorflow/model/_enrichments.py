"""What was looked up about the user and the topic before the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final
from uuid import UUID

import attrs

from actorflow.errors import InvalidTypeError

from ._frozen import EMPTY, EMPTY_LIST, FrozenDict, FrozenList, frozen_mapping, frozen_sequence
from ._value import Value, as_texts, as_uuid, items_of


@final
@attrs.frozen
class ProfileEnrichment(Value):
    """Who the user is."""

    user_id: UUID | None = attrs.field(
        default=None, converter=attrs.Converter(as_uuid, takes_field=True)
    )
    display_name: str | None = None
    preferences: FrozenDict = attrs.field(
        default=EMPTY, converter=attrs.Converter(frozen_mapping, takes_field=True)
    )
    goals: tuple[str, ...] = attrs.field(
        default=(), converter=attrs.Converter(as_texts, takes_field=True)
    )


@final
@attrs.frozen
class MemoryEnrichment(Value):
    """What is remembered of earlier sessions."""

    recent_topics: tuple[str, ...] = attrs.field(
        default=(), converter=attrs.Converter(as_texts, takes_field=True)
    )
    key_facts: tuple[str, ...] = attrs.field(
        default=(), converter=attrs.Converter(as_texts, takes_field=True)
    )
    interaction_history_summary: str | None = None


@final
@attrs.frozen
class DocumentEnrichment(Value):
    """A document the run may draw on."""

    document_id: str | None = None
    document_type: str | None = None
    blocks: FrozenList = attrs.field(
        default=EMPTY_LIST, converter=attrs.Converter(frozen_sequence, takes_field=True)
    )
    metadata: FrozenDict = attrs.field(
        default=EMPTY, converter=attrs.Converter(frozen_mapping, takes_field=True)
    )


def _as_documents(value: Iterable[DocumentEnrichment]) -> tuple[DocumentEnrichment, ...]:
    return items_of(value, DocumentEnrichment, "documents")


def _as_web_results(value: Iterable[Mapping[str, Any]], field: attrs.Attribute[Any]) -> FrozenList:
    results = frozen_sequence(value, field)
    for index, result in enumerate(results):
        if not isinstance(result, FrozenDict):
            raise InvalidTypeError(f"{field.name}[{index}]", result, "a mapping")
    return results


_UNKNOWN_PROFILE = ProfileEnrichment()
_NO_MEMORY = MemoryEnrichment()


@final
@attrs.frozen
class Enrichments(Value):
    """Everything that was looked up, in four groups."""

    profile: ProfileEnrichment | None = None
    memory: MemoryEnrichment | None = None
    documents: tuple[DocumentEnrichment, ...] = attrs.field(default=(), converter=_as_documents)
    web_results: FrozenList = attrs.field(
        default=EMPTY_LIST, converter=attrs.Converter(_as_web_results, takes_field=True)
    )

    @property
    def has_any(self) -> bool:
        """Whether any group says something."""
        return (
            self.profile not in (None, _UNKNOWN_PROFILE)
            or self.memory not in (None, _NO_MEMORY)
            or bool(self.documents)
            or bool(self.web_results)
        )
