"""The commands. A command's module is imported when its command is called."""

from __future__ import annotations

from cyclopts import App

from actorflow._version import __version__

app = App(name="actorflow", help="Supervised pipelines on trio.", version=__version__)

app.command(
    "actorflow.cli._demo:demo", help="See pipelines and supervisors at work for ten seconds."
)
app.command(
    "actorflow.cli._lint:lint",
    help="Find mistakes in pipelines without running them.",
    help_epilogue="Exit codes: 0 nothing is wrong, 1 there are errors (with --strict also"
    " warnings), 2 a target cannot be used.",
)
app.command(
    "actorflow.cli._graph:graph",
    help="Draw a pipeline, which need not be valid.",
    help_epilogue="Exit codes: 0 done, 1 the picture could not be made, 2 the target cannot"
    " be used.",
)
app.command("actorflow.cli._events:events", help="Show, follow or count the events of a file.")
app.command("actorflow.cli._events:timeline", help="Draw the runs of a file of events over time.")
app.command(
    "actorflow.cli._run:run",
    help="Run a pipeline and show what its stages returned.",
    help_epilogue="Exit codes: 0 the run completed, 1 it failed, 2 the target cannot be used,"
    " 3 it was canceled by a stage, 130 it was interrupted.",
)
app.command(
    "actorflow.cli._doctor:doctor",
    help="Look at this installation: what is there, and what is missing.",
    help_epilogue="Exit codes: 0 everything required is there, 1 something is missing or too old.",
)
