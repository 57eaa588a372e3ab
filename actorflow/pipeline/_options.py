"""How the runs of a pipeline treat failures, time and room."""

from __future__ import annotations

from typing import Any, TypedDict, final

import attrs

from actorflow.errors import PipelineValidationError, contract_error

from ._failure_mode import FailureMode
from ._guard_retry import GuardRetryStrategy
from ._spec import is_count, is_limit


class PipelineKeywords(TypedDict, total=False):
    """The options of a pipeline, each with the default of `PipelineOptions`."""

    failure_mode: FailureMode | str
    max_concurrency: int | None
    stage_timeout: float | None
    cleanup_timeout: float
    guard_retry_strategy: GuardRetryStrategy | None


def _failure_mode(found: FailureMode | str) -> FailureMode:
    try:
        return FailureMode(found)
    except ValueError:
        raise _impossible(
            "failure_mode", found, f"one of {', '.join(map(repr, map(str, FailureMode)))}"
        ) from None


@final
@attrs.frozen(kw_only=True)
class PipelineOptions:
    """How the runs of a pipeline treat failures, time and room."""

    failure_mode: FailureMode = attrs.field(default=FailureMode.FAIL_FAST, converter=_failure_mode)
    max_concurrency: int | None = None
    """At most that many stages of one run at a time; None for no limit."""
    stage_timeout: float | None = None
    """Seconds per try for stages that have no timeout of their own."""
    cleanup_timeout: float = 10.0
    """Seconds that cleanups may take once their run has ended."""
    guard_retry_strategy: GuardRetryStrategy | None = None

    def __attrs_post_init__(self) -> None:
        if not (self.max_concurrency is None or is_count(self.max_concurrency)):
            raise _impossible(
                "max_concurrency", self.max_concurrency, "an int of at least 1 or None"
            )
        if not (self.stage_timeout is None or is_limit(self.stage_timeout)):
            raise _impossible("stage_timeout", self.stage_timeout, "seconds above 0 or None")
        strategy = self.guard_retry_strategy
        if not (strategy is None or isinstance(strategy, GuardRetryStrategy)):
            raise _impossible(
                "guard_retry_strategy",
                strategy,
                "a GuardRetryStrategy of policies by guard, or None",
            )
        if self.cleanup_timeout != 0 and not is_limit(self.cleanup_timeout):
            raise _impossible("cleanup_timeout", self.cleanup_timeout, "seconds, 0 or more")

    def merged(self, other: PipelineOptions) -> PipelineOptions:
        """Of each option the value that was set on one side, or on both alike."""
        defaults = PipelineOptions()
        changes: dict[str, Any] = {}
        for field in attrs.fields(PipelineOptions):
            ours, theirs, default = (
                getattr(options, field.name) for options in (self, other, defaults)
            )
            if ours == default:
                changes[field.name] = theirs
            elif theirs not in (default, ours):
                raise contract_error(
                    "CONFLICT",
                    f"one pipeline has {field.name} {ours!r}, the other {theirs!r}",
                    option=field.name,
                )
        return attrs.evolve(self, **changes)


def _impossible(option: str, found: object, expected: str) -> PipelineValidationError:
    return contract_error(
        "OPTION",
        f"{option} of a pipeline must be {expected}, found {found!r}",
        stage=None,
        field=option,
        found=repr(found),
    )
