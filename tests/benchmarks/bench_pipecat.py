"""Pipecat's figures beside ours, in turns, where there is an interpreter that has it.

`ACTORFLOW_PIPECAT_PYTHON` names it: `python -m venv pipecat`, `pipecat/bin/pip install
pipecat-ai`, and the path of `pipecat/bin/python`. Nothing else is needed from it.

What is compared: frames of 20 ms through processors, or stages, that hand them on.
Pipecat is a whole framework for bots of this kind, with services and transports that
have no counterpart here; what these figures compare is the part that both have.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.benchmarks.bench_voice import Peer, percentile, shown

PYTHON = os.environ.get("ACTORFLOW_PIPECAT_PYTHON")

pytestmark = pytest.mark.skipif(PYTHON is None, reason="ACTORFLOW_PIPECAT_PYTHON is not set")

ROUNDS = 5


@pytest.fixture(scope="module")
def peers() -> Iterator[tuple[Peer, Peer]]:
    ours, theirs = Peer(sys.executable, "voice_peer.py"), Peer(str(PYTHON), "pipecat_peer.py")
    yield ours, theirs
    ours.close()
    theirs.close()


Peers = tuple[Peer, Peer]


def in_turns(peers: Peers, rounds: int, name: str, **arguments: object) -> list[list[Any]]:
    answers: list[list[Any]] = [[], []]
    for _ in range(rounds):
        for peer, found in zip(peers, answers, strict=True):
            found.append(peer.measure(name, **arguments))
    return answers


@pytest.mark.parametrize("stages", [1, 5, 10])
def test_frames_a_second(peers: Peers, stages: int) -> None:
    ours, theirs = in_turns(peers, ROUNDS, "throughput", stages=stages, frames=3_000)
    ratio = max(ours) / max(theirs)
    print(f"\n  {stages} stages: {max(ours):,.0f} frames/s against {max(theirs):,.0f}: {ratio:.1f}")

    assert stages != 5 or ratio > 3


@pytest.mark.parametrize(
    ("rounds", "arguments"),
    [
        (10, {"stages": 10, "times": 10, "queued": 500}),
        (3, {"stages": 10, "times": 2, "microphone": 200}),
        (3, {"stages": 10, "times": 2, "cleanup": 0.1}),
    ],
    ids=["audio queued", "microphone queued", "slow cleanup"],
)
def test_interruption(peers: Peers, rounds: int, arguments: dict[str, Any]) -> None:
    ours, theirs = in_turns(peers, rounds, "interruption", **arguments)
    flat = [[it for found in side for it in found] for side in (ours, theirs)]
    for name, found in zip(("actorflow", "Pipecat"), flat, strict=True):
        shown(name, found)

    assert statistics.median(flat[0]) < statistics.median(flat[1])


@pytest.mark.parametrize("kind", ["stuck", "swallows", "raises"])
def test_stop(peers: Peers, kind: str) -> None:
    ours, theirs = in_turns(peers, 3, "stop", kind=kind)
    for name, found in (("actorflow", ours), ("Pipecat", theirs)):
        print(f"\n  {name}: {statistics.median(it['seconds'] for it in found) * 1000:.1f} ms")

    assert {it["tasks"] for it in ours} == {0}


def test_stop_of_a_processor_that_is_stuck_in_a_frame_of_the_microphone(peers: Peers) -> None:
    # Such frames are handled where those that cancel are read.
    found = peers[1].measure("stop", kind="stuck on the microphone")
    print(f"\n  Pipecat: {found['seconds']:.1f} s")


@pytest.mark.parametrize("count", [10, 20, 30, 40])
def test_sessions_on_one_core(peers: Peers, count: int) -> None:
    for side, name in zip(
        in_turns(peers, 3, "sessions", count=count, stages=8, seconds=5),
        ("actorflow", "Pipecat"),
        strict=True,
    ):
        costs = [it["cpu"] * 100 / count for it in side]
        lates = [percentile(it["latencies"], 0.99) for it in side]
        print(f"\n  {count} of {name}: {min(costs):.2f} % each, p99 {min(lates):.1f} ms", lates)
