"""What was said so far, and who is to answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import final

import attrs

from ._frozen import EMPTY, FrozenDict, as_metadata
from ._value import Value, as_timestamp, items_of


@final
@attrs.frozen
class Message(Value):
    """One turn of a conversation."""

    role: str
    content: str
    timestamp: datetime | None = attrs.field(
        default=None, converter=attrs.converters.optional(as_timestamp)
    )
    metadata: FrozenDict = attrs.field(default=EMPTY, converter=as_metadata)


@final
@attrs.frozen
class RoutingDecision(Value):
    """Which agent answers, through which pipeline."""

    agent_id: str
    pipeline_name: str
    topology: str
    reason: str | None = None


def _as_messages(value: Sequence[Message]) -> tuple[Message, ...]:
    return items_of("messages", Message, value)


@final
@attrs.frozen
class Conversation(Value):
    """Messages, oldest first, and where the newest was routed."""

    messages: tuple[Message, ...] = attrs.field(default=(), converter=_as_messages)
    routing_decision: RoutingDecision | None = None

    @property
    def message_count(self) -> int:
        """How many messages there are."""
        return len(self.messages)

    @property
    def last_user_message(self) -> Message | None:
        """The newest message with the role ``user``."""
        return self._last("user")

    @property
    def last_assistant_message(self) -> Message | None:
        """The newest message with the role ``assistant``."""
        return self._last("assistant")

    def _last(self, role: str) -> Message | None:
        return next((said for said in reversed(self.messages) if said.role == role), None)

    def with_message(self, message: Message) -> Conversation:
        """The conversation after one more message."""
        return attrs.evolve(self, messages=(*self.messages, message))

    def with_routing_decision(self, routing_decision: RoutingDecision | None) -> Conversation:
        """The same messages, routed elsewhere."""
        return attrs.evolve(self, routing_decision=routing_decision)
