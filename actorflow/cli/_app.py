"""The commands. A command's module is imported when its command is called."""

from __future__ import annotations

from cyclopts import App, CycloptsError, CycloptsPanel, Parameter, UnusedCliTokensError

from actorflow._version import __version__


def _panel_of(error: CycloptsError) -> object:
    """What is wrong with the command line; what a pipeline is given is often put in a wrong place."""
    chain = error.command_chain or ()
    is_input = isinstance(error, UnusedCliTokensError) and "run" in chain
    hint = "\nThe text that a run begins with goes after --input." if is_input else ""
    return CycloptsPanel(f"{error}{hint}")


app = App(
    name="actorflow",
    help="Supervised pipelines on trio.",
    help_epilogue="`actorflow COMMAND --help` has examples and exit codes. Set ACTORFLOW_DEBUG=1 to"
    " see the tracebacks of errors.",
    help_format="plaintext",
    version=__version__,
    error_formatter=_panel_of,
    # Most defaults are "no" and "nothing".
    default_parameter=Parameter(show_default=False),
)


def _add(function: str, summary: str, *examples: str, exits: str) -> None:
    lines = "".join(f"  {example}\n" for example in examples)
    app.command(
        f"actorflow.cli.{function}",
        help=summary,
        help_epilogue=f"Examples:\n{lines}\nExit codes: {exits}.",
    )


_add(
    "_demo:demo",
    "See pipelines and supervisors at work for twelve seconds.",
    "actorflow demo",
    exits="0 it was shown, 130 it was interrupted",
)
_add(
    "_run:run",
    "Run a pipeline and show what its stages returned.",
    'actorflow run support.py --input "Where is my invoice?"',
    "actorflow run support.py:pipeline --watch --events run.jsonl",
    "actorflow run support.py --json | jq .stages.answer.data",
    "actorflow run support.py --reload",
    exits="0 the run completed, 1 it failed, 2 the target cannot be used, 3 it was canceled by"
    " a stage, 130 it was interrupted",
)
_add(
    "_lint:lint",
    "Find mistakes in pipelines without running them.",
    "actorflow lint support.py",
    "actorflow lint support.py voice.pipelines:call --strict",
    "actorflow lint support.py --json | jq .issues",
    exits="0 nothing is wrong, 1 there are errors (with --strict also warnings), 2 a target"
    " cannot be used",
)
_add(
    "_graph:graph",
    "Draw a pipeline, which need not be valid.",
    "actorflow graph support.py",
    "actorflow graph support.py:pipeline --direction LR -o support.svg",
    exits="0 done, 1 the picture could not be made, 2 the target cannot be used",
)
_add(
    "_events:events",
    "Show, follow or count the events of a file.",
    "actorflow events run.jsonl --summary",
    "actorflow events run.jsonl --follow --type stage. --type tool.",
    "actorflow events run.jsonl --json | jq .event_type",
    exits="0 done, 1 the file cannot be read or holds no events",
)
_add(
    "_events:timeline",
    "Draw the runs of a file of events over time.",
    "actorflow timeline run.jsonl",
    "actorflow timeline run.jsonl -o run.svg",
    exits="0 done, 1 a file cannot be read or written, or has no such run",
)
_add(
    "_explain:explain",
    "Say what an error code means, and what to do about it.",
    "actorflow explain RUN-001-STAGE_FAILED",
    "actorflow explain",
    exits="0 done, 1 there is no such code",
)
_add(
    "_completion:completion",
    "Let a shell complete commands and options.",
    "actorflow --install-completion",
    "source <(actorflow completion bash)",
    exits="0 done",
)
_add(
    "_serve:serve",
    "Hold sessions over websockets with an application of a file.",
    "actorflow serve examples/voice_assistant.py",
    "actorflow serve support.py:app --host 0.0.0.0 --cert cert.pem --key key.pem",
    "actorflow serve support.py --phone /phone --events calls.jsonl",
    exits="0 it stopped in order, 1 it cannot listen or a file cannot be used, 2 the target"
    " cannot be used, 130 it was left at once by a second Ctrl-C",
)
_add(
    "_talk:talk",
    "Talk to a server of sessions, from a file, a text or the microphone.",
    "actorflow talk ws://127.0.0.1:8000 --wav question.wav --out answer.wav",
    "actorflow talk ws://127.0.0.1:8000 --text 'will it rain today' --json",
    "actorflow talk wss://voice.example.org --headphones",
    exits="0 something was answered, 1 the connection or an answer failed, 3 nothing was"
    " answered, 130 it was interrupted",
)
_add(
    "_doctor:doctor",
    "Look at this installation: what is there, and what is missing.",
    "actorflow doctor",
    "actorflow doctor --json",
    exits="0 everything required is there, 1 something is missing or too old",
)

app.register_install_completion_command(
    help="Let this shell complete commands and options: write the script and have it read."
)
