"""Each category of tests of the reference has a counterpart here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.test_traceability import collected_in

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "parity.md"

CATEGORIES: Final = {
    *("configuration", "context", "snapshot", "bag", "inputs", "ports", "execution", "integration"),
    *("pipeline: builder", "pipeline: helpers", "pipeline: specification", "pipeline: registry"),
    *("cancellation", "guard retry", "framework: context", "framework: interceptors"),
    *("retry", "idempotency", "hardening", "contract", "events", "observability", "analytics"),
    "tools: definitions, registry, approval, undo, executor, errors",
    *("subpipeline", "child tracker", "fork"),
    *("helpers: guardrails", "helpers: memory", "helpers: mocks", "helpers: streaming"),
    *("helpers: providers", "helpers: timestamps", "helpers: runtime", "helpers: run_utils"),
    *("property", "fault", "benchmarks"),
}


def rows_of(page: str) -> dict[str, str]:
    """What the table says about each category."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    return dict(rows[1:])


def problems_of(page: str, folder: Path) -> Iterator[str]:
    for category, told in rows_of(page).items():
        later = re.fullmatch(r"come with `([\w/.]+)`", told)
        links = re.findall(r"\]\(([^)]+)\)", told)
        if later:
            if (ROOT / later[1]).exists():
                yield f"{category}: {later[1]} exists, so name its tests"
        elif not links:
            yield f"{category}: names no tests"
        for link in links:
            if not has_tests((folder / link).resolve()):
                yield f"{category}: {link} holds no tests"


def has_tests(path: Path) -> bool:
    # Benchmarks are run by name, not collected.
    files = [path] if path.is_file() else [*path.glob("test_*.py"), *path.glob("bench_*.py")]
    return any(
        file.name.startswith("bench_") or collected_in(file.read_text("utf-8")) for file in files
    )


@pytest.mark.spec("E122")
def test_every_category_has_its_tests_here() -> None:
    page = PAGE.read_text("utf-8")

    assert rows_of(page).keys() == CATEGORIES
    assert [*problems_of(page, PAGE.parent)] == []


@pytest.mark.spec("E122")
@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("[them](test_gone.py)", "bag: test_gone.py holds no tests"),
        ("[them](conftest.py)", "bag: conftest.py holds no tests"),
        ("somewhere", "bag: names no tests"),
        ("come with `actorflow/events`", "bag: actorflow/events exists, so name its tests"),
    ],
)
def test_category_without_tests_is_named(told: str, problem: str) -> None:
    page = f"| category | tests here |\n|---|---|\n| bag | {told} |\n"

    assert [*problems_of(page, ROOT / "tests")] == [problem]
