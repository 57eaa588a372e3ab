"""Guards that have an earlier stage run again instead of failing the run at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

import attrs

from actorflow.errors import InvalidArgumentError, InvalidTypeError, contract_error
from actorflow.model import FrozenDict, StageKind

if TYPE_CHECKING:
    from actorflow.errors import PipelineValidationError
    from actorflow.model import StageOutput

    from ._spec import StageSpec


def _check_limit(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(field.name, value, "a whole number")
    if value < 1:
        raise InvalidArgumentError(field.name, value, "at least 1")


def _check_time(_: object, field: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not value > 0:
        raise InvalidArgumentError(field.name, value, "more than 0 seconds, or None for no limit")


def _as_fields(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


@final
@attrs.frozen
class GuardRetryPolicy:
    """Which stage a guard has run again when it refuses, and how often.

    A guard refuses by FAIL or by an exception. The retry stage then runs again
    and finds the verdict in `ctx.guard_feedback`.
    """

    retry_stage: str
    """A direct dependency of the guard."""

    max_attempts: int = attrs.field(default=2, validator=_check_limit)
    """Refusals that end it; 2 allows one repetition."""

    stagnation_limit: int = attrs.field(default=2, validator=_check_limit)
    """How often in a row the same verdict may be repeated."""

    hash_fields: tuple[str, ...] | None = attrs.field(default=None, converter=_as_fields)
    """The keys of the guard's data by which verdicts are compared; None means all."""

    timeout_seconds: float | None = attrs.field(default=None, validator=_check_time)
    """Seconds after the first refusal in which another repetition may begin."""


def _check_policies(_: object, __: object, policies: Mapping[str, object]) -> None:
    for guard, policy in policies.items():
        if not isinstance(policy, GuardRetryPolicy):
            raise InvalidTypeError(f"policies[{guard!r}]", policy, "a GuardRetryPolicy")


@final
@attrs.frozen
class GuardRetryStrategy:
    """The policies of a pipeline's guards by name."""

    policies: Mapping[str, GuardRetryPolicy] = attrs.field(
        factory=FrozenDict, converter=FrozenDict, validator=_check_policies
    )

    def get_policy(self, guard: str) -> GuardRetryPolicy | None:
        """The policy of a guard, if it has one."""
        return self.policies.get(guard)

    def validate(self, specs: Sequence[StageSpec]) -> None:
        """Check that every policy can work with these stages.

        Raises:
          PipelineValidationError: `CONTRACT-004-GUARD_RETRY` with the first that cannot.
        """
        for problem in self.problems(specs):
            raise problem

    def problems(self, specs: Sequence[StageSpec]) -> Iterator[PipelineValidationError]:
        """One error for each policy that cannot work with these stages."""
        by_name = {spec.name: spec for spec in specs}
        for guard, policy in self.policies.items():
            why = _why_not(guard, policy.retry_stage, by_name)
            if why is not None:
                yield contract_error(
                    "GUARD_RETRY",
                    f"guard {guard!r} cannot have {policy.retry_stage!r} run again: {why}",
                    [guard, policy.retry_stage],
                    guard=guard,
                    retry_stage=policy.retry_stage,
                )


def _why_not(guard: str, retry_stage: str, specs: Mapping[str, StageSpec]) -> str | None:
    if guard not in specs:
        return f"there is no stage {guard!r}"
    if specs[guard].kind is not StageKind.GUARD:
        return f"{guard!r} is of kind {specs[guard].kind}, not guard"
    if retry_stage not in specs:
        return f"there is no stage {retry_stage!r}"
    if retry_stage == guard:
        return "it is the guard itself"
    if retry_stage not in specs[guard].dependencies:
        return f"{retry_stage!r} is no direct dependency of {guard!r}"
    streaming = [spec for spec in specs.values() if spec.stream_from]
    # What is repeated matters to streams alone, and most pipelines have none.
    repeated = _repeated_with(retry_stage, specs) if streaming else frozenset()
    for spec in streaming:
        for source in spec.stream_from:
            if not repeated.isdisjoint((spec.name, source)):
                return (
                    f"{spec.name!r} streams from {source!r}, and a stream can be neither"
                    " sent nor read a second time"
                )
    return None


def _repeated_with(retry_stage: str, specs: Mapping[str, StageSpec]) -> frozenset[str]:
    dependents: dict[str, list[str]] = {}
    for spec in specs.values():
        for needed in spec.dependencies:
            dependents.setdefault(needed, []).append(spec.name)
    repeated = {retry_stage}
    to_visit = [retry_stage]
    while to_visit:
        fresh = set(dependents.get(to_visit.pop(), ())) - repeated
        repeated |= fresh
        to_visit.extend(fresh)
    return frozenset(repeated)


def hash_retry_payload(
    output: StageOutput | None, fields: Iterable[str] | None = None
) -> str | None:
    """The SHA-256 by which verdicts are compared: over the data, or over some of its keys."""
    if output is None:
        return None
    data = output.data if fields is None else {field: output.data.get(field) for field in fields}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=_as_text)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_text(value: object) -> object:
    # Equal sets may iterate in different orders.
    return sorted(map(str, value)) if isinstance(value, frozenset) else str(value)
