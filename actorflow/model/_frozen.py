"""Dicts and lists that nobody can change, not even through what they contain.

Both classes freeze whatever they are made of. So a container that is frozen
at the top is frozen all the way down, and is never looked into again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Never, TypeVar, final, overload
from uuid import UUID

from actorflow.codec import join_path
from actorflow.errors import FrozenValueError, InvalidArgumentError, InvalidTypeError

T = TypeVar("T")

MAX_NESTING: Final = 200
"""How many containers may stand inside each other.

Python compares, pickles and writes nested containers by recursion; this leaves
it room.
"""


def _refusing(operation: str) -> Callable[..., Never]:
    def refuse(*_: object, **__: object) -> Never:
        raise FrozenValueError(operation)

    return refuse


@final
class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed, and neither can the dicts and lists in it."""

    __slots__ = ("_nesting",)

    _nesting: int

    def __new__(cls, *args: Any, **kwargs: Any) -> FrozenDict:
        return freeze(dict(*args, **kwargs))

    # `__new__` has filled it; dict's own `__init__` would fill it once more,
    # and could be called at any time.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    __setitem__ = _refusing("value[key] = item")
    __delitem__ = _refusing("del value[key]")
    __ior__ = _refusing("value |= other")
    __setattr__ = _refusing("value.name = item")
    __delattr__ = _refusing("del value.name")
    clear = _refusing("value.clear()")
    pop = _refusing("value.pop()")
    popitem = _refusing("value.popitem()")
    setdefault = _refusing("value.setdefault()")
    update = _refusing("value.update()")

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)

    # Going through `__reduce__` a copy would need more frames than there are
    # for containers as deep as they may be.
    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return _frozen_dict({k: deepcopy(v, memo) for k, v in self.items()}, self._nesting)


@final
class FrozenList(tuple[Any, ...]):  # noqa: SLOT001 - tuples cannot have any
    """A tuple that also equals a list of equal items; nothing in it can be changed."""

    _nesting: int = 1

    def __new__(cls, items: Iterable[Any] = ()) -> FrozenList:
        frozen: FrozenList = freeze(list(items))
        return frozen

    __setattr__ = _refusing("value.name = item")
    __delattr__ = _refusing("del value.name")

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList:
        return _frozen_list([deepcopy(item, memo) for item in self], self._nesting)


@overload
def freeze(value: dict[str, Any] | MappingProxyType[str, Any]) -> FrozenDict: ...
@overload
def freeze(value: list[Any]) -> FrozenList: ...
@overload
def freeze(value: object) -> Any: ...
def freeze(value: Any) -> Any:
    """`value` as something that cannot be changed.

    Dicts become `FrozenDict`, lists and tuples `FrozenList`, sets frozensets,
    at every depth. Everything else, a named tuple for example, stays the same
    object; what is frozen already comes back as it is, in constant time.

    Raises:
      InvalidArgumentError: if a container contains itself, or containers are
        nested more than 200 levels deep.
      InvalidTypeError: if a key of a dict is not a string.
    """
    return _Freezer("value").freeze(value)


