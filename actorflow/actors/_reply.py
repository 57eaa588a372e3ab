from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from actorflow.errors import ActorCrashedError, ActorStoppedError, AskTimeoutError, NoReplyError

from ._letters import DeadReason
from ._reasons import Crashed

if TYPE_CHECKING:
    from ._actor_cell import ActorCell
    from ._cell import Cell
    from ._reasons import Reason

T = TypeVar("T")

_OPEN = object()


@final
class Request:
    """A message whose sender waits for the answer, and the place where the answer goes.

    Completed exactly once: by the answer, by the end of the actor, by the
    deadline or by an asker who gave up. Whatever comes later changes nothing.
    """

    __slots__ = ("_value", "asker", "deadline", "deferred", "done", "error", "message", "target")

    def __init__(self, target: Cell, asker: ActorCell | None, deadline: float) -> None:
        self.target = target
        self.asker = asker
        self.deadline = deadline
        self.message: object = None
        self.deferred = False
        self.error: Exception | None = None
        self._value: object = _OPEN
        self.done = trio.Event()

    @property
    def is_open(self) -> bool:
        return self._value is _OPEN

    def complete(self, value: object, error: Exception | None = None) -> bool:
        """Settle the ask; tell whether this was the first time."""
        if self._value is not _OPEN:
            return False
        self._value = value
        self.error = error
        if self.deferred:
            self.target.deferred.discard(self)
        if self.asker is not None:
            self.asker.waiting_on = None
        self.done.set()
        return True

    async def answer(self) -> object:
        """Wait for the answer."""
        try:
            await self.done.wait()
            if self.error is not None:
                raise self.error
            return self._value
        finally:
            # The error's traceback leads back to this frame: break the cycle.
            self.error = None

    def expire(self, waited: float) -> None:
        self.complete(None, AskTimeoutError(self.target.path, waited))

    def handled(self) -> None:
        """The actor is done with the message; an answer has come, or is promised, or never will."""
        if self._value is _OPEN and not self.deferred:
            what = type(self.message).__name__
            self.complete(None, NoReplyError(self.target.path, what))

    def undelivered(self, dead: DeadReason, reason: Reason | None) -> None:
        """Nobody will handle the message; tell the asker why."""
        mailbox = self.target.mailbox
        if reason is not None:
            self.dropped(reason)
        elif dead is DeadReason.STOPPED:
            assert mailbox.closed is not None
            self.complete(None, ActorStoppedError(self.target.path, mailbox.closed))
        else:
            self.complete(None, mailbox.full())

    def dropped(self, reason: Reason) -> None:
        """The life that had it in hand, or had promised an answer, is over."""
        error = ActorCrashedError(self.target.path, str(reason))
        if isinstance(reason, Crashed):
            error.__cause__ = reason.error
        self.complete(None, error)


def message_of(item: object) -> object:
    """The message itself, whether or not its sender waits for an answer."""
    return item.message if type(item) is Request else item


@final
class Reply(Generic[T]):
    """Where the answer of one `ask` goes. The first answer counts, later ones are dropped."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __repr__(self) -> str:
        state = "open" if self.is_open else "done"
        return f"<Reply of {self._request.target.path}, {state}>"

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self._request.is_open

    def send(self, value: T) -> None:
        """Answer with `value`."""
        if not self._request.complete(value):
            self._request.target.core.late_answers += 1

    def fail(self, error: Exception) -> None:
        """Answer with an exception, which `ask` raises. The actor itself goes on."""
        if not self._request.complete(None, error):
            self._request.target.core.late_answers += 1

    def defer(self) -> None:
        """Promise to answer later, from another message or another task.

        Without the promise a request that was handled and not answered ends with
        `NoReplyError`. The promise holds for this life of the actor: if that ends
        before the answer, so does the ask.
        """
        request = self._request
        if request.is_open and not request.deferred:
            request.deferred = True
            request.target.deferred.add(request)
            # Anybody may answer now, so the asker no longer waits for this actor.
            if request.asker is not None:
                request.asker.waiting_on = None
