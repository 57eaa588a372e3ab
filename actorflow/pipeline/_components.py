"""Which stages wait for each other, found in linear time and without recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def components(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Group the stages that reach each other; every group follows those it needs.

    `edges` maps each stage to what it waits for, and mentions no stage that is
    not a key. A stage outside every ring is a group of its own.
    """
    # Tarjan's algorithm with its call stack made explicit (`way`). `low` is the
    # earliest stage of the way that a stage is known to reach. A stage whose
    # group is complete can be in no other ring: it gets a number too high to matter.
    complete = len(edges)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    ungrouped: list[str] = []
    way: list[tuple[str, Iterator[str]]] = []
    groups: list[list[str]] = []

    def enter(stage: str) -> None:
        number[stage] = low[stage] = len(number)
        ungrouped.append(stage)
        way.append((stage, iter(edges[stage])))

    for start in edges:
        if start not in number:
            enter(start)
        while way:
            stage, unseen = way[-1]
            for needed in unseen:
                if needed not in number:
                    enter(needed)
                    break
                low[stage] = min(low[stage], low[needed])
            else:
                way.pop()
                if way:
                    dependent = way[-1][0]
                    low[dependent] = min(low[dependent], low[stage])
                if low[stage] == number[stage]:
                    group = [ungrouped.pop()]
                    while group[-1] != stage:
                        group.append(ungrouped.pop())
                    low.update(dict.fromkeys(group, complete))
                    groups.append(group[::-1])
    return groups
