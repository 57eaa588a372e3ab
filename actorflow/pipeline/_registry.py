"""Pipelines by name, for those who are told a name only: clients, tools, other pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

from actorflow.errors import InvalidArgumentError, InvalidTypeError, PipelineNotFoundError

from ._keywords import closest
from ._pipeline import Pipeline

PipelineFactory: TypeAlias = Callable[[], Pipeline]


@final
class PipelineRegistry:
    """Pipelines by name. A factory is called when its pipeline is first asked for."""

    def __init__(self) -> None:
        self._entries: dict[str, Pipeline | PipelineFactory] = {}

    def register(
        self, name: str, pipeline_or_factory: Pipeline | PipelineFactory, *, replace: bool = False
    ) -> None:
        """Keep a pipeline under a name, which need not be its own.

        Raises:
          InvalidArgumentError: if the name is empty, or taken and `replace` is False.
        """
        if not isinstance(name, str):
            raise InvalidTypeError("name", name, "a string")
        if not name:
            raise InvalidArgumentError("name", name, "a name that is not empty")
        if name in self._entries and not replace:
            raise InvalidArgumentError("name", name, "a free name, unless replace=True is given")
        if not isinstance(pipeline_or_factory, Pipeline) and not callable(pipeline_or_factory):
            raise InvalidTypeError(
                "pipeline_or_factory",
                pipeline_or_factory,
                "a Pipeline or a function that makes one",
            )
        self._entries[name] = pipeline_or_factory

    def get(self, name: str) -> Pipeline:
        """The pipeline registered under this name.

        Raises:
          PipelineNotFoundError: if there is none.
          InvalidTypeError: if its factory returned something else.
        """
        entry = self._entry(name)
        if isinstance(entry, Pipeline):
            return entry
        made = entry()
        if not isinstance(made, Pipeline):
            raise InvalidTypeError(f"what the factory of {name!r} returns", made, "a Pipeline")
        self._entries[name] = made
        return made

    def unregister(self, name: str) -> None:
        """Forget a pipeline.

        Raises:
          PipelineNotFoundError: if there is none of this name.
        """
        self._entry(name)
        del self._entries[name]

    def list(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, name: str) -> Pipeline | PipelineFactory:
        if name not in self._entries:
            raise PipelineNotFoundError(name, tuple(self.list()), closest(name, self._entries))
        return self._entries[name]


pipeline_registry: Final = PipelineRegistry()
"""Where components look that were given no registry."""
