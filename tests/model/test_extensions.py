from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, strategies as st

from actorflow.errors import InvalidArgumentError, InvalidTypeError, WireFormatError
from actorflow.model import (
    ContextSnapshot,
    ExtensionBundle,
    ExtensionRegistry,
    FrozenDict,
    RunIdentity,
    UnknownExtension,
    default_extension_registry,
    get_extension,
    register_extension,
)

IDENTITY = RunIdentity(created_at=datetime(2024, 5, 1, tzinfo=timezone.utc))


class Plan(StrEnum):
    FREE = "free"
    PRO = "pro"


@attrs.frozen
class Address:
    street: str
    number: int


@dataclasses.dataclass(frozen=True)
class Invoice:
    uid: UUID
    due: datetime
    scan: bytes
    address: Address | None = None


@attrs.frozen
class Billing(ExtensionBundle):
    plan: Plan = Plan.FREE
    invoices: tuple[Invoice, ...] = ()


@dataclasses.dataclass(frozen=True)
class Skills(ExtensionBundle):
    active: tuple[str, ...] = ()
    levels: dict[str, int] = dataclasses.field(default_factory=dict)


@attrs.frozen
class Own(ExtensionBundle):
    """Writes and reads itself in its own way."""

    number: int

    def to_dict(self, **_: object) -> dict[str, Any]:
        return {"as text": str(self.number)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **_: object) -> Own:
        return cls(int(data["as text"]))