def thaw(value: Any) -> Any:
    """A copy of `value` made of plain dicts, lists and sets that may be changed."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if _is_sequence(value):
        return [thaw(item) for item in value]
    if isinstance(value, frozenset):
        return set(value)
    return value


# Converters of fields. Each knows the name of its field, where paths begin; a
# converter that takes the field as an argument would be opaque to mypy.


def as_data(value: Mapping[str, Any]) -> FrozenDict:
    return frozen_mapping("data", value)


def as_metadata(value: Mapping[str, Any]) -> FrozenDict:
    return frozen_mapping("metadata", value)


def as_payload(value: Mapping[str, Any]) -> FrozenDict:
    return frozen_mapping("payload", value)


def frozen_mapping(name: str, value: Mapping[str, Any]) -> FrozenDict:
    """`value`, which may be any mapping, as the frozen content of the field `name`."""
    if type(value) is FrozenDict:
        return value
    if not isinstance(value, Mapping):
        raise InvalidTypeError(name, value, "a mapping")
    if not value:
        return EMPTY
    frozen: FrozenDict = _Freezer(name).freeze(value if isinstance(value, dict) else dict(value))
    return frozen


def frozen_sequence(name: str, value: Iterable[Any]) -> FrozenList:
    """`value`, a list or tuple, as the frozen content of the field `name`."""
    if not _is_sequence(value):
        raise InvalidTypeError(name, value, "a list or tuple")
    frozen: FrozenList = _Freezer(name).freeze(value)
    return frozen


# Most items are one of these; they need no further look.
_ATOMS: Final = frozenset({str, int, float, bool, type(None), bytes, UUID, datetime})

_FROZEN: Final = frozenset({FrozenDict, FrozenList})
_UNFINISHED: Final = object()


def _is_sequence(value: object) -> bool:
    # A named tuple is a record with fields, and stays what it is.
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


class _Freezer:
    """One walk through a value.

    It remembers what it made of each container. So a container that stands in
    two places is copied once (work stays linear, however much is shared), and
    one that is met again before it is finished contains itself.
    """

    __slots__ = ("_made", "_path", "_root")

    def __init__(self, root: str) -> None:
        self._root = root
        self._path: list[str | int] = []
        # By identity of the container, which is kept here so that no other
        # object can get the same one meanwhile.
        self._made: dict[int, tuple[Any, Any]] = {}

    def freeze(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind in _FROZEN:
            return self._with_room(value)
        build: Callable[[Any], Any]
        if isinstance(value, (dict, MappingProxyType)):
            build = self._mapping
        elif kind is list or _is_sequence(value):
            build = self._sequence
        else:
            # What is in a set has a hash, so it does not change.
            return frozenset(value) if isinstance(value, set) else value
        known = self._made.get(id(value))
        if known is not None:
            return self._again(*known)
        if len(self._path) == MAX_NESTING:
            self._refuse_depth()
        self._made[id(value)] = value, _UNFINISHED
        made = build(value)
        self._made[id(value)] = value, made
        return made

    def _mapping(self, value: Mapping[Any, Any]) -> FrozenDict:
        items: dict[str, Any] = {}
        below = 0
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidTypeError(self._where(), key, "a mapping whose keys are strings")
            if type(item) not in _ATOMS:
                self._path.append(key)
                item = self.freeze(item)  # noqa: PLW2901
                self._path.pop()
                if type(item) in _FROZEN and item._nesting > below:
                    below = item._nesting
            items[key] = item
        return _frozen_dict(items, below + 1)

    def _sequence(self, value: Iterable[Any]) -> FrozenList:
        items: list[Any] = []
        below = 0
        for item in value:
            if type(item) not in _ATOMS:
                self._path.append(len(items))
                item = self.freeze(item)  # noqa: PLW2901
                self._path.pop()
                if type(item) in _FROZEN and item._nesting > below:
                    below = item._nesting
            items.append(item)
        return _frozen_list(items, below + 1)

    def _again(self, value: Any, made: Any) -> Any:
        if made is _UNFINISHED:
            raise InvalidArgumentError(
                self._where(), value, "something that does not contain itself"
            )
        return self._with_room(made)

    def _with_room(self, frozen: Any) -> Any:
        if len(self._path) + frozen._nesting > MAX_NESTING:
            self._refuse_depth()
        return frozen

    def _refuse_depth(self) -> Never:
        expected = f"nested at most {MAX_NESTING} levels deep"
        raise InvalidArgumentError(self._where(), "more", expected)

    def _where(self) -> str:
        where = ""
        for step in reversed(self._path):
            where = join_path(step, where)
        return join_path(self._root, where)


# The only two places where frozen containers are filled. They go below the
# classes, which refuse.
_set_nesting: Final = FrozenDict.__dict__["_nesting"].__set__


def _frozen_dict(items: dict[str, Any], nesting: int) -> FrozenDict:
    frozen = dict.__new__(FrozenDict)
    dict.update(frozen, items)
    _set_nesting(frozen, nesting)
    return frozen


def _frozen_list(items: list[Any], nesting: int) -> FrozenList:
    frozen = tuple.__new__(FrozenList, items)
    if nesting > 1:
        object.__setattr__(frozen, "_nesting", nesting)
    return frozen


EMPTY: Final = _frozen_dict({}, 1)
EMPTY_LIST: Final = _frozen_list([], 1)
