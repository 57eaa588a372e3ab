"""`actorflow explain`: what an error code means, without a browser."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator
from typing import Annotated, final

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from actorflow import errors
from actorflow.errors import ActorflowError, InvalidArgumentError


@final
@attrs.frozen
class Entry:
    """What there is to say about a code."""

    code: str
    """Empty for a class whose code depends on the case."""
    name: str
    """The class that is raised, or the title of what lint has found."""
    meaning: str
    fields: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


def explain(
    code: str | None = None,
    /,
    *,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
) -> None:
    """Say what an error code means, and what to do about it.

    Args:
        code: A code such as `RUN-001-STAGE_FAILED`, or the name of an error class. Without
            one, all codes are listed.
        as_json: Print JSON: one object per code, in a list.
    """
    entries = list(known())
    chosen = [it for it in entries if (it.code if code is None else _is_meant(it, code))]
    if not chosen:
        raise InvalidArgumentError("CODE", code, _expected(str(code), entries))
    if as_json:
        print(json.dumps([attrs.asdict(it) for it in chosen], indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for entry in chosen:
        console.print(_line_of(entry) if code is None else _text_of(entry))


def known() -> Iterator[Entry]:
    """Every code, in the order of the page of errors."""
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, ActorflowError) and kind.__name__ == name:
            yield _entry_of(kind)
    codes = errors.contract_suggestion_codes()
    for it in filter(None, map(errors.get_contract_suggestion, codes)):
        yield Entry(it.code, it.title, it.summary, fixes=tuple(it.fix_steps))


def _entry_of(kind: type[ActorflowError]) -> Entry:
    # Codes and hints that depend on the case are properties; an inherited code is explained
    # with the class it comes from.
    code, hint = vars(kind).get("code"), kind.fix_hint
    return Entry(
        code if isinstance(code, str) else "",
        kind.__name__,
        str(inspect.getdoc(kind)),
        tuple(field.name for field in attrs.fields(kind)),
        (hint,) if isinstance(hint, str) and hint else (),
    )


def _is_meant(entry: Entry, asked: str) -> bool:
    name, asked = entry.name.casefold(), asked.casefold()
    return name == asked or (bool(entry.code) and entry.code.casefold().startswith(asked))


def _expected(asked: str, entries: list[Entry]) -> str:
    names = {name.casefold(): name for it in entries for name in (it.code, it.name)}
    near = difflib.get_close_matches(asked.casefold(), names, n=1)
    meant = f"; did you mean {names[near[0]]}?" if near else ""
    return f"a code or class of `actorflow explain`{meant}"


def _line_of(entry: Entry) -> Text:
    return Text.assemble((f"{entry.code:<32} ", "bold"), entry.name)


def _text_of(entry: Entry) -> Text:
    head = "  ".join(filter(None, (entry.code, entry.name)))
    text = Text.assemble((head, "bold"), f"\n\n{entry.meaning}\n")
    if entry.fields:
        text.append(f"\nfields: {', '.join(entry.fields)}\n")
    for fix in entry.fixes:
        text.append(f"\nfix: {fix}", "yellow")
    return text
