from __future__ import annotations

import ast
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, strategies as st
from trio.testing import MockClock

import actorflow.model
from actorflow import clock
from actorflow.errors import InvalidDeltaError, InvalidTypeError, WireFormatError
from actorflow.model import (
    ContextSnapshot,
    Conversation,
    DocumentEnrichment,
    Enrichments,
    ExtensionBundle,
    MemoryEnrichment,
    Message,
    ProfileEnrichment,
    RoutingDecision,
    RunIdentity,
)

IDS = {
    name: UUID(int=number)
    for number, name in enumerate(
        [
            "pipeline_run_id",
            "request_id",
            "session_id",
            "user_id",
            "org_id",
            "interaction_id",
        ]
    )
}
NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
SAID = Message("user", "hi", NOON)
DECISION = RoutingDecision("agent", "chat", "chat_fast")
GROUPS = Enrichments(
    ProfileEnrichment(display_name="Ada"),
    MemoryEnrichment(["trio"]),
    [DocumentEnrichment("d1")],
    [{"url": "x"}],
)
FULL = ContextSnapshot(
    RunIdentity(**IDS, created_at=NOON),
    GROUPS,
    Conversation([SAID], DECISION),
    {"key": {"a": [1]}},
    "hello",
    1500.0,
    "chat_fast",
    "practice",
    NOON,
    {"channel": "web"},
)
BARE = ContextSnapshot(RunIdentity(created_at=NOON), created_at=NOON)

FLAT = [
    *IDS,
    "messages",
    "routing_decision",
    "profile",
    "memory",
    "documents",
    "web_results",
]


@pytest.mark.spec("10.8.7")
def test_keys_are_the_composed_ones_and_then_the_flat_ones() -> None:
    for snapshot in (FULL, BARE):
        assert list(snapshot.to_dict()) == [
            "run_id",
            "enrichments",
            "conversation",
            "extensions",
            "extensions_type",
            "input_text",
            "input_audio_duration_ms",
            "topology",
            "execution_mode",
            "created_at",
            "metadata",
            *FLAT,
        ]


@pytest.mark.spec("10.8.7")
def test_flat_keys_equal_the_composed_values() -> None:
    written = FULL.to_dict()

    composed = written["run_id"] | written["conversation"] | written["enrichments"]
    assert {name: written[name] for name in FLAT} == {name: composed[name] for name in FLAT}
    assert written["profile"]["display_name"] == "Ada"


@pytest.mark.spec("10.8.7")
def test_flat_keys_of_absent_groups_are_empty() -> None:
    written = BARE.to_dict()

    assert {name: written[name] for name in FLAT} == dict.fromkeys(FLAT) | {
        "messages": [],
        "documents": [],
        "web_results": [],
    }
    assert written["enrichments"] is written["conversation"] is written["extensions"] is None


@pytest.mark.spec("10.8.9")
def test_flat_keys_alone_describe_a_snapshot() -> None:
    written = FULL.to_dict()
    flat = {k: v for k, v in written.items() if k not in ("run_id", "conversation", "enrichments")}

    read = ContextSnapshot.from_dict(flat, strict=True)

    # Only the identity's time is in no flat key.
    identity = attrs.evolve(FULL.run_id, created_at=read.run_id.created_at)
    assert read == FULL.with_run_id(identity)


@pytest.mark.spec("10.8.9")
def test_empty_flat_keys_describe_no_groups() -> None:
    flat = {name: BARE.to_dict()[name] for name in FLAT}

    read = ContextSnapshot.from_dict(flat)

    assert (read.conversation, read.enrichments) == (None, None)


@pytest.mark.spec("10.8.9")
def test_composed_keys_win_over_flat_ones() -> None:
    other = {
        "pipeline_run_id": str(UUID(int=99)),
        "messages": [{"role": "user", "content": "other"}],
        "profile": {"display_name": "Bob"},
    }

    assert ContextSnapshot.from_dict(FULL.to_dict() | other) == FULL
    assert ContextSnapshot.from_dict(BARE.to_dict() | other) == BARE


@pytest.mark.spec("10.8.9")
def test_what_is_wrong_in_flat_keys_is_refused() -> None:
    with pytest.raises(WireFormatError) as refused:
        ContextSnapshot.from_dict({"messages": [{"role": "user"}]})

    assert refused.value.path.endswith("messages[0].content")


@pytest.mark.parametrize("data", [{}, {"run_id": None}, {"input_text": "x"}])
async def test_a_missing_identity_is_an_empty_one(
    data: dict[str, Any], mock_clock: MockClock
) -> None:
    mock_clock.jump(1)

    assert ContextSnapshot.from_dict(data).run_id == RunIdentity(created_at=clock.now())


@pytest.mark.spec("10.8.6")
@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda s: s.with_run_id(RunIdentity(created_at=NOON)), "run_id", BARE.run_id),
        (lambda s: s.with_enrichments(None), "enrichments", None),
        (lambda s: s.with_conversation(Conversation()), "conversation", Conversation()),
        (lambda s: s.with_extensions({"b": 2}), "extensions", {"b": 2}),
        (lambda s: s.with_input_text("other"), "input_text", "other"),
        (lambda s: s.with_topology("t"), "topology", "t"),
        (lambda s: s.with_execution_mode("m"), "execution_mode", "m"),
        (lambda s: s.with_metadata(a=1), "metadata", {"channel": "web", "a": 1}),
        (lambda s: s.with_metadata(channel="x"), "metadata", {"channel": "x"}),
    ],
)
def test_with_gives_a_new_snapshot_that_differs_in_one_field(
    change: Callable[[ContextSnapshot], ContextSnapshot], field: str, value: object
) -> None:
    before = FULL.to_dict()

    changed = change(FULL)

    assert FULL.to_dict() == before
    assert getattr(changed, field) == value
    for other in attrs.fields(ContextSnapshot):
        if other.name != field:
            assert getattr(changed, other.name) is getattr(FULL, other.name)


