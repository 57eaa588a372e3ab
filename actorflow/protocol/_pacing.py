from __future__ import annotations

from typing import Final, final

import attrs

from actorflow.errors import InvalidArgumentError

DEFAULT_LEAD_MS: Final = 100.0


@final
@attrs.frozen
class Pacer:
    """When the next piece of audio may leave, by the clock of the speaker.

    Audio is sent as fast as it plays, `lead_ms` ahead of the speaker: enough to
    bridge a hiccup of the network, little enough that an interruption finds almost
    nothing to take back. What counts is when the audio sent so far will have been
    played, an absolute instant; how long the sends take, and pieces without a
    single sample, do not move it.
    """

    lead_ms: float = attrs.field(default=DEFAULT_LEAD_MS)
    ends_at: float = float("-inf")
    """When everything that was sent will have been played."""

    @lead_ms.validator
    def _positive(self, field: attrs.Attribute[float], value: float) -> None:
        # Without any lead the speaker would always run dry first.
        if not value > 0:
            raise InvalidArgumentError(field.name, value, "a number of milliseconds above 0")

    @property
    def due(self) -> float:
        """When the next piece may leave. Never before the one ahead of it was due."""
        return self.ends_at - self.lead_ms / 1000

    def sent(self, duration_ms: float, now: float) -> Pacer:
        """The pacer after a piece that was sent at `now`.

        A speaker that had run dry begins to play it at once.
        """
        ends_at = max(self.ends_at, now) + duration_ms / 1000
        return attrs.evolve(self, ends_at=ends_at)

    def cleared(self) -> Pacer:
        """The pacer after an interruption: nothing is waiting to be played."""
        return attrs.evolve(self, ends_at=float("-inf"))
