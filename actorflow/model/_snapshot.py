"""What a run was started with; every stage sees the same one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Self, final
from uuid import UUID

import attrs

from actorflow import clock
from actorflow.compression import CompressionMetrics, apply_delta, compress

from ._conversation import Conversation, Message, RoutingDecision
from ._enrichments import DocumentEnrichment, Enrichments, MemoryEnrichment, ProfileEnrichment
from ._extensions import ExtensionRegistry, as_extensions, consulting
from ._frozen import EMPTY, EMPTY_LIST, FrozenDict, FrozenList, as_metadata
from ._identity import RunIdentity
from ._value import Value, as_created_at, require

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # With a default, so that `ContextSnapshot` alone is a type, too. The
    # standard library has defaults only from Python 3.13 on.
    ExtensionsT = TypeVar("ExtensionsT", default=Any)
else:
    from typing import TypeVar

    ExtensionsT = TypeVar("ExtensionsT")


@final
@attrs.frozen
class ContextSnapshot(Value, Generic[ExtensionsT]):
    """Everything that is known when a run starts."""

    run_id: RunIdentity = attrs.field(validator=require(RunIdentity))
    enrichments: Enrichments | None = attrs.field(
        default=None, validator=attrs.validators.optional(require(Enrichments))
    )
    conversation: Conversation | None = attrs.field(
        default=None, validator=attrs.validators.optional(require(Conversation))
    )
    extensions: ExtensionsT | None = attrs.field(default=None, converter=as_extensions)
    """None, one bundle, or a mapping of bundles and JSON."""
    input_text: str | None = None
    input_audio_duration_ms: float | None = None
    topology: str | None = None
    execution_mode: str | None = None
    created_at: datetime = attrs.field(factory=clock.now, converter=as_created_at)
    metadata: FrozenDict = attrs.field(default=EMPTY, converter=as_metadata)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        extension_types: Mapping[str, type] | ExtensionRegistry | None = None,
        *,
        strict: bool = False,
    ) -> Self:
        """The snapshot that `data` describes, which `to_dict` may have written.

        A group that `data` does not have is read from the flat keys.

        Args:
          extension_types: types of extensions by name, looked at before the
            registered ones.
          strict: refuse unknown keys instead of ignoring them.

        Raises:
          WireFormatError: with the path of what does not fit.
        """
        with consulting(extension_types):
            return super().from_dict(data, strict=strict)

    # The same snapshot with one thing different

    def with_run_id(self, run_id: RunIdentity) -> Self:
        return attrs.evolve(self, run_id=run_id)

    def with_enrichments(self, enrichments: Enrichments | None) -> Self:
        return attrs.evolve(self, enrichments=enrichments)

    def with_conversation(self, conversation: Conversation | None) -> Self:
        return attrs.evolve(self, conversation=conversation)

    def with_extensions(self, extensions: ExtensionsT | None) -> Self:
        return attrs.evolve(self, extensions=extensions)

    def with_input_text(self, input_text: str | None) -> Self:
        return attrs.evolve(self, input_text=input_text)

    def with_topology(self, topology: str | None) -> Self:
        return attrs.evolve(self, topology=topology)

    def with_execution_mode(self, execution_mode: str | None) -> Self:
        return attrs.evolve(self, execution_mode=execution_mode)

    def with_metadata(self, **more: Any) -> Self:
        return attrs.evolve(self, metadata={**self.metadata, **more})

    # Shortcuts into the groups

    @property
    def pipeline_run_id(self) -> UUID | None:
        return self.run_id.pipeline_run_id

    @property
    def request_id(self) -> UUID | None:
        return self.run_id.request_id

    @property
    def session_id(self) -> UUID | None:
        return self.run_id.session_id

    @property
    def user_id(self) -> UUID | None:
        return self.run_id.user_id

    @property
    def org_id(self) -> UUID | None:
        return self.run_id.org_id

    @property
    def interaction_id(self) -> UUID | None:
        return self.run_id.interaction_id

    @property
    def messages(self) -> tuple[Message, ...]:
        return () if self.conversation is None else self.conversation.messages

    @property
    def routing_decision(self) -> RoutingDecision | None:
        return None if self.conversation is None else self.conversation.routing_decision

    @property
    def profile(self) -> ProfileEnrichment | None:
        return None if self.enrichments is None else self.enrichments.profile

    @property
    def memory(self) -> MemoryEnrichment | None:
        return None if self.enrichments is None else self.enrichments.memory

    @property
    def documents(self) -> tuple[DocumentEnrichment, ...]:
        return () if self.enrichments is None else self.enrichments.documents

    @property
    def web_results(self) -> FrozenList:
        return EMPTY_LIST if self.enrichments is None else self.enrichments.web_results

    # Deltas, for stores that keep what changed

    def delta_from(self, base: ContextSnapshot[Any]) -> tuple[dict[str, Any], CompressionMetrics]:
        """What turns `base` into this snapshot, as JSON, and how much smaller that is."""
        return compress(base.to_dict(), self.to_dict())

    def apply_delta(
        self,
        delta: Mapping[str, Any],
        extension_types: Mapping[str, type] | ExtensionRegistry | None = None,
    ) -> Self:
        """The snapshot whose `delta_from` this one is `delta`.

        Raises:
          InvalidDeltaError: if that is no delta.
          WireFormatError: if the result describes no snapshot.
        """
        return self.from_dict(apply_delta(self.to_dict(), delta), extension_types)
