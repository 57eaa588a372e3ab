from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import actorflow
from actorflow import cli
from actorflow.errors import InvalidArgumentError
from tests.test_layers import ROOT

cyclopts = pytest.importorskip("cyclopts")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["actorflow", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{actorflow.__version__}\n"


def test_help_says_what_every_command_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actorflow.cli._app import app

    assert run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out

    assert all(f"│ {name} " in out for name in app.resolved_commands() if name[0] != "-")
    assert all(command.help for command in app.resolved_commands().values())


def test_help_of_every_command_has_examples_and_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actorflow.cli._app import app

    for name in app.resolved_commands():
        if not name.startswith("-"):
            assert run(monkeypatch, name, "--help") == 0
            out = capsys.readouterr().out
            assert re.search(rf"^Examples:\n(  .*\n)*?  .*actorflow.*\b{name}\b", out, re.MULTILINE)
            assert re.search(r"^Exit codes: 0 ", out, re.MULTILINE)


def test_examples_of_help_are_command_lines_that_parse() -> None:
    from actorflow.cli._app import app

    examples = [
        line.strip()
        for command in app.resolved_commands().values()
        for line in (command.help_epilogue or "").splitlines()
        if line.startswith("  actorflow ")
    ]

    assert len(examples) >= 8
    for example in examples:
        words = shlex.split(example.partition("|")[0])[1:]
        _, _, unused = app.parse_known_args(words)[:3]
        assert unused == [] or words[0].startswith("--"), example


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_knows_every_command(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actorflow.cli._app import app

    assert run(monkeypatch, "completion", shell) == 0
    script = capsys.readouterr().out

    commands = [name for name in app.resolved_commands() if not name.startswith("-")]
    assert [name for name in commands if name not in script] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("r", "run"), ("run --wat", "--watch"), ("run test_co", "test_command_line.py")],
)
def test_bash_completes_commands_options_and_files(
    typed: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "completion", "bash")
    script = capsys.readouterr().out

    words = ["actorflow", *typed.split()]
    program = (
        f"{script}\nCOMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        '_actorflow; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )

    assert offered in done.stdout.split()


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
def test_completion_is_installed_for_the_shell_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    for name in ("ZSH_VERSION", "FISH_VERSION", "BASH_VERSION"):
        monkeypatch.delenv(name, raising=False)

    assert run(monkeypatch, "--install-completion") == 0

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_actorflow" in path.read_text("utf-8") for path in written)
    assert "actorflow" in (tmp_path / ".bashrc").read_text("utf-8")


def test_unknown_command_is_a_wrong_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "dmeo") == 2
    assert "dmeo" in capsys.readouterr().err


def test_text_in_the_place_of_an_option_is_told_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "support.py", "hello") == 2
    assert "goes after --input" in capsys.readouterr().err
    assert run(monkeypatch, "doctor", "hello") == 2
    assert "--input" not in capsys.readouterr().err


def test_pipe_that_knows_no_signs_gets_question_marks() -> None:
    program = "from actorflow.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, "run", "examples/first_pipeline.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "\n? " in done.stdout


def test_output_may_go_to_something_without_an_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    assert run(monkeypatch, "completion", "bash") == 0
    assert "_actorflow" in out.getvalue()


def test_missing_extra_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    monkeypatch.delitem(sys.modules, "actorflow.cli._app", raising=False)

    assert run(monkeypatch, "demo") == 2
    assert capsys.readouterr().err == (
        "actorflow: the command line needs packages that are not installed: "
        "pip install 'actorflow[cli]', or in a clone of the repository: pip install '.[cli]'\n"
    )


def test_missing_module_of_our_own_is_not_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "actorflow.cli._app", None)

    with pytest.raises(ModuleNotFoundError, match=r"actorflow\.cli\._app"):
        cli.main()


def test_error_of_actorflow_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actorflow.cli import _app

    def fail(tokens: list[str]) -> None:
        raise InvalidArgumentError("workers", 0, "at least 1")

    monkeypatch.setattr(_app, "app", fail)

    assert run(monkeypatch, "demo") == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "actorflow: workers must be at least 1, found 0",
        "fix: Pass what the message asks for.",
    ]


def test_interrupt_before_there_is_a_command_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actorflow.cli import _app

    def fail(tokens: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_app, "app", fail)

    assert run(monkeypatch, "demo") == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_tracebacks_are_shown_when_the_environment_asks(
    value: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACTORFLOW_DEBUG", value)

    assert run(monkeypatch, "timeline", "nowhere.jsonl") == 1

    err = capsys.readouterr().err
    assert ("Traceback" in err) is shown
    assert "actorflow: nowhere.jsonl cannot be used" in err
