"""What applications add to a snapshot, and the names under which it travels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar, final

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError, WireFormatError

from ._frozen import FrozenDict, freeze, frozen_mapping
from ._value import Value, converter

T = TypeVar("T")


class ExtensionBundle(Value):
    """Base of what an application adds to snapshots.

    Subclasses are `attrs.frozen` or frozen dataclasses. Register them, so that
    other processes read them back: `register_extension("billing", Billing)`.
    """

    __slots__ = ()


@final
@attrs.frozen
class UnknownExtension(ExtensionBundle, Mapping[str, Any]):
    """An extension whose type this process does not know.

    Reads like the mapping it was sent as, and is passed on as it came.
    """

    type_name: str
    data: Any = attrs.field(converter=freeze)

    def to_dict(self, *, default: Callable[[Any], object] | None = None) -> Any:
        """What came in, as JSON."""
        return converter.unstructure(self.data, default=default)

    @property
    def _fields(self) -> Mapping[str, Any]:
        return self.data if isinstance(self.data, FrozenDict) else FrozenDict()

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@final
@attrs.frozen
class ExtensionType:
    """How objects of one type are written and read."""

    name: str
    type: type
    to_dict: Callable[[Any], Any] | None = None
    from_dict: Callable[[Any], Any] | None = None

    def write(self, extension: Any) -> Any:
        """The JSON of `extension`."""
        to_dict = self.to_dict or _own(self.type, "to_dict")
        return converter.unstructure(to_dict(extension) if to_dict else extension)

    def read(self, data: Any, *, strict: bool = False) -> Any:
        """The object that `data` describes."""
        from_dict = self.from_dict or _own(self.type, "from_dict")
        if from_dict is None:
            return converter.structure(data, self.type, strict=strict)
        try:
            return from_dict(data)
        except WireFormatError:
            raise
        except Exception as error:
            expected = f"what {self.type.__qualname__} can be read from ({error})"
            raise WireFormatError("", data, expected) from error


def _own(cls: type, method: str) -> Callable[[Any], Any] | None:
    """The method of `cls`, unless it is the one that all values have."""
    own: Callable[[Any], Any] | None = getattr(cls, method, None)
    inherited = getattr(Value, method)
    is_ours = getattr(own, "__func__", own) is getattr(inherited, "__func__", inherited)
    return None if is_ours else own


# "dict" is what the wire says of a mapping of extensions.
_RESERVED: Final = frozenset({"", "dict"})


@final
class ExtensionRegistry:
    """Names of extension types, the same in every process that shares snapshots."""

    def __init__(self) -> None:
        self._by_name: Final[dict[str, ExtensionType]] = {}
        self._by_type: dict[type, ExtensionType] = {}

    def register(
        self,
        name: str,
        type: type,
        *,
        to_dict: Callable[[Any], Any] | None = None,
        from_dict: Callable[[Any], Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Let objects of `type` travel under `name`.

        Args:
          to_dict: gives the JSON of an object; by default the type's own
            `to_dict`, or else its fields.
          from_dict: gives the object that JSON describes; likewise.

        Raises:
          InvalidArgumentError: if the name belongs to another type.
        """
        if name in _RESERVED:
            raise InvalidArgumentError("name", name, "a name other than '' and 'dict'")
        taken = self._by_name.get(name)
        if taken is not None and taken.type is not type and not replace:
            raise InvalidArgumentError(
                "name",
                name,
                f"free for {type.__qualname__}; {taken.type.__qualname__} has it"
                " (replace=True takes it over)",
            )
        self._by_name[name] = ExtensionType(name, type, to_dict, from_dict)
        # The first name of a type is the one it is written under.
        newest_first = reversed(self._by_name.values())
        self._by_type = {kind.type: kind for kind in newest_first}

    def get(self, name: str) -> type | None:
        """The type that travels under `name`."""
        found = self._by_name.get(name)
        return None if found is None else found.type

    def names(self) -> tuple[str, ...]:
        """All names, in order of registration."""
        return tuple(self._by_name)

    def clear(self) -> None:
        """Forget all names."""
        self._by_name.clear()
        self._by_type = {}

    def by_name(self, name: str) -> ExtensionType | None:
        """How to read what travels under `name`.

        An object whose type was not registered where it was written travels
        under the name of its class, so that name is looked for as well.
        """
        found = self._by_name.get(name)
        if found is not None:
            return found
        return next((kind for kind in self._by_type.values() if kind.type.__name__ == name), None)

    def by_type(self, type: type) -> ExtensionType | None:
        """How to write objects of `type`."""
        return self._by_type.get(type)


default_extension_registry: Final = ExtensionRegistry()


def register_extension(
    name: str,
    type: type,
    *,
    to_dict: Callable[[Any], Any] | None = None,
    from_dict: Callable[[Any], Any] | None = None,
    replace: bool = False,
) -> None:
    """`ExtensionRegistry.register` of the default registry."""
    default_extension_registry.register(
        name, type, to_dict=to_dict, from_dict=from_dict, replace=replace
    )


# Hooks of converters cannot be handed anything, so what `from_dict` of a
# snapshot was given waits here for as long as it reads.
_consulted: ContextVar[ExtensionRegistry | None] = ContextVar(
    "actorflow_extension_types", default=None
)


@contextmanager
def consulting(types: Mapping[str, type] | ExtensionRegistry | None) -> Iterator[None]:
    """Look types up in `types` before the default registry, inside the block."""
    if isinstance(types, Mapping):
        registry = ExtensionRegistry()
        for name, type_ in types.items():
            registry.register(name, type_)
        types = registry
    token = _consulted.set(types)
    try:
        yield
    finally:
        _consulted.reset(token)


def extension_type(name: str) -> ExtensionType | None:
    """How to read what travels under `name`, as far as anybody knows."""
    consulted = _consulted.get()
    found = None if consulted is None else consulted.by_name(name)
    return found or default_extension_registry.by_name(name)


def is_bundle(value: object) -> bool:
    """Whether `value` is an object with fields of its own, as opposed to JSON."""
    return (
        isinstance(value, ExtensionBundle)
        or attrs.has(type(value))
        or dataclasses.is_dataclass(type(value))
        or default_extension_registry.by_type(type(value)) is not None
    )


def as_extensions(value: Any) -> Any:
    """Converts a field that holds None, a bundle or a mapping of bundles and JSON."""
    if value is None or is_bundle(value):
        return value
    if isinstance(value, Mapping):
        return frozen_mapping("extensions", value)
    raise InvalidTypeError("extensions", value, "a bundle, a mapping or None")


def get_extension(extensions: Any, key: str, type: type[T]) -> T | None:
    """The extension under `key` as an object of `type`, or None if there is none.

    Raises:
      WireFormatError: if what is there does not describe such an object.
    """
    if not isinstance(extensions, Mapping) or key not in extensions:
        return None
    found = extensions[key]
    if isinstance(found, type):
        return found
    entry = default_extension_registry.by_type(type) or ExtensionType(key, type)
    read: T = entry.read(found)
    return read
