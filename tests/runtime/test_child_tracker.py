"""Which run is a child of which (30.16, tracker)."""

from __future__ import annotations

import itertools
import threading
from uuid import UUID, uuid4

import pytest
import trio

from actorflow.errors import InvalidArgumentError
from actorflow.runtime import (
    ChildRunTracker,
    clear_child_tracker,
    get_child_tracker,
    set_child_tracker,
)


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


@pytest.mark.spec("30.16.1")
def test_concurrent_registrations_of_many_threads_all_count() -> None:
    tracker = ChildRunTracker()
    parent, *children = ids(401)

    def register(some: list[UUID]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for child in some:
                    nursery.start_soon(tracker.register_child, parent, child)

        trio.run(main)

    threads = [threading.Thread(target=register, args=(children[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert trio.run(tracker.get_children, parent) == set(children)


@pytest.mark.spec("30.16.1")
async def test_lookups_give_copies_and_know_nothing_of_strangers() -> None:
    tracker = ChildRunTracker()
    parent, child, stranger = ids(3)
    await tracker.register_child(parent, child)

    (await tracker.get_children(parent)).clear()

    assert await tracker.get_children(parent) == {child}
    assert await tracker.get_parent(child) == parent
    assert await tracker.get_children(stranger) == set()
    assert await tracker.get_parent(stranger) is None
    assert await tracker.get_root_run(stranger) == stranger
    assert await tracker.get_root_run(child) == parent


@pytest.mark.spec("30.16.2")
async def test_whole_trees_are_walked_without_recursion() -> None:
    tracker = ChildRunTracker()
    chain = ids(1500)
    for parent, child in itertools.pairwise(chain):
        await tracker.register_child(parent, child)

    assert await tracker.get_all_descendants(chain[0]) == set(chain[1:])
    assert await tracker.get_root_run(chain[-1]) == chain[0]


@pytest.mark.spec("30.16.2")
async def test_cleanup_forgets_a_run_with_its_links_up_and_down() -> None:
    tracker = ChildRunTracker()
    root, middle, leaf, other = ids(4)
    await tracker.register_child(root, middle)
    await tracker.register_child(middle, leaf)
    await tracker.register_child(root, other)

    await tracker.cleanup_run(middle)

    assert await tracker.get_children(root) == {other}
    assert await tracker.get_parent(leaf) is None
    assert await tracker.get_all_descendants(middle) == set()
    await tracker.cleanup_run(root)
    assert await tracker.get_children(root) == set()


@pytest.mark.spec("30.16.2")
async def test_unregistering_a_stranger_changes_nothing() -> None:
    tracker = ChildRunTracker()
    root, child, stranger = ids(3)
    await tracker.register_child(root, child)
    before = await tracker.get_metrics()

    await tracker.unregister_child(root, stranger)
    await tracker.unregister_child(stranger, child)

    assert await tracker.get_metrics() == before
    await tracker.unregister_child(root, child)
    assert await tracker.get_children(root) == set()


@pytest.mark.spec("30.16.3")
async def test_rings_and_second_parents_are_refused() -> None:
    tracker = ChildRunTracker()
    root, middle, leaf, other = ids(4)
    await tracker.register_child(root, middle)
    await tracker.register_child(middle, leaf)

    for parent, child in [(leaf, root), (root, root), (other, leaf)]:
        with pytest.raises(InvalidArgumentError):
            await tracker.register_child(parent, child)
    assert await tracker.get_all_descendants(root) == {middle, leaf}


@pytest.mark.spec("30.16.4")
async def test_metrics_count_and_are_reset_without_losing_the_tree() -> None:
    tracker = ChildRunTracker()
    root, middle, leaf, other = ids(4)
    await tracker.register_child(root, middle)
    await tracker.register_child(root, middle)
    await tracker.register_child(root, other)
    await tracker.register_child(middle, leaf)
    await tracker.unregister_child(root, other)
    await tracker.get_children(root)
    await tracker.get_all_descendants(root)
    await tracker.cleanup_run(leaf)

    assert await tracker.get_metrics() == {
        "registration_count": 3,
        "unregistration_count": 1,
        "lookup_count": 1,
        "tree_traversal_count": 1,
        "cleanup_count": 1,
        "max_concurrent_children": 2,
        "max_depth_seen": 2,
        "active_parents": 1,
        "active_children": 1,
        "total_relationships": 1,
    }
    await tracker.reset_metrics()
    metrics = await tracker.get_metrics()
    assert metrics.pop("active_parents") == metrics.pop("active_children") == 1
    assert metrics.pop("total_relationships") == 1
    assert set(metrics.values()) == {0}


def test_one_tracker_is_shared_until_another_is_set() -> None:
    shared = get_child_tracker()
    mine = ChildRunTracker()

    set_child_tracker(mine)
    assert get_child_tracker() is mine
    clear_child_tracker()
    assert get_child_tracker() is shared
