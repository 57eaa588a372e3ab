"""What a context keeps is bounded; what an application puts there is its own."""

from __future__ import annotations

import pytest

from actorflow.errors import InvalidArgumentError
from actorflow.model import StageOutput
from actorflow.stages import PipelineContext


@pytest.mark.spec("10.20.2")
def test_context_keeps_a_bounded_number_of_metrics_and_outputs() -> None:
    context = PipelineContext()
    for number in range(1_000):
        context.record_metric("tokens", number, {"stage": str(number)})
    for number in range(250):
        context.outputs.write_sync("again", StageOutput.ok(number=number), allow_overwrite=True)

    with pytest.raises(InvalidArgumentError):
        context.record_metric("tokens", 1, {"stage": "one too many"})
    assert len(context.metrics) == 1_000
    assert len(context.outputs.history("again")) == 100
    assert context.outputs.get_attempt_count("again") == 250


@pytest.mark.spec("10.20.2")
def test_context_adds_nothing_to_what_the_application_keeps_in_it() -> None:
    context = PipelineContext(data={"mine": 1})
    context.record_metric("tokens", 1)
    context.try_emit_event("app.event", {"a": 1})
    context.outputs.write_sync("stage", StageOutput.ok())

    assert context.data == {"mine": 1}
    assert context.artifacts == []
    assert len(context.bag) == 0
