"""`actorflow graph`: a picture of a pipeline."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from actorflow.errors import InvalidArgumentError, ProgramError, TargetError
from actorflow.pipeline import to_dot, to_mermaid

from ._target import UNUSABLE, Target, find_pipeline
from ._tell import tell

_TEXTS: Final = {".mmd": to_mermaid, ".dot": to_dot}
_PICTURES: Final = (".svg", ".png", ".pdf")


def _check_ending(_: object, output: Path | None) -> None:
    endings = (*_TEXTS, *_PICTURES)
    if output is not None and output.suffix not in endings:
        raise ValueError(f"Its ending must be one of {', '.join(endings)}.")


def graph(
    target: str | Path,
    /,
    *,
    call: str | None = None,
    direction: Annotated[
        Literal["TD", "TB", "BT", "LR", "RL"], Parameter(show_default=True)
    ] = "TD",
    output: Annotated[Path | None, Parameter(alias="-o", validator=_check_ending)] = None,
    traceback: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Draw a pipeline, which need not be valid.

    Prints a Mermaid flowchart, which many pages show as a picture.

    Args:
        target: `file.py`, `file.py:variable`, `package.module` or `package.module:variable`.
        call: A function in the target that makes the pipeline.
        direction: Where the arrows lead: down (TD, TB), up (BT), right (LR) or left (RL).
        output: Write to this file; its ending says what: .mmd, .dot, or, with Graphviz
            installed, .svg, .png and .pdf.
        traceback: If the target cannot be used, show where in full.
    """
    try:
        pipeline = find_pipeline(Target.parse(str(target)), call)
    except TargetError as error:
        tell(error, in_full=traceback)
        return UNUSABLE
    if output is None:
        sys.stdout.write(to_mermaid(pipeline, direction=direction))
        return 0
    write = _TEXTS.get(output.suffix, to_dot)
    content = write(pipeline, direction=direction).encode()
    if output.suffix in _PICTURES:
        content = _drawn(content, output.suffix[1:])
    try:
        output.write_bytes(content)
    except OSError as error:
        expected = f"a file that can be written ({error.strerror})"
        raise InvalidArgumentError("--output", str(output), expected) from error
    print(f"wrote {output}", file=sys.stderr)
    return 0


def _drawn(dot: bytes, kind: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise ProgramError(
            "dot",
            f"is not installed, so there can be no {kind.upper()}",
            "Install Graphviz (apt-get install graphviz, brew install graphviz), or write .mmd.",
        )
    done = subprocess.run(  # noqa: S603 - the user's own Graphviz, and no shell
        [program, f"-T{kind}"], input=dot, capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ProgramError(
            "dot",
            f"could not make a {kind.upper()} (exit code {done.returncode}): {said}",
            "Look at what it was given: write a file ending in .dot.",
        )
    return done.stdout
