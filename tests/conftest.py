from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from actorflow.events import CATALOGUE, BoundEventSink, validate_event

# Examples run on a virtual clock, so a slow machine is no reason to fail one.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", PATIENT)
# The gate tries the same examples on every run; look for new ones without it.
settings.register_profile("gate", PATIENT, derandomize=True)
settings.load_profile("default")


def pytest_collection_finish() -> None:
    # What was imported and collected stays to the end. A test that collects garbage to see
    # what it left need not walk through all that.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def wrong_payloads() -> Iterator[list[str]]:
    """What the catalogue has against payloads that were emitted since somebody looked."""
    wrong: list[str] = []
    stamped = BoundEventSink._payload

    def checked(
        self: BoundEventSink, type: str, data: Mapping[str, Any] | None, seq: int
    ) -> dict[str, Any]:
        payload = stamped(self, type, data, seq)
        # What somebody else has stamped before was looked at then.
        if type in CATALOGUE and "seq" not in (data or {}):
            wrong.extend(f"{type}: {problem}" for problem in validate_event(type, payload))
        return payload

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundEventSink, "_payload", checked)
        yield wrong


@pytest.fixture(autouse=True)
def every_payload_is_as_the_catalogue_says(
    request: pytest.FixtureRequest, wrong_payloads: list[str]
) -> Iterator[None]:
    """Whatever a test is about: the events of runs on the way are those of the catalogue."""
    wrong_payloads.clear()
    yield
    if request.node.get_closest_marker("made_up_payloads") is None:
        assert not wrong_payloads, "payloads that the catalogue does not allow"
