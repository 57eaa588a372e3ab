"""Gauges of a system of actors for OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from actorflow.actors import System
from actorflow.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

_Reading: TypeAlias = "Callable[[], Iterable[Observation]]"

# A loop that does not answer for so many seconds may be waiting for the meter to shut down.
_PATIENCE: Final = 0.5


def observe_system(system: System, *, meter_provider: MeterProvider | None = None) -> None:
    """Let a meter look at `system` whenever it collects.

    It sees how many actors there are, how many messages wait in their mailboxes
    and in the fullest one, how many restarts there were, and dead letters by
    reason. Nothing is counted between two looks, so it costs actors nothing. A loop
    that is busy for half a second is not waited for.

    Raises:
      MissingExtraError: if opentelemetry is not installed.
    """
    try:
        from opentelemetry import metrics
        from opentelemetry.metrics import Observation
    except ImportError:
        raise MissingExtraError("observe_system", "otel") from None
    token = trio.lowlevel.current_trio_token()

    def depths() -> list[int]:
        return [info.statistics.depth for _, info in system.tree().walk()]

    def in_the_loop(read: _Reading) -> Callable[[CallbackOptions], Iterable[Observation]]:
        # A meter collects in a thread of its own, and the tree belongs to the loop.
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            if trio.lowlevel.in_trio_run():
                return read()
            answer: SimpleQueue[Iterable[Observation]] = SimpleQueue()
            try:
                token.run_sync_soon(lambda: answer.put(read()))
                return answer.get(timeout=_PATIENCE)
            except (trio.RunFinishedError, Empty):
                return []

        return observe

    meter = metrics.get_meter("actorflow", meter_provider=meter_provider)
    meter.create_observable_gauge(
        "actorflow.actors", [in_the_loop(lambda: [Observation(system.statistics().actors)])]
    )
    meter.create_observable_gauge(
        "actorflow.mailbox.depth", [in_the_loop(lambda: [Observation(sum(depths()))])]
    )
    meter.create_observable_gauge(
        "actorflow.mailbox.max_depth", [in_the_loop(lambda: [Observation(max(depths()))])]
    )
    meter.create_observable_counter(
        "actorflow.restarts", [in_the_loop(lambda: [Observation(system.statistics().restarts)])]
    )
    meter.create_observable_counter(
        "actorflow.dead_letters",
        [
            in_the_loop(
                lambda: [
                    Observation(count, {"reason": reason})
                    for reason, count in system.statistics().dead_letters.items()
                ]
            )
        ],
    )
