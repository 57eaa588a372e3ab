from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actorflow import cli

pytest.importorskip("cyclopts")

VOICE = """
from actorflow.pipeline import Pipeline, stage

async def idle(ctx): ...

voice = Pipeline.from_stages(
    stage("stt", idle), stage("größe", idle, after=("stt", "lost"), kind="agent"), name="voice"
)

def make():
    return voice.with_name("made")
"""

MERMAID = """\
---
title: voice
---
flowchart TD
    s0["stt"]
    s1("größe")
    s2["lost (missing)"]
    s0 --> s1
    s2 --> s1
"""

Graph = Callable[..., tuple[int, str, str]]


@pytest.fixture
def graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Graph:
    """Run `actorflow graph` in a directory with a file voice.py."""
    monkeypatch.chdir(tmp_path)
    Path("voice.py").write_text(VOICE, "utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["actorflow", "graph", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return (caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install_dot(directory: Path, script: str) -> None:
    """Put a program there that answers for Graphviz."""
    program = directory / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n", "utf-8")
    program.chmod(0o755)


@pytest.mark.spec("20.14.7", "20.14.5")
def test_mermaid_goes_to_the_terminal(graph: Graph) -> None:
    assert graph("voice.py") == (0, MERMAID, "")
    assert graph("voice.py:voice", "--direction", "LR")[1] == MERMAID.replace("TD", "LR")


@pytest.mark.spec("20.14.7")
def test_pipeline_of_a_function_is_drawn_on_request(graph: Graph) -> None:
    assert graph("voice.py", "--call", "make")[1] == MERMAID.replace("voice", "made")


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_mermaid_and_dot_go_to_files(graph: Graph, option: str) -> None:
    assert graph("voice.py", option, "voice.mmd") == (0, "", "wrote voice.mmd\n")
    assert graph("voice.py", option, "voice.dot") == (0, "", "wrote voice.dot\n")

    assert Path("voice.mmd").read_text("utf-8") == MERMAID
    assert Path("voice.dot").read_text("utf-8").startswith("digraph {")


ECHO = "sys.stdout.buffer.write(sys.argv[1].encode() + b' ' + sys.stdin.buffer.read())"


@pytest.mark.skipif(os.name != "posix", reason="a script is no program on this system")
@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_pictures_are_made_by_graphviz(graph: Graph, programs: Path, kind: str) -> None:
    install_dot(programs, ECHO)

    written = graph("voice.py", "-o", f"voice.{kind}", "--direction", "LR")

    assert written == (0, "", f"wrote voice.{kind}\n")
    given, _, dot = Path(f"voice.{kind}").read_text("utf-8").partition(" ")
    assert given == f"-T{kind}"
    assert dot.startswith("digraph {")
    assert "rankdir=LR" in dot
    assert 'label="größe"' in dot


@pytest.mark.skipif(os.name != "posix", reason="a script is no program on this system")
def test_failure_of_graphviz_is_passed_on(graph: Graph, programs: Path) -> None:
    install_dot(programs, "sys.exit(print('no cairo here', file=sys.stderr) or 3)")

    code, out, err = graph("voice.py", "-o", "voice.png")

    assert (code, out) == (1, "")
    assert err.startswith(
        "actorflow: the program 'dot' could not make a PNG (exit code 3): no cairo here\n"
    )
    assert not Path("voice.png").exists()


@pytest.mark.usefixtures("programs")
def test_without_graphviz_it_says_what_to_install(graph: Graph) -> None:
    code, out, err = graph("voice.py", "-o", "voice.svg")

    assert (code, out) == (1, "")
    assert err.splitlines()[:2] == [
        "actorflow: the program 'dot' is not installed, so there can be no SVG",
        "fix: Install Graphviz (apt-get install graphviz, brew install graphviz), or write .mmd.",
    ]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_understands_what_it_is_given(graph: Graph) -> None:
    assert graph("voice.py", "-o", "voice.svg")[0] == 0
    assert graph("voice.py", "-o", "voice.png")[0] == 0

    assert ">größe</text>" in Path("voice.svg").read_text("utf-8")
    assert Path("voice.png").read_bytes().startswith(b"\x89PNG")


def test_other_endings_are_a_wrong_command_line(graph: Graph) -> None:
    code, out, err = graph("voice.py", "-o", "voice.txt")

    assert (code, out) == (2, "")
    assert "must be one of .mmd, .dot, .svg, .png, .pdf" in " ".join(err.replace("│", "").split())


@pytest.mark.spec("20.14.7")
def test_directions_are_checked(graph: Graph) -> None:
    assert graph("voice.py", "--direction", "down")[0] == 2


def test_file_that_cannot_be_written_is_no_traceback(graph: Graph) -> None:
    code, out, err = graph("voice.py", "-o", "no/such/place.mmd")

    assert (code, out) == (1, "")
    assert err.startswith("actorflow: --output must be a file that can be written")


@pytest.mark.parametrize(
    ("addition", "target", "problem"),
    [
        ("", "gone.py", "there is no such file"),
        ("del voice", "voice.py", "it has no pipeline at the top level"),
        ("other = make()", "voice.py", "it has several pipelines: voice, other"),
    ],
)
def test_target_without_exactly_one_pipeline_ends_with_two(
    graph: Graph, addition: str, target: str, problem: str
) -> None:
    Path("voice.py").write_text(VOICE + addition, "utf-8")

    code, out, err = graph(target)

    assert (code, out) == (2, "")
    assert err.startswith(f"actorflow: {target} cannot be used: {problem}\n")
