from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actorflow import cli
from actorflow.cli import lint_pipeline_file
from actorflow.errors import TargetError
from actorflow.pipeline import DependencyIssue, IssueSeverity

pytest.importorskip("cyclopts")

SOUND = """
from actorflow.pipeline import Pipeline, stage

async def idle(ctx): ...

voice = Pipeline.from_stages(stage("stt", idle), stage("llm", idle, after="stt"))
"""

MISTAKES = """
from actorflow.pipeline import Pipeline, stage

@stage
async def stt(ctx): ...

@stage(after="sttt")
async def llm(ctx): ...

@stage
async def memory(ctx): ...

@stage(after=("llm", "stt"))
async def tts(ctx):
    ctx.inputs.get_from("llm", "text")
    ctx.inputs.get_from("memory", "turns")

voice = Pipeline.from_stages(stt, llm, memory, tts)
"""

LONELY = """
from actorflow.pipeline import Pipeline, stage

async def idle(ctx): ...

pair = Pipeline.from_stages(stage("a", idle), stage("b", idle))
"""

Lint = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lint:
    """Run `actorflow lint` in a directory of files given as `name=source`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **files: str) -> tuple[int, str, str]:
        for name, source in files.items():
            Path(f"{name}.py").write_text(source, "utf-8")
        monkeypatch.setattr(sys, "argv", ["actorflow", "lint", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return (caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("actorflow."):
            del sys.modules[name]


# What is printed, and how it ends


@pytest.mark.spec("20.13.7")
def test_sound_file_ends_with_zero(lint: Lint) -> None:
    assert lint("voice.py", voice=SOUND) == (0, "no problems in 2 stages with 1 edge\n", "")


@pytest.mark.spec("20.13.7", "20.13.3")
def test_errors_end_with_one_and_say_what_to_do(lint: Lint) -> None:
    code, out, err = lint("voice.py", voice=MISTAKES)

    assert (code, err) == (1, "")
    assert out.splitlines() == [
        (
            "error: voice.llm: stage 'llm' waits for 'sttt', which is not in the pipeline;"
            " did you mean 'stt'? [CONTRACT-004-MISSING_DEP]"
        ),
        "    fix: Write 'stt', or add a stage named 'sttt'.",
        (
            "warning: voice.memory: stage 'memory' has no edge to any other stage"
            " [CONTRACT-004-ORPHAN]"
        ),
        "    fix: Connect it with after=..., or move it to a pipeline of its own.",
        (
            "error: voice.tts: stage 'tts' reads 'memory' (voice.py, line 16), but does not depend"
            " on it [CONTRACT-004-UNDECLARED_READ]"
        ),
        "    fix: Add 'memory' to the dependencies of 'tts'.",
        "2 errors, 1 warning in 4 stages with 3 edges; 1 more with -v",
    ]


@pytest.mark.spec("20.13.7")
def test_warnings_count_as_errors_only_when_strict(lint: Lint) -> None:
    assert lint("pair.py", pair=LONELY)[0] == 0
    assert lint("pair.py", "--strict")[0] == 1


@pytest.mark.spec("20.13.8")
def test_infos_are_shown_on_request(lint: Lint) -> None:
    _, quiet, _ = lint("voice.py", voice=MISTAKES)
    _, verbose, _ = lint("voice.py", "-v")
    info = "info: voice.tts: stage 'tts' depends on 'stt' and does not read it"

    assert info not in quiet
    assert info in verbose
    assert "-v" not in verbose
    assert lint("voice.py", "--verbose")[1] == verbose


@pytest.mark.spec("20.13.8")
def test_json_is_one_object_without_infos(lint: Lint) -> None:
    code, out, err = lint("voice.py", "--json", voice=MISTAKES + "print('loading')\n")
    found = json.loads(out)

    assert (code, err) == (1, "loading\n")
    assert list(found) == ["valid", "stage_count", "dependency_count", "issues"]
    assert (found["valid"], found["stage_count"], found["dependency_count"]) == (False, 4, 3)
    assert [it["severity"] for it in found["issues"]] == ["error", "warning", "error"]
    assert found["issues"][2] == {
        "stage_name": "voice.tts",
        "message": "stage 'tts' reads 'memory' (voice.py, line 16), but does not depend on it",
        "severity": "error",
        "accessed_stage": "memory",
        "suggestion": "Add 'memory' to the dependencies of 'tts'.",
        "line_number": 16,
        "code": "CONTRACT-004-UNDECLARED_READ",
    }
    assert "info" in [
        it["severity"] for it in json.loads(lint("voice.py", "--json", "-v")[1])["issues"]
    ]


def test_several_targets_are_told_apart(lint: Lint) -> None:
    code, out, _ = lint("voice.py", "pair.py", voice=SOUND, pair=LONELY)

    assert code == 0
    assert out.splitlines()[0].startswith("warning: pair.py:pair.a: ")
    assert out.splitlines()[-1] == "2 warnings in 4 stages with 1 edge"


def test_output_for_a_terminal_is_coloured(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b[1;31merror\x1b[0m: voice.llm" in lint("voice.py", voice=MISTAKES)[1]


# Targets that cannot be used


@pytest.mark.spec("20.13.7")
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there' (line 1)"),
        ("x = (", "SyntaxError: '(' was never closed (broken.py, line 1)"),
        ("def f():\n    1 / 0\n\nf()", "ZeroDivisionError: division by zero (line 2)"),
        ("import json\njson.loads('')", "(line 2)"),
        ("import sys\nsys.exit('usage')", "it calls sys.exit('usage')"),
    ],
)
def test_file_that_cannot_be_imported_ends_with_two(lint: Lint, source: str, problem: str) -> None:
    code, out, err = lint("broken.py", broken=source)

    assert (code, out) == (2, "")
    assert err.startswith("actorflow: broken.py cannot be used: ")
    assert problem in err.splitlines()[0]
    assert "Traceback" not in err


@pytest.mark.spec("20.13.7")
def test_error_of_actorflow_while_importing_brings_its_own_fix(lint: Lint) -> None:
    source = "from actorflow import pipeline\npipeline.stage('a', 3)"

    _, _, err = lint("broken.py", broken=source)

    assert "PipelineValidationError: stage 'a' cannot run" in err
    assert "fix: Write `async def clean(ctx): ...`" in err


@pytest.mark.spec("20.13.7")
@pytest.mark.parametrize("target", ["gone.py", ".", "no/such", "no_such_module", "voice.py:other"])
def test_target_that_is_not_there_ends_with_two(lint: Lint, target: str) -> None:
    code, out, err = lint(target, voice=SOUND)

    assert (code, out) == (2, "")
    assert err.startswith(f"actorflow: {target} cannot be used: ")


@pytest.mark.spec("20.13.7")
def test_module_that_is_not_there_is_told_from_what_a_module_misses(lint: Lint) -> None:
    missing = lint("no_such.module")[2]
    broken = lint("broken_module", broken_module="import not_there")[2]

    assert missing.splitlines()[:2] == [
        "actorflow: no_such.module cannot be used: there is no module no_such",
        "fix: Name a file.py, or a module below this folder.",
    ]
    assert "ModuleNotFoundError: No module named 'not_there'" in broken
    assert "fix: Mend the file" in broken


@pytest.mark.spec("20.13.7", "20.13.8")
def test_one_unusable_target_does_not_hide_the_others(lint: Lint) -> None:
    code, out, err = lint("gone.py", "voice.py", "--json", voice=MISTAKES)
    issues = json.loads(out)["issues"]

    assert code == 2
    assert "gone.py cannot be used" in err
    assert {it["stage_name"] for it in issues} == {
        "voice.py:voice.llm",
        "voice.py:voice.memory",
        "voice.py:voice.tts",
        "gone.py:<module>",
    }


@pytest.mark.spec("20.13.8")
def test_json_of_nothing_usable_is_not_valid(lint: Lint) -> None:
    _, out, _ = lint("gone.py", "--json")

    assert json.loads(out)["valid"] is False
    assert json.loads(out)["issues"][0]["code"] == "CLI-001-TARGET"


# Which pipelines are found

FACTORIES = """
from actorflow.pipeline import Pipeline, PipelineBuilder, StageSpec, stage

