from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actorflow import Pipeline, StageContext, StageOutput, cli, stage
from actorflow.errors import InvalidArgumentError
from actorflow.events import read_events
from actorflow.runtime import PipelineResults, RunPhase, RunStatus, StageState, UnifiedStageGraph

pytest.importorskip("cyclopts")

from rich.console import Console

from actorflow.cli import _run
from actorflow.cli._run_view import LOOKS, lines_of, open_view, step_of
from tests.test_layers import ROOT

SHOP = """
from actorflow.model import StageOutput
from actorflow.pipeline import Pipeline, PipelineBuilder, edge, stage

@stage
async def clean(ctx):
    print("cleaning")
    return {"text": (ctx.snapshot.input_text or "nothing").strip(), "size": 1j}

@stage(kind="route", after="clean")
async def route(ctx):
    return {"branch": "pay"}

@stage(after=edge("route", when="pay"))
async def pay(ctx):
    return None

@stage(after=edge("route", when="chat"))
async def chat(ctx):
    return None

@stage(after="clean")
async def broken(ctx):
    return {"text": ctx.inputs.get("text")["key"]}

@stage
async def closed(ctx):
    return StageOutput.cancel("the shop is closed")

@stage
async def refuses(ctx):
    return StageOutput.fail("no")

@stage
async def odd(ctx):
    return 42

shop = Pipeline.from_stages(clean, route, pay, chat, name="shop")
graph = shop.build()
old = PipelineBuilder("old").with_stage("clean", clean).build(legacy=True)
failing = Pipeline.from_stages(clean, broken, stage("after", pay, after="broken"), name="failing")
closing = Pipeline.from_stages(closed, name="closing")
refusing = Pipeline.from_stages(refuses, name="refusing")
patient = refusing.with_name("patient").with_options(failure_mode="best_effort")
wrong = Pipeline.from_stages(odd, name="wrong")
lost = Pipeline.from_stages(stage("lost", pay, after="nowhere"), name="lost")

def make():
    return shop.with_name("made")
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Call `actorflow run` in a directory with a file shop.py."""
    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(SHOP, "utf-8")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", "run", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        out, err = capsys.readouterr()
        return caught.value.code, without_times(out), err

    return call


