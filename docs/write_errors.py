"""Write `docs/reference/errors.md` from the classes: `python -m docs.write_errors`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import attrs

from actorflow import errors
from actorflow.errors import ActorflowError, ContractSuggestion

PAGE: Final = Path(__file__).parent / "reference" / "errors.md"

HEAD: Final = """\
# Errors

<!-- Written by `python -m docs.write_errors`; change actorflow/errors.py instead. -->

Everything that actorflow raises on purpose is an `ActorflowError`. It has a stable `code`, typed
fields, a `fix_hint` that says what to do and a `doc_url` (below `DOC_BASE_URL`) that leads to its
place on this page; a traceback shows both. All names are imported from `actorflow.errors`.

## The root"""


def page() -> str:
    return "\n\n".join([HEAD, *_classes(), *_suggestions(), *_other_names()]) + "\n"


def _classes() -> Iterator[str]:
    source = inspect.getsource(errors)
    # A section of errors.py starts with a comment that stands alone.
    sections = [(found.start(), found[1]) for found in re.finditer(r"\n\n# (.+)\n\n", source)]
    names: dict[type[ActorflowError], list[str]] = {}
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, ActorflowError):
            names.setdefault(kind, []).append(name)
    places = {kind: source.index(f"\nclass {kind.__name__}(") for kind in names}
    for kind in sorted(places, key=places.__getitem__):
        while sections and sections[0][0] < places[kind]:
            yield f"## {sections.pop(0)[1]}"
        yield from _class(kind, sorted({*names[kind]} - {kind.__name__}))


def _class(kind: type[ActorflowError], aliases: Sequence[str]) -> Iterator[str]:
    yield f"### `{kind.__name__}`"
    if aliases:
        yield f"Also called: {_listed(aliases)}"
    # Codes and hints that depend on the case are properties; an inherited code has its place
    # with the class it comes from.
    if isinstance(code := vars(kind).get("code"), str):
        yield _code(code)
    if kind is not ActorflowError:
        yield "Is a: " + _listed(base.__name__ for base in kind.__bases__)
    if attrs.fields(kind):
        yield _fields(kind)
    yield str(inspect.getdoc(kind))
    hint: object = kind.fix_hint
    if not isinstance(hint, str):
        yield "Fix: the message or `fix_hint` says it for the case at hand."
    elif hint:
        yield f"Fix: {hint}"


def _suggestions() -> Iterator[str]:
    known = filter(None, map(errors.get_contract_suggestion, errors.contract_suggestion_codes()))
    for family, suggestions in groupby(known, key=lambda it: "-".join(it.code.split("-")[:2])):
        yield f"## Codes of {family}"
        yield f'<a id="{family.lower()}"></a>'
        for suggestion in suggestions:
            yield from _suggestion(suggestion)


def _suggestion(suggestion: ContractSuggestion) -> Iterator[str]:
    yield f"### {suggestion.title}"
    yield _code(suggestion.code)
    yield suggestion.summary
    yield "\n".join(f"- {step}" for step in suggestion.fix_steps)


def _other_names() -> Iterator[str]:
    yield "## What comes with the errors"
    for name, thing in vars(errors).items():
        if name[0] == "_" or getattr(thing, "__module__", None) != errors.__name__:
            continue
        if not (inspect.isclass(thing) and issubclass(thing, ActorflowError)):
            yield f"### `{name}`"
            if attrs.has(thing):
                yield _fields(thing)
            yield str(inspect.getdoc(thing))


def _code(code: str) -> str:
    return f'<a id="{code.lower()}"></a>Code: `{code}`'


def _fields(kind: type[attrs.AttrsInstance]) -> str:
    return "Fields: " + _listed(field.name for field in attrs.fields(kind))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
