"""Recognising sentences that are known beforehand, with pocketsphinx and its own model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, final

import trio

from actorflow import clock
from actorflow.errors import InvalidArgumentError, MissingExtraError
from actorflow.providers import STTResponse

from ._soxr import Resampler

RATE: Final = 16_000
# A thread looks after each of these whether it is still wanted: half a second of
# speech takes about ten milliseconds.
_PIECE: Final = RATE // 2 * 2
_FRAME_MS: Final = 10
_EXPECTED: Final = "a grammar in JSGF whose words are in the dictionary"
_WORD: Final = re.compile(r"[a-z']+")
# `and(2)` is the second way to say it.
_VARIANT: Final = re.compile(r"\(\d+\)$")


@final
class PocketsphinxRecognizer:
    """A `SpeechToText` that understands the sentences of a grammar, in US English.

    It decodes in a thread, one utterance after the other, some fifty times as fast as
    people speak. What is in the grammar is recognised well. What is not may be taken
    for what resembles it, or for nothing (an empty text): do not let it open doors.
    """

    def __init__(self, grammar: str) -> None:
        """Load the model, which takes some tenths of a second.

        Args:
          grammar: in JSGF, with one public rule. `for_phrases` writes a simple one.

        Raises:
          InvalidArgumentError: if the grammar is none, or has words the dictionary lacks.
          MissingExtraError: if pocketsphinx is not installed.
        """
        try:
            import pocketsphinx
        except ImportError:
            raise MissingExtraError("PocketsphinxRecognizer", "voice") from None
        self._decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
        try:
            self._decoder.add_jsgf_string("grammar", grammar)
            self._decoder.activate_search("grammar")
        except (ValueError, RuntimeError) as error:
            raise InvalidArgumentError("grammar", grammar, _EXPECTED) from error
        self._turn = trio.Lock()

    @classmethod
    def for_phrases(cls, phrases: Iterable[str]) -> PocketsphinxRecognizer:
        """A recogniser of these phrases, each as a whole.

        Upper case and punctuation do not matter. Numbers have to be written as they
        are spoken.

        Raises:
          InvalidArgumentError: if a phrase is empty or has a word the dictionary lacks.
          MissingExtraError: if pocketsphinx is not installed.
        """
        spoken = [" ".join(_WORD.findall(phrase.lower())) for phrase in phrases]
        rule = " | ".join(spoken)
        return cls(f"#JSGF V1.0;\ngrammar phrases;\npublic <phrase> = {rule};\n")

    async def transcribe(
        self, audio: bytes, *, language: str = "en", sample_rate: int = RATE, **options: Any
    ) -> STTResponse:
        """Write down which sentence of the grammar was said; none is an empty text.

        `audio` is 16-bit samples of one channel. A cancellation is noticed within some
        tens of milliseconds.

        Raises:
          InvalidArgumentError: if another language than English is asked for.
          MissingExtraError: if the rate is not 16,000 and soxr is not installed.
        """
        if language.partition("-")[0] != "en":
            raise InvalidArgumentError("language", language, "'en', which the model is made for")
        start = clock.monotonic()
        async with self._turn:
            text, confidence, words = await trio.to_thread.run_sync(
                self._decode, audio, sample_rate
            )
        return STTResponse(
            text,
            confidence=confidence,
            duration_ms=len(audio) / 2 / sample_rate * 1000,
            language=language,
            provider="pocketsphinx",
            model="en-us",
            latency_ms=(clock.monotonic() - start) * 1000,
            words=words,
        )

    def _decode(self, audio: bytes, sample_rate: int) -> tuple[str, float, list[dict[str, Any]]]:
        if sample_rate != RATE:
            resampler = Resampler(sample_rate, RATE)
            audio = resampler.convert(audio) + resampler.flush()
        decoder = self._decoder
        decoder.start_utt()
        try:
            for begin in range(0, len(audio), _PIECE):
                trio.from_thread.check_cancelled()
                decoder.process_raw(audio[begin : begin + _PIECE])
        finally:
            decoder.end_utt()
        found = decoder.hyp()
        if found is None:
            return "", 0.0, []
        words = [
            {
                "word": _VARIANT.sub("", it.word),
                "start_ms": it.start_frame * _FRAME_MS,
                "end_ms": (it.end_frame + 1) * _FRAME_MS,
            }
            for it in decoder.seg()
            if not it.word.startswith(("<", "[", "+"))
        ]
        # It is the product of many small errors of rounding.
        return found.hypstr, min(max(found.prob, 0.0), 1.0), words
