"""The data of a run as a stage may see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

from actorflow.errors import InvalidArgumentError, InvalidTypeError
from actorflow.model import freeze


def read_only(value: Any) -> Any:
    """A frozen copy of `value`, or the value itself where there is no frozen form.

    That is so for objects, and for the containers that `freeze` refuses: a dict
    with keys other than strings, or a list in a ring.
    """
    try:
        return freeze(value)
    except (InvalidArgumentError, InvalidTypeError):
        return value


@final
class ReadOnlyData(Mapping[str, Any]):
    """A live view of a mapping that cannot be changed through it."""

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        return read_only(self._data[key])

    def __contains__(self, key: object) -> bool:
        # The one of `Mapping` would copy the value to find out.
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"ReadOnlyData({self._data!r})"
