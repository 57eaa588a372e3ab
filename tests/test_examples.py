"""Every example runs by itself, within its time, and prints what it promises.

What it promises is the last part of its docstring, after the line `Prints:`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

from tests.test_layers import ROOT

EXAMPLES: Final = sorted((ROOT / "examples").glob("*.py"))
SECONDS: Final = 30


def promised(source: str) -> str:
    _, found, text = (ast.get_docstring(ast.parse(source)) or "").partition("\nPrints:\n")
    assert found, "the docstring of an example ends with `Prints:` and what it prints"
    return textwrap.dedent(text).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_promises(example: Path) -> None:
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
