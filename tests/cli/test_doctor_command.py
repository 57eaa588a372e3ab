from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from importlib import metadata

import pytest

from actorflow import cli
from tests.test_layers import ROOT

pytest.importorskip("cyclopts")

import tomllib

from actorflow.cli import _doctor

Doctor = Callable[..., tuple[int, str]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", "doctor", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().out

    return call


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that are installed; change it to change them."""
    versions = {package.name: package.least for package in _doctor.PACKAGES}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    there = {name: (lambda: True, *about[1:]) for name, about in _doctor.SYSTEM.items()}
    monkeypatch.setattr(_doctor, "SYSTEM", there)
    return versions


def test_doctor_knows_what_the_project_declares() -> None:
    known: dict[str | None, set[str]] = {}
    for package in _doctor.PACKAGES:
        known.setdefault(package.extra, set()).add(f"{package.name}>={package.least}")

    assert known.pop(None) == set(PROJECT["dependencies"])
    assert known == {extra: set(needs) for extra, needs in PROJECT["optional-dependencies"].items()}
    assert PROJECT["requires-python"] == f">={_doctor.PYTHON}"


def test_complete_installation_is_healthy(doctor: Doctor, installed: dict[str, str]) -> None:
    code, out = doctor()

    assert code == 0
    assert "● python             3.12.1     for everything\n" in out
    assert "● trio               0.34       for everything that waits\n" in out
    assert "to get it" not in out
    assert out.endswith("\nEverything that is required is there.\n")


def test_missing_extra_is_no_illness(doctor: Doctor, installed: dict[str, str]) -> None:
    del installed["opentelemetry-sdk"]

    code, out = doctor()

    assert code == 0
    assert (
        "○ opentelemetry-sdk  -          for traces and metrics; "
        "to get it: pip install --upgrade 'actorflow[otel]'\n"
    ) in out
    assert "In a clone of the repository '.[NAME]' stands for 'actorflow[NAME]'.\n" in out


@pytest.mark.parametrize(("version", "shown"), [(None, "missing   "), ("0.33.9", "0.33.9    ")])
def test_required_package_that_is_missing_or_too_old_is(
    doctor: Doctor, installed: dict[str, str], version: str | None, shown: str
) -> None:
    if version is None:
        del installed["trio"]
    else:
        installed["trio"] = version

    code, out = doctor()

    assert code == 1
    assert (
        f"✗ trio               {shown} for everything that waits; "
        "to get it: pip install --upgrade 'trio>=0.34'\n"
    ) in out
    assert out.endswith("\nSomething that is required is missing or too old.\n")


def test_old_python_is_an_illness(
    doctor: Doctor, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.9")

    code, out = doctor()

    assert code == 1
    assert "✗ python             3.10.9 " in out


def test_missing_program_is_told_with_its_package(
    doctor: Doctor, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_doctor, "SYSTEM", {"graphviz": (lambda: False, "pictures", "install it")})

    code, out = doctor()

    assert code == 0
    assert "○ graphviz           -          for pictures; to get it: install it\n" in out


def test_json_has_every_finding(doctor: Doctor, installed: dict[str, str]) -> None:
    code, out = doctor("--json")
    report = json.loads(out)

    assert code == 0
    assert report["healthy"] is True
    assert {"group": "required", "name": "trio", "found": "0.34"}.items() <= report["findings"][
        1
    ].items()
    assert {it["group"] for it in report["findings"]} == {"required", "extra", "system"}


def test_real_machine_is_looked_at(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _, out = doctor("--json")
    found = {it["name"]: it["found"] for it in json.loads(out)["findings"]}

    assert found["python"] == platform.python_version()
    assert found["graphviz"] is None
    assert found["espeak-ng"] is None
    assert found["portaudio"] in {"installed", None}
    assert found["trio"] == metadata.version("trio")


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [
        ("0.34", "0.34", True),
        ("0.9", "0.34", False),
        ("1.0", "0.34", True),
        ("3.14.0rc1", "3.11", True),
        ("24.1", "24.2", False),
        ("unknown", "1.0", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, least: str, enough: bool) -> None:
    assert _doctor.is_enough(version, least) is enough
