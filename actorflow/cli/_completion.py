"""`actorflow completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import sys
from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
    """Print a script that lets a shell complete commands and options.

    `actorflow --install-completion` puts it where your shell looks for it.

    Args:
        shell: The shell it is for.
    """
    from ._app import app

    sys.stdout.write(app.generate_completion(shell=shell))
