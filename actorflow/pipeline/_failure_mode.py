"""What a failed stage means for the rest of its run."""

from __future__ import annotations

from enum import StrEnum


class FailureMode(StrEnum):
    """What happens to the other stages when one has failed."""

    FAIL_FAST = "fail_fast"
    """Cancel what runs, start nothing more, raise."""
    CONTINUE_ON_FAILURE = "continue_on_failure"
    """Skip what depends on the failed stage, run the rest, then raise."""
    BEST_EFFORT = "best_effort"
    """Run everything, also what depends on the failed stage, and return."""
