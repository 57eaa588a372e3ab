"""Speaking with programs of the system: espeak-ng and flite.

Each sentence is one short life of a program, some ten milliseconds long, so speech
begins after the first sentence, and nothing is left running between two pieces.
The text goes through a pipe: no shell reads it, and no list of processes shows it.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import wave
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, final

import trio

from actorflow.errors import InvalidArgumentError, ProgramError
from actorflow.model import AudioChunk

from ._soxr import Resampler

# Two of the pieces in which servers send audio.
PIECE_MS: Final = 80
FLITE_VOICES: Final = ("slt", "awb", "rms", "kal16", "kal")

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…;:])\s+")


class SpeechProgram(ABC):
    """A `TextToSpeech` made of a program. Subclasses say how the program is called."""

    program: str
    packages: str
    """How to get it."""

    def __init__(self, sample_rate: int) -> None:
        path = shutil.which(self.program)
        if path is None:
            problem = "is not installed, so it cannot speak"
            raise ProgramError(self.program, problem, f"Install it: {self.packages}.")
        self.sample_rate: Final = sample_rate
        """Of what is spoken, in hertz, whatever the rate of the voice."""
        self._path = path

    async def synthesize(self, text: str, **options: Any) -> bytes:
        """Return the whole of `text` as 16-bit samples of one channel.

        Cancelling it kills the program.

        Raises:
          ProgramError: if the program fails.
        """
        return b"".join([chunk.data async for chunk in self.stream(text, **options)])

    def stream(self, text: str, **options: Any) -> AsyncIterator[AudioChunk]:
        """Give the audio in pieces of 80 ms, sentence after sentence."""
        return _Speech(self, filter(None, _SENTENCE_END.split(text.strip())))

    async def say(self, sentence: str) -> bytes:
        """Speak one sentence at our rate."""
        # Half a sign, of a text cut in the wrong place, cannot be spoken.
        text = sentence.encode(errors="replace")
        rate, samples = _read_wave(await self._run(text))
        if rate == self.sample_rate:
            return samples
        resampler = Resampler(rate, self.sample_rate)
        return resampler.convert(samples) + resampler.flush()

    @abstractmethod
    async def _run(self, text: bytes) -> bytes:
        """Return what the program makes of a text: a WAV file."""

    async def _call(self, *arguments: str, text: bytes) -> bytes:
        try:
            done = await trio.run_process(
                [self._path, *arguments],
                stdin=text,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                deliver_cancel=_kill,
            )
        except OSError as error:
            problem = f"cannot be started: {error.strerror}"
            raise ProgramError(self.program, problem, f"Install it: {self.packages}.") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            problem = f"failed (exit code {done.returncode}): {said}"
            raise ProgramError(self.program, problem, "Look at the voice it was told to use.")
        return done.stdout


@final
class EspeakSynthesizer(SpeechProgram):
    """Speaks many languages with the program espeak-ng. Clear, and not at all human."""

    program = "espeak-ng"
    packages = "apt-get install espeak-ng, or brew install espeak-ng"

    def __init__(
        self, voice: str = "en-us", *, words_per_minute: int = 160, sample_rate: int = 16_000
    ) -> None:
        """Look for the program.

        Raises:
          ProgramError: if espeak-ng is not installed.
          MissingExtraError: if `sample_rate` is not that of its voices, 22,050, and soxr
            is not installed.
        """
        super().__init__(sample_rate)
        if sample_rate != 22_050:
            # Now, because importing what it needs would hold up a call later.
            Resampler(22_050, sample_rate)
        self._arguments = ("-v", voice, "-s", str(words_per_minute), "-b", "1")

    async def _run(self, text: bytes) -> bytes:
        return await self._call(*self._arguments, "--stdin", "--stdout", text=text)


@final
class FliteSynthesizer(SpeechProgram):
    """Speaks English with the program flite."""

    program = "flite"
    packages = "apt-get install flite, or brew install flite"

    def __init__(self, voice: str = "slt", *, sample_rate: int = 16_000) -> None:
        """Look for the program.

        Args:
          voice: one of ``slt``, ``awb``, ``rms`` and ``kal16``, which speak at 16,000 Hz,
            ``kal`` (8,000 Hz), or the path of a file ``.flitevox``.
          sample_rate: what is spoken is brought to this rate, which needs the extra
            ``voice`` if the voice has another.

        Raises:
          InvalidArgumentError: if there is no such voice. Flite would take another.
          ProgramError: if flite is not installed.
        """
        super().__init__(sample_rate)
        if voice not in FLITE_VOICES and not Path(voice).is_file():
            expected = f"one of {', '.join(FLITE_VOICES)}, or a file"
            raise InvalidArgumentError("voice", voice, expected)
        self._voice = voice

    async def _run(self, text: bytes) -> bytes:
        # Into a file: flite reads in what it has written, which a pipe does not allow.
        with tempfile.TemporaryDirectory(prefix="actorflow-") as directory:
            file = trio.Path(directory, "speech.wav")
            await self._call("-voice", self._voice, "-f", "/dev/stdin", "-o", str(file), text=text)
            return await file.read_bytes()


async def _kill(process: trio.Process) -> None:
    process.kill()


def _read_wave(data: bytes) -> tuple[int, bytes]:
    # What is written to a pipe claims to be longer than it is; there it just ends.
    with wave.open(io.BytesIO(data)) as file:
        return file.getframerate(), file.readframes(file.getnframes())


@final
class _Speech:
    # Not an async generator: whoever stops listening in the middle owes it nothing.

    def __init__(self, program: SpeechProgram, sentences: Iterator[str]) -> None:
        self._program = program
        self._sentences = sentences
        self._rest = b""
        self._sequence = 0
        self._ends_at_ms = 0.0

    def __aiter__(self) -> _Speech:
        return self

    async def __anext__(self) -> AudioChunk:
        await trio.lowlevel.checkpoint()
        rate = self._program.sample_rate
        while not self._rest:
            sentence = next(self._sentences, None)
            if sentence is None:
                raise StopAsyncIteration
            self._rest = await self._program.say(sentence)
        size = 2 * rate * PIECE_MS // 1000
        piece, self._rest = self._rest[:size], self._rest[size:]
        chunk = AudioChunk(piece, rate, timestamp_ms=self._ends_at_ms, sequence=self._sequence)
        self._sequence += 1
        self._ends_at_ms += chunk.duration_ms
        return chunk
