"""`actorflow demo`: a small supervision tree and what can happen to it.

A microphone says words, a translator shouts them and a speaker says them aloud.
Beside them a link to a weather service breaks now and then.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
from typing import Final, final

import attrs
import trio
from rich.console import Console

from actorflow.actors import (
    Actor,
    ActorEnded,
    ActorRef,
    ActorStarted,
    Backoff,
    Child,
    Inbox,
    Notice,
    RestartPlanned,
    Supervisor,
    SupervisorGaveUp,
    System,
    open_system,
)

from ._demo_view import View, open_view

SECONDS: Final = 9.0
WORDS: Final = ("trees", "of", "actors", "mend", "themselves")
GARBLED: Final = "#?!"
FAREWELL: Final = WORDS * 2


@final
@attrs.define
class Conversation:
    """Who says what, and a count of it."""

    said: int = 0
    heard: int = 0

    async def microphone(self, inbox: Inbox[None]) -> None:
        translator = inbox.ctx.system["voice/translator"]
        words = itertools.cycle(WORDS)
        script = itertools.chain(itertools.islice(words, 12), [GARBLED], words)
        with inbox.ctx.until_stop():
            while True:
                await self._say(next(script), translator)
                await trio.sleep(0.15)
        # The last words come at once, so the translator stops with a full mailbox.
        for word in FAREWELL:
            await self._say(word, translator)

    async def _say(self, word: str, listener: ActorRef[str]) -> None:
        self.said += 1
        await listener.tell(word)

    async def speaker(self, inbox: Inbox[str]) -> None:
        async for _ in inbox:
            self.heard += 1


@final
class Translator(Actor[str]):
    async def on_start(self) -> None:
        self.speaker = self.ctx.system["voice/speaker"]

    async def receive(self, word: str) -> None:
        if word == GARBLED:
            raise ValueError(f"cannot translate {word!r}")
        await trio.sleep(0.08)
        await self.speaker.tell(word.upper())


@final
@attrs.define
class WeatherService:
    """Serves its first caller for a while, refuses the next two, and is well again."""

    calls: int = 0

    async def connect(self) -> float:
        """Return how long the connection will last."""
        self.calls += 1
        await trio.sleep(0.2)
        if self.calls in {2, 3}:
            raise ConnectionRefusedError("the weather service is away")
        return 4.3 if self.calls == 1 else math.inf


@final
class Link(Actor[None]):
    def __init__(self, service: WeatherService) -> None:
        self._service = service

    async def on_start(self) -> None:
        self._lasts = await self._service.connect()

    async def run(self, inbox: Inbox[None]) -> None:
        with inbox.ctx.until_stop():
            await trio.sleep(self._lasts)
            raise ConnectionResetError("the weather service hung up")


def family(conversation: Conversation) -> tuple[Child[None], ...]:
    """The tree of the demo. Sinks start first, so that sources stop first."""
    service = WeatherService()
    voice = Supervisor(
        Child("speaker", conversation.speaker),
        Child("translator", Translator, capacity=20, backoff=Backoff(base=1.2)),
        Child("microphone", conversation.microphone, restart="transient"),
    )
    weather = Supervisor(
        Child("link", lambda: Link(service), backoff=Backoff(base=0.4)), max_restarts=2, window=10
    )
    return Child("voice", voice), Child("weather", weather)


OPENING: Final = "Words travel from actor to actor; supervisors look on."
CLOSING: Final = "An orderly stop: what started last ends first, and mailboxes are emptied."


def caption_of(notice: Notice) -> str | None:
    """What a notice means, for someone who sees supervisors at work for the first time."""
    match notice:
        case RestartPlanned(actors=("voice/translator",)):
            return "The translator crashed on one word. The others wait in its mailbox."
        case ActorStarted(actor="voice/translator"):
            return "It is back, and finds its mail as it was left."
        case ActorEnded(actor="weather/link", incarnation=1):
            return "The link broke, and cannot be mended yet. Every wait is twice the last."
        case SupervisorGaveUp():
            return "That was once too often: the supervisor gives up and leaves it to its parent."
        case ActorStarted(actor="weather"):
            return "A fresh supervisor and a fresh link: all is well again."
        case _:
            return None


async def play(console: Console) -> None:
    """Run the tree, show what happens to it, and sum up."""
    conversation = Conversation()
    with open_view(console) as view:
        async with trio.open_nursery() as beside:
            async with open_system(*family(conversation)) as system:
                system.subscribe(lambda notice: show(notice, view))
                beside.start_soon(redraw, system, view)
                view.caption(OPENING)
                await trio.sleep(SECONDS)
                view.caption(CLOSING)
            beside.cancel_scope.cancel()
    numbers = system.statistics()
    console.print(
        f"{conversation.said} words said, {conversation.heard} heard, "
        f"{sum(numbers.dead_letters.values())} lost with the crash; {numbers.restarts} restarts.",
        highlight=False,
    )


def show(notice: Notice, view: View) -> None:
    view.note(notice)
    if caption := caption_of(notice):
        view.caption(caption)


async def redraw(system: System, view: View) -> None:
    try:
        while True:
            view.draw(system.tree())
            await trio.sleep(0.1)
    finally:
        # Cancelled when the system is closed, also by Ctrl-C: leave the end standing.
        view.draw(system.tree())


def demo() -> None:
    """Watch supervisors at work for ten seconds.

    A translator crashes on one word and comes back to a full mailbox. A link
    fails until its supervisor gives up and is started afresh by its own. Then
    everything stops in order, as it does on Ctrl-C.
    """
    # The crashes are the show; their tracebacks are for whoever runs a system.
    logging.getLogger("actorflow").addHandler(logging.NullHandler())
    console = Console()
    interrupted = False
    try:
        trio.run(play, console)
    except* KeyboardInterrupt:
        # Not left from here: what leaves `except*` may be put into a group.
        interrupted = True
    if interrupted:
        console.print("Interrupted, and stopped in order.")
        sys.exit(130)
