"""What a stage costs here and in frameworks that do similar things.

Peers that are not installed are left out:

    pip install stageflow-core==1.2.0 sf-hamilton langgraph pydantic-graph burr
    python tests/benchmarks/bench_peers.py

Every framework runs the same pipelines of stages that do nothing, in the way its documentation
calls fastest: built once, without persistence and without anybody who takes events. All take
turns in one process, and each figure is the smallest CPU time of many rounds, so that a busy
machine hurts all of them alike. The floor of a framework is what its event loop takes for the
same number of tasks that each report to the one that started it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any, Final, TypeAlias

import attrs
import pytest
import trio

from actorflow.pipeline import StageSpec
from actorflow.runtime import UnifiedStageGraph

ROUNDS: Final = 10
CHAIN: Final = 100
FAN_OUT: Final = 1_000
AT_ONCE: Final = 100
SHORT: Final = 5

Run: TypeAlias = Callable[[], Awaitable[object]]
"""Runs a pipeline once."""


@attrs.frozen
class Contestant:
    """A framework as the benchmark sees it."""

    name: str
    loop: str
    chain: Callable[[int], Callable[[], Run]]
    """Given a length, gives what prepares a run; only the run itself is measured."""
    fan_out: Callable[[int], Callable[[], Run]] | None = None


# The two event loops


Main: TypeAlias = Callable[[], Coroutine[Any, Any, float]]


def on_trio(main: Main) -> float:
    return trio.run(main)


def on_asyncio(main: Main) -> float:
    return asyncio.run(main())


LOOPS: Final = {"trio": on_trio, "asyncio": on_asyncio}


async def at_once_on_trio(run: Run, count: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(run)


async def at_once_on_asyncio(run: Run, count: int) -> None:
    await asyncio.gather(*(run() for _ in range(count)))


AT_ONCE_ON: Final = {"trio": at_once_on_trio, "asyncio": at_once_on_asyncio}


async def tasks_on_trio(count: int) -> None:
    send, receive = trio.open_memory_channel[int](1)

    async def report() -> None:
        await send.send(1)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(report)
            await receive.receive()


async def tasks_on_asyncio(count: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def report() -> None:
        await queue.put(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(report())
            await queue.get()


FLOORS: Final = {"trio": tasks_on_trio, "asyncio": tasks_on_asyncio}


# The contestants


async def nothing(ctx: object) -> None:
    """A stage that does nothing."""


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


def after(number: int) -> tuple[str, ...]:
    return (f"s{number - 1}",) if number else ()


def actorflow(title: str, **options: Any) -> Contestant:
    def prepared(specs: list[StageSpec]) -> Callable[[], Run]:
        graph = UnifiedStageGraph(specs, **options)
        return lambda: graph.run

    return Contestant(
        title,
        "trio",
        lambda count: prepared(
            [StageSpec(name, nothing, dependencies=after(n)) for n, name in enumerate(names(count))]
        ),
        lambda count: prepared([StageSpec(name, nothing) for name in names(count)]),
    )


def stageflow() -> Contestant:
    peer: Any = importlib.import_module("stageflow")
    contexts: Any = importlib.import_module("stageflow.stages.context")

    def prepared(count: int, needs: Callable[[int], tuple[str, ...]]) -> Callable[[], Run]:
        pipeline = peer.Pipeline()
        for number, name in enumerate(names(count)):
            kind = peer.StageKind.TRANSFORM
            pipeline = pipeline.with_stage(name, Nothing(), kind, dependencies=needs(number))
        graph = pipeline.build()
        return lambda: lambda: graph.run(contexts.PipelineContext.create())

    class Nothing:
        name = "nothing"
        kind = peer.StageKind.TRANSFORM

        async def execute(self, ctx: object) -> Any:
            return ok

    ok = peer.StageOutput.ok()
    return Contestant(
        "stageflow-core, defaults",
        "asyncio",
        lambda count: prepared(count, after),
        lambda count: prepared(count, lambda _: ()),
    )


def hamilton() -> Contestant:
    async_driver: Any = importlib.import_module("hamilton.async_driver")

    def chain(count: int) -> Callable[[], Run]:
        module = ModuleType("chain_of_functions")
        lines = ["async def s0() -> int:\n    return 0\n"]
        lines += [
            f"async def s{n}(s{n - 1}: int) -> int:\n    return s{n - 1}\n" for n in range(1, count)
        ]
        # It wants the functions of a module.
        exec("".join(lines), vars(module))
        sys.modules[module.__name__] = module
        driver: Any = None

        async def run() -> None:
            nonlocal driver
            if driver is None:
                driver = await async_driver.Builder().with_modules(module).build()
            await driver.execute([f"s{count - 1}"])

        return lambda: run

    return Contestant("Hamilton, async driver", "asyncio", chain)


def langgraph() -> Contestant:
    peer: Any = importlib.import_module("langgraph.graph")

    def graph_of(count: int, edges: Callable[[Any, list[str]], None]) -> Callable[[], Run]:
        graph = peer.StateGraph(dict)
        for name in names(count):
            graph.add_node(name, do_nothing)
        edges(graph, names(count))
        app = graph.compile()
        limit = {"recursion_limit": 10 * count}
        return lambda: lambda: app.ainvoke({"n": 1}, limit)

    async def do_nothing(state: dict[str, int]) -> None:
        return None

    def in_a_row(graph: Any, stages: list[str]) -> None:
        for source, target in zip((peer.START, *stages), (*stages, peer.END), strict=True):
            graph.add_edge(source, target)

    def side_by_side(graph: Any, stages: list[str]) -> None:
        for stage in stages:
            graph.add_edge(peer.START, stage)
            graph.add_edge(stage, peer.END)

    return Contestant(
        "LangGraph, no checkpointer",
        "asyncio",
        lambda count: graph_of(count, in_a_row),
        lambda count: graph_of(count, side_by_side),
    )


def pydantic_graph() -> Contestant:
    peer: Any = importlib.import_module("pydantic_graph")

    def chain(count: int) -> Callable[[], Run]:
        builder = peer.GraphBuilder(input_type=int, output_type=int)

        async def call(ctx: Any) -> int:
            return 0

        call.__annotations__ = {"ctx": peer.StepContext[None, None, int], "return": int}
        steps = [builder.step(call, node_id=name) for name in names(count)]
        for source, target in zip(
            (builder.start_node, *steps), (*steps, builder.end_node), strict=True
        ):
            builder.add(builder.edge_from(source).to(target))
        graph = builder.build()
        return lambda: lambda: graph.run(inputs=0)

    return Contestant("pydantic-graph", "asyncio", chain)


def burr() -> Contestant:
    peer: Any = importlib.import_module("burr.core")

    def chain(count: int) -> Callable[[], Run]:
        async def keep(state: Any) -> Any:
            return state

        do_nothing = peer.action(reads=[], writes=[])(keep)
        stages = names(count)
        builder = (
            peer.ApplicationBuilder()
            .with_actions(**dict.fromkeys(stages, do_nothing))
            .with_transitions(*pairwise(stages))
            .with_entrypoint(stages[0])
        )

        def prepare() -> Run:
            # An application remembers where it is, so each run needs one of its own.
            app = builder.build()
            return lambda: app.arun(halt_after=[stages[-1]])

        return prepare

    return Contestant("Burr", "asyncio", chain)


PEERS: Final[dict[str, Callable[[], Contestant]]] = {
    "stageflow": stageflow,
    "hamilton": hamilton,
    "langgraph": langgraph,
    "pydantic_graph": pydantic_graph,
    "burr": burr,
}


def contestants() -> Iterator[Contestant]:
    yield actorflow("actorflow, defaults")
    yield actorflow("actorflow, no interceptors", interceptors=())
    for module, make in PEERS.items():
        if importlib.util.find_spec(module) is not None:
            yield make()


# Measuring


@attrs.frozen
class Discipline:
    """What is measured of each contestant, per stage or per run."""

    title: str
    per: int
    """By what the time is divided."""
    tasks: int
    """How many stages it is all in all, for the floor."""
    prepare: Callable[[Contestant], Callable[[], Run] | None]
    limit: float
    """What it may take with default interceptors, in times of stageflow-core."""
    times: int = 1
    """How often a run is repeated in one measurement, to be long enough."""


def runs_at_once(contestant: Contestant) -> Callable[[], Run] | None:
    if contestant.name == "Burr":
        return None  # an application is one run
    prepare = contestant.chain(SHORT)
    together = AT_ONCE_ON[contestant.loop]
    return lambda: lambda: together(prepare(), AT_ONCE)


DISCIPLINES: Final = (
    Discipline(
        f"chain of {CHAIN}, us per stage", CHAIN, CHAIN, lambda it: it.chain(CHAIN), 0.75, 10
    ),
    Discipline(
        f"fan-out of {FAN_OUT}, us per stage",
        FAN_OUT,
        FAN_OUT,
        lambda it: None if it.fan_out is None else it.fan_out(FAN_OUT),
        0.5,
    ),
    Discipline(
        f"{AT_ONCE} runs of {SHORT} stages at once, us per run",
        AT_ONCE,
        AT_ONCE * SHORT,
        runs_at_once,
        1.3,
    ),
)


def seconds(loop: str, prepare: Callable[[], Run], times: int) -> float:
    async def main() -> float:
        await prepare()()
        runs = [prepare() for _ in range(times)]
        gc.collect()
        start = time.process_time()
        for run in runs:
            await run()
        return (time.process_time() - start) / times

    return LOOPS[loop](main)


def floor_of(loop: str, count: int) -> Callable[[], Run]:
    return lambda: lambda: FLOORS[loop](count)


def measure(discipline: Discipline) -> dict[str, tuple[float, float]]:
    """Seconds of each contestant, and of its floor."""
    entries = [(it, discipline.prepare(it)) for it in contestants()]
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for loop in LOOPS:
            taken = seconds(loop, floor_of(loop, discipline.tasks), 1)
            best[loop] = min(best.get(loop, taken), taken)
        for it, prepare in entries:
            if prepare is not None:
                taken = seconds(it.loop, prepare, discipline.times)
                best[it.name] = min(best.get(it.name, taken), taken)
    return {
        it.name: (best[it.name] / discipline.per, best[it.loop] / discipline.per)
        for it, prepare in entries
        if prepare is not None
    }


def table(discipline: Discipline, found: dict[str, tuple[float, float]]) -> str:
    lines = [discipline.title]
    lines += [
        f"  {name:34}{taken * 1e6:10.1f}{taken / floor:8.1f} x floor"
        for name, (taken, floor) in found.items()
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("discipline", DISCIPLINES, ids=lambda it: it.title)
def test_beside_stageflow(discipline: Discipline) -> None:
    pytest.importorskip("stageflow")

    found = measure(discipline)

    print("\n" + table(discipline, found))
    ours, theirs = found["actorflow, defaults"], found["stageflow-core, defaults"]
    assert ours[0] <= discipline.limit * theirs[0]


if __name__ == "__main__":
    for each in DISCIPLINES:
        print(table(each, measure(each)), flush=True)
