"""Stages that every turn needs: words out of audio, audio out of words, and the way out."""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import Any, Protocol, cast, final

import attrs

from actorflow.errors import InvalidTypeError
from actorflow.model import AudioChunk, AudioFormat, StageKind, StageOutput
from actorflow.providers import SpeechPiece, SpeechToText, TextToSpeech
from actorflow.server import Turn
from actorflow.stages import StageContext

from ._rates import RateConverter, Resample, converter
from ._sentences import SentenceCutter
from ._user_turn import user_turn


class _Closable(Protocol):
    async def aclose(self) -> None: ...


@final
@attrs.frozen
class Spoken:
    """Words of an answer, and the beginning of the audio that speaks them."""

    text: str
    audio: SpeechPiece | bytes = attrs.field(repr=False)

    @property
    def duration_ms(self) -> float:
        """How long the audio plays, if it says so; edges between stages ask."""
        duration_ms: float = getattr(self.audio, "duration_ms", 0.0)
        return duration_ms


@final
class TranscribeStage:
    """Turns what the user said into `text`, with its `confidence`, and tells the client.

    What the user wrote is passed on as it is. Where nothing was understood there is
    nothing to answer: the run is cancelled.
    """

    name = "transcribe"
    kind = StageKind.TRANSFORM

    def __init__(self, recognizer: SpeechToText, **options: Any) -> None:
        """Ask `recognizer`; `options` are given to it with each call."""
        self._recognizer = recognizer
        self._options = options

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Write down the utterance of the turn."""
        said = user_turn(ctx)
        utterance = said.utterance
        if utterance is None:
            return StageOutput.ok(text=said.text, confidence=1.0)
        heard = await self._recognizer.transcribe(
            utterance.audio, sample_rate=utterance.sample_rate, **self._options
        )
        text = heard.text.strip()
        if not text:
            return StageOutput.cancel("nothing was understood")
        await said.understood(text, confidence=heard.confidence)
        return StageOutput.ok(text=text, confidence=heard.confidence)


@final
class SpeakStage:
    """Speaks the text that streams in, sentence by sentence.

    Each sentence goes out with the beginning of its audio, a `Spoken`, then comes the
    rest: so it is known later which words were heard.
    """

    name = "speak"
    kind = StageKind.TRANSFORM

    def __init__(self, synthesizer: TextToSpeech, **options: Any) -> None:
        """Let `synthesizer` speak; `options` are given to it with each sentence."""
        self._synthesizer = synthesizer
        self._options = options

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Speak until the text ends."""
        cutter = SentenceCutter()
        characters = 0
        async for piece in ctx.stream():
            characters += len(piece)
            for sentence in cutter.cut(piece):
                await self._speak(ctx, sentence)
        for sentence in cutter.last():
            await self._speak(ctx, sentence)
        return StageOutput.ok(characters=characters)

    async def _speak(self, ctx: StageContext, sentence: str) -> None:
        if not sentence.strip():
            await ctx.send(sentence)
            return
        words: str | None = sentence
        pieces = self._synthesizer.stream(sentence, **self._options)
        # Generators want to be closed, also when sending fails; other iterators cannot.
        is_closable = hasattr(pieces, "aclose")
        async with aclosing(cast("_Closable", pieces)) if is_closable else nullcontext():
            async for piece in pieces:
                await ctx.send(piece if words is None else Spoken(words, piece))
                words = None
        if words is not None:
            await ctx.send(words)


@final
class ToClientStage:
    """Sends the answer to the client: the end of the line."""

    def __init__(self, resample: Resample | None) -> None:
        self._resample = resample

    async def execute(self, ctx: StageContext) -> StageOutput:
        """Send what streams in until it ends."""
        said = user_turn(ctx)
        assert said.turn is not None  # only a session runs this stage
        assert said.session is not None
        mouth = _Mouth(said.turn, said.session.audio.sample_rate, self._resample)
        is_text = False
        async for item in ctx.stream():
            match item:
                case str():
                    await mouth.flush()
                    await said.turn.send_text(item)
                case Spoken(words, audio):
                    await mouth.flush()
                    await mouth.say(audio, words)
                case _:
                    await mouth.say(item)
            is_text = is_text or isinstance(item, str | Spoken)
        await mouth.flush()
        if is_text:
            await said.turn.send_text("", is_final=True)
        return StageOutput.ok(audio_ms=said.turn.playback.sent_ms)


@final
class _Mouth:
    """Audio of any rate, sent at that of the session."""

    def __init__(self, turn: Turn, rate: int, resample: Resample | None) -> None:
        self._turn = turn
        self._rate = rate
        self._resample = resample
        self._from_rate = rate
        self._converter: RateConverter = converter(rate, rate, None)
        # They wait for the first samples that the converter gives out.
        self._words: str | None = None

    async def say(self, piece: SpeechPiece | bytes, words: str | None = None) -> None:
        """Send a piece of audio, and the words that begin in it with its first samples.

        The turn looks whether the audio fits.
        """
        if not isinstance(piece, bytes) and not hasattr(piece, "data"):
            raise InvalidTypeError("an item of the answer", piece, "a text or audio")
        if isinstance(piece, bytes) or not self._needs_conversion(piece):
            await self.flush()
            await self._turn.send_audio(piece, text=words)
            return
        if piece.sample_rate != self._from_rate:
            await self.flush()
            self._converter = converter(piece.sample_rate, self._rate, self._resample)
            self._from_rate = piece.sample_rate
        self._words = words or self._words
        await self._send(self._converter.convert(piece.data))

    def _needs_conversion(self, piece: SpeechPiece) -> bool:
        is_of_one_voice = piece.channels == 1 and piece.format == AudioFormat.PCM_16
        return piece.sample_rate != self._rate and is_of_one_voice

    async def flush(self) -> None:
        """Send what the converter holds back: it belongs before what comes next."""
        await self._send(self._converter.flush())
        if self._words is not None:
            words, self._words = self._words, None
            await self._turn.send_text(words)

    async def _send(self, samples: bytes) -> None:
        if samples:
            words, self._words = self._words, None
            await self._turn.send_audio(AudioChunk(samples, self._rate), text=words)
