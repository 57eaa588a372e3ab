from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, final
from uuid import NAMESPACE_URL, UUID, uuid5

import attrs
import trio

from actorflow.actors import ActorRef, Child, Inbox, Supervisor
from actorflow.errors import AudioFormatMismatchError, InvalidArgumentError
from actorflow.memory import MemoryStore, exchange, write_entries
from actorflow.pipeline import Pipeline, stage
from actorflow.providers import SpeechDetector
from actorflow.server import ANONYMOUS, Principal, Session, Turn
from actorflow.stages import PipelineContext

from ._hearing import Hearing, hearing_pipeline
from ._listening import BargeIn, Endpointing, Utterance
from ._rates import Resample
from ._stages import ToClientStage
from ._user_turn import UserTurn, turn_ports

_log: Final = logging.getLogger("actorflow.voice")


@final
class VoiceApp:
    """An assistant that listens, answers, and stops when it is spoken into.

    One object serves all sessions. In each of them it listens to the microphone, and
    for each thing the user says or writes it runs `pipeline`: one run per turn, which
    is cancelled when the user speaks into the answer, interrupts, or goes away. The
    answer is the stream of the stage `says`: text is shown, audio is played. Text goes
    before the audio that speaks it.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        says: str,
        detector: Callable[[], SpeechDetector] | None = None,
        endpointing: Endpointing | None = None,
        barge_in: BargeIn | None = None,
        memory: MemoryStore | None = None,
        memory_timeout: float = 5.0,
        resample: Resample | None = None,
        filters: Iterable[tuple[str, Any]] = (),
        edge_ms: float = 1000.0,
        companions: Callable[[Session], Sequence[Child[Any]]] | None = None,
        ports: Any = None,
        max_restarts: int = 3,
        window: float = 5.0,
    ) -> None:
        """Describe the assistant.

        Args:
          pipeline: what answers; its stages find what the user wants with `user_turn`.
          says: the stage whose stream is the answer.
          detector: makes what tells speech from silence, one for each session. Without
            it the client says where an utterance ends (`end` with the scope `turn`).
          endpointing: where an utterance begins and ends.
          barge_in: when speech into an answer breaks it off.
          memory: where to keep what was said, and what was heard of the answers.
          memory_timeout: seconds that writing one exchange may take.
          resample: makes a converter of sample rates; needed where those of clients,
            detector and synthesizer differ.
          filters: pairs of name and stage between the microphone and the detector,
            each of which sends on the chunks that stream into it.
          edge_ms: how much audio may wait between two stages of `pipeline`, where they
            say nothing about that themselves.
          companions: what else works for a session, beside its turns.
          ports: services for the stages of `pipeline`.
          max_restarts: how often in `window` seconds hearing may break.
          window: see `max_restarts`.

        Raises:
          PipelineValidationError: if the stages do not fit together.
          InvalidArgumentError: for a time or a budget that cannot be.
        """
        if not memory_timeout > 0:
            raise InvalidArgumentError("memory_timeout", memory_timeout, "a number above 0")
        to_client = stage("to_client", ToClientStage(resample), stream_from=says)
        if resample is not None:
            # What it needs and what that takes is found out now rather than in a call.
            resample(8_000, 16_000)
        self._pipeline = _bounded(pipeline.with_stages(to_client), edge_ms)
        self._pipeline.validate()
        self._hearing = hearing_pipeline(filters)
        self._hearing.validate()
        self._detector = detector
        self._endpointing = endpointing or Endpointing()
        self._barge_in = barge_in or BargeIn()
        self._memory = memory
        self._memory_timeout = memory_timeout
        self._resample = resample
        self._companions = companions
        self._ports = ports
        self._supervisor = partial(Supervisor, max_restarts=max_restarts, window=window)
        # Without children it is of no use, but a budget that cannot be is refused now.
        self._supervisor()

    def on_session(self, session: Session) -> Supervisor:
        """Return what works for a session: who hears, who remembers, and companions."""
        call = session.app_data = _Call()
        groups: list[Child[Any]] = []
        if self._memory is not None:
            scribe = _Scribe(session, call, self._memory, self._memory_timeout)
            # It is stopped last, and then has something to write down.
            shutdown = self._memory_timeout + 1
            groups.append(Child("memory", scribe.keep, restart="transient", shutdown=shutdown))
        if self._companions is not None:
            groups += self._companions(session)
        if self._detector is not None:
            call.hearing = hearing = Hearing(
                session,
                self._detector,
                endpointing=self._endpointing,
                barge_in=self._barge_in,
                resample=self._resample,
            )
            # Nothing is owed to what nobody will answer, so it may be killed.
            live = partial(hearing.live, self._hearing)
            groups.append(Child("hearing", live, restart="transient", shutdown=0))
        return self._supervisor(*groups)

    async def on_turn(self, session: Session, turn: Turn) -> None:
        """Run the pipeline for what the user wants."""
        call: _Call = session.app_data
        said = await self._said_in(session, turn)
        if call.hearing is not None:
            call.hearing.user_turn = said
        await call.take_note(said, turn)
        utterance = said.utterance
        context = PipelineContext(
            **_identity_of(session, turn),
            input_text=said.text,
            input_audio_duration_ms=None if utterance is None else utterance.duration_ms,
            topology=self._pipeline.name,
            ports=turn_ports(said, self._ports),
            metadata={"turn_id": turn.id, "principal": session.principal.id},
        )
        await self._pipeline.run(
            context, event_sink=session.event_sink, cancel_token=turn.cancel_token
        )

    async def _said_in(self, session: Session, turn: Turn) -> UserTurn:
        prompt = turn.prompt
        if isinstance(prompt, str):
            return UserTurn(text=prompt, session=session, turn=turn)
        if not isinstance(prompt, Utterance):
            prompt = await self._listen(session, turn)
        return UserTurn(prompt, session=session, turn=turn)

    async def _listen(self, session: Session, turn: Turn) -> Utterance:
        """What the client says until it ends its input."""
        audio = session.audio
        if audio.channels != 1:
            raise AudioFormatMismatchError("audio", (audio.channels,), "one channel")
        limit_ms = self._endpointing.max_utterance_ms
        pieces: list[bytes] = []
        heard_ms = 0.0
        async for chunk in turn.audio():
            pieces.append(chunk.data)
            heard_ms += chunk.duration_ms
            if heard_ms >= limit_ms:
                return Utterance(b"".join(pieces), audio.sample_rate, ended_by="limit")
        return Utterance(b"".join(pieces), audio.sample_rate, ended_by="client")


@final
@attrs.frozen(eq=False)
class _Note:
    """A turn to be remembered."""

    said: UserTurn
    turn: Turn
    is_written: trio.Event = attrs.field(factory=trio.Event)


@final
class _Call:
    """What belongs to one session."""

    def __init__(self) -> None:
        self.hearing: Hearing | None = None
        self.scribe: ActorRef[_Note] | None = None
        self._latest: _Note | None = None

    async def take_note(self, said: UserTurn, turn: Turn) -> None:
        """Have a turn remembered when it is settled, and wait until the one before it is."""
        if self.scribe is None:
            return
        before, self._latest = self._latest, _Note(said, turn)
        await self.scribe.tell(self._latest)
        if before is not None:
            await before.is_written.wait()


@final
class _Scribe:
    """Writes down what was said and heard, turn by turn."""

    def __init__(self, session: Session, call: _Call, store: MemoryStore, timeout: float) -> None:
        self._session = session
        self._store = store
        self._timeout = timeout
        self._call = call

    async def keep(self, inbox: Inbox[_Note]) -> None:
        """Write down one turn after the other until the session is over and all are written."""
        self._call.scribe = inbox.ctx.ref
        async for note in inbox:
            try:
                with inbox.ctx.until_stop():
                    await note.turn.wait_settled()
                if not note.turn.is_settled:
                    # Something beside it gave up. A session that was over had settled its turns.
                    self._session.fail()
                await self._write(note)
            finally:
                note.is_written.set()

    async def _write(self, note: _Note) -> None:
        said, turn = note.said, note.turn
        playback = turn.playback
        # What was said to its end was heard to its end, apart from what is still playing.
        heard = playback.heard_text() if playback.is_closed else playback.heard_text(math.inf)
        entries = exchange(
            self._session.id,
            turn.run_id,
            said=said.understood_text,
            answered=heard,
            interrupted=playback.is_closed,
        )
        with trio.move_on_after(self._timeout) as patience:
            try:
                await write_entries(self._store, entries)
            except Exception:  # noqa: BLE001 - user code
                _log.exception("exchange_not_remembered", extra={"turn_id": turn.id})
        if patience.cancelled_caught:
            _log.warning("exchange_not_remembered_in_time", extra={"turn_id": turn.id})


def _bounded(pipeline: Pipeline, edge_ms: float) -> Pipeline:
    """The pipeline, with a bound in audio time on each edge that has none."""
    bounded = [
        spec.evolve(stream_ms=edge_ms)
        for spec in pipeline.stages
        if spec.stream_from and spec.stream_ms is None
    ]
    return pipeline.with_stages(*bounded, replace=True)


def _identity_of(session: Session, turn: Turn) -> dict[str, Any]:
    return {
        "pipeline_run_id": turn.run_id,
        "interaction_id": turn.run_id,
        "session_id": UUID(session.id),
        "user_id": _user_id_of(session.principal),
    }


def _user_id_of(principal: Principal) -> UUID | None:
    if principal == ANONYMOUS:
        return None
    named = str(principal.claims.get("user_id", principal.id))
    try:
        return UUID(named)
    except ValueError:
        # Runs know users by UUIDs; the same name always gets the same one.
        return uuid5(NAMESPACE_URL, f"actorflow:user:{named}")
