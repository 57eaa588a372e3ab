"""What runs have in common beyond a single one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import attrs

from actorflow.stores import InMemoryIdempotencyStore

from ._children import ChildRunTracker, get_child_tracker

if TYPE_CHECKING:
    from actorflow.stores import IdempotencyStore


@final
@attrs.frozen(kw_only=True)
class Runtime:
    """What outlasts a single run: stages and interceptors find it as `ctx.runtime`.

    Give the same one to runs that should know of each other's work, whatever
    pipeline they run: work with a known key is done once for all of them. As keys
    are told apart by pipeline and stage, such pipelines should have names.
    """

    idempotency_store: IdempotencyStore = attrs.field(factory=InMemoryIdempotencyStore)
    """Where interceptors without a store of their own keep what work was done."""
    child_tracker: ChildRunTracker = attrs.field(factory=get_child_tracker)
    """The family tree that child runs of these runs are entered in."""


def tracker_of(runtime: Any) -> ChildRunTracker:
    """The tracker of whatever a run has as its runtime, or the one all others share."""
    # Any object may be a runtime; what it does not have is taken from elsewhere.
    return getattr(runtime, "child_tracker", None) or get_child_tracker()
