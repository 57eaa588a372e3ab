"""Every target that the migration page names can be imported."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.test_layers import ROOT

PAGE = (ROOT / "docs" / "migration.md").read_text("utf-8")
TARGETS = sorted(set(re.findall(r"`(actorflow(?:\.\w+)+)`", PAGE)))


def test_page_names_its_targets() -> None:
    assert len(TARGETS) > 50


@pytest.mark.parametrize("target", TARGETS)
def test_target_of_the_migration_exists(target: str) -> None:
    module, _, name = target.rpartition(".")
    try:
        import_module(target)
    except ModuleNotFoundError:
        assert hasattr(import_module(module), name), target


@pytest.mark.spec("G115")
@pytest.mark.parametrize(
    ("module", "targets"),
    [
        ("helpers.uuid_utils", ["actorflow.ids", "actorflow.diagnostics"]),
        ("helpers.run_utils", ["actorflow.runtime"]),
        ("helpers.memory_tracker", ["actorflow.diagnostics"]),
        ("pipeline.interceptors_hardening", ["actorflow.interceptors"]),
        ("compression", ["actorflow.compression"]),
    ],
)
def test_modules_that_watched_runs_have_an_entry(module: str, targets: list[str]) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{module}` |"))

    assert re.findall(r"`(actorflow[.\w]+)`", row) == targets
