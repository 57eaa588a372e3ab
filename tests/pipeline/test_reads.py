from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actorflow.errors import InvalidArgumentError
from actorflow.pipeline._reads import RunnerSources, analyze_stage_source

THIS_FILE = __file__


def reads(runner: object) -> set[str]:
    return {read.stage for read in RunnerSources().reads_of(runner)}


@pytest.mark.spec("20.13.9")
def test_the_four_readers_of_a_literal_name_are_found_with_their_lines() -> None:
    source = """
    async def answer(ctx):
        ctx.inputs.get_from("route", "branch")
        text = ctx.inputs.require_from(
            "stt", "text",
        )
        if ctx.inputs.has_output('memory'):
            return ctx.inputs.get_output(stage="profile")
    """

    assert analyze_stage_source(source) == [
        ("route", 3),
        ("stt", 4),
        ("memory", 7),
        ("profile", 8),
    ]


def test_what_is_no_literal_read_is_not_found() -> None:
    source = """
    async def answer(ctx):
        ctx.inputs.get_from(STT, "text")
        ctx.inputs.get_from(f"{name}", "text")
        ctx.inputs.get_from(0)
        ctx.inputs.get_from(*names)
        ctx.inputs.get_from(key="text")
        ctx.inputs.get_from()
        ctx.inputs.get("text")
        get_from("stt", "text")
        # ctx.inputs.get_from("comment", "text")
        "ctx.inputs.get_from('string', 'text')"
    """

    assert analyze_stage_source(source) == []


@pytest.mark.spec("20.13.4")
@pytest.mark.parametrize(
    ("owner", "counts"),
    [
        ("ctx.inputs", True),
        ("self._inputs", True),
        ("inputs", True),
        ("deps", True),
        ("ctx.outputs", False),
        ("outputs", False),
        ("self.client", False),
        ("connect()", False),
    ],
)
def test_reads_are_told_from_methods_of_other_things(owner: str, counts: bool) -> None:
    assert analyze_stage_source(f"{owner}.get_output('stt')") == [("stt", 1)] * counts


def test_source_that_is_no_python_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Python source"):
        analyze_stage_source("async def (")


async def plain(ctx: Any) -> None:
    ctx.inputs.get_from("a", "x")

    def later() -> object:
        return ctx.inputs.get_from("nested", "x")

    later()


def test_lines_count_from_the_top_of_the_file() -> None:
    first, _ = RunnerSources().reads_of(plain)

    assert (first.stage, first.file) == ("a", THIS_FILE)
    assert linecache.getline(first.file, first.line).strip() == 'ctx.inputs.get_from("a", "x")'


def test_a_function_is_read_with_the_functions_inside() -> None:
    assert reads(plain) == {"a", "nested"}


def keeping_its_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(ctx: Any) -> Any:
        return function(ctx)

    return wrapper


@keeping_its_name
@keeping_its_name
def decorated(ctx: Any) -> None:
    ctx.inputs.get_from("b", "x")


def with_option(ctx: Any, option: str) -> None:
    prompt = """This text begins
at the left margin: cut out of its file, the function would be no valid Python."""
    ctx.inputs.get_from("d", option, prompt)


class Base:
    async def execute(self, ctx: Any) -> None:
        ctx.inputs.get_from("base", "x")

    def inherited(self, ctx: Any) -> None:
        ctx.inputs.get_from("inherited", "x")


class Overriding(Base):
    limit = 3

    async def execute(self, ctx: Any) -> None:
        ctx.inputs.get_from("own", "x")

    @staticmethod
    def static(ctx: Any) -> None:
        ctx.inputs.get_from("static", "x")

    @classmethod
    def of_class(cls, ctx: Any) -> None:
        ctx.inputs.get_from("class", "x")

    @property
    def explosive(self) -> object:
        raise AssertionError("lint looked at a property")


class Calling:
    async def __call__(self, ctx: Any) -> None:
        ctx.inputs.get_from("call", "x")


@pytest.mark.spec("20.13.4")
@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        (decorated, {"b"}),
        (functools.partial(functools.partial(with_option), option="x"), {"d"}),
        (Base, {"base", "inherited"}),
        (Overriding, {"own", "static", "class", "inherited"}),
        (Overriding(), {"own", "static", "class", "inherited"}),
        (Overriding().execute, {"own"}),
        (Calling(), {"call"}),
        (lambda ctx: ctx.inputs.get_from("lambda", "x"), {"lambda"}),
    ],
)
def test_every_kind_of_runner_is_read(runner: object, expected: set[str]) -> None:
    assert reads(runner) == expected


def test_two_lambdas_on_one_line_are_not_guessed_at() -> None:
    # fmt: off
    one, other = lambda ctx: ctx.inputs.get_from("a", "x"), lambda ctx: ctx.inputs.get_from("b", "x")
    # fmt: on

    assert reads(one) == reads(other) == set()


@pytest.mark.spec("20.13.4")
def test_runners_without_source_are_skipped(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec("def unseen(ctx):\n    ctx.inputs.get_from('a', 'x')\n", namespace)
    broken = tmp_path / "broken.py"
    broken.write_text("def gone(ctx):\n    ctx.inputs.get_from('a', 'x')\n")
    exec(compile(broken.read_text(), str(broken), "exec"), namespace)
    broken.write_text("def gone(ctx:\n")

    assert reads(namespace["unseen"]) == set()
    assert reads(namespace["gone"]) == set()
    assert reads(len) == reads(3) == reads(None) == set()


@pytest.mark.spec("20.13.6")
def test_a_file_is_parsed_once_for_all_its_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = ast.parse

    def counting(text: str) -> ast.Module:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(ast, "parse", counting)
    sources = RunnerSources()

    for runner in (plain, Overriding, Calling(), plain):
        assert sources.reads_of(runner)

    assert len(parsed) == 1
