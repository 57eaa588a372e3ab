"""README and docs: links lead somewhere, snippets run, generated pages are up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from actorflow import errors
from docs import write_errors
from tests.test_layers import ROOT

PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

FENCE: Final = re.compile(
    r"(?P<before><!--[^>]*-->\n+)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
ANCHOR: Final = re.compile(r'<a (?:id|name)="([^"]+)"')
LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
CODE_SPAN: Final = re.compile(r"`[^`\n]+`")


@attrs.frozen
class Block:
    language: str
    comment: str
    first_line: int
    source: str


def blocks_of(page: str) -> Iterator[Block]:
    for found in FENCE.finditer(page):
        first_line = page.count("\n", 0, found.start("body"))
        comment = (found["before"] or "").strip().removeprefix("<!--").removesuffix("-->").strip()
        yield Block(found["language"], comment, first_line, textwrap.dedent(found["body"]))


def program_of(page: str) -> str:
    """The page's python blocks as one program, each line where it stands on the page."""
    lines = [""] * page.count("\n")
    for block in blocks_of(page):
        if block.language == "python" and not block.comment.startswith("not run:"):
            source = block.source.splitlines()
            lines[block.first_line : block.first_line + len(source)] = source
    return "\n".join(lines)


def output_of(page: str) -> list[str]:
    """What the page says its program prints: text blocks under `<!-- prints -->`."""
    return [block.source for block in blocks_of(page) if block.comment == "prints"]


def anchors_of(page: str) -> list[str]:
    """Where links into the page may lead, headings by GitHub's rule."""
    prose = FENCE.sub("", page)
    slugs: Counter[str] = Counter()
    anchors = ANCHOR.findall(prose)
    for heading in HEADING.findall(prose):
        text = ANCHOR.sub("", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        anchors.append(f"{slug}-{slugs[slug]}" if slugs[slug] else slug)
        slugs[slug] += 1
    return anchors


def links_of(page: str) -> list[str]:
    """The links of a page that lead to files of this repository."""
    prose = CODE_SPAN.sub("", FENCE.sub("", page))
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in links_of(path.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors_of(target.read_text("utf-8")):
            broken.append(f"{link}: no such place")
    return broken


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The repository


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_anchors_are_unique(path: Path) -> None:
    counted = Counter(anchors_of(path.read_text("utf-8")))

    assert [anchor for anchor, times in counted.items() if times > 1] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = {ROOT / "README.md"}
    while ahead:
        path = ahead.pop()
        reached.add(path)
        links = {link.partition("#")[0] for link in links_of(path.read_text("utf-8"))}
        targets = {(path.parent / link).resolve() for link in links if link.endswith(".md")}
        ahead |= {target for target in targets - reached if target.exists()}

    if lost := [page_name(path) for path in PAGES if path not in reached]:
        pytest.fail("link these from docs/README.md:\n" + "\n".join(lost), pytrace=False)


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if program_of(path.read_text("utf-8")).strip()],
    ids=page_name,
)
def test_snippets_run_and_print_what_the_page_says(path: Path, tmp_path: Path) -> None:
    page = path.read_text("utf-8")
    program = tmp_path / f"{path.name}.py"
    program.write_text(program_of(page), "utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    assert [text for text in output_of(page) if text not in done.stdout] == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_python_block_is_called_python_and_compiles(path: Path) -> None:
    for block in blocks_of(path.read_text("utf-8")):
        # Under another name a block would never be run.
        assert block.language.lower() not in {"py", "py3", "python3", "pycon", "ipython"}
        if block.language == "python":
            compile(block.source, f"{page_name(path)}:{block.first_line}", "exec")


def rows_of(page: str, heading: str) -> list[str]:
    """The rows of the tables below a heading, heads included."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")]


def named_tests(page: str) -> list[tuple[str, str]]:
    """Tests that a page names, each with the file that the link leads to."""
    return re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page)


def test_every_guarantee_leads_to_what_shows_it() -> None:
    _, *rows = rows_of((ROOT / "README.md").read_text("utf-8"), "What you can rely on")

    assert len(rows) >= 10
    assert [row for row in rows if not LINK.search(row)] == []


def test_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    rows = rows_of((ROOT / "README.md").read_text("utf-8"), "Measured")
    report = (ROOT / "docs" / "reference" / "benchmarks.md").read_text("utf-8")
    figures = {it for row in rows for it in re.findall(r"\d[\d,.]*", row)}

    assert len(figures) >= 8
    assert figures - {*re.findall(r"\d[\d,.]*", report)} == set()


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_tests_that_are_named_exist(path: Path) -> None:
    assert [
        name
        for name, file in named_tests(path.read_text("utf-8"))
        if not re.search(rf"\bdef {name}\(", (path.parent / file).read_text("utf-8"))
    ] == []


def test_picture_of_the_readme_is_up_to_date() -> None:
    pytest.importorskip("rich")
    from docs import draw_run

    if draw_run.PICTURE.read_text("utf-8") != draw_run.picture():
        pytest.fail("run `python -m docs.draw_run`", pytrace=False)


def test_page_of_errors_is_up_to_date() -> None:
    if write_errors.PAGE.read_text("utf-8") != write_errors.page():
        pytest.fail("run `python -m docs.write_errors`", pytrace=False)


def test_every_error_code_has_a_place_on_the_page_of_errors() -> None:
    anchors = anchors_of(write_errors.page())
    codes = {
        getattr(kind, "code", None)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ActorflowError)
    }

    codes.update(errors.contract_suggestion_codes())

    assert {code.lower() for code in codes if isinstance(code, str)} <= set(anchors)


# The checks themselves

PAGE: Final = """\
# Title: `code` & more

<a id="arg-001"></a>[one](other.md#there) `[not](a-link.md)` [two](https://example.org)

```python
x = 1
```

## Again

<!-- not run: needs a key -->
```python
boom()
```

- in a list:

  ```python
  print(x)
  ```

<!-- prints -->
```text
1
```

## Again
"""


def test_program_keeps_the_lines_of_the_page() -> None:
    lines = program_of(PAGE).splitlines()

    assert [(number, line) for number, line in enumerate(lines, 1) if line] == [
        (6, "x = 1"),
        (19, "print(x)"),
    ]
    assert output_of(PAGE) == ["1\n"]


def test_links_and_anchors_are_read_outside_code() -> None:
    assert links_of(PAGE) == ["other.md#there"]
    assert anchors_of(PAGE) == ["arg-001", "title-code--more", "again", "again-1"]


def test_rows_of_a_table_and_the_tests_in_it_are_found() -> None:
    page = "\n## A\n\n| a | b |\n|---|---|\n| x | [`test_y`](t.py) |\n\n## B\n\n| c |\n"

    assert rows_of(page, "A") == ["| a | b |", "| x | [`test_y`](t.py) |"]
    assert named_tests(page) == [("test_y", "t.py")]


def test_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](page.md#here) [b](#here) [c](page.md#gone) [d](gone.md) [e](..)")

    assert broken_links(page) == [
        "page.md#gone: no such place",
        "gone.md: no such file",
        "..: no such file",
    ]
