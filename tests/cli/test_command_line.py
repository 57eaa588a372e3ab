from __future__ import annotations

import sys

import pytest

import actorflow
from actorflow import cli
from actorflow.errors import InvalidArgumentError

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


def test_unknown_command_is_a_wrong_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "dmeo") == 2
    assert "dmeo" in capsys.readouterr().err


def test_missing_extra_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    monkeypatch.delitem(sys.modules, "actorflow.cli._app", raising=False)

    assert run(monkeypatch, "demo") == 2
    assert capsys.readouterr().err == (
        "actorflow: the command line needs packages that are not installed: "
        "pip install 'actorflow[cli]'\n"
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
        "fix: Pass one of the values the message allows.",
    ]