called = []

async def idle(ctx): ...

def build_voice() -> "Pipeline | None":
    called.append("build_voice")
    return Pipeline.from_stages(stage("a", idle, after="zz"), name="voice")

def make(name="x") -> PipelineBuilder:
    raise AssertionError("called")

def make_pipeline(*parts, **more):
    raise AssertionError("called")

def pipeline_of(parts):
    raise AssertionError("needs an argument, so it is no factory")

@stage
def pipeline_stage(ctx=None):
    raise AssertionError("a stage is no factory")

def other() -> StageSpec:
    return 3

def leave():
    raise SystemExit(4)
"""


@pytest.mark.spec("20.13.3", "20.13.9")
def test_functions_are_mentioned_and_not_called(tmp_path: Path) -> None:
    file = tmp_path / "voice.py"
    file.write_text(FACTORIES)

    result = lint_pipeline_file(file)

    assert result.valid
    assert result.issues[0] == DependencyIssue(
        "<module>",
        "voice.py has no pipeline at the top level",
        IssueSeverity.WARNING,
        suggestion="Assign a Pipeline, a PipelineBuilder or a built graph to a variable, or have"
        " a function make one with --call build_voice, --call make, --call make_pipeline.",
    )
    assert [(it.stage_name, it.severity, it.code, it.line_number) for it in result.issues[1:]] == [
        ("build_voice", IssueSeverity.INFO, "CONTRACT-004-FACTORY", 8),
        ("make", IssueSeverity.INFO, "CONTRACT-004-FACTORY", 12),
        ("make_pipeline", IssueSeverity.INFO, "CONTRACT-004-FACTORY", 15),
    ]


@pytest.mark.spec("20.13.3")
def test_a_function_that_is_named_is_called(lint: Lint) -> None:
    code, out, _ = lint("voice.py", "--call", "build_voice", voice=FACTORIES)

    assert code == 1
    assert out.startswith("error: build_voice().a: stage 'a' waits for 'zz'")
    assert lint("voice.py", "--call", "build_voice", "-v")[1].count("[CONTRACT-004-FACTORY]") == 2


@pytest.mark.spec("20.13.7")
@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (["voice.py", "--call", "other"], "other() returned no pipeline, found int", "Let it"),
        (["voice.py", "--call", "gone"], "there is no function gone to call", "Name a function"),
        (["voice.py", "--call", "leave"], "it calls sys.exit(4)", "Put what it does"),
        (["voice.py", "--call", "make"], "AssertionError: called (line 13)", "Mend the file"),
        (
            ["voice.py:build_voice"],
            "build_voice is no pipeline, found function",
            "If it makes one, call it: voice.py --call build_voice.",
        ),
        (["voice.py:called"], "called is no pipeline, found list", "Name a Pipeline"),
        (["voice.py:idle.x"], "there is no idle.x; pipelines there: none", "Name one of them."),
    ],
)
def test_target_without_what_was_named_ends_with_two(
    lint: Lint, arguments: list[str], problem: str, fix: str
) -> None:
    code, out, err = lint(*arguments, voice=FACTORIES)

    assert (code, out) == (2, "")
    assert problem in err
    assert f"fix: {fix}" in err


MANY = """
from actorflow.pipeline import FluentPipelineBuilder, Pipeline, PipelineBuilder, stage