def without_times(text: str) -> str:
    """The output without colours, moves of the cursor and durations."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return re.sub(r" *\d+\.\d+ (ms|s)\b", " N", plain)


def test_each_stage_is_shown_with_what_came_of_it(command: Command) -> None:
    code, out, err = command("shop.py:shop", "--input", " hi ")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "cleaning",
        "shop completed in N",
        '● clean  completed N  {"text": "hi", "size": "1j"}',
        '● route  completed N  {"branch": "pay"}',
        "● pay    completed N",
        "· chat   skipped                not taken from 'route'",
    ]


@pytest.mark.parametrize("target", ["shop.py:shop", "shop.py:graph"])
def test_pipelines_and_graphs_run(command: Command, target: str) -> None:
    assert command(target)[0] == 0


def test_pipeline_of_a_function_runs_on_request(command: Command) -> None:
    code, out, _ = command("shop.py", "--call", "make")

    assert (code, out.splitlines()[1]) == (0, "made completed in N")


def test_steps_are_lines_where_there_is_no_terminal(command: Command) -> None:
    out = command("shop.py:shop", "--watch")[1]

    assert out.splitlines()[:8] == [
        " N  clean started",
        "cleaning",
        " N  clean completed in N",
        " N  route started",
        " N  route completed in N",
        " N  chat skipped: not taken from 'route'",
        " N  pay started",
        " N  pay completed in N",
    ]


def test_json_is_all_there_is_on_stdout(command: Command) -> None:
    code, out, err = command("shop.py:shop", "--json")
    report = json.loads(out)

    assert code == 0
    assert err == "cleaning\n"
    assert report["state"] == "completed"
    assert (report["pipeline"], report["error"], report["code"]) == ("shop", None, None)
    assert list(report["stages"]) == ["clean", "route", "pay", "chat"]
    assert report["stages"]["route"]["data"] == {"branch": "pay"}
    assert report["stages"]["chat"]["reason"] == "not taken from 'route'"


def test_steps_of_a_run_in_json_go_to_stderr(command: Command) -> None:
    code, out, err = command("shop.py:shop", "--json", "--watch")

    assert code == 0
    assert json.loads(out)["state"] == "completed"
    assert "clean started" in err


def test_failure_is_told_with_the_line_of_the_stage(command: Command) -> None:
    code, out, err = command("shop.py:failing")

    assert code == 1
    assert "✗ broken  failed N  TypeError: string indices must be integers" in out
    assert out.endswith("○ after   not_run\n")
    line = SHOP.splitlines().index('    return {"text": ctx.inputs.get("text")["key"]}') + 1
    assert err.startswith("actorflow: stage 'broken' failed: TypeError: string indices")
    assert err.endswith(f"\nin shop.py, line {line}; --traceback shows more\n")


def test_traceback_is_shown_on_request(command: Command) -> None:
    err = command("shop.py:failing", "--traceback")[2]

    assert err.startswith("Traceback (most recent call last):\n")
    assert "--traceback shows more" not in err


def test_environment_may_ask_for_tracebacks(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORFLOW_DEBUG", "1")

    assert command("shop.py:failing")[2].startswith("Traceback (most recent call last):\n")


def test_traceback_of_a_target_is_shown_on_request(command: Command) -> None:
    Path("typo.py").write_text("import shop\nnowhere.at_all\n")

    short, full = command("typo.py")[2], command("typo.py", "--traceback")[2]

    assert "Traceback" not in short
    assert 'typo.py", line 2, in <module>' in full
    assert full.endswith(short)


def test_failure_for_lack_of_a_text_says_how_to_give_one(command: Command) -> None:
    Path("needy.py").write_text(
        "from actorflow import Pipeline, stage\n"
        "needy = Pipeline.from_stages(stage('clean', lambda ctx: ctx.snapshot.input_text.strip()))\n"
    )

    assert (
        "\nfix: The run began without a text; --input TEXT gives it one.\n"
        in (command("needy.py")[2])
    )
    assert "--input" not in command("shop.py:failing", "--input", "hi")[2]


def test_target_that_cannot_be_used_is_told_in_json_too(command: Command) -> None:
    code, out, err = command("gone.py", "--json")

    assert code == 2
    assert json.loads(out) == {
        "pipeline": None,
        "run_id": None,
        "state": "unusable",
        "error": "gone.py cannot be used: there is no such file",
        "code": "CLI-001-TARGET",
        "stages": {},
    }
    assert err.startswith("actorflow: gone.py cannot be used")


def test_failure_without_an_exception_has_no_line(command: Command) -> None:
    code, out, err = command("shop.py:refusing")

    assert code == 1
    assert err.startswith("actorflow: stage 'refuses' failed: no\n")
    assert ", line " not in err
    assert "✗ refuses  failed N  no\n" in out


def test_failure_that_actorflow_explains_comes_with_its_fix(command: Command) -> None:
    err = command("shop.py:wrong")[2]

    assert err.endswith("\nfix: Return a StageOutput, a mapping, or None.\n")


def test_function_that_would_make_a_pipeline_is_named(command: Command) -> None:
    Path("maker.py").write_text("def make_pipeline(): ...\n")

    assert "with --call make_pipeline." in command("maker.py")[2]


def test_failure_in_a_patient_run_is_a_failure(command: Command) -> None:
    code, _, err = command("shop.py:patient")

    assert code == 1
    assert err == "actorflow: failed: refuses; best_effort went on without\n"


def test_failed_run_in_json_says_what_never_ran(command: Command) -> None:
    report = json.loads(command("shop.py:failing", "--json")[1])

    assert (report["state"], report["code"]) == ("failed", "RUN-001-STAGE_FAILED")
    assert report["stages"]["broken"]["error_type"] == "TypeError"
    assert report["stages"]["after"] == {"state": "not_run"}


def test_run_that_a_stage_cancels_has_a_code_of_its_own(command: Command) -> None:
    code, out, err = command("shop.py:closing")

    assert code == 3
    assert out.startswith("closing canceled in N\n")
    assert err == (
        "actorflow: pipeline 'closing' was canceled by stage 'closed': the shop is closed\n"
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("gone.py", "there is no such file"),
        ("shop.py", "it has several pipelines: shop, graph, old, failing"),
        ("shop.py:old", "it has a StageGraph of old"),
        ("shop.py:lost", "stage 'lost' waits for 'nowhere'"),
    ],
)
def test_nothing_runs_when_the_target_cannot_be_used(
    command: Command, target: str, said: str
) -> None:
    code, out, err = command(target)

    assert (code, out) == (2, "")
    assert err.startswith("actorflow: ")
    assert said in err
    assert "\nfix: " in err


def test_events_are_added_to_a_file(command: Command) -> None:
    for _ in range(2):
        assert command("shop.py:closing", "--events", "some/where/run.jsonl")[0] == 3

    types = [event.event_type for event in read_events("some/where/run.jsonl")]
    assert (
        types
        == [
            *("pipeline.started", "stage.started", "stage.completed", "pipeline.canceled"),
        ]
        * 2
    )


def test_file_that_cannot_be_written_is_refused_before_the_run(command: Command) -> None:
    code, out, err = command("shop.py:shop", "--events", "shop.py/run.jsonl")

    assert (code, out) == (1, "")
    assert err.startswith("actorflow: --events must be a file that can be written (")


# In a terminal


@stage
async def slow(ctx: StageContext) -> dict[str, int]:
    await trio.sleep(1)
    return {"answer": 42}


@stage(after="slow")
async def flaky(ctx: StageContext) -> StageOutput:
    if ctx.try_number < 3:
        return StageOutput.retry("again", {"retry_after_ms": 100})
    return StageOutput.ok()


PATIENCE = Pipeline.from_stages(slow, flaky, name="patience")


def graph_of(pipeline: Pipeline) -> UnifiedStageGraph:
    graph = pipeline.build()
    assert isinstance(graph, UnifiedStageGraph)
    return graph


def terminal() -> tuple[io.StringIO, Console]:
    file = io.StringIO()
    return file, Console(file=file, force_terminal=True, width=60, height=40, highlight=False)


async def test_terminal_shows_stages_while_they_run(autojump_clock: MockClock) -> None:
    file, console = terminal()

    ended = await _run.carry_out(graph_of(PATIENCE), None, console)

    out = without_times(file.getvalue())
    assert ended.status.state is RunPhase.COMPLETED
    assert "patience running for N" in out
    assert re.search(r"◐ slow +running\s+○ flaky +waiting", out)
    assert '● slow   completed N  {"answer": 42}' in out
    assert re.search(r"● flaky  completed N  \(try 3\)", out)
    assert "started" not in out


async def test_terminal_shows_the_latest_steps_on_request(autojump_clock: MockClock) -> None:
    file, console = terminal()

    await _run.carry_out(graph_of(PATIENCE), None, console, steps=True)

    assert re.search(r"flaky failed, tried again in \d+ ms: again", without_times(file.getvalue()))


async def test_what_does_not_fit_is_cut(autojump_clock: MockClock) -> None:
    file, console = terminal()

    await _run.carry_out(
        graph_of(Pipeline.from_stages(stage("talk", lambda _: {"said": "blah " * 40}))),
        None,
        console,
    )

    assert max(map(len, without_times(file.getvalue()).splitlines())) <= 60
    assert "blah bla…" in file.getvalue()


async def test_steps_of_a_child_run_say_whose_they_are(autojump_clock: MockClock) -> None:
    async def parent(ctx: StageContext) -> None:
        await ctx.spawn_subpipeline(PATIENCE)
        ctx.try_emit_event("app.thought", {})

    file = io.StringIO()
    console = Console(file=file, highlight=False)

    await _run.carry_out(
        graph_of(Pipeline.from_stages(stage("parent", parent))), None, console, steps=True
    )

    lines = without_times(file.getvalue()).splitlines()
    assert lines[:3] == [
        " N  parent started",
        " N  parent starts patience",
        " N  patience: slow started",
    ]
    assert " N  parent: app.thought" in lines


def test_run_that_has_not_begun_takes_no_time() -> None:
    waiting = {"a": StageState.WAITING, "long": StageState.QUEUED}
    status = RunStatus(None, "voice", RunPhase.PENDING, waiting, None, None, 0)

    assert [line.plain for line in lines_of(status, PipelineResults({}))] == [
        "voice pending",
        "○ a     waiting",
        "○ long  queued",
    ]


def test_events_of_the_application_go_by_their_type() -> None:
    assert step_of("app.thought", {"stage": "ask"}).plain == "ask: app.thought"
    assert step_of("app.thought", {}).plain == "run: app.thought"


def test_every_state_of_a_stage_has_a_look() -> None:
    assert set(LOOKS) == set(StageState)


# Ctrl-C


@stage
async def tidies_up(ctx: StageContext) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)


async def interrupted(*pipelines: Pipeline) -> tuple[_run.Ended, str]:
    file = io.StringIO()
    ended: list[_run.Ended] = []

    async def carry_out() -> None:
        console = Console(file=file, highlight=False)
        ended.append(await _run.carry_out(graph_of(pipelines[0]), None, console))

    before = signal.getsignal(signal.SIGINT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_out)
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    return ended[0], without_times(file.getvalue())


async def test_interrupted_run_says_what_it_waits_for(autojump_clock: MockClock) -> None:
    ended, out = await interrupted(Pipeline.from_stages(tidies_up, name="tidy"))

    assert ended.exit_code == 130
    assert ended.results.canceled() == ["tidies_up"]
    assert out.splitlines()[:2] == [
        "Interrupted; waiting for tidies_up. Ctrl-C again leaves at once.",
        "tidy canceled in N",
    ]


async def test_terminal_says_above_the_stages_what_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    file, console = terminal()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run.carry_out, graph_of(PATIENCE), None, console)
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    *_, last = without_times(file.getvalue()).split("\r")
    assert re.match(
        r"patience canceled in N\nInterrupted; waiting for slow.*\n✗ slow +canceled", last
    )


async def test_interrupted_cleanup_of_a_run_is_waited_for(autojump_clock: MockClock) -> None:
    async def tidy() -> None:
        await trio.sleep(5)

    async def leaves_work(ctx: StageContext) -> None:
        ctx.add_cleanup(tidy)

    ended, out = await interrupted(Pipeline.from_stages(stage("leaves", leaves_work)))

    assert "waiting for what has to be cleaned up" in out
    assert ended.interrupted


def test_interrupted_run_that_ended_otherwise_keeps_its_code(command: Command) -> None:
    ended = trio.run(
        _run.carry_out, graph_of(Pipeline.from_stages(done)), None, Console(quiet=True)
    )

    assert _run.Ended(ended.status, ended.results, None, interrupted=True).exit_code == 0


@stage
async def done(ctx: StageContext) -> None: ...


async def test_interrupt_after_the_end_changes_nothing(autojump_clock: MockClock) -> None:
    async with graph_of(Pipeline.from_stages(done)).start() as run:
        with open_view(Console(quiet=True), steps=False, stages=True) as view:
            await run.wait()
            _run._stop(run, view)

    assert run.status().state is RunPhase.COMPLETED


async def test_second_interrupt_leaves_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def exit_now(code: int) -> None:
        # The real one does not return; here the run has to be stopped.
        left.append(code)

    monkeypatch.setattr(os, "_exit", exit_now)

    async def impatient(ctx: StageContext) -> None:
        try:
            await trio.sleep(1)
        finally:
            signal.raise_signal(signal.SIGINT)

    await interrupted(Pipeline.from_stages(stage("impatient", impatient)))

    assert left == [130]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_stops_a_run_in_order(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(
        "import trio\n"
        "from actorflow import Pipeline, stage\n"
        "@stage\n"
        "async def slow(ctx):\n"
        "    try:\n"
        # The supervisor has seen it start by then.
        "        await trio.sleep(0.05)\n"
        "        print('at work')\n"
        "        await trio.sleep_forever()\n"
        "    finally:\n"
        "        print('tidied up')\n"
        "pipeline = Pipeline.from_stages(slow, name='slow')\n"
    )
    program = "import sys; from actorflow.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", program, "run", str(file), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)][1] == "at work\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.index("Interrupted; waiting for slow") < rest.index("tidied up")
    assert rest.index("tidied up") < rest.index("slow canceled in")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_run_goes_on_when_nobody_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "writes.py"
    file.write_text(
        "import trio\n"
        "from pathlib import Path\n"
        "from actorflow import Pipeline, stage\n"
        "@stage\n"
        "async def first(ctx): await trio.sleep(0.2)\n"
        "@stage(after='first')\n"
        "async def last(ctx): Path(__file__).with_name('done').touch()\n"
        "pipeline = Pipeline.from_stages(first, last)\n"
    )
    program = "import sys; from actorflow.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", program, "run", str(file), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()

    assert (process.returncode, told) == (0, "")
    assert (tmp_path / "done").exists()


def test_argument_error_names_the_option(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()

    with pytest.raises(InvalidArgumentError, match="--events"):
        _run._check_writable(blocker / "run.jsonl")
