"""The commands. A command's module is imported when its command is called."""

from __future__ import annotations

from cyclopts import App

from actorflow._version import __version__

app = App(name="actorflow", help="Supervised pipelines on trio.", version=__version__)

app.command("actorflow.cli._demo:demo", help="Watch supervisors at work for ten seconds.")
