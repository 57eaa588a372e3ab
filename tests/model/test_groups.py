"""Identity, conversation and enrichments: the groups of a snapshot."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest
from trio.testing import MockClock

from actorflow import clock
from actorflow.errors import InvalidArgumentError, InvalidTypeError, WireFormatError
from actorflow.model import (
    Conversation,
    DocumentEnrichment,
    Enrichments,
    MemoryEnrichment,
    Message,
    ProfileEnrichment,
    RoutingDecision,
    RunIdentity,
)

IDS = (
    "pipeline_run_id",
    "request_id",
    "session_id",
    "user_id",
    "org_id",
    "interaction_id",
)
UID = UUID("12345678-1234-5678-1234-567812345678")


# RunIdentity


@pytest.mark.spec("10.5.1")
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("given", [UID, str(UID), UID.hex, UID.urn])
def test_ids_are_uuids_however_they_are_given(name: str, given: UUID | str) -> None:
    identity = RunIdentity(**{name: given})  # type: ignore[arg-type]

    assert getattr(identity, name) == UID
    assert isinstance(getattr(identity, name), UUID)


@pytest.mark.spec("10.5.1")
def test_no_id_is_made_up() -> None:
    assert all(getattr(RunIdentity(), name) is None for name in IDS)


@pytest.mark.spec("10.5.2")
def test_an_identity_is_written_in_field_order() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)

    written = RunIdentity(request_id=UID, created_at=noon).to_dict()

    assert list(written) == [*IDS, "created_at"]
    assert written == dict.fromkeys(IDS) | {
        "request_id": str(UID),
        "created_at": "2024-05-01T12:00:00+00:00",
    }


@pytest.mark.spec("10.5.3")
async def test_a_missing_id_is_none_and_a_missing_time_is_now(mock_clock: MockClock) -> None:
    mock_clock.jump(1000)

    identity = RunIdentity.from_dict({"user_id": str(UID)})

    assert identity == RunIdentity(user_id=UID, created_at=clock.now())


@pytest.mark.parametrize("name", IDS)
def test_ids_that_are_none_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        RunIdentity(**{name: "me"})  # type: ignore[arg-type]
    assert (refused.value.argument, refused.value.found) == (name, "me")

    with pytest.raises(InvalidTypeError) as mistyped:
        RunIdentity(**{name: 5})  # type: ignore[arg-type]
    assert (mistyped.value.argument, mistyped.value.found) == (name, 5)

    with pytest.raises(WireFormatError) as unread:
        RunIdentity.from_dict({name: "me"})
    assert unread.value.path == name


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="created_at"):
        RunIdentity(created_at=datetime(2024, 5, 1))  # noqa: DTZ001
    with pytest.raises(InvalidTypeError, match="created_at"):
        RunIdentity(created_at="2024-05-01")  # type: ignore[arg-type]


def test_an_identity_of_another_run() -> None:
    identity = RunIdentity(user_id=UID)

    other = identity.with_pipeline_run_id(str(UID))

    assert other == attrs.evolve(identity, pipeline_run_id=UID)
    assert identity.pipeline_run_id is None


# Conversation

SAID = [
    Message("user", "one"),
    Message("assistant", "two"),
    Message("user", "three"),
    Message("system", "four"),
]
DECISION = RoutingDecision("agent", "chat", "chat_fast")


@pytest.mark.spec("10.6.1")
def test_a_conversation_is_written_with_its_messages_and_decision() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
    conversation = Conversation([Message("user", "hi", noon, {"a": 1})], DECISION)

    assert conversation.to_dict() == {
        "messages": [
            {
                "role": "user",
                "content": "hi",
                "timestamp": "2024-05-01T12:00:00+00:00",
                "metadata": {"a": 1},
            }
        ],
        "routing_decision": {
            "agent_id": "agent",
            "pipeline_name": "chat",
            "topology": "chat_fast",
            "reason": None,
        },
    }
    assert Conversation().to_dict() == {"messages": [], "routing_decision": None}


@pytest.mark.spec("10.6.2")
def test_the_last_message_is_the_newest_of_its_role() -> None:
    conversation = Conversation(SAID)

    assert conversation.last_user_message is SAID[2]
    assert conversation.last_assistant_message is SAID[1]
    assert conversation.message_count == 4
    assert Conversation(SAID[3:]).last_user_message is None
    assert Conversation().last_assistant_message is None


@pytest.mark.spec("10.6.3")
def test_messages_are_in_the_order_they_were_added() -> None:
    conversation = Conversation()

    longer = conversation.with_message(SAID[0]).with_message(SAID[1])
    routed = longer.with_routing_decision(DECISION)

    assert longer.messages == (SAID[0], SAID[1])
    assert (routed.messages, routed.routing_decision) == (longer.messages, DECISION)
    assert routed.with_routing_decision(None) == longer
    assert conversation == Conversation()


@pytest.mark.spec("10.6.4")
@pytest.mark.parametrize(
    ("data", "path"),
    [
        (
            {"messages": [{"role": "a", "content": "b"}] * 2 + [{"content": "b"}]},
            "messages[2].role",
        ),
        ({"messages": [{"role": "a"}]}, "messages[0].content"),
        ({"messages": [{"role": "a", "content": 5}]}, "messages[0].content"),
        (
            {"routing_decision": {"pipeline_name": "p", "topology": "t"}},
            "routing_decision.agent_id",
        ),
        (
            {"routing_decision": {"agent_id": "a", "topology": "t"}},
            "routing_decision.pipeline_name",
        ),
        (
            {"routing_decision": {"agent_id": "a", "pipeline_name": "p"}},
            "routing_decision.topology",
        ),
    ],
)
def test_what_a_conversation_needs_is_asked_for(data: dict[str, Any], path: str) -> None:
    with pytest.raises(WireFormatError) as refused:
        Conversation.from_dict(data)

    assert refused.value.path == path


@pytest.mark.spec("10.6.4")
def test_a_conversation_needs_no_messages() -> None:
    assert Conversation.from_dict({}) == Conversation()
    assert Conversation.from_dict(
        {
            "routing_decision": {
                "agent_id": "agent",
                "pipeline_name": "chat",
                "topology": "chat_fast",
            }
        }
    ) == Conversation(routing_decision=DECISION)


def test_messages_are_messages() -> None:
    with pytest.raises(InvalidTypeError, match=r"messages\[1\]"):
        Conversation([SAID[0], {"role": "user", "content": "x"}])  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="timestamp"):
        Message("user", "x", datetime(2024, 5, 1))  # noqa: DTZ001
    east = timezone(timedelta(hours=8))
    said = Message("user", "x", datetime(2024, 5, 1, 20, tzinfo=east))
    assert said.timestamp == datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


# Enrichments


@pytest.mark.spec("10.7.1")
def test_enrichments_are_written_in_four_groups() -> None:
    assert Enrichments().to_dict() == {
        "profile": None,
        "memory": None,
        "documents": [],
        "web_results": [],
    }

    written = Enrichments(
        ProfileEnrichment(UID, "Ada", {"lang": "en"}, ["learn"]),
        MemoryEnrichment(["trio"], ["likes tea"], "short"),
        [DocumentEnrichment("d1", "pdf", [{"text": "x"}], {"page": 1})],
        [{"url": "https://example.org", "hits": [1, 2]}],
    ).to_dict()

    assert list(written) == ["profile", "memory", "documents", "web_results"]
    assert written == {
        "profile": {
            "user_id": str(UID),
            "display_name": "Ada",
            "preferences": {"lang": "en"},
            "goals": ["learn"],
        },
        "memory": {
            "recent_topics": ["trio"],
            "key_facts": ["likes tea"],
            "interaction_history_summary": "short",
        },
        "documents": [
            {
                "document_id": "d1",
                "document_type": "pdf",
                "blocks": [{"text": "x"}],
                "metadata": {"page": 1},
            }
        ],
        "web_results": [{"url": "https://example.org", "hits": [1, 2]}],
    }


@pytest.mark.spec("10.7.2")
def test_groups_are_read_as_their_types() -> None:
    enrichments = Enrichments.from_dict(
        {
            "profile": {"user_id": str(UID)},
            "memory": {"key_facts": ["x"]},
            "documents": [{"document_id": "d1"}],
            "web_results": [{"any": {"thing": [1]}}],
        }
    )

    assert enrichments == Enrichments(
        ProfileEnrichment(UID),
        MemoryEnrichment(key_facts=["x"]),
        [DocumentEnrichment("d1")],
        [{"any": {"thing": [1]}}],
    )


@pytest.mark.spec("10.7.3")
@pytest.mark.parametrize(
    ("enrichments", "has_any"),
    [
        (Enrichments(), False),
        (Enrichments(ProfileEnrichment(), MemoryEnrichment()), False),
        (Enrichments(ProfileEnrichment(display_name="Ada")), True),
        (Enrichments(memory=MemoryEnrichment(["x"])), True),
        (Enrichments(documents=[DocumentEnrichment()]), True),
        (Enrichments(web_results=[{}]), True),
    ],
)
def test_has_any_is_whether_a_group_says_something(enrichments: Enrichments, has_any: bool) -> None:
    assert enrichments.has_any is has_any


def test_enrichments_are_checked() -> None:
    with pytest.raises(TypeError):
        Enrichments(short_term=[])  # type: ignore[call-arg]
    with pytest.raises(WireFormatError, match="short_term"):
        MemoryEnrichment.from_dict({"short_term": []}, strict=True)
    with pytest.raises(WireFormatError) as refused:
        Enrichments.from_dict({"documents": [{}, "x"]})
    assert refused.value.path == "documents[1]"
    with pytest.raises(InvalidTypeError, match=r"web_results\[0\]"):
        Enrichments(web_results=["x"])  # type: ignore[list-item]
    with pytest.raises(InvalidTypeError, match="web_results"):
        Enrichments(web_results="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"goals\[0\]"):
        ProfileEnrichment(goals=[1])  # type: ignore[list-item]
    with pytest.raises(InvalidTypeError, match="recent_topics"):
        MemoryEnrichment("topic")
    with pytest.raises(InvalidArgumentError, match="user_id"):
        ProfileEnrichment("ada")
    assert ProfileEnrichment(uuid4()) != ProfileEnrichment(uuid4())