@pytest.mark.spec("10.8.11")
def test_properties_look_into_the_groups() -> None:
    for name, uid in IDS.items():
        assert getattr(FULL, name) == uid
    assert FULL.messages == (SAID,)
    assert FULL.routing_decision == DECISION
    assert (FULL.profile, FULL.memory) == (GROUPS.profile, GROUPS.memory)
    assert (FULL.documents, FULL.web_results) == (GROUPS.documents, GROUPS.web_results)


@pytest.mark.spec("10.8.11")
def test_properties_of_absent_groups_are_none_or_empty() -> None:
    for name in IDS:
        assert getattr(BARE, name) is None
    for name in ("messages", "documents", "web_results"):
        assert getattr(BARE, name) == ()
    for name in ("routing_decision", "profile", "memory"):
        assert getattr(BARE, name) is None


@pytest.mark.spec("10.8.11")
@pytest.mark.parametrize("name", FLAT)
def test_properties_are_read_only_and_no_arguments(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(FULL, name, None)
    flat: dict[str, Any] = {name: None}
    with pytest.raises(TypeError):
        ContextSnapshot(RunIdentity(), **flat)


@pytest.mark.parametrize("name", ["run_id", "enrichments", "conversation"])
def test_groups_of_another_type_are_refused_by_name(name: str) -> None:
    wrong: dict[str, Any] = {"run_id": RunIdentity(), name: {"messages": []}}

    with pytest.raises(InvalidTypeError, match=name):
        ContextSnapshot(**wrong)


async def test_a_snapshot_knows_when_it_was_made(mock_clock: MockClock) -> None:
    first = ContextSnapshot(RunIdentity())
    mock_clock.jump(5)

    assert (ContextSnapshot(RunIdentity()).created_at - first.created_at).total_seconds() == 5


@attrs.frozen
class Billing(ExtensionBundle):
    plan: str = ""


def test_the_type_of_extensions_may_be_named() -> None:
    snapshot: ContextSnapshot[Billing] = ContextSnapshot[Billing](
        RunIdentity(), extensions=Billing("pro")
    )

    assert snapshot.extensions is not None
    assert snapshot.extensions.plan == "pro"
    assert type(snapshot) is ContextSnapshot


# Deltas

changes = st.fixed_dictionaries(
    {},
    optional={
        "run_id": st.builds(RunIdentity, st.none() | st.uuids(), created_at=st.just(NOON)),
        "enrichments": st.none() | st.just(GROUPS),
        "conversation": st.none() | st.just(Conversation([SAID, SAID], DECISION)),
        "extensions": st.none() | st.dictionaries(st.text(), st.booleans() | st.integers()),
        "input_text": st.none() | st.text(),
        "input_audio_duration_ms": st.none() | st.floats(0, 100),
        "topology": st.none() | st.text(),
        "metadata": st.dictionaries(st.text(), st.booleans() | st.integers(0, 1)),
    },
)


@pytest.mark.spec("10.8.12", "G64")
@given(changes, changes)
def test_a_delta_turns_the_base_into_the_snapshot(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    base, current = attrs.evolve(FULL, **before), attrs.evolve(FULL, **after)

    delta, metrics = current.delta_from(base)

    assert base.apply_delta(delta) == current
    stored = base.apply_delta(json.loads(json.dumps(delta)))
    assert json.dumps(stored.to_dict()) == json.dumps(current.to_dict())
    assert metrics.original_bytes == len(json.dumps(current.to_dict(), ensure_ascii=False).encode())


@pytest.mark.spec("10.8.12")
def test_a_delta_has_only_what_changed() -> None:
    delta, metrics = FULL.with_input_text("other").delta_from(FULL)

    assert delta == {"set": {"input_text": "other"}}
    assert metrics.ratio < 0.1
    assert FULL.delta_from(FULL)[0] == {}


def test_a_delta_with_extensions_needs_their_types() -> None:
    paid = FULL.with_extensions(Billing("pro"))

    delta, _ = paid.delta_from(FULL)

    assert FULL.apply_delta(delta, {"billing": Billing}) == paid
    with pytest.raises(InvalidDeltaError):
        FULL.apply_delta({"unset": []})
    with pytest.raises(WireFormatError):
        FULL.apply_delta({"set": {"input_text": 5}})


# What values do not do

ALLOWED_IMPORTS = {
    "__future__",
    "actorflow",
    "attrs",
    "cattrs",
    "collections",
    "contextlib",
    "contextvars",
    "copy",
    "dataclasses",
    "datetime",
    "enum",
    "math",
    # for the largest float
    "sys",
    "types",
    "typing",
    "typing_extensions",
    "uuid",
}


@pytest.mark.spec("10.20.3")
def test_values_start_nothing_and_touch_nothing() -> None:
    imported = set()
    for path in Path(actorflow.model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("open", "__import__", "exec", "eval")

    assert imported <= ALLOWED_IMPORTS
