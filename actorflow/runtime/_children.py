"""Which run is a child of which, for whoever has an id and wants the family."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final, final
from uuid import UUID

from actorflow.errors import InvalidArgumentError


@final
class ChildRunTracker:
    """The family tree of the runs that are going on. May be used from any thread.

    Its methods are async for those who keep such trees elsewhere; these here
    never wait, so they also work while their task is being cancelled.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[UUID, dict[UUID, None]] = {}
        self._parents: dict[UUID, UUID] = {}
        self._counters = _Counters()

    async def register_child(self, parent_id: UUID, child_id: UUID) -> None:
        """Note that one run has started another.

        Raises:
          InvalidArgumentError: if the child has another parent, or is an ancestor
            of the parent.
        """
        with self._lock:
            lineage = self._lineage(parent_id)
            if child_id in lineage:
                raise InvalidArgumentError(
                    "child_id", child_id, f"no ancestor of {parent_id}, and not that run itself"
                )
            known = self._parents.get(child_id)
            if known not in (None, parent_id):
                raise InvalidArgumentError("child_id", child_id, f"no child of {known}")
            if known is None:
                self._parents[child_id] = parent_id
                siblings = self._children.setdefault(parent_id, {})
                siblings[child_id] = None
                self._counters.registered(len(siblings), len(lineage))

    async def unregister_child(self, parent_id: UUID, child_id: UUID) -> None:
        """Forget a child; one that is not known changes nothing."""
        with self._lock:
            if self._parents.get(child_id) == parent_id:
                self._unlink(child_id)
                self._counters.unregistration_count += 1

    async def get_children(self, parent_id: UUID) -> set[UUID]:
        """The children of a run."""
        with self._lock:
            self._counters.lookup_count += 1
            return set(self._children.get(parent_id, ()))

    async def get_parent(self, child_id: UUID) -> UUID | None:
        """The run that started a run, if it is known."""
        with self._lock:
            self._counters.lookup_count += 1
            return self._parents.get(child_id)

    async def get_all_descendants(self, run_id: UUID) -> set[UUID]:
        """Children, their children, and so on."""
        with self._lock:
            self._counters.tree_traversal_count += 1
            return set(self._below(run_id))

    async def get_root_run(self, run_id: UUID) -> UUID:
        """The first ancestor; a run without a parent is its own."""
        with self._lock:
            self._counters.tree_traversal_count += 1
            return self._lineage(run_id)[-1]

    async def cleanup_run(self, run_id: UUID) -> None:
        """Forget a run and everything below it."""
        with self._lock:
            self._counters.cleanup_count += 1
            for descendant in self._below(run_id):
                self._unlink(descendant)
            self._unlink(run_id)

    async def get_metrics(self) -> dict[str, int]:
        """What has been counted, and how big the tree is now."""
        with self._lock:
            return {
                **self._counters.to_dict(),
                "active_parents": len(self._children),
                "active_children": len(self._parents),
                "total_relationships": len(self._parents),
            }

    async def reset_metrics(self) -> None:
        """Start counting anew; the tree stays."""
        with self._lock:
            self._counters = _Counters()

    def _lineage(self, run_id: UUID) -> list[UUID]:
        """A run and its ancestors, the root last."""
        lineage = [run_id]
        while lineage[-1] in self._parents:
            lineage.append(self._parents[lineage[-1]])
        return lineage

    def _below(self, run_id: UUID) -> list[UUID]:
        # A list that grows while it is walked is a queue that forgets nothing.
        below = list(self._children.get(run_id, ()))
        for descendant in below:
            below.extend(self._children.get(descendant, ()))
        return below

    def _unlink(self, child_id: UUID) -> None:
        parent_id = self._parents.pop(child_id, None)
        if parent_id is not None:
            siblings = self._children[parent_id]
            del siblings[child_id]
            if not siblings:
                del self._children[parent_id]


@final
class _Counters:
    def __init__(self) -> None:
        self.registration_count = 0
        self.unregistration_count = 0
        self.lookup_count = 0
        self.tree_traversal_count = 0
        self.cleanup_count = 0
        self.max_concurrent_children = 0
        self.max_depth_seen = 0

    def registered(self, siblings: int, depth: int) -> None:
        self.registration_count += 1
        self.max_concurrent_children = max(self.max_concurrent_children, siblings)
        self.max_depth_seen = max(self.max_depth_seen, depth)

    def to_dict(self) -> dict[str, int]:
        return dict(vars(self))


_default: Final = ChildRunTracker()
_current: Final[ContextVar[ChildRunTracker | None]] = ContextVar(
    "actorflow_child_tracker", default=None
)


def get_child_tracker() -> ChildRunTracker:
    """The tracker that was set, or the one all others share."""
    return _current.get() or _default


def set_child_tracker(tracker: ChildRunTracker) -> None:
    """Use `tracker` here and in tasks started from now on."""
    _current.set(tracker)


def clear_child_tracker() -> None:
    """Go back to the one all others share."""
    _current.set(None)
