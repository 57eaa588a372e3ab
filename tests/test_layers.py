"""Imports go down only: the rows of the house and who may call whom.

The checks are plain functions over `{path below actorflow/: source}`, so the
tests at the end of this file show them refusing small made-up trees.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

import attrs
import pytest

ROOT: Final = Path(__file__).parent.parent

# Lowest row first. A unit is a package or a module at the top of actorflow; the
# front door, `actorflow/__init__.py`, is the unit "__init__". Units of one row
# do not know each other.
ROWS: Final = (
    ("errors", "clock", "_version"),
    ("_choice",),
    ("ids", "timestamps", "backoff", "codec", "compression", "cancellation"),
    ("actors", "model"),
    ("events",),
    ("stages", "stores", "diagnostics", "providers"),
    ("pipeline", "interceptors", "tools", "guardrails", "audio", "memory", "protocol"),
    ("work", "tracking", "transport"),
    ("runtime",),
    ("server", "client", "integrations"),
    ("voice",),
    ("cli", "testing", "abc", "__init__"),
)
ROW_OF: Final = {unit: number for number, row in enumerate(ROWS) for unit in row}

# Files that decide and leave the doing to others. A pattern that matches
# nothing although its package exists is a violation too: a renamed file would
# otherwise leave the list without anyone noticing.
PURE: Final = (
    "model/*.py",
    "pipeline/*.py",
    "protocol/*.py",
    "backoff.py",
    "compression.py",
    "diagnostics/_window.py",
    "actors/_supervision.py",
    "audio/_buffer.py",
    "voice/_listening.py",
    "voice/_sentences.py",
    "runtime/_run_state.py",
    "tracking/_chain.py",
)
EFFECTS: Final = frozenset(
    "trio socket ssl select sqlite3 threading _thread concurrent queue asyncio subprocess "
    "multiprocessing".split()
)

# The cli is built on its extra: everything below `cli/` that imports it is
# loaded by `main` alone, which says what to install when it is not there.
OWN_EXTRA: Final = {"cli": "cli"}

# Import names of packages that are called otherwise on the index.
IMPORT_NAMES: Final[Mapping[str, str]] = {
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
}

DUMPING_GROUNDS: Final = frozenset("common helper helpers manager misc util utils v2".split())

# Protocols are implemented, and members close an enum.
SELF_EXPLAINING: Final = frozenset({"Protocol", "Enum", "IntEnum", "StrEnum", "TypedDict"})


@attrs.frozen
class Import:
    """One import: the dotted name it reaches for, and when it is carried out."""

    target: str
    relative: bool
    late: bool
    """Whether it waits for a call, or is for type checkers alone."""


def unit_of(path: str) -> str:
    return PurePosixPath(path).parts[0].removesuffix(".py")


def imports_of(path: str, source: str) -> Iterator[Import]:
    """Every import of a file, those for type checkers included."""
    package = ["actorflow", *PurePosixPath(path).parts[:-1]]

    def visit(node: ast.AST, *, late: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield Import(name.name, relative=False, late=late)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                prefix = [*base, module] if module else base
                for name in names:
                    yield Import(".".join([*prefix, name.name]), relative=level > 0, late=late)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                late = True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                late = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late=late)

    yield from visit(ast.parse(source, path), late=False)


def unknown_units(sources: Mapping[str, str]) -> list[str]:
    return [
        f"{path}: {unit_of(path)!r} has no row" for path in sources if unit_of(path) not in ROW_OF
    ]


def upward_imports(sources: Mapping[str, str]) -> list[str]:
    found = []
    for path, source in sources.items():
        here = unit_of(path)
        if here not in ROW_OF:
            continue
        for reached in imports_of(path, source):
            parts = reached.target.split(".")
            if parts[0] != "actorflow":
                continue
            there = parts[1] if parts[1:] and parts[1] in ROW_OF else "__init__"
            if there == here:
                continue
            if ROW_OF[there] >= ROW_OF[here]:
                found.append(f"{path}: {here} must not know {there} ({reached.target})")
    return found


def wrongly_spelled_imports(sources: Mapping[str, str]) -> list[str]:
    """Own package: relative. Another one: absolute, and never its modules."""
    packages = {unit_of(path) for path in sources if "/" in path}
    found = []
    for path, source in sources.items():
        here = unit_of(path)
        for reached in imports_of(path, source):
            first, *rest = reached.target.split(".")
            if first != "actorflow" or not rest or here not in ROW_OF:
                continue
            there = rest[0]
            if there == here and here in packages and not reached.relative:
                found.append(f"{path}: {reached.target} is a neighbour, import it relatively")
            if there != here and reached.relative and here != "__init__":
                found.append(f"{path}: {reached.target} is another package, import it absolutely")
            if there != here and any(map(_is_private, rest[1:])):
                found.append(f"{path}: {reached.target} is inside another package")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def effects_in_pure_files(sources: Mapping[str, str]) -> list[str]:
    found = []
    for pattern in PURE:
        pure = [path for path in sources if fnmatch(path, pattern)]
        if not pure and any(unit_of(path) == unit_of(pattern) for path in sources):
            found.append(f"{pattern}: listed as pure, but there is no such file")
        found += [
            f"{path}: a pure file imports {reached.target}"
            for path in pure
            for reached in imports_of(path, sources[path])
            if reached.target.split(".")[0] in EFFECTS
        ]
    return found


def public_modules_in_packages(sources: Mapping[str, str]) -> list[str]:
    return [
        f"{path}: modules inside a package start with an underscore"
        for path in sources
        for part in PurePosixPath(path).parts[1:]
        if not part.startswith("_")
    ]


def dumping_grounds(sources: Mapping[str, str]) -> list[str]:
    return [
        f"{path}: {part!r} says nothing about what belongs there"
        for path in sources
        for part in PurePosixPath(path).with_suffix("").parts
        if part.strip("_") in DUMPING_GROUNDS
    ]


def eager_extras(sources: Mapping[str, str], extras: Mapping[str, frozenset[str]]) -> list[str]:
    """Optional packages imported where everybody pays for them."""
    found = []
    for path, source in sources.items():
        for reached in imports_of(path, source):
            package = reached.target.split(".")[0]
            allowed = extras.get(OWN_EXTRA.get(unit_of(path), ""), frozenset())
            optional = frozenset().union(*extras.values()) - allowed
            if package in optional and not reached.late:
                found.append(f"{path}: {package} is optional, import it inside a function")
    return found


def undeclared_packages(sources: Mapping[str, str], declared: frozenset[str]) -> list[str]:
    """Imports of packages that nobody is told to install."""
    known = declared | sys.stdlib_module_names | {"actorflow"}
    return [
        f"{path}: {reached.target} is not declared in pyproject.toml"
        for path, source in sources.items()
        for reached in imports_of(path, source)
        for package in [reached.target.split(".")[0]]
        # Type checkers bring the types of this one along.
        if package not in known and not (package == "typing_extensions" and reached.late)
    ]


def open_classes(sources: Mapping[str, str]) -> list[str]:
    """Public classes that could be `@final`, are not, and do not invite a subclass either."""
    classes = [
        (path, node)
        for path, source in sources.items()
        for node in ast.parse(source, path).body
        if isinstance(node, ast.ClassDef)
    ]
    extended = {_last_name(base) for _, node in classes for base in node.bases}
    return [
        f"{path}: {node.name} is neither @final nor invites a subclass"
        for path, node in classes
        # A tree of exceptions is there to be extended.
        if path != "errors.py"
        and not node.name.startswith("_")
        and "final" not in map(_last_name, node.decorator_list)
        and SELF_EXPLAINING.isdisjoint(map(_last_name, node.bases))
        and node.name not in extended
        and not re.search(r"(?i)(?<!not )\bsubclass", ast.get_docstring(node) or "")
    ]


def _last_name(expression: ast.expr) -> str:
    """`Protocol` of `typing.Protocol[M]`."""
    return ast.unparse(expression).partition("[")[0].rpartition(".")[2]


def required_packages() -> frozenset[str]:
    """Import names of what `pyproject.toml` requires."""
    return frozenset(map(_import_name, _project()["dependencies"]))


def declared_extras() -> dict[str, frozenset[str]]:
    """Import names of the optional packages, per extra."""
    return {
        extra: frozenset(map(_import_name, lines)) - required_packages()
        for extra, lines in _project()["optional-dependencies"].items()
    }


def _project() -> dict[str, Any]:
    # Any: the file is data until somebody reads a table of it.
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def _import_name(requirement: str) -> str:
    distribution = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def own_sources() -> dict[str, str]:
    package = ROOT / "actorflow"
    return {
        path.relative_to(package).as_posix(): path.read_text("utf-8")
        for path in sorted(package.rglob("*.py"))
    }


# The package


def test_every_unit_has_a_row() -> None:
    assert unknown_units(own_sources()) == []


def test_imports_go_down_only() -> None:
    assert upward_imports(own_sources()) == []


def test_own_package_is_imported_relatively_and_others_as_packages() -> None:
    assert wrongly_spelled_imports(own_sources()) == []


def test_pure_files_do_no_io() -> None:
    assert effects_in_pure_files(own_sources()) == []


def test_modules_in_packages_are_private() -> None:
    assert public_modules_in_packages(own_sources()) == []


def test_no_module_is_a_dumping_ground() -> None:
    assert dumping_grounds(own_sources()) == []


def test_optional_packages_are_imported_inside_functions() -> None:
    assert eager_extras(own_sources(), declared_extras()) == []


def test_every_package_that_is_imported_is_declared() -> None:
    declared = required_packages().union(*declared_extras().values())

    assert undeclared_packages(own_sources(), declared) == []


def test_public_classes_are_final_or_invite_subclasses() -> None:
    assert open_classes(own_sources()) == []


# The checks themselves


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model/_value.py", "from actorflow.events import Event"),
        ("model/_value.py", "import actorflow.events"),
        ("model/_value.py", "from actorflow import events"),
        ("model/_value.py", "from actorflow import ActorRef"),
        ("model/_value.py", "import actorflow"),
        ("model/_value.py", "from actorflow.actors import ActorRef"),
        ("codec.py", "from actorflow.ids import new_id"),
        ("codec.py", "from .ids import new_id"),
        ("clock.py", "from actorflow.errors import ActorflowError"),
        ("model/_value.py", "if TYPE_CHECKING:\n    from actorflow.events import Event"),
        ("model/_value.py", "def late():\n    from actorflow.events import Event"),
        ("cli/_app.py", "import actorflow.testing"),
        ("cli/_app.py", "from actorflow import Pipeline"),
    ],
)
def test_import_of_a_neighbour_or_a_higher_row_is_found(path: str, line: str) -> None:
    assert len(upward_imports({path: line})) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("events/_event.py", "from actorflow.model import RunIdentity"),
        ("events/_event.py", "from actorflow import model"),
        ("events/_event.py", "from ._sink import Sink"),
        ("events/_event.py", "import trio, collections.abc"),
        ("__init__.py", "from actorflow.runtime import Runtime as Runtime"),
        ("cli/__init__.py", "from actorflow._version import __version__"),
    ],
)
def test_import_of_a_lower_row_or_of_the_own_package_is_fine(path: str, line: str) -> None:
    assert upward_imports({path: line}) == []
    assert wrongly_spelled_imports({path: line}) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("actors/_cell.py", "from actorflow.actors._ref import ActorRef"),
        ("actors/_cell.py", "from actorflow.actors import ActorRef"),
        ("actors/_cell.py", "from ..clock import monotonic"),
        ("events/_sink.py", "from actorflow.actors._ref import ActorRef"),
        ("events/_sink.py", "from actorflow.actors import _ref"),
        ("events/_sink.py", "import actorflow.actors._ref"),
    ],
)
def test_import_that_names_the_wrong_place_is_found(path: str, line: str) -> None:
    assert len(wrongly_spelled_imports({path: line})) == 1


@pytest.mark.parametrize(
    "line", ["import trio", "from trio import run", "import concurrent.futures"]
)
def test_effect_in_a_pure_file_is_found(line: str) -> None:
    assert len(effects_in_pure_files({"model/_value.py": line})) == 1
    assert effects_in_pure_files({"events/_event.py": line}) == []


def test_renamed_pure_file_is_found() -> None:
    assert effects_in_pure_files({"actors/_supervise.py": ""}) != []
    assert effects_in_pure_files({"actors/_supervision.py": ""}) == []


def test_unit_without_a_row_is_found() -> None:
    assert len(unknown_units({"plugins/_loader.py": "", "ids.py": "", "__init__.py": ""})) == 1


def test_public_module_inside_a_package_is_found() -> None:
    assert len(public_modules_in_packages({"actors/ref.py": "", "actors/_ref.py": ""})) == 1
    assert public_modules_in_packages({"actors/__init__.py": "", "ids.py": ""}) == []


def test_dumping_ground_is_found() -> None:
    assert len(dumping_grounds({"actors/_utils.py": "", "actors/_ref.py": ""})) == 1


def test_eager_import_of_an_optional_package_is_found() -> None:
    extras = {"redis": frozenset({"coredis"}), "cli": frozenset({"rich"})}
    late = "def connect():\n    import coredis"
    for_types = "if TYPE_CHECKING:\n    import coredis"

    assert len(eager_extras({"stores/_redis.py": "import coredis"}, extras)) == 1
    assert eager_extras({"stores/_redis.py": for_types}, extras) == []
    assert len(eager_extras({"cli/_app.py": "import coredis"}, extras)) == 1
    assert len(eager_extras({"events/_log.py": "import rich.live"}, extras)) == 1
    assert (
        eager_extras({"stores/_redis.py": late, "cli/_demo.py": "import rich.live"}, extras) == []
    )


def test_undeclared_package_is_found() -> None:
    source = "import trio, coredis\nfrom actorflow.errors import ActorflowError\nimport json"

    for_types = "if TYPE_CHECKING:\n    from typing_extensions import TypeVar"

    assert undeclared_packages({"ids.py": source}, frozenset({"trio"})) == [
        "ids.py: coredis is not declared in pyproject.toml"
    ]
    assert undeclared_packages({"ids.py": for_types}, frozenset()) == []
    assert len(undeclared_packages({"ids.py": "import typing_extensions"}, frozenset())) == 1


def test_optional_packages_are_read_from_the_project_file() -> None:
    assert declared_extras()["cli"] == {"cyclopts", "rich"}
    assert {"trio", "trio_websocket"} <= required_packages()


@pytest.mark.parametrize(
    "head",
    [
        "@final\nclass Ref: ...",
        "@attrs.frozen\n@typing.final\nclass Ref: ...",
        "class Ref(Protocol[M]): ...",
        "class Ref(enum.StrEnum): ...",
        'class Ref:\n    """Subclass it and write `receive`."""',
        "class Ref: ...\n@final\nclass RemoteRef(Ref): ...",
        "class _Ref: ...",
    ],
)
def test_closed_or_inviting_class_is_fine(head: str) -> None:
    assert open_classes({"actors/_ref.py": head}) == []


@pytest.mark.parametrize(
    "head",
    [
        "class Ref: ...",
        "@attrs.frozen\nclass Ref(Base): ...",
        'class Ref:\n    """Do not subclass."""',
    ],
)
def test_open_class_is_found(head: str) -> None:
    assert len(open_classes({"actors/_ref.py": head})) == 1


def test_every_effect_is_a_module_that_exists() -> None:
    assert EFFECTS - {"trio"} <= sys.stdlib_module_names
