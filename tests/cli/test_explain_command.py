from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("cyclopts")

from actorflow import cli, errors


def explain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["actorflow", "explain", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return (caught.value.code, *capsys.readouterr())


@pytest.mark.parametrize("asked", ["RUN-001-STAGE_FAILED", "run-001", "UnifiedStageExecutionError"])
def test_code_and_class_are_explained_with_their_fix(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = explain(monkeypatch, capsys, asked)

    assert code == 0
    assert out.startswith("RUN-001-STAGE_FAILED  UnifiedStageExecutionError\n\nA run failed;")
    assert "\nfields: stage, original, " in out
    assert "\nfix: Look at the cause;" in out


def test_finding_of_lint_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = explain(monkeypatch, capsys, "CONTRACT-004-ORPHAN")[1]

    assert out.startswith("CONTRACT-004-ORPHAN  Stage without edges\n")
    assert "fields:" not in out
    assert "\nfix: Connect it" in out


def test_class_whose_code_depends_on_the_case_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch, capsys, "CycleDetectedError")[1].startswith("CycleDetectedError\n")


def test_every_code_is_listed_and_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [it.split()[0] for it in explain(monkeypatch, capsys)[1].splitlines()]
    entries = json.loads(explain(monkeypatch, capsys, "--json")[1])

    assert listed == [entry["code"] for entry in entries]
    assert {*errors.contract_suggestion_codes(), "ARG-001-VALUE"} <= {*listed}
    assert all(entry["name"] and entry["meaning"] for entry in entries)


def test_unknown_code_is_told_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = explain(monkeypatch, capsys, "UnifiedStageExecutinError")

    assert (code, out) == (1, "")
    assert "did you mean UnifiedStageExecutionError?" in err
    assert "did you mean" not in explain(monkeypatch, capsys, "xyzzy")[2]


def test_errors_of_the_command_line_say_what_to_ask_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(monkeypatch, capsys, "xyzzy")[2].endswith(
        "more: actorflow explain ARG-001-VALUE\n"
    )
