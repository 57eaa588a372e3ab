"""Every statement of `docs/spec/` is shown by a test that names it.

A statement is a list item that starts with its id; a test names the ids it
shows with `@pytest.mark.spec("10.3.2", "E40")`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent

# `- 10.1.1 text`, `- E1. text`, `- **W8** text`, `- **T71a** text`
STATEMENT: Final = re.compile(
    r"^- (?:\*\*)?(\d+\.\d+\.\d+|[A-Z]\d+[a-z]?)(?:\*\*|\.)? ", re.MULTILINE
)


def statements_of(page: str) -> list[str]:
    return STATEMENT.findall(page)


def marks_of(source: str) -> Iterator[str]:
    """Statement ids a test file names, wherever pytest would take a mark from."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                # A mark on anything but a test marks nothing.
                places: list[ast.expr] = node.decorator_list if name.startswith("test_") else []
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=value):
                places = [value]
            case _:
                continue
        for place in places:
            for call in ast.walk(place):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.spec":
                    yield from map(ast.literal_eval, call.args)


def unknown(pages: Mapping[str, str], tests: Mapping[str, str]) -> list[str]:
    known = {statement for page in pages.values() for statement in statements_of(page)}
    return [
        f"{path}: {statement}"
        for path, source in tests.items()
        for statement in sorted(set(marks_of(source)) - known, key=_natural)
    ]


def uncovered(pages: Mapping[str, str], tests: Mapping[str, str]) -> list[str]:
    shown = {statement for source in tests.values() for statement in marks_of(source)}
    return [
        f"{path}: {statement}"
        for path, page in pages.items()
        for statement in statements_of(page)
        if statement not in shown
    ]


def repeated(pages: Mapping[str, str]) -> list[str]:
    counted = Counter(statement for page in pages.values() for statement in statements_of(page))
    return [statement for statement, times in counted.items() if times > 1]


def _natural(statement: str) -> list[tuple[int, str]]:
    return [
        (int(part or 0), "") if part.isdigit() else (0, part)
        for part in re.split(r"(\d+)", statement)
    ]


def own_pages() -> dict[str, str]:
    return _read(ROOT / "docs" / "spec", "*.md")


def own_tests() -> dict[str, str]:
    return _read(ROOT / "tests", "test_*.py")


def _read(folder: Path, pattern: str) -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob(pattern))
    }


# The repository


def test_tests_name_statements_that_exist() -> None:
    if missing := unknown(own_pages(), own_tests()):
        pytest.fail("marks that name no statement:\n" + "\n".join(missing), pytrace=False)


def test_every_statement_is_shown() -> None:
    if missing := uncovered(own_pages(), own_tests()):
        pytest.fail("statements that no test shows:\n" + "\n".join(missing), pytrace=False)


def test_no_statement_id_is_used_twice() -> None:
    assert repeated(own_pages()) == []


def test_pages_have_statements() -> None:
    assert [path for path, page in own_pages().items() if not statements_of(page)] == []


# The checks themselves


@pytest.mark.parametrize(
    ("line", "statement"),
    [
        ("- 10.1.1 Classes are frozen.", "10.1.1"),
        ("- E1. Both methods are keyword-only.", "E1"),
        ("- G56. A result has a score.", "G56"),
        ("- **W8** One key, one owner.", "W8"),
        ("- **T71a** A grant is bound.", "T71a"),
    ],
)
def test_statement_is_read_in_every_spelling(line: str, statement: str) -> None:
    assert statements_of(f"# Page\n\n{line}\n  and goes on.\n") == [statement]


@pytest.mark.parametrize(
    "line", ["See 10.1.1 for more.", "  - 10.1.1 nested", "- `E1` is code", "| 1.2.3 | table |"]
)
def test_mention_of_a_statement_is_not_a_statement(line: str) -> None:
    assert statements_of(f"\n{line}\n") == []


MARKED: Final = """
pytestmark = [pytest.mark.spec("A1")]

@pytest.mark.spec("B1", "B2")
async def test_one(): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.spec("C1"))])
def test_two(x): ...

@pytest.mark.spec("D1")
def helper(): ...
"""


def test_marks_are_found_where_pytest_would() -> None:
    assert sorted(marks_of(MARKED)) == ["A1", "B1", "B2", "C1"]


def test_unknown_and_uncovered_statements_are_listed() -> None:
    pages = {"spec.md": "- A1. a\n- B1. b\n- B2. c\n- Z10. d\n- Z9. e\n"}

    assert unknown(pages, {"test_it.py": MARKED}) == ["test_it.py: C1"]
    assert uncovered(pages, {"test_it.py": MARKED}) == ["spec.md: Z10", "spec.md: Z9"]


def test_repeated_statement_is_listed() -> None:
    assert repeated({"one.md": "- A1. a\n", "two.md": "- A1. b\n- A2. c\n"}) == ["A1"]
