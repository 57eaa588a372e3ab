"""What values look like as JSON.

Most are the dict of their fields. This file has the exceptions: frozen
containers, extensions and snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Final

import cattrs

from actorflow.codec import (
    Writer,
    fields_reader,
    fields_writer,
    join_path,
)
from actorflow.errors import WireFormatError

from ._conversation import Conversation
from ._enrichments import Enrichments
from ._extensions import (
    ExtensionType,
    UnknownExtension,
    default_extension_registry,
    extension_type,
    is_bundle,
)
from ._frozen import FrozenDict, FrozenList
from ._snapshot import ContextSnapshot
from ._value import Value


def _values(converter: cattrs.Converter) -> None:
    # A subclass that overrides one of the two methods is asked instead.
    converter.register_unstructure_hook_factory(
        lambda cls: issubclass(cls, Value) and cls.to_dict is Value.to_dict,
        lambda cls: fields_writer(cls, converter),
    )
    converter.register_structure_hook_factory(
        lambda cls: issubclass(cls, Value) and cls.from_dict.__func__ is Value.from_dict.__func__,  # type: ignore[attr-defined]
        lambda cls: fields_reader(cls, converter),
    )


def _frozen(converter: cattrs.Converter) -> None:
    # Freezing is left to the fields: their constructors know the name.
    def read_mapping(data: Any, _: Any) -> Any:
        if not isinstance(data, Mapping):
            raise WireFormatError("", data, "a mapping")
        return data

    def read_list(data: Any, _: Any) -> Any:
        if not isinstance(data, (list, tuple)):
            raise WireFormatError("", data, "a list")
        return data

    converter.register_structure_hook(FrozenDict, read_mapping)
    converter.register_structure_hook(FrozenList, read_list)


# Extensions
#
# A bundle of its own is written as its JSON, with its name beside it. In a
# mapping there is no room beside it, so a bundle stands there in an envelope,
# unless the key already is the name of its type.

_ENVELOPE: Final = frozenset({"extension_type", "data"})


def _type_of(extension: object) -> ExtensionType:
    kind = type(extension)
    if isinstance(extension, UnknownExtension):
        return ExtensionType(extension.type_name, kind)
    return default_extension_registry.by_type(kind) or ExtensionType(kind.__name__, kind)


def _extensions_type(extensions: Any) -> str | None:
    if extensions is None:
        return None
    return _type_of(extensions).name if is_bundle(extensions) else "dict"


def _write_extensions(extensions: Any, write: Writer) -> Any:
    if is_bundle(extensions):
        return _type_of(extensions).write(extensions)
    written = {}
    for key, extension in extensions.items():
        try:
            written[key] = _write_in_mapping(key, extension, write)
        except WireFormatError as error:
            error.path = join_path(key, error.path)
            raise
    return written


def _write_in_mapping(key: str, extension: Any, write: Writer) -> Any:
    if not is_bundle(extension):
        return write(extension)
    expected = default_extension_registry.by_name(key)
    if expected is not None and expected.type is type(extension):
        return expected.write(extension)
    kind = _type_of(extension)
    return {"extension_type": kind.name, "data": kind.write(extension)}


def _read_extensions(data: Any, name: str | None, *, strict: bool) -> Any:
    if name not in (None, "dict"):
        return _read_extension(name, data, strict=strict)
    if data is None:
        return None
    if not isinstance(data, Mapping):
        raise WireFormatError("", data, "a mapping")
    extensions = {}
    for key, item in data.items():
        try:
            extensions[key] = _read_in_mapping(key, item, strict=strict)
        except WireFormatError as error:
            error.path = join_path(key, error.path)
            raise
    return extensions


def _read_in_mapping(key: str, data: Any, *, strict: bool) -> Any:
    if isinstance(data, Mapping) and data.keys() == _ENVELOPE:
        return _read_extension(data["extension_type"], data["data"], strict=strict)
    kind = extension_type(key)
    return data if kind is None else kind.read(data, strict=strict)


def _read_extension(name: Any, data: Any, *, strict: bool) -> Any:
    if not isinstance(name, str):
        raise WireFormatError("extension_type", name, "a string")
    kind = extension_type(name)
    return UnknownExtension(name, data) if kind is None else kind.read(data, strict=strict)


# Snapshots
#
# The groups come first; after them everything in them once more, flat, for
# readers that want one id and not the shape of the groups.

_FLAT: Final[Mapping[str, tuple[str, ...]]] = {
    "run_id": (
        "pipeline_run_id",
        "request_id",
        "session_id",
        "user_id",
        "org_id",
        "interaction_id",
    ),
    "conversation": ("messages", "routing_decision"),
    "enrichments": ("profile", "memory", "documents", "web_results"),
}
# What the flat keys of a group say that is absent.
_NOTHING: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "conversation": Conversation().to_dict,
    "enrichments": Enrichments().to_dict,
}
_NO_FIELDS: Final = frozenset({"extensions_type"}.union(*_FLAT.values()))


def _groups(data: Mapping[str, Any]) -> dict[str, Any]:
    """The groups that the flat keys describe."""
    groups: dict[str, Any] = {"run_id": {}}
    for group, names in _FLAT.items():
        flat = {name: data[name] for name in names if data.get(name) not in (None, [], ())}
        if flat:
            groups[group] = flat
    return groups


def _snapshots(converter: cattrs.Converter) -> None:
    write_fields = fields_writer(
        ContextSnapshot,
        converter,
        extensions=lambda extensions: _write_extensions(extensions, converter.unstructure),
    )

    def write(snapshot: ContextSnapshot[Any]) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for key, item in write_fields(snapshot).items():
            written[key] = item
            if key == "extensions":
                written["extensions_type"] = _extensions_type(snapshot.extensions)
        for group, names in _FLAT.items():
            fields = written[group] or _NOTHING[group]()
            written.update((name, fields[name]) for name in names)
        return written

    # The hook of a field sees the field alone, so the name comes in with it.
    def read_extensions(data: tuple[Any, Any], _: Any) -> Any:
        return _read_extensions(*data, strict=converter.forbid_extra_keys)

    read_fields = fields_reader(ContextSnapshot[Any], converter, extensions=read_extensions)

    def read(data: Any, type_: Any) -> Any:
        if not isinstance(data, Mapping):
            raise WireFormatError("", data, "a mapping of the fields of ContextSnapshot")
        name = data.get("extensions_type")
        if not isinstance(name, (str, NoneType)):
            raise WireFormatError("extensions_type", name, "a string or null")
        fields = _groups(data)
        for key, item in data.items():
            if key not in _NO_FIELDS and (key, item) != ("run_id", None):
                fields[key] = item
        fields["extensions"] = data.get("extensions"), name
        return read_fields(fields, type_)

    converter.register_unstructure_hook(ContextSnapshot, write)
    converter.register_structure_hook(ContextSnapshot, read)


HOOKS: Final = (_frozen, _values, _snapshots)
