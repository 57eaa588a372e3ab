"""The command line, `actorflow COMMAND`. Needs the extra `cli`."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from actorflow.errors import ActorflowError, MissingExtraError

from ._lint_file import lint_pipeline_file as lint_pipeline_file
from ._tell import tell


def main() -> None:
    """Run the command that `sys.argv` names and exit.

    Exit codes: 0 done, 1 the command failed with an error of actorflow, 2 the
    command line was wrong or the extra is not installed, 130 it was interrupted;
    others are those of a command. ACTORFLOW_DEBUG=1 in the environment asks for tracebacks.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # Not every pipe can be told about arrows and dots; it gets a question mark for them.
        sys.stdout.reconfigure(errors="replace")
    try:
        from ._app import app
    except ModuleNotFoundError as missing:
        # A module of our own that cannot be found is a bug, not a missing extra.
        if (missing.name or "").startswith("actorflow"):
            raise
        error = MissingExtraError("the command line", "cli")
        print(f"actorflow: {error}: {error.fix_hint}", file=sys.stderr)
        sys.exit(2)
    try:
        app(sys.argv[1:])
    except ActorflowError as error:
        tell(error)
        sys.exit(1)
    except KeyboardInterrupt:
        # It came before there was a command to listen for it.
        sys.exit(130)
