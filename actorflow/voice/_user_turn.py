from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from actorflow.errors import InvalidArgumentError, NotInVoiceTurnError

from ._listening import Utterance

if TYPE_CHECKING:
    from actorflow.server import Session, Turn
    from actorflow.stages import StageContext


@final
class UserTurn:
    """What the user wants in one turn, for the stages that answer.

    Made by hand, with an utterance or a text, it lets a turn pipeline run without a
    session: `pipeline.run(ports=turn_ports(UserTurn(...)))`.
    """

    def __init__(
        self,
        utterance: Utterance | None = None,
        text: str | None = None,
        *,
        session: Session | None = None,
        turn: Turn | None = None,
    ) -> None:
        if (utterance is None) is (text is None):
            raise InvalidArgumentError("text", text, "given, or an utterance, and not both")
        self.utterance: Final = utterance
        """What the user said; None when they wrote."""
        self.text: Final = text
        """What the user wrote; None when they spoke."""
        self.session: Final = session
        self.turn: Final = turn
        self.understood_text = text
        """What the user said in words, as far as is known: what memory keeps of it."""
        self._holds = 0

    async def understood(
        self, text: str, *, is_final: bool = True, confidence: float | None = None
    ) -> None:
        """Tell the client what was understood; the final text is what will be remembered."""
        if is_final:
            self.understood_text = text
        if self.turn is None:
            await trio.lowlevel.checkpoint()
        else:
            await self.turn.send_transcript(text, is_final=is_final, confidence=confidence)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Listen to nobody while the block lasts, so that speech interrupts nothing.

        What a client asks for by `interrupt` is done all the same.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    @property
    def is_uninterrupted(self) -> bool:
        """Whether a block of `uninterrupted` lasts, and what it protects goes on."""
        return self._holds > 0 and (self.turn is None or not self.turn.is_over)


@final
class _TurnPorts:
    def __init__(self, user_turn: UserTurn, others: Any) -> None:
        self.user_turn: Final = user_turn
        self._others = others

    def __getattr__(self, name: str) -> Any:
        # Copying asks for special names before there is anything to look at.
        if name.startswith("_") or self._others is None:
            raise AttributeError(name)
        return getattr(self._others, name)


def turn_ports(user_turn: UserTurn, others: Any = None) -> Any:
    """The ports of a run that answers: the user's turn, and what `others` has."""
    return _TurnPorts(user_turn, others)


def user_turn(ctx: StageContext) -> UserTurn:
    """What the user wants, in a stage of a pipeline that answers.

    Raises:
      NotInVoiceTurnError: if the run was not started for a user's turn.
    """
    found = getattr(ctx.ports, "user_turn", None)
    if not isinstance(found, UserTurn):
        raise NotInVoiceTurnError(ctx.stage_name)
    return found
