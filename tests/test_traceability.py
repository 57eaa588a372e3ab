"""Every acceptance item is shown by tests that exist, or says what will bring it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.test_spec_coverage import marks_of, own_pages, own_tests, statements_of

ROOT: Final = Path(__file__).parent.parent
ITEMS: Final = ROOT / "tests" / "traceability.toml"
NOT_BUILT: Final = "not_built"

SECTION: Final = re.compile(r"\d+\.\d+")


def collected_in(source: str) -> set[str]:
    """Names of the functions that pytest collects from a file."""
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def statements_meant(entry: str, statements: list[str]) -> list[str]:
    """The statements that an entry stands for; none if it names one that is not there."""
    first, dots, last = entry.partition("..")
    if dots:
        if first not in statements or last not in statements:
            return []
        return statements[statements.index(first) : statements.index(last) + 1]
    if SECTION.fullmatch(entry):
        return [it for it in statements if it.startswith(f"{entry}.")]
    return [it for it in statements if it == entry]


def problem_with(
    entry: str, statements: list[str], shown: set[str], tests: Mapping[str, str]
) -> str | None:
    """What is wrong with an entry of an item, if anything is."""
    if entry.startswith("tests/"):
        path, _, name = entry.partition("::")
        found = collected_in(tests[path]) if path in tests else set()
        return None if (name in found if name else found) else f"{entry}: there is no such test"
    meant = statements_meant(entry, statements)
    if not meant:
        return f"{entry}: there is no such statement"
    missing = [it for it in meant if it not in shown]
    return f"{entry}: no test shows {', '.join(missing)}" if missing else None


def problems_of(
    items: Mapping[str, Mapping[str, Any]],
    pages: Mapping[str, str],
    tests: Mapping[str, str],
    root: Path,
) -> Iterator[str]:
    statements = [it for page in pages.values() for it in statements_of(page)]
    shown = {it for source in tests.values() for it in marks_of(source)}
    for area, named in items.items():
        for item, said in named.items():
            if area == NOT_BUILT:
                if (root / said["module"]).exists():
                    yield f"{item}: {said['module']} exists, so name what shows it"
            elif not said:
                yield f"{item}: nothing shows it"
            else:
                for entry in said:
                    if problem := problem_with(entry, statements, shown, tests):
                        yield f"{item}: {problem}"


@pytest.mark.spec("E123")
def test_every_acceptance_item_is_shown_or_names_what_will_bring_it() -> None:
    items = tomllib.loads(ITEMS.read_text("utf-8"))

    if problems := [*problems_of(items, own_pages(), own_tests(), ROOT)]:
        pytest.fail("tests/traceability.toml:\n" + "\n".join(problems), pytrace=False)


@pytest.mark.spec("E123")
def test_every_section_that_is_built_belongs_to_an_item() -> None:
    """So that an item which somebody deletes is missed."""
    items = tomllib.loads(ITEMS.read_text("utf-8"))
    pages = own_pages()
    statements = [it for page in pages.values() for it in statements_of(page)]
    named = {
        statement
        for area, of_area in items.items()
        if area != NOT_BUILT
        for entries in of_area.values()
        for entry in entries
        for statement in statements_meant(entry, statements)
    }

    sections = {it.rpartition(".")[0] for it in statements if it[0].isdigit()}
    unnamed = {it for it in sections if not any(name.startswith(f"{it}.") for name in named)}
    # The rules that hold for everything and the limits of a chapter are no items of their own.
    assert unnamed <= {"10.20", "20.15", "30.1", "30.19"}


# The check itself

PAGES: Final = {"spec.md": "## 1.1 A\n\n- 1.1.1 a\n- 1.1.2 b\n- 1.2.1 c\n- E1. d\n"}
TESTS: Final = {
    "tests/test_it.py": """
@pytest.mark.spec("1.1.1", "1.1.2", "E1")
def test_one(): ...

def helper(): ...
"""
}


@pytest.mark.spec("E123")
@pytest.mark.parametrize(
    "entry",
    ["1.1.1", "1.1", "1.1.1..1.1.2", "E1", "tests/test_it.py", "tests/test_it.py::test_one"],
)
def test_item_that_is_shown_is_fine(entry: str, tmp_path: Path) -> None:
    assert [*problems_of({"area": {"it": [entry]}}, PAGES, TESTS, tmp_path)] == []


@pytest.mark.spec("E123")
@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (["1.2.1"], "it: 1.2.1: no test shows 1.2.1"),
        (["1.1.2..1.2.1"], "it: 1.1.2..1.2.1: no test shows 1.2.1"),
        (["1.3"], "it: 1.3: there is no such statement"),
        (["1.1.1..1.1.9"], "it: 1.1.1..1.1.9: there is no such statement"),
        (["E2"], "it: E2: there is no such statement"),
        (["tests/test_it.py::helper"], "it: tests/test_it.py::helper: there is no such test"),
        (["tests/test_gone.py"], "it: tests/test_gone.py: there is no such test"),
        ([], "it: nothing shows it"),
    ],
)
def test_item_that_is_not_shown_is_named(said: list[str], problem: str, tmp_path: Path) -> None:
    assert [*problems_of({"area": {"it": said}}, PAGES, TESTS, tmp_path)] == [problem]


@pytest.mark.spec("E123")
def test_item_that_waits_for_a_module_that_exists_is_named(tmp_path: Path) -> None:
    items = {NOT_BUILT: {"it": {"module": "actorflow/tools", "file": 70}}}
    assert [*problems_of(items, PAGES, TESTS, tmp_path)] == []

    (tmp_path / "actorflow" / "tools").mkdir(parents=True)

    assert [*problems_of(items, PAGES, TESTS, tmp_path)] == [
        "it: actorflow/tools exists, so name what shows it"
    ]
