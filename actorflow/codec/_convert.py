"""Values as JSON and back, on cattrs.

Values are written by what they are and read by what their fields are declared
to be. The conventions that hold everywhere live here; what is special about
the classes of a package is registered by the functions that the package hands
to `make_converter`.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime, timezone
from enum import Enum
from pathlib import PurePath
from types import GenericAlias
from typing import Any, Final, TypeVar, cast, final, get_args, get_origin
from uuid import UUID

import attrs
import cattrs
from cattrs.cols import is_mapping, list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from actorflow.errors import (
    InvalidArgumentError,
    InvalidTypeError,
    WireFormatError,
)

_T = TypeVar("_T")

Configure = Callable[[cattrs.Converter], None]
"""Registers the hooks of a package on a cattrs converter."""

Default = Callable[[Any], object]
"""Turns an object that JSON has no place for into one that it has."""

Writer = Callable[[Any], Any]
"""Gives the JSON of a value."""

Reader = Callable[[Any, Any], Any]
"""Gives the value that some data describes, as the type in second place."""

# Set for the time of one call, because hooks of cattrs take a value and no more.
_default: ContextVar[Default | None] = ContextVar("actorflow_json_default", default=None)


def make_converter(*configure: Configure) -> JsonConverter:
    """A converter with the conventions of this module and the hooks of `configure`."""
    converter = JsonConverter()
    converter.configure(*configure)
    return converter


@final
class JsonConverter:
    """Writes values as JSON and reads them back.

    JSON means what `json.dumps` takes without a `default`. UUIDs become
    strings, times ISO 8601 in UTC, enum members their values, bytes base64,
    tuples and sets lists (sets sorted), attrs and dataclass objects dicts of
    their fields in order, and objects with a `to_dict` what that returns.
    """

    def __init__(self) -> None:
        self._lenient: Final = _cattrs_converter(forbid_extra_keys=False)
        self._strict: Final = _cattrs_converter(forbid_extra_keys=True)
        self._writers: Final[dict[type, Writer]] = {}
        self._readers: Final[dict[tuple[type, bool], Reader]] = {}

    def configure(self, *configure: Configure) -> None:
        """Register more hooks; they win over earlier ones."""
        for register in configure:
            register(self._lenient)
            register(self._strict)
        self._writers.clear()
        self._readers.clear()

    def unstructure(self, value: object, *, default: Default | None = None) -> Any:
        """The JSON of `value`, in new dicts and lists.

        `value` itself is not asked for its `to_dict`, so that may call this.

        Args:
          default: is given every object that JSON has no place for; what it
            returns is written instead.

        Raises:
          WireFormatError: with the path of what cannot be written.
        """
        write = self._writers.get(type(value)) or self._writer(type(value))
        # Without a `default`, that of an enclosing call stays in force.
        token = None if default is None else _default.set(default)
        try:
            return write(value)
        except RecursionError:
            expected = "something that does not contain itself"
            raise WireFormatError("", value, expected) from None
        finally:
            if token is not None:
                _default.reset(token)

    def structure(self, data: object, type_: type[_T], *, strict: bool = False) -> _T:
        """The value of type `type_` that `data` describes.

        `type_` itself is not asked for its `from_dict`, so that may call this.

        Args:
          strict: refuse keys that a class does not know, instead of ignoring
            them.

        Raises:
          WireFormatError: with the path of what does not fit.
        """
        read = self._readers.get((type_, strict)) or self._reader(type_, strict)
        # Reading runs constructors and hooks of any class, so anything may come.
        try:
            return cast("_T", read(data, type_))
        except Exception as error:
            raise _located(error, data) from error

    def _writer(self, cls: type) -> Writer:
        write = self._lenient.get_unstructure_hook(cls)
        if isinstance(write, _AskForDict) and has_fields(cls):
            write = fields_writer(cls, self._lenient)
        self._writers[cls] = write
        return write

    def _reader(self, cls: type, strict: bool) -> Reader:
        converter = self._strict if strict else self._lenient
        read = converter.get_structure_hook(cls)
        if read is _ask_to_read and has_fields(cls):
            read = fields_reader(cls, converter)
        self._readers[cls, strict] = read
        return read


def join_path(step: str | int, rest: str) -> str:
    """The path that leads over `step` to `rest`: ``data`` and ``[3]`` make ``data[3]``."""
    head = step if isinstance(step, str) and step.isidentifier() else f"[{step!r}]"
    return f"{head}{rest}" if not rest or rest.startswith("[") else f"{head}.{rest}"


def _cattrs_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    converter = cattrs.Converter(
        forbid_extra_keys=forbid_extra_keys,
        unstructure_fallback_factory=lambda _: _Fallback(converter.unstructure),
    )
    _register_writers(converter)
    _register_readers(converter)
    return converter


# Writing


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def fields_writer(cls: type, converter: cattrs.Converter, **hooks: Writer) -> Writer:
    """Writes objects of `cls` as dicts of their fields, some with hooks of their own."""
    write = converter.unstructure
    overrides: dict[str, Any] = {
        name: override(unstruct_hook=_at(name, hooks.get(name, write))) for name in field_names(cls)
    }
    return make_dict_unstructure_fn(cls, converter, **overrides)


def _at(name: str, write: Writer) -> Writer:
    def write_field(value: Any) -> Any:
        if type(value) in _SCALARS:
            return value
        try:
            return write(value)
        except WireFormatError as error:
            error.path = join_path(name, error.path)
            raise

    return write_field


def field_names(cls: type) -> list[str]:
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    return [field.name for field in fields]


def has_fields(cls: type) -> bool:
    return attrs.has(cls) or dataclasses.is_dataclass(cls)


def writes_itself(cls: type) -> bool:
    return callable(getattr(cls, "to_dict", None))


@attrs.frozen
class _AskForDict:
    write: Writer

    def __call__(self, value: Any) -> Any:
        return self.write(value.to_dict())


@attrs.frozen
class _Fallback:
    write: Writer

    def __call__(self, value: object) -> Any:
        default = _default.get()
        if default is None:
            raise WireFormatError("", value, "something that JSON has a place for")
        return self.write(default(value))


# Later registrations win over earlier ones, and classes win over predicates.
def _register_writers(converter: cattrs.Converter) -> None:
    write = converter.unstructure

    def write_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for key, item in mapping.items():
            if not isinstance(key, str):
                raise WireFormatError("", key, "a mapping whose keys are strings")
            try:
                written[key] = item if type(item) in _SCALARS else write(item)
            except WireFormatError as error:
                error.path = join_path(key, error.path)
                raise
        return written

    def write_items(items: collections.abc.Iterable[Any]) -> list[Any]:
        written: list[Any] = []
        try:
            for item in items:
                written.append(item if type(item) in _SCALARS else write(item))  # noqa: PERF401
        except WireFormatError as error:
            # As many as were written stand before the one that could not be.
            error.path = join_path(len(written), error.path)
            raise
        return written

    def write_set(items: collections.abc.Set[Any]) -> list[Any]:
        written = write_items(items)
        try:
            return sorted(written)
        except TypeError:
            return sorted(written, key=json.dumps)

    def write_member(member: Enum) -> Any:
        return write(member.value)

    def write_text(text: str) -> Any:
        return write_member(text) if isinstance(text, Enum) else text

    by_predicate = converter.register_unstructure_hook_func
    by_predicate(lambda cls: issubclass(cls, (int, float, type(None))), lambda value: value)
    converter.register_unstructure_hook_factory(
        has_fields, lambda cls: fields_writer(cls, converter)
    )
    by_predicate(lambda cls: issubclass(cls, Mapping), write_mapping)
    by_predicate(lambda cls: issubclass(cls, (list, tuple)), write_items)
    by_predicate(lambda cls: issubclass(cls, collections.abc.Set), write_set)
    by_predicate(writes_itself, _AskForDict(write))
    by_predicate(lambda cls: issubclass(cls, Enum), write_member)
    converter.register_unstructure_hook(str, write_text)
    converter.register_unstructure_hook(bytes, lambda data: base64.b64encode(data).decode("ascii"))
    converter.register_unstructure_hook(UUID, str)
    converter.register_unstructure_hook(datetime, _write_time)
    # cattrs would write paths by `str`.
    converter.register_unstructure_hook(PurePath, _Fallback(write))


def _write_time(time: datetime) -> str:
    return _in_utc(time, time).isoformat()


def _in_utc(time: datetime, found: object) -> datetime:
    # The first and the last day have hours that UTC has no year for.
    with suppress(OverflowError):
        if time.utcoffset() is not None:
            return time.astimezone(timezone.utc)
    raise WireFormatError("", found, "a time with an offset from UTC")


# Reading


def fields_reader(cls: Any, converter: cattrs.Converter, **hooks: Reader) -> Reader:
    """Reads objects of `cls` from mappings of their fields, some with hooks of their own."""
    origin = get_origin(cls) or cls
    if attrs.has(origin):
        attrs.resolve_types(origin)
    overrides: dict[str, Any] = {name: override(struct_hook=hook) for name, hook in hooks.items()}
    read = make_dict_structure_fn(cls, converter, **overrides)

    def read_fields(data: Any, type_: Any) -> Any:
        if not isinstance(data, Mapping):
            raise WireFormatError("", data, f"a mapping of the fields of {origin.__name__}")
        return read(data, type_)

    return read_fields


def _reads_itself(cls: Any) -> bool:
    return writes_itself(cls) and callable(getattr(cls, "from_dict", None))


def _ask_to_read(data: Any, cls: Any) -> Any:
    return cls.from_dict(data)


def _register_readers(converter: cattrs.Converter) -> None:
    converter.register_structure_hook_factory(has_fields, lambda cls: fields_reader(cls, converter))
    converter.register_structure_hook_factory(
        is_mapping, lambda type_: _mapping_reader(type_, converter)
    )
    converter.register_structure_hook_factory(
        _is_collection, lambda type_: _collection_reader(type_, converter)
    )
    converter.register_structure_hook_func(_reads_itself, _ask_to_read)
    converter.register_structure_hook(str, _read_text)
    converter.register_structure_hook(bool, _read_bool)
    converter.register_structure_hook(int, _read_int)
    converter.register_structure_hook(float, _read_float)
    converter.register_structure_hook(bytes, _read_bytes)
    converter.register_structure_hook(UUID, _read_uuid)
    converter.register_structure_hook(datetime, _read_time)


def _mapping_reader(type_: Any, converter: cattrs.Converter) -> Reader:
    read = converter.gen_structure_mapping(type_)

    def read_mapping(data: Any, as_type: Any) -> Any:
        if not isinstance(data, Mapping):
            raise WireFormatError("", data, "a mapping")
        return read(data, as_type)

    return read_mapping


_COLLECTIONS: Final[Mapping[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.Set: frozenset,
}


def _is_collection(type_: Any) -> bool:
    if get_origin(type_) is tuple:
        return get_args(type_)[1:] == (...,)
    return (get_origin(type_) or type_) in _COLLECTIONS


def _collection_reader(type_: Any, converter: cattrs.Converter) -> Reader:
    collect = _COLLECTIONS[get_origin(type_) or type_]
    item = (get_args(type_) or (Any,))[0]
    read = list_structure_factory(cast("type", GenericAlias(list, item)), converter)

    def read_collection(data: Any, _: Any) -> Any:
        # A string is a sequence of strings, too, but never meant.
        if not isinstance(data, (list, tuple)):
            raise WireFormatError("", data, "a list")
        return collect(read(data, type_))

    return read_collection


def _read_text(data: Any, cls: Any) -> Any:
    if not isinstance(data, str):
        raise WireFormatError("", data, "a string")
    # Enums of strings come here as well.
    return data if cls is str else cls(data)


def _read_bool(data: Any, _: Any) -> bool:
    if not isinstance(data, bool):
        raise WireFormatError("", data, "true or false")
    return data


def _read_int(data: Any, cls: Any) -> Any:
    if not isinstance(data, int) or isinstance(data, bool):
        raise WireFormatError("", data, "a whole number")
    return data if cls is int else cls(data)


def _read_float(data: Any, _: Any) -> float:
    if not isinstance(data, (int, float)) or isinstance(data, bool):
        raise WireFormatError("", data, "a number")
    return float(data)


def _read_bytes(data: Any, _: Any) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise WireFormatError("", data, "base64") from None


def _read_uuid(data: Any, _: Any) -> UUID:
    if isinstance(data, UUID):
        return data
    try:
        return UUID(data)
    except (TypeError, ValueError, AttributeError):
        raise WireFormatError("", data, "a UUID") from None


def _read_time(data: Any, _: Any) -> datetime:
    try:
        time = data if isinstance(data, datetime) else datetime.fromisoformat(data)
    except (TypeError, ValueError):
        raise WireFormatError("", data, "an ISO 8601 time with an offset from UTC") from None
    return _in_utc(time, data)


def _located(error: Exception, data: object) -> WireFormatError:
    """What went wrong first, with the path that cattrs noted level by level."""
    path: list[str | int] = []
    step: str | int | None = None
    while isinstance(error, BaseValidationError):
        error = error.exceptions[0]
        step = _step(error)
        if step is not None:
            path.append(step)
            data = _item(data, step)
    match error:
        case WireFormatError(path=rest, found=found, expected=expected):
            pass
        case KeyError() if data is attrs.NOTHING:
            rest, found, expected = "", data, "given"
        case ForbiddenExtraKeysError():
            rest, found = "", sorted(error.extra_fields)
            expected = f"without keys that {error.cl.__name__} does not know"
        case InvalidArgumentError() | InvalidTypeError():
            # The constructor names its argument; a hook of a field cannot.
            rest = error.argument if step is None else ""
            found, expected = error.found, error.expected
        case _:
            rest, found = "", data
            expected = f"readable ({type(error).__name__}: {error})"
    for each in reversed(path):
        rest = join_path(each, rest)
    return WireFormatError(rest, found, expected)


def _step(error: Exception) -> str | int | None:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
        if isinstance(note, IterableValidationNote):
            return note.index
    return None


def _item(data: Any, step: str | int) -> object:
    try:
        return data[step]
    except (LookupError, TypeError):
        return attrs.NOTHING
