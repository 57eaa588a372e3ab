"""What values cost, as ratios to the same thing done by hand beside it."""

from __future__ import annotations

import copy
import gc
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import attrs

from actorflow.codec import canonical_json
from actorflow.ids import uuid7
from actorflow.model import (
    ContextSnapshot,
    Conversation,
    Message,
    RunIdentity,
    StageOutput,
    freeze,
)

ROUNDS = 7


def ratio(ours: Callable[[], object], floor: Callable[[], object], count: int) -> float:
    """The smallest time of `ours` per smallest time of `floor`, taken in turns."""

    def once(function: Callable[[], object]) -> float:
        gc.collect()
        start = time.process_time()
        for _ in range(count):
            function()
        return (time.process_time() - start) / count

    rounds = [(once(floor), once(ours)) for _ in range(ROUNDS)]
    least, taken = min(base for base, _ in rounds), min(mine for _, mine in rounds)
    print(f"\n  {taken * 1e6:8.2f} us against {least * 1e6:6.2f} us: {taken / least:.2f}")
    return taken / least


@attrs.frozen
class Bare:
    """The fields of an output, unchecked and as they are given."""

    status: str
    data: dict[str, Any]
    artifacts: tuple[Any, ...] = ()
    events: tuple[Any, ...] = ()
    error: str | None = None
    error_type: str | None = None
    retryable: bool = False
    metadata: dict[str, Any] = attrs.field(factory=dict)
    duration_ms: float | None = None
    version: str | None = None


OUTPUT = StageOutput.ok(text="hello", words=["hello"])
CONTENT = {"turns": [{"role": "user", "tags": [n, n + 1]} for n in range(200)]}
FROZEN = freeze(CONTENT)
SNAPSHOT = ContextSnapshot(
    RunIdentity(uuid.uuid4()),
    conversation=Conversation([Message("user", "hello", metadata={"n": n}) for n in range(20)]),
    input_text="hello",
)
WRITTEN = SNAPSHOT.to_dict()


def fields() -> dict[str, Any]:
    return {field.name: getattr(OUTPUT, field.name) for field in attrs.fields(StageOutput)}


def test_an_output_costs_little_more_than_its_fields() -> None:
    assert ratio(lambda: StageOutput.ok(text="x"), lambda: Bare("ok", {"text": "x"}), 20_000) < 7


def test_an_output_is_written_in_a_few_times_what_reading_its_fields_takes() -> None:
    assert ratio(OUTPUT.to_dict, fields, 10_000) < 6


def test_freezing_costs_about_as_much_as_a_deep_copy() -> None:
    assert ratio(lambda: freeze(CONTENT), lambda: copy.deepcopy(CONTENT), 50) < 1.6


def test_freezing_again_costs_next_to_nothing() -> None:
    assert ratio(lambda: freeze(FROZEN), lambda: freeze(CONTENT), 50) < 0.05


def test_a_snapshot_is_written_about_as_fast_as_its_json() -> None:
    assert ratio(SNAPSHOT.to_dict, lambda: json.dumps(WRITTEN), 500) < 1.5


def test_a_snapshot_is_read_in_a_few_times_what_json_needs() -> None:
    text = json.dumps(WRITTEN)

    assert ratio(lambda: ContextSnapshot.from_dict(WRITTEN), lambda: json.loads(text), 500) < 6


def test_canonical_json_in_python_is_not_far_from_plain_json_in_c() -> None:
    assert ratio(lambda: canonical_json(WRITTEN), lambda: json.dumps(WRITTEN), 200) < 20


def test_an_id_costs_little_more_than_a_random_one() -> None:
    assert ratio(uuid7, uuid.uuid4, 20_000) < 3
