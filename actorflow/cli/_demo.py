"""`actorflow demo`: two runs, and what can happen to them.

The first one answers a question. It is understood while it is still being asked, an archive
crashes and comes back, a guard sends a draft back, and translations are pipelines of their
own. The second one is cancelled, with everything below it.
"""

from __future__ import annotations

import logging
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import attrs
import trio
from rich.console import Console

from actorflow.actors import (
    Actor,
    ActorRef,
    Backoff,
    Child,
    Reply,
    Supervisor,
    System,
    open_system,
)
from actorflow.errors import ActorCrashedError, UnifiedPipelineCancelled
from actorflow.events import (
    AnalyticsSink,
    BufferedExporter,
    EventSink,
    JSONFileExporter,
    TeeEventSink,
    read_events,
    timeline_of,
    timeline_svg,
    timeline_text,
)
from actorflow.interceptors import RetryPolicy
from actorflow.model import StageOutput
from actorflow.pipeline import GuardRetryPolicy, GuardRetryStrategy, Pipeline, stage
from actorflow.stages import StageContext

from ._demo_view import View, open_view
from ._interrupts import INTERRUPTED, Interrupts, waiting_for
from ._screen import Screen

QUESTION: Final = "Why do trees of actors live so long?"
DRAFTS: Final = (
    "Obviously because their supervisors mend them.",
    "Because somebody above always mends what breaks below.",
)


# Actors that stages ask


@final
@attrs.frozen
class Ask:
    question: str
    reply: Reply[str]


@final
@attrs.define
class Disk:
    """Breaks when it is read for the first time, and works from then on."""

    reads: int = 0

    async def read(self) -> str:
        self.reads += 1
        await trio.sleep(0.6)
        if self.reads == 1:
            raise OSError("the disk does not answer")
        return "supervisors"


@final
class Archive(Actor[Ask]):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def receive(self, message: Ask) -> None:
        message.reply.send(await self._disk.read())


@final
class Memory(Actor[Ask]):
    async def receive(self, message: Ask) -> None:
        await trio.sleep(1.8)
        message.reply.send("we talked about trees")


@final
@attrs.frozen
class Desk:
    """What stages of the demo find in `ctx.ports`."""

    memory: ActorRef[Ask]
    archive: ActorRef[Ask]


def services() -> Child[None]:
    """The actors of the demo, below a supervisor of their own."""
    disk = Disk()
    return Child(
        "services",
        Supervisor(
            Child("memory", Memory),
            Child("archive", lambda: Archive(disk), backoff=Backoff(base=1.6)),
        ),
    )


# The run that answers


@stage
async def listen(ctx: StageContext) -> None:
    for word in (ctx.snapshot.input_text or "").split():
        await trio.sleep(0.2)
        await ctx.send(word)


@stage(stream_from="listen", stream_buffer=2)
async def hear(ctx: StageContext) -> dict[str, str]:
    words = []
    async for word in ctx.stream():
        ctx.try_emit_event("demo.heard", {"word": word})
        words.append(word)
    return {"question": " ".join(words)}


@stage(after="hear")
async def remember(ctx: StageContext) -> dict[str, str]:
    return {"context": await _asked(ctx, ctx.ports.memory)}


@stage(after="hear")
async def feel(_: StageContext) -> dict[str, str]:
    await trio.sleep(1.0)
    return {"mood": "curious"}


@final
class LookUp:
    """Asks the archive, and once more if it crashes."""

    retry_policy = RetryPolicy(
        max_attempts=3, base_delay_ms=400, jitter_strategy="none", retry_on=(ActorCrashedError,)
    )

    async def execute(self, ctx: StageContext) -> dict[str, str]:
        return {"fact": await _asked(ctx, ctx.ports.archive)}


async def _asked(ctx: StageContext, service: ActorRef[Ask]) -> str:
    question = ctx.inputs.get("question")
    return await service.ask(lambda reply: Ask(question, reply))


@stage(after=("remember", "feel", "look_up"), join="all")
async def write(ctx: StageContext) -> dict[str, str]:
    await trio.sleep(0.8)
    # A language model would be told what the guard has found; this writer has two drafts.
    return {"text": DRAFTS[ctx.attempt - 1]}


@stage(kind="guard", after="write")
async def modest(ctx: StageContext) -> StageOutput:
    await trio.sleep(0.5)
    if "Obviously" in ctx.inputs.get("text"):
        return StageOutput.fail("nothing is obvious")
    return StageOutput.ok()


@stage
async def words(_: StageContext) -> dict[str, int]:
    await trio.sleep(0.8)
    return {"words": len(DRAFTS[-1].split())}


@stage(after="words")
async def grammar(_: StageContext) -> None:
    await trio.sleep(0.7)