class Foreign:
    """Knows nothing about this package."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Foreign) and self.x == other.x

    __hash__ = None  # type: ignore[assignment]


billings = st.builds(
    Billing,
    st.sampled_from(Plan),
    st.lists(
        st.builds(
            Invoice,
            st.uuids(),
            st.datetimes(timezones=st.just(timezone.utc)),
            st.binary(max_size=4),
            st.none() | st.builds(Address, st.text(max_size=4), st.integers()),
        ),
        max_size=2,
    ).map(tuple),
)
skills = st.builds(
    Skills,
    st.lists(st.text(max_size=4), max_size=2).map(tuple),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
owns = st.builds(Own, st.integers())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_extension("billing", Billing)
    register_extension("skills", Skills)
    register_extension("own", Own)
    yield
    default_extension_registry.clear()


def sent(snapshot: ContextSnapshot) -> Any:
    """What another process gets."""
    return json.loads(json.dumps(snapshot.to_dict()))


# Bundles


@pytest.mark.spec("10.8.1")
@given(billings | skills | owns)
def test_bundles_are_read_back(bundle: Any) -> None:
    data = json.loads(json.dumps(bundle.to_dict()))

    assert type(bundle).from_dict(data) == bundle


@pytest.mark.spec("10.8.1", "10.8.4")
@given(
    billings
    | skills
    | owns
    | st.dictionaries(
        st.sampled_from(["billing", "skills", "own", "other key"]),
        billings | skills | owns,
    )
)
def test_snapshots_carry_bundles(extensions: Any) -> None:
    snapshot = ContextSnapshot(IDENTITY, extensions=extensions)

    received = ContextSnapshot.from_dict(sent(snapshot))

    assert received == snapshot
    assert received.extensions == extensions


@pytest.mark.spec("10.8.8")
@pytest.mark.parametrize(
    ("extensions", "name"),
    [
        (None, None),
        ({}, "dict"),
        ({"a": 1}, "dict"),
        (Billing(), "billing"),
        (UnknownExtension("other", {}), "other"),
    ],
)
def test_the_type_of_extensions_is_written_beside_them(extensions: Any, name: str | None) -> None:
    assert ContextSnapshot(IDENTITY, extensions=extensions).to_dict()["extensions_type"] == name


@pytest.mark.spec("10.8.4")
def test_a_mapping_holds_bundles_and_json() -> None:
    snapshot = ContextSnapshot(
        IDENTITY,
        extensions={"billing": Billing(Plan.PRO), "spare": Billing(), "raw": [1, {"a": 2}]},
    )

    # The key says which type it is, where it can.
    assert sent(snapshot)["extensions"] == {
        "billing": {"plan": "pro", "invoices": []},
        "spare": {"extension_type": "billing", "data": {"plan": "free", "invoices": []}},
        "raw": [1, {"a": 2}],
    }
    assert ContextSnapshot.from_dict(sent(snapshot)) == snapshot


@pytest.mark.spec("10.8.4")
def test_json_under_the_name_of_a_type_is_read_as_that_type() -> None:
    received = ContextSnapshot.from_dict({"extensions": {"billing": {"plan": "pro"}}})

    assert received.extensions == {"billing": Billing(Plan.PRO)}


# The registry


@pytest.mark.spec("10.8.2")
def test_a_name_maps_to_a_writer_and_a_reader() -> None:
    register_extension(
        "foreign",
        Foreign,
        to_dict=lambda foreign: {"x": foreign.x, "at": IDENTITY.created_at},
        from_dict=lambda data: Foreign(data["x"]),
    )
    snapshot = ContextSnapshot(IDENTITY, extensions={"foreign": Foreign(5)})

    assert sent(snapshot)["extensions"] == {"foreign": {"x": 5, "at": "2024-05-01T00:00:00+00:00"}}
    assert ContextSnapshot.from_dict(sent(snapshot)).extensions == {"foreign": Foreign(5)}
    assert get_extension({"foreign": {"x": 6}}, "foreign", Foreign) == Foreign(6)
    alone = ContextSnapshot(IDENTITY, extensions=Foreign(7))
    assert sent(alone)["extensions_type"] == "foreign"
    assert ContextSnapshot.from_dict(sent(alone)).extensions == Foreign(7)


@pytest.mark.spec("10.8.2")
def test_any_class_with_fields_can_be_registered() -> None:
    register_extension("address", Address)
    snapshot = ContextSnapshot(IDENTITY, extensions=Address("Main St", 1))

    assert sent(snapshot)["extensions"] == {"street": "Main St", "number": 1}
    assert ContextSnapshot.from_dict(sent(snapshot)) == snapshot


def test_a_registry_knows_its_names() -> None:
    registry = ExtensionRegistry()
    registry.register("b", Billing)
    registry.register("s", Skills)

    assert registry.get("b") is Billing
    assert registry.get("x") is None
    assert registry.names() == ("b", "s")
    registry.clear()
    assert registry.names() == ()


def test_a_type_is_written_under_its_first_name() -> None:
    register_extension("second", Billing)

    both = ContextSnapshot(IDENTITY, extensions={"billing": Billing(), "second": Billing()})

    assert ContextSnapshot(IDENTITY, extensions=Billing()).to_dict()["extensions_type"] == "billing"
    assert sent(both)["extensions"]["second"] == {"plan": "free", "invoices": []}
    assert ContextSnapshot.from_dict(sent(both)) == both


def test_a_taken_name_is_refused_unless_it_is_replaced() -> None:
    register_extension("billing", Billing)  # The same type is fine.

    with pytest.raises(InvalidArgumentError) as refused:
        register_extension("billing", Skills)
    assert "Billing" in str(refused.value)
    assert "Skills" in str(refused.value)

    register_extension("billing", Skills, replace=True)
    assert default_extension_registry.get("billing") is Skills
    assert ContextSnapshot(IDENTITY, extensions=Billing()).to_dict()["extensions_type"] == "Billing"


@pytest.mark.parametrize("name", ["", "dict"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="name"):
        register_extension(name, Billing)


# Types that nobody knows here


@pytest.mark.spec("10.8.3")
@given(
    st.text(min_size=1).filter(lambda n: n not in ("dict", "own", "billing", "skills")), json_values
)
def test_what_is_unknown_is_passed_on_as_it_came(name: str, data: Any) -> None:
    arrived = {"extensions": data, "extensions_type": name}

    snapshot = ContextSnapshot.from_dict(arrived)

    assert isinstance(snapshot.extensions, UnknownExtension)
    left = {key: snapshot.to_dict()[key] for key in arrived}
    assert json.dumps(left) == json.dumps(arrived)


@pytest.mark.spec("10.8.3", "10.8.4")
@given(st.dictionaries(st.text().map(lambda key: "x-" + key), json_values))
def test_mappings_are_passed_on_as_they_came(extensions: Any) -> None:
    envelope = {"extension_type": "unheard of", "data": {"a": [1]}}
    extensions["envelope"] = envelope
    arrived = {"extensions": extensions, "extensions_type": "dict"}

    snapshot = ContextSnapshot.from_dict(arrived)

    envelope_read = get_extension(snapshot.extensions, "envelope", UnknownExtension)
    assert envelope_read == UnknownExtension("unheard of", {"a": [1]})
    left = {key: snapshot.to_dict()[key] for key in arrived}
    assert json.dumps(left) == json.dumps(arrived)


@pytest.mark.spec("10.8.3")
def test_what_is_unknown_reads_like_a_mapping() -> None:
    unknown = UnknownExtension("other", {"a": 1, "b": {"c": [2]}})

    assert isinstance(unknown, Mapping)
    assert dict(unknown) == {"a": 1, "b": {"c": [2]}}
    assert unknown["b"]["c"] == [2]
    assert unknown.get("x", 5) == 5
    assert (len(unknown), "a" in unknown, list(unknown)) == (2, True, ["a", "b"])
    assert unknown.to_dict() == {"a": 1, "b": {"c": [2]}}
    assert unknown == UnknownExtension("other", {"b": {"c": [2]}, "a": 1})
    assert unknown != UnknownExtension("another", unknown.data)


@pytest.mark.spec("10.8.3")
@pytest.mark.parametrize("data", [None, 5, "text", [1]])
def test_what_is_unknown_need_not_be_a_mapping(data: object) -> None:
    unknown = UnknownExtension("other", data)

    assert dict(unknown) == {}
    assert unknown.to_dict() == data
    with pytest.raises(KeyError):
        unknown["a"]


def test_a_type_that_is_not_registered_travels_under_its_class_name() -> None:
    snapshot = ContextSnapshot(IDENTITY, extensions=Address("Main St", 1))

    assert ContextSnapshot.from_dict(sent(snapshot)).extensions == UnknownExtension(
        "Address", {"street": "Main St", "number": 1}
    )
    assert ContextSnapshot.from_dict(sent(snapshot), {"home": Address}) == snapshot


# Types for one call


@pytest.mark.spec("10.8.10")
def test_types_given_to_from_dict_come_first() -> None:
    @attrs.frozen
    class NewBilling(ExtensionBundle):
        plan: str = ""

    registry = ExtensionRegistry()
    registry.register("billing", NewBilling)
    single = {"extensions": {"plan": "pro"}, "extensions_type": "billing"}
    mapping = {"extensions": {"billing": {"plan": "pro"}, "skills": {}}}

    for types in ({"billing": NewBilling}, registry):
        assert ContextSnapshot.from_dict(single, types).extensions == NewBilling("pro")
        assert ContextSnapshot.from_dict(mapping, types).extensions == {
            "billing": NewBilling("pro"),
            "skills": Skills(),
        }
    assert ContextSnapshot.from_dict(single).extensions == Billing(Plan.PRO)
    with pytest.raises(WireFormatError):
        ContextSnapshot.from_dict({"metadata": 5}, {"billing": NewBilling})
    assert ContextSnapshot.from_dict(single).extensions == Billing(Plan.PRO)


@pytest.mark.spec("10.8.10")
@given(billings)
def test_types_given_to_from_dict_read_what_they_wrote(bundle: Billing) -> None:
    default_extension_registry.clear()
    types = {"paid": Billing}
    first = ContextSnapshot.from_dict(
        {"extensions": {"paid": bundle.to_dict(), "more": 1}, "run_id": IDENTITY.to_dict()}, types
    )

    assert first.extensions == {"paid": bundle, "more": 1}
    assert ContextSnapshot.from_dict(sent(first), types).extensions == first.extensions


@pytest.mark.spec("10.8.10")
def test_reading_another_snapshot_meanwhile_changes_nothing() -> None:
    inner = {"extensions": {"plan": "pro"}, "extensions_type": "billing"}
    register_extension(
        "foreign",
        Foreign,
        from_dict=lambda data: Foreign(ContextSnapshot.from_dict(data).extensions),
    )

    outer = ContextSnapshot.from_dict(
        {"extensions": {"foreign": inner, "billing": {"active": ["x"]}}}, {"billing": Skills}
    )

    assert outer.extensions == {"foreign": Foreign(Billing(Plan.PRO)), "billing": Skills(("x",))}


# One extension of several


@pytest.mark.spec("10.8.5")
def test_one_extension_is_found_built_or_absent() -> None:
    billing = Billing(Plan.PRO)
    extensions = FrozenDict({"typed": billing, "raw": {"plan": "pro"}, "own": {"as text": "5"}})

    assert get_extension(extensions, "typed", Billing) is billing
    assert get_extension(extensions, "raw", Billing) == billing
    assert get_extension(extensions, "own", Own) == Own(5)
    assert get_extension({"raw": {"street": "x", "number": 1}}, "raw", Address) == Address("x", 1)
    assert get_extension(extensions, "absent", Billing) is None
    assert get_extension(None, "typed", Billing) is None
    assert get_extension(billing, "typed", Billing) is None


# What does not fit


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"extensions": {"plan": "gold"}, "extensions_type": "billing"}, "extensions.plan"),
        ({"extensions": {"billing": {"plan": 5}}}, "extensions.billing.plan"),
        (
            {"extensions": {"a b": {"extension_type": "billing", "data": {"invoices": [{}]}}}},
            "extensions['a b'].invoices[0].uid",
        ),
        ({"extensions": {"own": {"as text": "x"}}}, "extensions.own"),
        ({"extensions": {"a": {"extension_type": 5, "data": {}}}}, "extensions.a.extension_type"),
        ({"extensions": [1]}, "extensions"),
        ({"extensions": {}, "extensions_type": 5}, "extensions_type"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_path(data: Any, path: str) -> None:
    with pytest.raises(WireFormatError) as refused:
        ContextSnapshot.from_dict(data)

    assert refused.value.path == path


def test_a_reader_may_refuse_with_a_path_of_its_own() -> None:
    def read(_: object) -> Foreign:
        raise WireFormatError("x.y", 5, "a string")

    register_extension("foreign", Foreign, from_dict=read)

    with pytest.raises(WireFormatError) as refused:
        ContextSnapshot.from_dict({"extensions": {"foreign": {}}})

    assert refused.value.path == "extensions.foreign.x.y"


def test_what_a_bundle_cannot_write_is_refused_with_the_path() -> None:
    snapshot = ContextSnapshot(IDENTITY, extensions={"a": {"b": Skills(levels={"x": object()})}})  # type: ignore[dict-item]

    with pytest.raises(WireFormatError) as refused:
        snapshot.to_dict()

    assert refused.value.path == "extensions.a.b.levels.x"


def test_strict_reaches_into_bundles() -> None:
    data = {"extensions": {"billing": {"plan": "pro", "colour": "red"}}}

    assert ContextSnapshot.from_dict(data).extensions == {"billing": Billing(Plan.PRO)}
    with pytest.raises(WireFormatError) as refused:
        ContextSnapshot.from_dict(data, strict=True)
    assert (refused.value.path, refused.value.found) == ("extensions.billing", ["colour"])


@pytest.mark.parametrize("extensions", [5, "text", [Billing()], Foreign(1), Skills])
def test_other_extensions_are_refused(extensions: Any) -> None:
    with pytest.raises(InvalidTypeError, match="extensions"):
        ContextSnapshot(IDENTITY, extensions=extensions)
