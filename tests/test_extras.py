"""What `import actorflow` costs, and that nobody pays for what they do not use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.test_layers import ROOT, declared_extras, required_packages

# 0.25 seconds where trio takes 0.06. A ratio, because it says the same on every
# machine; CPU time and the best of five, because neighbours disturb those least.
TIMES_TRIO = 4


def run_python(program: str) -> str:
    # Without bytecode on disk our modules would be compiled in every process,
    # those of installed packages in none.
    environment = {key: it for key, it in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    ).stdout


def test_import_pulls_in_no_optional_package() -> None:
    # Required packages may use an optional one of ours where it is installed, as structlog
    # uses rich; that is their business.
    required = ", ".join(sorted(required_packages()))
    program = (
        f"import sys, {required}; before = set(sys.modules)\n"
        "import actorflow; print(*set(sys.modules) - before)"
    )
    loaded = set(run_python(program).split())

    assert "actorflow" in loaded
    assert loaded.isdisjoint(set().union(*declared_extras().values()))


def cpu_seconds_to_import(module: str) -> float:
    program = (
        "import time; start = time.process_time()\n"
        f"import {module}\n"
        "print(time.process_time() - start)"
    )
    return min(float(run_python(program)) for _ in range(5))


def test_import_is_cheap_beside_trio() -> None:
    trio = cpu_seconds_to_import("trio")
    beyond = cpu_seconds_to_import("actorflow") - trio

    assert beyond < TIMES_TRIO * trio


def test_command_line_without_its_extra_says_what_to_install() -> None:
    # An entry of None makes the import fail as if the package were not there.
    program = (
        "import sys; sys.modules['cyclopts'] = None; sys.argv = ['actorflow', 'demo']\n"
        "from actorflow.cli import main; main()"
    )

    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_python(program)

    assert caught.value.returncode == 2
    assert caught.value.stdout == ""
    assert len(caught.value.stderr.splitlines()) == 1
    assert "pip install 'actorflow[cli]'" in caught.value.stderr
