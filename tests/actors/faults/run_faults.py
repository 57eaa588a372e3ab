# ruff: noqa: T201  (telling is what it is for)
"""Seed the faults of `faults.toml` into copies of the kernel and see which the tests catch.

    python tests/actors/faults/run_faults.py [--jobs N] [--only PART-OF-A-FILE-OR-NAME]

Each fault gets a copy of the package and its tests in a temporary directory, so
the repository is never touched. A run that hangs counts as caught. The exit
status is 1 if a fault survives that is not marked as equivalent, or if one that
is marked is caught.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs

ROOT: Final = Path(__file__).parents[3]
PACKAGE: Final = Path("actorflow/actors")
# A few programs catch nearly everything, and shrinking them is for people.
PROFILE: Final = """
from hypothesis import Phase, settings

settings.register_profile(
    "faults", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
"""
# A test that takes longer than this, or twice as long as all of them without a fault, hangs.
LEAST: Final = 20.0


@attrs.frozen
class Fault:
    name: str
    file: str
    old: str
    new: str
    equivalent: str | None = None

    def apply(self, root: Path) -> None:
        """Seed the fault into the package under `root`."""
        path = root / PACKAGE / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise SystemExit(
                f"{self.name!r}: its text is in {self.file} {text.count(self.old)} times"
            )
        path.write_text(text.replace(self.old, self.new))


@attrs.frozen
class Verdict:
    fault: Fault
    caught_by: str | None
    seconds: float

    @property
    def is_expected(self) -> bool:
        return (self.caught_by is None) == (self.fault.equivalent is not None)

    def __str__(self) -> str:
        verdict = f"caught by {self.caught_by}" if self.caught_by else "SURVIVED"
        if self.fault.equivalent:
            verdict += f" (equivalent: {self.fault.equivalent})"
        return f"{self.seconds:4.0f} s  {self.fault.file}: {self.fault.name}: {verdict}"


def load() -> list[Fault]:
    with (Path(__file__).parent / "faults.toml").open("rb") as file:
        faults: list[dict[str, Any]] = tomllib.load(file)["fault"]
    return [Fault(**fault) for fault in faults]


def take_copy(copy: Path) -> None:
    """Copy what the tests of the kernel need. Later changes of the repository do not matter."""
    for part in ("actorflow", "tests/actors"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    conftest = (ROOT / "tests/conftest.py").read_text()
    (copy / "tests/conftest.py").write_text(conftest + PROFILE)


def judge(fault: Fault, sound: Path, longest: float) -> Verdict:
    """Run the tests on a copy of the `sound` copy with the fault in it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="actorflow-fault-") as name:
        copy = Path(name) / "copy"
        shutil.copytree(sound, copy)
        fault.apply(copy)
        verdict = Verdict(fault, run_tests(copy, longest), time.monotonic() - start)
    print(verdict, flush=True)
    return verdict


def run_tests(root: Path, longest: float) -> str | None:
    """Return the first failure, if any. No test may take `longest` seconds."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider",
        f"--override-ini=faulthandler_timeout={longest}", "--hypothesis-profile=faults",
        "tests/actors",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "ACTORFLOW_PROGRAMS": os.environ.get("ACTORFLOW_PROGRAMS", "150"),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=5 * longest,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "a run that hung"
    if done.returncode == 0:
        return None
    for line in done.stdout.splitlines():
        if line.startswith("FAILED "):
            return line.split(" ")[1].removeprefix("tests/actors/")
    if "Timeout (" in done.stderr:
        return "a test that hung"
    # The tests did not even begin: that says nothing about the fault.
    raise SystemExit(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of ``file: name`` of the faults to try")
    arguments = parser.parse_args()
    faults = [fault for fault in load() if arguments.only in f"{fault.file}: {fault.name}"]
    with tempfile.TemporaryDirectory(prefix="actorflow-sound-") as name:
        sound = Path(name) / "sound"
        take_copy(sound)
        start = time.monotonic()
        found = run_tests(sound, 300)
        longest = max(LEAST, 2 * (time.monotonic() - start))
        if found is not None:
            print(f"without any fault: {found}")
            return 2
        with ThreadPoolExecutor(arguments.jobs) as pool:
            verdicts = list(pool.map(lambda fault: judge(fault, sound, longest), faults))
    caught = sum(verdict.caught_by is not None for verdict in verdicts)
    equivalent = sum(verdict.fault.equivalent is not None for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} faults caught, {equivalent} known to be equivalent")
    wrong = [verdict for verdict in verdicts if not verdict.is_expected]
    if wrong:
        print("\nNot as expected:", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
