"""What a stage may read of what ran before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Never, final

import attrs

from actorflow.errors import InvalidTypeError, MissingInputError, UndeclaredDependencyError
from actorflow.model import ContextSnapshot, StageOutput

from ._arguments import check_name

_NOTHING: Final[Mapping[str, StageOutput]] = MappingProxyType({})


@final
@attrs.frozen(init=False)
class StageInputs:
    """The snapshot and the outputs of the stages that a stage declares, fixed at its start.

    Without `declared_deps`, which only inputs made by hand lack, every stage in
    `prior_outputs` counts as declared.
    """

    snapshot: ContextSnapshot
    _outputs: dict[str, StageOutput]
    ports: Any
    stages: tuple[str, ...]
    """Names of the declared dependencies, in order."""
    stage_name: str | None
    strict: bool
    stream_sources: tuple[str, ...]

    def __init__(
        self,
        snapshot: ContextSnapshot,
        prior_outputs: Mapping[str, StageOutput] = _NOTHING,
        ports: Any = None,
        declared_deps: Iterable[str] | None = None,
        stage_name: str | None = None,
        strict: bool = True,
        *,
        stream_sources: Iterable[str] = (),
    ) -> None:
        # Looked up by declared name, so that a run can pass all the outputs it has.
        named = None if declared_deps is None else _names("declared_deps", declared_deps)
        stages = tuple(prior_outputs) if named is None else named
        self.__attrs_init__(
            snapshot,
            {name: prior_outputs[name] for name in stages if name in prior_outputs},
            ports,
            stages,
            stage_name,
            strict,
            _names("stream_sources", stream_sources),
        )

    @property
    def declared_deps(self) -> tuple[str, ...]:
        return self.stages

    @property
    def prior_outputs(self) -> Mapping[str, StageOutput]:
        """The outputs of declared stages, by name."""
        return MappingProxyType(self._outputs)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of the first dependency, in declaration order, that left `key`."""
        check_name("key", key)
        for output in self._outputs.values():
            if key in output.data:
                return output.data[key]
        return default

    def get_from(self, stage: str, key: str, default: Any = None) -> Any:
        """The value that `stage` left under `key`.

        Raises:
          UndeclaredDependencyError: if the stage is not declared (and inputs are strict).
        """
        check_name("key", key)
        output = self.get_output(stage)
        return default if output is None else output.data.get(key, default)

    def require_from(self, stage: str, key: str) -> Any:
        """The value that `stage` left under `key`, which has to be there.

        Raises:
          UndeclaredDependencyError: if the stage is not declared (and inputs are strict).
          MissingInputError: if the stage left no output, or not this key.
        """
        check_name("key", key)
        output = self.get_output(stage)
        if output is None:
            raise MissingInputError(stage, key, tuple(self._outputs))
        if key not in output.data:
            raise MissingInputError(stage, key, tuple(output.data))
        return output.data[key]

    def has_output(self, stage: str) -> bool:
        """Whether `stage` left an output, that of a skipped or failed stage included.

        Raises:
          UndeclaredDependencyError: if the stage is not declared (and inputs are strict).
        """
        return self.get_output(stage) is not None

    def get_output(self, stage: str) -> StageOutput | None:
        """The whole output of `stage`.

        Raises:
          UndeclaredDependencyError: if the stage is not declared (and inputs are strict).
        """
        check_name("stage", stage)
        output = self._outputs.get(stage)
        if output is None and self.strict and stage not in self.stages:
            self._refuse(stage)
        return output

    def _refuse(self, stage: str) -> Never:
        raise UndeclaredDependencyError(
            stage, self.stages, self.stage_name, stage in self.stream_sources
        )


def _names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    # What comes from a built pipeline is a tuple of different names already.
    if isinstance(names, tuple):
        return names
    if isinstance(names, str):
        raise InvalidTypeError(argument, names, "a collection of names")
    return tuple(dict.fromkeys(names))


def create_stage_inputs(
    *,
    snapshot: ContextSnapshot,
    prior_outputs: Mapping[str, StageOutput] = _NOTHING,
    ports: Any = None,
    declared_deps: Iterable[str] | None = None,
    stage_name: str | None = None,
    strict: bool = True,
) -> StageInputs:
    """Make inputs by hand, every argument by name."""
    return StageInputs(snapshot, prior_outputs, ports, declared_deps, stage_name, strict)
