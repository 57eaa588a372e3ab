"""The site of the documentation: `tox -e site` builds it into build/site.

The pages are plain Markdown that reads well in a repository, too. What a site needs beyond
that is made here while it is built: the sidebar from the lists of README.md, targets from
anchors, pages of the API from docstrings, and index.html.
"""

from __future__ import annotations

import pkgutil
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import actorflow
from actorflow import __version__

project = "actorflow"
author = "The actorflow developers"
version = release = __version__

root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Headings get the anchors that code hosts give them.
myst_heading_anchors = 4

# Docstrings: names between single backticks are code, annotations stay short.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "groupwise"

html_theme = "furo"
html_title = f"actorflow {version}"
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

API = Path(__file__).with_name("api")
# What the command line is made of is nobody's business, and errors have a page.
NOT_API = {"cli", "errors"}

SECTION = re.compile(r"^## (?P<title>.+?)\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
PAGE = re.compile(r"\]\(([\w./-]+\.md)\)")
LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<target>[\w./-]+)\)")
ANCHOR = re.compile(r'^<a id="([^"]+)"></a>', re.MULTILINE)


def write_api() -> list[str]:
    """Write a page for each public package, and return their names."""
    API.mkdir(exist_ok=True)
    modules = pkgutil.iter_modules(actorflow.__path__, "actorflow.")
    names = [it.name for it in modules if it.name.split(".")[1] not in NOT_API]
    public = [name for name in names if "._" not in name]
    for name in public:
        directive = f".. automodule:: {name}\n   :members:\n   :imported-members:\n"
        (API / f"{name}.rst").write_text(f"{name}\n{'=' * len(name)}\n\n{directive}", "utf-8")
    return [f"api/{name}" for name in public]


# Now, because Sphinx is about to look which pages there are.
API_PAGES = write_api()


def sidebar_of(index: str) -> Iterator[str]:
    """A table of contents for each section of the index, from the links in it."""
    for section in SECTION.finditer(index):
        yield toctree(section["title"], dict.fromkeys(PAGE.findall(section["body"])))
    yield toctree("API", API_PAGES)


def toctree(title: str, pages: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```\n"])


def adapt(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))

    def without_folder(link: re.Match[str]) -> str:
        # A code host shows a folder; a site has nothing to show for it.
        return link["text"] if (page.parent / link["target"]).is_dir() else link[0]

    source[0] = LINK.sub(without_folder, ANCHOR.sub(r"(\1)=\n", source[0]))
    if name == root_doc:
        source[0] = "\n\n".join([source[0], *sidebar_of(source[0])])


def is_elsewhere(app: Sphinx, _: str, __: str, member: object, skip: bool, *___: Any) -> bool:
    """Whether a name is left out: what a package imports has its place with its owner."""
    page = app.env.current_document.docname.removeprefix("api/")
    home = str(getattr(member, "__module__", page))
    return skip or not (home == page or home.startswith(f"{page}."))


def add_index(app: Sphinx, failure: Exception | None) -> None:
    if failure is None:
        folder = Path(app.outdir)
        shutil.copyfile(folder / f"{root_doc}.html", folder / "index.html")


def setup(app: Sphinx) -> None:
    # Nothing colours it, and it need not be drawn by a script from elsewhere.
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", adapt)
    app.connect("autodoc-skip-member", is_elsewhere)
    app.connect("build-finished", add_index)
