"""What is declared about one stage."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final, get_args

import attrs

from actorflow.errors import contract_error
from actorflow.model import FrozenDict, StageKind

from ._predicates import Edge, leaves, why_no_condition
from ._runners import check_runner, declared_kind, declared_name, described

if TYPE_CHECKING:
    from actorflow.errors import PipelineValidationError

    from ._predicates import Condition, EdgeCondition
    from ._runners import Runner

Join: TypeAlias = Literal["any", "all", "always"]
StreamPolicy: TypeAlias = Literal["wait", "drop_oldest"]
"""What a producer does when its consumer has as much to read as may wait."""

Names: TypeAlias = str | Edge | Iterable[str | Edge]
"""One stage, or several in order."""

MAX_NAME_LENGTH: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@final
@attrs.frozen(init=False)
class StageSpec:
    """One stage of a pipeline: what runs, what it waits for, and under which conditions.

    Specs are compared by field, runners among them by `==`. `args` are passed
    to a class runner as keywords each time it is instantiated. `timeout` is in
    seconds and holds for each try.
    """

    name: str
    runner: Runner = attrs.field(hash=False)
    kind: StageKind
    dependencies: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    conditional: bool
    args: Mapping[str, Any] = attrs.field(hash=False)
    when: Condition | str | None = attrs.field(hash=False)
    edge_conditions: Mapping[str, EdgeCondition] = attrs.field(hash=False)
    join: Join = attrs.field(hash=False)
    stream_from: tuple[str, ...] = attrs.field(hash=False)
    stream_buffer: int = attrs.field(hash=False)
    timeout: float | None = attrs.field(hash=False)
    stream_ms: float | None = attrs.field(hash=False)
    stream_policy: StreamPolicy = attrs.field(hash=False)

    def __init__(
        self,
        name: str,
        runner: Runner,
        kind: StageKind | str | None = None,
        dependencies: Names = (),
        inputs: str | Iterable[str] = (),
        outputs: str | Iterable[str] = (),
        conditional: bool = False,
        args: Mapping[str, Any] | None = None,
        when: Condition | str | None = None,
        edge_conditions: Mapping[str, EdgeCondition] | None = None,
        join: Join = "any",
        stream_from: Names = (),
        stream_buffer: int = 16,
        timeout: float | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        stream_ms: float | None = None,
        stream_policy: StreamPolicy = "wait",
    ) -> None:
        check_name(name)
        if args is not None and config is not None:
            raise bad_option(name, "config", config, "left out when args are given")
        args = args or config or {}
        if not isinstance(args, Mapping):
            raise bad_option(name, "args", args, "a mapping")
        check_runner(name, runner, args)
        needed, conditions = split_edges(name, "dependencies", dependencies)
        streamed, stream_conditions = split_edges(name, "stream_from", stream_from)
        for source in stream_conditions:
            raise contract_error(
                "STREAM",
                f"stage {name!r} puts a condition on its stream from {source!r},"
                " which has no output yet when the stream starts",
                [name, source],
                fix="Put the condition on the producer, or on an ordinary dependency.",
                stage=name,
                source=source,
            )
        conditions = {**(edge_conditions or {}), **conditions}
        for condition in (when, *conditions.values()):
            _check_condition(name, condition)
        self.__attrs_init__(
            name,
            runner,
            _resolve_kind(name, runner, kind),
            needed,
            _keys(name, "inputs", inputs),
            _keys(name, "outputs", outputs),
            conditional,
            FrozenDict(args),
            when,
            FrozenDict(conditions),
            join,
            streamed,
            stream_buffer,
            timeout,
            stream_ms,
            stream_policy,
        )
        self._check_options()

    @property
    def config(self) -> Mapping[str, Any]:
        """The same as `args`."""
        return self.args

    def evolve(self, **changes: Any) -> StageSpec:
        """A copy with other values, validated like a new spec.

        Conditions on dependencies that the copy does not have are dropped.
        """
        fields = attrs.asdict(self, recurse=False)
        if "dependencies" in changes:
            kept, _ = split_edges(self.name, "dependencies", changes["dependencies"])
            fields["edge_conditions"] = {
                stage: condition
                for stage, condition in self.edge_conditions.items()
                if stage in kept
            }
        if "config" in changes:
            del fields["args"]
        return StageSpec(**{**fields, **changes})

    def _check_options(self) -> None:
        if not isinstance(self.conditional, bool):
            raise bad_option(self.name, "conditional", self.conditional, "True or False")
        if self.join not in get_args(Join):
            allowed = ", ".join(map(repr, get_args(Join)))
            raise bad_option(self.name, "join", self.join, f"one of {allowed}")
        if not is_count(self.stream_buffer):
            raise bad_option(self.name, "stream_buffer", self.stream_buffer, "an int of at least 1")
        if not (self.stream_ms is None or is_limit(self.stream_ms)):
            raise bad_option(
                self.name, "stream_ms", self.stream_ms, "milliseconds above 0, or None"
            )
        if self.stream_policy not in get_args(StreamPolicy):
            allowed = " or ".join(map(repr, get_args(StreamPolicy)))
            raise bad_option(self.name, "stream_policy", self.stream_policy, allowed)
        if not (self.timeout is None or is_limit(self.timeout)):
            raise bad_option(
                self.name,
                "timeout",
                self.timeout,
                "seconds above 0, math.inf for no limit, or None",
            )


def check_name(name: object, what: str = "stage") -> None:
    """Refuse names that nobody could read in a message or type again."""
    if not isinstance(name, str):
        why = f"must be text, found {described(name)}"
    elif not name:
        why = "cannot be empty"
    elif not name.strip():
        why = f"cannot consist of whitespace, found {name!r}"
    elif name != name.strip():
        why = f"cannot begin or end with blanks, found {name!r}"
    elif _CONTROL.search(name):
        why = f"cannot hold control characters, found {name!r}"
    elif what == "stage" and len(name) > MAX_NAME_LENGTH:
        why = f"cannot be longer than {MAX_NAME_LENGTH} characters, found {len(name)}: {name[:40]!r}..."
    else:
        return
    raise contract_error(
        "NAME",
        f"the name of a {what} {why}",
        [str(name)],
        fix="" if isinstance(name, str) else "Write the name first: Pipeline('voice', stages).",
        name=str(name),
    )


def is_count(value: object) -> bool:
    """Whether something can be counted up to this value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_limit(value: object) -> bool:
    """Whether something can take at most that many seconds; infinity is no limit at all."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def split_edges(
    stage: str, field: str, names: Names
) -> tuple[tuple[str, ...], dict[str, EdgeCondition]]:
    """The stages named, each once in order of first mention, and the conditions on them."""
    items = (names,) if isinstance(names, str | Edge) else names
    if not isinstance(items, Iterable):
        raise _no_name(stage, field, items)
    found: dict[str, None] = {}
    conditions: dict[str, EdgeCondition] = {}
    for item in items:
        name, when = (item.stage, item.when) if isinstance(item, Edge) else (item, None)
        if not isinstance(name, str) or not name:
            raise _no_name(stage, field, name)
        if name == stage:
            raise contract_error(
                "SELF_DEP",
                f"stage {stage!r} cannot depend on itself, but {field} names it",
                [stage],
                stage=stage,
            )
        found[name] = None
        if when is not None:
            conditions[name] = when
    return tuple(found), conditions


def _keys(stage: str, field: str, keys: str | Iterable[str]) -> tuple[str, ...]:
    items = keys if isinstance(keys, Iterable) and not isinstance(keys, str) else (keys,)
    found = tuple(dict.fromkeys(items))
    for key in found:
        if not isinstance(key, str) or not key:
            raise bad_option(stage, field, key, "keys, as text")
    return found


def _resolve_kind(stage: str, runner: object, kind: StageKind | str | None) -> StageKind:
    found = declared_kind(runner) if kind is None else kind
    if found is None:
        return StageKind.TRANSFORM
    try:
        return StageKind(found)
    except ValueError:
        kinds = ", ".join(StageKind)
        raise contract_error(
            "KIND",
            f"stage {stage!r} has the kind {found!r}, known are {kinds}",
            [stage],
            stage=stage,
            field="kind",
            found=repr(found),
        ) from None


def _check_condition(stage: str, condition: object) -> None:
    if condition is None or (isinstance(condition, str) and condition):
        return
    for leaf in leaves(condition):
        why = why_no_condition(leaf)
        if why is not None:
            raise contract_error(
                "BRANCH",
                f"stage {stage!r} has a condition that {why}",
                [stage],
                fix="Pass a plain function of one argument that returns True or False.",
                stage=stage,
                reads=[],
                declared=[],
            )


def bad_option(
    stage: str, field: str, found: object, expected: str, *, fix: str = ""
) -> PipelineValidationError:
    return contract_error(
        "OPTION",
        f"stage {stage!r}: {field} must be {expected}, found {reprlib.repr(found)}",
        [stage],
        fix=fix,
        stage=stage,
        field=field,
        found=reprlib.repr(found),
    )


def _no_name(stage: str, field: str, found: object) -> PipelineValidationError:
    called = declared_name(found)
    return contract_error(
        "OPTION",
        f"stage {stage!r}: {field} must be names of stages, found {described(found)}",
        [stage],
        fix=f"Write the name of the stage: {called!r}." if called else "",
        stage=stage,
        field=field,
        found=repr(found),
    )


PipelineSpec = StageSpec
UnifiedStageSpec = StageSpec
