from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actorflow.actors import Child, Inbox, open_system
from actorflow.errors import MissingExtraError
from actorflow.integrations import observe_system

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def values(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Value, or values by reason, of each metric."""
    found: dict[str, Any] = {}
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        points = {
            (point.attributes or {}).get("reason"): getattr(point, "value", None)
            for point in metric.data.data_points
        }
        found[metric.name] = points.get(None, points)
    return found


async def stuck(inbox: Inbox[str]) -> None:
    async for message in inbox:
        if message == "crash":
            raise ValueError(message)
        await trio.sleep_forever()


async def test_meter_sees_the_system() -> None:
    reader = InMemoryMetricReader()
    async with open_system(Child("a", stuck), Child("b", stuck), grace=0) as system:
        observe_system(system, meter_provider=MeterProvider(metric_readers=[reader]))
        assert values(reader) == {
            "actorflow.actors": 2,
            "actorflow.mailbox.depth": 0,
            "actorflow.mailbox.max_depth": 0,
            "actorflow.restarts": 0,
        }

        system["a"].tell_nowait("crash")
        for _ in range(4):
            system["a"].tell_nowait("wait")
        for _ in range(3):
            system["b"].tell_nowait("wait")
        await wait_all_tasks_blocked()

        seen = await trio.to_thread.run_sync(values, reader)
        assert seen == {
            "actorflow.actors": 2,
            "actorflow.mailbox.depth": 5,
            "actorflow.mailbox.max_depth": 3,
            "actorflow.restarts": 1,
            "actorflow.dead_letters": {"crashed": 1},
        }


def test_meter_sees_nothing_when_the_loop_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()

    async def main() -> None:
        async with open_system() as system:
            observe_system(system, meter_provider=MeterProvider(metric_readers=[reader]))

    trio.run(main)

    assert values(reader) == {}
    assert caplog.records == []


async def test_meter_does_not_wait_for_a_loop_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actorflow.integrations._otel_system._PATIENCE", 0.01)
    reader = InMemoryMetricReader()
    async with open_system() as system:
        observe_system(system, meter_provider=MeterProvider(metric_readers=[reader]))
    seen: list[dict[str, Any]] = []

    # What shutting down a meter provider does.
    thread = threading.Thread(target=lambda: seen.append(values(reader)), daemon=True)
    thread.start()
    thread.join(5)

    assert seen == [{}]
    # A system that is closed can still be looked at.
    assert values(reader)["actorflow.actors"] == 0


async def test_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    async with open_system() as system:
        with pytest.raises(MissingExtraError):
            observe_system(system)
