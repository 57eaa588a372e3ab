"""What holds for every value class: frozen, written as JSON, read back."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.errors import (
    InvalidArgumentError,
    InvalidAudioError,
    InvalidTypeError,
    WireFormatError,
)
from actorflow.model import (
    AudioChunk,
    AudioFormat,
    ContextSnapshot,
    Conversation,
    DocumentEnrichment,
    Enrichments,
    ExtensionBundle,
    FrozenDict,
    FrozenList,
    MemoryEnrichment,
    Message,
    ProfileEnrichment,
    RoutingDecision,
    RunIdentity,
    StageArtifact,
    StageEvent,
    StageOutput,
    StageStatus,
    StreamConfig,
    UnknownExtension,
)

# Strategies

texts = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
mappings = st.dictionaries(texts, json_values, max_size=3)
zones = st.sampled_from([timezone.utc, timezone(timedelta(hours=5, minutes=30))])
# A day from the ends, so that every time has a place in UTC.
times = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=zones,
)
numbers = st.none() | st.floats(0, 1e9)
maybe_texts = st.none() | texts
maybe_ids = st.none() | st.uuids() | st.uuids().map(str)
names = st.text(min_size=1, max_size=8)

artifacts = st.builds(StageArtifact, names, mappings, times)
events = st.builds(StageEvent, names, mappings, times)
outputs = st.builds(
    StageOutput,
    st.sampled_from(StageStatus),
    mappings,
    st.lists(artifacts, max_size=2),
    st.lists(events, max_size=2),
    maybe_texts,
    maybe_texts,
    metadata=mappings,
    duration_ms=numbers,
    version=maybe_texts,
) | st.builds(StageOutput, st.sampled_from(["fail", "retry"]), retryable=st.booleans())
identities = st.builds(
    RunIdentity, maybe_ids, maybe_ids, maybe_ids, maybe_ids, maybe_ids, maybe_ids, times
)
messages = st.builds(Message, texts, texts, st.none() | times, mappings)
decisions = st.builds(RoutingDecision, texts, texts, texts, maybe_texts)
conversations = st.builds(Conversation, st.lists(messages, max_size=2), st.none() | decisions)
profiles = st.builds(
    ProfileEnrichment, maybe_ids, maybe_texts, mappings, st.lists(texts, max_size=2)
)
memories = st.builds(
    MemoryEnrichment, st.lists(texts, max_size=2), st.lists(texts, max_size=2), maybe_texts
)
documents = st.builds(
    DocumentEnrichment, maybe_texts, maybe_texts, st.lists(mappings, max_size=2), mappings
)
enrichments = st.builds(
    Enrichments,
    st.none() | profiles,
    st.none() | memories,
    st.lists(documents, max_size=2),
    st.lists(mappings, max_size=2),
)
unknowns = st.builds(UnknownExtension, names.filter(lambda name: name != "dict"), json_values)
snapshots: st.SearchStrategy[ContextSnapshot] = st.builds(
    ContextSnapshot,
    identities,
    st.none() | enrichments,
    st.none() | conversations,
    st.none() | mappings | unknowns | st.dictionaries(texts, mappings | unknowns, max_size=2),
    maybe_texts,
    numbers,
    maybe_texts,
    maybe_texts,
    times,
    mappings,
)
formats = st.sampled_from(AudioFormat)
sizes = st.integers(1, 1 << 20)
durations = st.floats(0, 1e9)
chunks = st.builds(
    AudioChunk,
    st.binary(max_size=8),
    sizes,
    sizes,
    formats,
    durations,
    sizes,
    st.booleans(),
    mappings,
)
stream_configs = st.builds(StreamConfig, sizes, sizes, sizes, formats, durations)
values = st.one_of(
    artifacts,
    events,
    outputs,
    identities,
    messages,
    decisions,
    conversations,
    profiles,
    memories,
    documents,
    enrichments,
    snapshots,
    chunks,
    stream_configs,
)
CLASSES = [
    StageArtifact,
    StageEvent,
    StageOutput,
    RunIdentity,
    Message,
    RoutingDecision,
    Conversation,
    ProfileEnrichment,
    MemoryEnrichment,
    DocumentEnrichment,
    Enrichments,
    ContextSnapshot,
    AudioChunk,
    StreamConfig,
    UnknownExtension,
]
# Audio has an error of its own.
REFUSALS = (WireFormatError, InvalidAudioError)


# Frozen


@pytest.mark.spec("10.1.1", "10.4.1", "10.8.6")
@given(values)
def test_attributes_cannot_be_set_or_deleted(value: Any) -> None:
    for name in [*(field.name for field in attrs.fields(type(value))), "unheard_of"]:
        with pytest.raises(AttributeError):
            setattr(value, name, None)
        with pytest.raises(AttributeError):
            delattr(value, name)


@pytest.mark.spec("10.1.1")
@given(values | unknowns)
def test_values_are_slotted(value: object) -> None:
    assert not hasattr(value, "__dict__")


@pytest.mark.spec("10.1.1")
@given(values)
def test_values_are_compared_by_field_pickled_and_copied(value: Any) -> None:
    clones = [
        pickle.loads(pickle.dumps(value)),
        copy.deepcopy(value),
        type(value)(*(getattr(value, field.name) for field in attrs.fields(type(value)))),
    ]

    for clone in clones:
        assert clone == value
        assert hash(clone) == hash(value)
    assert value != object()


@pytest.mark.spec("10.1.1")
@given(st.data(), outputs)
def test_one_other_field_makes_another_value(data: st.DataObject, output: StageOutput) -> None:
    changes: dict[str, Any] = {
        "data": {"other": 1},
        "artifacts": [StageArtifact("other")],
        "events": [StageEvent("other")],
        "error": "other",
        "error_type": "other",
        "metadata": {"other": 1},
        "duration_ms": -1.0,
        "version": "other text",
    }
    name = data.draw(st.sampled_from(sorted(changes)))

    assert attrs.evolve(output, **{name: changes[name]}) != output


def reachable(value: Any) -> list[Any]:
    """`value` and every value and container in it."""
    if isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, (tuple, frozenset)):
        inside = list(value)
    elif attrs.has(type(value)):
        inside = [getattr(value, field.name) for field in attrs.fields(type(value))]
    else:
        return []
    return [value, *(each for item in inside for each in reachable(item))]


ATTACKS = [
    "__init__",
    "__setitem__",
    "__delitem__",
    "__ior__",
    "__iadd__",
    "__imul__",
    "__setattr__",
    "__delattr__",
    "__setstate__",
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
]
# Every attack that needs fewer or other arguments fails by itself.
AMMUNITION: list[tuple[object, ...]] = [
    (),
    ("a",),
    (0,),
    ({"a": "attacked"},),
    (["attacked"],),
    ("data", "attacked"),
    ("_nesting", 0),
    (0, "attacked"),
]


@pytest.mark.spec("10.1.1", "10.1.2", "10.1.3", "10.8.6")
@given(values)
def test_nothing_that_can_be_reached_can_be_changed(value: Any) -> None:
    before = pickle.dumps(value)
    targets = [
        # attrs has to fill frozen objects somehow; these two are how.
        (target, name)
        for target in reachable(value)
        for name in ATTACKS
        if not (attrs.has(type(target)) and name in ("__init__", "__setstate__"))
    ]

    for target, name in targets:
        for arguments in AMMUNITION:
            with suppress(Exception):
                getattr(target, name)(*arguments)

    assert pickle.dumps(value) == before


@pytest.mark.spec("10.1.2", "10.1.3")
@given(json_values.filter(lambda value: isinstance(value, (dict, list))))
def test_free_form_fields_are_frozen_copies(content: Any) -> None:
    before = copy.deepcopy(content)
    mapping, items = {"content": content}, [content]
    made: list[tuple[Any, Any]] = [
        (StageOutput.ok(mapping).data, {"content": before}),
        (StageOutput.ok(metadata=mapping).metadata, {"content": before}),
        (StageArtifact("x", mapping).payload, {"content": before}),
        (StageEvent("x", mapping).data, {"content": before}),
        (Message("user", "hi", metadata=mapping).metadata, {"content": before}),
        (ProfileEnrichment(preferences=mapping).preferences, {"content": before}),
        (DocumentEnrichment(blocks=items).blocks, [before]),
        (DocumentEnrichment(metadata=mapping).metadata, {"content": before}),
        (Enrichments(web_results=[mapping]).web_results, [{"content": before}]),
        (ContextSnapshot(RunIdentity(), metadata=mapping).metadata, {"content": before}),
        (ContextSnapshot(RunIdentity(), extensions=mapping).extensions, {"content": before}),
        (UnknownExtension("x", mapping).data, {"content": before}),
    ]

    content.clear()
    mapping.clear()
    items.clear()

    for frozen, expected in made:
        assert frozen == expected
        assert all(type(each) in (FrozenDict, FrozenList) for each in reachable(frozen))


# As JSON


@pytest.mark.spec("10.1.7", "10.1.8")
@given(values)
def test_what_is_written_is_json_and_read_back(value: Any) -> None:
    written = value.to_dict()

    assert json.loads(json.dumps(written)) == written
    assert type(value).from_dict(json.loads(json.dumps(written))) == value
    assert type(value).from_dict(written, strict=True) == value


@pytest.mark.spec("10.1.7")
@given(values)
def test_the_order_of_keys_is_the_order_of_fields(value: Any) -> None:
    names = [field.name for field in attrs.fields(type(value))]
    written = [key for key in value.to_dict() if key in names]

    assert written == names
    assert list(value.to_dict()) == list(type(value).from_dict(value.to_dict()).to_dict())


@pytest.mark.spec("10.1.8")
@given(values, st.dictionaries(texts.map(lambda key: "x-" + key), json_values, min_size=1))
def test_unknown_keys_are_ignored_and_change_nothing(value: Any, unknown: dict[str, Any]) -> None:
    assert type(value).from_dict(value.to_dict() | unknown) == value


@pytest.mark.spec("10.1.10")
@given(values, st.dictionaries(texts.map(lambda key: "x-" + key), json_values, min_size=1))
def test_unknown_keys_are_refused_by_name_when_strict(value: Any, unknown: dict[str, Any]) -> None:
    with pytest.raises(REFUSALS) as refused:
        type(value).from_dict(value.to_dict() | unknown, strict=True)

    assert getattr(refused.value, "found", None) == sorted(unknown)


@pytest.mark.spec("10.1.9")
def test_what_cannot_be_written_is_refused_or_converted() -> None:
    frames = [b"0", 1, "2", object()]
    output = StageOutput.ok(
        frames=frames, artifacts=[StageArtifact("x"), StageArtifact("y", {"z": object()})]
    )

    with pytest.raises(WireFormatError) as refused:
        output.to_dict()

    assert refused.value.path == "data.frames[3]"
    assert refused.value.found is frames[3]
    assert "data.frames[3]" in str(refused.value)
    with pytest.raises(WireFormatError) as refused:
        attrs.evolve(output, data={}).to_dict()
    assert refused.value.path == "artifacts[1].payload.z"

    written = output.to_dict(default=lambda value: f"<{type(value).__name__}>")

    assert written["data"]["frames"] == ["MA==", 1, "2", "<object>"]
    assert written["artifacts"][1]["payload"] == {"z": "<object>"}


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("data", [None, 5, "text", []])
def test_something_else_than_a_mapping_is_refused(cls: Any, data: object) -> None:
    with pytest.raises(REFUSALS, match=cls.__name__):
        cls.from_dict(data)


@pytest.mark.parametrize(
    ("cls", "data", "path"),
    [
        (StageOutput, {}, "status"),
        (StageOutput, {"status": "good"}, "status"),
        (StageOutput, {"status": "ok", "data": []}, "data"),
        (StageOutput, {"status": "ok", "data": {"a": {1: 2}}}, "data.a"),
        (StageOutput, {"status": "ok", "artifacts": {}}, "artifacts"),
        (StageOutput, {"status": "ok", "artifacts": [{}]}, "artifacts[0].type"),
        (StageOutput, {"status": "ok", "artifacts": [{"type": ""}]}, "artifacts[0].type"),
        (StageOutput, {"status": "ok", "retryable": 1}, "retryable"),
        (StageOutput, {"status": "ok", "retryable": True}, "retryable"),
        (StageOutput, {"status": "ok", "duration_ms": "1"}, "duration_ms"),
        (StageEvent, {"type": "x", "timestamp": "now"}, "timestamp"),
        (StageEvent, {"type": "x", "timestamp": "2024-05-01T12:00:00"}, "timestamp"),
        (RunIdentity, {"user_id": "me"}, "user_id"),
        (Conversation, {"messages": [{"role": "user"}]}, "messages[0].content"),
        (Enrichments, {"documents": [5]}, "documents[0]"),
        (Enrichments, {"web_results": "x"}, "web_results"),
        (Enrichments, {"web_results": [5]}, "web_results[0]"),
        (ContextSnapshot, {"metadata": 5}, "metadata"),
    ],
)
def test_wrong_types_are_refused_with_the_path(cls: Any, data: object, path: str) -> None:
    with pytest.raises(WireFormatError) as refused:
        cls.from_dict(data)

    assert refused.value.path == path


@pytest.mark.parametrize(
    "make",
    [
        StageOutput.ok,
        lambda value: StageOutput.ok(metadata=value),
        lambda value: StageArtifact("x", value),
        lambda value: Message("user", "x", metadata=value),
        lambda value: ProfileEnrichment(preferences=value),
        lambda value: ContextSnapshot(RunIdentity(), metadata=value),
    ],
)
def test_free_form_mappings_are_checked(make: Callable[[Any], object]) -> None:
    ring: dict[str, Any] = {}
    ring["a"] = [ring]

    with pytest.raises(InvalidTypeError, match="a mapping"):
        make([("a", 1)])
    with pytest.raises(InvalidTypeError, match="strings"):
        make({"a": {1: 2}})
    with pytest.raises(InvalidArgumentError, match=r"(data|metadata|payload|preferences)\.a\[0\]"):
        make(ring)


# Cost


def calls(function: Callable[[], object]) -> int:
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.spec("10.20.1")
def test_writing_and_reading_are_linear() -> None:
    def snapshot(size: int) -> ContextSnapshot:
        said = [Message("user", "hi", metadata={"tags": [n]}) for n in range(size)]
        found = [{"url": str(n), "hits": [n]} for n in range(size)]
        return ContextSnapshot(RunIdentity(), Enrichments(web_results=found), Conversation(said))

    small, large = snapshot(500), snapshot(1_000)
    small_data, large_data = small.to_dict(), large.to_dict()

    assert calls(large.to_dict) <= 2.1 * calls(small.to_dict)
    assert calls(lambda: ContextSnapshot.from_dict(large_data)) <= 2.1 * calls(
        lambda: ContextSnapshot.from_dict(small_data)
    )


def test_every_value_class_is_covered_here() -> None:
    def subclasses(cls: type) -> set[type]:
        return {cls}.union(*map(subclasses, cls.__subclasses__()))

    (value,) = (base for base in StageOutput.__mro__ if base.__name__ == "Value")
    ours = {cls for cls in subclasses(value) if cls.__module__.startswith("actorflow.model")}

    assert ours - {value, ExtensionBundle} == set(CLASSES)
