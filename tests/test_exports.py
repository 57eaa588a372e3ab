"""Every public name is documented, and imports from where the documentation says.

Public is what an import path without underscores reaches: the names a package
re-exports (`from ._ref import ActorRef as ActorRef`), and the names a module at
the top of actorflow defines.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Final

import pytest

from tests.test_layers import ROOT, own_sources

CODE: Final = re.compile(r"`+([^`]+)`+")
FENCED: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def public_names(source: str) -> Iterator[str]:
    for node in ast.parse(source).body:
        match node:
            case ast.ImportFrom(names=names):
                yield from (it.name for it in names if it.asname == it.name)
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def public_modules() -> dict[str, list[str]]:
    """Public modules of actorflow and the names they offer."""
    modules = {}
    for path, source in own_sources().items():
        parts = path.removesuffix(".py").removesuffix("__init__").strip("/").split("/")
        if not any(part.startswith("_") for part in parts):
            name = ".".join(["actorflow", *filter(None, parts)])
            modules[name] = [it for it in public_names(source) if not it.startswith("_")]
    return modules


def mentioned(page: str) -> set[str]:
    """Names a page shows as code: `ActorRef`, `ask(message)`, `system.tree()`."""
    return {
        name for span in CODE.findall(FENCED.sub("", page)) for name in re.findall(r"\w+", span)
    }


MODULES: Final = public_modules()
NAMES: Final = [(module, name) for module, names in MODULES.items() for name in names]
REFERENCE: Final = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "docs" / "reference").rglob("*.md"))
}


# The package


@pytest.mark.parametrize("module", MODULES)
def test_public_module_says_what_it_is(module: str) -> None:
    assert import_module(module).__doc__


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_name_imports_and_has_a_docstring(module: str, name: str) -> None:
    thing = getattr(import_module(module), name)

    # A constant or an alias has no docstring of its own; the reference describes it.
    if inspect.isclass(thing) or inspect.isroutine(thing):
        assert thing.__doc__


def test_reference_names_everything_public() -> None:
    known = set().union(*map(mentioned, REFERENCE.values()))
    missing = [f"{module}.{name}" for module, name in NAMES if name not in known]

    if missing:
        pytest.fail("not in docs/reference/*.md:\n" + "\n".join(missing), pytrace=False)


def test_names_in_the_reference_import_from_where_it_says() -> None:
    wrong = [
        f"{page}: {path}"
        for page, text in REFERENCE.items()
        for span in CODE.findall(text)
        # `actorflow.v1` is a version of the protocol of sessions.
        for path in re.findall(r"\bactorflow\.(?!v\d)\w+(?:\.\w+)*", span)
        if not _resolves(path)
    ]

    assert wrong == []


def test_front_door_offers_what_packages_export() -> None:
    # Tutorials use the front door; what they find there is documented at its own package.
    homes = {name for module, names in MODULES.items() if module != "actorflow" for name in names}

    assert set(MODULES["actorflow"]) <= homes


def _resolves(path: str) -> bool:
    module, *names = path.split(".")
    thing: object = import_module(module)
    for name in names:
        module = f"{module}.{name}"
        if module in MODULES:
            thing = import_module(module)
        elif hasattr(thing, name):
            thing = getattr(thing, name)
        else:
            return False
    return True


# The checks themselves

PACKAGE: Final = """
from ._ref import ActorRef as ActorRef, Inbox
from typing import Final
LIMIT: Final = 3
Pair = tuple[int, int]
def open_system(): ...
class Actor: ...
def _private(): ...
"""


def test_public_names_are_reexports_and_definitions() -> None:
    names = list(public_names(PACKAGE))

    assert names == ["ActorRef", "LIMIT", "Pair", "open_system", "Actor", "_private"]


def test_names_shown_as_code_are_mentions() -> None:
    page = "## `ActorRef[M]`\n\nIts `ask(make, timeout=1)` waits; tell does not.\n```python\nx\n```"

    assert mentioned(page) >= {"ActorRef", "ask"}
    assert mentioned(page).isdisjoint({"tell", "x", "waits"})


@pytest.mark.parametrize(
    ("path", "resolves"),
    [
        ("actorflow.errors", True),
        ("actorflow.errors.ActorflowError.code", True),
        ("actorflow.errors.NoSuchError", False),
        ("actorflow.nowhere.ActorRef", False),
    ],
)
def test_path_in_the_reference_is_followed(path: str, resolves: bool) -> None:
    assert _resolves(path) is resolves