async def idle(ctx): ...

class Holder:
    held = Pipeline.from_stages(stage("held", idle), stage("too", idle))

class Shy:
    def __getattr__(self, name):
        raise AssertionError("lint ran code of the file")

first = Pipeline.from_stages(stage("in_first", idle), stage("too", idle))
same = first
builder = PipelineBuilder("b", [stage("in_builder", idle), stage("too", idle)])
fluent = FluentPipelineBuilder().stage("in_fluent", idle).stage("too", idle)
graph = PipelineBuilder("g", [stage("in_graph", idle), stage("too", idle)]).build()
old = PipelineBuilder("o", [stage("in_old", idle), stage("too", idle)]).build(legacy=True)
_private = first.without_stage("too").with_stage("x", idle)
shy = Shy()
"""


@pytest.mark.spec("20.13.3")
def test_every_pipeline_builder_and_graph_of_the_module_is_found_once(tmp_path: Path) -> None:
    file = tmp_path / "many.py"
    file.write_text(MANY)

    result = lint_pipeline_file(file)

    assert [it.stage_name for it in result.warnings] == [
        "first.in_first",
        "first.too",
        "builder.in_builder",
        "builder.too",
        "fluent.in_fluent",
        "fluent.too",
        "graph.in_graph",
        "graph.too",
        "old.in_old",
        "old.too",
        "_private.in_first",
        "_private.x",
    ]


@pytest.mark.spec("20.13.3")
def test_one_variable_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "many.py"
    file.write_text(MANY)

    result = lint_pipeline_file(str(file), attribute="Holder.held")

    assert [it.stage_name for it in result.issues] == ["Holder.held.held", "Holder.held.too"]


def test_problem_of_a_whole_pipeline_stands_under_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("from actorflow.pipeline import Pipeline\nnothing = Pipeline()\n")

    assert [it.stage_name for it in lint_pipeline_file(file).issues] == ["nothing"]


@pytest.mark.spec("20.13.3")
def test_file_is_imported_under_a_private_name(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text("assert __name__ not in ('json', '__main__')\nassert __file__\n")

    lint_pipeline_file(file)

    assert sys.modules["json"] is json


def test_file_imports_its_neighbours_and_leaves_the_path_alone(lint: Lint) -> None:
    path = list(sys.path)
    neighbour = SOUND + "\ndef make_pipeline(): ...\n"

    code, out, _ = lint(
        "uses.py", "-v", uses="from neighbour import make_pipeline, voice", neighbour=neighbour
    )

    # A function belongs to the module it was written in.
    assert (code, out) == (0, "no problems in 2 stages with 1 edge\n")
    assert lint("clears.py", clears="import sys\nsys.path.pop(0)\n" + SOUND)[0] == 0
    assert sys.path == path


@pytest.mark.spec("20.13.7")
def test_modules_of_the_working_directory_are_targets(lint: Lint) -> None:
    Path("package_of_mine").mkdir()
    Path("package_of_mine/__init__.py").touch()
    Path("package_of_mine/voice.py").write_text(SOUND)

    assert lint("package_of_mine.voice")[0] == 0
    assert lint("package_of_mine.voice:voice")[0] == 0


def test_file_without_an_ending_is_a_target(lint: Lint) -> None:
    Path("pipe-line").write_text(SOUND)

    assert lint("pipe-line:voice")[0] == 0


def test_library_function_says_why_a_file_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        lint_pipeline_file(tmp_path / "gone.py")

    assert caught.value.problem == "there is no such file"
    assert caught.value.fix_hint == "Name a file.py or a package.module."


@pytest.mark.parametrize(
    ("text", "source", "variable"),
    [
        ("voice.py", "voice.py", None),
        ("voice.py:voice", "voice.py", "voice"),
        ("a.b:c.d", "a.b", "c.d"),
        (r"C:\voice.py", r"C:\voice.py", None),
        (r"C:\voice.py:voice", r"C:\voice.py", "voice"),
        (":voice", ":voice", None),
    ],
)
def test_targets_are_read(text: str, source: str, variable: Any) -> None:
    from actorflow.cli._target import Target

    target = Target.parse(text)

    assert (target.source, target.variable) == (source, variable)
    assert str(target) == text


OPINION = """
from actorflow.pipeline import DependencyIssue, Pipeline, stage

class Opinionated:
    async def execute(self, ctx): ...
    def lint(self, spec, pipeline):
        return [DependencyIssue(spec.name, "[bold]not[/bold] good", "warning")]

voice = Pipeline.from_stages(stage("stt", Opinionated()))
"""


def test_issue_of_a_runner_is_printed_as_it_is(lint: Lint) -> None:
    assert lint("voice.py", voice=OPINION)[1].splitlines() == [
        "warning: voice.stt: [bold]not[/bold] good",
        "1 warning in 1 stage with 0 edges",
    ]
