"""What a graph makes of the interceptors it is built with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorflow.errors import contract_error

from ._chain import StageChain, chain_of

if TYPE_CHECKING:
    from actorflow.model import StageKind

_REQUIRED: Final = ("before", "after", "on_error")


class Wrapped(Protocol):
    """What is read of the spec of a stage."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> StageKind: ...


def ordered(interceptors: Iterable[Any]) -> tuple[Any, ...]:
    """The interceptors from the outermost to the innermost.

    Raises:
      PipelineValidationError: if one of them is none, or two have one name.
    """
    found = tuple(interceptors)
    for interceptor in found:
        missing = [hook for hook in _REQUIRED if not callable(getattr(interceptor, hook, None))]
        if missing or not isinstance(getattr(interceptor, "name", None), str):
            lacks = ", ".join(missing or ["a name"])
            raise _impossible(f"{interceptor!r} is no interceptor: it lacks {lacks}")
    names = [interceptor.name for interceptor in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _impossible(f"two interceptors are called {', '.join(map(repr, twice))}")
    return tuple(sorted(found, key=_priority))


def compile_chains(
    interceptors: Iterable[Any], specs: Iterable[Wrapped]
) -> tuple[StageChain | None, ...]:
    """What wraps each stage; None where nothing does. `interceptors` are `ordered`."""
    interceptors = tuple(interceptors)
    return tuple(chain_of(interceptors, spec.name, spec.kind) for spec in specs)


def check_graph(interceptors: Iterable[Any], graph: object) -> None:
    """Let interceptors refuse a graph that they cannot serve."""
    for interceptor in interceptors:
        check = getattr(interceptor, "check_graph", None)
        if check is not None:
            check(graph)


def _priority(interceptor: Any) -> float:
    priority: float = getattr(interceptor, "priority", 100)
    return priority


def _impossible(message: str) -> Exception:
    return contract_error("OPTION", message, field="interceptors")
