"""Policies of guards: what they may say, and what they fit (30.9)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from actorflow.errors import InvalidArgumentError, InvalidTypeError, PipelineValidationError
from actorflow.model import StageOutput
from actorflow.pipeline import (
    GuardRetryPolicy,
    GuardRetryStrategy,
    Pipeline,
    StageSpec,
    hash_retry_payload,
)

from .stages import nothing


def spec(name: str, *after: str, **options: Any) -> StageSpec:
    return StageSpec(name, nothing, dependencies=after, **options)


@pytest.mark.spec("30.9.3")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_attempts": 0}, InvalidArgumentError),
        ({"max_attempts": True}, InvalidTypeError),
        ({"stagnation_limit": 0}, InvalidArgumentError),
        ({"stagnation_limit": 1.5}, InvalidTypeError),
        ({"timeout_seconds": 0}, InvalidArgumentError),
        ({"timeout_seconds": float("nan")}, InvalidArgumentError),
    ],
)
def test_policy_refuses_impossible_limits(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        GuardRetryPolicy("write", **options)


def test_fields_to_compare_may_be_one_or_several() -> None:
    assert GuardRetryPolicy("write").hash_fields is None
    assert GuardRetryPolicy("write", hash_fields="rule").hash_fields == ("rule",)
    assert GuardRetryPolicy("write", hash_fields=["a", "b"]).hash_fields == ("a", "b")


@pytest.mark.spec("30.9.2")
def test_payloads_are_compared_by_canonical_json() -> None:
    def of(data: dict[str, Any], fields: list[str] | None = None) -> str | None:
        return hash_retry_payload(StageOutput.fail("no", data), fields)

    assert hash_retry_payload(None) is None
    assert of({"b": [1], "a": None}) == hashlib.sha256(b'{"a":null,"b":[1]}').hexdigest()
    assert of({"b": 1, "a": 2}) == of({"a": 2, "b": 1})
    assert of({"a": 1, "noise": 1}, ["a"]) == of({"a": 1, "noise": 2}, ["a"])
    assert of({}, ["a"]) == of({"a": None}, ["a"])
    assert of({"x": {"p", "q", "r"}}) == of({"x": {"r", "q", "p"}})
    assert of({"x": 1 + 2j}) == of({"x": "(1+2j)"})


STAGES = (
    spec("write"),
    spec("other", "write"),
    spec("check", "write", kind="guard"),
    spec("late", "other", kind="guard"),
)


@pytest.mark.spec("30.9.6")
@pytest.mark.parametrize(
    ("guard", "retry_stage", "why"),
    [
        ("nobody", "write", "there is no stage 'nobody'"),
        ("other", "write", "of kind transform, not guard"),
        ("check", "nothing", "there is no stage 'nothing'"),
        ("check", "check", "it is the guard itself"),
        ("late", "write", "'write' is no direct dependency of 'late'"),
    ],
)
def test_policy_that_fits_no_stages_is_refused(guard: str, retry_stage: str, why: str) -> None:
    strategy = GuardRetryStrategy({guard: GuardRetryPolicy(retry_stage)})

    with pytest.raises(PipelineValidationError, match=why) as caught:
        strategy.validate(STAGES)
    assert caught.value.code == "CONTRACT-004-GUARD_RETRY"
    assert caught.value.stages == [guard, retry_stage]
    with pytest.raises(PipelineValidationError):
        Pipeline("p", STAGES, guard_retry_strategy=strategy).build()


@pytest.mark.spec("30.9.6")
def test_streams_of_stages_that_are_repeated_are_refused() -> None:
    strategy = GuardRetryStrategy({"check": GuardRetryPolicy("write")})
    streaming = (*STAGES, spec("listen", stream_from="other"))

    with pytest.raises(PipelineValidationError, match="'listen' streams from 'other'"):
        strategy.validate(streaming)
    strategy.validate((*STAGES, spec("mic"), spec("stt", stream_from="mic")))


def test_strategy_knows_the_policy_of_each_guard() -> None:
    policy = GuardRetryPolicy("write")
    strategy = GuardRetryStrategy({"check": policy})

    assert strategy.get_policy("check") is policy
    assert strategy.get_policy("other") is None
    strategy.validate(STAGES)


@pytest.mark.spec("30.9.2")
def test_sets_are_compared_by_their_items() -> None:
    # They meet in one place of the table, so they come in the order of their making.
    one, other = (
        StageOutput.fail("no", {"rules": {0, 8}}),
        StageOutput.fail("no", {"rules": {8, 0}}),
    )

    assert hash_retry_payload(one) == hash_retry_payload(other)