translation = Pipeline.from_stages(words, grammar, name="translation")


@stage(after="modest")
async def translate(ctx: StageContext) -> None:
    async with trio.open_nursery() as nursery:
        for language in ("de", "fr"):
            nursery.start_soon(ctx.spawn_subpipeline, translation, language)


@stage(after=("write", "modest"), join="all")
async def say(ctx: StageContext) -> dict[str, str]:
    await trio.sleep(1.2)
    return {"said": ctx.inputs.get_from("write", "text")}


answer = Pipeline.from_stages(
    listen,
    hear,
    remember,
    feel,
    stage("look_up", LookUp(), after="hear"),
    write,
    modest,
    translate,
    say,
    name="answer",
    guard_retry_strategy=GuardRetryStrategy({"modest": GuardRetryPolicy("write", max_attempts=3)}),
)


# The run that is cancelled


@stage
async def sing(_: StageContext) -> None:
    try:
        await trio.sleep_forever()
    finally:
        # Cleaning up takes time, and the run waits for it.
        with trio.move_on_after(1, shield=True):
            await trio.sleep(0.6)


music = Pipeline.from_stages(sing, name="music")


@stage
async def ring(_: StageContext) -> None:
    await trio.sleep(0.5)


@stage(after="ring")
async def wait(_: StageContext) -> None:
    await trio.sleep_forever()


@stage(after="ring")
async def hold(ctx: StageContext) -> None:
    await ctx.spawn_subpipeline(music)


call = Pipeline.from_stages(ring, wait, hold, name="call")

# The demo


@final
@attrs.frozen
class Files:
    """What a demo leaves behind."""

    folder: Path

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def picture(self) -> Path:
        return self.folder / "timeline.svg"


async def play(console: Console, files: Files) -> bool:
    """Show both runs, and say whether somebody interrupted them."""
    async with AnalyticsSink(BufferedExporter(JSONFileExporter(files.events))) as log:
        with open_view(console) as view:
            scope = trio.CancelScope()
            interrupts = Interrupts(lambda: _stop(view, scope), console)
            with interrupts.caught():
                # Drawn until the last actor has stopped.
                async with trio.open_nursery() as beside:
                    async with open_system(services()) as system:
                        system.subscribe(view.note)
                        beside.start_soon(_redraw, view, system, console, scope)
                        with scope:
                            await _runs(system, view, TeeEventSink(view, log))
                    beside.cancel_scope.cancel()
            view.draw(system.tree())
    return interrupts.came


async def _runs(system: System, view: View, sink: EventSink) -> None:
    desk = Desk(system["services/memory"], system["services/archive"])
    async with answer.start(QUESTION, ports=desk, event_sink=sink) as run:
        view.follow(run)
        await run.wait()
    async with call.start(event_sink=sink) as run:
        view.follow(run)
        await trio.sleep(2.5)
        run.cancel("the caller hung up")
        with suppress(UnifiedPipelineCancelled):
            await run.wait()


def _stop(view: View, scope: trio.CancelScope) -> None:
    view.caption(waiting_for(view.busy()))
    view.cancel_run("interrupted")
    scope.cancel()


async def _redraw(view: View, system: System, console: Console, scope: trio.CancelScope) -> None:
    while True:
        view.draw(system.tree())
        if console.quiet:
            # Nobody looks any more.
            scope.cancel()
        await trio.sleep(0.1)


def demo() -> int:
    """See two pipelines at work for twelve seconds: what goes wrong, and what comes of it.

    Stages at the same time, a crash that a supervisor mends, a guard that sends a draft back,
    a streaming edge, pipelines in a pipeline, and a run that is cancelled. Ends
    with a picture of it all. Ctrl-C stops in order; a second one leaves at once.
    """
    # The crash is part of the show; its traceback is for whoever runs a system.
    logging.getLogger("actorflow").addHandler(logging.NullHandler())
    console = Screen(highlight=False)
    files = Files(Path(tempfile.mkdtemp(prefix="actorflow-demo-")))
    # Somebody may interrupt before there is an event.
    files.events.touch()
    interrupted = trio.run(play, console, files)
    if interrupted:
        console.print("Interrupted, and stopped in order.")
    _sum_up(console, files)
    return INTERRUPTED if interrupted else 0


def _sum_up(console: Console, files: Files) -> None:
    picture = timeline_of(read_events(files.events))
    files.picture.write_text(timeline_svg(picture), "utf-8")
    text = timeline_text(picture, console.width)
    console.print(f"\n{text}", soft_wrap=True, markup=False)
    console.print(f"picture  {files.picture}", soft_wrap=True)
    console.print(f"events   {files.events}", soft_wrap=True)
    console.print("\n`actorflow events FILE` and `actorflow timeline FILE` read them.")
